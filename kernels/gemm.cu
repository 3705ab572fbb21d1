// Math: out = epilogue(A * B^T), every product of the backbone and the Gram blocks of the mutual scores.
//   bias               out = acc + bias[n]                                   half
//   bias_gelu          out = gelu(acc + bias[n]), x/2 (1 + erf(x/sqrt 2))    half
//   bias_quick_gelu    out = x / (1 + exp(-1.702 x)), x = acc + bias[n]      half
//   bias_residual      out = addend[m][n] + layer_scale[n] * (acc + bias[n]) f32, may be in place
//   embed              out[t(m)][n] = acc + addend[1 + m % L][n]             f32, t(m) = m/L * (L+1) + 1 + m % L
//   gram               out = acc - m_j s_i(p) - m_i (s_j(q) - C m_j)         f32, for row (i, p) and column (j, q):
//                      the product of the tokens of images i and j less their means; symmetric: only where some i < j
//
// Shapes: a half [m, k], row stride lda; b half [n, k], row stride ldb; out half or f32 [m, n], row stride ldo (embed:
//   [m/L*(L+1), n]); bias and layer_scale f32 [n]; addend f32, row stride ldo: bias_residual [m, n], embed [L+1, n]
//   (position embedding with the bias of the patch convolution added); row_sum_a, row_sum_b f32 [N, L] and mean_a, mean_b
//   f32 [N], those of one set twice where it is symmetric. All pointers and row starts 16-byte aligned.
//
// Launch: grid ceil(m/128) * ceil(n/128), block 128. A block owns one 128x128 tile of the output, a warp 64x64 of it,
//   a thread 16 bytes side by side in each of 8 rows a 16-byte group. Tiles are walked 8 rows of tiles at a time.
//
// Shared memory: static. 8.0 and later: 3 stages * 2 operands * 128 rows * 64 bytes = 49152; 7.5: 2 stages = 32768.
//
// Numerics: products of halves are exact in f32 and summed in f32 by the tensor cores; epilogues in f32; one rounding
//   (to nearest even) to a half at the store. A value beyond the format becomes infinite, NaN stays NaN. gram: the raw
//   halves are multiplied and the mean is taken off in f32, as a rank-1 correction. Were sums rounded to nearest, that would
//   be an error of 1e-6 in a cosine; tensor cores cut theirs towards zero, which makes the cosine of like tokens 1e-5 too
//   small, and more where the mean is large beside the spread (docs/fidelity.md). Rounding centred, normalised tokens to
//   halves costs 1e-3.
//
// Preconditions: m, n, k > 0; k % 32 == 0; n % 8 == 0 (half out) or n % 4 == 0 (f32 out); lda, ldb, ldo multiples of 8;
//   lda, ldb < 2^24; embed: m % L == 0. bf16 needs compute capability 8.0. Rows of A are concatenated images for embed
//   and gram (rows_per_image = L). gram: up to three columns past n are written: ldo >= n rounded up to 4, any n;
//   symmetric: tiles without a pair (image of A) < (image of B) write nothing; channels = C <= k; gram_pool wants ldo =
//   MUSC_GRAM_STRIDE.
#include "common/gemm_tile.cuh"
#include "common/reduce.cuh"

enum Epilogue { BIAS, BIAS_GELU, BIAS_QUICK_GELU, BIAS_RESIDUAL, EMBED, GRAM };

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

template <int EPILOGUE>
MUSC_DEVICE float activate(float x) {
    if (EPILOGUE == BIAS_GELU) return gelu(x);
    // For x below about -52 the exponential is infinite and its reciprocal 0, the limit.
    if (EPILOGUE == BIAS_QUICK_GELU) return x * reciprocal(1.0f + exp2_fast(QUICK_GELU_LOG2E * x));
    return x;
}

