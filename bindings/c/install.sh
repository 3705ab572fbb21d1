#!/usr/bin/env bash
# Lays the library, its header and its pkg-config file: `install.sh PREFIX [PROFILE]`. What was built is taken from the target folder,
# by default that of `cargo build --release -p musc-c`.
set -euo pipefail
prefix=${1:?usage: install.sh PREFIX [PROFILE]}
profile=${2:-release}
here=$(cd "$(dirname "$0")" && pwd)
built=${CARGO_TARGET_DIR:-$here/../../target}/$profile
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")
abi=$(sed -n 's/^#define MUSC_ABI_VERSION \([0-9]*\)$/\1/p' "$here/include/musc.h")
[ -n "$version" ] && [ -n "$abi" ]
for file in libmusc_c.so libmusc_c.a; do
    [ -f "$built/$file" ] || { echo "$built/$file: not there; build it: cargo build --release -p musc-c" >&2; exit 1; }
done
install -d "$prefix/include" "$prefix/lib/pkgconfig"
prefix=$(cd "$prefix" && pwd)
install -m 644 "$here/include/musc.h" "$prefix/include/musc.h"
install -m 644 "$built/libmusc_c.a" "$prefix/lib/libmusc.a"
install -m 755 "$built/libmusc_c.so" "$prefix/lib/libmusc.so.$abi.$version"
ln -sf "libmusc.so.$abi.$version" "$prefix/lib/libmusc.so.$abi"
ln -sf "libmusc.so.$abi" "$prefix/lib/libmusc.so"
sed -e "s|@prefix@|$prefix|" -e "s|@version@|$version|" "$here/musc.pc.in" >"$prefix/lib/pkgconfig/musc.pc"
