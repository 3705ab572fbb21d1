//! Products of bf16 against f64: the operands are rounded first, as exactly as the definition says, and what is left is the
//! error of sums in f32.

use half::bf16;
use pulp::Arch;

use super::attention::{Scratch, attention};
use super::finish::{Add, Biased, Finish, Keep, Rows, Scaled};
use super::panels::{Panels, extent, fill_panel_of_rows};
use super::product::product;
use super::{rounded, widened};
use crate::backend::cpu::aligned::Aligned;
use crate::backend::cpu::attention::HEAD;
use crate::backend::cpu::elementwise::{
    LayerNorm, layer_norm, layer_norm_rounded, softmax_numerators_rounded,
};
use crate::gemm::Shape;
use crate::model::Activation;
use crate::simd::{Bf16, testable, testable_bf16};

/// 2⁻⁸: half a step of bf16, over the number.
const HALF_STEP: f64 = 1.0 / 256.0;

const EPSILON: f64 = f32::EPSILON as f64;

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state >> 8) / f64::from(1 << 23) - 1.0) as f32
    };
    (0..count).map(|_| next()).collect()
}

fn wide(value: bf16) -> f64 {
    f64::from(widened(value))
}

#[test]
fn rounds_as_the_definition() {
    let mut state = 1u32;
    let check = |bits: u32| {
        let value = f32::from_bits(bits);
        let (found, expected) = (rounded(value), bf16::from_f32(value));
        assert!(
            found.to_bits() == expected.to_bits() || found.is_nan() && value.is_nan(),
            "{value:e}: {found} in place of {expected}"
        );
    };
    for bits in [0, 1, 0x7fff, 0x8000, 0x8001, 0x7f7f_ffff, 0x7f80_0000, 0x7f80_0001, !0] {
        check(bits);
        check(bits ^ 0x8000_0000);
    }
    for _ in 0..200_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        check(state);
        // Halfway between two.
        check(state & 0xffff_0000 | 0x8000);
        let value = bf16::from_bits(state as u16);
        assert!(widened(value).to_bits() == value.to_f32().to_bits() || value.is_nan());
    }
}

/// A `[m, k]`, B `[k, n]`, and A·B in f64 with Σ|a·b|, which bounds the error of its sums.
struct Case {
    size: (usize, usize, usize),
    stride: usize,
    a: Vec<bf16>,
    b: Panels,
    exact: Vec<(f64, f64)>,
}

impl Case {
    fn new((m, n, k): (usize, usize, usize)) -> Self {
        let even = k.next_multiple_of(2);
        // A gap behind each row, of numbers that are no part of it.
        let stride = even + 4;
        let mut a: Vec<bf16> = values(m * stride, 1).into_iter().map(rounded).collect();
        a.chunks_exact_mut(stride).for_each(|row| row[k..even].fill(bf16::ZERO));
        let weights = values(n * k, 2);
        let mut exact = Vec::new();
        for row in a.chunks_exact(stride) {
            for weights in weights.chunks_exact(k) {
                let terms = row.iter().zip(weights).map(|(&a, &b)| wide(a) * wide(rounded(b)));
                exact.push(terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs())));
            }
        }
        Case { size: (m, n, k), stride, a, b: Panels::of_weights(&weights, n), exact }
    }

    fn run<T: Send>(&self, proof: Bf16, to: (Rows<'_, T>, impl Finish<T>), threads: usize) {
        let (rows, ..) = self.size;
        let shape = Shape::strided(rows, self.b.depth, self.stride);
        let right = (&self.b.values[..], self.b.depth, self.b.columns);
        product(proof, (&self.a, shape), right, to, threads);
    }

    /// Each of k terms is rounded a few times in f32.
    fn bound(&self, size: f64) -> f64 {
        (self.size.2 + 2) as f64 * EPSILON * size
    }
}

const SIZES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 1, 2),
    (5, 3, 7),
    (6, 16, 8),
    (7, 17, 9),
    (6, 33, 10),
    (13, 48, 3),
    (12, 49, 64),
    (11, 63, 65),
    (8, 64, 31),
    (257, 65, 128),
    (31, 257, 384),
];

#[test]
fn products_on_awkward_sizes() {
    let Some(proof) = testable_bf16() else { return };
    for size in SIZES {
        let (case, (m, n, _)) = (Case::new(size), size);
        let (stride, before) = (n + 3, values(m * (n + 3), 3));
        for threads in [1, 3] {
            let mut c = before.clone();
            case.run(proof, (Rows::new(&mut c, stride), Keep), threads);
            for (at, (&found, &before)) in c.iter().zip(&before).enumerate() {
                let (row, column) = (at / stride, at % stride);
                if column >= n {
                    assert!(found == before, "{size:?}: wrote outside the matrix");
                    continue;
                }
                let (exact, terms) = case.exact[row * n + column];
                let error = (f64::from(found) - exact).abs();
                assert!(error <= case.bound(terms), "{size:?} {row} {column}: {error:e}");
            }
        }
    }
}

