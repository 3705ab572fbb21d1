// Math: for each pair of images i, j of a block that counts, each degree r = 2R+1, patch p of i and q of j:
//     H(p, q)   = the product of the tokens less their images' means, 0 outside a grid
//     B_r(p, q) = sum of H(p+u, q+v) over u, v within R of 0 on both axes of both grids
//     cos_r     = B_r * inv_norm_r,i(p) * inv_norm_r,j(q)
//   keys[r][i - first_kept][j][p] = max over q, for the images that are kept. Symmetric: i and j are of one set, the pairs
//   i < j count, and keys[r][j - first_kept][i][q] = max over p. Otherwise i is a query, j a reference of another set,
//   every pair counts, and nothing is written for j. One product serves every degree.
//
// Shapes: gram f32 [images_a * L, MUSC_GRAM_STRIDE], row (a, p), column (b, q): H from gemm_gram; inv_norm_a f32
//   [degrees, set_images_a, L], inv_norm_b f32 [degrees, N, L], the same one twice where it is symmetric; keys u32
//   [degrees, kept, N, L] (common/reduce.cuh), 0 before the first launch.
//
// Launch: grid (ceil(W / 4), ceil(H / strip_rows) * ceil(W / strip_columns), images_a * images_b), block producers +
//   consumers. `135`: the degrees 1, 3 and 5, MAX_R = 2; `to5`: any degrees up to 5, MAX_R = 2; `to7`: any up to 7,
//   MAX_R = 3. A block scores 4 neighbouring columns of the grid of i, all its rows, against a strip of the grid of j:
//   strip_rows rows of strip_columns columns, all of them or a part. A plane holds the strip and its halo; whole rows
//   share the zeros between them, a part has a halo on its left, too. With
//     width = ceil4(strip_columns + MAX_R), of a part ceil4(strip_columns + 2*MAX_R)
//     producers = ceil32((strip_rows + 2*MAX_R) * width)
//     consumers = degrees * ceil32(4 * even(ceil(strip_columns / 4)) * ceil(strip_rows / 4)), even() rounding up to even
//   producers at most 544; both at most 768 together for 135, 512 else; take smaller strips or fewer degrees a launch.
//   A block walks down the rows of i. A producer owns one q of the strip or its halo: it sums H over the window of p in
//   registers. A consumer owns one p column, one degree and 4 x 4 of the strip: it sums over the window of q and keeps
//   the maxima. While producers work on row y, consumers work on row y - 1: one barrier a row.
//
// Shared memory: dynamic, in floats: 4; two buffers of [degrees][4] planes of 552; degrees * strip_rows * width;
//   degrees * H * 4. 37x37, three degrees, strips of 8 whole rows: (4 + 2*12*552 + 3*8*40 + 3*37*4) * 4 = 58624 bytes,
//   more than the 48 KiB a launch gets unasked. Neighbours in a row are neighbours in memory, and the planes of the four
//   lanes side by side fall into different banks: no conflicts.
//
// Numerics: f32 sums of products of halves; additions only, no running differences. Maxima are exact and independent of
//   the order; NaN does not enter them: a patch whose inverse norm is NaN is in nobody's maximum.
//
// Preconditions: 1 <= H, W <= MUSC_MAX_SIDE; degrees odd, ascending, distinct, at most 2*MAX_R+1; strip_rows >= 1, for
//   135 a multiple of 4; 1 <= strip_columns <= W; both formulas above within the threads and the card's shared memory;
//   images_a * images_b <= 65535; images_b * L <= MUSC_GRAM_STRIDE; degrees * kept * N < 2^32; both runs within their
//   sets; lnamd and gemm_gram have run.
#include "common/memory.cuh"
#include "common/reduce.cuh"

constexpr int POOL_COLUMNS = 4;     // columns of the grid of i in a block
constexpr int POOL_SEGMENT = 4;     // rows of the strip in a consumer
constexpr int POOL_GROUP = 4;       // columns of the grid of j in a consumer
constexpr int POOL_TURN = 4;        // rows of i whose maxima are reduced over a warp together
constexpr int POOL_MAX_PRODUCERS = 544;
constexpr int POOL_THREADS_135 = 768;
constexpr int POOL_THREADS_ANY = 512;
// Floats from one plane to the next: the producers' and the border, such that the planes of lanes side by side (four
// planes, two groups of 16 bytes) fall into different banks.
constexpr int POOL_PLANE = POOL_MAX_PRODUCERS + 8;
static_assert(POOL_PLANE / 4 % 8 == 2 && POOL_PLANE >= POOL_MAX_PRODUCERS + 2 * 3, "planes: banks and border");
static_assert(POOL_SEGMENT == POOL_GROUP, "the same window sums serve rows and columns");
static_assert(POOL_COLUMNS == 4 && POOL_GROUP == 4, "lanes are dealt out four columns by groups of 16 bytes");

