//! The kernels as safe functions on a card's buffers: one file a kernel, the same stem as its `.cu`.
//!
//! A launcher checks what the kernel's header names as its preconditions (shapes against buffer lengths, alignment,
//! divisibility, one card throughout), works out the launch, and gives it to a stream without waiting. The headers in
//! `kernels/` say what is computed. Any crate can call them on buffers of its own
//! ([`Buffer::from_raw`](super::Buffer::from_raw) takes memory of somebody else's).
//!
//! Letters: N images; H × W the patch grid; L = H·W patch tokens an image; T = L + 1 tokens with the class token; C the
//! width of a token. A launch over nothing (no image, no row) does nothing.

pub mod attention;
pub mod gemm;
pub mod gram_pool;
pub mod interval_mean;
pub mod layer_norm;
pub mod lnamd;
pub mod local_distance;
mod pairs;
mod params;
pub mod patch_distance;
pub mod patch_embed;

pub use pairs::{Keys, PairBlock, Side};
pub use params::*;

use bytemuck::Pod;

use super::buffer::{View, ViewMut};
use super::card::Card;
use super::driver::LaunchShape;
use super::stream::Stream;
use crate::{Error, Result};
use std::sync::Arc;

/// Alignment that 16-byte accesses need.
const WIDE: usize = 16;

/// The 16-bit format of tokens, weights and activations on the card. Sums, norms and softmax are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Half {
    /// IEEE half precision: 11 bits, up to 65504.
    #[default]
    F16,
    /// The upper half of an f32: 8 bits, the range of f32. Needs compute capability 8.0.
    Bf16,
}

impl Half {
    /// The ending of entry points.
    pub fn name(self) -> &'static str {
        match self {
            Half::F16 => "f16",
            Half::Bf16 => "bf16",
        }
    }

    /// A number rounded to the format, to nearest, ties to even.
    pub fn bits(self, value: f32) -> u16 {
        match self {
            Half::F16 => half::f16::from_f32(value).to_bits(),
            Half::Bf16 => half::bf16::from_f32(value).to_bits(),
        }
    }

    /// The number of a bit pattern.
    pub fn value(self, bits: u16) -> f32 {
        match self {
            Half::F16 => half::f16::from_bits(bits).to_f32(),
            Half::Bf16 => half::bf16::from_bits(bits).to_f32(),
        }
    }
}

/// The largest cosine of a key (`key_of` in `kernels/common/reduce.cuh`: floats as integers of the same order). NaN for
/// key 0, which stands for "nothing written".
pub fn value_of_key(key: u32) -> f32 {
    f32::from_bits(if key & 0x8000_0000 != 0 { key & 0x7fff_ffff } else { !key })
}

/// A matrix of 16-bit numbers whose rows are `stride` apart.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The numbers, from the first of row 0 on.
    pub values: View<'a, u16>,
    /// Rows.
    pub rows: usize,
    /// From one row to the next, in numbers; a multiple of 8.
    pub stride: usize,
}

/// A launch in the making: gathers checked arguments, then runs.
struct Call<'a> {
    stream: &'a Stream,
    stem: &'static str,
    entry: String,
}

impl<'a> Call<'a> {
    fn new(stream: &'a Stream, stem: &'static str, variant: &str) -> Self {
        Call { stream, stem, entry: format!("{stem}_{variant}") }
    }

    fn of_half(stream: &'a Stream, stem: &'static str, variant: &str, half: Half) -> Self {
        Call { stream, stem, entry: format!("{stem}_{variant}_{}", half.name()) }
    }

    fn refused<T>(&self, what: &str, found: impl std::fmt::Display, expected: &str) -> Result<T> {
        Err(Error::Kernel {
            kernel: self.entry.clone(),
            reason: format!("{what}: found {found}, expected {expected}"),
        })
    }

    /// A condition that the kernel's header names.
    fn require(
        &self,
        holds: bool,
        what: &str,
        found: impl std::fmt::Display,
        expected: &str,
    ) -> Result<()> {
        if holds { Ok(()) } else { self.refused(what, found, expected) }
    }

    /// A number for the kernel's 32-bit field.
    fn count(&self, what: &str, value: usize) -> Result<u32> {
        u32::try_from(value).or_else(|_| self.refused(what, value, "a number below 2^32"))
    }

    /// The address of an argument that the kernel reads `needed` values of, one by one.
    fn input<T: Pod>(&self, what: &str, view: View<'_, T>, needed: usize) -> Result<u64> {
        self.argument(what, view.card, (view.address, view.len), needed, size_of::<T>())
    }

    /// As [`input`](Self::input), 16 bytes at a time.
    fn input_wide<T: Pod>(&self, what: &str, view: View<'_, T>, needed: usize) -> Result<u64> {
        self.argument(what, view.card, (view.address, view.len), needed, WIDE)
    }

    /// The address of an argument that the kernel writes `needed` values of, one by one.
    fn output<T: Pod>(&self, what: &str, view: &ViewMut<'_, T>, needed: usize) -> Result<u64> {
        self.argument(what, view.card, (view.address, view.len), needed, size_of::<T>())
    }

    /// As [`output`](Self::output), 16 bytes at a time.
    fn output_wide<T: Pod>(&self, what: &str, view: &ViewMut<'_, T>, needed: usize) -> Result<u64> {
        self.argument(what, view.card, (view.address, view.len), needed, WIDE)
    }

    fn argument(
        &self,
        what: &str,
        card: &Arc<Card>,
        (address, len): (u64, usize),
        needed: usize,
        alignment: usize,
    ) -> Result<u64> {
        if len < needed {
            return self.refused(what, format!("{len} values"), &format!("at least {needed}"));
        }
        if address % alignment as u64 != 0 {
            let expected = format!("a multiple of {alignment}");
            return self.refused(what, format!("address {address:#x}"), &expected);
        }
        if !Arc::ptr_eq(card, self.stream.card()) {
            let expected =
                format!("memory of {}, the stream's card", self.stream.card().info().label);
            return self.refused(what, format!("memory of {}", card.info().label), &expected);
        }
        Ok(address)
    }

    /// Gives the launch to the stream.
    ///
    /// # Safety
    /// `params` is the kernel's struct, its addresses come from `input` and `output` with the lengths of the header, and
    /// grid, threads and shared memory are the header's.
    unsafe fn launch<P: Pod>(
        &self,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        params: &P,
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let shape = LaunchShape { grid, threads, shared_bytes };
        // SAFETY: the caller's promise.
        unsafe { self.stream.launch(self.stem, &self.entry, shape, params) }
    }
}

/// Degrees as the parameter structs hold them: how many, and each.
fn degree_fields(call: &Call<'_>, degrees: &[usize]) -> Result<(u32, [u32; MAX_DEGREES])> {
    call.require(
        (1..=MAX_DEGREES).contains(&degrees.len()),
        "aggregation degrees of a launch",
        degrees.len(),
        &format!("1 to {MAX_DEGREES}"),
    )?;
    let mut fields = [0; MAX_DEGREES];
    for (field, &degree) in fields.iter_mut().zip(degrees) {
        call.require(
            degree % 2 == 1 && degree <= MAX_DEGREE,
            "aggregation degree r",
            degree,
            &format!("an odd number from 1 to {MAX_DEGREE}"),
        )?;
        *field = degree as u32;
    }
    Ok((degrees.len() as u32, fields))
}
