//! Pooling after the product: from one pair's Gram block to the best cosines, for every aggregation degree.
//!
//! With F' the tokens less their image's mean, the product of the r-pooled tokens of two images is the 4-D box
//! sum of G = F'_i·F'_jᵀ over (p_y, p_x, q_y, q_x), windows cut at the grid's edge. The sum is separable: over
//! p it adds whole rows of G, over q it adds shifted copies of one row. G is taken a grid row of p at a time, and
//! within it a few rows at a time, so that what a step writes is still in the L1 cache when the next one reads it,
//! yet no longer on its way there: a load that straddles two pending stores would wait for both.
//!
//! That is how any degree is pooled with any vectors. The degrees 3 and 5 with AVX-512 are `wide`'s.

#[cfg(target_arch = "x86_64")]
mod wide;

/// Elsewhere nothing is pooled there.
#[cfg(not(target_arch = "x86_64"))]
mod wide {
    use super::Pair;
    use crate::Grid;

    pub enum Wide {}

    impl Wide {
        pub fn new(_: pulp::Arch, _: Grid, _: &[usize]) -> Option<Self> {
            None
        }

        pub fn takes(&self, _: usize) -> bool {
            match *self {}
        }

        pub fn best_cosines(
            &mut self,
            _: &Pair<'_>,
            _: &mut [Vec<f32>],
            _: Option<&mut [Vec<f32>]>,
        ) {
            match *self {}
        }
    }
}

use pulp::{Arch, Simd, WithSimd};

use self::wide::Wide;
use super::aligned::{Aligned, LANES};
use super::lnamd::sum_taps;
use crate::Grid;

/// The stride of a Gram block's rows for `patches` columns: whole cache lines, so that every pass runs in whole
/// vectors.
pub fn row_stride(patches: usize) -> usize {
    patches.next_multiple_of(LANES)
}

/// What pooling needs to know of a grid and a list of degrees, and its scratch memory. One a thread.
pub struct GramPool {
    arch: Arch,
    layout: Layout,
    degrees: Vec<Degree>,
    /// Those that are not among the degrees above.
    wide: Option<Wide>,
}

/// What all degrees share.
struct Layout {
    grid: Grid,
    stride: usize,
    /// Added to a scaled row: 0 for patches, −∞ for what is no patch: the padding behind them, and the column image's patches
    /// that are left out.
    padding: Aligned,
    /// Whether the padding has anything but zeros.
    padded: bool,
}

/// Rows that go through the last three steps together.
const TOGETHER: usize = 4;

/// One degree's memory. Everything but the rows' own values is zero and stays so.
struct Degree {
    /// Its place among the degrees asked for.
    index: usize,
    degree: usize,
    /// A grid row of p summed along p_y, between `half` rows of zeros: `[half + W + half, stride]`.
    over_py: Aligned,
    /// A few rows summed along p_x too, between guards: `[guard + TOGETHER·stride + guard]`.
    over_p: Aligned,
    /// The same rows summed along q_x too, each between guards: `[guard + TOGETHER·(stride + guard)]`.
    over_qx: Aligned,
    /// Zeros around rows: the longest shift, in whole cache lines.
    guard: usize,
    /// For each shift −1, +1, −2, +2, …: 1 where the shifted column is in the same grid row, else 0.
    same_row: Vec<Aligned>,
    column_scale: Aligned,
    column_best: Aligned,
}

/// One pair of images: the Gram block and the reciprocal norms of the pooled tokens.
pub struct Pair<'a> {
    /// G `[L, row_stride(L)]`; the padding columns hold zeros.
    pub gram: &'a [f32],
    /// For each degree 1/‖box_r F'_i(p)‖, `[R][L]`.
    pub row_scale: &'a [&'a [f32]],
    /// For each degree 1/‖box_r F'_j(q)‖, `[R][L]`.
    pub column_scale: &'a [&'a [f32]],
    /// Patches of the row image that are in nobody's maximum, `[L]`, or empty; what becomes of their own is not said.
    pub row_left_out: &'a [bool],
    /// The same of the column image.
    pub column_left_out: &'a [bool],
}

