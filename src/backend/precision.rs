//! The number formats that a device is asked for, and those that it computes in.

use std::fmt;
use std::str::FromStr;

use super::cpu::Instructions;
use crate::{Error, Result};

/// The number format of the operands of products; they are added up in f32 in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// The fastest that moves a patch score by at most 2e-4: on a card f16; on the CPU features in f32 and, where the processor
    /// multiplies it, scoring in bf16. Never refused.
    #[default]
    Auto,
    /// Single precision. Of the CPU alone.
    F32,
    /// IEEE half precision, up to 65504. Of cards alone.
    F16,
    /// The upper half of an f32: its range with 8 bits of precision, features and scoring. A card needs compute capability 8.0,
    /// the CPU [`Instructions::Avx512Bf16`].
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 4] =
        [Precision::Auto, Precision::F32, Precision::F16, Precision::Bf16];

    /// The name: `auto`, `f32`, `f16` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }
}

/// The name.
impl fmt::Display for Precision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// From the name.
impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|each| each.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid("precision", format!("`{text}`"), format!("one of {names}"))
        })
    }
}

/// The number formats that a device multiplies in, by name, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Formats {
    /// The format of the backbone's products: `f32`, `f16` or `bf16`.
    pub features: &'static str,
    /// The format of tokens that are compared with each other.
    pub scoring: &'static str,
    /// The processor's vector instructions; `None` on a card.
    pub instructions: Option<Instructions>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        assert_eq!(Precision::ALL.map(Precision::name), ["auto", "f32", "f16", "bf16"]);
        assert_eq!(Precision::default(), Precision::Auto);
        for text in ["", "F16", "f64", "half"] {
            let message = text.parse::<Precision>().unwrap_err().to_string();
            let known = "expected one of auto, f32, f16, bf16";
            assert!(
                message.starts_with("precision: found `") && message.ends_with(known),
                "{message}"
            );
        }
    }
}
