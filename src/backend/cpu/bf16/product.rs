//! C = A·B with operands of bf16.
//!
//! The inner loop is `kernel.rs`; here sizes are checked and rows are dealt to threads.

use half::bf16;

use super::finish::Finish;
use super::kernel::{ROWS, whole};
use super::panels::extent;
use crate::gemm::Shape;
use crate::simd::Bf16;

/// A·B, A `[m, k]` (k even), B `[k, n]` in panels ([`fill_panels`](super::panels::fill_panels)), on `threads` threads of the
/// current pool. A number's bits are the same for any number of threads.
///
/// # Panics
/// When an operand's shape does not fit its slice or the others; the callers compute both from one source.
pub fn product<F: Finish>(
    proof: Bf16,
    (a, shape): (&[bf16], Shape),
    (panels, depth, columns): (&[bf16], usize, usize),
    finish: F,
    threads: usize,
) {
    let fits = shape.columns == depth
        && depth.is_multiple_of(2)
        && (shape.rows == 0 || a.len() >= (shape.rows - 1) * shape.stride + depth)
        && panels.len() >= extent(depth, columns);
    assert!(fits, "bf16 product: {shape:?} by {depth}x{columns}");
    finish.check(shape.rows, columns);
    split(proof, (a, shape), (panels, columns), finish, threads);
}

/// Halves of the rows for halves of the threads.
fn split<F: Finish>(
    proof: Bf16,
    (a, shape): (&[bf16], Shape),
    right: (&[bf16], usize),
    finish: F,
    threads: usize,
) {
    let tiles = shape.rows.div_ceil(ROWS);
    if threads < 2 || tiles < 2 {
        // SAFETY: `product` has checked that `a` holds `rows` rows of `depth` values, `stride` apart, and `panels` all of B.
        unsafe { whole(proof, a, shape, right, finish) };
        return;
    }
    let upper = tiles / 2 * ROWS;
    let (first, second) = finish.split_at(upper);
    let of = |rows: usize| Shape { rows, ..shape };
    let below = &a[upper * shape.stride..];
    rayon::join(
        || split(proof, (a, of(upper)), right, first, threads / 2),
        || split(proof, (below, of(shape.rows - upper)), right, second, threads - threads / 2),
    );
}
