//! The shadow of global memory: for each 4-byte word, which bytes were ever written, and which
//! blocks wrote and read them in the current launch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::error::Hazard;

const EPOCH: u32 = 4;
const WRITER: u32 = 12;
const READER: u32 = 34;
const WMASK: u32 = 56;
const RMASK: u32 = 60;
const ID: u64 = (1 << 21) - 1;
/// The writer wrote by atomics.
const ATOMIC: u64 = 1 << (WRITER + 21);
/// The word's blocks are kept byte by byte in the side table.
const SPLIT: u64 = 1 << (READER + 21);
/// More than one block.
const MANY: u64 = ID;

/// Launches that fit the epoch field before all tags must be cleared.
pub(crate) const EPOCHS: u32 = 255;

/// A block of the current launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    id: u64,
    epoch: u64,
}

impl Who {
    /// Blocks are told apart modulo 2²¹ − 2.
    pub fn new(block: u64, epoch: u32) -> Who {
        Who { id: block % (ID - 1) + 1, epoch: u64::from(epoch) }
    }
}

/// How an access is ordered against other blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// Atomics, volatile and relaxed accesses.
    Strong,
}

/// Two blocks met.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conflict {
    pub hazard: Hazard,
    /// Linear block index, when it is one.
    pub other: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct ByteTag {
    writer: u64,
    atomic: bool,
    reader: u64,
}

/// Words whose bytes belong to different blocks.
#[derive(Debug, Default)]
pub(crate) struct Splits {
    table: Mutex<HashMap<(u64, usize), [ByteTag; 4]>>,
}

