//! Pooling by 3 and by 5 with AVX-512, the last three of its sums in registers.
//!
//! A grid row of q is one vector, zeros behind its W values; where it has more than 16, it is several vectors that overlap by as
//! many lanes as a window reaches to both sides, so that each is summed alone, and the lanes at its inner ends are in nobody's
//! maximum. Then a step along q_x shifts lanes, one along q_y takes the next vector, and neither needs a mask or a load across
//! cache lines. For two grid rows y and y + 1 of p:
//!
//! 1. Rows of G are summed along p_y: windows next to each other share all but one row each, the window of 5 is that of 3 and
//!    two rows more. The sums of the few rows that a window along p_x spans are kept.
//! 2. Two rows next to each other are summed along p_x: they share all but one row each.
//! 3. Lanes are shifted: sums along q_x.
//! 4. The last few of them make the sum along q_y, which is scaled and compared with the best so far.
//!
//! No closure that is given to a function of the standard library may stand where AVX-512 is on: it is not inlined there.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_alignr_epi32, _mm512_castps_si512, _mm512_castps512_ps128,
    _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_broadcastss_ps,
    _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_max_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};
use std::ops::Range;

use pulp::Arch;
use pulp::x86::V4;

use super::super::aligned::{Aligned, LANES};
use super::{Pair, row_stride};
use crate::Grid;

/// A vector's values in memory.
type Line = [f32; LANES];

/// How far a window reaches to a side, at most.
const REACH: usize = 2;

/// Values of a grid row from the start of a vector to that of the next.
const STEP: usize = LANES - 2 * REACH;

/// Rows summed along p_y that are kept: what two windows of 5 next to each other along p_x span.
const KEPT: usize = 2 * REACH + 2;

/// Rows of G that two grid rows' sums along p_y read, of a tile and of the windows that reach out of it: they stay in the L2
/// cache until the next grid row reads most of them again.
const TILE_BYTES: usize = 640 << 10;

/// The degrees that are pooled here, and their memory.
pub struct Wide {
    /// Says that the processor has AVX-512.
    simd: V4,
    grid: Grid,
    stride: usize,
    /// Places x that are visited for all y before the next ones are: an even number.
    tile: usize,
    /// Vectors of a grid row of q. What is told `[vectors, H]` below is so many vectors of 16.
    vectors: usize,
    /// Rows summed along p_y over 3 and over 5 grid rows, of a grid row y and the next, by x modulo `KEPT`:
    /// `[KEPT][vectors, H]`.
    over_py: [[Aligned; 2]; 2],
    /// A row outside the grid: as long as one of G, and as one of the sums.
    zeros: Aligned,
    /// Added to what is scaled, `[vectors, H]`: 0 for patches, −∞ for lanes that are none or another vector's, and for patches
    /// of the column image that are left out.
    padding: Aligned,
    /// Whether the padding has anything but zeros.
    padded: bool,
    degrees: Vec<Degree>,
}

struct Degree {
    /// Its place among the degrees asked for.
    index: usize,
    degree: usize,
    /// `[vectors, H]`.
    column_scale: Aligned,
    /// `[vectors, H]`.
    column_best: Aligned,
}

impl Wide {
    /// Memory for those of the degrees that are pooled here. None where that is none of them, the processor has no AVX-512, or
    /// most of a grid row's vectors would be unused.
    pub fn new(arch: Arch, grid: Grid, degrees: &[usize]) -> Option<Self> {
        let Arch::V4(simd) = arch else { return None };
        let vectors = grid.columns.saturating_sub(2 * REACH).div_ceil(STEP).max(1);
        if vectors * LANES > 2 * grid.columns {
            return None;
        }
        let row = vectors * grid.rows * LANES;
        let degrees: Vec<Degree> = degrees
            .iter()
            .enumerate()
            .filter(|(_, degree)| matches!(degree, 3 | 5))
            .map(|(index, &degree)| Degree {
                index,
                degree,
                column_scale: Aligned::zeros(row),
                column_best: Aligned::zeros(row),
            })
            .collect();
        let stride = row_stride(grid.patches());
        let tile = (TILE_BYTES / ((2 * REACH + 2) * stride * size_of::<f32>())).max(12) - 2 * REACH;
        let kept = || Aligned::zeros(KEPT * row);
        let mut wide = Wide {
            simd,
            grid,
            stride,
            tile: tile.next_multiple_of(2),
            vectors,
            over_py: [[kept(), kept()], [kept(), kept()]],
            zeros: Aligned::zeros(row.max(grid.patches())),
            padding: Aligned::zeros(row),
            padded: false,
            degrees,
        };
        wide.pad(&[]);
        (!wide.degrees.is_empty()).then_some(wide)
    }

