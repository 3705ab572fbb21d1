//! The one place that says with which vector instructions the processor computes.
//!
//! What is written with vectors is compiled once for each instruction set that `pulp` knows; which one runs is chosen here:
//! once for a [`Cpu`](crate::backend::cpu::Cpu), and once for the process where there is none (resizing of images). The
//! products in f32 choose for themselves, inside the `gemm` crate; those in bf16 are `backend/cpu/bf16`.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use pulp::Arch;

use crate::{Error, Result};

/// The environment variable that forces the vector instructions.
const VARIABLE: &str = "MUSC_CPU";

/// Vector instructions of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Instructions {
    /// None: one value at a time.
    Scalar,
    /// x86-64 with AVX2 and FMA: 8 values at a time.
    Avx2,
    /// x86-64 with AVX-512: 16 values at a time.
    Avx512,
    /// The same, and products of bf16 (AVX512-BF16: Zen 4, Cooper Lake and Sapphire Rapids, and later).
    Avx512Bf16,
    /// 64-bit ARM: 4 values at a time.
    Neon,
}

impl Instructions {
    /// All of them, narrow ones first.
    pub const ALL: [Instructions; 5] = [
        Instructions::Scalar,
        Instructions::Neon,
        Instructions::Avx2,
        Instructions::Avx512,
        Instructions::Avx512Bf16,
    ];

    /// The name: `scalar`, `avx2`, `avx512`, `avx512-bf16` or `neon`.
    pub fn name(self) -> &'static str {
        match self {
            Instructions::Scalar => "scalar",
            Instructions::Avx2 => "avx2",
            Instructions::Avx512 => "avx512",
            Instructions::Avx512Bf16 => "avx512-bf16",
            Instructions::Neon => "neon",
        }
    }

    /// Whether this processor has them.
    pub fn available(self) -> bool {
        self.arch().is_some()
    }

    /// What `pulp` calls them; `None` where the processor lacks them.
    fn arch(self) -> Option<Arch> {
        match self {
            Instructions::Scalar => Some(Arch::Scalar),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Instructions::Avx2 => pulp::x86::V3::try_new().map(Arch::V3),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Instructions::Avx512 => pulp::x86::V4::try_new().map(Arch::V4),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => {
                Bf16::try_new().and_then(|_| pulp::x86::V4::try_new()).map(Arch::V4)
            }
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => pulp::aarch64::Neon::try_new().map(Arch::Neon),
            _ => None,
        }
    }

    /// Whether they multiply bf16.
    pub fn multiply_bf16(self) -> bool {
        self == Instructions::Avx512Bf16
    }

    /// The widest that this processor has.
    pub fn widest() -> Self {
        let widest = Self::ALL.into_iter().rfind(|each| each.available());
        widest.unwrap_or(Instructions::Scalar)
    }
}

/// The name.
impl fmt::Display for Instructions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// From the name.
impl FromStr for Instructions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|each| each.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid("vector instructions", format!("`{text}`"), format!("one of {names}"))
        })
    }
}

/// Proof that the processor multiplies bf16: AVX-512 (F, BW, VL) and AVX512-BF16. There is one only where it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bf16(
    #[cfg(target_arch = "x86_64")] (),
    #[cfg(not(target_arch = "x86_64"))] std::convert::Infallible,
);

impl Bf16 {
    /// Proof, where this processor has them.
    pub fn try_new() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let here = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bf16");
            here.then_some(Bf16(()))
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// There is none here.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn never(self) -> ! {
        match self.0 {}
    }
}

/// How products are done on the processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// The vectors of everything but products.
    pub arch: Arch,
    /// Products of bf16; in f32 where there is none.
    pub bf16: Option<Bf16>,
}

/// Vector instructions that this processor has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen {
    instructions: Instructions,
    arch: Arch,
}

impl Chosen {
    /// These.
    ///
    /// # Errors
    /// [`Error::Device`] when the processor lacks them.
    pub fn new(instructions: Instructions) -> Result<Self> {
        match instructions.arch() {
            Some(arch) => Ok(Chosen { instructions, arch }),
            None => Err(Error::Device {
                device: "cpu".into(),
                reason: format!(
                    "found no {instructions} instructions, expected them: the widest here are {}",
                    Instructions::widest()
                ),
            }),
        }
    }

