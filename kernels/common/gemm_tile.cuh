// The main loop of gemm, patch_distance and local_distance: one 128x128 tile of A * B^T by a block of four warps. With
// WARP_N = 32 it is a tile of 128x64, whose accumulators are half as many: for those who keep as many numbers beside.
// Its rows may be few: a warp whose part of the tile lies outside the product does no products.
//
// A and B are row-major with K side by side ("NT"). A block copies 32 numbers of K (64 bytes) of 128 rows of A and of B
// a stage; a warp owns 64x64 of the tile, so that 8 ldmatrix feed 32 mma (64x32: 6 feed 16). On 8.0 and later three
// stages are filled by cp.async two tiles ahead; on 7.5 two stages are filled through registers, loaded before and
// stored after the product.
//
// Shared rows are 64 bytes, two to a line of 128 bytes. The 16-byte chunk c of row r lies at r*64 + (c ^ s(r))*16,
// with s chosen so that the eight rows an ldmatrix reads together fall into eight different groups of four banks:
//   A reads rows r0 .. r0+7:                             s(r) = (r >> 1) & 3
//   B reads rows that are 2 in a run of OWNED columns:   s(r) = (r / OWNED) & 3
//
// Which column of the tile an mma calls "n" is free, as long as B is read and C is stored alike. Columns are dealt out
// so that a thread owns OWNED neighbours (8 halves or 4 floats: 16 bytes) of each of its rows, and four threads
// together whole sectors: no exchange is needed to store 16 bytes at a time.
#pragma once
#include "memory.cuh"
#include "mma.cuh"

constexpr int TILE_M = 128;
constexpr int TILE_N = 128;
constexpr int TILE_K = 32;
constexpr int TILE_WARP = 64;
constexpr int TILE_THREADS = 128;
constexpr int TILE_BLOCKS_PER_SM = 2;
constexpr int TILE_STAGES = MUSC_SM80 ? 3 : 2;
constexpr int TILE_ROW_BYTES = TILE_K * 2;
constexpr int TILE_OPERAND_BYTES = TILE_M * TILE_ROW_BYTES;
constexpr int TILE_STAGE_BYTES = 2 * TILE_OPERAND_BYTES;
constexpr int TILE_SHARED_BYTES = TILE_STAGES * TILE_STAGE_BYTES;
// Rows between two chunks a thread copies, and how many it copies of each operand.
constexpr int TILE_COPY_ROWS = TILE_THREADS / (TILE_ROW_BYTES / 16);
constexpr int TILE_COPIES = TILE_M / TILE_COPY_ROWS;
// Tiles of a column of the output that run one after the other, so that a wave of blocks shares both operands in L2.
constexpr uint32_t TILE_GROUP_M = 8;

static_assert(TILE_M == TILE_N, "both operands are copied alike");
static_assert((TILE_M / TILE_WARP) * (TILE_N / TILE_WARP) * WARP == TILE_THREADS, "a warp owns one 64x64 part");
static_assert(TILE_COPIES * TILE_THREADS * 16 == TILE_OPERAND_BYTES, "the copies cover a stage");
static_assert(TILE_SHARED_BYTES <= 48 * 1024, "static shared memory holds at most 48 KiB");

// Row and column of the tile of block `id`: TILE_GROUP_M rows of tiles are walked column by column.
MUSC_DEVICE uint2 tile_of_block(uint32_t id, uint32_t tiles_m, uint32_t tiles_n) {
    uint32_t group = id / (TILE_GROUP_M * tiles_n);
    uint32_t first = group * TILE_GROUP_M;
    uint32_t height = min(TILE_GROUP_M, tiles_m - first);
    uint32_t within = id - group * TILE_GROUP_M * tiles_n;
    return make_uint2(first + within % height, within / height);
}

template <class Half, int OWNED, int WARP_N = TILE_WARP>
struct GemmTile {
    static_assert(OWNED == 4 || OWNED == 8, "a thread owns 16 bytes of a row");
    static_assert(WARP_N == TILE_WARP || WARP_N == TILE_WARP / 2, "columns of a warp");
    static constexpr int OWNED_COLUMNS = OWNED;
    // Rows of B in the tile, copies of them by a thread, and the bytes of a stage and of all.
    static constexpr int COLUMNS = TILE_N / TILE_WARP * WARP_N;
    static constexpr int COPIES_B = COLUMNS / TILE_COPY_ROWS;
    static constexpr int STAGE_BYTES = TILE_OPERAND_BYTES + COLUMNS * TILE_ROW_BYTES;
    static constexpr int SHARED_BYTES = TILE_STAGES * STAGE_BYTES;
    // mma columns (n-tiles) that interleave, and the columns of the tile they cover.
    static constexpr int TILES_IN_GROUP = OWNED / 2;
    static constexpr int GROUP = 8 * TILES_IN_GROUP;

