// Math: for patch tokens p of image i and q of image j, with raw products G(p, q) = <F_i(p), F_j(q)>, row sums s and
//   image means m:
//     cos(p, q) = (G - m_j s_i(p) - m_i s_j(q) + C m_i m_j) * inv_norm_i(p) * inv_norm_j(q)
//   keys[i - first_kept][j][p] = max over q, for the images that are kept; nothing is stored of G. Symmetric: i and j
//   are of one set, only i < j is computed, and keys[j - first_kept][i][q] = max over p. Otherwise i is a query, j a
//   reference of another set, every pair is computed, and nothing is written for j. With tokens F and the norms of
//   degree 1 this is r = 1; with pooled tokens it is their degree (rounded to halves).
//
// Shapes: tokens_a half [images_a, L, width], tokens_b half [images_b, L, width], C channels and zeros, 16-byte
//   aligned; for each side's set of N images row_sum, inv_norm f32 [N, L] and mean f32 [N], the same ones twice where
//   it is symmetric; keys u32 [kept, N, L] (common/reduce.cuh), N of B's set, 0 before the first launch.
//
// Launch: grid ceil(images_a*L / 128) * ceil(images_b*L / 128), block 128: tiles of the product of the concatenated
//   tokens of two runs of images, as gemm. Blocks without a pair that counts return at once. A tile may touch several
//   images.
//
// Shared memory: static, as gemm: 49152; 7.5: 32768.
//
// Numerics: raw halves go to the tensor cores, the mean is taken off afterwards in f32: an error of 1e-6 in a cosine,
//   where rounding centred, normalised tokens to halves costs 1e-3. Maxima are exact and independent of the order.
//   NaN does not enter them: a patch whose inverse norm is NaN is in nobody's maximum.
//
// Preconditions: width % 32 == 0, C <= width; images_a, images_b > 0; both runs within their sets, the kept images
//   within A's; lnamd has run. bf16 needs 8.0.
#include "common/pairs.cuh"

constexpr int OWNED = 4;
constexpr int GROUPS = TILE_WARP / (OWNED * 4);

template <class Half>
MUSC_DEVICE void patch_distance(const PatchDistanceParams &p) {
    __shared__ __align__(128) uint8_t s_stages[TILE_SHARED_BYTES];
    const uint32_t m = p.images_a * p.rows_per_image, n = p.images_b * p.rows_per_image;
    const uint2 tile = tile_of_block(blockIdx.x, ceil_div(m, TILE_M), ceil_div(n, TILE_N));
    const uint32_t row0 = tile.x * TILE_M, column0 = tile.y * TILE_N;
    const TileImages images(p, row0, column0, m, n);
    if (!images.work(p)) return;

    GemmTile<Half, OWNED> product;
    product.run(s_stages, p.tokens_a, p.tokens_b, m, n, p.width, p.width, p.width, row0, column0);

    Centring<OWNED> centring;
    centring.rows(product, p, row0, m);
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
        const uint32_t column = column0 + product.column(group);
        // Past the last column nothing is asked for. The branch also keeps the loads of one group apart from the next
        // one's: together they spill.
        if (column >= n) continue;
        centring.columns(p, column, n);
#pragma unroll
        for (int mt = 0; mt < 4; mt++)
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int k = 0; k < OWNED; k++)
                    product.value(mt, half, group, k) =
                        centring.of(mt, half, k, product.value(mt, half, group, k));
    }
    merge_maxima(product, p, images, row0, column0);
}

MUSC_ENTRY(patch_distance_max, PatchDistanceParams, TILE_THREADS, TILE_BLOCKS_PER_SM, patch_distance)
