// Math: out = softmax(Q K^T / sqrt(64)) V for every image and head, without the T x T matrix in memory: keys and values
//   come in tiles of 64, with the running maximum and sum of the online softmax.
//
// Shapes: qkv half [N, T, 3*heads*64]: query, key, value, each heads*64 wide; out half [N, T, heads*64]; 16-byte aligned.
//
// Launch: grid (ceil(T / 128), heads, N), block 128. A block owns 128 queries of one head, a warp 32 of them; a thread
//   2 numbers of every 8 in 4 rows of the scores and of the output.
//
// Shared memory: static, two stages of 64 keys and 64 values of 128 bytes: 2 * 2 * 8192 = 32768. The queries pass through
//   the second stage into registers, the output through the first. Chunk c of row r lies at r*128 + (c ^ r % 8)*16: no conflicts.
//
// Numerics: products of halves summed in f32 by the tensor cores; softmax in f32 by exp2 with log2(e)/8 folded in; the
//   probabilities are rounded to halves for the second product, their sum is not. The last tile multiplies only the
//   groups of 16 keys that hold one; keys beyond T count as -inf.
//
// Preconditions: T, heads, N > 0; T <= 8192; heads <= 65535; N <= 65535. bf16 needs compute capability 8.0.
#include "common/memory.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"

constexpr int ATTENTION_THREADS = 128;
constexpr int ATTENTION_BLOCKS_PER_SM = 2;
constexpr int HEAD = 64;
constexpr int QUERIES = 128;
constexpr int KEYS = 64;
constexpr int ROW_BYTES = HEAD * 2;
constexpr int CHUNKS = ROW_BYTES / 16;
constexpr int OPERAND_BYTES = KEYS * ROW_BYTES;
constexpr int STAGE_BYTES = 2 * OPERAND_BYTES;
constexpr int COPY_ROWS = ATTENTION_THREADS / CHUNKS;
// Query rows of a warp in units of 16 (m-tiles), keys in units of 16, head channels in units of 16.
constexpr int M_TILES = QUERIES / (ATTENTION_THREADS / WARP) / 16;
constexpr int KEY_GROUPS = KEYS / 16;
constexpr int HEAD_GROUPS = HEAD / 16;
static_assert(QUERIES * ROW_BYTES == STAGE_BYTES, "the queries pass through one stage");
static_assert(M_TILES == 2, "a warp owns 32 queries");

MUSC_DEVICE uint32_t swizzled(uint32_t row, uint32_t chunk) { return row * ROW_BYTES + ((chunk ^ (row % 8)) * 16); }

// 64 rows of keys or values from `first` on, 128 bytes each; rows from `tokens` on repeat the last.
template <int ROWS>
MUSC_DEVICE void copy_rows(uint32_t shared, const uint16_t *from, uint32_t first, uint32_t tokens, uint32_t pitch) {
    const uint32_t chunk = threadIdx.x % CHUNKS;
#pragma unroll
    for (int i = 0; i < ROWS / COPY_ROWS; i++) {
        const uint32_t row = threadIdx.x / CHUNKS + i * COPY_ROWS;
        copy16(shared + swizzled(row, chunk), from + uint64_t(min(first + row, tokens - 1)) * pitch + chunk * 8);
    }
}

template <class Half>
struct Attention {
    uint32_t query[M_TILES][HEAD_GROUPS][4];
    float out[M_TILES][HEAD / 8][4];
    float highest[M_TILES][2]; // running maximum of a row's scores, before the scale
    float sum[M_TILES][2];     // this thread's share of the running sum

    // One tile of `keys` keys; TAIL: fewer than KEYS.
    template <bool TAIL>
    MUSC_DEVICE void tile(uint32_t s_keys, uint32_t s_values, uint32_t keys, float scale_log2) {
        const uint32_t lane = threadIdx.x % WARP;
        float score[M_TILES][KEYS / 8][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) score[m][n][e] = 0.0f;
#pragma unroll
        for (int n = 0; n < KEY_GROUPS; n++) {
            if (TAIL && n * 16 >= keys) break;
#pragma unroll
            for (int k = 0; k < HEAD_GROUPS; k++) {
                uint32_t b[4];
                ldmatrix4(b, s_keys + swizzled(n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < M_TILES; m++) {
                    mma<Half>(score[m][2 * n], query[m][k], b[0], b[1]);
                    mma<Half>(score[m][2 * n + 1], query[m][k], b[2], b[3]);
                }
            }
        }
        if (TAIL) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (n * 8 + lane % 4 * 2 + e % 2 >= keys)
#pragma unroll
                        for (int m = 0; m < M_TILES; m++) score[m][n][e] = __uint_as_float(0xff800000u);
        }
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float top = highest[m][half];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
                    top = fmaxf(top, fmaxf(score[m][n][half * 2], score[m][n][half * 2 + 1]));
                top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 1));
                top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 2));
                // The first tile has a key, so `top` is finite and exp2(-inf) = 0 starts the sums.
                const float rescale = exp2_fast((highest[m][half] - top) * scale_log2);
                const float shift = top * scale_log2;
                highest[m][half] = top;
                float add = 0.0f;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float &s = score[m][n][half * 2 + e];
                        s = exp2_fast(fmaf(s, scale_log2, -shift));
                        add += s;
                    }
                sum[m][half] = fmaf(sum[m][half], rescale, add);