    float acc[4][WARP_N / 8][4];
    uint32_t lane;
    uint32_t warp_m; // first row of the warp in the tile: 0 or 64
    uint32_t warp_n;

    // Row in the tile of accumulator acc[mt][..][2*half ..].
    MUSC_DEVICE uint32_t row(int mt, int half) const { return warp_m + mt * 16 + half * 8 + lane / 4; }
    // First of the OWNED columns held in acc[mt][group*TILES_IN_GROUP ..][..]; group in 0 .. WARP_N / GROUP.
    MUSC_DEVICE uint32_t column(int group) const { return warp_n + group * GROUP + (lane % 4) * OWNED; }
    // The k-th owned column of a group.
    MUSC_DEVICE float value(int mt, int half, int group, int k) const {
        return acc[mt][group * TILES_IN_GROUP + k / 2][half * 2 + k % 2];
    }

    MUSC_DEVICE float &value(int mt, int half, int group, int k) {
        return acc[mt][group * TILES_IN_GROUP + k / 2][half * 2 + k % 2];
    }

    // acc = A[row0 .. row0+128] * B[column0 ..+COLUMNS]^T. Rows from `m` and columns from `n` on repeat the last one:
    // what they give is not stored. All threads of the block call it; one that calls it again waits for the others
    // before.
    MUSC_DEVICE void run(uint8_t *shared, const uint16_t *a, const uint16_t *b, uint32_t m, uint32_t n, uint32_t k,
                         uint32_t lda, uint32_t ldb, uint32_t row0, uint32_t column0) {
        const uint32_t thread = threadIdx.x;
        const uint32_t warp = thread / WARP;
        lane = thread % WARP;
        warp_m = (warp / 2) * TILE_WARP;
        warp_n = (warp % 2) * WARP_N;

        // Where this thread copies from and to. Rows are TILE_COPY_ROWS apart, so the swizzle is the same for all.
        static_assert(TILE_COPY_ROWS % 32 == 0, "s(r) has period 8 or 32 rows");
        const uint32_t copy_row = thread / 4, copy_chunk = thread % 4;
        const uint32_t base = shared_address(shared);
        const uint32_t to_a = base + copy_row * TILE_ROW_BYTES + ((copy_chunk ^ (copy_row / 2 % 4)) * 16);
        const uint32_t to_b = base + TILE_OPERAND_BYTES + copy_row * TILE_ROW_BYTES +
                              ((copy_chunk ^ (copy_row / OWNED % 4)) * 16);
        const char *from_a = reinterpret_cast<const char *>(a + uint64_t(row0) * lda + copy_chunk * 8);
        const char *from_b = reinterpret_cast<const char *>(b + uint64_t(column0) * ldb + copy_chunk * 8);
        uint32_t offset_a[TILE_COPIES], offset_b[COPIES_B];
#pragma unroll
        for (int i = 0; i < TILE_COPIES; i++)
            offset_a[i] = min(copy_row + i * TILE_COPY_ROWS, m - 1 - row0) * lda * 2;
#pragma unroll
        for (int i = 0; i < COPIES_B; i++)
            offset_b[i] = min(copy_row + i * TILE_COPY_ROWS, n - 1 - column0) * ldb * 2;

        // Where this lane's rows of the fragments begin; the second half of TILE_K is the same address ^ 32.
        const uint32_t a_row = lane % 16;
        const uint32_t read_a = (warp_m + a_row) * TILE_ROW_BYTES + (((lane / 16) ^ (a_row / 2 % 4)) * 16);
        const uint32_t b_row = lane % 8 / 2 * OWNED + lane / 16 * 2 + lane % 2;
        const uint32_t read_b = TILE_OPERAND_BYTES + (warp_n + b_row) * TILE_ROW_BYTES +
                                (((lane / 8 % 2) ^ (lane % 8 / 2)) * 16);

#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) acc[i][j][e] = 0.0f;

        const uint32_t steps = k / TILE_K;
        const bool works = WARP_N == TILE_WARP || (row0 + warp_m < m && column0 + warp_n < n);
#if MUSC_SM80
#pragma unroll
        for (int s = 0; s < TILE_STAGES - 1; s++) {
            if (s < steps) {
                copy_stage(to_a, to_b, s * STAGE_BYTES, from_a, from_b, offset_a, offset_b);
                from_a += TILE_ROW_BYTES;
                from_b += TILE_ROW_BYTES;
            }
            copy_commit();
        }
        uint32_t read_stage = 0, write_stage = (TILE_STAGES - 1) * STAGE_BYTES;
        for (uint32_t step = 0; step < steps; step++) {
            // Stage `step` has arrived for every thread, and everyone is done with the stage written next.
            copy_wait<TILE_STAGES - 2>();
            __syncthreads();
            if (step + TILE_STAGES - 1 < steps) {
                copy_stage(to_a, to_b, write_stage, from_a, from_b, offset_a, offset_b);
                from_a += TILE_ROW_BYTES;
                from_b += TILE_ROW_BYTES;
            }
            copy_commit();
            if (works) multiply(base + read_stage + read_a, base + read_stage + read_b);
            read_stage = read_stage == (TILE_STAGES - 1) * STAGE_BYTES ? 0 : read_stage + STAGE_BYTES;
            write_stage = write_stage == (TILE_STAGES - 1) * STAGE_BYTES ? 0 : write_stage + STAGE_BYTES;
        }
        copy_wait<0>();
#else
        uint4 next_a[TILE_COPIES], next_b[COPIES_B];
        load_stage(next_a, next_b, from_a, from_b, offset_a, offset_b);
        store_stage(to_a, to_b, 0, next_a, next_b);
        __syncthreads();
        uint32_t stage = 0;
        for (uint32_t step = 0; step < steps; step++) {
            const bool more = step + 1 < steps;
            if (more) {
                from_a += TILE_ROW_BYTES;
                from_b += TILE_ROW_BYTES;
                load_stage(next_a, next_b, from_a, from_b, offset_a, offset_b);
            }
            if (works) multiply(base + stage + read_a, base + stage + read_b);
            stage ^= STAGE_BYTES;
            if (more) store_stage(to_a, to_b, stage, next_a, next_b);
            __syncthreads();
        }
#endif
    }

