"""NVIDIA's own Python packages on the simulated driver: a vector addition and a reduction, compiled by NVRTC, over page-locked memory
and stream-ordered device memory, compared with NumPy."""

import sys

import numpy as np
from cuda.core import Device, LaunchConfig, LegacyPinnedMemoryResource, Program, ProgramOptions, launch

CODE = r"""
extern "C" __global__ void add(const float *a, const float *b, float *c, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}

// One sum a block: by shuffles in each warp, then over the warps.
extern "C" __global__ void sum(const int *x, int *out, unsigned n) {
    __shared__ int warps[32];
    int mine = 0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += x[i];
    for (int step = 16; step; step /= 2) mine += __shfl_down_sync(0xffffffff, mine, step);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x < 32) {
        mine = threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0;
        for (int step = 16; step; step /= 2) mine += __shfl_down_sync(0xffffffff, mine, step);
        if (threadIdx.x == 0) atomicAdd(out, mine);
    }
}
"""


def main():
    device = Device()
    device.set_current()
    if not device.name.startswith("ptxsim"):
        sys.exit(f"the device is {device.name}, a simulated one is expected")
    stream = device.create_stream()
    pinned = LegacyPinnedMemoryResource()
    arch = "sm_%d%d" % tuple(device.compute_capability)
    module = Program(CODE, "c++", options=ProgramOptions(std="c++17", arch=arch)).compile("ptx")
    rng = np.random.default_rng(0)

    def host(count, kind):
        buffer = pinned.allocate(count * np.dtype(kind).itemsize)
        return buffer, np.from_dlpack(buffer).view(kind)

    n = 10_007
    (a, av), (b, bv), (c, cv) = (host(n, np.float32) for _ in range(3))
    av[:], bv[:], cv[:] = rng.random(n), rng.random(n), 0
    on_device = [device.allocate(4 * n, stream=stream) for _ in range(3)]
    on_device[0].copy_from(a, stream=stream)
    on_device[1].copy_from(b, stream=stream)
    launch(stream, LaunchConfig(grid=-(-n // 256), block=256), module.get_kernel("add"), *on_device, np.uint32(n))
    on_device[2].copy_to(c, stream=stream)
    stream.sync()
    np.testing.assert_array_equal(cv, av + bv)

    (x, xv), (out, ov) = host(n, np.int32), host(1, np.int32)
    xv[:], ov[:] = rng.integers(-1000, 1000, n), 0
    # Page-locked memory is the kernel's as it is.
    launch(stream, LaunchConfig(grid=7, block=224), module.get_kernel("sum"), x, out, np.uint32(n))
    stream.sync()
    if ov[0] != xv.sum():
        sys.exit(f"the sum is {ov[0]}, expected {xv.sum()}")
    for buffer in (*on_device, a, b, c, x, out):
        buffer.close(stream)
    stream.sync()
    print("cuda.core: a vector addition and a reduction are right on", device.name)


if __name__ == "__main__":
    main()
