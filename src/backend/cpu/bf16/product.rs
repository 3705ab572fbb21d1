//! C = A·B with operands of bf16.
//!
//! The inner loop is `kernel.rs`; here sizes are checked and rows are dealt to threads.

use half::bf16;

use super::finish::{Finish, Rows};
use super::kernel::{ROWS, whole};
use super::panels::extent;
use crate::gemm::Shape;
use crate::simd::Bf16;

/// A·B through an epilogue to C, A `[m, k]` (k even), B `[k, n]` in panels ([`fill_panels`](super::panels::fill_panels)), on
/// `threads` threads of the current pool. A number's bits are the same for any number of threads.
///
/// # Panics
/// When an operand's shape does not fit its slice or the others; the callers compute both from one source.
pub fn product<T: Send, F: Finish<T>>(
    proof: Bf16,
    (a, shape): (&[bf16], Shape),
    (panels, depth, columns): (&[bf16], usize, usize),
    (c, finish): (Rows<'_, T>, F),
    threads: usize,
) {
    let fits = shape.columns == depth
        && shape.stride >= depth
        && depth.is_multiple_of(2)
        && (shape.rows == 0 || a.len() >= (shape.rows - 1) * shape.stride + depth)
        && panels.len() >= extent(depth, columns);
    assert!(fits, "bf16 product: {shape:?} by {depth}x{columns}");
    c.check(shape.rows, columns);
    finish.check(shape.rows, columns);
    split(proof, (a, shape), (panels, columns), (c, finish, 0), threads);
}

/// Halves of the rows for halves of the threads: those of A and C, of which the first is row `above` of the whole.
fn split<T: Send, F: Finish<T>>(
    proof: Bf16,
    (a, shape): (&[bf16], Shape),
    right: (&[bf16], usize),
    (c, finish, above): (Rows<'_, T>, F, usize),
    threads: usize,
) {
    let tiles = shape.rows.div_ceil(ROWS);
    if threads < 2 || tiles < 2 {
        // SAFETY: `product` has checked that `a` holds `rows` rows of `depth` values, `stride` apart, and `panels` all of B.
        unsafe { whole(proof, (a, shape), right, (c, finish, above)) };
        return;
    }
    let upper = tiles / 2 * ROWS;
    let (first, second) = c.split_at(upper);
    let (upper_a, lower_a) = a.split_at(upper * shape.stride);
    let of = |rows: usize| Shape { rows, ..shape };
    let (few, rest) = (threads / 2, threads - threads / 2);
    rayon::join(
        || split(proof, (upper_a, of(upper)), right, (first, finish, above), few),
        || {
            let lower = (lower_a, of(shape.rows - upper));
            split(proof, lower, right, (second, finish, above + upper), rest);
        },
    );
}