impl GramPool {
    /// Scratch for one size of grid and these aggregation degrees (odd).
    pub fn new(arch: Arch, grid: Grid, degrees: &[usize]) -> Self {
        let stride = row_stride(grid.patches());
        let wide = Wide::new(arch, grid, degrees);
        let degrees = degrees
            .iter()
            .enumerate()
            .filter(|(index, _)| !wide.as_ref().is_some_and(|wide| wide.takes(*index)))
            .map(|(index, &degree)| Degree::new(grid, stride, (index, degree)))
            .collect();
        let padding = Aligned::zeros(stride);
        let mut layout = Layout { grid, stride, padding, padded: false };
        layout.pad(&[]);
        GramPool { arch, layout, degrees, wide }
    }

    /// For each degree the best cosine of every patch of the row image, `rows[d]` `[L]`, and, where `columns` is given, of
    /// the column image, `columns[d]` `[L]`.
    ///
    /// # Panics
    /// When the pair's slices are shorter than the grid asks for.
    pub fn best_cosines(
        &mut self,
        pair: &Pair<'_>,
        rows: &mut [Vec<f32>],
        mut columns: Option<&mut [Vec<f32>]>,
    ) {
        let patches = self.layout.grid.patches();
        assert!(pair.gram.len() >= patches * self.layout.stride, "gram block too short");
        let masked = |left_out: &[bool]| left_out.is_empty() || left_out.len() == patches;
        assert!(masked(pair.row_left_out) && masked(pair.column_left_out), "marks of patches");
        if !pair.column_left_out.is_empty() {
            self.layout.pad(pair.column_left_out);
        }
        for best in &mut *rows {
            best.resize(patches, 0.0);
        }
        for degree in &mut self.degrees {
            degree.column_scale[..patches].copy_from_slice(pair.column_scale[degree.index]);
            degree.column_best.fill(f32::NEG_INFINITY);
        }
        let (layout, degrees) = (&self.layout, &mut self.degrees);
        if columns.is_some() {
            self.arch.dispatch(Visit::<true> { layout, degrees, pair, rows });
        } else {
            self.arch.dispatch(Visit::<false> { layout, degrees, pair, rows });
        }
        if let Some(columns) = &mut columns {
            for degree in &self.degrees {
                let best = &mut columns[degree.index];
                best.clear();
                best.extend_from_slice(&degree.column_best[..patches]);
            }
        }
        if let Some(wide) = &mut self.wide {
            wide.best_cosines(pair, rows, columns);
        }
        if !pair.column_left_out.is_empty() {
            self.layout.pad(&[]);
        }
    }
}

impl Layout {
    /// Sets the padding for a column image with these patches left out.
    fn pad(&mut self, left_out: &[bool]) {
        let patches = self.grid.patches();
        self.padding[..patches].fill(0.0);
        self.padding[patches..].fill(f32::NEG_INFINITY);
        for (value, _) in self.padding.iter_mut().zip(left_out).filter(|(_, out)| **out) {
            *value = f32::NEG_INFINITY;
        }
        self.padded = patches < self.stride || left_out.contains(&true);
    }
}

impl Degree {
    fn new(grid: Grid, stride: usize, (index, degree): (usize, usize)) -> Self {
        let (half, width) = (degree / 2, grid.columns);
        let guard = (half * width).next_multiple_of(LANES);
        let same_row = (1..=half)
            .flat_map(|shift| [-(shift as isize), shift as isize])
            .map(|shift| {
                let mut mask = Aligned::zeros(stride);
                for (patch, value) in mask[..grid.patches()].iter_mut().enumerate() {
                    let column = (patch % width) as isize + shift;
                    *value = f32::from(u8::from((0..width as isize).contains(&column)));
                }
                mask
            })
            .collect();
        // Unpooled rows are taken from the Gram block itself.
        let pooled = usize::from(degree > 1);
        Degree {
            index,
            degree,
            over_py: Aligned::zeros(pooled * (width + 2 * half) * stride),
            over_p: Aligned::zeros(pooled * (TOGETHER * stride + 2 * guard)),
            over_qx: Aligned::zeros(pooled * (TOGETHER * (stride + guard) + guard)),
            guard,
            same_row,
            column_scale: Aligned::zeros(stride),
            column_best: Aligned::zeros(stride),
        }
    }
}

