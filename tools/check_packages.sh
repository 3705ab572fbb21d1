#!/usr/bin/env bash
# Packs every member as for a registry, unpacks it elsewhere, and builds and tests it from there: what is not in a package
# (weights, sample images, goldens) is not needed for that. A package above 10 MB would be refused by a registry.
set -euo pipefail
cd "$(dirname "$0")/.."
members=(ptxsim ptxsim-cuda musc musc-cli)
cargo package --locked --workspace --no-verify --quiet "$@"
version=$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json,sys; print(next(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "musc"))')
away=$(mktemp -d)
# Gigabytes that nobody asks for again.
trap 'rm -rf "$away" target/packages' EXIT
config=()
for member in "${members[@]}"; do
    archive=target/package/$member-$version.crate
    bytes=$(stat -c %s "$archive")
    echo "$member: $bytes bytes"
    [ "$bytes" -lt 10000000 ] || { echo "$archive: $bytes bytes, a registry takes 10000000" >&2; exit 1; }
    # -m: with the times of an archive, which are all one, cargo would take an earlier run's build for this one's.
    tar xzmf "$archive" -C "$away"
    # What the others would take from the registry is taken from beside them.
    config+=("patch.crates-io.$member.path='$away/$member-$version'")
done
export CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$PWD/target/packages
for member in "${members[@]}"; do
    echo "== $member, from its package"
    others=()
    for other in "${config[@]}"; do
        case $other in *"crates-io.$member."*) ;; *) others+=(--config "$other") ;; esac
    done
    # Long tests ran from the repository, from the same files; a package alone is built without optimisation.
    skipped=(--skip exact:: --skip by_the_driver:: --skip bench::verify::)
    (cd "$away/$member-$version" && cargo "${others[@]}" test --quiet -- "${skipped[@]}")
done
