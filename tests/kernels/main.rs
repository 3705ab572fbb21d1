//! Every kernel, as shipped in `kernels/prebuilt/`, run on the simulator with all its checks, against f64.
//!
//! Sizes are awkward on purpose: 1, primes, one short of a tile, a tile, one more. Bounds are derived where they stand.

mod attention;
mod evidence;
mod gemm;
mod interval_mean;
mod mutual;
mod rows;
mod support;
mod table;

/// The parameter structs, as the runtime uses them.
mod params {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/params.rs"));
}