template <class Half, int EPILOGUE>
MUSC_DEVICE void gemm(const GemmParams &p) {
    constexpr bool HALF_OUT = EPILOGUE <= BIAS_QUICK_GELU;
    constexpr int OWNED = HALF_OUT ? 8 : 4;
    constexpr int GROUPS = TILE_WARP / (OWNED * 4);
    __shared__ __align__(128) uint8_t s_stages[TILE_SHARED_BYTES];

    const uint2 tile = tile_of_block(blockIdx.x, ceil_div(p.m, TILE_M), ceil_div(p.n, TILE_N));
    const uint32_t row0 = tile.x * TILE_M, column0 = tile.y * TILE_N;
    if (EPILOGUE == GRAM && p.symmetric) {
        const uint32_t last_column = min(column0 + TILE_N, p.n) - 1;
        if (p.first_image_a + row0 / p.rows_per_image >= p.first_image_b + last_column / p.rows_per_image) return;
    }
    GemmTile<Half, OWNED> tile_product;
    tile_product.run(s_stages, p.a, p.b, p.m, p.n, p.k, p.lda, p.ldb, row0, column0);

    // gram: mean of the image and row sum of the token of each row.
    float row_mean[4][2], row_sum[4][2];
    if (EPILOGUE == GRAM) {
#pragma unroll
        for (int mt = 0; mt < 4; mt++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t row = min(row0 + tile_product.row(mt, half), p.m - 1);
                row_mean[mt][half] = __ldg(p.mean_a + p.first_image_a + row / p.rows_per_image);
                row_sum[mt][half] = __ldg(p.row_sum_a + uint64_t(p.first_image_a) * p.rows_per_image + row);
            }
    }
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
        const uint32_t column = column0 + tile_product.column(group);
        if (column >= p.n) continue;
        // gram: mean and centred row sum of the token of each column. Columns past n repeat the last token.
        float mean_j[OWNED], sum_j[OWNED];
        if (EPILOGUE == GRAM) {
            uint32_t j = column / p.rows_per_image, q = column % p.rows_per_image;
#pragma unroll
            for (int k = 0; k < OWNED; k++) {
                mean_j[k] = __ldg(p.mean_b + p.first_image_b + j);
                sum_j[k] = fmaf(-float(p.channels), mean_j[k],
                                __ldg(p.row_sum_b + uint64_t(p.first_image_b + j) * p.rows_per_image + q));
                if (column + k + 1 < p.n && ++q == p.rows_per_image) q = 0, j++;
            }
        }
        float bias[OWNED], scale[OWNED];
#pragma unroll
        for (int k = 0; k < OWNED; k += 4) {
            float4 b = make_float4(0.0f, 0.0f, 0.0f, 0.0f), s = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
            if (EPILOGUE <= BIAS_RESIDUAL)
                b = __ldg(reinterpret_cast<const float4 *>(p.bias + column + k));
            if (EPILOGUE == BIAS_RESIDUAL && p.layer_scale != nullptr)
                s = __ldg(reinterpret_cast<const float4 *>(p.layer_scale + column + k));
            bias[k] = b.x, bias[k + 1] = b.y, bias[k + 2] = b.z, bias[k + 3] = b.w;
            scale[k] = s.x, scale[k + 1] = s.y, scale[k + 2] = s.z, scale[k + 3] = s.w;
        }
#pragma unroll
        for (int mt = 0; mt < 4; mt++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t row = row0 + tile_product.row(mt, half);
                if (row >= p.m) continue;
                float v[OWNED];
#pragma unroll
                for (int k = 0; k < OWNED; k++)
                    v[k] = activate<EPILOGUE>(tile_product.value(mt, half, group, k) + bias[k]);
                if constexpr (HALF_OUT) {
                    uint4 packed = make_uint4(Half::pack(v[0], v[1]), Half::pack(v[2], v[3]), Half::pack(v[4], v[5]),
                                              Half::pack(v[6], v[7]));
                    *reinterpret_cast<uint4 *>(static_cast<uint16_t *>(p.out) + uint64_t(row) * p.ldo + column) = packed;
                } else {
                    uint64_t to = uint64_t(row) * p.ldo + column;
                    float4 value = make_float4(v[0], v[1], v[2], v[3]);
                    if (EPILOGUE == BIAS_RESIDUAL) {
                        const float4 x = *reinterpret_cast<const float4 *>(p.addend + to);
                        value = make_float4(fmaf(scale[0], v[0], x.x), fmaf(scale[1], v[1], x.y),
                                            fmaf(scale[2], v[2], x.z), fmaf(scale[3], v[3], x.w));
                    }
                    if (EPILOGUE == GRAM) {
                        const float mean = row_mean[mt][half], sum = row_sum[mt][half];
                        value = make_float4(v[0] - mean_j[0] * sum - mean * sum_j[0],
                                            v[1] - mean_j[1] * sum - mean * sum_j[1],
                                            v[2] - mean_j[2] * sum - mean * sum_j[2],
                                            v[3] - mean_j[3] * sum - mean * sum_j[3]);
                    }
                    if (EPILOGUE == EMBED) {
                        const uint32_t image = row / p.rows_per_image, patch = row % p.rows_per_image;
                        const float4 x = __ldg(
                            reinterpret_cast<const float4 *>(p.addend + uint64_t(1 + patch) * p.ldo + column));
                        value = make_float4(v[0] + x.x, v[1] + x.y, v[2] + x.z, v[3] + x.w);
                        to = (uint64_t(image) * (p.rows_per_image + 1) + 1 + patch) * p.ldo + column;
                    }
                    *reinterpret_cast<float4 *>(static_cast<float *>(p.out) + to) = value;
                }
            }
    }
}

template <class Half> MUSC_DEVICE void bias(const GemmParams &p) { gemm<Half, BIAS>(p); }
template <class Half> MUSC_DEVICE void bias_gelu(const GemmParams &p) { gemm<Half, BIAS_GELU>(p); }
template <class Half> MUSC_DEVICE void bias_quick_gelu(const GemmParams &p) { gemm<Half, BIAS_QUICK_GELU>(p); }
template <class Half> MUSC_DEVICE void bias_residual(const GemmParams &p) { gemm<Half, BIAS_RESIDUAL>(p); }
template <class Half> MUSC_DEVICE void embed(const GemmParams &p) { gemm<Half, EMBED>(p); }
template <class Half> MUSC_DEVICE void gram(const GemmParams &p) { gemm<Half, GRAM>(p); }

MUSC_ENTRY(gemm_bias, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias)
MUSC_ENTRY(gemm_bias_gelu, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias_gelu)
MUSC_ENTRY(gemm_bias_quick_gelu, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias_quick_gelu)
MUSC_ENTRY(gemm_bias_residual, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, bias_residual)
MUSC_ENTRY(gemm_embed, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, embed)
MUSC_ENTRY(gemm_gram, GemmParams, TILE_THREADS, TILE_BLOCKS_PER_SM, gram)
