// What products of the tokens of pairs of images share (gemm's gram and gram_max, patch_distance): the means of the
// images taken off the sums of a tile, and the largest cosines of a tile merged into the keys.
//
// `Params` is a struct of params.h with row_sum_a, mean_a, row_sum_b, mean_b, rows_per_image, first_image_a,
// first_image_b, channels and symmetric; for the maxima also inv_norm_a, inv_norm_b, keys, images, first_kept and kept.
// Rows of the product are the tokens of images first_image_a .. one after the other, columns those of first_image_b ..
#pragma once
#include "gemm_tile.cuh"
#include "reduce.cuh"

// H(p, q) = G(p, q) - m_j s_i(p) - m_i (s_j(q) - C m_j) for row (i, p) and column (j, q).
template <int OWNED>
struct Centring {
    float row_mean[4][2], row_sum[4][2];           // of the image and of the token of each row of a thread
    float column_mean[OWNED], column_sum[OWNED];   // the same of columns side by side, the sum less C times the mean

    // Rows from `m` on repeat the last one.
    template <class Tile, class Params>
    MUSC_DEVICE void rows(const Tile &tile, const Params &p, uint32_t row0, uint32_t m) {
#pragma unroll
        for (int mt = 0; mt < 4; mt++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t row = min(row0 + tile.row(mt, half), m - 1);
                row_mean[mt][half] = __ldg(p.mean_a + p.first_image_a + row / p.rows_per_image);
                row_sum[mt][half] = __ldg(p.row_sum_a + uint64_t(p.first_image_a) * p.rows_per_image + row);
            }
    }

    // Columns from `n` on repeat the last one.
    template <class Params>
    MUSC_DEVICE void columns(const Params &p, uint32_t column, uint32_t n) {
        uint32_t j = column / p.rows_per_image, q = column % p.rows_per_image;
#pragma unroll
        for (int k = 0; k < OWNED; k++) {
            column_mean[k] = __ldg(p.mean_b + p.first_image_b + j);
            column_sum[k] = fmaf(-float(p.channels), column_mean[k],
                                 __ldg(p.row_sum_b + uint64_t(p.first_image_b + j) * p.rows_per_image + q));
            if (column + k + 1 < n && ++q == p.rows_per_image) q = 0, j++;
        }
    }

    MUSC_DEVICE float of(int mt, int half, int k, float sum) const {
        return sum - column_mean[k] * row_sum[mt][half] - row_mean[mt][half] * column_sum[k];
    }
};

// Images that the rows and the columns of a tile touch, first and last of each; `m` and `n` as of the product.
struct TileImages {
    uint32_t first_i, last_i, first_j, last_j;

    template <class Params>
    MUSC_DEVICE TileImages(const Params &p, uint32_t row0, uint32_t column0, uint32_t m, uint32_t n)
        : first_i(p.first_image_a + row0 / p.rows_per_image),
          last_i(p.first_image_a + (min(row0 + TILE_M, m) - 1) / p.rows_per_image),
          first_j(p.first_image_b + column0 / p.rows_per_image),
          last_j(p.first_image_b + (min(column0 + TILE_N, n) - 1) / p.rows_per_image) {}

    // Whether any pair of the tile counts.
    template <class Params>
    MUSC_DEVICE bool work(const Params &p) const { return !p.symmetric || first_i < last_j; }
};

// Merges the largest cosines of a tile whose sums are H into the keys of one degree: of each row over the columns of an
// image, and where the block is symmetric of each column over the rows of an image. All threads of the block call it.
//
// A thread holds 8 rows by 16 columns. A number outside the image in turn is scaled by NaN, which fmaxf drops: so a
// tile that touches several images takes no branch. Lanes that share rows (or columns) then halve what they hold at
// each exchange, until each has two rows and two columns of its own.
template <class Tile, class Params>
MUSC_DEVICE void merge_maxima(const Tile &tile, const Params &p, const TileImages &images, uint32_t row0,
                              uint32_t column0) {
    constexpr int OWNED = Tile::OWNED_COLUMNS;
    constexpr int COLUMNS = TILE_WARP / 4;
    const uint32_t patches = p.rows_per_image, lane = tile.lane;
    const float none = __uint_as_float(0xff800000u); // -inf: nothing yet
    const float not_a_number = __uint_as_float(0x7fffffffu);
    for (uint32_t j = images.first_j; j <= images.last_j; j++) {
        // Patch of image j in the first column of the tile; wraps to a large number left of the image.
        const uint32_t q0 = column0 - (j - p.first_image_b) * patches;
        const float *const inv_j = p.inv_norm_b + uint64_t(j) * patches;
        float column_inv[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            const uint32_t q = q0 + tile.column(c / OWNED) + c % OWNED;
            column_inv[c] = q < patches ? __ldg(inv_j + q) : not_a_number;
        }
        const uint32_t end_i = p.symmetric ? min(images.last_i + 1, j) : images.last_i + 1;
        for (uint32_t i = images.first_i; i < end_i; i++) {
            const uint32_t p0 = row0 - (i - p.first_image_a) * patches + tile.row(0, 0);
            const float *const inv_i = p.inv_norm_a + uint64_t(i) * patches;
            float of_row[8], of_column[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) of_column[c] = none;
#pragma unroll
            for (int r = 0; r < 8; r++) {
                const uint32_t row = p0 + r * 8;
                const float row_inv = row < patches ? __ldg(inv_i + row) : not_a_number;
                of_row[r] = none;
#pragma unroll
                for (int c = 0; c < COLUMNS; c++) {
                    const float h = tile.value(r / 2, r % 2, c / OWNED, c % OWNED);
                    of_row[r] = fmaxf(of_row[r], h * column_inv[c]);
                    of_column[c] = fmaxf(of_column[c], h * row_inv);
                }
            }
            // Keeps a compiler from giving the exchanges of some lanes a place of their own.
            __syncwarp();
            // Four lanes side by side share the rows.
            keep_half<8>(of_row, lane & 1, 1);
            keep_half<4>(of_row, lane & 2, 2);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const uint32_t row = p0 + ((lane & 1) * 4 + (lane & 2) + k) * 8;
                if (row < patches && i - p.first_kept < p.kept && of_row[k] != none)
                    atomicMax(p.keys + (uint64_t(i - p.first_kept) * p.images + j) * patches + row,
                              key_of(of_row[k] * __ldg(inv_i + row)));
            }
            if (!p.symmetric) continue;
            // Eight lanes, four apart, share the columns.
            __syncwarp();
            keep_half<16>(of_column, lane & 4, 4);
            keep_half<8>(of_column, lane & 8, 8);
            keep_half<4>(of_column, lane & 16, 16);
            const uint32_t first = (lane & 4) * 2 + (lane & 8) / 2 + (lane & 16) / 8;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const uint32_t q = q0 + tile.column((first + k) / OWNED) + (first + k) % OWNED;
                if (q < patches && j - p.first_kept < p.kept && of_column[k] != none)
                    atomicMax(p.keys + (uint64_t(j - p.first_kept) * p.images + i) * patches + q,
                              key_of(of_column[k] * __ldg(inv_j + q)));
            }
        }
    }
}
