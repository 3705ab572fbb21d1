//! The parameter structs that kernels and host share, made by `bindgen` from `kernels/common/params.h`; and its constants.

#[allow(clippy::pedantic, missing_docs, reason = "generated: see tools/cuda/bindings.sh")]
mod generated {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/params.rs"));
}

pub use generated::*;

/// Largest number of aggregation degrees in one launch.
pub const MAX_DEGREES: usize = 4;
/// Largest aggregation degree.
pub const MAX_DEGREE: usize = 7;
/// Row stride of a Gram block in floats.
pub const GRAM_STRIDE: usize = 8192;
