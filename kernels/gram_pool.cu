// Math: for each pair of images i, j of a block that counts, each degree r = 2R+1 >= 3, patch p of i and q of j:
//     H(p, q)   = the product of the tokens less their images' means, 0 outside a grid
//     B_r(p, q) = sum of H(p+u, q+v) over u, v within R of 0 on both axes of both grids
//     cos_r     = B_r * inv_norm_r,i(p) * inv_norm_r,j(q)
//   keys[r][i - first_kept][j][p] = max over q, for the images that are kept. Symmetric: i and j are of one set, the
//   pairs i < j count, and keys[r][j - first_kept][i][q] = max over p. Otherwise i is a query, j a reference of another
//   set, every pair counts, and nothing is written for j. One product serves every degree; degree 1 is gemm's gram_max.
//
// The four axes: a row of the gram is a patch p = (py, px) of i, a column a patch q = (qy, qx) of j. A block owns four
// columns px of the grid of i, all rows py, and a strip of the grid of j: strip_rows rows qy of strip_columns columns
// qx, all of them or a part. It walks down py, one row a step:
//
//                       grid of i                             grid of j, for R up to 2
//                   px                                    qx
//               +----------------------+              +------------------------------+
//            py |     h h O O O O h h  |           qy |  h h h h h h h h h h h h h   |  2 halo rows above,
//      step ->  |     h h O O O O h h  |              |  h h h h h h h h h h h h h   |
//               |     h h O O O O h h  |  O owned     |  O O O O|O O O O|O O O O h h |  owned: 4 rows by 4 columns
//               |     . . . . . . . .  |  h halo      |  O O O O|O O O O|O O O O h h |  are one consumer's segment
//               +----------------------+              |  . . . .|                    |  2 halo rows below
//               one barrier a row                     +------------------------------+
//
//   Windows over px, then py: producers. One has one q, of the strip or its halo, as a column of the gram: of each row
//     py it loads 4 + 2*MAX_R neighbours px, sums them over px for its four columns, over py as rows arrive, and writes
//     the sums for the row py = step - R to planes[buffer][degree][column][qy][qx] in shared memory.
//   Windows over qx, then qy: consumers. One has one column px, one degree and 4 x 4 of the strip: it reads 4 + 2*R
//     lines of the plane, sums them over qx and then qy, scales, and keeps two maxima: of each row of i (over its q's;
//     reduced over a warp every four rows), and of each of its q's (over all p; merged at the end).
//   While producers write row y into one buffer, consumers read row y - 1 from the other.
//
// Shapes: gram f32 [images_a * L, MUSC_GRAM_STRIDE], row (a, p), column (b, q): H from gemm_gram or gemm_gram_max;
//   inv_norm_a f32 [degrees, set_images_a, L], inv_norm_b f32 [degrees, N, L], the same one twice where it is
//   symmetric; keys u32 [degrees, kept, N, L] (common/reduce.cuh), 0 before the first launch.
//
// Launch: grid (ceil(W / 4), ceil(H / strip_rows) * ceil(W / strip_columns), images_a * images_b), block producers +
//   consumers. `35`: the degrees 3 and 5, MAX_R = 2; `to5`: 3 or 5, MAX_R = 2; `to7`: any of 3, 5 and 7, MAX_R = 3.
//   A plane holds the strip and its halo; whole rows share the zeros between them, a part has a halo on its left, too.
//     width = ceil4(strip_columns + MAX_R), of a part ceil4(strip_columns + 2*MAX_R)
//     producers = ceil32((strip_rows + 2*MAX_R) * width)
//     consumers = degrees * ceil32(4 * even(ceil(strip_columns / 4)) * ceil(strip_rows / 4)), even() rounding up to
//     even
//   producers at most 544; both at most 672 together for 35, 512 else; take smaller strips or fewer degrees a launch.
//   Warps in order: producers but one, consumers by degree, the last producers. Warp w issues on scheduler w mod 4: so
//   at 37x37 (15 warps of producers, 3 of consumers of each degree) the schedulers' shares of a row differ the least.
//
// Shared memory: dynamic, in floats: 4; two buffers of [degrees][4] planes of 552; degrees * strip_rows * width;
//   degrees * H * 4. 37x37, two degrees, strips of 8 whole rows: (4 + 2*8*552 + 2*8*40 + 2*37*4) * 4 = 39088 bytes.
//   Neighbours in a row are neighbours in memory, and the planes of the four lanes side by side fall into different
//   banks: no conflicts.
//
// Numerics: f32 sums of products of halves; additions only, no running differences. Maxima are exact and independent of
//   the order; NaN does not enter them: a patch whose inverse norm is NaN is in nobody's maximum.
//
// Preconditions: 1 <= H, W <= MUSC_MAX_SIDE; degrees odd, from 3 on, ascending, distinct, at most 2*MAX_R+1;
//   strip_rows >= 1, for 35 a multiple of 4; 1 <= strip_columns <= W; both formulas above within the threads and the
//   card's shared memory; images_a * images_b <= 65535; images_b * L <= MUSC_GRAM_STRIDE; degrees * kept * N < 2^32;
//   both runs within their sets; lnamd and gemm_gram have run.
#include "common/memory.cuh"
#include "common/reduce.cuh"