/// A whole Gram block, a grid row of p at a time, for every degree; of the columns' maxima only with `COLUMNS`.
struct Visit<'a, const COLUMNS: bool> {
    layout: &'a Layout,
    degrees: &'a mut [Degree],
    pair: &'a Pair<'a>,
    rows: &'a mut [Vec<f32>],
}

impl<const COLUMNS: bool> WithSimd for Visit<'_, COLUMNS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Visit { layout, degrees, pair, rows } = self;
        let width = layout.grid.columns;
        for y in 0..layout.grid.rows {
            for degree in &mut *degrees {
                let patches = y * width..(y + 1) * width;
                let (scale, best) = (pair.row_scale[degree.index], &mut rows[degree.index]);
                let best = &mut best[patches.clone()];
                let left_out = pair.row_left_out.get(patches.clone()).unwrap_or_default();
                let row = GridRow { y, gram: pair.gram, scale: &scale[patches], left_out };
                match degree.degree {
                    1 => unpooled::<S, COLUMNS>(simd, layout, &row, degree, best),
                    3 => pooled::<S, 3, COLUMNS>(simd, layout, &row, degree, best),
                    5 => pooled::<S, 5, COLUMNS>(simd, layout, &row, degree, best),
                    _ => pooled::<S, ANY, COLUMNS>(simd, layout, &row, degree, best),
                }
            }
        }
    }
}

/// The rows p of one grid row y of the row image.
struct GridRow<'a> {
    y: usize,
    /// The whole Gram block.
    gram: &'a [f32],
    /// Reciprocal norms, `[W]`.
    scale: &'a [f32],
    /// Patches that are left out, `[W]`, or empty.
    left_out: &'a [bool],
}

/// Stands for a number of taps that is known at run time only.
const ANY: usize = 0;

#[inline(always)]
fn unpooled<S: Simd, const COLUMNS: bool>(
    simd: S,
    layout: &Layout,
    rows: &GridRow<'_>,
    degree: &mut Degree,
    best: &mut [f32],
) {
    let (width, stride) = (layout.grid.columns, layout.stride);
    let row = |x: usize| [&rows.gram[(rows.y * width + x) * stride..][..stride]];
    let mut ends = Ends::<COLUMNS>::new(layout, &degree.column_scale, &mut degree.column_best);
    for x in (0..width).step_by(2) {
        if x + 1 < width {
            ends.of_two_rows(simd, [row(x), row(x + 1)], rows, x, best);
        } else {
            ends.of_one_row(simd, row(x), rows, x, best);
        }
    }
}

