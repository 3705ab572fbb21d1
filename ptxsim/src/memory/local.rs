//! Memory of single threads: stack frames and arrays that did not fit registers.

use crate::error::Space;
use crate::fault::Fault;
use crate::ir::W;

/// Local memory a thread may have (PTX: 512 KB).
pub(crate) const LIMIT: u64 = 512 * 1024;
/// Frames begin at multiples of this.
const FRAME_ALIGN: u64 = 16;

/// Local memory of a warp: of each lane the entry's frame, and those of the functions it is in.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// Bytes a lane there is room for, and how many of them each lane has.
    room: usize,
    tops: [u32; W],
    data: Vec<u8>,
    written: Vec<bool>,
}

impl Local {
    /// Empty memory of `bytes` a lane.
    pub fn reset(&mut self, bytes: usize) {
        self.room = bytes;
        self.tops = [bytes as u32; W];
        self.data.clear();
        self.data.resize(bytes * W, 0);
        self.written.clear();
        self.written.resize(bytes * W, false);
    }

    /// A frame of so many bytes that nobody has written: where it begins, and where the lane's
    /// memory ended before. `None` when that is more than a thread may have.
    pub fn push(&mut self, lane: usize, bytes: u32) -> Option<(u32, u32)> {
        let before = self.tops[lane];
        let base = u64::from(before).next_multiple_of(FRAME_ALIGN);
        // An activation takes something, whatever it declares.
        let end = base + u64::from(bytes).max(FRAME_ALIGN);
        if end > LIMIT {
            return None;
        }
        if end as usize > self.room {
            self.grow((end as usize).next_power_of_two());
        }
        let at = lane * self.room;
        self.written[at + base as usize..at + end as usize].fill(false);
        self.tops[lane] = end as u32;
        Some((base as u32, before))
    }

    /// Back to where a lane's memory ended.
    pub fn pop(&mut self, lane: usize, top: u32) {
        self.tops[lane] = top;
    }

    fn grow(&mut self, room: usize) {
        let (mut data, mut written) = (vec![0; room * W], vec![false; room * W]);
        for lane in 0..W {
            let n = self.tops[lane] as usize;
            let (from, to) = (lane * self.room, lane * room);
            data[to..to + n].copy_from_slice(&self.data[from..from + n]);
            written[to..to + n].copy_from_slice(&self.written[from..from + n]);
        }
        (self.data, self.written, self.room) = (data, written, room);
    }

    fn range(&self, lane: usize, address: u64, n: u32) -> Result<std::ops::Range<usize>, Fault> {
        let end = address.checked_add(u64::from(n));
        if end.is_none_or(|e| e > u64::from(self.tops[lane])) {
            let near = self.describe(lane);
            return Err(Fault::OutOfBounds { space: Space::Local, address, bytes: n, near });
        }
        let at = lane * self.room + address as usize;
        Ok(at..at + n as usize)
    }

    fn describe(&self, lane: usize) -> String {
        format!("a thread has {} bytes", self.tops[lane])
    }

    pub fn read(&self, lane: usize, address: u64, n: u32, out: &mut [u32; 4]) -> Result<(), Fault> {
        let r = self.range(lane, address, n)?;
        if !self.written[r.clone()].iter().all(|w| *w) {
            let near = self.describe(lane);
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

    /// Copies inside a lane's memory; bytes nobody wrote stay so.
    pub fn copy(&mut self, lane: usize, from: u64, to: u64, n: u32) -> Result<(), Fault> {
        let (from, to) = (self.range(lane, from, n)?, self.range(lane, to, n)?);
        self.data.copy_within(from.clone(), to.start);
        self.written.copy_within(from, to.start);
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