impl Splits {
    pub fn clear(&self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn conflict(hazard: Hazard, id: u64) -> Conflict {
    Conflict { hazard, other: (id != MANY && id != 0).then(|| (id - 1) as u32) }
}

/// The shadow of one allocation.
#[derive(Debug)]
pub(crate) struct Tags {
    /// The allocation's base address, its key in the side table.
    base: u64,
    tags: Box<[AtomicU64]>,
}

/// Bytes of the word that were ever written.
#[inline(always)]
pub(crate) fn written(tag: u64) -> u32 {
    (tag & 15) as u32
}

impl Tags {
    /// `None` when the host has not the memory.
    pub fn new(base: u64, words: usize) -> Option<Tags> {
        Some(Tags { base, tags: bytemuck::try_zeroed_slice_box(words).ok()? })
    }

    #[inline(always)]
    pub fn get(&self, word: usize) -> u64 {
        self.tags[word].load(Relaxed)
    }

    /// Forgets all launches, keeps what was written.
    pub fn forget_launches(&self) {
        for t in &self.tags {
            t.store(t.load(Relaxed) & 15, Relaxed);
        }
    }

    /// The host wrote these bytes.
    pub fn host_write(&self, word: usize, mask: u32) {
        let mask = u64::from(mask);
        if self.tags[word].load(Relaxed) & mask != mask {
            self.tags[word].fetch_or(mask, Relaxed);
        }
    }

    /// A block reads; the caller has looked at the written bytes in `tag`.
    #[inline(always)]
    pub fn read(
        &self,
        splits: &Splits,
        word: usize,
        mask: u32,
        who: Who,
        kind: Kind,
        mut tag: u64,
    ) -> Result<(), Conflict> {
        let m = u64::from(mask);
        loop {
            let fresh = (tag >> EPOCH) & 255 != who.epoch;
            let new = if fresh {
                (tag & 15) | who.epoch << EPOCH | who.id << READER | m << RMASK
            } else if tag & SPLIT != 0 {
                return self.split(splits, word, mask, who, kind, Access::Read);
            } else {
                let (wmask, rmask) = ((tag >> WMASK) & 15, (tag >> RMASK) & 15);
                let writer = (tag >> WRITER) & ID;
                if wmask & m != 0
                    && writer != who.id
                    && !(kind == Kind::Strong && tag & ATOMIC != 0)
                {
                    return Err(conflict(Hazard::ReadAfterWrite, writer));
                }
                let reader = (tag >> READER) & ID;
                if (reader == who.id || reader == MANY) && rmask & m == m {
                    return Ok(());
                }
                if reader == 0 || reader == who.id {
                    (tag & !(ID << READER)) | who.id << READER | m << RMASK
                } else if rmask == m {
                    tag | MANY << READER
                } else {
                    return self.split(splits, word, mask, who, kind, Access::Read);
                }
            };
            if kind == Kind::Strong {
                // A strong read may meet strong writes of other blocks: it is not recorded.
                return Ok(());
            }
            match self.tags[word].compare_exchange_weak(tag, new, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => tag = now,
            }
        }
    }

    /// A block writes, or reads and writes by an atomic.
    #[inline(always)]
    pub fn write(
        &self,
        splits: &Splits,
        word: usize,
        mask: u32,
        who: Who,
        kind: Kind,
    ) -> Result<(), Conflict> {
        let m = u64::from(mask);
        let mut tag = self.get(word);
        let flag = if kind == Kind::Strong { ATOMIC } else { 0 };
        loop {
            let fresh = (tag >> EPOCH) & 255 != who.epoch;
            let new = if fresh {
                (tag & 15) | who.epoch << EPOCH | who.id << WRITER | m << WMASK | flag
            } else if tag & SPLIT != 0 {
                return self.split(splits, word, mask, who, kind, Access::Write);
            } else {
                let (wmask, rmask) = ((tag >> WMASK) & 15, (tag >> RMASK) & 15);
                let (writer, reader) = ((tag >> WRITER) & ID, (tag >> READER) & ID);
                let both_strong = kind == Kind::Strong && tag & ATOMIC != 0;
                if wmask & m != 0 && writer != who.id && !both_strong {
                    return Err(conflict(Hazard::WriteAfterWrite, writer));
                }
                if rmask & m != 0 && reader != who.id {
                    return Err(conflict(Hazard::WriteAfterRead, reader));
                }
                let id = if wmask == 0 || writer == who.id {
                    who.id
                } else if both_strong && wmask == m {
                    MANY
                } else {
                    return self.split(splits, word, mask, who, kind, Access::Write);
                };
                (tag & !(ID << WRITER | ATOMIC)) | id << WRITER | m << WMASK | flag
            };
            if new | m == tag {
                return Ok(());
            }
            match self.tags[word].compare_exchange_weak(tag, new | m, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => tag = now,
            }
        }
    }

    /// The slow way: bytes of one word belong to different blocks.
    #[cold]
    fn split(
        &self,
        splits: &Splits,
        word: usize,
        mask: u32,
        who: Who,
        kind: Kind,
        access: Access,
    ) -> Result<(), Conflict> {
        let mut table = splits.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever sets the flag under the lock moves the word's state to the table.
        let old = self.tags[word].fetch_or(SPLIT, Relaxed);
        let bytes = table.entry((self.base, word)).or_default();
        if old & SPLIT == 0 {
            for (i, b) in bytes.iter_mut().enumerate() {
                let bit = |shift: u32| (old >> (shift + i as u32)) & 1 != 0;
                *b = ByteTag {
                    writer: if bit(WMASK) { (old >> WRITER) & ID } else { 0 },
                    atomic: old & ATOMIC != 0,
                    reader: if bit(RMASK) { (old >> READER) & ID } else { 0 },
                };
            }
        }
        if access == Access::Write {
            self.tags[word].fetch_or(u64::from(mask), Relaxed);
        }
        let strong = kind == Kind::Strong;
        for (i, b) in bytes.iter_mut().enumerate() {
            if mask >> i & 1 == 0 {
                continue;
            }
            let other_writer = b.writer != 0 && b.writer != who.id;
            let clash = other_writer && !(strong && b.atomic);
            match access {
                Access::Read => {
                    if clash {
                        return Err(conflict(Hazard::ReadAfterWrite, b.writer));
                    }
                    if !strong {
                        b.reader = if b.reader == 0 || b.reader == who.id { who.id } else { MANY };
                    }
                }
                Access::Write => {
                    if clash {
                        return Err(conflict(Hazard::WriteAfterWrite, b.writer));
                    }
                    if b.reader != 0 && b.reader != who.id {
                        return Err(conflict(Hazard::WriteAfterRead, b.reader));
                    }
                    b.writer = if other_writer { MANY } else { who.id };
                    b.atomic = strong;
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (Tags, Splits) {
        (Tags::new(0, 2).unwrap(), Splits::default())
    }

    #[test]
    fn blocks_that_share_a_word_but_no_byte_do_not_meet() {
        let (t, s) = fixture();
        let (a, b) = (Who::new(0, 1), Who::new(1, 1));
        t.write(&s, 0, 0b0011, a, Kind::Plain).unwrap();
        t.write(&s, 0, 0b1100, b, Kind::Plain).unwrap();
        assert_eq!(written(t.get(0)), 15);
        let e = t.write(&s, 0, 0b0110, a, Kind::Plain).unwrap_err();
        assert_eq!((e.hazard, e.other), (Hazard::WriteAfterWrite, Some(1)));
        t.read(&s, 0, 0b0011, a, Kind::Plain, t.get(0)).unwrap();
    }

    #[test]
    fn reads_of_many_and_the_write_that_meets_them() {
        let (t, s) = fixture();
        t.host_write(1, 15);
        for b in 0..3 {
            t.read(&s, 1, 15, Who::new(b, 1), Kind::Plain, t.get(1)).unwrap();
        }
        let e = t.write(&s, 1, 15, Who::new(0, 1), Kind::Plain).unwrap_err();
        assert_eq!((e.hazard, e.other), (Hazard::WriteAfterRead, None));
        // The next launch starts anew.
        t.write(&s, 1, 15, Who::new(0, 2), Kind::Plain).unwrap();
        let e = t.read(&s, 1, 15, Who::new(7, 2), Kind::Plain, t.get(1)).unwrap_err();
        assert_eq!((e.hazard, e.other), (Hazard::ReadAfterWrite, Some(0)));
    }

    #[test]
    fn atomics_of_many_blocks_agree_plain_accesses_do_not() {
        let (t, s) = fixture();
        for b in 0..3 {
            t.write(&s, 0, 15, Who::new(b, 1), Kind::Strong).unwrap();
        }
        t.read(&s, 0, 15, Who::new(9, 1), Kind::Strong, t.get(0)).unwrap();
        assert!(t.read(&s, 0, 15, Who::new(9, 1), Kind::Plain, t.get(0)).is_err());
        assert!(t.write(&s, 0, 15, Who::new(1, 1), Kind::Plain).is_err());
    }
}
