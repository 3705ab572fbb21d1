//! Page-locked host memory: what there is for it, and its first values.

use rayon::prelude::*;

use crate::Error;

/// Bytes that one thread fills at a time.
const PIECE: usize = 16 << 20;

/// The system does not page-lock so many bytes.
pub(super) fn refused(device: &str, need: u64) -> Error {
    let what = "page-locked host memory (a system may lock less than it has)";
    match available() {
        Some(have) => {
            Error::OutOfMemory { device: device.to_string(), what: what.to_string(), need, have }
        }
        None => Error::Device {
            device: device.to_string(),
            reason: format!("no memory for {what}: need {need} bytes"),
        },
    }
}

/// Bytes of host memory that processes can have, where the system tells (Linux).
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Sets bytes to zero, by all threads: a set's tokens are tens of gigabytes, and one thread writes ten a second.
pub(super) fn zero(bytes: &mut [std::mem::MaybeUninit<u8>]) {
    bytes.par_chunks_mut(PIECE).for_each(|piece| {
        piece.fill(std::mem::MaybeUninit::new(0));
    });
}
