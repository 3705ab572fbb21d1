//! Matrix products: the one place that calls the `gemm` crate, behind checked slices.

use gemm::Parallelism;

use super::aligned::Aligned;

/// Tells the `gemm` crate not to copy operands that lie in memory as its inner loop reads them: a left operand with
/// contiguous rows, a right operand in [`Panels`]. Measured on Zen 4 at the sizes here: 6 % and 5 % of the time. The
/// settings are the crate's own, for the whole process.
pub fn tune() {
    gemm::set_rhs_packing_threshold(256);
    gemm::set_lhs_packing_threshold_single_thread(256);
}

/// A right operand B `[k, n]` in the order in which the product reads it: panels of 64 columns, `[n/64, k, 64]`.
pub struct Panels {
    values: Aligned,
    depth: usize,
    columns: usize,
}

/// Columns of a panel.
const PANEL: usize = 64;

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
    pub fn product(&self, a: (&[f32], Shape), c: (&mut [f32], Shape, Into), threads: usize) {
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
    (c, c_shape, into): (&mut [f32], Shape, Into),
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
            (&mut c[first..], c_panel, into),
            threads,
        );
    }
}

/// A matrix inside a slice: `rows` rows of `columns` values, `stride` values from one row to the next.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Number of rows.
    pub rows: usize,
    /// Values in a row.
    pub columns: usize,
    /// Values from the start of a row to the start of the next, at least `columns`.
    pub stride: usize,
}

impl Shape {
    /// A matrix whose rows follow each other without gaps.
    pub fn dense(rows: usize, columns: usize) -> Self {
        Shape { rows, columns, stride: columns }
    }

    /// A matrix whose rows lie `stride` values apart.
    pub fn strided(rows: usize, columns: usize, stride: usize) -> Self {
        Shape { rows, columns, stride }
    }

    /// The values a slice must hold to contain the matrix.
    fn extent(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.stride + self.columns
    }

    fn check(self, name: &str, length: usize) {
        assert!(
            self.stride >= self.columns && length >= self.extent(),
            "gemm operand {name}: {self:?} does not fit a slice of {length}"
        );
    }
}

/// How an operand enters the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// C = A·Bᵀ: B is `[n, k]`, as weights are stored.
    Transposed,
    /// C = A·B: B is `[k, n]`.
    Plain,
}

/// What happens to the values that C holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// C = the product.
    Overwrite,
    /// C = C + the product.
    Add,
}

/// C `[m, n]` = or += A `[m, k]` · B, in f32, on `threads` threads of the current pool.
///
/// # Panics
/// When an operand's shape does not fit its slice or the others; the callers compute both from one source.
pub fn gemm(
    (a, a_shape): (&[f32], Shape),
    (b, b_shape, right): (&[f32], Shape, Right),
    (c, c_shape, into): (&mut [f32], Shape, Into),
    threads: usize,
) {
    let (m, n, k) = (a_shape.rows, c_shape.columns, a_shape.columns);
    let b_needed = match right {
        Right::Transposed => (n, k),
        Right::Plain => (k, n),
    };
    assert!(
        c_shape.rows == m && (b_shape.rows, b_shape.columns) == b_needed,
        "gemm: {a_shape:?} times {b_shape:?} ({right:?}) into {c_shape:?}"
    );
    a_shape.check("a", a.len());
    b_shape.check("b", b.len());
    c_shape.check("c", c.len());
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if into == Into::Overwrite {
            (0..m).for_each(|row| c[row * c_shape.stride..][..n].fill(0.0));
        }
        return;
    }
    let (b_column_stride, b_row_stride) = match right {
        Right::Transposed => (b_shape.stride as isize, 1),
        Right::Plain => (1, b_shape.stride as isize),
    };
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: each slice holds its whole matrix (`check` above), the shapes agree (asserted above), and `c`
    // is borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_shape.stride as isize,
            into == Into::Add,
            a.as_ptr(),
            1,
            a_shape.stride as isize,
            b.as_ptr(),
            b_column_stride,
            b_row_stride,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Writes the transpose: `rows` `[n, stride]` to `columns` `[m, column_stride]`, m <= `stride` and n <= `column_stride`,
/// in blocks that fit the L1 cache.
pub fn transpose(rows: &[f32], stride: usize, columns: &mut [f32], column_stride: usize) {
    const BLOCK: usize = 16;
    let (count, width) = (rows.len() / stride, columns.len() / column_stride);
    for top in (0..count).step_by(BLOCK) {
        for left in (0..width).step_by(BLOCK) {
            for column in left..width.min(left + BLOCK) {
                for row in top..count.min(top + BLOCK) {
                    columns[column * column_stride + row] = rows[row * stride + column];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn equals_the_definition_on_awkward_sizes() {
        for (m, n, k) in [(0, 3, 2), (1, 1, 1), (3, 0, 2), (2, 3, 0), (7, 13, 5), (65, 33, 129)] {
            for right in [Right::Transposed, Right::Plain] {
                for into in [Into::Overwrite, Into::Add] {
                    let a_shape = Shape::strided(m, k, k + 3);
                    let b_shape = match right {
                        Right::Transposed => Shape::strided(n, k, k + 1),
                        Right::Plain => Shape::strided(k, n, n + 1),
                    };
                    let c_shape = Shape::strided(m, n, n + 2);
                    let a = values(m * a_shape.stride, 1);
                    let b = values(b_shape.rows * b_shape.stride, 2);
                    let before = values(m * c_shape.stride, 3);
                    let mut c = before.clone();
                    gemm((&a, a_shape), (&b, b_shape, right), (&mut c, c_shape, into), 1);
                    for row in 0..m {
                        for column in 0..c_shape.stride {
                            let at = row * c_shape.stride + column;
                            if column >= n {
                                assert_eq!(c[at], before[at], "wrote outside the matrix");
                                continue;
                            }
                            let mut sum = if into == Into::Add { before[at] as f64 } else { 0.0 };
                            for step in 0..k {
                                let right_value = match right {
                                    Right::Transposed => b[column * b_shape.stride + step],
                                    Right::Plain => b[step * b_shape.stride + column],
                                };
                                sum += a[row * a_shape.stride + step] as f64 * right_value as f64;
                            }
                            // Each of k + 1 additions of terms below 1 rounds once.
                            let bound = (k + 1) as f64 * f32::EPSILON as f64 * (k + 1) as f64;
                            assert!((c[at] as f64 - sum).abs() <= bound, "{m} {n} {k} {right:?}");
                        }
                    }
                }
            }
        }
    }
}
