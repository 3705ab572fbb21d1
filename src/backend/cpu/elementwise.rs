//! The steps between the matrix products: layer normalisation, bias, activation, softmax.
//!
//! Each runs with the vector instructions that it is given: the loops below are compiled once for each set that `pulp`
//! knows.

use half::bf16;
use pulp::{Arch, Simd, WithSimd};

use super::bf16::{rounded, widened};
use crate::model::Activation;

/// Calls `row` for every row with vectors; `row` must be inlined for that to help.
struct Rows<'a, R> {
    values: &'a mut [f32],
    width: usize,
    row: R,
}

/// What happens to one row.
trait RowStep {
    fn run(&mut self, row: &mut [f32]);
}

impl<R: RowStep> WithSimd for Rows<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        for row in self.values.chunks_exact_mut(self.width) {
            self.row.run(row);
        }
    }
}

fn for_each_row(arch: Arch, values: &mut [f32], width: usize, row: impl RowStep) {
    if width > 0 {
        arch.dispatch(Rows { values, width, row });
    }
}

/// e^x for x in −87..=88, values outside clamped to that; relative error below 3e-7.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5·2²³: adding it rounds to the nearest integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with trailing zeros so that n·LN_2_HIGH is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    // The Taylor series to the seventh power: |r| <= ln(2)/2 leaves a remainder below 1e-8.
    let mut sum = 1.0 / 5040.0;
    sum = r.mul_add(sum, 1.0 / 720.0);
    sum = r.mul_add(sum, 1.0 / 120.0);
    sum = r.mul_add(sum, 1.0 / 24.0);
    sum = r.mul_add(sum, 1.0 / 6.0);
    sum = r.mul_add(sum, 0.5);
    sum = r.mul_add(sum, 1.0);
    sum = r.mul_add(sum, 1.0);
    sum * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// x·Φ(x); the error function by Abramowitz and Stegun 7.1.26, absolute error below 2e-7.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
    let mut sum = 1.061_405_4f32;
    sum = t.mul_add(sum, -1.453_152);
    sum = t.mul_add(sum, 1.421_413_7);
    sum = t.mul_add(sum, -0.284_496_74);
    sum = t.mul_add(sum, 0.254_829_6);
    let tail = sum * t * exp(-z * z);
    // erf(z) = 1 − tail for z >= 0, and erf is odd.
    let one_plus_erf = if x < 0.0 { tail } else { 2.0 - tail };
    0.5 * x * one_plus_erf
}

/// x·σ(1.702·x).
#[inline(always)]
pub fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

/// Adds `bias` to every row.
pub fn add_bias(arch: Arch, values: &mut [f32], bias: &[f32]) {
    struct Step<'a>(&'a [f32]);
    impl RowStep for Step<'_> {
        #[inline(always)]
        fn run(&mut self, row: &mut [f32]) {
            for (value, &bias) in row.iter_mut().zip(self.0) {
                *value += bias;
            }
        }
    }
    for_each_row(arch, values, bias.len(), Step(bias));
}

/// Adds `bias` to every row and applies the activation.
pub fn add_bias_activate(arch: Arch, values: &mut [f32], bias: &[f32], activation: Activation) {
    struct Gelu<'a>(&'a [f32]);
    impl RowStep for Gelu<'_> {
        #[inline(always)]
        fn run(&mut self, row: &mut [f32]) {
            for (value, &bias) in row.iter_mut().zip(self.0) {
                *value = gelu(*value + bias);
            }
        }
    }
    struct QuickGelu<'a>(&'a [f32]);
    impl RowStep for QuickGelu<'_> {
        #[inline(always)]
        fn run(&mut self, row: &mut [f32]) {
            for (value, &bias) in row.iter_mut().zip(self.0) {
                *value = quick_gelu(*value + bias);
            }
        }
    }
    match activation {
        Activation::Gelu => for_each_row(arch, values, bias.len(), Gelu(bias)),
        Activation::QuickGelu => for_each_row(arch, values, bias.len(), QuickGelu(bias)),
    }
}

/// Sums in 16 lanes, which the compiler turns into vectors without reordering what is written.
#[inline(always)]
fn lane_sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += term(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += term(value);
    }
    lanes.iter().sum()
}

/// A layer normalisation's parameters.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub epsilon: f32,
}

/// The mean of a row, and one over its standard deviation (biased): two passes.
#[inline(always)]
fn mean_and_scale(row: &[f32], epsilon: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = lane_sum(
        row,
        #[inline(always)]
        |v| v,
    ) / width;
    let variance = lane_sum(
        row,
        #[inline(always)]
        |v| (v - mean) * (v - mean),
    ) / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// Layer normalisation of every row, in place.
pub fn layer_norm(arch: Arch, values: &mut [f32], norm: &LayerNorm) {
    struct Step<'a>(&'a LayerNorm);
    impl RowStep for Step<'_> {
        #[inline(always)]
        fn run(&mut self, row: &mut [f32]) {
            let (mean, scale) = mean_and_scale(row, self.0.epsilon);
            for ((value, &weight), &bias) in row.iter_mut().zip(&self.0.weight).zip(&self.0.bias) {
                *value = ((*value - mean) * scale).mul_add(weight, bias);
            }
        }
    }
    for_each_row(arch, values, norm.weight.len(), Step(norm));
}

