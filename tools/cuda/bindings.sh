#!/bin/sh
# Writes kernels/params.rs, the Rust structs and constants of kernels/common/params.h. With --check: compares and fails when stale.
#
# Needs tools/cuda/install.sh (for libclang) and bindgen 0.73.2: the one on the path, or one that is compiled into .cuda/
# the first time. Only for those who change the header, and for CI: a build takes the checked-in file.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
tools=${MUSC_CUDA_DIR:-$root/.cuda}
version=0.73.2
bindgen=bindgen
if ! bindgen --version 2>/dev/null | grep -qF "$version"; then
    bindgen=$tools/bindgen/bin/bindgen
    [ -x "$bindgen" ] || cargo install --quiet --locked bindgen-cli --version "$version" --root "$tools/bindgen"
fi
if [ -z "${LIBCLANG_PATH:-}" ] && [ -d "$tools/clang/native" ]; then
    LIBCLANG_PATH=$tools/clang/native
    export LIBCLANG_PATH
fi
aside=$(mktemp)
trap 'rm -f "$aside"' EXIT
"$bindgen" kernels/common/params.h \
    --allowlist-type '.*Params' --allowlist-var 'MUSC_.*' --use-core --no-layout-tests \
    --rust-target 1.85 --rust-edition 2024 --with-derive-default --formatter prettyplease \
    --with-derive-custom-struct '.*Params=bytemuck::Pod,bytemuck::Zeroable' \
    --raw-line '// Made by tools/cuda/bindings.sh from kernels/common/params.h; do not edit.' \
    -- -fparse-all-comments > "$aside"
if [ "${1:-}" = --check ]; then
    diff -u kernels/params.rs "$aside" || { echo "kernels/params.rs is stale: run tools/cuda/bindings.sh" >&2; exit 1; }
else
    cp "$aside" kernels/params.rs
fi
