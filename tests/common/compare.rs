//! What tests compare with, so that no value that is not a number passes anywhere, and what they make their inputs from.
//!
//! Every comparison here fails on NaN, wherever it stands. Do not write `fold(0.0, f64::max)`: that drops NaN.
#![allow(dead_code, reason = "each test takes what it needs of it")]

use safetensors::{Dtype, SafeTensors};

/// Fails unless every |got − expected| is at most `bound` of its index; names the worst value. A NaN on either side, or a
/// bound that is NaN, fails; equal infinities are equal. Returns the largest |got − expected| / bound.
///
/// A value that does not count has the bound infinity: it still has to be a number.
#[track_caller]
pub fn assert_within<G, E>(
    what: &str,
    got: &[G],
    expected: &[E],
    bound: impl Fn(usize) -> f64,
) -> f64
where
    G: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    let mut worst = 0.0f64;
    let mut at_worst = 0;
    for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let (got, expected): (f64, f64) = (got.into(), expected.into());
        let ratio = if got == expected { 0.0 } else { (got - expected).abs() / bound(at) };
        assert!(
            !ratio.is_nan(),
            "{what}: at {at} found {got}, expected {expected}, within {}",
            bound(at)
        );
        if ratio > worst {
            (worst, at_worst) = (ratio, at);
        }
    }
    assert!(
        worst <= 1.0,
        "{what}: at {at_worst} found {}, expected {}, {worst:.3} times the bound {:e}",
        got[at_worst].into(),
        expected[at_worst].into(),
        bound(at_worst)
    );
    worst
}

/// The largest |got − expected|. Fails on NaN.
#[track_caller]
pub fn largest_difference<G, E>(what: &str, got: &[G], expected: &[E]) -> f64
where
    G: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    let mut largest = 0.0f64;
    for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let (got, expected): (f64, f64) = (got.into(), expected.into());
        let difference = if got == expected { 0.0 } else { (got - expected).abs() };
        assert!(!difference.is_nan(), "{what}: at {at} found {got}, expected {expected}");
        largest = largest.max(difference);
    }
    largest
}

/// ‖got − expected‖ / ‖expected‖, 0 where both are zero. Fails on NaN and on infinities.
#[track_caller]
pub fn relative_l2<G, E>(what: &str, got: &[G], expected: &[E]) -> f64
where
    G: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    let (mut error, mut size) = (0.0f64, 0.0f64);
    for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let (got, expected): (f64, f64) = (got.into(), expected.into());
        assert!(
            got.is_finite() && expected.is_finite(),
            "{what}: at {at} found {got}, expected {expected}"
        );
        error += (got - expected) * (got - expected);
        size += expected * expected;
    }
    if error == 0.0 { 0.0 } else { (error / size).sqrt() }
}

/// A tensor of f32 as numbers.
#[track_caller]
pub fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|reason| panic!("tensor `{name}`: {reason}"));
    assert_eq!(tensor.dtype(), Dtype::F32, "tensor `{name}`");
    let (values, _) = tensor.data().as_chunks::<4>();
    values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// A seeded generator of known numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// Uniform in [-1, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// `count` numbers, uniform in [-scale, scale).
    pub fn vec(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.uniform() * scale).collect()
    }
}
