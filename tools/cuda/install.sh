#!/bin/sh
# Installs the pinned CUDA tools (requirements.txt) into .cuda/ at the root of the repository.
# No GPU, no driver and no system toolkit is needed. A second run with nothing to do takes no time.
#
#   tools/cuda/install.sh            install what is missing
#   MUSC_CUDA_DIR=DIR install.sh     somewhere else than .cuda/
#
# Afterwards: MUSC_NVCC=.cuda/nvidia/cu13/bin/nvcc makes build.rs use this nvcc.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${MUSC_CUDA_DIR:-$root/.cuda}
wanted=$here/requirements.txt
stamp=$target/installed.txt

if [ -f "$stamp" ] && cmp -s "$wanted" "$stamp"; then
    echo "cuda tools: up to date in $target"
    exit 0
fi
# Built aside, then renamed: an interrupted run leaves no half-installed folder behind.
# A link stays a link: what it points to is replaced.
if [ -L "$target" ]; then target=$(cd "$target" && pwd -P); fi
aside=$target.new
rm -rf "$aside"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
    --target "$aside" --requirement "$wanted"
# Wheels do not always keep the executable bit when unpacked by hand; make sure.
chmod +x "$aside"/nvidia/cu13/bin/* "$aside"/nvidia/cuda_nvcc/bin/*
cp "$wanted" "$aside/installed.txt"
rm -rf "$target"
mv "$aside" "$target"
echo "cuda tools: installed in $target"