/// An accumulator of another depth would show in the largest sums; numbers beyond f16 must not overflow.
#[test]
fn products_of_large_and_of_cancelling_numbers() {
    let Some(proof) = testable_bf16() else { return };
    let (m, k) = (7, 512);
    let mut a = vec![bf16::from_f32(1e9); m * k];
    a.iter_mut().skip(1).step_by(2).for_each(|value| *value = bf16::from_f32(-1e9));
    a[0] = bf16::from_f32(3e9);
    let weights = vec![1e6f32; k];
    let b = Panels::of_weights(&weights, 1);
    let mut c = vec![0.0f32; m];
    product(proof, (&a, Shape::dense(m, k)), (&b.values, k, 1), (Rows::new(&mut c, 1), Keep), 1);
    let step = wide(rounded(1e6)) * (wide(rounded(3e9)) - wide(rounded(1e9)));
    assert!((f64::from(c[0]) - step).abs() <= 1e-5 * step, "{} {step}", c[0]);
    assert_eq!(c[1..], [0.0; 6]);
}

#[test]
fn epilogues_on_awkward_sizes() {
    let Some(proof) = testable_bf16() else { return };
    for size in SIZES {
        let (case, (m, n, _)) = (Case::new(size), size);
        let (bias, before, factors) = (values(n, 4), values(m * n, 5), values(m, 6));
        for threads in [1, 2] {
            let mut added = before.clone();
            case.run(proof, (Rows::new(&mut added, n), Add(&bias)), threads);
            let activations = [None, Some(Activation::Gelu), Some(Activation::QuickGelu)];
            let biased = activations.map(|activation| {
                let mut out = vec![bf16::ZERO; m * n];
                let to = Rows::new(&mut out, n);
                case.run(proof, (to, Biased(&bias, activation)), threads);
                out
            });
            let mut scaled = vec![bf16::ZERO; m * n];
            let to = Rows::new(&mut scaled, n);
            case.run(proof, (to, Scaled(&factors)), threads);
            for (at, &(exact, terms)) in case.exact.iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let bound = case.bound(terms) + 4.0 * EPSILON * (1.0 + exact.abs());
                let sum = exact + f64::from(bias[column]);
                let error = (f64::from(added[at]) - sum - f64::from(before[at])).abs();
                assert!(error <= bound, "add {size:?} {at}: {error:e}");
                let of_sigmoid = sum / (1.0 + (-1.702 * sum).exp());
                let of_normal = 0.5 * sum * (1.0 + erf(sum / std::f64::consts::SQRT_2));
                for (found, expected) in biased.iter().zip([sum, of_normal, of_sigmoid]) {
                    // The slopes of the activations are below 1.2; they have errors of 1e-6 of their own.
                    let bound = 1.2 * bound + 1e-6 * (1.0 + sum.abs()) + HALF_STEP * expected.abs();
                    let error = (wide(found[at]) - expected).abs();
                    assert!(error <= 1.01 * bound, "biased {size:?} {at}: {error:e} {bound:e}");
                }
                let expected = exact * f64::from(factors[row]);
                let error = (wide(scaled[at]) - expected).abs();
                assert!(
                    error <= 1.01 * (bound + HALF_STEP * expected.abs()),
                    "scaled {size:?} {at}"
                );
            }
        }
    }
}

/// The error function by its series, for arguments up to about 5.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    if x.abs() > 5.0 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() }
}

#[test]
#[should_panic(expected = "no room for 3x5")]
fn results_without_room_are_refused() {
    let Some(proof) = testable_bf16() else { panic!("no room for 3x5: not tested") };
    let case = Case::new((3, 5, 4));
    case.run(proof, (Rows::new(&mut [0.0; 14], 5), Keep), 1);
}

#[test]
#[should_panic(expected = "bf16 product")]
fn operands_that_are_too_short_are_refused() {
    let Some(proof) = testable_bf16() else { panic!("bf16 product: not tested") };
    let (a, b, mut c) = ([bf16::ZERO; 8], [bf16::ZERO; 128], [0.0; 4]);
    product(proof, (&a, Shape::dense(2, 4)), (&b, 4, 2), (Rows::new(&mut c, 2), Keep), 1);
}