constexpr int POOL_COLUMNS = 4;     // columns of the grid of i in a block
constexpr int POOL_SEGMENT = 4;     // rows of the strip in a consumer
constexpr int POOL_GROUP = 4;       // columns of the grid of j in a consumer
constexpr int POOL_TURN = 4;        // rows of i whose windows share their middle; a warp reduces their maxima together
constexpr int POOL_MAX_PRODUCERS = 544;
constexpr int POOL_THREADS_35 = 672;
constexpr int POOL_THREADS_ANY = 512;
// Floats from one plane to the next: the producers' and the border, such that the planes of lanes side by side (four
// planes, two groups of 16 bytes) fall into different banks.
constexpr int POOL_PLANE = POOL_MAX_PRODUCERS + 8;
static_assert(POOL_PLANE / 4 % 8 == 2 && POOL_PLANE >= POOL_MAX_PRODUCERS + 2 * 3, "planes: banks and border");
static_assert(POOL_SEGMENT == 4 && POOL_GROUP == 4 && POOL_TURN == 4, "windows are summed four at a time");
static_assert(POOL_COLUMNS == 4, "lanes are dealt out four columns by groups of 16 bytes");

// Zeros left of a row of a plane. For R = 1 one more than its windows reach: they then need a part of both 16-byte
// loads that is more than half, and a load of half the width would conflict.
MUSC_DEVICE constexpr int pool_border(int radius) { return radius == 1 ? 2 : radius; }

// Floats in front of the first plane: the halo left of a part of the columns begins before its plane.
constexpr int POOL_LEAD = 4;
static_assert(POOL_LEAD % 4 == 0 && POOL_LEAD >= MUSC_MAX_DEGREE / 2, "16-byte loads, and the widest halo");
static_assert(POOL_PLANE >= POOL_MAX_PRODUCERS + 2 * (MUSC_MAX_DEGREE / 2), "and ends behind the plane before it");

// Everything a thread knows of its block.
template <int MAX_R, bool ALL>
struct Pool {
    static constexpr int LOADS = POOL_COLUMNS + 2 * MAX_R;
    const GramPoolParams &args;
    uint32_t a, b, i, j;        // the pair: indices in the block of the gram, and images
    uint32_t x0;                // first column of i
    uint32_t y0, rows;          // first row of the strip of j, and its rows
    uint32_t qx0, columns;      // first column of the strip of j, and its columns
    uint32_t left;              // columns of its halo on the left
    uint32_t width;             // floats of a row of a plane of shared memory
    float *s_planes;
    float *s_scale;             // [degrees][strip_rows][width] inverse norms of the strip, NaN (no maximum) outside it
    float *s_inv;               // [degrees][H][POOL_COLUMNS] inverse norms of the columns x0 .., 0 outside the grid
    uint32_t steps;             // times both roles meet

    MUSC_DEVICE uint32_t patches() const { return args.rows * args.columns; }
    MUSC_DEVICE uint32_t degrees() const { return ALL ? MAX_R : args.degrees; }
    // Floats of one of the two buffers. ALL: known, so that the buffer of a step is part of an instruction's offset.
    MUSC_DEVICE uint32_t buffer() const { return degrees() * POOL_COLUMNS * POOL_PLANE; }
};

