// Math: out = epilogue(A * B^T), every product of the backbone and the Gram blocks of the mutual scores.
//   bias               out = acc + bias[n]                                   half
//   bias_gelu          out = gelu(acc + bias[n]), x/2 (1 + erf(x/sqrt 2))    half
//   bias_quick_gelu    out = x / (1 + exp(-1.702 x)), x = acc + bias[n]      half
//   bias_residual      out = addend[m][n] + layer_scale[n] * (acc + bias[n]) f32, may be in place
//   embed              out[t(m)][n] = acc + addend[1 + m % L][n]             f32, t(m) = m/L * (L+1) + 1 + m % L
//   gram               out = acc - m_j s_i(p) - m_i (s_j(q) - C m_j)         f32, for row (i, p) and column (j, q):
//                      the product of the tokens of images i and j less their means; symmetric: only where some i < j
//   gram_max           as gram, and keys[i - first_kept][j][p] = max over q of out * inv_norm_i(p) * inv_norm_j(q),
//                      symmetric also keys[j - first_kept][i][q] = max over p: degree 1 of the mutual scores
//
// Shapes: a half [m, k], row stride lda; b half [n, k], row stride ldb; out half or f32 [m, n], row stride ldo (embed:
//   [m/L*(L+1), n]); bias and layer_scale f32 [n]; addend f32, row stride ldo: bias_residual [m, n], embed [L+1, n]
//   (position embedding with the bias of the patch convolution added); row_sum_a, row_sum_b f32 [N, L] and mean_a,
//   mean_b f32 [N], those of one set twice where it is symmetric; gram_max: inv_norm_a, inv_norm_b f32 [N, L] alike,
//   keys u32 [kept, N of B, L] (common/reduce.cuh), 0 before the first launch. All other pointers and row starts
//   16-byte aligned.
//
// Launch: grid ceil(m/128) * ceil(n/128), block 128. A block owns one 128x128 tile of the output, a warp 64x64 of it,
//   a thread 16 bytes side by side in each of 8 rows a 16-byte group. Tiles are walked 8 rows of tiles at a time.
//
// Shared memory: static. 8.0 and later: 3 stages * 2 operands * 128 rows * 64 bytes = 49152; 7.5: 2 stages = 32768.
//
// Numerics: products of halves are exact in f32 and summed in f32 by the tensor cores; epilogues in f32; one rounding
//   (to nearest even) to a half at the store. A value beyond the format becomes infinite, NaN stays NaN. gram: the raw
//   halves are multiplied and the mean is taken off in f32, as a rank-1 correction: an error of 1e-6 in a cosine, where
//   rounding centred, normalised tokens to halves costs 1e-3.
//
// Preconditions: m, n, k > 0; k % 32 == 0; n % 8 == 0 (half out) or n % 4 == 0 (f32 out); lda, ldb, ldo multiples of 8;
//   lda, ldb < 2^24; embed: m % L == 0. bf16 needs compute capability 8.0. Rows of A are concatenated images for embed
//   and gram (rows_per_image = L). gram: up to three columns past n are written: ldo >= n rounded up to 4, any n;
//   symmetric: tiles without a pair (image of A) < (image of B) write nothing; channels = C <= k; gram_pool wants ldo =
//   MUSC_GRAM_STRIDE. gram_max: the kept images lie within A's set.
#include "common/pairs.cuh"

constexpr float QUICK_GELU_LOG2E = -1.702f * 1.4426950408889634f;
constexpr float MINUS_HALF_LOG2E = -0.5f * 1.4426950408889634f;

// x Phi(x). The tail of the normal distribution by formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical
// Functions, with z = |x| / sqrt 2: erfc(z) = (a1 t + .. + a5 t^5) exp(-z^2), t = 1 / (1 + 0.3275911 z), off by at most
// 1.5e-7: a thousandth of the rounding that follows, for half the instructions of erff. Half of it is Phi(-|x|).
MUSC_DEVICE float gelu(float x) {
    const float t = reciprocal(fmaf(0.3275911f * 0.70710678f, fabsf(x), 1.0f));
    float tail = fmaf(0.5f * 1.061405429f, t, 0.5f * -1.453152027f);
    tail = fmaf(tail, t, 0.5f * 1.421413741f);
    tail = fmaf(tail, t, 0.5f * -0.284496736f);
    tail = fmaf(tail, t, 0.5f * 0.254829592f);
    tail *= t * exp2_fast(MINUS_HALF_LOG2E * x * x);
    return x < 0.0f ? x * tail : fmaf(-x, tail, x);
}

