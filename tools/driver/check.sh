#!/usr/bin/env bash
# Runs programs that know nothing of the simulator on its libcuda.so.1: cudarc's own tests and examples, cust's kernel, NVIDIA's
# cuda.core. Their sources and wheels come from crates.io and PyPI, into a folder that git ignores; NVRTC is tools/cuda/install.sh's.
# Each step is told with its seconds. PROFILE=release tries the library as users have it; CI takes the one that `cargo test` built.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
here=$root/tools/driver
work=$root/.tools/driver
cuda=${MUSC_CUDA_DIR:-$root/.cuda}
mkdir -p "$work"
began=$SECONDS
step() {
    echo "driver: $1 ($((SECONDS - began)) s)"
    began=$SECONDS
}

PROFILE=${PROFILE:-dev} ptxsim-cuda/install.sh "$work/lib" >/dev/null
mkdir -p "$work/cust-lib/lib64/stubs"
ln -sf ../../../lib/libcuda.so.1 "$work/cust-lib/lib64/stubs/libcuda.so"
if [[ ! -e $cuda/nvidia/cuda_nvrtc/lib/libnvrtc.so.12 ]]; then
    echo "$0: no NVRTC in $cuda; run tools/cuda/install.sh" >&2
    exit 1
fi
step "the library is laid"

# Sources of crates that Cargo.lock names, as cargo fetched them.
source_of() {
    cargo metadata --locked --format-version 1 --all-features |
        python3 -c "import json, sys; print(next(p['manifest_path'] for p in json.load(sys.stdin)['packages'] if p['name'] == '$1'))" |
        xargs dirname
}
rm -rf "$work/cudarc"
cp -r "$(source_of cudarc)" "$work/cudarc"
chmod -R u+w "$work/cudarc"
printf '\n[workspace]\n' >>"$work/cudarc/Cargo.toml"
examples="01-allocate 02-copy 03-launch-kernel 04-streams 05-device-repr 06-threading 09-constant-memory 10-function-attributes
    12-context-config 13-copy-multi-gpu"
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
(
    cd "$work/cudarc"
    features="--no-default-features --features std,driver,nvrtc,dynamic-loading,cuda-12040,f16"
    # shellcheck disable=SC2046,SC2086
    cargo build --quiet --target-dir "$work/target" $features $(printf ' --example %s' $examples)
    # shellcheck disable=SC2086
    cargo test --quiet --target-dir "$work/target" $features --lib --no-run
    # shellcheck disable=SC2086
    cargo test --target-dir "$work/target" $features --lib --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1 >"$work/cudarc-tests"
)
# Three of its tests run kernels of 10^8 instructions: they go on beside all that follows.
rm -f "$work/cudarc.txt"
PTXSIM_CUDA_DEVICES=2 LD_LIBRARY_PATH=$work/lib:$cuda/nvidia/cuda_nvrtc/lib \
    "$(cat "$work/cudarc-tests")" --logfile "$work/cudarc.txt" >"$work/cudarc.log" 2>&1 &
tests=$!
step "cudarc is built"

mkdir -p "$work/cust/src"
cp "$here/cust_add.rs" "$work/cust/src/main.rs"
cust=$(source_of cust)
cat >"$work/cust/Cargo.toml" <<END
[package]
name = "cust-add"
version = "0.0.0"
edition = "2021"
[dependencies]
cust = "=0.3.2"
[workspace]
END
(
    cd "$work/cust"
    CUST_ADD_PTX=$cust/resources/add.ptx CUDA_LIBRARY_PATH=$work/cust-lib cargo build --quiet --target-dir "$work/target"
)
step "cust is built"

# The library's own use of cust: memory and streams of one crate in the other. With the profile that it was tested with before, or
# all it links is compiled again.
unset CARGO_PROFILE_DEV_DEBUG CARGO_PROFILE_TEST_DEBUG
CUDA_LIBRARY_PATH=$work/cust-lib LD_LIBRARY_PATH=$work/lib PTXSIM_CUDA_LEAKS=fail \
    cargo test --quiet --locked -p musc --features sim,cust-interop --test cust_interop
step "musc and cust in one process"

python=$work/python/bin/python
if ! cmp -s "$here/requirements.txt" "$work/python/installed.txt"; then
    python3 -m venv "$work/python"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$work/python/installed.txt"
fi
step "cuda.core is installed"

export LD_LIBRARY_PATH=$work/lib:$cuda/nvidia/cuda_nvrtc/lib
export PTXSIM_CUDA_DEVICES=2
for example in $examples; do
    # 05 and 06 assert and print in their kernels; 13 needs two cards.
    if ! (cd "$work/cudarc" && "$work/target/debug/examples/$example") >"$work/$example.log" 2>&1; then
        cat "$work/$example.log" >&2
        echo "$0: example $example failed" >&2
        exit 1
    fi
done
step "cudarc: $(wc -w <<<"$examples") examples"

for late in all none; do
    PTXSIM_CUDA_LATE=$late PTXSIM_CUDA_LEAKS=fail "$work/target/debug/cust-add"
    PTXSIM_CUDA_LATE=$late "$python" "$here/cuda_core.py"
done
step "cust and cuda.core, all work late and none"

wait "$tests" || true
python3 "$here/compare.py" "$here/cudarc_exceptions.txt" "$work/cudarc.txt"
step "cudarc: its tests, begun when they were built"
