//! Memory of single threads: stack frames and arrays that did not fit registers.

use crate::error::Space;
use crate::fault::Fault;
use crate::ir::W;

/// Local memory of a warp.
#[derive(Debug, Default)]
pub(crate) struct Local {
    bytes: usize,
    data: Vec<u8>,
    written: Vec<bool>,
}

impl Local {
    /// Empty memory of `bytes` a lane.
    pub fn reset(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.data.clear();
        self.data.resize(bytes * W, 0);
        self.written.clear();
        self.written.resize(bytes * W, false);
    }

    fn range(&self, lane: usize, address: u64, n: u32) -> Result<std::ops::Range<usize>, Fault> {
        let end = address.checked_add(u64::from(n));
        if end.is_none_or(|e| e > self.bytes as u64) {
            let near = format!("a thread has {} bytes", self.bytes);
            return Err(Fault::OutOfBounds { space: Space::Local, address, bytes: n, near });
        }
        let at = lane * self.bytes + address as usize;
        Ok(at..at + n as usize)
    }

    pub fn read(&self, lane: usize, address: u64, n: u32, out: &mut [u32; 4]) -> Result<(), Fault> {
        let r = self.range(lane, address, n)?;
        if !self.written[r.clone()].iter().all(|w| *w) {
            let near = format!("a thread has {} bytes", self.bytes);
            return Err(Fault::Uninitialised { space: Space::Local, address, bytes: n, near });
        }
        *out = super::local::words(&self.data[r]);
        Ok(())
    }

    pub fn write(&mut self, lane: usize, address: u64, n: u32, v: &[u32; 4]) -> Result<(), Fault> {
        let r = self.range(lane, address, n)?;
        self.written[r.clone()].fill(true);
        let mut bytes = [0; 16];
        for (i, w) in v.iter().enumerate() {
            bytes[4 * i..4 * i + 4].copy_from_slice(&w.to_le_bytes());
        }
        self.data[r].copy_from_slice(&bytes[..n as usize]);
        Ok(())
    }
}

/// Up to 16 bytes as little-endian words.
pub(crate) fn words(bytes: &[u8]) -> [u32; 4] {
    let mut out = [0u32; 4];
    for (i, &b) in bytes.iter().take(16).enumerate() {
        out[i / 4] |= u32::from(b) << (8 * (i % 4));
    }
    out
}
