// Math: y = (x - mean(x)) / sqrt(var(x) + eps) * gamma + beta over the channels of a token, var biased.
//   store   y as a half: the input of the next product, or a feature layer of DINO and DINOv2
//   stream  y as f32: the norm before the blocks of CLIP (may be in place), and final class tokens
//   round   y = x as a half: a feature layer of CLIP (gamma, beta and eps are not read)
//
// Shapes: input f32, row stride C; out half (store, round) or f32 (stream) [rows, C]; gamma, beta f32 [C]. Output row o
//   takes input row (o / out_rows_per_image) * in_rows_per_image + in_first_row + o % out_rows_per_image: with L, T, 1
//   the patch tokens without the class token; with 1, T, 0 the class tokens; with rows, 0, 0 row by row.
//   All pointers 16-byte aligned.
//
// Launch: grid ceil(rows / 4), block 128. A warp owns a row; a lane owns 4 neighbouring channels of every 128.
//
// Shared memory: none.
//
// Numerics: f32 in two passes over registers (mean, then squared differences), so a large mean does not cancel.
//
// Preconditions: C % 128 == 0, C <= 1024; rows > 0; every input row exists; stream in place only row by row.
#include "common/reduce.cuh"

constexpr int NORM_THREADS = 128;
constexpr int NORM_BLOCKS_PER_SM = 4;
constexpr int NORM_ROWS = NORM_THREADS / WARP;
constexpr int NORM_MAX_WIDTH = 1024;
constexpr int NORM_STEP = WARP * 4;
constexpr int NORM_STEPS = NORM_MAX_WIDTH / NORM_STEP;
static_assert(NORM_STEPS * NORM_STEP == NORM_MAX_WIDTH, "lanes hold whole groups of four channels");

enum Output { STORE, STREAM, ROUND };

template <class Half, int OUTPUT>
MUSC_DEVICE void layer_norm(const LayerNormParams &p) {
    const uint32_t row = blockIdx.x * NORM_ROWS + threadIdx.x / WARP;
    if (row >= p.rows) return;
    const uint32_t first = threadIdx.x % WARP * 4;
    const uint64_t from = uint64_t(row / p.out_rows_per_image) * p.in_rows_per_image + p.in_first_row +
                          row % p.out_rows_per_image;
    const float *x = p.input + from * p.width;
    float4 v[NORM_STEPS];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < NORM_STEPS; i++)
        if (i * NORM_STEP < p.width) {
            v[i] = *reinterpret_cast<const float4 *>(x + i * NORM_STEP + first);
            sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
        }
    if (OUTPUT != ROUND) {
        const float mean = warp_sum(sum) / p.width;
        float squares = 0.0f;
#pragma unroll
        for (int i = 0; i < NORM_STEPS; i++)
            if (i * NORM_STEP < p.width) {
                v[i] = make_float4(v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean);
                squares += (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
            }
        const float scale = 1.0f / sqrtf(warp_sum(squares) / p.width + p.eps);
#pragma unroll
        for (int i = 0; i < NORM_STEPS; i++)
            if (i * NORM_STEP < p.width) {
                const float4 g = __ldg(reinterpret_cast<const float4 *>(p.gamma + i * NORM_STEP + first));
                const float4 b = __ldg(reinterpret_cast<const float4 *>(p.beta + i * NORM_STEP + first));
                v[i] = make_float4(fmaf(v[i].x * scale, g.x, b.x), fmaf(v[i].y * scale, g.y, b.y),
                                   fmaf(v[i].z * scale, g.z, b.z), fmaf(v[i].w * scale, g.w, b.w));
            }
    }
#pragma unroll
    for (int i = 0; i < NORM_STEPS; i++)
        if (i * NORM_STEP < p.width) {
            const uint64_t to = uint64_t(row) * p.width + i * NORM_STEP + first;
            if (OUTPUT == STREAM)
                *reinterpret_cast<float4 *>(static_cast<float *>(p.out) + to) = v[i];
            else
                *reinterpret_cast<uint2 *>(static_cast<uint16_t *>(p.out) + to) =
                    make_uint2(Half::pack(v[i].x, v[i].y), Half::pack(v[i].z, v[i].w));
        }
}

template <class Half> MUSC_DEVICE void store(const LayerNormParams &p) { layer_norm<Half, STORE>(p); }
template <class Half> MUSC_DEVICE void round(const LayerNormParams &p) { layer_norm<Half, ROUND>(p); }

MUSC_ENTRY(layer_norm_store, LayerNormParams, NORM_THREADS, NORM_BLOCKS_PER_SM, store)
MUSC_ENTRY(layer_norm_round, LayerNormParams, NORM_THREADS, NORM_BLOCKS_PER_SM, round)
extern "C" __global__ void __launch_bounds__(NORM_THREADS, NORM_BLOCKS_PER_SM) layer_norm_stream_f32(
    const __grid_constant__ LayerNormParams p) { layer_norm<F16, STREAM>(p); }
