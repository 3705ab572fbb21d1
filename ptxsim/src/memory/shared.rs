//! Shared memory of a block, with the shadow that finds races.
//!
//! Time of a block advances at every event that orders threads: a barrier, a warp barrier. Each
//! 4-byte word (each byte, where threads touch parts of a word) remembers its last writer and its
//! readers since. Two accesses of different threads, one of them a write, are a race unless
//!
//! * a barrier that both threads take part in lies between them, or
//! * they are lanes of one warp and a `bar.warp.sync` that names both lies between them.
//!
//! Lock step is not an order: since Volta lanes may run apart. With
//! [`WarpOrder::Collectives`](crate::WarpOrder) shuffles, votes and the like order their lanes too.

use std::collections::HashMap;

use crate::error::{Hazard, Space};
use crate::fault::Fault;
use crate::ir::W;

/// Several threads.
const MULTI: u16 = 0x7fff;
/// The writer wrote by an atomic.
const ATOMIC: u16 = 0x8000;
/// The word has a cell for each byte.
const SPLIT: u16 = 0x100;
/// A word of which all bytes are written, none is owed, and which is not split.
const WHOLE: u16 = 15;

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    w_time: u32,
    r_time: u32,
    /// Warps that read since the last write.
    r_warps: u32,
    w_tid: u16,
    r_tid: u16,
}

/// Which warps have seen which.
#[derive(Debug, Default)]
struct Order {
    now: u32,
    /// Everything before this time is before everything after it.
    all: u32,
    /// `seen[w][v]`: what warp `v` did before this time is before what warp `w` does now.
    seen: Vec<[u32; W]>,
    /// The same between lanes of a warp, where a warp barrier named only some of them.
    lanes: Vec<Option<Box<[[u32; W]; W]>>>,
}

impl Order {
    #[inline(always)]
    fn before(&self, time: u32, other: u16, me: u16) -> bool {
        if time < self.all || other & !ATOMIC == me {
            return true;
        }
        self.before_slow(time, other & !ATOMIC, me)
    }

    fn before_slow(&self, time: u32, other: u16, me: u16) -> bool {
        if other == MULTI {
            return false;
        }
        let (w, v) = (me as usize / W, other as usize / W);
        if time < self.seen[w][v] {
            return true;
        }
        w == v
            && self.lanes[w].as_ref().is_some_and(|m| time < m[me as usize % W][other as usize % W])
    }
}

/// A conflict inside the block.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clash {
    Race { hazard: Hazard, other: u16, time: u32 },
    Pending { owner: u16 },
    Unwritten,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub bytes: u32,
    words: Vec<u32>,
    /// Bits 0 to 3: bytes written; 4 to 7: bytes that a `cp.async` still owes; 8: `SPLIT`.
    meta: Vec<u16>,
    cells: Vec<Cell>,
    /// Words whose bytes have cells of their own.
    split: HashMap<u32, [Cell; 4]>,
    order: Order,
}

impl Shared {
    /// Fresh memory for a block.
    pub fn reset(&mut self, bytes: u32, warps: usize) {
        let n = bytes.div_ceil(4) as usize;
        if self.words.len() != n || self.order.now > u32::MAX / 2 {
            self.cells = vec![Cell::default(); n];
            self.words = vec![0; n];
            self.order.now = 0;
        }
        self.bytes = bytes;
        self.meta.clear();
        self.meta.resize(n, 0);
        self.split.clear();
        // Cells of the last block are older than `all`: nothing of them counts any more.
        self.order.now += 1;
        self.order.all = self.order.now;
        self.order.seen.clear();
        self.order.seen.resize(warps, [self.order.now; W]);
        self.order.lanes.clear();
        self.order.lanes.resize(warps, None);
    }

    /// A barrier: what the warps in `came` did before it is before what those in `wait` do
    /// after it. `everyone` says that both are all warps that still run.
    pub fn barrier(&mut self, came: u32, wait: u32, everyone: bool) {
        let o = &mut self.order;
        o.now += 1;
        if everyone {
            o.all = o.now;
            return;
        }
        let warps = o.seen.len();
        let of = |mask: u32| (0..warps).filter(move |w| mask >> w & 1 != 0);
        let mut joined = [0; W];
        for w in of(came) {
            for (j, s) in joined.iter_mut().zip(&o.seen[w]) {
                *j = (*j).max(*s);
            }
        }
        for w in of(came) {
            joined[w] = o.now;
        }
        for w in of(wait) {
            for (s, j) in o.seen[w].iter_mut().zip(&joined) {
                *s = (*s).max(*j);
            }
        }
    }

