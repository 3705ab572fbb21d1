//! Device memory: allocations with guards between them, words that blocks on several host
//! threads may touch at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::tags::{Kind, Splits, Tags, Who, written};
use crate::error::Space;
use crate::fault::Fault;

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub base: u64,
    pub bytes: u64,
    pub label: String,
    /// Kernels may not write it.
    pub constant: bool,
    words: Box<[AtomicU32]>,
    pub tags: Tags,
}

impl Allocation {
    /// `None` when the host has not the memory.
    pub fn new(base: u64, bytes: u64, label: String, constant: bool) -> Option<Allocation> {
        let n = usize::try_from(bytes.div_ceil(4)).ok()?;
        let words = bytemuck::try_zeroed_slice_box(n).ok()?;
        Some(Allocation { base, bytes, label, constant, words, tags: Tags::new(base, n)? })
    }

    #[inline(always)]
    pub fn end(&self) -> u64 {
        self.base + self.bytes
    }

    fn byte(&self, at: u64) -> u8 {
        (self.words[(at / 4) as usize].load(Relaxed) >> (8 * (at % 4))) as u8
    }

    fn set_bits(&self, word: usize, keep: u32, bits: u32) {
        if keep == 0 {
            self.words[word].store(bits, Relaxed);
            return;
        }
        let set = |old: u32| Some((old & keep) | (bits & !keep));
        // The closure always returns a value, so the update cannot fail.
        let _ = self.words[word].fetch_update(Relaxed, Relaxed, set);
    }

    /// Host write at a byte offset inside the allocation.
    pub fn host_write(&self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (word, lane) = ((at / 4) as usize, (at % 4) as usize);
            if lane == 0 && rest.len() >= 4 {
                let (whole, tail) = rest.as_chunks::<4>();
                for (i, &bytes) in whole.iter().enumerate() {
                    self.words[word + i].store(u32::from_le_bytes(bytes), Relaxed);
                    self.tags.host_write(word + i, 15);
                }
                at += 4 * whole.len() as u64;
                rest = tail;
                continue;
            }
            let n = rest.len().min(4 - lane);
            let mut bytes = [0; 4];
            bytes[lane..lane + n].copy_from_slice(&rest[..n]);
            let mask = ((1u32 << n) - 1) << lane;
            self.set_bits(word, !spread(mask), u32::from_le_bytes(bytes));
            self.tags.host_write(word, mask);
            at += n as u64;
            rest = &rest[n..];
        }
    }

    /// Host read; says the first byte that nobody wrote.
    pub fn host_read(&self, offset: u64, out: &mut [u8]) -> Option<u64> {
        let mut unwritten = None;
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let (word, lane) = ((at / 4) as usize, (at % 4) as usize);
            if lane == 0 && rest.len() >= 4 && unwritten.is_none() {
                let (whole, _) = rest.as_chunks_mut::<4>();
                let mut known = 0;
                for bytes in whole {
                    let at = word + known / 4;
                    if written(self.tags.get(at)) != 15 {
                        break;
                    }
                    *bytes = self.words[at].load(Relaxed).to_le_bytes();
                    known += 4;
                }
                if known > 0 {
                    at += known as u64;
                    rest = &mut rest[known..];
                    continue;
                }
            }
            let n = rest.len().min(4 - lane);
            let bytes = self.words[word].load(Relaxed).to_le_bytes();
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&bytes[lane..lane + n]);
            let mask = ((1u32 << n) - 1) << lane;
            let missing = mask & !written(self.tags.get(word));
            if missing != 0 && unwritten.is_none() {
                unwritten = Some(word as u64 * 4 + u64::from(missing.trailing_zeros()));
            }
            at += n as u64;
            rest = tail;
        }
        unwritten
    }

    /// Copies bytes and whether they were written.
    pub fn host_copy(&self, to: u64, from: &Allocation, start: u64, bytes: u64) {
        let mut done = 0;
        while done < bytes {
            let (source, target) = (start + done, to + done);
            if source % 4 == 0 && target % 4 == 0 && bytes - done >= 4 {
                let (i, o) = ((source / 4) as usize, (target / 4) as usize);
                let mask = written(from.tags.get(i));
                self.set_bits(o, !spread(mask), from.words[i].load(Relaxed));
                self.tags.host_write(o, mask);
                done += 4;
                continue;
            }
            if written(from.tags.get((source / 4) as usize)) >> (source % 4) & 1 != 0 {
                self.host_write(target, &[from.byte(source)]);
            }
            done += 1;
        }
    }

    /// In words, for error messages.
    pub fn describe(&self, address: u64) -> String {
        let Allocation { label, bytes, base, .. } = self;
        let name = if label.is_empty() { String::new() } else { format!(" `{label}`") };
        if address < *base {
            format!(
                "{} bytes before the allocation{name} of {bytes} bytes at {base:#x}",
                base - address
            )
        } else if address >= self.end() {
            let past = address - self.end();
            format!(
                "{past} bytes past the end of the allocation{name} of {bytes} bytes at {base:#x}"
            )
        } else {
            let at = address - base;
            format!("byte {at} of the allocation{name} of {bytes} bytes at {base:#x}")
        }
    }
}

