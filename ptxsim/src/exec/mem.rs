//! Memory instructions.

use super::block::Block;
use super::cost;
use super::warp::{Copy, Warp, lanes};
use crate::error::Space;
use crate::fault::{Fault, Stop};
use crate::ir::*;
use crate::memory::local::words;
use crate::memory::tags::Kind;

type Done = Result<(), Box<Stop>>;

/// The space a generic address lies in, and the address there.
pub(super) fn resolve(address: u64) -> (MemSpace, u64) {
    let within = |base: u64| (base..base + WINDOW_BYTES).contains(&address);
    if within(SHARED_WINDOW) {
        (MemSpace::Shared, address - SHARED_WINDOW)
    } else if within(LOCAL_WINDOW) {
        (MemSpace::Local, address - LOCAL_WINDOW)
    } else if within(PARAM_WINDOW) {
        (MemSpace::Param, address - PARAM_WINDOW)
    } else {
        (MemSpace::Global, address)
    }
}

pub(crate) fn space_of(address: u64) -> MemSpace {
    resolve(address).0
}

fn named(space: MemSpace) -> Space {
    match space {
        MemSpace::Shared => Space::Shared,
        MemSpace::Local => Space::Local,
        MemSpace::Param => Space::Param,
        MemSpace::Global | MemSpace::Generic => Space::Global,
    }
}

/// Runs `f` once for each space the lanes' addresses lie in.
fn by_space(
    space: MemSpace,
    mut addresses: L64,
    mask: u32,
    mut f: impl FnMut(MemSpace, &L64, u32) -> Done,
) -> Done {
    if space != MemSpace::Generic {
        return f(space, &addresses, mask);
    }
    let spaces = addresses.map(resolve);
    for (a, s) in addresses.iter_mut().zip(&spaces) {
        *a = s.1;
    }
    let mut rest = mask;
    while rest != 0 {
        let first = spaces[rest.trailing_zeros() as usize].0;
        let part = lanes(rest).filter(|&l| spaces[l].0 == first).fold(0, |m, l| m | 1 << l);
        f(first, &addresses, part)?;
        rest &= !part;
    }
    Ok(())
}

fn align(space: MemSpace, addresses: &L64, mask: u32, bytes: u32) -> Done {
    let low = u64::from(bytes) - 1;
    for l in lanes(mask) {
        if addresses[l] & low != 0 {
            let fault = Fault::Misaligned { space: named(space), address: addresses[l], bytes };
            return Err(fault.at(l as u32));
        }
    }
    Ok(())
}

/// Spreads the words of one lane's access over its registers.
#[inline(always)]
fn give(w: &mut Warp, a: &Access, lane: usize, v: &[u32; 4]) {
    match a.size {
        4 => {
            for (i, &r) in a.regs.iter().enumerate() {
                if let Reg::R32(s) = r {
                    w.r32[s as usize][lane] = v[i];
                } else {
                    let x = if a.signed { v[i] as i32 as u64 } else { u64::from(v[i]) };
                    w.set_lane(r, lane, x);
                }
            }
        }
        8 => {
            for (i, &r) in a.regs.iter().enumerate() {
                w.set_lane(r, lane, u64::from(v[2 * i]) | u64::from(v[2 * i + 1]) << 32);
            }
        }
        n => {
            let bits = 8 * usize::from(n);
            for (i, &r) in a.regs.iter().enumerate() {
                let at = i * bits;
                let x = u64::from(v[at / 32] >> (at % 32)) & ((1 << bits) - 1);
                let x = if a.signed { (x << (64 - bits)) as i64 >> (64 - bits) } else { x as i64 };
                w.set_lane(r, lane, x as u64);
            }
        }
    }
}

/// Collects the words of one lane's store.
#[inline(always)]
fn take(w: &Warp, a: &Access, lane: usize) -> [u32; 4] {
    let mut v = [0; 4];
    match a.size {
        4 => {
            for (i, &r) in a.regs.iter().enumerate() {
                v[i] = w.lane(r, lane) as u32;
            }
        }
        8 => {
            for (i, &r) in a.regs.iter().enumerate() {
                let x = w.lane(r, lane);
                v[2 * i] = x as u32;
                v[2 * i + 1] = (x >> 32) as u32;
            }
        }
        n => {
            let bits = 8 * usize::from(n);
            for (i, &r) in a.regs.iter().enumerate() {
                let at = i * bits;
                v[at / 32] |= (w.lane(r, lane) as u32 & ((1u32 << bits) - 1)) << (at % 32);
            }
        }
    }
    v
}