    /// A warp barrier among the lanes of `mask`; `full` when it names all that still run.
    pub fn warp_barrier(&mut self, warp: usize, mask: u32, full: bool) {
        let o = &mut self.order;
        o.now += 1;
        if full {
            o.seen[warp][warp] = o.now;
            return;
        }
        let m = o.lanes[warp].get_or_insert_with(|| Box::new([[0; W]; W]));
        for a in (0..W).filter(|a| mask >> a & 1 != 0) {
            for b in (0..W).filter(|b| mask >> b & 1 != 0) {
                m[a][b] = o.now;
            }
        }
    }

    #[inline(always)]
    pub fn check_range(&self, address: u64, bytes: u32) -> Result<(), Fault> {
        if address.saturating_add(u64::from(bytes)) <= u64::from(self.bytes) {
            return Ok(());
        }
        let near = format!("the block has {} bytes", self.bytes);
        Err(Fault::OutOfBounds { space: Space::Shared, address, bytes, near })
    }

    /// Runs `f` on the cell of the word, or on the cells of the bytes in `mask`.
    #[inline(always)]
    fn cells(
        &mut self,
        word: usize,
        mask: u16,
        f: impl Fn(&mut Cell, &Order) -> Result<(), Clash>,
    ) -> Result<(), Clash> {
        if mask == 15 && self.meta[word] & SPLIT == 0 {
            return f(&mut self.cells[word], &self.order);
        }
        let cell = self.cells[word];
        self.meta[word] |= SPLIT;
        let bytes = self.split.entry(word as u32).or_insert([cell; 4]);
        for (i, c) in bytes.iter_mut().enumerate() {
            if mask >> i & 1 != 0 {
                f(c, &self.order)?;
            }
        }
        Ok(())
    }

    /// A thread reads bytes of a word. `tid` `None` reads for all lanes of `warp`.
    #[inline(always)]
    fn read_word(
        &mut self,
        word: usize,
        mask: u16,
        tid: Option<u16>,
        warp: usize,
        strong: bool,
    ) -> Result<u32, Clash> {
        let meta = self.meta[word];
        if meta & mask != mask || (meta >> 4) & mask != 0 {
            return Err(if (meta >> 4) & mask != 0 {
                Clash::Pending { owner: self.writer(word, (meta >> 4) & mask) }
            } else {
                Clash::Unwritten
            });
        }
        self.cells(word, mask, |c, o| {
            let me = tid.unwrap_or(MULTI);
            if c.w_time >= o.all && !(strong && c.w_tid & ATOMIC != 0) {
                let ok = match tid {
                    Some(t) => o.before(c.w_time, c.w_tid, t),
                    None => ordered_for_warp(o, c.w_time, c.w_tid & !ATOMIC, warp),
                };
                if !ok {
                    let hazard = Hazard::ReadAfterWrite;
                    return Err(Clash::Race { hazard, other: c.w_tid & !ATOMIC, time: c.w_time });
                }
            }
            let bit = 1 << warp;
            let old = c.r_time < o.all || (c.r_warps == bit && c.r_time < o.seen[warp][warp]);
            if old || c.r_warps == 0 {
                c.r_warps = bit;
                c.r_tid = me;
            } else {
                c.r_warps |= bit;
                if c.r_tid != me {
                    c.r_tid = MULTI;
                }
            }
            c.r_time = o.now;
            Ok(())
        })?;
        Ok(self.words[word])
    }

    fn writer(&self, word: usize, mask: u16) -> u16 {
        let cell = match self.split.get(&(word as u32)) {
            Some(b) => b[mask.trailing_zeros() as usize & 3],
            None => self.cells[word],
        };
        cell.w_tid & !ATOMIC
    }

