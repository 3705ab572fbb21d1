#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod backend;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "files")]
pub mod dataset;
mod error;
pub mod image;
pub mod metrics;
pub mod model;
mod real;
#[cfg(feature = "files")]
pub mod report;
pub mod scoring;

pub use error::{Error, Result};
pub use real::Real;