    /// Those that the environment variable names, the widest where it is not set.
    ///
    /// # Errors
    /// A name that is none, or instructions that the processor lacks.
    pub fn of_environment() -> Result<Self> {
        match std::env::var_os(VARIABLE) {
            None => Self::new(Instructions::widest()),
            Some(name) => Self::of_variable(&name.to_string_lossy()),
        }
    }

    fn of_variable(name: &str) -> Result<Self> {
        let instructions = name.parse().map_err(|error| match error {
            Error::Invalid { found, expected, .. } => {
                Error::Invalid { what: format!("environment variable {VARIABLE}"), found, expected }
            }
            other => other,
        })?;
        Self::new(instructions)
    }

    /// Which they are.
    pub fn instructions(self) -> Instructions {
        self.instructions
    }

    /// What runs an operation with them.
    pub fn arch(self) -> Arch {
        self.arch
    }

    /// What multiplies bf16 with them; `None` where they do not.
    pub fn bf16(self) -> Option<Bf16> {
        if self.instructions.multiply_bf16() { Bf16::try_new() } else { None }
    }
}

/// Where there is no [`Chosen`]: those that the environment variable names, the widest where it names none that are there (a
/// [`Cpu`](crate::backend::cpu::Cpu) refuses such a name).
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| Chosen::of_environment().map_or_else(|_| Arch::new(), Chosen::arch))
}

/// The instructions that this machine can be tested with; those it lacks are named, and how many they are.
#[cfg(test)]
pub(crate) fn testable() -> Vec<Arch> {
    let (here, lacking): (Vec<_>, Vec<_>) =
        Instructions::ALL.into_iter().partition(|each| each.available());
    println!("not on this machine, not tested: {} {lacking:?}", lacking.len());
    // Products of bf16 are tested where they are; the rest of these instructions are those of AVX-512.
    let others = here.into_iter().filter(|each| *each != Instructions::Avx512Bf16);
    others.filter_map(Instructions::arch).collect()
}

/// What multiplies bf16, where this machine can be tested with it; else that is said.
#[cfg(test)]
pub(crate) fn testable_bf16() -> Option<Bf16> {
    let proof = Bf16::try_new();
    if proof.is_none() {
        println!("not on this machine, not tested: {}", Instructions::Avx512Bf16);
    }
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for each in Instructions::ALL {
            assert_eq!(each.to_string().parse::<Instructions>().unwrap(), each);
        }
        for wrong in ["", "AVX2", "avx", "sse4"] {
            let said = Chosen::of_variable(wrong).unwrap_err().to_string();
            assert!(said.contains("MUSC_CPU") && said.contains("avx512"), "{said}");
        }
    }

    #[test]
    fn instructions_that_are_not_there_are_refused() {
        assert!(Instructions::Scalar.available() && !testable().is_empty());
        for each in Instructions::ALL {
            match Chosen::of_variable(each.name()) {
                Ok(chosen) => assert!(each.available() && chosen.instructions() == each),
                Err(error) => {
                    assert!(!each.available());
                    assert!(error.to_string().contains(each.name()), "{error}");
                }
            }
        }
    }

    /// An operation really runs with the width that was asked for.
    #[test]
    fn the_width_is_the_one_asked_for() {
        struct Lanes;
        impl pulp::WithSimd for Lanes {
            type Output = usize;
            fn with_simd<S: pulp::Simd>(self, _: S) -> usize {
                S::F32_LANES
            }
        }
        for each in Instructions::ALL.into_iter().filter(|each| each.available()) {
            let lanes = Chosen::new(each).unwrap().arch().dispatch(Lanes);
            let expected = match each {
                Instructions::Scalar => 1,
                Instructions::Neon => 4,
                Instructions::Avx2 => 8,
                Instructions::Avx512 | Instructions::Avx512Bf16 => 16,
            };
            assert_eq!(lanes, expected, "{each}");
        }
    }
}