/// The rows p of one grid row y: `best` is theirs.
#[inline(always)]
fn pooled<S: Simd, const R: usize, const COLUMNS: bool>(
    simd: S,
    layout: &Layout,
    rows: &GridRow<'_>,
    degree: &mut Degree,
    best: &mut [f32],
) {
    let (Grid { rows: height, columns: width }, stride) = (layout.grid, layout.stride);
    let taps = if R == ANY { degree.degree } else { R };
    let half = taps / 2;
    let Degree { over_py, over_p, over_qx, guard, same_row, column_scale, column_best, .. } =
        degree;
    let guard = *guard;

    let (first, last) = (rows.y.saturating_sub(half), height.min(rows.y + half + 1));
    let grid_row = width * stride;
    let out = &mut over_py[half * stride..][..grid_row];
    sum_taps(simd, &rows.gram[first * grid_row..], grid_row, last - first, out);

    for start in (0..width).step_by(TOGETHER) {
        let count = TOGETHER.min(width - start);
        let out = &mut over_p[guard..][..count * stride];
        sum_taps(simd, &over_py[start * stride..], stride, taps, out);
        for row in (0..count).step_by(2) {
            let from = guard + row * stride;
            let pair = guard + row * (stride + guard);
            let (first, second) = over_qx[pair..].split_at_mut(stride + guard);
            let first = &mut first[..stride];
            if R == ANY {
                sum_same_row_any(simd, over_p, same_row, from, first);
                if row + 1 < count {
                    let second = &mut second[..stride];
                    sum_same_row_any(simd, over_p, same_row, from + stride, second);
                }
            } else if row + 1 < count {
                let out = [first, &mut second[..stride]];
                sum_same_row::<S, R, 2>(simd, over_p, same_row, from, out);
            } else {
                sum_same_row::<S, R, 1>(simd, over_p, same_row, from, [first]);
            }
        }
        let mut ends = Ends::<COLUMNS>::new(layout, column_scale, column_best);
        for row in (0..count).step_by(2) {
            let top = |row: usize| guard + row * (stride + guard) - half * width;
            if R == ANY {
                for row in row..count.min(row + 2) {
                    let out = &mut over_p[guard..][..stride];
                    sum_taps(simd, &over_qx[top(row)..], width, taps, out);
                    ends.of_one_row(simd, [&*out], rows, start + row, best);
                }
                continue;
            }
            let taps = |row: usize| -> [&[f32]; R] {
                std::array::from_fn(|tap| &over_qx[top(row) + tap * width..][..stride])
            };
            if row + 1 < count {
                ends.of_two_rows(simd, [taps(row), taps(row + 1)], rows, start + row, best);
            } else {
                ends.of_one_row(simd, taps(row), rows, start + row, best);
            }
        }
    }
}

/// Where rows of pooled products end: scaled, and compared with the best so far.
struct Ends<'a, const COLUMNS: bool> {
    column_scale: &'a [f32],
    column_best: &'a mut [f32],
    /// The padding to add; `None` when it is all zeros.
    padding: Option<&'a [f32]>,
}

impl<'a, const COLUMNS: bool> Ends<'a, COLUMNS> {
    #[inline(always)]
    fn new(layout: &'a Layout, column_scale: &'a [f32], column_best: &'a mut [f32]) -> Self {
        Ends { column_scale, column_best, padding: layout.padded.then_some(&*layout.padding) }
    }

    /// Takes rows `x` and `x + 1` of a grid row, each the sum of its taps, into the columns' and their own best cosines.
    #[inline(always)]
    fn of_two_rows<S: Simd, const TAPS: usize>(
        &mut self,
        simd: S,
        taps: [[&[f32]; TAPS]; 2],
        rows: &GridRow<'_>,
        x: usize,
        best: &mut [f32],
    ) {
        if rows.left_out.is_empty() {
            let scales = [rows.scale[x], rows.scale[x + 1]];
            [best[x], best[x + 1]] = self.of_rows(simd, taps, scales);
        } else {
            for (row, taps) in taps.into_iter().enumerate() {
                self.of_one_row(simd, taps, rows, x + row, best);
            }
        }
    }

    /// The same for one row; a patch that is left out is passed over.
    #[inline(always)]
    fn of_one_row<S: Simd, const TAPS: usize>(
        &mut self,
        simd: S,
        taps: [&[f32]; TAPS],
        rows: &GridRow<'_>,
        x: usize,
        best: &mut [f32],
    ) {
        if !rows.left_out.get(x).is_some_and(|&out| out) {
            [best[x]] = self.of_rows(simd, [taps], [rows.scale[x]]);
        }
    }

    /// Takes rows, each the sum of its taps: raises the columns' best cosines, where they are wanted, and returns the rows'.
    #[inline(always)]
    fn of_rows<S: Simd, const TAPS: usize, const ROWS: usize>(
        &mut self,
        simd: S,
        rows: [[&[f32]; TAPS]; ROWS],
        row_scale: [f32; ROWS],
    ) -> [f32; ROWS] {
        if self.padding.is_some() {
            self.of_padded_rows::<S, TAPS, ROWS, true>(simd, rows, row_scale)
        } else {
            self.of_padded_rows::<S, TAPS, ROWS, false>(simd, rows, row_scale)
        }
    }