// Zeros left of a row of a plane. For R = 1 one more than its windows reach: they then need a part of both 16-byte loads
// that is more than half, and a load of half the width would conflict.
MUSC_DEVICE constexpr int pool_border(int radius) { return radius == 1 ? 2 : radius; }

// Floats in front of the first plane: the halo left of a part of the columns begins before its plane.
constexpr int POOL_LEAD = 4;
static_assert(POOL_LEAD % 4 == 0 && POOL_LEAD >= MUSC_MAX_DEGREE / 2, "16-byte loads, and the widest halo");
static_assert(POOL_PLANE >= POOL_MAX_PRODUCERS + 2 * (MUSC_MAX_DEGREE / 2), "and ends behind the plane before it");

// The block's index, read where it stands and not kept from before.
enum Axis { BLOCK_Y, BLOCK_Z };
MUSC_DEVICE uint32_t reread(Axis axis) {
    uint32_t v;
    if (axis == BLOCK_Y)
        asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(v));
    else
        asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(v));
    return v;
}

// Everything a thread knows of its block.
template <int MAX_R>
struct Pool {
    static constexpr int LOADS = POOL_COLUMNS + 2 * MAX_R;
    const GramPoolParams &p;
    uint32_t a, b, i, j;        // the pair: indices in the block of the gram, and images
    uint32_t x0;                // first column of i
    uint32_t y0, rows;          // first row of the strip of j, and its rows
    uint32_t qx0, columns;      // first column of the strip of j, and its columns
    uint32_t left;              // columns of its halo on the left
    uint32_t width;             // floats of a row of a plane of shared memory
    uint32_t buffer;            // floats of one of the two buffers
    float *s_planes;
    float *s_scale;             // [degrees][strip_rows][width] inverse norms of the strip, NaN (no maximum) outside it
    float *s_inv;               // [degrees][H][POOL_COLUMNS] inverse norms of the columns x0 .., 0 outside the grid
    uint32_t steps;             // times both roles meet

    MUSC_DEVICE uint32_t patches() const { return p.rows * p.columns; }
};

// The one barrier of producers and consumers. They come to it at different places of the code, so it has a number and a
// count of its own; every warp of the block takes part.
MUSC_DEVICE void meet() { asm volatile("bar.sync 1, %0;" ::"r"(blockDim.x) : "memory"); }

// Adds `v` to the open window sums of one column and returns the one it closes; window 2*R+1 long, state of 2*R.
template <int R>
MUSC_DEVICE float close_window(float (&open)[2 * R], float v) {
    const float closed = open[0] + v;
#pragma unroll
    for (int k = 0; k + 1 < 2 * R; k++) open[k] = open[k + 1] + v;
    open[2 * R - 1] = v;
    return closed;
}