// The one barrier of producers and consumers. They come to it at different places of the code, so it has a number and a
// count of its own; every warp of the block takes part. It is an aligned barrier: the lanes of a warp come to it
// together.
MUSC_DEVICE void meet() { asm volatile("bar.sync 1, %0;" ::"r"(blockDim.x) : "memory"); }

// Sums of 2*R+1 neighbours for four windows side by side, w[c .. c+2*R]. They share their middle, which leaves 6, 9, 11
// additions where each on its own would take 8, 16, 24.
template <int R>
MUSC_DEVICE void four_windows(float (&sums)[4], const float *w) {
    if constexpr (R == 1) {
        const float left = w[1] + w[2], right = w[3] + w[4];
        sums[0] = w[0] + left, sums[1] = left + w[3], sums[2] = w[2] + right, sums[3] = right + w[5];
    } else {
        // The part common to all four, then one neighbour more to the left for three of them, and two to the right.
        const float all = R == 2 ? w[3] + w[4] : (w[3] + w[4]) + (w[5] + w[6]);
        const float left = w[2] + all, far_left = w[1] + left;
        const float *next = w + 2 * R + 1;
        const float right = next[0] + next[1];
        sums[0] = w[0] + far_left, sums[1] = far_left + next[0], sums[2] = left + right;
        sums[3] = (all + right) + next[2];
    }
}

// The same four windows where numbers come one by one: number k = 0, 1, 2, 3 of a turn closes the window of itself and
// the 2*R before it. Between turns only the last 2*R numbers are known. `k` must be known to the compiler (unrolled
// loops): every member then is a register.
template <int R>
struct Windows {
    float past[2 * R] = {};   // the last 2*R numbers, oldest first; within a turn the oldest give way to the new
    float all, left, sum;     // the middle of all four, what two share to the left of it, and a sum for the next number

    MUSC_DEVICE float close(int k, float v) {
        float closed;
        if constexpr (R == 1) {
            // Two of two, not four of four: the same 1.5 additions a window.
            if (k % 2 == 0) sum = past[1] + v, closed = past[0] + sum;
            if (k % 2 == 1) closed = sum + v;
            past[k % 2] = v;
        } else {
            if (k == 0) {
                all = R == 2 ? past[3] + v : (past[3] + past[4]) + (past[5] + v);
                left = past[2] + all;
                sum = past[1] + left;
                closed = past[0] + sum;
#pragma unroll
                for (int old = 0; old + 4 < 2 * R; old++) past[old] = past[old + 4];
            }
            if (k == 1 || k == 3) closed = sum + v;
            if (k == 2) {
                const float right = past[2 * R - 3] + v;
                closed = left + right;
                sum = all + right;
            }
            past[2 * R - 4 + k] = v;
        }
        return closed;
    }
};

// An addition that stays where it stands, so that the loads behind it do: a compiler that knows that the entries never
// change moves the loads of four rows in front of the barriers between them, and spills 136 bytes.
MUSC_DEVICE void next_row(const float *&at, uint64_t bytes) {
    asm volatile("add.u64 %0, %0, %1;" : "+l"(at) : "l"(bytes));
}

