//! Matrix products: the one place that calls the `gemm` crate, behind checked slices.

use gemm::Parallelism;

use crate::Real;

/// Tells the `gemm` crate not to copy operands that lie in memory as its inner loop reads them: a left operand with
/// contiguous rows, a right operand in panels of 64 columns. Measured on Zen 4 at the sizes of the CPU backend: 6 % and 5 % of
/// the time. The settings are the crate's own, for the whole process: anyone else who multiplies with it gets them too.
pub fn tune() {
    gemm::set_rhs_packing_threshold(256);
    gemm::set_lhs_packing_threshold_single_thread(256);
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
pub enum Store {
    /// C = the product.
    Overwrite,
    /// C = C + the product.
    Add,
}

/// C `[m, n]` = or += A `[m, k]` · B, in f32 or f64, on `threads` threads of the current pool.
///
/// # Panics
/// When an operand's shape does not fit its slice or the others; the callers compute both from one source.
pub fn gemm<T: Real + 'static>(
    (a, a_shape): (&[T], Shape),
    (b, b_shape, right): (&[T], Shape, Right),
    (c, c_shape, store): (&mut [T], Shape, Store),
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
        if store == Store::Overwrite {
            (0..m).for_each(|row| c[row * c_shape.stride..][..n].fill(T::default()));
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
            store == Store::Add,
            a.as_ptr(),
            1,
            a_shape.stride as isize,
            b.as_ptr(),
            b_column_stride,
            b_row_stride,
            T::from_f64(1.0),
            T::from_f64(1.0),
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<T: Real>(count: usize, seed: u32) -> Vec<T> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                T::from_f64(f64::from(state >> 8) / f64::from(1 << 23) - 1.0)
            })
            .collect()
    }

    #[test]
    fn equals_the_definition_on_awkward_sizes() {
        equals_the_definition::<f32>(f32::EPSILON.into());
        equals_the_definition::<f64>(f64::EPSILON);
    }

    fn equals_the_definition<T: Real + 'static + std::fmt::Debug>(epsilon: f64) {
        let wide = |value: T| -> f64 { value.into() };
        for (m, n, k) in [(0, 3, 2), (1, 1, 1), (3, 0, 2), (2, 3, 0), (7, 13, 5), (65, 33, 129)] {
            for right in [Right::Transposed, Right::Plain] {
                for store in [Store::Overwrite, Store::Add] {
                    let a_shape = Shape::strided(m, k, k + 3);
                    let b_shape = match right {
                        Right::Transposed => Shape::strided(n, k, k + 1),
                        Right::Plain => Shape::strided(k, n, n + 1),
                    };
                    let c_shape = Shape::strided(m, n, n + 2);
                    let a: Vec<T> = values(m * a_shape.stride, 1);
                    let b: Vec<T> = values(b_shape.rows * b_shape.stride, 2);
                    let before: Vec<T> = values(m * c_shape.stride, 3);
                    let mut c = before.clone();
                    gemm((&a, a_shape), (&b, b_shape, right), (&mut c, c_shape, store), 1);
                    for (at, (&found, &before)) in c.iter().zip(&before).enumerate() {
                        let (row, column) = (at / c_shape.stride, at % c_shape.stride);
                        if column >= n {
                            assert!(found == before, "wrote outside the matrix");
                            continue;
                        }
                        let mut sum = if store == Store::Add { wide(before) } else { 0.0 };
                        for step in 0..k {
                            let right_value = match right {
                                Right::Transposed => b[column * b_shape.stride + step],
                                Right::Plain => b[step * b_shape.stride + column],
                            };
                            sum += wide(a[row * a_shape.stride + step]) * wide(right_value);
                        }
                        // Each of k + 1 additions of terms below 1 rounds once, here and there.
                        let bound = 2.0 * ((k + 1) as f64).powi(2) * epsilon;
                        let error = (wide(found) - sum).abs();
                        assert!(error <= bound, "{m} {n} {k} {right:?} {store:?}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "gemm operand b")]
    fn a_slice_that_is_too_short_is_refused() {
        let shape = Shape::dense(2, 2);
        let (a, b, mut c) = ([0.0; 4], [0.0; 3], [0.0; 4]);
        gemm((&a, shape), (&b, shape, Right::Plain), (&mut c, shape, Store::Overwrite), 1);
    }
}