/// Byte mask to bit mask.
fn spread(mask: u32) -> u32 {
    (0..4).filter(|i| mask >> i & 1 != 0).map(|i| 0xff << (8 * i)).sum()
}

/// What a launch sees of device memory.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// Sorted by address.
    pub allocations: Vec<std::sync::Arc<Allocation>>,
    pub splits: &'a Splits,
    /// Serialises 64-bit atomics.
    pub wide_atomics: Mutex<()>,
    /// Whether accesses of different blocks are compared.
    pub check_blocks: bool,
}

/// Bytes of an access inside its word.
#[inline(always)]
fn byte_mask(address: u64, bytes: u32) -> u32 {
    if bytes >= 4 { 15 } else { ((1 << bytes) - 1) << (address & 3) }
}

impl View<'_> {
    /// The allocation an access lies in; `hint` is where the last one was found.
    #[inline(always)]
    pub fn find(&self, address: u64, bytes: u32, hint: &mut usize) -> Result<&Allocation, Fault> {
        if let Some(a) = self.allocations.get(*hint)
            && address >= a.base
            && address - a.base <= a.bytes.saturating_sub(u64::from(bytes))
            && u64::from(bytes) <= a.bytes
        {
            return Ok(a);
        }
        self.search(address, bytes, hint)
    }

    #[cold]
    fn search(&self, address: u64, bytes: u32, hint: &mut usize) -> Result<&Allocation, Fault> {
        let after = self.allocations.partition_point(|a| a.base <= address);
        if let Some(a) = after.checked_sub(1).map(|i| &self.allocations[i])
            && address.saturating_add(u64::from(bytes)) <= a.end()
        {
            *hint = after - 1;
            return Ok(a);
        }
        // The nearest one, for the message.
        let before = after.checked_sub(1).map(|i| &self.allocations[i]);
        let next = self.allocations.get(after);
        let near = match (before, next) {
            (Some(b), Some(n)) if address - b.end().min(address) > n.base - address => {
                n.describe(address)
            }
            (Some(b), _) if address < b.end() => {
                format!("across the end of the allocation: {}", b.describe(address))
            }
            (Some(b), _) => b.describe(address),
            (None, Some(n)) => n.describe(address),
            (None, None) => "the device has no allocation".to_string(),
        };
        Err(Fault::OutOfBounds { space: Space::Global, address, bytes, near })
    }

    fn race(&self, a: &Allocation, address: u64, bytes: u32, c: super::tags::Conflict) -> Fault {
        let near = a.describe(address);
        Fault::BlockRace { address, bytes, hazard: c.hazard, other: c.other, near }
    }

    /// Reads 1, 2, 4, 8 or 16 aligned bytes.
    #[inline(always)]
    pub fn read(
        &self,
        a: &Allocation,
        address: u64,
        bytes: u32,
        who: Who,
        kind: Kind,
        out: &mut [u32; 4],
    ) -> Result<(), Fault> {
        let first = ((address - a.base) / 4) as usize;
        let mask = byte_mask(address, bytes);
        for (i, o) in out.iter_mut().enumerate().take(bytes.div_ceil(4) as usize) {
            let tag = a.tags.get(first + i);
            if written(tag) & mask != mask {
                let near = a.describe(address);
                return Err(Fault::Uninitialised { space: Space::Global, address, bytes, near });
            }
            if self.check_blocks && !a.constant {
                a.tags
                    .read(self.splits, first + i, mask, who, kind, tag)
                    .map_err(|c| self.race(a, address, bytes, c))?;
            }
            *o = a.words[first + i].load(Relaxed);
        }
        if bytes < 4 {
            out[0] = (out[0] >> (8 * (address & 3))) & if bytes == 1 { 0xff } else { 0xffff };
        }
        Ok(())
    }

    /// Writes 1, 2, 4, 8 or 16 aligned bytes.
    #[inline(always)]
    pub fn write(
        &self,
        a: &Allocation,
        address: u64,
        bytes: u32,
        who: Who,
        kind: Kind,
        data: &[u32; 4],
    ) -> Result<(), Fault> {
        if a.constant {
            return Err(Fault::ReadOnly { address });
        }
        let first = ((address - a.base) / 4) as usize;
        let mask = byte_mask(address, bytes);
        for (i, &w) in data.iter().enumerate().take(bytes.div_ceil(4) as usize) {
            if self.check_blocks {
                a.tags
                    .write(self.splits, first + i, mask, who, kind)
                    .map_err(|c| self.race(a, address, bytes, c))?;
            } else {
                a.tags.host_write(first + i, mask);
            }
            if mask == 15 {
                a.words[first + i].store(w, Relaxed);
            } else {
                a.set_bits(first, !spread(mask), w << (8 * (address & 3)));
            }
        }
        Ok(())
    }

    /// An atomic of 2, 4 or 8 bytes; returns the old value.
    pub fn atomic(
        &self,
        a: &Allocation,
        address: u64,
        bytes: u32,
        who: Who,
        f: impl Fn(u64) -> u64,
    ) -> Result<u64, Fault> {
        if a.constant {
            return Err(Fault::ReadOnly { address });
        }
        let first = ((address - a.base) / 4) as usize;
        let mask = byte_mask(address, bytes);
        for i in 0..bytes.div_ceil(4) as usize {
            if written(a.tags.get(first + i)) & mask != mask {
                let near = a.describe(address);
                return Err(Fault::Uninitialised { space: Space::Global, address, bytes, near });
            }
            if self.check_blocks {
                a.tags
                    .write(self.splits, first + i, mask, who, Kind::Strong)
                    .map_err(|c| self.race(a, address, bytes, c))?;
            }
        }
        if bytes == 8 {
            let _one = self.wide_atomics.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (lo, hi) = (a.words[first].load(Relaxed), a.words[first + 1].load(Relaxed));
            let old = u64::from(lo) | u64::from(hi) << 32;
            let new = f(old);
            a.words[first].store(new as u32, Relaxed);
            a.words[first + 1].store((new >> 32) as u32, Relaxed);
            return Ok(old);
        }
        let shift = if bytes == 4 { 0 } else { 8 * (address & 3) as u32 };
        let field = if bytes == 4 { u32::MAX } else { 0xffff };
        let update = |w: u32| {
            let new = f(u64::from((w >> shift) & field)) as u32 & field;
            Some((w & !(field << shift)) | new << shift)
        };
        let old = match a.words[first].fetch_update(Relaxed, Relaxed, update) {
            Ok(w) | Err(w) => w,
        };
        Ok(u64::from((old >> shift) & field))
    }
}
