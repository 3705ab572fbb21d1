//! What becomes of products: the epilogues.

use half::bf16;

use super::rounded;
use crate::backend::cpu::elementwise::{gelu, quick_gelu};
use crate::model::Activation;

/// Takes products row by row, to where the results of type `T` are kept.
pub trait Finish<T>: Copy + Send + Sync {
    /// Refuses products of another size than it is for, by a panic.
    fn check(self, rows: usize, columns: usize);

    /// Products of a row, from `column` on, to as many values of C.
    fn row(self, row: usize, column: usize, products: &[f32], out: &mut [T]);
}

/// C, where results are kept: rows of a slice, `stride` values apart.
#[derive(Debug)]
pub struct Rows<'a, T> {
    values: &'a mut [T],
    stride: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Rows that start `stride` values apart; the last may be shorter.
    pub fn new(values: &'a mut [T], stride: usize) -> Self {
        Rows { values, stride }
    }

    /// Refuses products that there is no room for, by a panic.
    pub fn check(&self, rows: usize, columns: usize) {
        let needed = if rows == 0 { 0 } else { (rows - 1) * self.stride + columns };
        let fits = columns <= self.stride && self.values.len() >= needed;
        assert!(fits, "bf16 product: no room for {rows}x{columns} in rows of {}", self.stride);
    }

    /// `width` values of a row, from `column` on.
    #[inline(always)]
    pub fn at(&mut self, row: usize, column: usize, width: usize) -> &mut [T] {
        &mut self.values[row * self.stride + column..][..width]
    }

    /// The rows before `row`, and those from it on.
    pub fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.values.split_at_mut(row * self.stride);
        (Rows::new(first, self.stride), Rows::new(second, self.stride))
    }
}

/// C = the products.
#[derive(Debug, Clone, Copy)]
pub struct Keep;

impl Finish<f32> for Keep {
    fn check(self, _: usize, _: usize) {}

    #[inline(always)]
    fn row(self, _: usize, _: usize, products: &[f32], out: &mut [f32]) {
        out.copy_from_slice(products);
    }
}

/// C = C + the products + a bias, `[n]`, a value a column: the residual.
#[derive(Debug, Clone, Copy)]
pub struct Add<'a>(pub &'a [f32]);

impl Finish<f32> for Add<'_> {
    fn check(self, _: usize, columns: usize) {
        check_bias(self.0, columns);
    }

    #[inline(always)]
    fn row(self, _: usize, column: usize, products: &[f32], out: &mut [f32]) {
        let bias = &self.0[column..][..out.len()];
        for ((out, &product), &bias) in out.iter_mut().zip(products).zip(bias) {
            *out += product + bias;
        }
    }
}

/// C = the products + a bias, `[n]`, a value a column, through an activation where there is one, rounded to bf16.
#[derive(Debug, Clone, Copy)]
pub struct Biased<'a>(pub &'a [f32], pub Option<Activation>);

impl Finish<bf16> for Biased<'_> {
    fn check(self, _: usize, columns: usize) {
        check_bias(self.0, columns);
    }

    #[inline(always)]
    fn row(self, _: usize, column: usize, products: &[f32], out: &mut [bf16]) {
        let bias = &self.0[column..][..out.len()];
        match self.1 {
            None => biased(products, bias, out, std::convert::identity),
            Some(Activation::Gelu) => biased(products, bias, out, gelu),
            Some(Activation::QuickGelu) => biased(products, bias, out, quick_gelu),
        }
    }
}

#[inline(always)]
fn biased(products: &[f32], bias: &[f32], out: &mut [bf16], activate: impl Fn(f32) -> f32) {
    for ((out, &product), &bias) in out.iter_mut().zip(products).zip(bias) {
        *out = rounded(activate(product + bias));
    }
}

fn check_bias(bias: &[f32], columns: usize) {
    assert!(bias.len() == columns, "bf16 product: {columns} columns, a bias of {}", bias.len());
}

/// C = the products times a factor a row, `[m]`, rounded to bf16: softmax by its numerators.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a>(pub &'a [f32]);

impl Finish<bf16> for Scaled<'_> {
    fn check(self, rows: usize, _: usize) {
        assert!(self.0.len() == rows, "bf16 product: {rows} rows, {} factors", self.0.len());
    }

    #[inline(always)]
    fn row(self, row: usize, _: usize, products: &[f32], out: &mut [bf16]) {
        let factor = self.0[row];
        for (out, &product) in out.iter_mut().zip(products) {
            *out = rounded(product * factor);
        }
    }
}
