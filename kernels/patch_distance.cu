// Math: for patch tokens p of image i and q of image j, with raw products G(p, q) = <F_i(p), F_j(q)>, row sums s and
//   image means m:
//     cos(p, q) = (G - m_j s_i(p) - m_i s_j(q) + C m_i m_j) * inv_norm_i(p) * inv_norm_j(q)
//   keys[i - first_kept][j][p] = max over q, for the images that are kept; nothing is stored of G. Symmetric: i and j are
//   of one set, only i < j is computed, and keys[j - first_kept][i][q] = max over p. Otherwise i is a query, j a reference
//   of another set, every pair is computed, and nothing is written for j.
//   With tokens F and the norms of degree 1 this is r = 1; with pooled tokens it is their degree (rounded to halves).
//
// Shapes: tokens_a half [images_a, L, width], tokens_b half [images_b, L, width], C channels and zeros, 16-byte aligned;
//   for each side's set of N images row_sum, inv_norm f32 [N, L] and mean f32 [N], the same ones twice where it is
//   symmetric; keys u32 [kept, N, L] (common/reduce.cuh), N of B's set, 0 before the first launch.
//
// Launch: grid ceil(images_a*L / 128) * ceil(images_b*L / 128), block 128: tiles of the product of the concatenated
//   tokens of two runs of images, as gemm. Blocks without a pair that counts return at once. A tile may touch several
//   images.
//
// Shared memory: static, as gemm: 49152; 7.5: 32768.
//
// Numerics: raw halves go to the tensor cores, the mean is taken off afterwards in f32: an error of 1e-6 in a cosine if sums
//   were rounded to nearest; tensor cores cut them towards zero, so that the cosine of like tokens is 1e-5 too small
//   (docs/fidelity.md). Rounding centred, normalised tokens to halves costs 1e-3. Maxima are exact and independent of the order.
//   NaN does not enter them: a patch whose inverse norm is NaN is in nobody's maximum.
//
// Preconditions: width % 32 == 0, C <= width; images_a, images_b > 0; both runs within their sets, the kept images within
//   A's; lnamd has run. bf16 needs 8.0.
#include "common/gemm_tile.cuh"
#include "common/reduce.cuh"

constexpr int OWNED = 8;
constexpr int GROUPS = TILE_WARP / (OWNED * 4);
constexpr int COLUMNS = GROUPS * OWNED; // of the tile, in one thread

template <class Half>
MUSC_DEVICE void patch_distance(const PatchDistanceParams &p) {
    __shared__ __align__(128) uint8_t s_stages[TILE_SHARED_BYTES];
    const uint32_t patches = p.rows_per_image;
    const uint32_t m = p.images_a * patches, n = p.images_b * patches;
    const uint2 tile = tile_of_block(blockIdx.x, ceil_div(m, TILE_M), ceil_div(n, TILE_N));
    const uint32_t row0 = tile.x * TILE_M, column0 = tile.y * TILE_N;
    const uint32_t first_i = p.first_image_a + row0 / patches;
    const uint32_t last_i = p.first_image_a + (min(row0 + TILE_M, m) - 1) / patches;
    const uint32_t first_j = p.first_image_b + column0 / patches;
    const uint32_t last_j = p.first_image_b + (min(column0 + TILE_N, n) - 1) / patches;
    if (p.symmetric && first_i >= last_j) return;

    GemmTile<Half, OWNED> product;
    product.run(s_stages, p.tokens_a, p.tokens_b, m, n, p.width, p.width, p.width, row0, column0);

    const float none = __uint_as_float(0xff800000u); // -inf: nothing yet
    // The scale of columns of another image, as of patches that are left out: fmaxf drops what it makes.
    const float not_a_number = __uint_as_float(0x7fffffffu);
    for (uint32_t j = first_j; j <= last_j; j++) {
        // Patch of image j in each column; wraps to a large number left of the image.
        uint32_t column[COLUMNS];
        float column_inv[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            column[c] = column0 + product.column(c / OWNED) + c % OWNED - (j - p.first_image_b) * patches;
            column_inv[c] = column[c] < patches ? __ldg(p.inv_norm_b + uint64_t(j) * patches + column[c])
                                                : not_a_number;
        }
        const float mean_j = __ldg(p.mean_b + j);
        const uint32_t end_i = p.symmetric ? min(last_i + 1, j) : last_i + 1;
        for (uint32_t i = first_i; i < end_i; i++) {
            const float mean_i = __ldg(p.mean_a + i);
            float correction[COLUMNS], highest[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                const float sum = column[c] < patches ? __ldg(p.row_sum_b + uint64_t(j) * patches + column[c]) : 0.0f;
                correction[c] = mean_i * fmaf(-float(p.channels), mean_j, sum);
                highest[c] = none;
            }
#pragma unroll
            for (int mt = 0; mt < 4; mt++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const uint32_t row = row0 + product.row(mt, half) - (i - p.first_image_a) * patches;
                    const bool inside = row < patches;
                    const uint64_t at = uint64_t(i) * patches + row;
                    const float row_correction = inside ? mean_j * __ldg(p.row_sum_a + at) : 0.0f;
                    const float row_inv = inside ? __ldg(p.inv_norm_a + at) : 0.0f;
                    // Keeps a compiler from giving the shuffles of some lanes a place of their own.
                    __syncwarp();
                    float best = none;
#pragma unroll
                    for (int c = 0; c < COLUMNS; c++) {
                        const float v = product.value(mt, half, c / OWNED, c % OWNED) - row_correction - correction[c];
                        best = fmaxf(best, v * column_inv[c]);
                        if (inside) highest[c] = fmaxf(highest[c], v * row_inv);
                    }
                    best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, 1));
                    best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, 2));
                    if (inside && product.lane % 4 == 0 && i - p.first_kept < p.kept && best != none)
                        atomicMax(p.keys + (uint64_t(i - p.first_kept) * p.images + j) * patches + row,
                                  key_of(best * row_inv));
                }
            if (!p.symmetric) continue;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                float best = highest[c];
#pragma unroll
                for (int step = 4; step < WARP; step *= 2) best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, step));
                if (column[c] < patches && product.lane < 4 && j - p.first_kept < p.kept && best != none)
                    atomicMax(p.keys + (uint64_t(j - p.first_kept) * p.images + i) * patches + column[c],
                              key_of(best * column_inv[c]));
            }
        }
    }
}

MUSC_ENTRY(patch_distance_max, PatchDistanceParams, TILE_THREADS, TILE_BLOCKS_PER_SM, patch_distance)