    /// A thread is about to write bytes of a word.
    #[inline(always)]
    fn claim_word(&mut self, word: usize, mask: u16, tid: u16, strong: bool) -> Result<(), Clash> {
        let owed = (self.meta[word] >> 4) & mask;
        if owed != 0 {
            return Err(Clash::Pending { owner: self.writer(word, owed) });
        }
        let warp = tid as usize / W;
        let flag = if strong { ATOMIC } else { 0 };
        self.cells(word, mask, |c, o| {
            let mut writer = tid;
            if c.w_time >= o.all {
                let both = strong && c.w_tid & ATOMIC != 0;
                if both {
                    if c.w_tid & !ATOMIC != tid {
                        writer = MULTI;
                    }
                } else if !o.before(c.w_time, c.w_tid, tid) {
                    let hazard = Hazard::WriteAfterWrite;
                    return Err(Clash::Race { hazard, other: c.w_tid & !ATOMIC, time: c.w_time });
                }
            }
            if c.r_time >= o.all && c.r_warps != 0 {
                let mine =
                    c.r_warps == 1 << warp && (c.r_tid == tid || c.r_time < o.seen[warp][warp]);
                if !mine && !readers_before(c, o, tid) {
                    let hazard = Hazard::WriteAfterRead;
                    return Err(Clash::Race { hazard, other: c.r_tid, time: c.r_time });
                }
            }
            *c = Cell { w_time: o.now, w_tid: writer | flag, ..Cell::default() };
            Ok(())
        })
    }

    fn fault(&self, clash: Clash, address: u64, bytes: u32) -> Fault {
        match clash {
            Clash::Race { hazard, other, .. } => {
                let other = (other != MULTI).then_some(u32::from(other));
                Fault::SharedRace { address, bytes, hazard, other }
            }
            Clash::Pending { owner } => {
                Fault::PendingCopy { address, bytes, owner: u32::from(owner) }
            }
            Clash::Unwritten => {
                let near = format!("the block has {} bytes", self.bytes);
                Fault::Uninitialised { space: Space::Shared, address, bytes, near }
            }
        }
    }

    /// Reads 1, 2, 4, 8 or 16 aligned bytes.
    #[inline(always)]
    pub fn read(
        &mut self,
        address: u64,
        bytes: u32,
        tid: u16,
        strong: bool,
        out: &mut [u32; 4],
    ) -> Result<(), Fault> {
        self.check_range(address, bytes)?;
        let (first, mask) = place(address, bytes);
        for (i, o) in out.iter_mut().enumerate().take(bytes.div_ceil(4) as usize) {
            *o = self
                .read_word(first + i, mask, Some(tid), tid as usize / W, strong)
                .map_err(|c| self.fault(c, address, bytes))?;
        }
        if bytes < 4 {
            out[0] = (out[0] >> (8 * (address & 3))) & if bytes == 1 { 0xff } else { 0xffff };
        }
        Ok(())
    }

    /// Reads a 16-byte row for a whole warp (`ldmatrix`).
    #[inline(always)]
    pub fn read_row(&mut self, address: u64, warp: usize) -> Result<[u32; 4], Fault> {
        self.check_range(address, 16)?;
        let first = (address / 4) as usize;
        if let Some(row) = self.quick_row(first, warp) {
            return Ok(row);
        }
        let mut out = [0; 4];
        for (i, o) in out.iter_mut().enumerate() {
            *o = self
                .read_word(first + i, 15, None, warp, false)
                .map_err(|c| self.fault(c, address, 16))?;
        }
        Ok(out)
    }

    /// The common case of `read_row`: four whole words that nobody wrote since the last barrier
    /// of the block.
    #[inline(always)]
    fn quick_row(&mut self, first: usize, warp: usize) -> Option<[u32; 4]> {
        let all = self.order.all;
        let meta: &[u16; 4] = self.meta.get(first..first + 4)?.try_into().ok()?;
        let cells: &mut [Cell; 4] = self.cells.get_mut(first..first + 4)?.try_into().ok()?;
        if *meta != [WHOLE; 4] || cells.iter().any(|c| c.w_time >= all) {
            return None;
        }
        for c in cells {
            c.r_warps = 1 << warp | if c.r_time < all { 0 } else { c.r_warps };
            c.r_tid = MULTI;
            c.r_time = self.order.now;
        }
        self.words.get(first..first + 4)?.try_into().ok()
    }

    /// The common case of a 16-byte claim: four whole or fresh words that nobody touched since
    /// the last barrier of the block.
    #[inline(always)]
    fn quick_claim(&mut self, first: usize, tid: u16) -> bool {
        let (all, now) = (self.order.all, self.order.now);
        let Some(meta) = self.meta.get(first..first + 4) else { return false };
        let Some(cells) = self.cells.get_mut(first..first + 4) else { return false };
        if meta.iter().any(|m| m & !WHOLE != 0)
            || cells.iter().any(|c| c.w_time >= all || c.r_time >= all)
        {
            return false;
        }
        cells.fill(Cell { w_time: now, w_tid: tid, ..Cell::default() });
        true
    }