// EDGE: some of the columns the block loads may lie outside the grid of i.
template <int MAX_R, bool ALL, bool EDGE>
MUSC_DEVICE void produce(const Pool<MAX_R, ALL> &s, uint32_t thread) {
    constexpr int LOADS = Pool<MAX_R, ALL>::LOADS;
    const GramPoolParams &args = s.args;
    // This thread's patch of image j. Threads of the padding and of rows outside the grid sum what the nearest patch
    // sums, and store nothing: their zeros stay.
    const uint32_t qx = s.qx0 + thread % s.width - s.left;
    const uint32_t qy = s.y0 + thread / s.width - MAX_R;
    const bool owns = thread < (args.strip_rows + 2 * MAX_R) * s.width && qx < args.columns && qy < args.rows;
    const uint32_t inside_x = min(max(int32_t(qx), 0), int32_t(args.columns - 1));
    const uint32_t inside_y = min(max(int32_t(qy), 0), int32_t(args.rows - 1));
    // Entry of the gram in the next row of i to load, column x0.
    const float *at = args.gram + uint64_t(s.a * s.patches() + s.x0) * MUSC_GRAM_STRIDE + s.b * s.patches() +
                      inside_y * args.columns + inside_x;
    // Floats from the first plane of a buffer to those of each radius, negative where its degree is not asked for.
    int32_t slot[MAX_R + 1];
#pragma unroll
    for (int radius = 1; radius <= MAX_R; radius++) {
        slot[radius] = ALL ? (radius - 1) * POOL_COLUMNS * POOL_PLANE : -1;
        for (uint32_t d = 0; !ALL && d < args.degrees; d++)
            if (args.degree[d] == 2 * radius + 1) slot[radius] = d * POOL_COLUMNS * POOL_PLANE;
    }
    float *const planes = s.s_planes + thread - s.left;

    // The next row's entries are loaded while this row's are summed. What is never loaded stays 0.
    float next[LOADS] = {};
    auto load = [&] {
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            if (!EDGE || s.x0 + k - MAX_R < args.columns) next[k] = __ldg(at + (k - MAX_R) * MUSC_GRAM_STRIDE);
    };
    Windows<1> windows1[POOL_COLUMNS];
    Windows<2> windows2[POOL_COLUMNS];
    Windows<3> windows3[POOL_COLUMNS];
    // Windows over four columns, then over rows: rows of i close at y - R, so a degree's planes now hold row y - R.
    auto pass_on = [&](int turn, const float (&v)[LOADS]) {
        float *to = planes + turn % 2 * s.buffer();
        float sum1[POOL_COLUMNS];
        four_windows<1>(sum1, v + MAX_R - 1);
#pragma unroll
        for (int k = 0; k < POOL_COLUMNS; k++) {
            const float *w = v + MAX_R + k;
            const float sum2 = w[-2] + sum1[k] + w[2];
            const float closed1 = windows1[k].close(turn, sum1[k]), closed2 = windows2[k].close(turn, sum2);
            if (owns && slot[1] >= 0) to[slot[1] + k * POOL_PLANE + pool_border(1)] = closed1;
            if (owns && slot[2] >= 0) to[slot[2] + k * POOL_PLANE + pool_border(2)] = closed2;
            if (MAX_R == 3) {
                const float closed3 = windows3[k].close(turn, w[-MAX_R] + sum2 + w[MAX_R]);
                if (owns && slot[MAX_R] >= 0) to[slot[MAX_R] + k * POOL_PLANE + pool_border(3)] = closed3;
            }
        }
    };

    load();
    const uint64_t row_bytes = args.columns * MUSC_GRAM_STRIDE * sizeof(float);
    uint32_t y = 0;
    // For MAX_R = 3 what a second loop needs later does not fit the registers of the first (24 bytes spilled).
    for (; MAX_R < 3 && y + POOL_TURN <= args.rows; y += POOL_TURN) {
#pragma unroll
        for (int turn = 0; turn < POOL_TURN; turn++) {
            float v[LOADS];
#pragma unroll
            for (int k = 0; k < LOADS; k++) v[k] = next[k];
            // After the last row it is loaded once more: a condition would cost a move for each number.
            next_row(at, turn + 1 < POOL_TURN || y + POOL_TURN < args.rows ? row_bytes : 0);
            load();
            pass_on(turn, v);
            meet();
        }
    }
    // The last rows, then nothing: below the grid windows still close.
    for (; y < s.steps; y += POOL_TURN) {
#pragma unroll
        for (int turn = 0; turn < POOL_TURN; turn++) {
            float v[LOADS];
#pragma unroll
            for (int k = 0; k < LOADS; k++) v[k] = y + turn < args.rows ? next[k] : 0.0f;
            next_row(at, y + turn + 1 < args.rows ? row_bytes : 0);
            load();
            pass_on(turn, v);
            meet();
        }
    }
}

