//! Calls that fail on purpose, so that a program's own tests can walk every error path it has.
//!
//! `PTXSIM_CUDA_FAIL=N` lets the N-th call of the process fail, `N:CODE` with that result code (999, unknown, else). A test
//! that loads the library finds the same as C functions: [`ptxsim_cuda_fail`], [`ptxsim_cuda_calls`], [`ptxsim_cuda_leaks`].
//! What frees or destroys does its work and returns the code, as a driver does that has an earlier error to tell; every other
//! function does nothing. `cuGetErrorName` and `cuGetErrorString` are no calls here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::code;
use crate::driver::driver_if_made;

/// Calls so far.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// The call that fails; 0 for none.
static AT: AtomicU64 = AtomicU64::new(0);
static CODE: AtomicU32 = AtomicU32::new(0);
static FROM_ENVIRONMENT: OnceLock<()> = OnceLock::new();

/// A call's number and the code it fails with, of `N` or `N:CODE`.
pub(crate) fn parse(text: &str) -> Option<(u64, u32)> {
    let (number, code) = text.split_once(':').unwrap_or((text, "999"));
    let (number, code) = (number.parse().ok()?, code.parse().ok()?);
    (number > 0 && code > 0).then_some((number, code))
}

/// Counts a call. The code it is to fail with, and whether it does its work all the same.
pub(crate) fn due(name: &str) -> Option<(u32, bool)> {
    FROM_ENVIRONMENT.get_or_init(|| {
        // A value that is none is told when the driver is made.
        let set = std::env::var("PTXSIM_CUDA_FAIL").ok();
        if let Some((number, code)) = set.as_deref().and_then(parse) {
            CODE.store(code, Ordering::SeqCst);
            AT.store(number, Ordering::SeqCst);
        }
    });
    if name.starts_with("cuGetError") {
        return None;
    }
    let number = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
    let frees = ["Free", "Destroy", "Release", "Unload", "Unregister"];
    (number == AT.load(Ordering::SeqCst))
        .then(|| (CODE.load(Ordering::SeqCst), frees.iter().any(|part| name.contains(part))))
}

/// Lets the `number`-th call from now on fail with this result code; 0 lets none fail.
#[unsafe(no_mangle)]
pub extern "C" fn ptxsim_cuda_fail(number: u64, result: u32) {
    let result = if result == 0 { code::UNKNOWN.0 } else { result };
    CODE.store(result, Ordering::SeqCst);
    let at = if number == 0 { 0 } else { CALLS.load(Ordering::SeqCst) + number };
    AT.store(at, Ordering::SeqCst);
}

/// The calls of this process so far.
#[unsafe(no_mangle)]
pub extern "C" fn ptxsim_cuda_calls() -> u64 {
    CALLS.load(Ordering::SeqCst)
}

/// Allocations that contexts which have ended left behind.
#[unsafe(no_mangle)]
pub extern "C" fn ptxsim_cuda_leaks() -> u64 {
    driver_if_made().map_or(0, |driver| driver.lock().tally.leaks.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes() {
        assert_eq!(parse("7"), Some((7, 999)));
        assert_eq!(parse("7:2"), Some((7, 2)));
        for wrong in ["", "0", "7:0", "a", "7:", "-1", "7:x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