    /// Claims the bytes for a write; the error tells whether a lane of the same warp wrote them
    /// at the same time, which the caller may find harmless.
    #[inline(always)]
    pub fn claim(
        &mut self,
        address: u64,
        bytes: u32,
        tid: u16,
        strong: bool,
    ) -> Result<(), (Fault, Option<u16>)> {
        self.check_range(address, bytes).map_err(|f| (f, None))?;
        let (first, mask) = place(address, bytes);
        if bytes == 16 && !strong && self.quick_claim(first, tid) {
            return Ok(());
        }
        for i in 0..bytes.div_ceil(4) as usize {
            self.claim_word(first + i, mask, tid, strong).map_err(|c| {
                let same = match c {
                    Clash::Race { hazard: Hazard::WriteAfterWrite, other, time }
                        if time == self.order.now && other / 32 == tid / 32 =>
                    {
                        Some(other)
                    }
                    _ => None,
                };
                (self.fault(c, address, bytes), same)
            })?;
        }
        Ok(())
    }

    /// Stores bytes already claimed.
    #[inline(always)]
    pub fn store(&mut self, address: u64, bytes: u32, data: &[u32; 4]) {
        let (first, mask) = place(address, bytes);
        for (i, &v) in data.iter().enumerate().take(bytes.div_ceil(4) as usize) {
            self.meta[first + i] |= mask;
            let w = &mut self.words[first + i];
            if mask == 15 {
                *w = v;
            } else {
                let field = if bytes == 1 { 0xff } else { 0xffff };
                let shift = 8 * (address & 3);
                *w = (*w & !(field << shift)) | (v & field) << shift;
            }
        }
    }

    /// What lies there, without any check: for the old value of an atomic.
    pub fn peek(&self, address: u64, bytes: u32) -> Result<u64, Fault> {
        self.check_range(address, bytes)?;
        let (first, mask) = place(address, bytes);
        let mut v = 0;
        for i in 0..bytes.div_ceil(4) as usize {
            if self.meta[first + i] & mask != mask {
                return Err(self.fault(Clash::Unwritten, address, bytes));
            }
            v |= u64::from(self.words[first + i]) << (32 * i);
        }
        Ok(match bytes {
            2 => (v >> (8 * (address & 3))) & 0xffff,
            _ => v,
        })
    }

    /// Marks bytes as owed by a `cp.async`, after they were claimed.
    pub fn owe(&mut self, address: u64, bytes: u32) {
        let (first, mask) = place(address, bytes);
        for m in &mut self.meta[first..first + bytes.div_ceil(4) as usize] {
            *m |= mask << 4;
        }
    }

    /// Delivers what was owed: from now on the bytes are a write of `tid` at this time.
    pub fn deliver(&mut self, address: u64, bytes: u32, tid: u16, data: &[u32; 4]) {
        let (first, mask) = place(address, bytes);
        let fresh = Cell { w_time: self.order.now, w_tid: tid, ..Cell::default() };
        for i in first..first + bytes.div_ceil(4) as usize {
            self.meta[i] &= !(mask << 4);
            if self.meta[i] & SPLIT != 0
                && let Some(b) = self.split.get_mut(&(i as u32))
            {
                *b = [fresh; 4];
            }
            self.cells[i] = fresh;
        }
        self.store(address, bytes, data);
    }
}

/// Whether all lanes of a warp see what `other` did.
fn ordered_for_warp(o: &Order, time: u32, other: u16, warp: usize) -> bool {
    other != MULTI && time < o.seen[warp][other as usize / W]
}

fn readers_before(c: &Cell, o: &Order, tid: u16) -> bool {
    let warp = tid as usize / W;
    (0..o.seen.len()).filter(|v| c.r_warps >> v & 1 != 0).all(|v| {
        c.r_time < o.seen[warp][v] || (c.r_tid != MULTI && o.before(c.r_time, c.r_tid, tid))
    })
}

/// First word and byte mask of an access.
#[inline(always)]
fn place(address: u64, bytes: u32) -> (usize, u16) {
    let mask = if bytes >= 4 { 15 } else { ((1u16 << bytes) - 1) << (address & 3) };
    ((address / 4) as usize, mask)
}
