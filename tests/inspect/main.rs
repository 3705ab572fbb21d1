//! The job as a library: what goes in, what comes out, on the CPU and on the simulated card, with tiny random weights.
#![cfg(feature = "files")]

mod aspect;
mod banks;
mod batches;
mod blocks;
mod cache;
mod formats;
mod page;
mod parts;
mod references;
mod regions;
#[cfg(feature = "sim")]
mod simulated;
mod subsets;
mod support;
mod tiles;
