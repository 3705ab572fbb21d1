//! Products of bf16: operands of 16 bits, added up in f32, at twice the rate of f32.
//!
//! They are for processors with AVX512-BF16 (`vdpbf16ps`: two products of bf16 added to an f32), of which
//! [`Bf16`](crate::simd::Bf16) is the proof. What is here is the product with its panels, what becomes of its results (the
//! epilogues), and the blocks of the transformer made of them. A product with an accumulator in f32 and with epilogues of one's
//! own was in no crate when this was written: `gemm` 0.19 has no bf16, `rten-gemm` 0.27 f32 and int8, `gemmkit` 0.1.2 has
//! `vdpbf16ps` but gives bf16 and has neither GELU nor a residual (and ran at 0.7 to 0.9 of this one's rate on Zen 5).
//!
//! Rounding is to nearest, ties to even. The instruction takes numbers below 2⁻¹²⁶ for zero, in and out.

pub mod attention;
pub mod blocks;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "only a kernel gives anything to it")
)]
pub mod finish;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_kernel.rs")]
mod kernel;
pub mod panels;
pub mod product;

use half::bf16;

/// The nearest bf16, ties to even; a NaN stays one.
#[inline(always)]
pub fn rounded(value: f32) -> bf16 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    bf16::from_bits(if value.is_nan() { nan } else { nearest } as u16)
}

/// The same number in f32.
#[inline(always)]
pub fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

#[cfg(test)]
mod tests;
