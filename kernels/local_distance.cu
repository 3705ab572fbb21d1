// Math: the largest cosine of each patch with those near its own place, for one degree r = 2R+1:
//   pool   Z_i(p) = inv_norm_r,i(p) * sum over the r x r window around p of (F_i - mean_i), zero outside the grid
//   max    keys[i - first_kept][j][p] = max over q of <Z_i(p), Z_j(q)>, |q_y - p_y| <= radius and |q_x - p_x| <= radius
//   for the images i that are kept. Symmetric: i and j are of one set and i == j is left out; both (i, j) and (j, i) are
//   worked out, in the blocks that have them. Otherwise i is a query, j a reference of another set.
//
// Shapes: tokens half [images_a, L, width], C channels and zeros; mean f32 [images_a], inv_norm f32 [images_a, L] of the
//   degree, both from lnamd; pooled half [images_a, L, width], zeros from C on; pooled_a half [images_a, L, width],
//   pooled_b half [images_b, L, width]; keys u32 [kept, N, L] (common/reduce.cuh), N of B's set. Tokens 16-byte aligned.
//
// Launch: pool: grid (H, images_a), block width / 4: a block owns one row of the grid and walks along it; a thread owns 4
//   channels. max: grid (L, ceil(images_a / 128), ceil(images_b / 64)), block 128: a block owns one place p and 128 x 64
//   pairs of images. For each place q of the window it multiplies the tokens of the images of A at p with those of the
//   images of B at q, as gemm: the rows of an operand are L * width apart; a warp owns 64 x 32 pairs, and works where there
//   are some. Neighbouring blocks are neighbouring places,
//   whose tokens and keys are still in L2.
//
// Shared memory: max: static, 3 stages * (128 + 64) rows * 64 bytes = 36864; 7.5: 2 stages = 24576. pool: none.
//
// Numerics: window sums in f32, one rounding of a unit token to a half: with u its roundoff (f16 2^-11, bf16 2^-8) a
//   cosine is off by at most 2u + u^2 and the f32 sum of the products; in f16 mostly below 1e-4, 1e-3 at the most. A
//   patch whose inverse norm is NaN is NaN in every channel below C, and fmaxf leaves its products out. Maxima are exact.
//   A pair whose products are all NaN writes nothing.
//
// Preconditions: width % 128 == 0, C <= width <= 1024; 1 <= H, W <= MUSC_MAX_SIDE; L * width < 2^24; degree odd, 1 to
//   MUSC_MAX_DEGREE; images_a, images_b > 0, both runs within their sets, the kept images within A's. bf16 needs 8.0.
#include "common/gemm_tile.cuh"
#include "common/reduce.cuh"

constexpr int POOL_CHANNELS = 4;
constexpr int POOL_MAX_THREADS = 256;
constexpr int LOCAL_OWNED = 8;
constexpr int LOCAL_WARP_N = TILE_WARP / 2;
constexpr int LOCAL_TILE_N = 2 * LOCAL_WARP_N;
static_assert(LOCAL_WARP_N / (LOCAL_OWNED * 4) == 1, "the columns of a thread are one group");
static_assert(POOL_MAX_THREADS * POOL_CHANNELS == 1024, "the widest token");

template <class Half, int R>
MUSC_DEVICE void pool_row(const LocalDistanceParams &p) {
    const uint32_t y = blockIdx.x, image = blockIdx.y, channel = threadIdx.x * POOL_CHANNELS;
    const uint64_t first_token = uint64_t(image) * p.rows * p.columns;
    const uint16_t *tokens = p.tokens + first_token * p.width + channel;
    const float *inv_norm = p.inv_norm + first_token + y * p.columns;
    uint16_t *pooled = p.pooled + (first_token + y * p.columns) * p.width + channel;
    const float mean = __ldg(p.mean + image);

    // pending[j]: what the window that closes j + 1 columns on has so far. A column adds to every one and closes one.
    float pending[2 * R + 1][POOL_CHANNELS] = {};
    for (uint32_t x = 0; x < p.columns + R; x++) {
        float column[POOL_CHANNELS] = {};
#pragma unroll
        for (int v = -R; v <= R; v++) {
            const uint32_t row = y + v;
            if (x < p.columns && row < p.rows) {
                const uint64_t at = uint64_t(row * p.columns + x) * p.width;
                const uint2 token = __ldg(reinterpret_cast<const uint2 *>(tokens + at));
                const float2 a = Half::unpack(token.x), b = Half::unpack(token.y);
                column[0] += a.x - mean, column[1] += a.y - mean;
                column[2] += b.x - mean, column[3] += b.y - mean;
            }
        }
        float closed[POOL_CHANNELS];
#pragma unroll
        for (int c = 0; c < POOL_CHANNELS; c++) {
            closed[c] = pending[0][c] + column[c];
#pragma unroll
            for (int j = 0; j + 1 < 2 * R; j++) pending[j][c] = pending[j + 1][c] + column[c];
            if (R > 0) pending[2 * R - 1][c] = column[c];
        }
        // The window that closes at column x is centred on x - R.
        if (x < R) continue;
        const float inv = __ldg(inv_norm + x - R);
        // The zeros that pad a token stay zeros, whatever the norm is.
        float unit[POOL_CHANNELS];
#pragma unroll
        for (int c = 0; c < POOL_CHANNELS; c++) unit[c] = channel + c < p.channels ? closed[c] * inv : 0.0f;
        *reinterpret_cast<uint2 *>(pooled + uint64_t(x - R) * p.width) =
            make_uint2(Half::pack(unit[0], unit[1]), Half::pack(unit[2], unit[3]));
    }
}