// For x below about -52 the exponential is infinite and its reciprocal 0, the limit.
MUSC_DEVICE float quick_gelu(float x) { return x * reciprocal(1.0f + exp2_fast(QUICK_GELU_LOG2E * x)); }

enum Activation { NONE, GELU, QUICK_GELU };

MUSC_DEVICE float4 load_floats(const float *from) { return __ldg(reinterpret_cast<const float4 *>(from)); }

// An epilogue is a struct whose members hold what a thread knows of its tile, in the order in which they are called:
//   works(images)       whether the tile of the block is computed at all
//   rows(tile, ..)      once, after the product: what it needs of the thread's 8 rows
//   columns(p, column)  for each group of OWNED columns side by side: what it needs of them
//   apply(p, at, v)     for each row of such a group: v are the sums, and afterwards what the tile keeps of them
//   finish(tile, ..)    once, with what the tile keeps
struct At {
    uint32_t row, column; // of the output, the first of OWNED
    int mt, half;         // which of the thread's rows
};

struct Epilogue {
    MUSC_DEVICE static bool works(const GemmParams &, const TileImages &) { return true; }
    template <class Tile> MUSC_DEVICE void rows(const GemmParams &, const Tile &, uint32_t) {}
    template <class Tile>
    MUSC_DEVICE void finish(const GemmParams &, const Tile &, const TileImages &, uint32_t, uint32_t) {}
};

template <class Half, int ACTIVATION>
struct Bias : Epilogue {
    static constexpr int OWNED = 8;
    float bias[OWNED];

    MUSC_DEVICE void columns(const GemmParams &p, uint32_t column) {
#pragma unroll
        for (int k = 0; k < OWNED; k += 4) {
            const float4 b = load_floats(p.bias + column + k);
            bias[k] = b.x, bias[k + 1] = b.y, bias[k + 2] = b.z, bias[k + 3] = b.w;
        }
    }
    MUSC_DEVICE void apply(const GemmParams &p, const At &at, float (&v)[OWNED]) const {
#pragma unroll
        for (int k = 0; k < OWNED; k++) {
            v[k] += bias[k];
            if (ACTIVATION == GELU) v[k] = gelu(v[k]);
            if (ACTIVATION == QUICK_GELU) v[k] = quick_gelu(v[k]);
        }
        *reinterpret_cast<uint4 *>(static_cast<uint16_t *>(p.out) + uint64_t(at.row) * p.ldo + at.column) =
            make_uint4(Half::pack(v[0], v[1]), Half::pack(v[2], v[3]), Half::pack(v[4], v[5]), Half::pack(v[6], v[7]));
    }
};

// Epilogues that write f32, 16 bytes at a time.
struct Wide : Epilogue {
    static constexpr int OWNED = 4;
    MUSC_DEVICE static void store(const GemmParams &p, uint64_t at, float4 value) {
        *reinterpret_cast<float4 *>(static_cast<float *>(p.out) + at) = value;
    }
};

struct BiasResidual : Wide {
    float4 bias, scale;

    MUSC_DEVICE void columns(const GemmParams &p, uint32_t column) {
        bias = load_floats(p.bias + column);
        scale = p.layer_scale ? load_floats(p.layer_scale + column) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    }
    MUSC_DEVICE void apply(const GemmParams &p, const At &at, float (&v)[OWNED]) const {
        const uint64_t to = uint64_t(at.row) * p.ldo + at.column;
        // Not through the read-only cache: the residual may be the output.
        const float4 x = *reinterpret_cast<const float4 *>(p.addend + to);
        store(p, to, make_float4(fmaf(scale.x, v[0] + bias.x, x.x), fmaf(scale.y, v[1] + bias.y, x.y),
                                 fmaf(scale.z, v[2] + bias.z, x.z), fmaf(scale.w, v[3] + bias.w, x.w)));
    }
};

struct Embed : Wide {
    MUSC_DEVICE void columns(const GemmParams &, uint32_t) {}
    MUSC_DEVICE void apply(const GemmParams &p, const At &at, float (&v)[OWNED]) const {
        const uint32_t image = at.row / p.rows_per_image, patch = at.row % p.rows_per_image;
        const float4 x = load_floats(p.addend + uint64_t(1 + patch) * p.ldo + at.column);
        store(p, (uint64_t(image) * (p.rows_per_image + 1) + 1 + patch) * p.ldo + at.column,
              make_float4(v[0] + x.x, v[1] + x.y, v[2] + x.z, v[3] + x.w));
    }
};