impl Block<'_> {
    pub(super) fn count_access(
        &mut self,
        pc: usize,
        space: MemSpace,
        at: &L64,
        mask: u32,
        bytes: u32,
    ) {
        let c = &mut self.counts[pc];
        let total = u64::from(mask.count_ones() * bytes);
        match space {
            MemSpace::Global => {
                let (n, needed) = cost::sectors(at, mask, bytes);
                c.sectors += n;
                c.sectors_needed += needed;
                c.global_bytes += total;
            }
            MemSpace::Shared => {
                let (n, ideal) = cost::wavefronts(at, mask, bytes);
                c.wavefronts += n;
                c.wavefronts_ideal += ideal;
                c.shared_bytes += total;
            }
            _ => {}
        }
    }

    pub(super) fn load(&mut self, w: &mut Warp, pc: usize, a: &Access, mask: u32) -> Done {
        let bytes = u32::from(a.size) * a.regs.len() as u32;
        let addresses = w.addresses(&a.addr);
        by_space(a.space, addresses, mask, |space, at, mask| {
            align(space, at, mask, bytes)?;
            self.count_access(pc, space, at, mask, bytes);
            let mut v = [0; 4];
            match space {
                MemSpace::Global | MemSpace::Generic => {
                    let kind = if a.strong { Kind::Strong } else { Kind::Plain };
                    let mut hint = self.hints[pc];
                    let view = &self.env.view;
                    for l in lanes(mask) {
                        let r = view
                            .find(at[l], bytes, &mut hint)
                            .and_then(|m| view.read(m, at[l], bytes, self.who, kind, &mut v));
                        r.map_err(|f| f.at(l as u32))?;
                        give(w, a, l, &v);
                    }
                    self.hints[pc] = hint;
                }
                MemSpace::Shared => {
                    let first = (w.index * W) as u16;
                    for l in lanes(mask) {
                        self.shared
                            .read(at[l], bytes, first + l as u16, a.strong, &mut v)
                            .map_err(|f| f.at(l as u32))?;
                        give(w, a, l, &v);
                    }
                }
                MemSpace::Local => {
                    for l in lanes(mask) {
                        w.local.read(l, at[l], bytes, &mut v).map_err(|f| f.at(l as u32))?;
                        give(w, a, l, &v);
                    }
                }
                MemSpace::Param => {
                    for l in lanes(mask) {
                        v = self.param(at[l], bytes).map_err(|f| f.at(l as u32))?;
                        give(w, a, l, &v);
                    }
                }
            }
            Ok(())
        })
    }

    pub(super) fn param(&self, address: u64, bytes: u32) -> Result<[u32; 4], Fault> {
        let params = &self.env.params;
        let end = address.saturating_add(u64::from(bytes));
        if end > params.len() as u64 {
            let near = format!("the parameters have {} bytes", params.len());
            return Err(Fault::OutOfBounds { space: Space::Param, address, bytes, near });
        }
        Ok(words(&params[address as usize..end as usize]))
    }

    pub(super) fn store(&mut self, w: &mut Warp, pc: usize, a: &Access, mask: u32) -> Done {
        let bytes = u32::from(a.size) * a.regs.len() as u32;
        let addresses = w.addresses(&a.addr);
        by_space(a.space, addresses, mask, |space, at, mask| {
            align(space, at, mask, bytes)?;
            self.count_access(pc, space, at, mask, bytes);
            match space {
                MemSpace::Global | MemSpace::Generic => {
                    let kind = if a.strong { Kind::Strong } else { Kind::Plain };
                    let mut hint = self.hints[pc];
                    let view = &self.env.view;
                    for l in lanes(mask) {
                        let v = take(w, a, l);
                        let r = view
                            .find(at[l], bytes, &mut hint)
                            .and_then(|m| view.write(m, at[l], bytes, self.who, kind, &v));
                        r.map_err(|f| f.at(l as u32))?;
                    }
                    self.hints[pc] = hint;
                }
                MemSpace::Shared => {
                    let first = (w.index * W) as u16;
                    for l in lanes(mask) {
                        let v = take(w, a, l);
                        let claim = self.shared.claim(at[l], bytes, first + l as u16, a.strong);
                        if let Err((fault, same)) = claim {
                            // Lanes of one store may write the same value to one place.
                            let other = same.map(|t| t as usize % W);
                            let harmless = other.is_some_and(|o| {
                                mask >> o & 1 != 0 && at[o] == at[l] && take(w, a, o) == v
                            });
                            if !harmless {
                                return Err(fault.at(l as u32));
                            }
                        }
                        self.shared.store(at[l], bytes, &v);
                    }
                }
                MemSpace::Local => {
                    for l in lanes(mask) {
                        let v = take(w, a, l);
                        w.local.write(l, at[l], bytes, &v).map_err(|f| f.at(l as u32))?;
                    }
                }
                MemSpace::Param => {
                    let l = mask.trailing_zeros();
                    return Err(Fault::ReadOnly { address: at[l as usize] }.at(l));
                }
            }
            Ok(())
        })
    }

    pub(super) fn atomic(&mut self, w: &mut Warp, pc: usize, a: &Atom, mask: u32) -> Done {
        let bytes = u32::from(a.size);
        let addresses = w.addresses(&a.addr);
        by_space(a.space, addresses, mask, |space, at, mask| {
            align(space, at, mask, bytes)?;
            self.count_access(pc, space, at, mask, bytes);
            for l in lanes(mask) {
                let x = w.lane(a.a, l);
                let y = a.b.map_or(0, |b| w.lane(b, l));
                let old = match space {
                    MemSpace::Global | MemSpace::Generic => {
                        let mut hint = self.hints[pc];
                        let view = &self.env.view;
                        let old = view
                            .find(at[l], bytes, &mut hint)
                            .and_then(|m| {
                                view.atomic(m, at[l], bytes, self.who, |old| (a.f)(old, x, y))
                            })
                            .map_err(|f| f.at(l as u32))?;
                        self.hints[pc] = hint;
                        old
                    }
                    MemSpace::Shared => {
                        let tid = (w.index * W + l) as u16;
                        let old = self
                            .shared
                            .peek(at[l], bytes)
                            .and_then(|old| {
                                self.shared
                                    .claim(at[l], bytes, tid, true)
                                    .map(|()| old)
                                    .map_err(|(f, _)| f)
                            })
                            .map_err(|f| f.at(l as u32))?;
                        let new = (a.f)(old, x, y);
                        let v = [new as u32, (new >> 32) as u32, 0, 0];
                        self.shared.store(at[l], bytes, &v);
                        old
                    }
                    _ => {
                        let fault = Fault::BadOperand("an atomic on local or param memory".into());
                        return Err(fault.at(l as u32));
                    }
                };
                if let Some(d) = a.d {
                    w.set_lane(d, l, old);
                }
            }
            Ok(())
        })
    }

    /// Issues an asynchronous copy: the source is read now, the destination is owed until a wait.
    pub(super) fn cp_async(&mut self, w: &mut Warp, pc: usize, c: &CpAsync, mask: u32) -> Done {
        let bytes = u32::from(c.size);
        let (mut dst, src) = (w.addresses(&c.dst), w.addresses(&c.src));
        if let Base::R64(_) = c.dst.base {
            dst = dst.map(|a| if space_of(a) == MemSpace::Shared { a - SHARED_WINDOW } else { a });
        }
        align(MemSpace::Shared, &dst, mask, bytes)?;
        let mut data = Box::new([[0; 4]; W]);
        let mut reading = 0;
        for l in lanes(mask) {
            let want = c.src_size.map_or(bytes, |s| w.get32(s)[l]);
            let ignored = c.ignore_src.is_some_and(|p| w.preds[p as usize] >> l & 1 != 0);
            if want > bytes {
                let detail = format!("source size {want} of a copy of {bytes} bytes");
                return Err(Fault::BadOperand(detail).at(l as u32));
            }
            if ignored || want == 0 {
                continue;
            }
            reading |= 1 << l;
            if want == bytes {
                continue;
            }
            // A partial source: byte by byte, the rest of the destination is zero.
            let mut hint = self.hints[pc];
            let view = &self.env.view;
            for i in 0..want {
                let mut one = [0; 4];
                let at = src[l].wrapping_add(u64::from(i));
                let r = view
                    .find(at, 1, &mut hint)
                    .and_then(|m| view.read(m, at, 1, self.who, Kind::Plain, &mut one));
                r.map_err(|f| f.at(l as u32))?;
                data[l][(i / 4) as usize] |= one[0] << (8 * (i % 4));
            }
            reading &= !(1 << l);
        }
        align(MemSpace::Global, &src, reading, bytes)?;
        self.count_access(pc, MemSpace::Global, &src, reading, bytes);
        self.count_access(pc, MemSpace::Shared, &dst, mask, bytes);
        let mut hint = self.hints[pc];
        let view = &self.env.view;
        for l in lanes(reading) {
            let r = view
                .find(src[l], bytes, &mut hint)
                .and_then(|m| view.read(m, src[l], bytes, self.who, Kind::Plain, &mut data[l]));
            r.map_err(|f| f.at(l as u32))?;
        }
        self.hints[pc] = hint;
        for l in lanes(mask) {
            let tid = (w.index * W + l) as u16;
            self.shared.claim(dst[l], bytes, tid, false).map_err(|(f, _)| f.at(l as u32))?;
            self.shared.owe(dst[l], bytes);
        }
        w.copies.push(Copy {
            lanes: mask,
            group: w.committed,
            dst: dst.map(|a| a as u32),
            bytes,
            data,
        });
        Ok(())
    }

    /// Delivers the copies of groups that the lanes of `mask` wait for.
    pub(super) fn cp_wait(&mut self, w: &mut Warp, pending: Option<u32>, mask: u32) {
        let (first, committed) = ((w.index * W) as u16, w.committed);
        for c in &mut w.copies {
            for l in lanes(c.lanes & mask) {
                // Group g is complete when at most `pending` younger committed groups may be
                // in flight. Copies after the last commit belong to no group yet.
                let due = match pending {
                    None => true,
                    Some(n) => c.group[l].saturating_add(n) < committed[l],
                };
                if due {
                    let at = u64::from(c.dst[l]);
                    self.shared.deliver(at, c.bytes, first + l as u16, &c.data[l]);
                    c.lanes &= !(1 << l);
                }
            }
        }
        w.copies.retain(|c| c.lanes != 0);
    }

    pub(super) fn ldmatrix(
        &mut self,
        w: &mut Warp,
        pc: usize,
        d: &[Slot],
        trans: bool,
        at: &L64,
    ) -> Done {
        let n = d.len();
        // Lanes 0 to 7 give the rows of the first matrix, 8 to 15 of the second, and so on.
        let givers = if n == 4 { u32::MAX } else { (1 << (8 * n)) - 1 };
        align(MemSpace::Shared, at, givers, 16)?;
        let c = &mut self.counts[pc];
        c.shared_bytes += 128 * n as u64;
        c.wavefronts_ideal += n as u64;
        for (m, &slot) in d.iter().enumerate() {
            self.counts[pc].wavefronts += cost::pass16(at, 0xff << (8 * m));
            let mut out = [0; W];
            for row in 0..8 {
                let lane = 8 * m + row;
                let v = self.shared.read_row(at[lane], w.index).map_err(|f| f.at(lane as u32))?;
                if trans {
                    // Element (row, col) goes to lane 4·col + row/2, upper half for odd rows.
                    for (i, x) in v.into_iter().enumerate() {
                        let to = 8 * i + row / 2;
                        let shift = 16 * (row % 2);
                        out[to] |= (x & 0xffff) << shift;
                        out[to + 4] |= (x >> 16) << shift;
                    }
                } else {
                    out[4 * row..4 * row + 4].copy_from_slice(&v);
                }
            }
            w.r32[slot as usize] = out;
        }
        Ok(())
    }
}