/// The largest value of a row.
#[inline(always)]
fn row_top(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b))
}

/// Replaces every row of `width` values by e^(value − row maximum) and stores 1/(their sum) in `scales`.
pub fn softmax_numerators(arch: Arch, values: &mut [f32], width: usize, scales: &mut [f32]) {
    struct Step<'a>(std::slice::IterMut<'a, f32>);
    impl RowStep for Step<'_> {
        #[inline(always)]
        fn run(&mut self, row: &mut [f32]) {
            let top = row_top(row);
            for value in row.iter_mut() {
                *value = exp(*value - top);
            }
            let sum = lane_sum(row, |v| v);
            if let Some(scale) = self.0.next() {
                *scale = 1.0 / sum;
            }
        }
    }
    for_each_row(arch, values, width, Step(scales.iter_mut()));
}

/// Rows that stay, and rows of bf16 made of them.
struct RowsInto<'a, R> {
    values: &'a [f32],
    stride: usize,
    out: &'a mut [bf16],
    out_stride: usize,
    row: R,
}

/// What is made of one row.
trait RowInto {
    fn run(&mut self, row: &[f32], out: &mut [bf16]);
}

impl<R: RowInto> WithSimd for RowsInto<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let rows = self.values.chunks_exact(self.stride);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.out_stride)) {
            self.row.run(row, out);
        }
    }
}

/// Layer normalisation of every row of `values` `[n, D]`, rounded to bf16.
pub fn layer_norm_rounded(arch: Arch, values: &[f32], norm: &LayerNorm, out: &mut [bf16]) {
    struct Step<'a>(&'a LayerNorm);
    impl RowInto for Step<'_> {
        #[inline(always)]
        fn run(&mut self, row: &[f32], out: &mut [bf16]) {
            let (mean, scale) = mean_and_scale(row, self.0.epsilon);
            let parameters = self.0.weight.iter().zip(&self.0.bias);
            for ((out, &value), (&weight, &bias)) in out.iter_mut().zip(row).zip(parameters) {
                *out = rounded(((value - mean) * scale).mul_add(weight, bias));
            }
        }
    }
    let width = norm.weight.len();
    assert!(values.len() == out.len(), "layer norm sizes");
    arch.dispatch(RowsInto { values, stride: width, out, out_stride: width, row: Step(norm) });
}

