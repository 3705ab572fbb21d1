//! Pooling after the product: from one pair's Gram block to the best cosines, for every aggregation degree.
//!
//! With F' the tokens less their image's mean, the product of the r-pooled tokens of two images is the 4-D box
//! sum of G = F'_i·F'_jᵀ over (p_y, p_x, q_y, q_x), windows cut at the grid's edge. The sum is separable: over
//! p it adds whole rows of G, over q it adds shifted copies of one row. A row takes part as long as the ring of
//! the last r grid rows holds it, so that the working set is r·H rows of L values, not the whole block.

use pulp::{Arch, Simd, WithSimd};

use super::lnamd::add_row;

/// Rows of a Gram block are this many values apart, rounded up: every pass then runs in whole vectors.
const LANES: usize = 16;

/// The stride of a Gram block's rows for `patches` columns.
pub fn row_stride(patches: usize) -> usize {
    patches.next_multiple_of(LANES)
}

/// What pooling needs to know of a grid and a list of degrees, and its scratch memory. One a thread.
pub struct GramPool {
    arch: Arch,
    grid: usize,
    stride: usize,
    degrees: Vec<Degree>,
    /// Added to a scaled row: 0 for patches, −∞ for the padding behind them.
    padding: Vec<f32>,
    zeros: Vec<f32>,
    column_scale: Vec<f32>,
    column_best: Vec<f32>,
}

struct Degree {
    degree: usize,
    /// The last `degree` grid rows of G, summed along p_x: `[degree, grid, stride]`.
    ring: Vec<f32>,
    /// For each shift −h..=h but 0: 1 where the shifted column is in the same grid row, else 0.
    same_row: Vec<Vec<f32>>,
    /// A row summed over p, between zeros.
    over_p: Vec<f32>,
    /// The same row summed along q_x too, between zeros.
    over_qx: Vec<f32>,
    /// Zeros before a row in the two buffers.
    guard: usize,
}

/// One pair of images: the Gram block and the reciprocal norms of the pooled tokens.
pub struct Pair<'a> {
    /// G `[L, row_stride(L)]`; the padding columns hold zeros.
    pub gram: &'a [f32],
    /// For each degree 1/‖box_r F'_i(p)‖, `[R][L]`.
    pub row_scale: &'a [&'a [f32]],
    /// For each degree 1/‖box_r F'_j(q)‖, `[R][L]`.
    pub column_scale: &'a [&'a [f32]],
}

impl GramPool {
    /// Scratch for grids of `grid`×`grid` patches and these aggregation degrees (odd).
    pub fn new(grid: usize, degrees: &[usize]) -> Self {
        let patches = grid * grid;
        let stride = row_stride(patches);
        let mut padding = vec![f32::NEG_INFINITY; stride];
        padding[..patches].fill(0.0);
        let degrees = degrees
            .iter()
            .map(|&degree| {
                let half = degree / 2;
                let guard = (half * grid + half).next_multiple_of(LANES);
                let same_row = (1..=half)
                    .flat_map(|shift| [-(shift as isize), shift as isize])
                    .map(|shift| {
                        let mut mask = vec![0.0; stride];
                        for (patch, value) in mask[..patches].iter_mut().enumerate() {
                            let column = (patch % grid) as isize + shift;
                            *value = f32::from(u8::from((0..grid as isize).contains(&column)));
                        }
                        mask
                    })
                    .collect();
                let pooled = degree > 1;
                Degree {
                    degree,
                    ring: vec![0.0; if pooled { degree * grid * stride } else { 0 }],
                    same_row,
                    over_p: vec![0.0; if pooled { stride + 2 * guard } else { 0 }],
                    over_qx: vec![0.0; if pooled { stride + 2 * guard } else { 0 }],
                    guard,
                }
            })
            .collect();
        GramPool {
            arch: Arch::new(),
            grid,
            stride,
            degrees,
            padding,
            zeros: vec![0.0; stride],
            column_scale: vec![0.0; stride],
            column_best: vec![0.0; stride],
        }
    }

