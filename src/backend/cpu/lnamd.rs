//! LNAMD on the CPU: centred tokens, and the norms of the pooled tokens for every aggregation degree.
//!
//! The layer normalisation in front of the pooling subtracts one mean an image and divides by one standard
//! deviation; the division cancels when the pooled token is divided by its norm. What is left to compute once
//! an image is F' = F − mean and, for each degree, 1/‖box_r F'(p)‖.

use pulp::{Arch, Simd, WithSimd};

use super::aligned::{Aligned, LANES};

/// The stride of centred tokens of width `width`: whole cache lines.
pub fn token_stride(width: usize) -> usize {
    width.next_multiple_of(LANES)
}

/// Writes F' = F − mean(F) of one image: `tokens` `[L, C]` to `centred` `[L, token_stride(C)]`, padded by zeros.
pub fn centre(tokens: &[f32], width: usize, centred: &mut [f32]) {
    let sum: f64 =
        tokens.chunks(4096).map(|part| part.iter().map(|&v| v as f64).sum::<f64>()).sum();
    let mean = (sum / tokens.len() as f64) as f32;
    let stride = token_stride(width);
    for (row, out) in tokens.chunks_exact(width).zip(centred.chunks_exact_mut(stride)) {
        for (value, &token) in out.iter_mut().zip(row) {
            *value = token - mean;
        }
        out[width..].fill(0.0);
    }
}

/// 1/‖box_r F'(p)‖ for every patch of one image: `centred` `[H·H, stride]`, `out` `[H·H]`.
///
/// A pooled token that is exactly zero gets 0: its cosine with every other is 0 then, not NaN.
pub fn inverse_norms(centred: &[f32], grid: usize, stride: usize, degree: usize, out: &mut [f32]) {
    assert!(centred.len() == grid * grid * stride && out.len() == grid * grid, "lnamd sizes");
    Arch::new().dispatch(InverseNorms { centred, grid, stride, degree, out });
}

struct InverseNorms<'a> {
    centred: &'a [f32],
    grid: usize,
    stride: usize,
    degree: usize,
    out: &'a mut [f32],
}

impl WithSimd for InverseNorms<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (grid, stride, half) = (self.grid, self.stride, self.degree / 2);
        // The last `degree` grid rows, summed along x.
        let mut ring = Aligned::zeros(self.degree * grid * stride);
        let mut pooled = Aligned::zeros(stride);
        for y in 0..grid + half {
            if y < grid {
                for x in 0..grid {
                    let target = &mut ring[((y % self.degree) * grid + x) * stride..][..stride];
                    target.fill(0.0);
                    for from in x.saturating_sub(half)..grid.min(x + half + 1) {
                        let row = &self.centred[(y * grid + from) * stride..][..stride];
                        add_row(simd, row, target);
                    }
                }
            }
            let Some(center) = y.checked_sub(half) else { continue };
            for x in 0..grid {
                pooled.fill(0.0);
                for from in center.saturating_sub(half)..grid.min(center + half + 1) {
                    let row = &ring[((from % self.degree) * grid + x) * stride..][..stride];
                    add_row(simd, row, &mut pooled);
                }
                let mut squares = simd.splat_f32s(0.0);
                for &value in S::as_simd_f32s(&pooled).0 {
                    squares = simd.mul_add_f32s(value, value, squares);
                }
                let norm = simd.reduce_sum_f32s(squares).sqrt();
                self.out[center * grid + x] = if norm > 0.0 { 1.0 / norm } else { 0.0 };
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
