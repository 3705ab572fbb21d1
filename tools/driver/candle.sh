#!/bin/sh
# Compiles the kernels of candle-kernels and runs them on ptxsim: all 685 entries are decoded, 13 kinds of them run with
# right numbers and every check on. Nothing of candle is in the repository: the sources come from crates.io, by their
# checksum, and stay in a folder outside it.
#
#   tools/driver/candle.sh [FOLDER]     FOLDER keeps sources and PTX for the next time (default: a new one, removed)
#
# nvcc is the one in MUSC_CUDA_DIR (tools/cuda/install.sh), else in .cuda.
set -eu
cd "$(dirname "$0")/../.."

version=0.9.2
sha256=b8455f84bd810047c7c41216683c1020c915a9f8a740b3b0eabdd4fb2fbaa660
nvcc=${MUSC_CUDA_DIR:-$PWD/.cuda}/nvidia/cu13/bin/nvcc
[ -x "$nvcc" ] || { echo "no nvcc at $nvcc: run tools/cuda/install.sh, or set MUSC_CUDA_DIR" >&2; exit 1; }

if [ $# -gt 0 ]; then
    folder=$1
    mkdir -p "$folder"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
crate=$folder/candle-kernels-$version.crate
if [ ! -f "$crate" ]; then
    curl -fsSL --retry 3 -o "$crate.part" \
        "https://static.crates.io/crates/candle-kernels/candle-kernels-$version.crate"
    mv "$crate.part" "$crate"
fi
echo "$sha256  $crate" | sha256sum -c --quiet -
tar -xzf "$crate" -C "$folder"
src=$folder/candle-kernels-$version/src

start=$(date +%s)
mkdir -p "$folder/ptx"
# The longest first; as many at once as there are processors.
printf '%s\n' quantized binary unary conv cast reduce ternary indexing sort affine fill |
    xargs -P "$(nproc)" -I NAME sh -c '
        set -e
        nvcc=$1 src=$2 ptx=$3/NAME.ptx
        [ -f "$ptx" ] && exit 0
        "$nvcc" -ptx -arch=compute_80 --expt-relaxed-constexpr -std=c++17 -O3 -w -I"$src" "$src/NAME.cu" -o "$ptx.part"
        mv "$ptx.part" "$ptx"' sh "$nvcc" "$src" "$folder/ptx"
compiled=$(date +%s)
PTXSIM_CANDLE=$folder/ptx cargo test --locked -p ptxsim --test candle -- --ignored --nocapture
echo "nvcc $((compiled - start)) s, ptxsim $(($(date +%s) - compiled)) s"
