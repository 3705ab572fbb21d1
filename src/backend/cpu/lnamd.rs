//! LNAMD on the CPU: centred tokens, the norms of the pooled tokens for every aggregation degree, and the pooled tokens.
//!
//! The layer normalisation in front of the pooling subtracts one mean an image and divides by one standard
//! deviation; the division cancels when the pooled token is divided by its norm. What is left to compute once
//! an image is F' = F − mean and, for each degree, 1/‖box_r F'(p)‖; where patches are compared with those near them only,
//! the pooled tokens themselves.

use pulp::{Arch, Simd, WithSimd};

use super::aligned::{Aligned, LANES};
use crate::Grid;

/// The stride of centred tokens of width `width`: whole cache lines.
pub fn token_stride(width: usize) -> usize {
    width.next_multiple_of(LANES)
}

/// Writes F' = F − mean(F) of one image: `tokens` `[L, C]` to `centred` `[L, token_stride(C)]`, padded by zeros.
///
/// `left_out` `[L]`, or empty: patches that lie outside the image as those past the grid's edge do. They count in no mean
/// and are zero.
pub fn centre(tokens: &[f32], width: usize, left_out: &[bool], centred: &mut [f32]) {
    let stride = token_stride(width);
    let mean = if left_out.is_empty() {
        let sum = sum_of(tokens);
        (sum / tokens.len() as f64) as f32
    } else {
        let rows = tokens.chunks_exact(width).zip(left_out).filter(|(_, out)| !**out);
        let (sum, count) = rows
            .fold((0.0f64, 0usize), |(sum, count), (row, _)| (sum + sum_of(row), count + width));
        (sum / count.max(1) as f64) as f32
    };
    for (row, out) in tokens.chunks_exact(width).zip(centred.chunks_exact_mut(stride)) {
        for (value, &token) in out.iter_mut().zip(row) {
            *value = token - mean;
        }
        out[width..].fill(0.0);
    }
    for (row, _) in centred.chunks_exact_mut(stride).zip(left_out).filter(|(_, out)| **out) {
        row.fill(0.0);
    }
}

/// The sum, in f64: sixteen sums side by side, so that none waits for the addition before it.
fn sum_of(values: &[f32]) -> f64 {
    let (lines, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for line in lines {
        for (sum, &value) in sums.iter_mut().zip(line) {
            *sum += f64::from(value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value)).sum::<f64>()
}

/// 1/‖box_r F'(p)‖ for every patch of one image: `centred` `[L, stride]`, `out` `[L]`.
///
/// A pooled token that is exactly zero gets 0: its cosine with every other is 0 then, not NaN.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn inverse_norms(
    arch: Arch,
    centred: &[f32],
    grid: Grid,
    stride: usize,
    degree: usize,
    out: &mut [f32],
) {
    assert!(out.len() == grid.patches(), "lnamd sizes");
    pool(arch, centred, grid, stride, degree, InverseNorms(out));
}

/// The unit tokens box_r F'(p)/‖box_r F'(p)‖ of one image: `centred` `[L, stride]`, `out` one `[stride]` a patch. Zeros
/// where the pooled token is zero.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn unit_tokens(
    arch: Arch,
    centred: &[f32],
    grid: Grid,
    stride: usize,
    degree: usize,
    out: &mut [&mut [f32]],
) {
    assert!(out.len() == grid.patches(), "lnamd sizes");
    pool(arch, centred, grid, stride, degree, UnitTokens(out));
}

fn pool(
    arch: Arch,
    centred: &[f32],
    grid: Grid,
    stride: usize,
    degree: usize,
    sink: impl PooledRows,
) {
    assert!(
        centred.len() == grid.patches() * stride && stride.is_multiple_of(LANES),
        "lnamd sizes"
    );
    arch.dispatch(BoxSums { centred, grid, stride, degree, sink });
}

/// Takes the pooled tokens one by one.
trait PooledRows {
    /// The pooled token of a patch, and the reciprocal of its norm.
    fn take(&mut self, patch: usize, pooled: &[f32], inverse_norm: f32);
}

