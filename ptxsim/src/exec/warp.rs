//! The state of one warp: registers, predicates, where its lanes are.

use crate::ir::*;
use crate::memory::local::Local;

/// Lanes that are at the same instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub pc: u32,
    pub mask: u32,
    /// Functions its lanes are in; the most, where they met at a warp-wide instruction.
    pub depth: u32,
    /// Waits for other lanes at a warp-wide instruction.
    pub blocked: bool,
}

/// A function that a lane is in.
#[derive(Debug)]
pub(crate) struct Frame {
    /// By its index in the module.
    pub function: u32,
    /// The call.
    pub call: u32,
    /// Where its frame begins in local memory, and where that memory ended before.
    pub base: u32,
    pub top: u32,
    /// What an outer activation of the same function has in its registers.
    pub saved: Option<Box<[u64]>>,
}

/// An asynchronous copy that was issued and not yet waited for.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    /// Lanes that still wait for it, and the group each of them issued it in.
    pub lanes: u32,
    pub group: L32,
    pub dst: L32,
    pub bytes: u32,
    pub data: Box<[[u32; 4]; W]>,
}

/// Why a warp does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// At the barrier of this number.
    Waiting(u32),
    Done,
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub index: usize,
    pub r32: Vec<L32>,
    pub r64: Vec<L64>,
    pub preds: Vec<u32>,
    /// Carry flag of each lane.
    pub carry: u32,
    /// Lanes that exist and have not exited.
    pub live: u32,
    pub groups: Vec<Group>,
    /// The functions that each lane is in, innermost last.
    pub frames: [Vec<Frame>; W],
    pub state: State,
    pub executed: u64,
    pub local: Local,
    pub copies: Vec<Copy>,
    /// Groups committed so far, by lane.
    pub committed: L32,
    /// The instruction being run, for errors.
    pub pc: u32,
}

impl Warp {
    pub fn new(index: usize) -> Warp {
        Warp {
            index,
            r32: Vec::new(),
            r64: Vec::new(),
            preds: Vec::new(),
            carry: 0,
            live: 0,
            groups: Vec::new(),
            frames: [const { Vec::new() }; W],
            state: State::Done,
            executed: 0,
            local: Local::default(),
            copies: Vec::new(),
            committed: [0; W],
            pc: 0,
        }
    }

    /// Back to the start of the kernel with `live` lanes. Registers hold a pattern that no
    /// sensible program computes with.
    pub fn reset(&mut self, code: &Code, live: u32) {
        self.r32.clear();
        self.r32.resize(code.n32, [0xffff_dead; W]);
        self.r64.clear();
        self.r64.resize(code.n64, [0xffff_dead_ffff_dead; W]);
        self.preds.clear();
        self.preds.resize(code.npred, 0);
        self.preds[TRUE as usize] = u32::MAX;
        self.carry = 0;
        self.live = live;
        self.groups.clear();
        self.groups.push(Group { pc: 0, mask: live, depth: 0, blocked: false });
        self.frames.iter_mut().for_each(Vec::clear);
        self.state = State::Ready;
        self.executed = 0;
        self.local.reset(code.local_bytes as usize);
        self.copies.clear();
        self.committed = [0; W];
        self.pc = 0;
    }

    #[inline(always)]
    pub fn get32(&self, s: Slot) -> &L32 {
        &self.r32[s as usize]
    }

    #[inline(always)]
    pub fn get64(&self, s: Slot) -> &L64 {
        &self.r64[s as usize]
    }

    #[inline(always)]
    pub fn set32(&mut self, d: Slot, mask: u32, v: &L32) {
        let r = &mut self.r32[d as usize];
        if mask == u32::MAX {
            *r = *v;
            return;
        }
        for i in 0..W {
            r[i] = if mask >> i & 1 != 0 { v[i] } else { r[i] };
        }
    }

    #[inline(always)]
    pub fn set64(&mut self, d: Slot, mask: u32, v: &L64) {
        let r = &mut self.r64[d as usize];
        if mask == u32::MAX {
            *r = *v;
            return;
        }
        for i in 0..W {
            r[i] = if mask >> i & 1 != 0 { v[i] } else { r[i] };
        }
    }

    #[inline(always)]
    pub fn set_pred(&mut self, d: Slot, mask: u32, v: u32) {
        let p = &mut self.preds[d as usize];
        *p = (*p & !mask) | (v & mask);
    }

    /// Stores the results of a `setp`: the comparison and its complement, each combined.
    #[inline(always)]
    pub fn set_to(&mut self, to: &SetTo, mask: u32, t: u32) {
        let c = self.preds[to.with as usize] ^ to.with_negate;
        let with = |t: u32| match to.combine {
            Combine::None => t,
            Combine::And => t & c,
            Combine::Or => t | c,
            Combine::Xor => t ^ c,
        };
        let (p, q) = (with(t), with(!t));
        if let Some(d) = to.p {
            self.set_pred(d, mask, p);
        }
        if let Some(d) = to.q {
            self.set_pred(d, mask, q);
        }
    }

    /// A value of either file as 64 bits.
    #[inline(always)]
    pub fn lane(&self, r: Reg, lane: usize) -> u64 {
        match r {
            Reg::R32(s) => u64::from(self.r32[s as usize][lane]),
            Reg::R64(s) => self.r64[s as usize][lane],
            Reg::Sink => 0,
        }
    }

    #[inline(always)]
    pub fn set_lane(&mut self, r: Reg, lane: usize, v: u64) {
        match r {
            Reg::R32(s) => self.r32[s as usize][lane] = v as u32,
            Reg::R64(s) => self.r64[s as usize][lane] = v,
            Reg::Sink => {}
        }
    }

    /// The addresses an operand means, one a lane.
    #[inline(always)]
    pub fn addresses(&self, a: &Addr) -> L64 {
        let offset = a.offset as u64;
        match a.base {
            Base::None => [offset; W],
            Base::R32(s) => {
                let r = &self.r32[s as usize];
                // 32-bit addresses wrap in 32 bits.
                std::array::from_fn(|i| u64::from(r[i].wrapping_add(offset as u32)))
            }
            Base::R64(s) => {
                let r = &self.r64[s as usize];
                std::array::from_fn(|i| r[i].wrapping_add(offset))
            }
        }
    }

    /// Moves the lanes of `mask` (part of the group at the current instruction) to `pc`.
    pub fn send(&mut self, at: usize, mask: u32, pc: u32) {
        self.groups[at].mask &= !mask;
        let depth = self.groups[at].depth;
        self.groups.push(Group { pc, mask, depth, blocked: false });
        self.groups.retain(|g| g.mask != 0);
    }

    /// Joins two groups that wait at one instruction, as deep as they are in functions. False
    /// where there are none.
    pub fn meet(&mut self) -> bool {
        for at in 0..self.groups.len() {
            let g = self.groups[at];
            let same = |o: &Group| o.pc == g.pc;
            if let Some(other) = self.groups.iter().skip(at + 1).position(same) {
                let o = self.groups.remove(at + 1 + other);
                let depth = g.depth.max(o.depth);
                self.groups[at] = Group { mask: g.mask | o.mask, depth, blocked: false, ..g };
                return true;
            }
        }
        false
    }

    /// Ends lanes. Those that waited for them look again.
    pub fn exit(&mut self, mask: u32) {
        self.live &= !mask;
        for g in &mut self.groups {
            g.mask &= !mask;
            g.blocked = false;
        }
        self.groups.retain(|g| g.mask != 0);
    }
}

/// The lanes of a mask, lowest first.
#[inline(always)]
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let l = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(l)
    })
}
