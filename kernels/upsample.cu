// Math: map(y, x) = bilinear interpolation of the H x W patch scores with align_corners = true: the source coordinate
//   is y * (H - 1) / (height - 1), and x * (W - 1) / (width - 1); and the largest value of each map, the image score.
//   For callers whose scores stay on the card: a run makes its maps on the host, one at a time, where a picture is written.
//
// Shapes: scores f32 [N, H, W]; maps f32 [N, height, width]; max_keys [N] keys (common/reduce.cuh), 0 before the launch.
//
// Launch: grid (ceil(height*width / 1024), N), block 256; a thread owns 4 pixels of the map, 256 apart.
//
// Shared memory: static, one key a warp: 32.
//
// Numerics: f32; the coordinate is formed as the exact integer product y * (H - 1) over height - 1, so that corners fall on
//   patches exactly. The maximum is exact and does not depend on the order of blocks. A NaN score does not enter it.
// Preconditions: all sides >= 1; height * H and width * W < 2^32; height * width < 2^31; N <= 65535.
#include "common/reduce.cuh"

constexpr int UPSAMPLE_THREADS = 256;
constexpr int UPSAMPLE_PIXELS = 4;

// Lower neighbour and weight of the upper one on one axis.
MUSC_DEVICE uint32_t source(uint32_t at, uint32_t patches, uint32_t pixels, float &weight) {
    if (pixels == 1) { weight = 0.0f; return 0; }
    const uint32_t scaled = at * (patches - 1);
    const uint32_t low = scaled / (pixels - 1);
    weight = float(scaled - low * (pixels - 1)) / float(pixels - 1);
    return low;
}

extern "C" __global__ void __launch_bounds__(UPSAMPLE_THREADS) upsample_map_f32(
    const __grid_constant__ UpsampleParams p) {
    __shared__ uint32_t s_key[UPSAMPLE_THREADS / WARP];
    const uint32_t pixels = p.map_height * p.map_width;
    const float *scores = p.scores + uint64_t(blockIdx.y) * p.rows * p.columns;
    uint32_t key = 0;
#pragma unroll
    for (int i = 0; i < UPSAMPLE_PIXELS; i++) {
        const uint32_t pixel = (blockIdx.x * UPSAMPLE_PIXELS + i) * UPSAMPLE_THREADS + threadIdx.x;
        if (pixel >= pixels) break;
        float wy, wx;
        const uint32_t y0 = source(pixel / p.map_width, p.rows, p.map_height, wy);
        const uint32_t x0 = source(pixel % p.map_width, p.columns, p.map_width, wx);
        const uint32_t y1 = min(y0 + 1, p.rows - 1), x1 = min(x0 + 1, p.columns - 1);
        const float top = (1.0f - wx) * __ldg(scores + y0 * p.columns + x0) + wx * __ldg(scores + y0 * p.columns + x1);
        const float bottom = (1.0f - wx) * __ldg(scores + y1 * p.columns + x0) + wx * __ldg(scores + y1 * p.columns + x1);
        const float v = (1.0f - wy) * top + wy * bottom;
        p.maps[uint64_t(blockIdx.y) * pixels + pixel] = v;
        if (v == v) key = max(key, key_of(v));
    }
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) key = max(key, __shfl_xor_sync(FULL_WARP, key, step));
    if (threadIdx.x % WARP == 0) s_key[threadIdx.x / WARP] = key;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < UPSAMPLE_THREADS / WARP; w++) key = max(key, s_key[w]);
        atomicMax(p.max_keys + blockIdx.y, key);
    }
}
