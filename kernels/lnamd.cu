// Math: what the mutual scores need of the neighbourhood aggregation of an image F [L, C], for each degree r:
//   sums   row_sum(p) = sum_c F(p, c)
//   mean   mean = sum_p row_sum(p) / (L * C)
//   norms  inv_norm_r(p) = 1 / || sum over the r x r window around p of (F - mean), zero outside the grid ||_2
//   The divisors r^2 and the standard deviation of the definition cancel in the normalised rows. 0 for a zero norm.
//
// Shapes: tokens half [N, L, width], C channels and zeros, 16-byte aligned; row_sum f32 [N, L]; mean f32 [N]; inv_norm
//   f32 [degrees, norm_images, L], of which the first N images of each degree are written.
//
// Launch: sums: grid ceil(N*L / 4), block 128, a warp owns a row. mean: grid N, block 256.
//   norms: grid (H, N), block width / 4: a block owns one row of the grid and walks along it; a thread owns 4 channels.
//
// Shared memory: norms: dynamic, a partial sum for each column, degree and warp: W * degrees * (width / 128) * 4;
//   518 px, ViT-L, three degrees: 37 * 3 * 8 * 4 = 3552; at most 128 * 4 * 8 * 4 = 16384. mean: static 32.
//
// Numerics: f32 throughout; the mean is removed before the window sums, so nothing cancels in the norm.
//
// Preconditions: width % 128 == 0, C <= width <= 1024; H, W >= 1, W <= MUSC_MAX_SIDE; 1 <= degrees <= 4, each odd, 1 to
//   7; L*C < 2^32; sums, mean, norms in this order.
#include "common/reduce.cuh"

constexpr int SUMS_THREADS = 128;
constexpr int MEAN_THREADS = 256;
constexpr int NORMS_CHANNELS = 4;
constexpr int NORMS_MAX_THREADS = 256;
constexpr int NORMS_MAX_RADIUS = MUSC_MAX_DEGREE / 2;

template <class Half>
MUSC_DEVICE void sums(const LnamdParams &p) {
    const uint32_t row = blockIdx.x * (SUMS_THREADS / WARP) + threadIdx.x / WARP;
    if (row >= p.images * p.rows * p.columns) return;
    const uint16_t *token = p.tokens + uint64_t(row) * p.width;
    float sum = 0.0f;
    for (uint32_t c = threadIdx.x % WARP * 4; c < p.width; c += WARP * 4) {
        const uint2 v = __ldg(reinterpret_cast<const uint2 *>(token + c));
        const float2 a = Half::unpack(v.x), b = Half::unpack(v.y);
        sum += (a.x + a.y) + (b.x + b.y);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) p.row_sum[row] = sum;
}

template <class Half>
MUSC_DEVICE void norms(const LnamdParams &p) {
    extern __shared__ float s_partial[]; // [W][degrees][warps]
    const uint32_t rows = p.rows, columns = p.columns, y = blockIdx.x, image = blockIdx.y;
    const uint32_t warps = blockDim.x / WARP;
    // What is taken off each of this thread's channels: nothing off the zeros that pad a token.
    float mean[NORMS_CHANNELS];
#pragma unroll
    for (int c = 0; c < NORMS_CHANNELS; c++)
        mean[c] = threadIdx.x * NORMS_CHANNELS + c < p.channels ? __ldg(p.mean + image) : 0.0f;
    const uint16_t *tokens = p.tokens + uint64_t(image) * rows * columns * p.width + threadIdx.x * NORMS_CHANNELS;

    // Window sums along the row: pending[R][j] is what the sum over a window of radius R still to come has so far, for
    // the window that closes j + 1 columns on. A column adds to every pending window and closes one.
    float pending[NORMS_MAX_RADIUS + 1][2 * NORMS_MAX_RADIUS][NORMS_CHANNELS];
#pragma unroll
    for (int radius = 0; radius <= NORMS_MAX_RADIUS; radius++)
#pragma unroll
        for (int j = 0; j < 2 * NORMS_MAX_RADIUS; j++)
#pragma unroll
            for (int c = 0; c < NORMS_CHANNELS; c++) pending[radius][j][c] = 0.0f;

    for (uint32_t x = 0; x < columns + NORMS_MAX_RADIUS; x++) {
        // Sums of column x over the rows within each radius of y.
        float column[NORMS_CHANNELS] = {};
#pragma unroll
        for (int radius = 0; radius <= NORMS_MAX_RADIUS; radius++) {
#pragma unroll
            for (int side = 0; side < (radius == 0 ? 1 : 2); side++) {
                const uint32_t row = side == 0 ? y - radius : y + radius;
                if (x < columns && row < rows) {
                    const uint2 v = __ldg(reinterpret_cast<const uint2 *>(tokens + uint64_t(row * columns + x) * p.width));
                    const float2 a = Half::unpack(v.x), b = Half::unpack(v.y);
                    column[0] += a.x - mean[0], column[1] += a.y - mean[1];
                    column[2] += b.x - mean[2], column[3] += b.y - mean[3];
                }
            }
            float square = 0.0f;
#pragma unroll
            for (int c = 0; c < NORMS_CHANNELS; c++) {
                float closed = column[c];
                if (radius > 0) {
                    closed += pending[radius][0][c];
#pragma unroll
                    for (int j = 0; j + 1 < 2 * radius; j++)
                        pending[radius][j][c] = pending[radius][j + 1][c] + column[c];
                    pending[radius][2 * radius - 1][c] = column[c];
                }
                square = fmaf(closed, closed, square);
            }
            // The window of this radius that closes at column x is centred on x - radius.
            if (x >= radius && x - radius < columns) {
                for (uint32_t d = 0; d < p.degrees; d++)
                    if (p.degree[d] == 2 * radius + 1) {
                        const float sum = warp_sum(square);
                        if (threadIdx.x % WARP == 0)
                            s_partial[((x - radius) * p.degrees + d) * warps + threadIdx.x / WARP] = sum;
                    }
            }
        }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < columns * p.degrees; i += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t w = 0; w < warps; w++) sum += s_partial[i * warps + w];
        const uint32_t x = i / p.degrees, d = i % p.degrees;
        const uint64_t row = (uint64_t(d) * p.norm_images + image) * rows + y;
        p.inv_norm[row * columns + x] = sum > 0.0f ? 1.0f / sqrtf(sum) : 0.0f;
    }
}

MUSC_ENTRY(lnamd_sums, LnamdParams, SUMS_THREADS, 8, sums)
MUSC_ENTRY(lnamd_norms, LnamdParams, NORMS_MAX_THREADS, 2, norms)

extern "C" __global__ void __launch_bounds__(MEAN_THREADS) lnamd_mean_f32(const __grid_constant__ LnamdParams p) {
    __shared__ float s_sum[MEAN_THREADS / WARP];
    const uint32_t patches = p.rows * p.columns;
    const float *row_sum = p.row_sum + uint64_t(blockIdx.x) * patches;
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < patches; i += MEAN_THREADS) sum += row_sum[i];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) s_sum[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0.0f;
        for (int w = 0; w < MEAN_THREADS / WARP; w++) sum += s_sum[w];
        p.mean[blockIdx.x] = sum / (float(patches) * float(p.channels));
    }
}