    /// Whether the degree of that index is pooled here.
    pub fn takes(&self, index: usize) -> bool {
        self.degrees.iter().any(|degree| degree.index == index)
    }

    /// Sets the padding for a column image with these patches left out.
    fn pad(&mut self, left_out: &[bool]) {
        self.padding.fill(f32::NEG_INFINITY);
        for (patches, lanes) in places(self.grid, self.vectors) {
            self.padding[lanes.clone()].fill(0.0);
            let marks = left_out.get(patches).unwrap_or_default();
            for (value, _) in self.padding[lanes].iter_mut().zip(marks).filter(|(_, out)| **out) {
                *value = f32::NEG_INFINITY;
            }
        }
        self.padded = self.padding.iter().any(|&value| value != 0.0);
    }

    /// What [`GramPool::best_cosines`](super::GramPool::best_cosines) does, for these degrees; the pair has been checked.
    pub fn best_cosines(
        &mut self,
        pair: &Pair<'_>,
        rows: &mut [Vec<f32>],
        columns: Option<&mut [Vec<f32>]>,
    ) {
        if !pair.column_left_out.is_empty() {
            self.pad(pair.column_left_out);
        }
        for degree in &mut self.degrees {
            let scale = pair.column_scale[degree.index];
            for (patches, lanes) in places(self.grid, self.vectors) {
                degree.column_scale[lanes].copy_from_slice(&scale[patches]);
            }
            degree.column_best.fill(f32::NEG_INFINITY);
        }
        let _: V4 = self.simd;
        // SAFETY: there is a `V4` only where the processor has AVX-512 (F, BW, CD, DQ and VL).
        unsafe {
            match (columns.is_some(), self.padded) {
                (false, false) => self.visit::<false, false>(pair, rows),
                (false, true) => self.visit::<false, true>(pair, rows),
                (true, false) => self.visit::<true, false>(pair, rows),
                (true, true) => self.visit::<true, true>(pair, rows),
            }
        }
        if let Some(columns) = columns {
            for degree in &self.degrees {
                let best = &mut columns[degree.index];
                best.resize(self.grid.patches(), 0.0);
                for (patches, lanes) in places(self.grid, self.vectors) {
                    best[patches].copy_from_slice(&degree.column_best[lanes]);
                }
            }
        }
        if !pair.column_left_out.is_empty() {
            self.pad(&[]);
        }
    }

    #[target_feature(enable = "avx512f")]
    fn visit<const COLUMNS: bool, const PADDED: bool>(
        &mut self,
        pair: &Pair<'_>,
        rows: &mut [Vec<f32>],
    ) {
        let Grid { rows: height, columns: width } = self.grid;
        let two_more = self.degrees.iter().any(|degree| degree.degree == 5);
        let tiles = (0..width).step_by(self.tile);
        for (first, y) in tiles.flat_map(|first| (0..height).step_by(2).map(move |y| (first, y))) {
            let mut made = first.saturating_sub(REACH);
            for x in (first..width.min(first + self.tile)).step_by(2) {
                while made < width.min(x + KEPT - REACH) {
                    self.sum_over_py(pair.gram, y, made, two_more);
                    made += 1;
                }
                for after in 0..2.min(height - y) {
                    self.finish::<COLUMNS, PADDED>(pair, (y + after, x), after, rows);
                }
            }
        }
    }