// Window sums of 2*R+1 neighbours for four windows side by side, w[c .. c+2*R]. They share their middle, which leaves
// 0, 6, 9, 11 additions where each on its own would take 0, 8, 16, 24.
template <int R>
MUSC_DEVICE void four_windows(float (&sums)[POOL_GROUP], const float *w) {
    if constexpr (R == 0) {
        sums[0] = w[0], sums[1] = w[1], sums[2] = w[2], sums[3] = w[3];
    } else if constexpr (R == 1) {
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

// EDGE: some of the columns the block loads may lie outside the grid of i.
template <int MAX_R, bool ALL, bool EDGE>
MUSC_DEVICE void produce(const Pool<MAX_R> &s, uint32_t thread) {
    constexpr int LOADS = Pool<MAX_R>::LOADS;
    const GramPoolParams &p = s.p;
    // This thread's patch of image j. Threads of the padding and of rows outside the grid sum what the nearest patch
    // sums, and store nothing: their zeros stay.
    const uint32_t qx = s.qx0 + thread % s.width - s.left;
    const uint32_t qy = s.y0 + thread / s.width - MAX_R;
    const bool owns = thread < (p.strip_rows + 2 * MAX_R) * s.width && qx < p.columns && qy < p.rows;
    const uint32_t inside_x = min(max(int32_t(qx), 0), int32_t(p.columns - 1));
    const uint32_t inside_y = min(max(int32_t(qy), 0), int32_t(p.rows - 1));
    // Entry of the gram in the next row of i to load, column x0.
    const float *at = p.gram + uint64_t(s.a * s.patches() + s.x0) * MUSC_GRAM_STRIDE + s.b * s.patches() +
                      inside_y * p.columns + inside_x;
    int32_t slot[MAX_R + 1];
#pragma unroll
    for (int radius = 0; radius <= MAX_R; radius++) {
        slot[radius] = ALL ? radius * POOL_COLUMNS * POOL_PLANE : -1;
        for (uint32_t d = 0; !ALL && d < p.degrees; d++)
            if (p.degree[d] == 2 * radius + 1) slot[radius] = d * POOL_COLUMNS * POOL_PLANE;
    }

    // The next row's entries are loaded while this row's are summed. What is never loaded stays 0.
    float next[LOADS] = {};
    auto load = [&] {
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            if (!EDGE || s.x0 + k - MAX_R < p.columns) next[k] = __ldg(at + (k - MAX_R) * MUSC_GRAM_STRIDE);
    };
    float open1[POOL_COLUMNS][2] = {}, open2[POOL_COLUMNS][4] = {}, open3[POOL_COLUMNS][6] = {};
    // Windows over four columns, then over rows: rows of i close at y - R, so a degree's planes now hold row y - R.
    auto pass_on = [&](uint32_t y, const float (&v)[LOADS]) {
        float *to = s.s_planes + (y % 2) * s.buffer + thread - s.left;
        float sum1[POOL_COLUMNS];
        four_windows<1>(sum1, v + MAX_R - 1);
#pragma unroll
        for (int k = 0; k < POOL_COLUMNS; k++) {
            const float *w = v + MAX_R + k;
            const float sum2 = w[-2] + sum1[k] + w[2];
            const float closed1 = close_window<1>(open1[k], sum1[k]), closed2 = close_window<2>(open2[k], sum2);
            if (owns && slot[0] >= 0) to[slot[0] + k * POOL_PLANE] = w[0];
            if (owns && slot[1] >= 0) to[slot[1] + k * POOL_PLANE + pool_border(1)] = closed1;
            if (owns && slot[2] >= 0) to[slot[2] + k * POOL_PLANE + pool_border(2)] = closed2;
            if (MAX_R == 3) {
                const float closed3 = close_window<3>(open3[k], w[-MAX_R] + sum2 + w[MAX_R]);
                if (owns && slot[MAX_R] >= 0) to[slot[MAX_R] + k * POOL_PLANE + pool_border(3)] = closed3;
            }
        }
    };

    load();
    // Two rows a turn, so that what moves on by a row stays in its register.
#pragma unroll 2
    for (uint32_t y = 0; y < p.rows; y++) {
        float v[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++) v[k] = next[k];
        // After the last row it is loaded once more: a condition would cost a move for each number.
        if (y + 1 < p.rows) at += p.columns * MUSC_GRAM_STRIDE;
        load();
        pass_on(y, v);
        meet();
    }
    // Below the grid there is nothing, but windows still close.
    const float nothing[LOADS] = {};
    for (uint32_t y = p.rows; y < s.steps; y++) {
        if (y < p.rows + MAX_R) pass_on(y, nothing);
        meet();
    }
}

// An addition the compiler cannot turn into products it keeps in registers.
MUSC_DEVICE void next_row(uint32_t &address, uint32_t bytes) { asm volatile("add.u32 %0, %0, %1;" : "+r"(address) : "r"(bytes)); }

// Window sums down the columns of a segment, one window at a time.
template <int R>
struct Segment {
    float line[POOL_SEGMENT + 2 * R][POOL_GROUP];
    float all[POOL_GROUP], left[POOL_GROUP], right[POOL_GROUP];

    // The sum of lines o .. o+2*R in column c; to be called for o = 0, 1, 2, 3 in turn.
    MUSC_DEVICE float close(int o, int c) {
        if (R == 0) return line[o][c];
        const float *const w = &line[0][c];
        auto at = [w](int r) { return w[r * POOL_GROUP]; };
        if (o == 0) {
            all[c] = at(R == 1 ? 1 : 3) + at(R == 1 ? 2 : 4);
            if (R == 3) all[c] += at(5) + at(6);
            if (R == 1) return at(0) + all[c];
            left[c] = at(2) + all[c];
            right[c] = at(1) + left[c];
            return at(0) + right[c];
        }
        if (R == 1) {
            if (o == 1) return all[c] + at(3);
            if (o == 2) right[c] = at(3) + at(4);
            return o == 2 ? at(2) + right[c] : right[c] + at(5);
        }
        if (o == 1) return right[c] + at(2 * R + 1);
        if (o == 2) right[c] = at(2 * R + 1) + at(2 * R + 2);
        return o == 2 ? left[c] + right[c] : (all[c] + right[c]) + at(2 * R + 3);
    }
};

template <int MAX_R, bool ALL, int R>
MUSC_DEVICE void consume(const Pool<MAX_R> &s, uint32_t degree, uint32_t item) {
    // Lanes: four columns of i, then groups of four columns of j, then segments of four rows of j.
    const GramPoolParams &p = s.p;
    constexpr int READS = R == 0 ? 1 : R <= 2 ? 2 : 3;
    const float none = __uint_as_float(0xff800000u);
    const uint32_t groups = ceil_div(p.strip_columns, POOL_GROUP * 2) * 2;
    const uint32_t column = item % POOL_COLUMNS;
    const uint32_t first_row = item / (POOL_COLUMNS * groups) * POOL_SEGMENT;
    // Column of the strip.
    const uint32_t qx = item / POOL_COLUMNS % groups * POOL_GROUP;
    // Rows of the strip from this segment on. ALL: lines past them are there, and NaN keeps them out of the maxima.
    const int32_t rows_left = s.rows - first_row;
    const bool owns = rows_left > 0 && qx < s.columns && s.x0 + column < p.columns;
    // Rows of the keys as 32-bit counts, to keep few registers alive; only the product with L may need 64. For an image
    // that is not kept the number wraps, and nothing is stored under it.
    const uint32_t keys_i = (degree * p.kept + s.i - p.first_kept) * p.images + s.j;
    const float *inv_i = s.s_inv + degree * p.rows * POOL_COLUMNS + column;

    float highest[POOL_SEGMENT][POOL_GROUP];
#pragma unroll
    for (int r = 0; r < POOL_SEGMENT; r++)
#pragma unroll
        for (int c = 0; c < POOL_GROUP; c++) highest[r][c] = none;
    const float *const scale = s.s_scale + (degree * p.strip_rows + first_row) * s.width + qx;
    const uint32_t scale_at = shared_address(scale);
    const uint32_t planes = shared_address(s.s_planes + (degree * POOL_COLUMNS + column) * POOL_PLANE +
                                           (first_row + MAX_R - R) * s.width + qx);

    for (uint32_t first_step = 0; first_step < s.steps; first_step += POOL_TURN) {
        // Largest scaled sum of this lane for each row of i in the turn.
        float best[POOL_TURN];
#pragma unroll
        for (int turn = 0; turn < POOL_TURN; turn++) {
            // What the producers wrote in the step before: row step - 1 - R of i.
            const uint32_t step = first_step + turn, py = step - 1 - R;
            best[turn] = none;
            if (owns && py < p.rows) {
                const float inv = inv_i[py * POOL_COLUMNS];
                uint32_t from = planes + (step - 1) % 2 * s.buffer * 4;
                // Sums along a row, then down the columns, each row of the segment as soon as its last line is there.
                Segment<R> columns;
#pragma unroll
                for (int r = 0; r < POOL_SEGMENT + 2 * R; r++) {
                    float w[READS * 4];
#pragma unroll
                    for (int k = 0; k < READS; k++) {
                        const float4 v = load_shared16(from + k * 16);
                        w[4 * k] = v.x, w[4 * k + 1] = v.y, w[4 * k + 2] = v.z, w[4 * k + 3] = v.w;
                    }
                    next_row(from, s.width * 4);
                    four_windows<R>(columns.line[r], w + pool_border(R) - R);
                    if (r < 2 * R) continue;
                    const int o = r - 2 * R;
                    if (!ALL && o >= rows_left) break;
                    const float4 v = load_shared16(scale_at + o * s.width * 4);
                    const float by[POOL_GROUP] = {v.x, v.y, v.z, v.w};
#pragma unroll
                    for (int c = 0; c < POOL_GROUP; c++) {
                        const float sum = columns.close(o, c);
                        best[turn] = fmaxf(best[turn], sum * by[c]);
                        highest[o][c] = fmaxf(highest[o][c], sum * inv);
                    }
                }
            }
            meet();
        }
        // Of the eight lanes that share a column of i, each pair, then each four, splits the rows of the turn; so one
        // lane in two ends with the maximum of one row.
        const bool second = threadIdx.x & 4, upper = threadIdx.x & 8;
        float keep[POOL_TURN / 2];
#pragma unroll
        for (int k = 0; k < POOL_TURN / 2; k++) {
            const float other = __shfl_xor_sync(FULL_WARP, second ? best[k] : best[k + POOL_TURN / 2], 4);
            keep[k] = fmaxf(second ? best[k + POOL_TURN / 2] : best[k], other);
        }
        float top = fmaxf(upper ? keep[1] : keep[0], __shfl_xor_sync(FULL_WARP, upper ? keep[0] : keep[1], 8));
        top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 16));
        const uint32_t py = first_step + (second ? 2 : 0) + (upper ? 1 : 0) - 1 - R;
        const uint32_t px = s.x0 + item % POOL_COLUMNS;
        const bool kept = p.first_image_a + reread(BLOCK_Z) / p.images_b - p.first_kept < p.kept;
        if (!(threadIdx.x & 16) && kept && py < p.rows && px < p.columns && top != none)
            atomicMax(p.keys + uint64_t(keys_i) * s.patches() + py * p.columns + px,
                      key_of(top * inv_i[py * POOL_COLUMNS]));
    }
    // Where the maxima go is worked out anew: kept through the loop it would cost registers that are not there.
    const uint32_t pair = reread(BLOCK_Z), i = p.first_image_a + pair / p.images_b, j = p.first_image_b + pair % p.images_b;
    const uint32_t parts = ceil_div(p.columns, p.strip_columns), strip = reread(BLOCK_Y);
    const uint32_t y0 = strip / parts * p.strip_rows, rows = min(p.strip_rows, p.rows - y0);
    const uint32_t first_qx = strip % parts * p.strip_columns, end_qx = min(first_qx + p.strip_columns, p.columns);
    // From row (degree, i, j) of the keys to row (degree, j, i): (j - i) images down, (j - i) to the left.
    const uint32_t keys_j = keys_i + (j - i) * (p.images - 1);
    const bool kept_j = p.symmetric && j - p.first_kept < p.kept;
    uint32_t *to = p.keys + uint64_t(keys_j) * s.patches() + (y0 + rows - rows_left) * p.columns + first_qx + qx;
#pragma unroll
    for (int r = 0; r < POOL_SEGMENT; r++)
#pragma unroll
        for (int c = 0; c < POOL_GROUP; c++) {
            // The four columns of i are the four lanes side by side; column 0 of a block is always inside the grid.
            float best = highest[r][c];
            best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, 1));
            best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, 2));
            if (owns && column == 0 && kept_j && r < rows_left && first_qx + qx + c < end_qx && best != none)
                atomicMax(to + r * p.columns + c, key_of(best * scale[r * s.width + c]));
        }
}

