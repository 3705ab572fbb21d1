//! The C interface of [`musc`]: `include/musc.h` is its documentation, made from the comments here by cbindgen.
//!
//! Names are those of the header, so that both read alike. What C passes in is checked before it is touched (`input`), what goes
//! out has its length checked (`output`), handles are looked up and never dereferenced (`handle`), and no panic leaves a function
//! (`status`).
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]
#![allow(non_camel_case_types, reason = "the names of the header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "include/musc.h says for all functions what is asked of pointers"
)]
#![allow(
    clippy::too_many_arguments,
    reason = "C has no slices: a length stands beside each pointer"
)]

mod bank;
mod batch;
// The one file for everything that has the default weights inside.
#[path = "../../../cli/src/embedded.rs"]
mod embedded;
mod handle;
mod input;
mod inspection;
mod inspector;
mod options;
mod output;
mod predictor;
mod progress;
mod scores;
mod status;
#[cfg(test)]
mod tests;