#pragma unroll
                for (int n = 0; n < HEAD / 8; n++) {
                    out[m][n][half * 2] *= rescale;
                    out[m][n][half * 2 + 1] *= rescale;
                }
            }
#pragma unroll
        for (int k = 0; k < KEY_GROUPS; k++) {
            if (TAIL && k * 16 >= keys) break;
            uint32_t a[M_TILES][4];
#pragma unroll
            for (int m = 0; m < M_TILES; m++)
#pragma unroll
                for (int r = 0; r < 4; r++)
                    a[m][r] = Half::pack(score[m][2 * k + r / 2][r % 2 * 2], score[m][2 * k + r / 2][r % 2 * 2 + 1]);
#pragma unroll
            for (int n = 0; n < HEAD_GROUPS; n++) {
                uint32_t b[4];
                ldmatrix4_transposed(b, s_values + swizzled(k * 16 + lane / 8 % 2 * 8 + lane % 8, n * 2 + lane / 16));
#pragma unroll
                for (int m = 0; m < M_TILES; m++) {
                    mma<Half>(out[m][2 * n], a[m], b[0], b[1]);
                    mma<Half>(out[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
};

template <class Half>
MUSC_DEVICE void attention(const AttentionParams &p) {
    __shared__ __align__(128) uint8_t s_stages[2 * STAGE_BYTES];
    const uint32_t base = shared_address(s_stages);
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t width = p.heads * HEAD, pitch = 3 * width, tokens = p.tokens;
    const uint32_t first_query = blockIdx.x * QUERIES;
    const uint16_t *queries = p.qkv + uint64_t(blockIdx.z) * tokens * pitch + blockIdx.y * HEAD;
    const uint16_t *keys = queries + width, *values = keys + width;
    // Warps past the last query only help to copy.
    const bool works = first_query + warp * M_TILES * 16 < tokens;

    copy_rows<QUERIES>(base + STAGE_BYTES, queries, first_query, tokens, pitch);
    copy_rows<KEYS>(base, keys, 0, tokens, pitch);
    copy_rows<KEYS>(base + OPERAND_BYTES, values, 0, tokens, pitch);
    copy_commit();
    copy_wait<0>();
    __syncthreads();

    Attention<Half> state;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int k = 0; k < HEAD_GROUPS; k++)
            ldmatrix4(state.query[m][k],
                      base + STAGE_BYTES + swizzled((warp * M_TILES + m) * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) state.out[m][n][e] = 0.0f;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            state.highest[m][half] = __uint_as_float(0xff800000u);
            state.sum[m][half] = 0.0f;
        }
    }

    const uint32_t full = tokens / KEYS;
    uint32_t stage = 0;
    for (uint32_t t = 0; t < full; t++) {
        // Tile t has arrived for every thread, and everyone is done with the other stage.
        copy_wait<0>();
        __syncthreads();
        if ((t + 1) * KEYS < tokens) {
            copy_rows<KEYS>(base + (stage ^ STAGE_BYTES), keys, (t + 1) * KEYS, tokens, pitch);
            copy_rows<KEYS>(base + (stage ^ STAGE_BYTES) + OPERAND_BYTES, values, (t + 1) * KEYS, tokens, pitch);
        }
        copy_commit();
        if (works) state.template tile<false>(base + stage, base + stage + OPERAND_BYTES, KEYS, p.scale_log2);
        stage ^= STAGE_BYTES;
    }
    copy_wait<0>();
    __syncthreads();
    if (tokens % KEYS != 0) {
        if (works) state.template tile<true>(base + stage, base + stage + OPERAND_BYTES, tokens % KEYS, p.scale_log2);
        __syncthreads();
    }
    if (!works) return;

    // Through this warp's 4 KiB of shared memory, so that rows are stored 16 bytes a thread.
    uint8_t *s_out = s_stages + warp * M_TILES * 16 * ROW_BYTES;
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = state.sum[m][half];
            sum += __shfl_xor_sync(FULL_WARP, sum, 1);
            sum += __shfl_xor_sync(FULL_WARP, sum, 2);
            const float scale = 1.0f / sum;
            const uint32_t row = m * 16 + half * 8 + lane / 4;
#pragma unroll
            for (int n = 0; n < HEAD / 8; n++)
                *reinterpret_cast<uint32_t *>(s_out + swizzled(row, n) + lane % 4 * 4) =
                    Half::pack(state.out[m][n][half * 2] * scale, state.out[m][n][half * 2 + 1] * scale);
        }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < M_TILES * 16 * CHUNKS / WARP; i++) {
        const uint32_t row = i * (WARP / CHUNKS) + lane / CHUNKS, chunk = lane % CHUNKS;
        const uint32_t query = first_query + warp * M_TILES * 16 + row;
        if (query < tokens)
            *reinterpret_cast<uint4 *>(p.out + (uint64_t(blockIdx.z) * tokens + query) * width + blockIdx.y * HEAD +
                                       chunk * 8) = *reinterpret_cast<const uint4 *>(s_out + swizzled(row, chunk));
    }
}

MUSC_ENTRY(attention_flash, AttentionParams, ATTENTION_THREADS, ATTENTION_BLOCKS_PER_SM, attention)