// ALL: the degrees are 1, 3, .. 2*MAX_R+1, known here, which frees the registers that hold where each one's planes are.
template <int MAX_R, bool ALL>
MUSC_DEVICE void gram_pool(const GramPoolParams &p) {
    extern __shared__ __align__(16) float s_memory[];
    Pool<MAX_R> s = {p};
    s.a = blockIdx.z / p.images_b;
    s.b = blockIdx.z % p.images_b;
    s.i = p.first_image_a + s.a;
    s.j = p.first_image_b + s.b;
    // Not expected: the way out then stands behind the code, not in its way.
    if (__builtin_expect(p.symmetric && s.i >= s.j, 0)) return;
    s.x0 = blockIdx.x * POOL_COLUMNS;
    const uint32_t parts = ceil_div(p.columns, p.strip_columns);
    s.y0 = blockIdx.y / parts * p.strip_rows;
    s.rows = min(p.strip_rows, p.rows - s.y0);
    s.qx0 = blockIdx.y % parts * p.strip_columns;
    s.columns = min(p.strip_columns, p.columns - s.qx0);
    s.left = parts > 1 ? MAX_R : 0;
    s.width = ceil_div(p.strip_columns + s.left + MAX_R, 4) * 4;
    const uint32_t producers = ceil_div((p.strip_rows + 2 * MAX_R) * s.width, WARP) * WARP;
    const uint32_t degrees = ALL ? MAX_R + 1 : p.degrees;
    s.buffer = degrees * POOL_COLUMNS * POOL_PLANE;
    s.s_planes = s_memory + POOL_LEAD;
    s.s_scale = s.s_planes + 2 * s.buffer;
    s.s_inv = s.s_scale + p.degrees * p.strip_rows * s.width;
    // Rows of the grid, rows until the last window closes, one for the consumers; in whole turns.
    s.steps = ceil_div(p.rows + MAX_R + 1, POOL_TURN) * POOL_TURN;

    // Zeros first: the borders of the planes are read and never written.
    const uint32_t thread = threadIdx.x;
    const float not_a_number = __uint_as_float(0x7fffffffu);
    for (uint32_t k = thread; k < 2 * s.buffer; k += blockDim.x) s.s_planes[k] = 0.0f;
    for (uint32_t k = thread; k < p.degrees * p.strip_rows * s.width; k += blockDim.x) {
        const uint32_t x = k % s.width, row = k / s.width % p.strip_rows, degree = k / s.width / p.strip_rows;
        s.s_scale[k] = x < s.columns && row < s.rows
                           ? __ldg(p.inv_norm_b + (uint64_t(degree) * p.images + s.j) * s.patches() +
                                   (s.y0 + row) * p.columns + s.qx0 + x)
                           : not_a_number;
    }
    for (uint32_t k = thread; k < p.degrees * p.rows * POOL_COLUMNS; k += blockDim.x) {
        const uint32_t x = s.x0 + k % POOL_COLUMNS, y = k / POOL_COLUMNS % p.rows, degree = k / POOL_COLUMNS / p.rows;
        s.s_inv[k] = x < p.columns ? __ldg(p.inv_norm_a + (uint64_t(degree) * p.set_images_a + s.i) * s.patches() +
                                           y * p.columns + x)
                                   : 0.0f;
    }
    __syncthreads();

    // Both roles meet the same number of times. Roles change at a warp's border only.
    if (thread < producers) {
        if (s.x0 >= MAX_R && s.x0 + POOL_COLUMNS + MAX_R <= p.columns)
            produce<MAX_R, ALL, false>(s, thread);
        else
            produce<MAX_R, ALL, true>(s, thread);
        return;
    }
    const uint32_t items = ceil_div(POOL_COLUMNS * ceil_div(p.strip_columns, POOL_GROUP * 2) * 2 *
                                        ceil_div(p.strip_rows, POOL_SEGMENT), WARP) * WARP;
    const uint32_t degree = (thread - producers) / items, item = (thread - producers) % items;
    const uint32_t radius = ALL ? degree : p.degree[degree] / 2;
    if (radius == 0) consume<MAX_R, ALL, 0>(s, ALL ? 0 : degree, item);
    if (radius == 1) consume<MAX_R, ALL, 1>(s, ALL ? 1 : degree, item);
    if (radius == 2) consume<MAX_R, ALL, 2>(s, ALL ? 2 : degree, item);
    if constexpr (MAX_R >= 3)
        if (radius == 3) consume<MAX_R, ALL, 3>(s, degree, item);
}

extern "C" __global__ void __launch_bounds__(POOL_THREADS_135, 1) gram_pool_135_f32(
    const __grid_constant__ GramPoolParams p) { gram_pool<2, true>(p); }
extern "C" __global__ void __launch_bounds__(POOL_THREADS_ANY, 1) gram_pool_to5_f32(
    const __grid_constant__ GramPoolParams p) { gram_pool<2, false>(p); }
extern "C" __global__ void __launch_bounds__(POOL_THREADS_ANY, 1) gram_pool_to7_f32(
    const __grid_constant__ GramPoolParams p) { gram_pool<3, false>(p); }
