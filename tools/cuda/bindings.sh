#!/bin/sh
# Writes kernels/params.rs, the Rust structs of kernels/common/params.h. With --check: compares and fails when stale.
#
# Needs bindgen 0.73 (`cargo install bindgen-cli --version 0.73.2`) and libclang (LIBCLANG_PATH, or the `libclang` wheel).
# Only for those who change the header: a build takes the checked-in file.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
aside=$(mktemp)
trap 'rm -f "$aside"' EXIT
bindgen kernels/common/params.h \
    --allowlist-type '.*Params' --use-core --no-layout-tests \
    --rust-target 1.85 --rust-edition 2024 --with-derive-default --formatter prettyplease \
    --with-derive-custom-struct '.*Params=bytemuck::Pod,bytemuck::Zeroable' \
    --raw-line '// Made by tools/cuda/bindings.sh from kernels/common/params.h; do not edit.' \
    -- -fparse-all-comments > "$aside"
if [ "${1:-}" = --check ]; then
    diff -u kernels/params.rs "$aside" || { echo "kernels/params.rs is stale: run tools/cuda/bindings.sh" >&2; exit 1; }
else
    cp "$aside" kernels/params.rs
fi