template <bool MAXIMA>
struct Gram : Wide {
    Centring<OWNED> centring;

    MUSC_DEVICE static bool works(const GemmParams &p, const TileImages &images) { return images.work(p); }
    template <class Tile>
    MUSC_DEVICE void rows(const GemmParams &p, const Tile &tile, uint32_t row0) { centring.rows(tile, p, row0, p.m); }
    MUSC_DEVICE void columns(const GemmParams &p, uint32_t column) { centring.columns(p, column, p.n); }
    MUSC_DEVICE void apply(const GemmParams &p, const At &at, float (&v)[OWNED]) const {
#pragma unroll
        for (int k = 0; k < OWNED; k++) v[k] = centring.of(at.mt, at.half, k, v[k]);
        store(p, uint64_t(at.row) * p.ldo + at.column, make_float4(v[0], v[1], v[2], v[3]));
    }
    template <class Tile>
    MUSC_DEVICE void finish(const GemmParams &p, const Tile &tile, const TileImages &images, uint32_t row0,
                            uint32_t column0) {
        if (MAXIMA) merge_maxima(tile, p, images, row0, column0);
    }
};

template <class Half, class Last>
MUSC_DEVICE void gemm(const GemmParams &p) {
    constexpr int OWNED = Last::OWNED;
    __shared__ __align__(128) uint8_t s_stages[TILE_SHARED_BYTES];
    const uint2 tile_at = tile_of_block(blockIdx.x, ceil_div(p.m, TILE_M), ceil_div(p.n, TILE_N));
    const uint32_t row0 = tile_at.x * TILE_M, column0 = tile_at.y * TILE_N;
    const TileImages images(p, row0, column0, p.m, p.n);
    if (!Last::works(p, images)) return;
    GemmTile<Half, OWNED> tile;
    tile.run(s_stages, p.a, p.b, p.m, p.n, p.k, p.lda, p.ldb, row0, column0);

    Last epilogue;
    epilogue.rows(p, tile, row0);
#pragma unroll
    for (int group = 0; group < TILE_WARP / (OWNED * 4); group++) {
        const uint32_t column = column0 + tile.column(group);
        if (column >= p.n) continue;
        epilogue.columns(p, column);
#pragma unroll
        for (int mt = 0; mt < 4; mt++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const At at = {row0 + tile.row(mt, half), column, mt, half};
                if (at.row >= p.m) continue;
                float v[OWNED];
#pragma unroll
                for (int k = 0; k < OWNED; k++) v[k] = tile.value(mt, half, group, k);
                epilogue.apply(p, at, v);
#pragma unroll
                for (int k = 0; k < OWNED; k++) tile.value(mt, half, group, k) = v[k];
            }
    }
    epilogue.finish(p, tile, images, row0, column0);
}

template <class Half> MUSC_DEVICE void bias(const GemmParams &p) { gemm<Half, Bias<Half, NONE>>(p); }
template <class Half> MUSC_DEVICE void bias_gelu(const GemmParams &p) { gemm<Half, Bias<Half, GELU>>(p); }
template <class Half> MUSC_DEVICE void bias_quick_gelu(const GemmParams &p) { gemm<Half, Bias<Half, QUICK_GELU>>(p); }
template <class Half> MUSC_DEVICE void bias_residual(const GemmParams &p) { gemm<Half, BiasResidual>(p); }
template <class Half> MUSC_DEVICE void embed(const GemmParams &p) { gemm<Half, Embed>(p); }
template <class Half> MUSC_DEVICE void gram(const GemmParams &p) { gemm<Half, Gram<false>>(p); }
template <class Half> MUSC_DEVICE void gram_max(const GemmParams &p) { gemm<Half, Gram<true>>(p); }

MUSC_ENTRY(gemm_bias, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias)
MUSC_ENTRY(gemm_bias_gelu, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias_gelu)
MUSC_ENTRY(gemm_bias_quick_gelu, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias_quick_gelu)
MUSC_ENTRY(gemm_bias_residual, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias_residual)
MUSC_ENTRY(gemm_embed, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, embed)
MUSC_ENTRY(gemm_gram, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, gram)
MUSC_ENTRY(gemm_gram_max, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, gram_max)