// The block's index, read where it stands: kept from the start, what is made of it lives through the loop, which spills
// 24 bytes on 12.0.
enum Axis { BLOCK_Y, BLOCK_Z };
MUSC_DEVICE uint32_t reread(Axis axis) {
    uint32_t v;
    if (axis == BLOCK_Y)
        asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(v));
    else
        asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(v));
    return v;
}

// An addition the compiler cannot turn into products, one for each line, that it keeps in registers (80, and 40
// bytes spilled on 8.0).
MUSC_DEVICE void next_line(uint32_t &address, uint32_t bytes) {
    asm volatile("add.u32 %0, %0, %1;" : "+r"(address) : "r"(bytes));
}

template <int MAX_R, bool ALL, int R>
MUSC_DEVICE void consume(const Pool<MAX_R, ALL> &s, uint32_t degree, uint32_t item) {
    // Lanes: four columns of i, then groups of four columns of j, then segments of four rows of j.
    const GramPoolParams &args = s.args;
    constexpr int READS = R <= 2 ? 2 : 3;
    const float none = __uint_as_float(0xff800000u);
    const uint32_t groups = ceil_div(args.strip_columns, POOL_GROUP * 2) * 2;
    const uint32_t column = item % POOL_COLUMNS;
    const uint32_t first_row = item / (POOL_COLUMNS * groups) * POOL_SEGMENT;
    // Column of the strip.
    const uint32_t qx = item / POOL_COLUMNS % groups * POOL_GROUP;
    // Rows of the strip from this segment on. ALL: lines past them are there, and NaN keeps them out of the maxima.
    const int32_t rows_left = s.rows - first_row;
    const bool owns = rows_left > 0 && qx < s.columns && s.x0 + column < args.columns;
    // Rows of the keys as 32-bit counts, to keep few registers alive; only the product with L may need 64. For an image
    // that is not kept the number wraps, and nothing is stored under it.
    const uint32_t keys_i = (degree * args.kept + s.i - args.first_kept) * args.images + s.j;
    const float *inv_i = s.s_inv + degree * args.rows * POOL_COLUMNS + column;

    float highest[POOL_SEGMENT][POOL_GROUP];
#pragma unroll
    for (int r = 0; r < POOL_SEGMENT; r++)
#pragma unroll
        for (int c = 0; c < POOL_GROUP; c++) highest[r][c] = none;
    const float *const scale = s.s_scale + (degree * args.strip_rows + first_row) * s.width + qx;
    const uint32_t scale_at = shared_address(scale);
    const uint32_t planes = shared_address(s.s_planes + (degree * POOL_COLUMNS + column) * POOL_PLANE +
                                           (first_row + MAX_R - R) * s.width + qx);

    for (uint32_t first_step = 0; first_step < s.steps; first_step += POOL_TURN) {
        // Largest scaled sum of this lane for each row of i in the turn.
        float best[POOL_TURN];
#pragma unroll
        for (int turn = 0; turn < POOL_TURN; turn++) {
            // What the producers wrote in the step before: row step - 1 - R of i, in the other buffer.
            const uint32_t py = first_step + turn - 1 - R;
            best[turn] = none;
            if (owns && py < args.rows) {
                const float inv = inv_i[py * POOL_COLUMNS];
                uint32_t from = planes + (turn + 1) % 2 * s.buffer() * 4;
                // Sums along a line, then down the columns: each row of the segment as soon as its last line is there.
                Windows<R> columns[POOL_GROUP];
#pragma unroll
                for (int line = 0; line < POOL_SEGMENT + 2 * R; line++) {
                    float w[READS * 4], sums[POOL_GROUP];
#pragma unroll
                    for (int k = 0; k < READS; k++) {
                        const float4 v = load_shared16(from + k * 16);
                        w[4 * k] = v.x, w[4 * k + 1] = v.y, w[4 * k + 2] = v.z, w[4 * k + 3] = v.w;
                    }
                    next_line(from, s.width * 4);
                    four_windows<R>(sums, w + pool_border(R) - R);
                    const int o = line - 2 * R;
                    if (o < 0) {
#pragma unroll
                        for (int c = 0; c < POOL_GROUP; c++) columns[c].past[line] = sums[c];
                        continue;
                    }
                    if (!ALL && o >= rows_left) break;
                    const float4 v = load_shared16(scale_at + o * s.width * 4);
                    const float by[POOL_GROUP] = {v.x, v.y, v.z, v.w};
#pragma unroll
                    for (int c = 0; c < POOL_GROUP; c++) {
                        const float sum = columns[c].close(o, sums[c]);
                        best[turn] = fmaxf(best[turn], sum * by[c]);
                        highest[o][c] = fmaxf(highest[o][c], sum * inv);
                    }
                }
            }
            // Lanes without a row, or with fewer, went another way.
            __syncwarp();
            meet();
        }
        // Of the eight lanes that share a column of i, each pair, then each four, splits the rows of the turn; so one
        // lane in two ends with the maximum of one row.
        const bool second = threadIdx.x & 4, upper = threadIdx.x & 8;
        keep_half<4>(best, second, 4);
        keep_half<2>(best, upper, 8);
        const float top = fmaxf(best[0], __shfl_xor_sync(FULL_WARP, best[0], 16));
        const uint32_t py = first_step + (second ? 2 : 0) + (upper ? 1 : 0) - 1 - R;
        const uint32_t px = s.x0 + item % POOL_COLUMNS;
        const bool kept = args.first_image_a + reread(BLOCK_Z) / args.images_b - args.first_kept < args.kept;
        if (!(threadIdx.x & 16) && kept && py < args.rows && px < args.columns && top != none)
            atomicMax(args.keys + uint64_t(keys_i) * s.patches() + py * args.columns + px,
                      key_of(top * inv_i[py * POOL_COLUMNS]));
    }
    // Where the maxima go is worked out anew: kept through the loop it would cost registers that are not there.
    const uint32_t pair = reread(BLOCK_Z);
    const uint32_t i = args.first_image_a + pair / args.images_b, j = args.first_image_b + pair % args.images_b;
    const uint32_t parts = ceil_div(args.columns, args.strip_columns), strip = reread(BLOCK_Y);
    const uint32_t y0 = strip / parts * args.strip_rows, rows = min(args.strip_rows, args.rows - y0);
    const uint32_t first_qx = strip % parts * args.strip_columns;
    const uint32_t end_qx = min(first_qx + args.strip_columns, args.columns);
    // From row (degree, i, j) of the keys to row (degree, j, i): (j - i) images down, (j - i) to the left.
    const uint32_t keys_j = keys_i + (j - i) * (args.images - 1);
    const bool kept_j = args.symmetric && j - args.first_kept < args.kept;
    uint32_t *to = args.keys + uint64_t(keys_j) * s.patches() + (y0 + rows - rows_left) * args.columns + first_qx + qx;
#pragma unroll
    for (int r = 0; r < POOL_SEGMENT; r++)
#pragma unroll
        for (int c = 0; c < POOL_GROUP; c++) {
            // The four columns of i are the four lanes side by side; column 0 of a block is always inside the grid.
            float best = highest[r][c];
            best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, 1));
            best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, 2));
            if (owns && column == 0 && kept_j && r < rows_left && first_qx + qx + c < end_qx && best != none)
                atomicMax(to + r * args.columns + c, key_of(best * scale[r * s.width + c]));
        }
}

