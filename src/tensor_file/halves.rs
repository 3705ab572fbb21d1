//! Numbers of 16 bits: half the memory of f32, for tokens that are kept.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Values in one of the two 16-bit formats.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Halves {
    /// Eleven bits of precision, up to 65504.
    F16(Vec<f16>),
    /// Eight bits of precision, the range of f32.
    Bf16(Vec<bf16>),
}

impl Halves {
    /// Rounds values: to f16 where all of them are in its range, else to bf16.
    pub fn round(values: &[f32]) -> Self {
        if values.iter().any(|value| value.abs() > f32::from(f16::MAX)) {
            let mut rounded = vec![bf16::ZERO; values.len()];
            rounded.convert_from_f32_slice(values);
            return Halves::Bf16(rounded);
        }
        let mut rounded = vec![f16::ZERO; values.len()];
        rounded.convert_from_f32_slice(values);
        Halves::F16(rounded)
    }

    /// The same values in half the room, as those of a card's tokens are; nothing where rounding changes one.
    pub(crate) fn same(values: &[f32]) -> Option<Self> {
        Some(Self::round(values)).filter(|halves| halves.to_f32() == *values)
    }

    /// The values.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        match self {
            Halves::F16(halves) => halves.convert_to_f32_slice(&mut values),
            Halves::Bf16(halves) => halves.convert_to_f32_slice(&mut values),
        }
        values
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Halves::F16(halves) => halves.len(),
            Halves::Bf16(halves) => halves.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The format's name: `f16` or `bf16`.
    pub fn format(&self) -> &'static str {
        match self {
            Halves::F16(_) => "f16",
            Halves::Bf16(_) => "bf16",
        }
    }

    /// Where the first value is that is no number, and it.
    pub fn not_finite(&self) -> Option<(usize, f32)> {
        match self {
            Halves::F16(halves) => halves
                .iter()
                .position(|half| !half.is_finite())
                .map(|at| (at, f32::from(halves[at]))),
            Halves::Bf16(halves) => halves
                .iter()
                .position(|half| !half.is_finite())
                .map(|at| (at, f32::from(halves[at]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_f16_make_it_bf16() {
        let small = Halves::round(&[0.1, -65504.0]);
        // 0.1 is 1638.4 · 2^-14: in f16 1638 of them.
        assert_eq!(small.to_f32(), [1638.0 / 16384.0, -65504.0]);
        assert_eq!((small.format(), small.not_finite()), ("f16", None));
        let large = Halves::round(&[0.1, 65536.0]);
        // 0.1 is 204.8 · 2^-11: in bf16 205 of them.
        assert_eq!(large.to_f32(), [205.0 / 2048.0, 65536.0]);
        assert_eq!(large.format(), "bf16");
        let infinite = Halves::F16(vec![f16::ONE, f16::NEG_INFINITY]);
        assert_eq!(infinite.not_finite(), Some((1, f32::NEG_INFINITY)));
    }
}
