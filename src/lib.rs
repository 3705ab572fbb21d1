#![doc = include_str!("../README.md")]
#![deny(missing_docs, missing_debug_implementations)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

#[cfg(feature = "files")]
mod atomic;
pub mod backend;
#[cfg(feature = "files")]
pub mod dataset;
pub mod defects;
mod error;
mod gemm;
mod grid;
pub mod image;
#[cfg(feature = "files")]
pub mod inspect;
pub mod metrics;
pub mod model;
pub mod progress;
mod real;
#[cfg(feature = "files")]
pub mod report;
pub mod scoring;
mod simd;
pub mod tensor_file;

pub use error::{Error, Result};
pub use grid::{Grid, ImageSize};
pub use progress::{Progress, Stage};
pub use real::Real;
