//! Right operands of products of bf16, in the order in which they are read.

use bytemuck::cast_slice;
use half::bf16;

use super::rounded;
use crate::backend::cpu::aligned::Aligned;
use crate::backend::cpu::panels::{PANEL, transpose};

/// A right operand B `[k, n]`: panels of 64 columns, each with two rows side by side, `[n/64, k/2, 64, 2]`. Zeros past the last
/// column, and in place of the last row where k is odd.
#[derive(Debug)]
pub struct Panels {
    /// The values.
    pub values: Aligned<bf16>,
    /// Rows k, even.
    pub depth: usize,
    /// Columns n.
    pub columns: usize,
}

impl Panels {
    /// From Bᵀ in f32, `[columns, depth]`, as weights are stored, rounded.
    pub fn of_weights(weights: &[f32], columns: usize) -> Self {
        let depth = weights.len() / columns;
        let even = depth.next_multiple_of(2);
        let mut rows = Aligned::zeros(columns * even);
        for (row, weights) in rows.chunks_exact_mut(even).zip(weights.chunks_exact(depth)) {
            for (value, &weight) in row.iter_mut().zip(weights) {
                *value = rounded(weight);
            }
        }
        let mut values = Aligned::zeros(extent(even, columns));
        fill_panels(&rows, even, even, &mut values);
        Panels { values, depth: even, columns }
    }
}

/// The values that `[depth, columns]` takes; `depth` is even.
pub fn extent(depth: usize, columns: usize) -> usize {
    depth * columns.next_multiple_of(PANEL)
}

/// Writes Bᵀ, `[n, k]` in rows of `stride` values, as panels of B. `stride` and `depth` are even, `rows` starts on 4 bytes.
pub fn fill_panels(rows: &[bf16], stride: usize, depth: usize, panels: &mut [bf16]) {
    let (rows, panels) = (cast_slice::<_, u32>(rows), bytemuck::cast_slice_mut::<_, u32>(panels));
    let (stride, depth) = (stride / 2, depth / 2);
    let blocks = rows.chunks(PANEL * stride).zip(panels.chunks_exact_mut(depth * PANEL));
    for (rows, panel) in blocks {
        transpose(rows, stride, panel, PANEL);
    }
}

/// Writes one panel of B `[k, 64]` itself, in rows of `stride` values: two rows side by side. Where k is odd a row of zeros is
/// added.
pub fn fill_panel_of_rows(rows: &[bf16], count: usize, stride: usize, panel: &mut [bf16]) {
    let row = |index: usize| &rows[index * stride..][..PANEL];
    let zeros = [bf16::ZERO; PANEL];
    for (pair, out) in panel.chunks_exact_mut(2 * PANEL).take(count.div_ceil(2)).enumerate() {
        let first = row(2 * pair);
        let second = if 2 * pair + 1 < count { row(2 * pair + 1) } else { &zeros };
        for ((out, &first), &second) in out.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second)
        {
            *out = [first, second];
        }
    }
}