template <class Half>
MUSC_DEVICE void pool(const LocalDistanceParams &p) {
    static_assert(MUSC_MAX_DEGREE == 7, "a case for every radius");
    if (p.degree == 1) pool_row<Half, 0>(p);
    if (p.degree == 3) pool_row<Half, 1>(p);
    if (p.degree == 5) pool_row<Half, 2>(p);
    if (p.degree == 7) pool_row<Half, 3>(p);
}

template <class Half>
MUSC_DEVICE void local_max(const LocalDistanceParams &p) {
    using Tile = GemmTile<Half, LOCAL_OWNED, LOCAL_WARP_N>;
    static_assert(Tile::COLUMNS == LOCAL_TILE_N, "the grid is made of such tiles");
    __shared__ __align__(128) uint8_t s_stages[Tile::SHARED_BYTES];
    const uint32_t place = blockIdx.x, patches = p.rows * p.columns, stride = patches * p.width;
    const uint32_t row0 = blockIdx.y * TILE_M, column0 = blockIdx.z * LOCAL_TILE_N;
    const uint32_t py = place / p.columns, px = place % p.columns;
    const uint32_t first_x = px - min(px, p.radius), last_x = min(px + p.radius, p.columns - 1);
    const uint32_t first_y = py - min(py, p.radius), last_y = min(py + p.radius, p.rows - 1);

    const float none = __uint_as_float(0xff800000u); // -inf: nothing yet
    Tile product;
    float highest[4][2][LOCAL_OWNED];
#pragma unroll
    for (int mt = 0; mt < 4; mt++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int k = 0; k < LOCAL_OWNED; k++) highest[mt][half][k] = none;
    for (uint32_t qy = first_y; qy <= last_y; qy++)
        for (uint32_t qx = first_x; qx <= last_x; qx++) {
            // Everyone is done with the stages of the place before.
            __syncthreads();
            const uint32_t q = qy * p.columns + qx;
            product.run(s_stages, p.pooled_a + place * p.width, p.pooled_b + q * p.width, p.images_a, p.images_b,
                        p.width, stride, stride, row0, column0);
#pragma unroll
            for (int mt = 0; mt < 4; mt++)
#pragma unroll
                for (int half = 0; half < 2; half++)
#pragma unroll
                    for (int k = 0; k < LOCAL_OWNED; k++)
                        highest[mt][half][k] = fmaxf(highest[mt][half][k], product.value(mt, half, 0, k));
        }

#pragma unroll
    for (int mt = 0; mt < 4; mt++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t row = row0 + product.row(mt, half), i = p.first_image_a + row;
            if (row >= p.images_a || i - p.first_kept >= p.kept) continue;
            uint32_t *keys = p.keys + uint64_t(i - p.first_kept) * p.images * patches + place;
#pragma unroll
            for (int k = 0; k < LOCAL_OWNED; k++) {
                const uint32_t column = column0 + product.column(0) + k, j = p.first_image_b + column;
                const float best = highest[mt][half][k];
                if (column < p.images_b && !(p.symmetric && i == j) && best != none)
                    keys[uint64_t(j) * patches] = key_of(best);
            }
        }
}

MUSC_ENTRY(local_distance_pool, LocalDistanceParams, POOL_MAX_THREADS, 2, pool)
MUSC_ENTRY(local_distance_max, LocalDistanceParams, TILE_THREADS, TILE_BLOCKS_PER_SM, local_max)
