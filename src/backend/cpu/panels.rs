//! Right operands in the order in which the products read them.

use super::aligned::Aligned;
use crate::gemm::{Right, Shape, Store, gemm};

/// A right operand B `[k, n]` in the order in which the product reads it: panels of 64 columns, `[n/64, k, 64]`.
pub struct Panels {
    values: Aligned,
    depth: usize,
    columns: usize,
}

/// Columns of a panel.
pub const PANEL: usize = 64;

impl Panels {
    /// The values that `[depth, columns]` takes.
    pub fn extent(depth: usize, columns: usize) -> usize {
        depth * columns.next_multiple_of(PANEL)
    }

    /// From Bᵀ, `[n, k]` in rows of `stride` values, as weights and tokens are stored.
    pub fn of_transposed(rows: &[f32], stride: usize, depth: usize) -> Self {
        let columns = rows.len() / stride;
        let mut values = Aligned::zeros(Self::extent(depth, columns));
        fill_panels(rows, stride, depth, &mut values);
        Panels { values, depth, columns }
    }

    /// C = or += A·B.
    pub fn product(&self, a: (&[f32], Shape), c: (&mut [f32], Shape, Store), threads: usize) {
        product_of_panels(a, (&self.values, self.depth, self.columns), c, threads);
    }
}

/// Writes Bᵀ, `[n, k]` in rows of `stride` values, as panels of B.
pub fn fill_panels(rows: &[f32], stride: usize, depth: usize, panels: &mut [f32]) {
    let blocks = rows.chunks(PANEL * stride).zip(panels.chunks_exact_mut(depth * PANEL));
    for (rows, panel) in blocks {
        transpose(rows, stride, panel, PANEL);
    }
}

/// C = or += A·B, B `[depth, columns]` in panels.
pub fn product_of_panels(
    (a, a_shape): (&[f32], Shape),
    (panels, depth, columns): (&[f32], usize, usize),
    (c, c_shape, store): (&mut [f32], Shape, Store),
    threads: usize,
) {
    assert!(columns == c_shape.columns && panels.len() >= Panels::extent(depth, columns), "panels");
    for (index, panel) in panels.chunks_exact(depth * PANEL).enumerate() {
        let first = index * PANEL;
        let width = PANEL.min(columns - first);
        let c_panel = Shape::strided(c_shape.rows, width, c_shape.stride);
        gemm(
            (a, a_shape),
            (panel, Shape::strided(depth, width, PANEL), Right::Plain),
            (&mut c[first..], c_panel, store),
            threads,
        );
    }
}

/// Writes the transpose: `rows` `[n, stride]`, of which the last may end after m values, to `columns` `[m, column_stride]`,
/// m <= `stride` and n <= `column_stride`, in blocks that fit the L1 cache.
pub fn transpose<T: Copy>(rows: &[T], stride: usize, columns: &mut [T], column_stride: usize) {
    const BLOCK: usize = 16;
    let (count, width) = (rows.len().div_ceil(stride), columns.len() / column_stride);
    for top in (0..count).step_by(BLOCK) {
        for left in (0..width).step_by(BLOCK) {
            if top + BLOCK <= count && left + BLOCK <= width {
                for row in (top..top + BLOCK).step_by(SQUARE) {
                    for column in (left..left + BLOCK).step_by(SQUARE) {
                        let from = &rows[row * stride + column..];
                        let to = &mut columns[column * column_stride + row..];
                        transpose_square(from, stride, to, column_stride);
                    }
                }
                continue;
            }
            for column in left..width.min(left + BLOCK) {
                for row in top..count.min(top + BLOCK) {
                    columns[column * column_stride + row] = rows[row * stride + column];
                }
            }
        }
    }
}

/// What is transposed without a value going through memory alone.
const SQUARE: usize = 4;

#[inline(always)]
fn transpose_square<T: Copy>(rows: &[T], stride: usize, columns: &mut [T], column_stride: usize) {
    let mut square = [[rows[0]; SQUARE]; SQUARE];
    for (row, line) in square.iter_mut().enumerate() {
        line.copy_from_slice(&rows[row * stride..][..SQUARE]);
    }
    for column in 0..SQUARE {
        let line = square.map(|row| row[column]);
        columns[column * column_stride..][..SQUARE].copy_from_slice(&line);
    }
}
