//! Every kernel, as this build ships it, run on the simulator with all its checks, against f64.
//!
//! Sizes are awkward on purpose: 1, primes, one short of a tile, a tile, one more. Bounds are derived where they stand.
#![cfg(feature = "sim")]

mod attention;
#[path = "../common/compare.rs"]
mod compare;
mod evidence;
mod gemm;
mod interval_mean;
mod local;
#[path = "../common/mma_sums.rs"]
mod mma_sums;
mod mutual;
mod reference;
mod rows;
mod support;
mod table;

/// The parameter structs, and the launchers' constants.
use musc::backend::cuda::launch as params;