    /// For each degree the best cosine of every patch of the row image (`rows[d]`, `[L]`) and of the column
    /// image (`columns[d]`, `[L]`).
    ///
    /// # Panics
    /// When the pair's slices are shorter than the grid asks for.
    pub fn best_cosines(
        &mut self,
        pair: &Pair<'_>,
        rows: &mut [Vec<f32>],
        columns: &mut [Vec<f32>],
    ) {
        let patches = self.grid * self.grid;
        assert!(pair.gram.len() >= patches * self.stride, "gram block too short");
        for index in 0..self.degrees.len() {
            let (row_scale, column_scale) = (pair.row_scale[index], pair.column_scale[index]);
            assert!(
                row_scale.len() == patches && column_scale.len() == patches,
                "scales of a pair"
            );
            self.column_scale[..patches].copy_from_slice(column_scale);
            self.column_best.fill(f32::NEG_INFINITY);
            rows[index].resize(patches, 0.0);
            self.arch.dispatch(Pass {
                grid: self.grid,
                stride: self.stride,
                gram: pair.gram,
                degree: &mut self.degrees[index],
                zeros: &self.zeros,
                row_scale,
                best: Best {
                    column_scale: &self.column_scale,
                    padding: &self.padding,
                    column_best: &mut self.column_best,
                },
                row_best: &mut rows[index],
            });
            columns[index].clear();
            columns[index].extend_from_slice(&self.column_best[..patches]);
        }
    }
}

/// The scaling and the two maxima at the end of a row.
struct Best<'a> {
    column_scale: &'a [f32],
    padding: &'a [f32],
    column_best: &'a mut [f32],
}

impl Best<'_> {
    /// Takes one row of pooled products: `taps` rows, added up. Returns the row's best cosine.
    #[inline(always)]
    fn row<S: Simd, const TAPS: usize>(
        &mut self,
        simd: S,
        taps: [&[f32]; TAPS],
        row_scale: f32,
    ) -> f32 {
        let taps = taps.map(|tap| S::as_simd_f32s(tap).0);
        let scales = S::as_simd_f32s(self.column_scale).0;
        let padding = S::as_simd_f32s(self.padding).0;
        let column_best = S::as_mut_simd_f32s(self.column_best).0;
        let count = column_best.len();
        let (taps, scales) = (taps.map(|tap| &tap[..count]), &scales[..count]);
        let padding = &padding[..count];
        let row_scale_all = simd.splat_f32s(row_scale);
        let mut best = simd.splat_f32s(f32::NEG_INFINITY);
        for at in 0..count {
            let mut sum = taps[0][at];
            for tap in &taps[1..] {
                sum = simd.add_f32s(sum, tap[at]);
            }
            let scaled = simd.mul_add_f32s(sum, scales[at], padding[at]);
            best = simd.max_f32s(best, scaled);
            column_best[at] = simd.max_f32s(column_best[at], simd.mul_f32s(scaled, row_scale_all));
        }
        simd.reduce_max_f32s(best) * row_scale
    }
}

struct Pass<'a> {
    grid: usize,
    stride: usize,
    gram: &'a [f32],
    degree: &'a mut Degree,
    zeros: &'a [f32],
    row_scale: &'a [f32],
    best: Best<'a>,
    row_best: &'a mut [f32],
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.degree.degree {
            1 => self.unpooled(simd),
            3 => self.pooled::<S, 3>(simd),
            5 => self.pooled::<S, 5>(simd),
            _ => self.pooled_any(simd),
        }
    }
}