struct InverseNorms<'a>(&'a mut [f32]);

impl PooledRows for InverseNorms<'_> {
    #[inline(always)]
    fn take(&mut self, patch: usize, _: &[f32], inverse_norm: f32) {
        self.0[patch] = inverse_norm;
    }
}

struct UnitTokens<'a, 'b>(&'a mut [&'b mut [f32]]);

impl PooledRows for UnitTokens<'_, '_> {
    #[inline(always)]
    fn take(&mut self, patch: usize, pooled: &[f32], inverse_norm: f32) {
        for (value, &sum) in self.0[patch].iter_mut().zip(pooled) {
            *value = sum * inverse_norm;
        }
    }
}

struct BoxSums<'a, K> {
    centred: &'a [f32],
    grid: Grid,
    stride: usize,
    degree: usize,
    sink: K,
}

impl<K: PooledRows> WithSimd for BoxSums<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (stride, half) = (self.stride, self.degree / 2);
        let Grid { rows, columns } = self.grid;
        let window =
            |center: usize, side: usize| (center.saturating_sub(half), side.min(center + half + 1));
        // A grid row summed along y, then a patch of it along x.
        let mut over_y = Aligned::zeros(columns * stride);
        let mut pooled = Aligned::zeros(stride);
        for y in 0..rows {
            let (first, last) = window(y, rows);
            let source = &self.centred[first * columns * stride..];
            sum_taps(simd, source, columns * stride, last - first, &mut over_y);
            for x in 0..columns {
                let (first, last) = window(x, columns);
                sum_taps(simd, &over_y[first * stride..], stride, last - first, &mut pooled);
                let mut squares = simd.splat_f32s(0.0);
                for &value in S::as_simd_f32s(&pooled).0 {
                    squares = simd.mul_add_f32s(value, value, squares);
                }
                let norm = simd.reduce_sum_f32s(squares).sqrt();
                let inverse_norm = if norm > 0.0 { 1.0 / norm } else { 0.0 };
                self.sink.take(y * columns + x, &pooled, inverse_norm);
            }
        }
    }
}

/// `out` = the sum of `taps` stretches of `source` that start `pitch` values apart.
#[inline(always)]
pub(super) fn sum_taps<S: Simd>(
    simd: S,
    source: &[f32],
    pitch: usize,
    taps: usize,
    out: &mut [f32],
) {
    match taps {
        1 => sum_fixed::<S, 1>(simd, source, pitch, out),
        2 => sum_fixed::<S, 2>(simd, source, pitch, out),
        3 => sum_fixed::<S, 3>(simd, source, pitch, out),
        4 => sum_fixed::<S, 4>(simd, source, pitch, out),
        _ => {
            sum_fixed::<S, 5>(simd, source, pitch, out);
            for tap in 5..taps {
                add_row(simd, &source[tap * pitch..][..out.len()], out);
            }
        }
    }
}

#[inline(always)]
fn sum_fixed<S: Simd, const TAPS: usize>(simd: S, source: &[f32], pitch: usize, out: &mut [f32]) {
    let length = out.len();
    let out = S::as_mut_simd_f32s(out).0;
    let count = out.len();
    let taps: [&[S::f32s]; TAPS] =
        std::array::from_fn(|tap| &S::as_simd_f32s(&source[tap * pitch..][..length]).0[..count]);
    for (at, value) in out.iter_mut().enumerate() {
        let mut sum = taps[0][at];
        for tap in &taps[1..] {
            sum = simd.add_f32s(sum, tap[at]);
        }
        *value = sum;
    }
}

#[inline(always)]
fn add_row<S: Simd>(simd: S, row: &[f32], out: &mut [f32]) {
    for (value, &more) in S::as_mut_simd_f32s(out).0.iter_mut().zip(S::as_simd_f32s(row).0) {
        *value = simd.add_f32s(*value, more);
    }
}
