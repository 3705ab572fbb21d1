#!/usr/bin/env bash
# Builds the library and lays it into a folder of its own as libcuda.so and libcuda.so.1:
#     ptxsim-cuda/install.sh DIR
#     LD_LIBRARY_PATH=DIR program
# PROFILE=dev builds with the checks of debug builds on; release is the default.
set -euo pipefail
if [[ $# -ne 1 ]]; then
  echo "usage: $0 DIR" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
profile=${PROFILE:-release}
built=$(cd "$here" && cargo build --quiet --locked -p ptxsim-cuda --lib --profile "$profile" --message-format=json-render-diagnostics |
  sed -n 's/.*"\([^"]*libptxsim_cuda\.so\)".*/\1/p' | head -n 1)
if [[ ! -f "$built" ]]; then
  echo "$0: cargo built no libptxsim_cuda.so" >&2
  exit 1
fi
mkdir -p "$1"
# Copied aside and moved, so that a program that runs with it keeps its own.
cp "$built" "$1/libcuda.so.1.new"
mv "$1/libcuda.so.1.new" "$1/libcuda.so.1"
ln -sf libcuda.so.1 "$1/libcuda.so"
echo "$1/libcuda.so.1"