    /// Pools rows (y, x) and (y, x + 1), from those at `after` of the sums along p_y.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn finish<const COLUMNS: bool, const PADDED: bool>(
        &mut self,
        pair: &Pair<'_>,
        (y, x): (usize, usize),
        after: usize,
        rows: &mut [Vec<f32>],
    ) {
        let Grid { rows: height, columns: width } = self.grid;
        let (patch, count) = (y * width + x, 2.min(width - x));
        let left_out = pair.row_left_out.get(patch..patch + count).unwrap_or_default();
        let zeros = &self.zeros[..self.vectors * height * LANES];
        for degree in &mut self.degrees {
            let scale = &pair.row_scale[degree.index][patch..][..count];
            let best = &mut rows[degree.index][patch..][..count];
            let over_py = &self.over_py[degree.degree / 2 - 1][after];
            let mut ends = Ends::<COLUMNS, PADDED> {
                rows: height,
                scale: lines(&degree.column_scale),
                padding: lines(&self.padding),
                best: lines_mut(&mut degree.column_best),
            };
            if count == 2 && !left_out.contains(&true) {
                let scale = [scale[0], scale[1]];
                let found = if degree.degree == 3 {
                    let taps = kept_rows(over_py, zeros, width, x, 1);
                    ends.of_rows::<3, 4, 2>(taps, scale)
                } else {
                    let taps = kept_rows(over_py, zeros, width, x, 2);
                    ends.of_rows::<5, 6, 2>(taps, scale)
                };
                best.copy_from_slice(&found);
                continue;
            }
            for at in 0..count {
                if left_out.get(at).is_some_and(|&out| out) {
                    continue;
                }
                [best[at]] = if degree.degree == 3 {
                    let taps = kept_rows(over_py, zeros, width, x + at, 1);
                    ends.of_rows::<3, 3, 1>(taps, [scale[at]])
                } else {
                    let taps = kept_rows(over_py, zeros, width, x + at, 2);
                    ends.of_rows::<5, 5, 1>(taps, [scale[at]])
                };
            }
        }
    }

    /// Rows (y, x) and (y + 1, x) of G summed along p_y: over 3 grid rows and, where `two_more`, over 5. The second is nothing
    /// where the grid ends before it.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sum_over_py(&mut self, gram: &[f32], y: usize, x: usize, two_more: bool) {
        let sources = rows_around((gram, self.stride), &self.zeros, self.grid, y, x);
        let Grid { rows: height, columns: width } = self.grid;
        for vector in 0..self.vectors {
            let place = (x % KEPT * self.vectors + vector) * height;
            let [sums, more_sums] = &mut self.over_py;
            let [a, b] = sums;
            let three =
                [&mut lines_mut(a)[place..][..height], &mut lines_mut(b)[place..][..height]];
            let [a, b] = more_sums;
            let five = [&mut lines_mut(a)[place..][..height], &mut lines_mut(b)[place..][..height]];
            let first = vector * STEP;
            match (first + LANES <= width, two_more) {
                (true, true) => sum_rows::<true, true>(sources, first, width, three, five),
                (true, false) => sum_rows::<true, false>(sources, first, width, three, five),
                (false, true) => sum_rows::<false, true>(sources, first, width, three, five),
                (false, false) => sum_rows::<false, false>(sources, first, width, three, five),
            }
        }
    }
}

/// The runs of patches, row by row, and the lanes `[vectors, H]·16` that are theirs.
fn places(grid: Grid, vectors: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    (0..vectors).flat_map(move |vector| {
        let from = if vector == 0 { 0 } else { REACH };
        let to = if vector + 1 == vectors { LANES } else { LANES - REACH };
        let to = to.min(grid.columns - vector * STEP);
        (0..grid.rows).map(move |y| {
            let patch = y * grid.columns + vector * STEP;
            let lane = (vector * grid.rows + y) * LANES;
            (patch + from..patch + to, lane + from..lane + to)
        })
    })
}

/// The sums of three and of five of six rows of G, those before the last and those after the first, of one vector of each grid
/// row of q: that of the values from `first` on, of all its lanes (`WHOLE`) or of those that the grid row has.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_rows<const WHOLE: bool, const TWO_MORE: bool>(
    sources: [&[f32]; 2 * REACH + 2],
    first: usize,
    width: usize,
    three: [&mut [Line]; 2],
    five: [&mut [Line]; 2],
) {
    let lanes = if WHOLE { LANES } else { width - first };
    let mask = u16::MAX >> (LANES - lanes);
    let height = three[0].len();
    let sources = parts(sources, (height - 1) * width + first + lanes);
    let ([three, three_after], [five, five_after]) = (three, five);
    let (three_after, five) = (&mut three_after[..height], &mut five[..height]);
    let five_after = &mut five_after[..height];
    for y in 0..height {
        let mut values = [_mm512_setzero_ps(); 2 * REACH + 2];
        let (from, to) = if TWO_MORE { (0, 6) } else { (1, 5) };
        for tap in from..to {
            // SAFETY: `parts` has seen that the last grid row's lanes are there; the mask leaves no others.
            values[tap] = unsafe {
                _mm512_maskz_loadu_ps(mask, sources[tap].as_ptr().add(y * width + first))
            };
        }
        let middle = add(values[2], values[3]);
        let before = add(values[1], middle);
        store(before, &mut three[y]);
        store(add(middle, values[4]), &mut three_after[y]);
        if TWO_MORE {
            let middle = add(before, values[4]);
            store(add(values[0], middle), &mut five[y]);
            store(add(middle, values[5]), &mut five_after[y]);
        }
    }
}

