//! The parameter structs that kernels and host share, made by `bindgen` from `kernels/common/params.h`; and its constants.

#[allow(clippy::pedantic, missing_docs, reason = "generated: see tools/cuda/bindings.sh")]
mod generated {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/params.rs"));
}

pub use generated::*;

/// Largest number of aggregation degrees in one launch.
pub const MAX_DEGREES: usize = MUSC_MAX_DEGREES as usize;
/// Largest aggregation degree.
pub const MAX_DEGREE: usize = MUSC_MAX_DEGREE as usize;
/// The longest side of a grid whose tokens are scored.
pub const MAX_SIDE: usize = MUSC_MAX_SIDE as usize;
/// Row stride of a Gram block in floats.
pub const GRAM_STRIDE: usize = MUSC_GRAM_STRIDE as usize;
/// The largest L: one image's patches are a row of the Gram block.
pub const MAX_PATCHES: usize = GRAM_STRIDE;
