//! Operands, and what a sum in f32 may be off by, on any card.

use musc::backend::cuda::Half;

/// Unit roundoff of f32.
pub const U32: f64 = 1.0 / (1u64 << 24) as f64;
/// An f16 below 2^-14 is off by so much.
pub const TINY: f64 = 1.0 / (1u64 << 25) as f64;

/// How many truncations to f32 a product of a sum costs at most. A tensor core aligns b products and what is summed so far to
/// the largest of them, cuts each of the b + 1 terms e bits below the last one of f32, and cuts the sum: ((b + 1)·2^-e + 1) / b
/// a product, in units of the last place. 7.5: b = 4, e = 0 is 1.5; 8.x: 8 and 1 is 0.7; 9.0: 16 and 2 is 0.33 (bit-accurate
/// models of tensor cores, arXiv 2512.07004). Sums to nearest stay below.
const TRUNCATIONS: f64 = 1.5;

/// The most that a sum of `k` products whose magnitudes add up to `magnitude` is off by on tensor cores: a unit in the last place
/// is 2·[`U32`] of the largest partial sum, which is no larger than `magnitude`.
pub fn sum_error(k: usize, magnitude: f64) -> f64 {
    TRUNCATIONS * k as f64 * 2.0 * U32 * magnitude
}

/// Unit roundoff of a format.
pub fn roundoff(half: Half) -> f64 {
    match half {
        Half::F16 => 1.0 / 2048.0,
        _ => 1.0 / 256.0,
    }
}

/// A seeded generator (SplitMix64).
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

    /// Uniform in [-1, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// An integer from -most to most.
    pub fn integer(&mut self, most: i32) -> f32 {
        (self.bits() % (2 * most as u64 + 1)) as f32 - most as f32
    }

    /// `count` numbers in [-scale, scale).
    pub fn vec(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.uniform() * scale).collect()
    }

    /// `count` integers from -most to most.
    pub fn integers(&mut self, count: usize, most: i32) -> Vec<f32> {
        (0..count).map(|_| self.integer(most)).collect()
    }

    /// Rows that look like tokens of a vision transformer: a mean, and two channels forty times as strong as the others.
    pub fn tokens(&mut self, rows: usize, width: usize) -> Vec<f32> {
        let strong = [3, width / 2 + 1];
        (0..rows * width)
            .map(|at| {
                // Three uniform numbers: nearly normal.
                let sum = self.uniform() + self.uniform() + self.uniform();
                sum * if strong.contains(&(at % width)) { 40.0 } else { 1.0 } + 0.2
            })
            .collect()
    }
}

/// Numbers rounded to a format: as bits, and as what they stand for.
pub fn round(half: Half, values: &[f32]) -> (Vec<u16>, Vec<f64>) {
    let bits: Vec<u16> = values.iter().map(|&value| half.bits(value)).collect();
    let values = bits.iter().map(|&bits| f64::from(half.value(bits))).collect();
    (bits, values)
}

/// Σ x·y and Σ |x·y|.
pub fn dot(x: &[f64], y: &[f64]) -> (f64, f64) {
    x.iter().zip(y).fold((0.0, 0.0), |(sum, magnitude), (x, y)| {
        let product = x * y;
        (sum + product, magnitude + product.abs())
    })
}

/// The length of a vector.
pub fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// The error function: its series near zero, the continued fraction of its complement further out.
fn erf(z: f64) -> f64 {
    let root_pi = std::f64::consts::PI.sqrt();
    if z.abs() < 2.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..60 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * 2.0 / root_pi;
    }
    let a = z.abs();
    let tail = (1..200).rev().fold(a, |t, n| a + f64::from(n) / 2.0 / t);
    z.signum() * (1.0 - (-a * a).exp() / (root_pi * tail))
}

/// x·Φ(x).
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// x / (1 + e^(-1.702·x)).
pub fn quick_gelu(x: f64) -> f64 {
    x / (1.0 + (-1.702 * x).exp())
}
