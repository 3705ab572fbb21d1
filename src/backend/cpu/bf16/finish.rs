//! What becomes of products: the epilogues.

use half::bf16;

use super::rounded;
use crate::backend::cpu::elementwise::{gelu, quick_gelu};
use crate::backend::cpu::panels::PANEL;
use crate::model::Activation;

/// Takes products tile by tile.
pub trait Finish: Send + Sized {
    /// Refuses products of a size that there is no room for, by a panic.
    fn check(&self, rows: usize, columns: usize);

    /// Products of some rows from `row` on and `width` columns from `column` on, in the first `width` places of each of `tile`.
    fn take(&mut self, row: usize, column: usize, width: usize, tile: &[[f32; PANEL]]);

    /// What takes the rows before `row`, and what takes those from it on.
    fn split_at(self, row: usize) -> (Self, Self);
}

/// A place for results: rows of a slice, `stride` values apart.
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

    fn check(&self, rows: usize, columns: usize) {
        let needed = if rows == 0 { 0 } else { (rows - 1) * self.stride + columns };
        let fits = columns <= self.stride && self.values.len() >= needed;
        assert!(fits, "bf16 product: no room for {rows}x{columns} in rows of {}", self.stride);
    }

    #[inline(always)]
    fn at(&mut self, row: usize, column: usize, width: usize) -> &mut [T] {
        &mut self.values[row * self.stride + column..][..width]
    }

    fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.values.split_at_mut(row * self.stride);
        (Rows::new(first, self.stride), Rows::new(second, self.stride))
    }
}

/// C = the products, in f32.
#[derive(Debug)]
pub struct Keep<'a>(pub Rows<'a, f32>);

impl Finish for Keep<'_> {
    fn check(&self, rows: usize, columns: usize) {
        self.0.check(rows, columns);
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, width: usize, tile: &[[f32; PANEL]]) {
        for (at, products) in tile.iter().enumerate() {
            self.0.at(row + at, column, width).copy_from_slice(&products[..width]);
        }
    }

    fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.0.split_at(row);
        (Keep(first), Keep(second))
    }
}

/// C = C + the products + a bias a column, in f32: the residual.
#[derive(Debug)]
pub struct Add<'a> {
    /// C.
    pub to: Rows<'a, f32>,
    /// One value a column.
    pub bias: &'a [f32],
}

impl Finish for Add<'_> {
    fn check(&self, rows: usize, columns: usize) {
        self.to.check(rows, columns);
        assert!(self.bias.len() == columns, "bf16 product: {columns} columns, another bias");
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, width: usize, tile: &[[f32; PANEL]]) {
        let bias = &self.bias[column..][..width];
        for (at, products) in tile.iter().enumerate() {
            let out = self.to.at(row + at, column, width);
            for ((out, &product), &bias) in out.iter_mut().zip(products).zip(bias) {
                *out += product + bias;
            }
        }
    }

    fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.to.split_at(row);
        let bias = self.bias;
        (Add { to: first, bias }, Add { to: second, bias })
    }
}

/// C = the products + a bias a column, through an activation where there is one, rounded to bf16.
#[derive(Debug)]
pub struct Biased<'a> {
    /// C.
    pub to: Rows<'a, bf16>,
    /// One value a column.
    pub bias: &'a [f32],
    /// What comes after the bias.
    pub activation: Option<Activation>,
}

impl Biased<'_> {
    #[inline(always)]
    fn each(
        &mut self,
        (row, column, width): (usize, usize, usize),
        tile: &[[f32; PANEL]],
        activate: impl Fn(f32) -> f32,
    ) {
        let bias = &self.bias[column..][..width];
        for (at, products) in tile.iter().enumerate() {
            let out = self.to.at(row + at, column, width);
            for ((out, &product), &bias) in out.iter_mut().zip(products).zip(bias) {
                *out = rounded(activate(product + bias));
            }
        }
    }
}

impl Finish for Biased<'_> {
    fn check(&self, rows: usize, columns: usize) {
        self.to.check(rows, columns);
        assert!(self.bias.len() == columns, "bf16 product: {columns} columns, another bias");
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, width: usize, tile: &[[f32; PANEL]]) {
        let at = (row, column, width);
        match self.activation {
            None => self.each(at, tile, std::convert::identity),
            Some(Activation::Gelu) => self.each(at, tile, gelu),
            Some(Activation::QuickGelu) => self.each(at, tile, quick_gelu),
        }
    }

    fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.to.split_at(row);
        let Biased { bias, activation, .. } = self;
        (Biased { to: first, bias, activation }, Biased { to: second, bias, activation })
    }
}

/// C = the products times a factor a row, rounded to bf16: softmax by its numerators.
#[derive(Debug)]
pub struct Scaled<'a> {
    /// C.
    pub to: Rows<'a, bf16>,
    /// One factor a row.
    pub factors: &'a [f32],
}

impl Finish for Scaled<'_> {
    fn check(&self, rows: usize, columns: usize) {
        self.to.check(rows, columns);
        assert!(self.factors.len() == rows, "bf16 product: {rows} rows, other factors");
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, width: usize, tile: &[[f32; PANEL]]) {
        for (at, (products, &factor)) in tile.iter().zip(&self.factors[row..]).enumerate() {
            let out = self.to.at(row + at, column, width);
            for (out, &product) in out.iter_mut().zip(products) {
                *out = rounded(product * factor);
            }
        }
    }

    fn split_at(self, row: usize) -> (Self, Self) {
        let (first, second) = self.to.split_at(row);
        let (upper, lower) = self.factors.split_at(row);
        (Scaled { to: first, factors: upper }, Scaled { to: second, factors: lower })
    }
}