// ALL: the degrees are 3, .. 2*MAX_R+1, known here, which frees the registers that hold where each one's planes are.
template <int MAX_R, bool ALL>
MUSC_DEVICE void gram_pool(const GramPoolParams &args) {
    extern __shared__ __align__(16) float s_memory[];
    Pool<MAX_R, ALL> s = {args};
    s.a = blockIdx.z / args.images_b;
    s.b = blockIdx.z % args.images_b;
    s.i = args.first_image_a + s.a;
    s.j = args.first_image_b + s.b;
    // Not expected: the way out then stands behind the code, not in its way.
    if (__builtin_expect(args.symmetric && s.i >= s.j, 0)) return;
    s.x0 = blockIdx.x * POOL_COLUMNS;
    const uint32_t parts = ceil_div(args.columns, args.strip_columns);
    s.y0 = blockIdx.y / parts * args.strip_rows;
    s.rows = min(args.strip_rows, args.rows - s.y0);
    s.qx0 = blockIdx.y % parts * args.strip_columns;
    s.columns = min(args.strip_columns, args.columns - s.qx0);
    s.left = parts > 1 ? MAX_R : 0;
    s.width = ceil_div(args.strip_columns + s.left + MAX_R, 4) * 4;
    const uint32_t producers = ceil_div((args.strip_rows + 2 * MAX_R) * s.width, WARP) * WARP;
    s.s_planes = s_memory + POOL_LEAD;
    s.s_scale = s.s_planes + 2 * s.buffer();
    s.s_inv = s.s_scale + s.degrees() * args.strip_rows * s.width;
    // Rows of the grid, rows until the last window closes, one for the consumers; in whole turns.
    s.steps = ceil_div(args.rows + MAX_R + 1, POOL_TURN) * POOL_TURN;

    // Zeros first: the borders of the planes are read and never written.
    const float not_a_number = __uint_as_float(0x7fffffffu);
    for (uint32_t k = threadIdx.x; k < 2 * s.buffer(); k += blockDim.x) s.s_planes[k] = 0.0f;
    for (uint32_t k = threadIdx.x; k < s.degrees() * args.strip_rows * s.width; k += blockDim.x) {
        const uint32_t x = k % s.width, row = k / s.width % args.strip_rows, degree = k / s.width / args.strip_rows;
        s.s_scale[k] = x < s.columns && row < s.rows
                           ? __ldg(args.inv_norm_b + (uint64_t(degree) * args.images + s.j) * s.patches() +
                                   (s.y0 + row) * args.columns + s.qx0 + x)
                           : not_a_number;
    }
    for (uint32_t k = threadIdx.x; k < s.degrees() * args.rows * POOL_COLUMNS; k += blockDim.x) {
        const uint32_t x = s.x0 + k % POOL_COLUMNS, y = k / POOL_COLUMNS % args.rows;
        const uint32_t degree = k / POOL_COLUMNS / args.rows;
        s.s_inv[k] = x < args.columns
                         ? __ldg(args.inv_norm_a + (uint64_t(degree) * args.set_images_a + s.i) * s.patches() +
                                 y * args.columns + x)
                         : 0.0f;
    }
    __syncthreads();

    // Both roles meet the same number of times. Roles change at a warp's border only. The last warp takes the place of
    // the last producers', and consumers stand one warp earlier (see the head).
    const uint32_t thread = threadIdx.x, last = blockDim.x - WARP;
    uint32_t role = thread;
    if (thread >= producers - WARP) role = thread < last ? thread + WARP : thread - last + producers - WARP;
    if (role < producers) {
        if (s.x0 >= MAX_R && s.x0 + POOL_COLUMNS + MAX_R <= args.columns)
            produce<MAX_R, ALL, false>(s, role);
        else
            produce<MAX_R, ALL, true>(s, role);
        return;
    }
    const uint32_t items = ceil_div(POOL_COLUMNS * ceil_div(args.strip_columns, POOL_GROUP * 2) * 2 *
                                        ceil_div(args.strip_rows, POOL_SEGMENT), WARP) * WARP;
    const uint32_t degree = (role - producers) / items, item = (role - producers) % items;
    const uint32_t radius = ALL ? degree + 1 : args.degree[degree] / 2;
    if (radius == 1) consume<MAX_R, ALL, 1>(s, ALL ? 0 : degree, item);
    if (radius == 2) consume<MAX_R, ALL, 2>(s, ALL ? 1 : degree, item);
    if constexpr (MAX_R >= 3)
        if (radius == 3) consume<MAX_R, ALL, 3>(s, degree, item);
}

extern "C" __global__ void __launch_bounds__(POOL_THREADS_35, 1) gram_pool_35_f32(
    const __grid_constant__ GramPoolParams args) { gram_pool<2, true>(args); }
extern "C" __global__ void __launch_bounds__(POOL_THREADS_ANY, 1) gram_pool_to5_f32(
    const __grid_constant__ GramPoolParams args) { gram_pool<2, false>(args); }
extern "C" __global__ void __launch_bounds__(POOL_THREADS_ANY, 1) gram_pool_to7_f32(
    const __grid_constant__ GramPoolParams args) { gram_pool<3, false>(args); }
