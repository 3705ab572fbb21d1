//! The CUDA driver API on [`ptxsim`]: a `libcuda.so.1` that runs a program's kernels on the CPU, strictly.
//!
//! There is nothing here to call from Rust but what makes calls fail in tests ([`fail`]): the library exports the C functions of the driver API under their own names,
//! and programs find them as they find NVIDIA's. README.md says how, which switches there are, and what a run proves.
#![deny(missing_docs, missing_debug_implementations)]

mod api;
mod code;
mod driver;
pub mod fail;
mod image;
mod memory;
mod options;
mod order;
mod raw;
mod report;
mod work;