  private:
    MUSC_DEVICE static void copy_stage(uint32_t to_a, uint32_t to_b, uint32_t stage, const char *from_a,
                                       const char *from_b, const uint32_t (&offset_a)[TILE_COPIES],
                                       const uint32_t (&offset_b)[COPIES_B]) {
#pragma unroll
        for (int i = 0; i < TILE_COPIES; i++) {
            copy16(to_a + stage + i * TILE_COPY_ROWS * TILE_ROW_BYTES, from_a + offset_a[i]);
            if (i < COPIES_B) copy16(to_b + stage + i * TILE_COPY_ROWS * TILE_ROW_BYTES, from_b + offset_b[i]);
        }
    }

    MUSC_DEVICE static void load_stage(uint4 (&next_a)[TILE_COPIES], uint4 (&next_b)[COPIES_B], const char *from_a,
                                       const char *from_b, const uint32_t (&offset_a)[TILE_COPIES],
                                       const uint32_t (&offset_b)[COPIES_B]) {
#pragma unroll
        for (int i = 0; i < TILE_COPIES; i++) {
            next_a[i] = *reinterpret_cast<const uint4 *>(from_a + offset_a[i]);
            if (i < COPIES_B) next_b[i] = *reinterpret_cast<const uint4 *>(from_b + offset_b[i]);
        }
    }

    MUSC_DEVICE static void store_stage(uint32_t to_a, uint32_t to_b, uint32_t stage,
                                        const uint4 (&next_a)[TILE_COPIES], const uint4 (&next_b)[COPIES_B]) {
#pragma unroll
        for (int i = 0; i < TILE_COPIES; i++) {
            store_shared16(to_a + stage + i * TILE_COPY_ROWS * TILE_ROW_BYTES, next_a[i]);
            if (i < COPIES_B) store_shared16(to_b + stage + i * TILE_COPY_ROWS * TILE_ROW_BYTES, next_b[i]);
        }
    }

    // One stage: TILE_K / 16 steps of 4 x WARP_N/8 mma.
    MUSC_DEVICE void multiply(uint32_t read_a, uint32_t read_b) {
#pragma unroll
        for (int kk = 0; kk < TILE_K / 16; kk++) {
            uint32_t fragment_a[4][4], fragment_b[WARP_N / 16][4];
#pragma unroll
            for (int i = 0; i < 4; i++) ldmatrix4(fragment_a[i], (read_a ^ (kk * 32)) + i * 16 * TILE_ROW_BYTES);
#pragma unroll
            for (int j = 0; j < WARP_N / 16; j++) {
                // Two n-tiles a load: rows OWNED apart within a group of GROUP columns.
                constexpr int LOADS_IN_GROUP = TILES_IN_GROUP / 2;
                const int first_row = j / LOADS_IN_GROUP * GROUP + j % LOADS_IN_GROUP * 4;
                ldmatrix4(fragment_b[j], (read_b ^ (kk * 32)) + first_row * TILE_ROW_BYTES);
            }
#pragma unroll
            for (int j = 0; j < WARP_N / 16; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    mma<Half>(acc[i][2 * j], fragment_a[i], fragment_b[j][0], fragment_b[j][1]);
                    mma<Half>(acc[i][2 * j + 1], fragment_a[i], fragment_b[j][2], fragment_b[j][3]);
                }
        }
    }
};