    // No closure may hold an operation of `simd`: it would be compiled without the vectors it stands for.
    #[inline(always)]
    fn of_padded_rows<S: Simd, const TAPS: usize, const ROWS: usize, const PADDED: bool>(
        &mut self,
        simd: S,
        rows: [[&[f32]; TAPS]; ROWS],
        row_scale: [f32; ROWS],
    ) -> [f32; ROWS] {
        let column_best = S::as_mut_simd_f32s(self.column_best).0;
        let count = column_best.len();
        let rows = rows.map(|taps| taps.map(|tap| &S::as_simd_f32s(tap).0[..count]));
        let scales = &S::as_simd_f32s(self.column_scale).0[..count];
        let padding = &S::as_simd_f32s(self.padding.unwrap_or(self.column_scale)).0[..count];
        let mut best = [simd.splat_f32s(f32::NEG_INFINITY); ROWS];
        for at in 0..count {
            let mut column = column_best[at];
            for row in 0..ROWS {
                let mut sum = rows[row][0][at];
                for tap in &rows[row][1..] {
                    sum = simd.add_f32s(sum, tap[at]);
                }
                let scaled = if PADDED {
                    simd.mul_add_f32s(sum, scales[at], padding[at])
                } else {
                    simd.mul_f32s(sum, scales[at])
                };
                best[row] = simd.max_f32s(best[row], scaled);
                if COLUMNS {
                    let by_row = simd.mul_f32s(scaled, simd.splat_f32s(row_scale[row]));
                    column = simd.max_f32s(column, by_row);
                }
            }
            if COLUMNS {
                column_best[at] = column;
            }
        }
        let mut of_rows = [0.0; ROWS];
        for row in 0..ROWS {
            of_rows[row] = simd.reduce_max_f32s(best[row]) * row_scale[row];
        }
        of_rows
    }
}

/// Where the `index`-th shifted copy of what starts at `from` starts: the shifts run −1, +1, −2, +2, …
#[inline(always)]
fn shifted(from: usize, index: usize) -> usize {
    let distance = index / 2 + 1;
    if index.is_multiple_of(2) { from - distance } else { from + distance }
}

/// `out` = the sum along q_x of as many rows of `rows`, the first at `from`: shifted copies, each only where it stays in
/// its grid row.
#[inline(always)]
fn sum_same_row<S: Simd, const R: usize, const ROWS: usize>(
    simd: S,
    rows: &[f32],
    same_row: &[Aligned],
    from: usize,
    out: [&mut [f32]; ROWS],
) {
    let stride = out[0].len();
    let out = out.map(|out| S::as_mut_simd_f32s(out).0);
    let count = out[0].len();
    let copy = |from: usize| &S::as_simd_f32s(&rows[from..][..stride]).0[..count];
    // Arrays of R, the last of which is a stand-in: there are R − 1 shifts.
    let last = R.saturating_sub(2);
    let centers: [&[S::f32s]; ROWS] = std::array::from_fn(|row| copy(from + row * stride));
    let copies: [[&[S::f32s]; R]; ROWS] = std::array::from_fn(|row| {
        std::array::from_fn(|index| copy(shifted(from + row * stride, index.min(last))))
    });
    let masks: [&[S::f32s]; R] =
        std::array::from_fn(|index| &S::as_simd_f32s(&same_row[index.min(last)]).0[..count]);
    for at in 0..count {
        let mut sums: [S::f32s; ROWS] = std::array::from_fn(|row| centers[row][at]);
        for index in 0..last + 1 {
            let mask = masks[index][at];
            for row in 0..ROWS {
                sums[row] = simd.mul_add_f32s(copies[row][index][at], mask, sums[row]);
            }
        }
        for row in 0..ROWS {
            out[row][at] = sums[row];
        }
    }
}

/// The same for one row and any number of shifts.
#[inline(always)]
fn sum_same_row_any<S: Simd>(
    simd: S,
    rows: &[f32],
    same_row: &[Aligned],
    from: usize,
    out: &mut [f32],
) {
    out.copy_from_slice(&rows[from..][..out.len()]);
    for (index, mask) in same_row.iter().enumerate() {
        add_masked_row(simd, &rows[shifted(from, index)..][..out.len()], mask, out);
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
