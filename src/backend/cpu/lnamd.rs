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
        let sum: f64 =
            tokens.chunks(4096).map(|part| part.iter().map(|&v| v as f64).sum::<f64>()).sum();
        (sum / tokens.len() as f64) as f32
    } else {
        let rows = tokens.chunks_exact(width).zip(left_out).filter(|(_, out)| !**out);
        let (sum, count) = rows.fold((0.0f64, 0usize), |(sum, count), (row, _)| {
            (sum + row.iter().map(|&v| v as f64).sum::<f64>(), count + width)
        });
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
    assert!(centred.len() == grid.patches() * stride && stride % LANES == 0, "lnamd sizes");
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
        // The last `degree` grid rows, summed along x.
        let mut ring = Aligned::zeros(self.degree * columns * stride);
        let mut pooled = Aligned::zeros(stride);
        for y in 0..rows + half {
            if y < rows {
                for x in 0..columns {
                    let target = &mut ring[((y % self.degree) * columns + x) * stride..][..stride];
                    target.fill(0.0);
                    for from in x.saturating_sub(half)..columns.min(x + half + 1) {
                        let row = &self.centred[(y * columns + from) * stride..][..stride];
                        add_row(simd, row, target);
                    }
                }
            }
            let Some(center) = y.checked_sub(half) else { continue };
            for x in 0..columns {
                pooled.fill(0.0);
                for from in center.saturating_sub(half)..rows.min(center + half + 1) {
                    let row = &ring[((from % self.degree) * columns + x) * stride..][..stride];
                    add_row(simd, row, &mut pooled);
                }
                let mut squares = simd.splat_f32s(0.0);
                for &value in S::as_simd_f32s(&pooled).0 {
                    squares = simd.mul_add_f32s(value, value, squares);
                }
                let norm = simd.reduce_sum_f32s(squares).sqrt();
                let inverse_norm = if norm > 0.0 { 1.0 / norm } else { 0.0 };
                self.sink.take(center * columns + x, &pooled, inverse_norm);
            }
        }
    }
}

#[inline(always)]
pub(super) fn add_row<S: Simd>(simd: S, row: &[f32], out: &mut [f32]) {
    for (value, &more) in S::as_mut_simd_f32s(out).0.iter_mut().zip(S::as_simd_f32s(row).0) {
        *value = simd.add_f32s(*value, more);
    }
}