impl Pass<'_> {
    #[inline(always)]
    fn unpooled<S: Simd>(mut self, simd: S) {
        for (patch, row_best) in self.row_best.iter_mut().enumerate() {
            let row = &self.gram[patch * self.stride..][..self.stride];
            *row_best = self.best.row(simd, [row], self.row_scale[patch]);
        }
    }

    /// The p-windows of one degree, with the number of taps known to the compiler.
    #[inline(always)]
    fn pooled<S: Simd, const R: usize>(mut self, simd: S) {
        let (grid, stride, half) = (self.grid, self.stride, R / 2);
        let Degree { ring, same_row, over_p, over_qx, guard, .. } = self.degree;
        let guard = *guard;
        for y in 0..grid + half {
            if y < grid {
                for x in 0..grid {
                    let taps: [&[f32]; R] = std::array::from_fn(|tap| {
                        let from = x + tap;
                        if from < half || from - half >= grid {
                            self.zeros
                        } else {
                            &self.gram[(y * grid + from - half) * stride..][..stride]
                        }
                    });
                    let slot = (y % R) * grid + x;
                    sum_rows(simd, taps, &mut ring[slot * stride..][..stride]);
                }
            }
            let Some(center) = y.checked_sub(half) else { continue };
            for x in 0..grid {
                let taps: [&[f32]; R] = std::array::from_fn(|tap| {
                    let from = center + tap;
                    if from < half || from - half >= grid {
                        self.zeros
                    } else {
                        &ring[(((from - half) % R) * grid + x) * stride..][..stride]
                    }
                });
                sum_rows(simd, taps, &mut over_p[guard..][..stride]);
                sum_same_row::<S, R>(simd, over_p, same_row, guard, stride, over_qx);
                let taps: [&[f32]; R] = std::array::from_fn(|tap| {
                    &over_qx[guard + tap * grid - half * grid..][..stride]
                });
                let patch = center * grid + x;
                self.row_best[patch] = self.best.row(simd, taps, self.row_scale[patch]);
            }
        }
    }

    /// The same for a degree that has no version of its own: one tap after the other.
    #[inline(always)]
    fn pooled_any<S: Simd>(mut self, simd: S) {
        let (grid, stride) = (self.grid, self.stride);
        let Degree { degree, ring, same_row, over_p, over_qx, guard } = self.degree;
        let (guard, half) = (*guard, *degree / 2);
        for y in 0..grid + half {
            if y < grid {
                for x in 0..grid {
                    let target = &mut ring[((y % *degree) * grid + x) * stride..][..stride];
                    target.fill(0.0);
                    for from in x.saturating_sub(half)..grid.min(x + half + 1) {
                        add_row(simd, &self.gram[(y * grid + from) * stride..][..stride], target);
                    }
                }
            }
            let Some(center) = y.checked_sub(half) else { continue };
            for x in 0..grid {
                let target = &mut over_p[guard..][..stride];
                target.fill(0.0);
                for from in center.saturating_sub(half)..grid.min(center + half + 1) {
                    add_row(
                        simd,
                        &ring[((from % *degree) * grid + x) * stride..][..stride],
                        target,
                    );
                }
                let target = &mut over_qx[guard..][..stride];
                target.copy_from_slice(&over_p[guard..][..stride]);
                for (index, mask) in same_row.iter().enumerate() {
                    let from = shifted(guard, index);
                    add_masked_row(simd, &over_p[from..][..stride], mask, target);
                }
                let target = &mut over_p[guard..][..stride];
                target.fill(0.0);
                for tap in 0..*degree {
                    add_row(simd, &over_qx[guard + tap * grid - half * grid..][..stride], target);
                }
                let patch = center * grid + x;
                let row = &over_p[guard..][..stride];
                self.row_best[patch] = self.best.row(simd, [row], self.row_scale[patch]);
            }
        }
    }
}

/// Where the `index`-th shifted copy starts: the shifts run −1, +1, −2, +2, …
#[inline(always)]
fn shifted(guard: usize, index: usize) -> usize {
    let distance = index / 2 + 1;
    if index.is_multiple_of(2) { guard - distance } else { guard + distance }
}

/// `out` = the sum of the taps, value by value.
#[inline(always)]
fn sum_rows<S: Simd, const R: usize>(simd: S, taps: [&[f32]; R], out: &mut [f32]) {
    let out = S::as_mut_simd_f32s(out).0;
    let count = out.len();
    let taps = taps.map(|tap| &S::as_simd_f32s(tap).0[..count]);
    for (at, value) in out.iter_mut().enumerate() {
        let mut sum = taps[0][at];
        for tap in &taps[1..] {
            sum = simd.add_f32s(sum, tap[at]);
        }
        *value = sum;
    }
}

/// `out` = the sum along q_x: shifted copies of `row`, each only where it stays in the grid row.
#[inline(always)]
fn sum_same_row<S: Simd, const R: usize>(
    simd: S,
    row: &[f32],
    same_row: &[Vec<f32>],
    guard: usize,
    stride: usize,
    out: &mut [f32],
) {
    let out = S::as_mut_simd_f32s(&mut out[guard..][..stride]).0;
    let count = out.len();
    let center = &S::as_simd_f32s(&row[guard..][..stride]).0[..count];
    // Arrays of R, the last of which is a stand-in: there are R − 1 shifts.
    let copies: [&[S::f32s]; R] = std::array::from_fn(|index| {
        &S::as_simd_f32s(&row[shifted(guard, index.min(R - 2))..][..stride]).0[..count]
    });
    let masks: [&[S::f32s]; R] =
        std::array::from_fn(|index| &S::as_simd_f32s(&same_row[index.min(R - 2)]).0[..count]);
    for (at, value) in out.iter_mut().enumerate() {
        let mut sum = center[at];
        for (copy, mask) in copies[..R - 1].iter().zip(&masks) {
            sum = simd.mul_add_f32s(copy[at], mask[at], sum);
        }
        *value = sum;
    }
}

#[inline(always)]
fn add_masked_row<S: Simd>(simd: S, row: &[f32], mask: &[f32], out: &mut [f32]) {
    let masks = S::as_simd_f32s(mask).0;
    let rows = S::as_simd_f32s(row).0;
    for ((value, &more), &mask) in S::as_mut_simd_f32s(out).0.iter_mut().zip(rows).zip(masks) {
        *value = simd.mul_add_f32s(more, mask, *value);
    }
}