/// Where rows of p end.
struct Ends<'a, const COLUMNS: bool, const PADDED: bool> {
    /// Grid rows of q.
    rows: usize,
    scale: &'a [Line],
    padding: &'a [Line],
    best: &'a mut [Line],
}

impl<const COLUMNS: bool, const PADDED: bool> Ends<'_, COLUMNS, PADDED> {
    /// The best cosines of rows next to each other; raises the columns' where they are wanted. `TAPS` = R + ROWS − 1.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn of_rows<const R: usize, const TAPS: usize, const ROWS: usize>(
        &mut self,
        taps: [&[f32]; TAPS],
        row_scale: [f32; ROWS],
    ) -> [f32; ROWS] {
        let mut scale = [_mm512_setzero_ps(); ROWS];
        for row in 0..ROWS {
            scale[row] = _mm512_set1_ps(row_scale[row]);
        }
        let mut best = [_mm512_set1_ps(f32::NEG_INFINITY); ROWS];
        for start in (0..self.scale.len()).step_by(self.rows) {
            let taps = all_lines(taps, start, self.rows);
            self.of_vectors::<R, TAPS, ROWS>(taps, start, scale, &mut best);
        }
        let mut of_rows = [0.0; ROWS];
        for row in 0..ROWS {
            of_rows[row] = _mm512_reduce_max_ps(best[row]) * row_scale[row];
        }
        of_rows
    }

    /// The same of one vector of each grid row of q, the first of which is `start` of all.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn of_vectors<const R: usize, const TAPS: usize, const ROWS: usize>(
        &mut self,
        taps: [&[Line]; TAPS],
        start: usize,
        row_scale: [__m512; ROWS],
        best: &mut [__m512; ROWS],
    ) {
        let half = R / 2;
        let zero = [_mm512_setzero_ps(); ROWS];
        let mut window = [zero; R];
        for y in 0..half.min(self.rows) {
            push(&mut window, sums_over_p_qx::<R, TAPS, ROWS>(&taps, y));
        }
        for _ in self.rows..half {
            push(&mut window, zero);
        }
        for y in half..self.rows {
            push(&mut window, sums_over_p_qx::<R, TAPS, ROWS>(&taps, y));
            self.compare(&window, start + y - half, row_scale, best);
        }
        for y in self.rows.saturating_sub(half)..self.rows {
            push(&mut window, zero);
            self.compare(&window, start + y, row_scale, best);
        }
    }

    /// Scales the sum of a window, and compares with the best so far.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn compare<const R: usize, const ROWS: usize>(
        &mut self,
        window: &[[__m512; ROWS]; R],
        at: usize,
        row_scale: [__m512; ROWS],
        best: &mut [__m512; ROWS],
    ) {
        let mut of_column = load(&self.best[at]);
        let scale = load(&self.scale[at]);
        for row in 0..ROWS {
            let mut sum = window[0][row];
            for tap in &window[1..] {
                sum = add(sum, tap[row]);
            }
            let scaled = if PADDED {
                _mm512_fmadd_ps(sum, scale, load(&self.padding[at]))
            } else {
                _mm512_mul_ps(sum, scale)
            };
            best[row] = _mm512_max_ps(best[row], scaled);
            if COLUMNS {
                of_column = _mm512_max_ps(of_column, _mm512_mul_ps(scaled, row_scale[row]));
            }
        }
        if COLUMNS {
            store(of_column, &mut self.best[at]);
        }
    }
}

/// Takes sums into a window of the last R grid rows of q, the newest last.
#[inline]
#[target_feature(enable = "avx512f")]
fn push<const R: usize, const ROWS: usize>(window: &mut [[__m512; ROWS]; R], sums: [__m512; ROWS]) {
    for at in 1..R {
        window[at - 1] = window[at];
    }
    window[R - 1] = sums;
}

