//! Where no processor has AVX512-BF16 there is no proof of it either, and nothing to run.

use half::bf16;

use super::finish::{Finish, Rows};
use crate::gemm::Shape;
use crate::simd::Bf16;

/// Rows of a tile.
pub const ROWS: usize = 6;

/// Is never called.
///
/// # Safety
/// None.
pub unsafe fn whole<T, F: Finish<T>>(
    proof: Bf16,
    _: (&[bf16], Shape),
    _: (&[bf16], usize),
    _: (Rows<'_, T>, F, usize),
) {
    proof.never()
}
