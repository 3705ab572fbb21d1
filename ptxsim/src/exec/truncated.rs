//! Sums of an `mma` as tensor cores take them: a block of products and the accumulator are
//! aligned to the largest exponent among them, cut toward zero below the bits that are kept,
//! added exactly, and the sum is cut to the accumulator's format; then the next block, in the
//! order of k.
//!
//! The exponent of a product is the sum of its factors' exponents, before the product is
//! normalised; subnormal factors and accumulators count with the least exponent of their format,
//! zeros not at all. The significand of an f32 keeps its 23 bits after the point and `extra_bits`
//! more, whatever the largest exponent is. Into an f16 accumulator a block's sum is rounded to
//! nearest. NaN and infinities give what the ordinary sum gives, overflow an infinity.
//!
//! Source: M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, "Numerical behavior of NVIDIA tensor
//! cores", PeerJ Computer Science 7:e330 (2021), and F. A. Khattak, M. Mikaitis, "Accurate models
//! of NVIDIA tensor cores", arXiv:2512.07004 (2025), whose published models (github.com/north-
//! numerical-computing/MATLAB-tensor-core) name block sizes and bits. Products of bf16 and tf32
//! below the range of f32 are not followed to the last bit.

use super::mma::{M, N};
use crate::num::{Round, f16_to_f32, round_16};

/// How the sums of one `mma` are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    /// Products of a block.
    pub block: usize,
    pub extra_bits: i32,
    /// The least exponent of the factors' format.
    pub least: i32,
    /// The accumulator is an f16.
    pub half_acc: bool,
}

/// Bits after the point of an f32.
const POINT: i32 = 23;
/// The exponent of a zero: below any other, also when one is added to it.
const NONE: i32 = -10_000;
/// Below every exponent there is: what is aligned to when all is zero.
const LOWEST: i32 = -300;

#[inline(always)]
fn exponent(x: f32, least: i32) -> i32 {
    let e = ((x.to_bits() >> 23) & 0xff) as i32 - 127;
    if x == 0.0 { NONE } else { e.max(least) }
}

/// 2^e for e in the normal range of f64.
#[inline(always)]
fn power(e: i32) -> f64 {
    f64::from_bits(((1023 + e) as u64) << 52)
}

/// Cut toward zero; what is too large is an infinity.
#[inline(always)]
fn cut(v: f64) -> f32 {
    let normal = f64::from_bits(v.to_bits() & !((1 << 29) - 1));
    let subnormal = (v * power(149)).trunc() * power(-149);
    (if v.abs() < power(-126) { subnormal } else { normal }) as f32
}

/// `c += a · b`.
#[inline(always)]
pub(super) fn multiply<const K: usize>(
    a: &[[f32; K]; M],
    b: &[[f32; N]; K],
    c: &mut [[f32; N]; M],
    sums: Sums,
) {
    let wide_b = b.map(|row| row.map(f64::from));
    let exponents_b = b.map(|row| row.map(|x| exponent(x, sums.least)));
    for (row, acc) in a.iter().zip(c.iter_mut()) {
        for first in (0..K).step_by(sums.block) {
            let block = first..(first + sums.block).min(K);
            let mut top = acc.map(|x| exponent(x, -126));
            for k in block.clone() {
                let e = exponent(row[k], sums.least);
                for n in 0..N {
                    top[n] = top[n].max(e + exponents_b[k][n]);
                }
            }
            let kept = top.map(|e| POINT + sums.extra_bits - e.max(LOWEST));
            let scale = kept.map(power);
            let mut sum: [f64; N] = std::array::from_fn(|n| (f64::from(acc[n]) * scale[n]).trunc());
            for k in block {
                let x = f64::from(row[k]);
                for n in 0..N {
                    sum[n] += (x * wide_b[k][n] * scale[n]).trunc();
                }
            }
            for n in 0..N {
                // A sum of nothing is +0.
                let v = sum[n] * power(-kept[n]) + 0.0;
                acc[n] = if sums.half_acc {
                    f16_to_f32(round_16(v, Round::Nearest, false))
                } else {
                    cut(v)
                };
            }
        }
    }
}