/// Sums along p_x of one row, or of two next to each other, and along q_x.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums_over_p_qx<const R: usize, const TAPS: usize, const ROWS: usize>(
    taps: &[&[Line]; TAPS],
    y: usize,
) -> [__m512; ROWS] {
    let first = load(&taps[0][y]);
    let mut middle = load(&taps[1][y]);
    for tap in &taps[2..TAPS - 1] {
        middle = add(middle, load(&tap[y]));
    }
    let last = load(&taps[TAPS - 1][y]);
    let mut sums = [middle; ROWS];
    sums[0] = add(first, sums[0]);
    sums[ROWS - 1] = add(sums[ROWS - 1], last);
    for sum in &mut sums {
        *sum = sum_over_qx::<R>(*sum);
    }
    sums
}

/// Each lane's sum with those next to it.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_over_qx<const R: usize>(vector: __m512) -> __m512 {
    let (zero, here) = (_mm512_setzero_si512(), _mm512_castps_si512(vector));
    let after = _mm512_castsi512_ps(_mm512_alignr_epi32::<1>(zero, here));
    if R == 3 {
        let before = _mm512_castsi512_ps(_mm512_alignr_epi32::<15>(here, zero));
        return add(add(before, after), vector);
    }
    // Lanes x and x + 1, from lane −1 on, which is the first alone.
    let pairs = add(vector, after);
    let first = _mm512_maskz_broadcastss_ps(1 << 15, _mm512_castps512_ps128(vector));
    let (first, here_pairs) = (_mm512_castps_si512(first), _mm512_castps_si512(pairs));
    let before = _mm512_castsi512_ps(_mm512_alignr_epi32::<14>(here_pairs, first));
    let after = _mm512_castsi512_ps(_mm512_alignr_epi32::<2>(zero, here));
    add(add(before, pairs), after)
}

/// Rows (y − 2, x) to (y + 3, x) of G, in rows of a stride.
#[inline(always)]
fn rows_around<'a>(
    (gram, stride): (&'a [f32], usize),
    zeros: &'a [f32],
    grid: Grid,
    y: usize,
    x: usize,
) -> [&'a [f32]; 2 * REACH + 2] {
    let mut rows = [&zeros[..grid.patches()]; 2 * REACH + 2];
    for (at, row) in rows.iter_mut().enumerate() {
        if let Some(y) = (y + at).checked_sub(REACH).filter(|y| *y < grid.rows) {
            *row = &gram[(y * grid.columns + x) * stride..][..grid.patches()];
        }
    }
    rows
}

/// `TAPS` rows of those that are kept, each as long as `zeros`, from `before` places before x on.
#[inline(always)]
fn kept_rows<'a, const TAPS: usize>(
    kept: &'a [f32],
    zeros: &'a [f32],
    width: usize,
    x: usize,
    before: usize,
) -> [&'a [f32]; TAPS] {
    let mut rows = [zeros; TAPS];
    for (tap, row) in rows.iter_mut().enumerate() {
        if let Some(x) = (x + tap).checked_sub(before).filter(|x| *x < width) {
            *row = &kept[x % KEPT * zeros.len()..][..zeros.len()];
        }
    }
    rows
}

/// The first values of each.
#[inline(always)]
fn parts<const N: usize>(mut rows: [&[f32]; N], count: usize) -> [&[f32]; N] {
    for row in &mut rows {
        *row = &row[..count];
    }
    rows
}

/// Lines of each.
#[inline(always)]
fn all_lines<const N: usize>(rows: [&[f32]; N], start: usize, count: usize) -> [&[Line]; N] {
    let mut all = [&[][..]; N];
    for at in 0..N {
        all[at] = &lines(rows[at])[start..][..count];
    }
    all
}

#[inline(always)]
fn lines(values: &[f32]) -> &[Line] {
    values.as_chunks().0
}

#[inline(always)]
fn lines_mut(values: &mut [f32]) -> &mut [Line] {
    values.as_chunks_mut().0
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512 {
    // SAFETY: a line is the 16 values that are read.
    unsafe { _mm512_loadu_ps(line.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(vector: __m512, line: &mut Line) {
    // SAFETY: a line is the 16 values that are written.
    unsafe { _mm512_storeu_ps(line.as_mut_ptr(), vector) }
}