/// e^(value − row maximum), rounded to bf16, for the first `width` values of rows `stride` apart; zeros behind them. Stores
/// 1/(the sum of the rounded ones) in `scales`.
pub fn softmax_numerators_rounded(
    arch: Arch,
    (values, stride): (&[f32], usize),
    width: usize,
    (out, out_stride): (&mut [bf16], usize),
    scales: &mut [f32],
) {
    struct Step<'a>(usize, std::slice::IterMut<'a, f32>);
    impl RowInto for Step<'_> {
        #[inline(always)]
        fn run(&mut self, row: &[f32], out: &mut [bf16]) {
            let row = &row[..self.0];
            let (out, behind) = out.split_at_mut(self.0);
            behind.fill(bf16::ZERO);
            let top = row_top(row);
            let mut lanes = [0.0f32; 16];
            let (chunks, rest) = row.as_chunks::<16>();
            let (out_chunks, out_rest) = out.as_chunks_mut::<16>();
            for (chunk, out) in chunks.iter().zip(out_chunks) {
                for ((lane, &value), out) in lanes.iter_mut().zip(chunk).zip(out) {
                    *out = rounded(exp(value - top));
                    *lane += widened(*out);
                }
            }
            for ((lane, &value), out) in lanes.iter_mut().zip(rest).zip(out_rest) {
                *out = rounded(exp(value - top));
                *lane += widened(*out);
            }
            if let Some(scale) = self.1.next() {
                *scale = 1.0 / lanes.iter().sum::<f32>();
            }
        }
    }
    let rows = scales.len();
    assert!(
        values.len() == rows * stride
            && out.len() == rows * out_stride
            && width <= stride.min(out_stride),
        "softmax sizes"
    );
    let row = Step(width, scales.iter_mut());
    arch.dispatch(RowsInto { values, stride, out, out_stride, row });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::testable;

    /// erf by its series and continued fraction in f64, to 1e-15.
    fn erf(x: f64) -> f64 {
        if x < 0.0 {
            return -erf(-x);
        }
        if x > 3.0 {
            let fraction = (1..=60).rev().fold(0.0, |t, k| k as f64 / 2.0 / (x + t));
            return 1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + fraction);
        }
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs().max(1e-300) {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn exp_is_within_its_bound() {
        for step in 0..20_000 {
            let x = -87.0 + step as f32 * (175.0 / 20_000.0);
            let expected = (x as f64).exp();
            assert!(((exp(x) as f64 - expected) / expected).abs() < 3e-7, "exp({x})");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(-1000.0) < 2e-38);
    }

    #[test]
    fn activations_are_within_their_bounds() {
        for step in -4000..=4000 {
            let x = step as f32 / 500.0;
            let wide = x as f64;
            let exact = 0.5 * wide * (1.0 + erf(wide / std::f64::consts::SQRT_2));
            // 2e-7 of erf, times |x|/2, and the rounding of the result.
            let bound = (1e-7 + f32::EPSILON as f64) * wide.abs().max(1.0) + 1e-7;
            assert!((gelu(x) as f64 - exact).abs() < bound, "gelu({x})");
            let exact = wide / (1.0 + (-1.702 * wide).exp());
            // The argument 1.702·x is rounded: |x|·eps enters the exponential.
            let bound = 1e-6 * exact.abs() * wide.abs().max(1.0) + 1e-9;
            assert!((quick_gelu(x) as f64 - exact).abs() < bound, "quick_gelu({x})");
        }
    }

    /// The bounds of `activations_are_within_their_bounds`, with each kind of vectors.
    #[test]
    fn activations_with_each_kind_of_vectors() {
        for arch in testable() {
            for width in [1usize, 7, 16, 33] {
                let bias: Vec<f32> = (0..width).map(|at| at as f32 / 8.0 - 1.0).collect();
                let input: Vec<f32> =
                    (0..5 * width).map(|at| ((at * 7919 % 1000) as f32 - 500.0) / 90.0).collect();
                let of_biased = |apply: fn(f64) -> f64| -> Vec<f64> {
                    let biased = input.iter().zip(bias.iter().cycle());
                    biased.map(|(value, bias)| apply(f64::from(value + bias))).collect()
                };
                let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
                let quick_gelu = |x: f64| x / (1.0 + (-1.702 * x).exp());
                let mut plain = input.clone();
                add_bias(arch, &mut plain, &bias);
                let mut got = [plain, input.clone(), input.clone()];
                add_bias_activate(arch, &mut got[1], &bias, Activation::Gelu);
                add_bias_activate(arch, &mut got[2], &bias, Activation::QuickGelu);
                let expected = [of_biased(|x| x), of_biased(gelu), of_biased(quick_gelu)];
                for (got, &expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                    // Arguments of up to 7, each error at most 1e-6 of them and 1e-6 by itself.
                    let error = (f64::from(*got) - expected).abs();
                    assert!(error <= 1e-6 * (1.0 + expected.abs()), "{arch:?} {width} {error:e}");
                }
            }
        }
    }

    #[test]
    fn rows_on_awkward_widths() {
        testable().into_iter().for_each(rows_on_awkward_widths_with);
    }

    fn rows_on_awkward_widths_with(arch: Arch) {
        for width in [1usize, 2, 15, 16, 17, 64, 257] {
            let rows = 3;
            let input: Vec<f32> =
                (0..rows * width).map(|at| ((at * 7919 % 1000) as f32 - 500.0) / 90.0).collect();
            let norm = LayerNorm {
                weight: (0..width).map(|at| 1.0 + at as f32 / 64.0).collect(),
                bias: (0..width).map(|at| at as f32 / 32.0).collect(),
                epsilon: 1e-5,
            };
            let mut normed = input.clone();
            layer_norm(arch, &mut normed, &norm);
            let (mut soft, mut scales) = (input.clone(), vec![0.0; rows]);
            softmax_numerators(arch, &mut soft, width, &mut scales);
            for row in 0..rows {
                let wide: Vec<f64> =
                    input[row * width..][..width].iter().map(|&v| v as f64).collect();
                let mean = wide.iter().sum::<f64>() / width as f64;
                let variance = wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
                let top = wide.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = wide.iter().map(|v| (v - top).exp()).sum();
                for (at, &value) in wide.iter().enumerate() {
                    let expected = (value - mean) / (variance + 1e-5).sqrt()
                        * norm.weight[at] as f64
                        + norm.bias[at] as f64;
                    let got = normed[row * width + at] as f64;
                    // One value a row: the variance is 0 and its rounding is magnified by 1/sqrt(eps).
                    let bound = if width == 1 { 1e-3 } else { 1e-5 * expected.abs().max(4.0) };
                    assert!((got - expected).abs() < bound, "layer norm, width {width}");
                    let got = (soft[row * width + at] * scales[row]) as f64;
                    let expected = (value - top).exp() / total;
                    assert!((got - expected).abs() < 2e-6 * expected + 1e-12, "softmax, {width}");
                }
            }
        }
    }
}