#[test]
fn a_panel_of_rows_has_them_side_by_side() {
    for count in [1usize, 2, 5] {
        let rows: Vec<bf16> = values(count * 70, 7).into_iter().map(rounded).collect();
        let even = count.next_multiple_of(2);
        let mut panel = vec![bf16::from_f32(9.0); extent(even, HEAD)];
        fill_panel_of_rows(&rows, count, 70, &mut panel);
        for (at, &found) in panel.iter().enumerate() {
            let (pair, column, second) = (at / 128, at / 2 % 64, at % 2);
            let row = 2 * pair + second;
            let expected = if row < count { rows[row * 70 + column] } else { bf16::ZERO };
            assert!(found == expected, "{count} {at}");
        }
    }
}

#[test]
fn attention_equals_the_definition() {
    let Some(proof) = testable_bf16() else { return };
    let arch = Arch::new();
    for (tokens, heads, threads) in
        [(1, 1, 1), (2, 3, 2), (17, 2, 1), (257, 1, 3), (1025, 1, 1), (1370, 1, 1)]
    {
        let width = heads * HEAD;
        let mut qkv = Aligned::<bf16>::zeros(3 * tokens * width);
        let drawn = values(qkv.len(), 8);
        qkv.iter_mut().zip(drawn).for_each(|(value, drawn)| *value = rounded(drawn));
        let mut out = vec![bf16::ZERO; tokens * width];
        let mut by_head = out.clone();
        let mut scratch: Vec<Scratch> = (0..threads).map(|_| Scratch::new(arch, tokens)).collect();
        // Twice: nothing of the first stays in the memory that is used again.
        for _ in 0..2 {
            attention(proof, &qkv, (tokens, heads), &mut by_head, &mut out, &mut scratch);
        }
        let at = |token: usize, part: usize, channel: usize| {
            wide(qkv[token * 3 * width + part * width + channel])
        };
        for token in [0, tokens / 2, tokens - 1] {
            for head in 0..heads {
                let channels = head * HEAD..(head + 1) * HEAD;
                let scores: Vec<f64> = (0..tokens)
                    .map(|key| channels.clone().map(|c| at(token, 0, c) * at(key, 1, c)).sum())
                    .collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let total: f64 = weights.iter().sum();
                for channel in channels {
                    let terms =
                        || (0..tokens).map(|key| (weights[key] / total, at(key, 2, channel)));
                    let expected: f64 = terms().map(|(weight, value)| weight * value).sum();
                    let size: f64 = terms().map(|(weight, value)| weight * value.abs()).sum();
                    let got = wide(out[token * width + channel]);
                    // Each weight is rounded to bf16, and their sum of rounded ones; then the result. Scores up to 64 carry
                    // 64·eps into the exponential.
                    let of_weights = 2.0 * HALF_STEP + 64.0 * 66.0 * EPSILON;
                    let bound = of_weights * size + HALF_STEP * expected.abs();
                    assert!((got - expected).abs() <= 1.02 * bound, "{tokens}: {got} {expected}");
                }
            }
        }
    }
}

#[test]
fn rounded_rows_are_the_rows_rounded() {
    for arch in testable() {
        for width in [1usize, 2, 15, 16, 17, 64, 257] {
            let rows = 3;
            let input: Vec<f32> = values(rows * width, 9).iter().map(|v| 5.0 * v).collect();
            let norm =
                LayerNorm { weight: values(width, 10), bias: values(width, 11), epsilon: 1e-5 };
            let (mut exact, mut found) = (input.clone(), vec![bf16::ZERO; rows * width]);
            layer_norm(arch, &mut exact, &norm);
            layer_norm_rounded(arch, &input, &norm, &mut found);
            let expected: Vec<bf16> = exact.into_iter().map(rounded).collect();
            assert_eq!(found, expected, "{arch:?} {width}");

            let (stride, even) = (width + 5, width.next_multiple_of(2));
            let mut scores = vec![f32::NAN; rows * stride];
            for (scores, input) in scores.chunks_exact_mut(stride).zip(input.chunks_exact(width)) {
                scores[..width].copy_from_slice(input);
            }
            let mut out = vec![bf16::from_f32(7.0); rows * even];
            let mut scales = vec![0.0; rows];
            softmax_numerators_rounded(
                arch,
                (&scores, stride),
                width,
                (&mut out, even),
                &mut scales,
            );
            for (row, input) in input.chunks_exact(width).enumerate() {
                let top = input.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let out = &out[row * even..][..even];
                for (&out, &value) in out.iter().zip(input) {
                    let expected = f64::from(value - top).exp();
                    let error = (wide(out) - expected).abs();
                    assert!(error <= 1.001 * HALF_STEP * expected, "{arch:?} {width}");
                }
                assert!(out[width..].iter().all(|&value| value == bf16::ZERO));
                let sum: f64 = out.iter().map(|&value| wide(value)).sum();
                let error = (f64::from(scales[row]) * sum - 1.0).abs();
                assert!(error <= 20.0 * EPSILON, "{arch:?} {width}: {error:e}");
            }
        }
    }
}
