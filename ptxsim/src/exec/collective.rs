//! Instructions that several lanes or warps do together.

use super::block::{Barrier, Block};
use super::run::Flow;
use super::warp::{State, Warp, lanes};
use crate::fault::{Fault, Stop};
use crate::ir::*;

type Step = Result<Flow, Box<Stop>>;

/// Lanes at an instruction with a member mask.
pub(super) struct Members {
    masks: [u32; W],
    count: usize,
    /// Lanes are missing: the instruction waits.
    pub flow: Option<Flow>,
}

impl Members {
    /// The sets that can act now: none while lanes are missing.
    pub fn ready(&self) -> &[u32] {
        if self.flow.is_some() { &[] } else { self.masks() }
    }

    fn masks(&self) -> &[u32] {
        &self.masks[..self.count]
    }
}

impl Block<'_> {
    /// For instructions of all 32 lanes: `None` when they are all here.
    pub(super) fn whole_warp(
        &mut self,
        w: &mut Warp,
        at: usize,
        active: u32,
    ) -> Result<Option<Flow>, Box<Stop>> {
        if active == u32::MAX {
            return Ok(None);
        }
        if w.live != u32::MAX {
            let detail = format!("needs all 32 lanes, {:#010x} are left", w.live);
            return Err(Fault::DivergentWarp(detail).at(active.trailing_zeros()));
        }
        Ok(Some(self.hold(w, at, active)))
    }

    /// For instructions with a member mask: the sets of lanes that do them together, each the
    /// lanes that name one mask. Until all of them are here, the lanes are held.
    pub(super) fn members(
        &mut self,
        w: &mut Warp,
        at: usize,
        mask: Slot,
        active: u32,
    ) -> Result<Members, Box<Stop>> {
        let members = w.get32(mask);
        let mut sets = Members { masks: [0; W], count: 0, flow: None };
        let mut rest = active;
        while rest != 0 {
            let first = members[rest.trailing_zeros() as usize];
            let same = lanes(rest).filter(|&l| members[l] == first).fold(0, |m, l| m | 1 << l);
            if same & !first != 0 {
                let lane = (same & !first).trailing_zeros();
                let detail = format!("member mask {first:#010x} does not name lane {lane}");
                return Err(Fault::DivergentWarp(detail).at(lane));
            }
            if first & w.live != same {
                sets.flow = Some(self.hold(w, at, active));
                return Ok(sets);
            }
            sets.masks[sets.count] = same;
            sets.count += 1;
            rest &= !same;
        }
        if self.env.collectives_order {
            self.order_members(w, &sets);
        }
        Ok(sets)
    }

    /// Orders the shared memory accesses of the lanes of each set.
    pub(super) fn order_members(&mut self, w: &Warp, sets: &Members) {
        for &mask in sets.masks() {
            self.shared.warp_barrier(w.index, mask, mask == w.live);
        }
    }

    /// A warp comes to a block barrier.
    pub(super) fn barrier(&mut self, w: &mut Warp, at: usize, b: &Bar, active: u32) -> Step {
        let pc = w.groups[at].pc;
        if active != w.live {
            return Ok(self.hold(w, at, active));
        }
        let lane = active.trailing_zeros();
        let uniform = |w: &Warp, s: Slot| {
            let v = w.get32(s);
            let first = v[lane as usize];
            lanes(active).all(|l| v[l] == first).then_some(first)
        };
        let (Some(id), Some(count)) =
            (uniform(w, b.id), b.count.map_or(Some(0), |c| uniform(w, c)))
        else {
            let detail = "lanes name different barriers".to_string();
            return Err(Fault::DivergentBarrier(detail).at(lane));
        };
        if id > 15 || (b.count.is_some() && (count == 0 || count % 32 != 0)) {
            let detail = format!("barrier {id} with {count} threads");
            return Err(Fault::BadOperand(detail).at(lane));
        }
        let count = b.count.map(|_| count);
        let threads = u32::from(self.env.threads_of(w.index));
        let state = &mut self.barriers[id as usize];
        if state.warps == 0 && state.arrived == 0 {
            *state = Barrier { pc, count, ..Barrier::default() };
        }
        if state.count != count {
            let detail = format!(
                "barrier {id} is used with {} and with {} threads",
                words(state.count),
                words(count)
            );
            return Err(Fault::DivergentBarrier(detail).at(lane));
        }
        // A barrier of the whole block must be the same one for every warp.
        if count.is_none() && state.pc != pc {
            let line = |pc: u32| self.env.code.instrs[pc as usize].line;
            let detail = format!(
                "warp {} is at line {}, other warps wait at line {}",
                w.index,
                line(pc),
                line(state.pc)
            );
            return Err(Fault::DivergentBarrier(detail).at(lane));
        }
        let votes = (w.preds[b.pred as usize] ^ b.pred_negate) & active;
        state.votes += votes.count_ones();
        state.voters += active.count_ones();
        state.members |= 1 << w.index;
        // Counted barriers count whole warps.
        state.arrived += if count.is_some() { 32.max(threads) } else { 1 };
        w.groups[at].pc = pc + 1;
        if b.mode == BarMode::Arrive {
            self.release(id as usize);
            return Ok(Flow::Regroup);
        }
        state.warps |= 1 << w.index;
        state.results.push((w.index, b.mode, active));
        w.state = State::Waiting(id);
        Ok(Flow::Leave)
    }
}

/// Takes a value from another lane, within segments of the warp.
pub(super) fn shfl(w: &mut Warp, s: &Shfl, active: u32) -> Result<(), Box<Stop>> {
    let (a, b, c) = (*w.get32(s.a), *w.get32(s.b), *w.get32(s.c));
    let (mut out, mut valid) = (a, 0u32);
    for l in lanes(active) {
        let (bound, segment) = (c[l] as i32 & 31, (c[l] >> 8) as i32 & 31);
        let (lane, b) = (l as i32, b[l] as i32 & 31);
        let max = (lane & segment) | (bound & !segment);
        let min = lane & segment;
        let (from, ok) = match s.mode {
            ShflMode::Up => (lane - b, lane - b >= max),
            ShflMode::Down => (lane + b, lane + b <= max),
            ShflMode::Bfly => (lane ^ b, lane ^ b <= max),
            ShflMode::Idx => {
                let j = min | (b & !segment);
                (j, j <= max)
            }
        };
        let from = if ok { from } else { lane };
        if active >> from & 1 == 0 {
            return Err(Fault::ShuffleSource(from as u32).at(l as u32));
        }
        out[l] = a[from as usize];
        valid |= u32::from(ok) << l;
    }
    w.set32(s.d, active, &out);
    if let Some(p) = s.p {
        w.set_pred(p, active, valid);
    }
    Ok(())
}

fn all(yes: bool) -> u32 {
    if yes { u32::MAX } else { 0 }
}

/// Votes of the active lanes; `p` is the predicate and its negation.
pub(super) fn vote(w: &mut Warp, mode: VoteMode, d: Slot, p: (Slot, u32), active: u32) {
    let votes = (w.preds[p.0 as usize] ^ p.1) & active;
    match mode {
        VoteMode::Ballot => w.set32(d, active, &[votes; W]),
        VoteMode::All => w.set_pred(d, active, all(votes == active)),
        VoteMode::Any => w.set_pred(d, active, all(votes != 0)),
        VoteMode::Uni => w.set_pred(d, active, all(votes == active || votes == 0)),
    }
}

/// Which lanes hold the same value; with `every`, whether all do.
pub(super) fn match_(w: &mut Warp, (d, p): (Slot, Option<Slot>), every: bool, a: Reg, active: u32) {
    let value: [u64; W] = std::array::from_fn(|l| w.lane(a, l));
    let mut out = [0; W];
    for l in lanes(active) {
        out[l] = lanes(active).filter(|&o| value[o] == value[l]).fold(0, |m, o| m | 1 << o);
    }
    if every {
        let same = lanes(active).all(|l| out[l] == active);
        out = [if same { active } else { 0 }; W];
        if let Some(p) = p {
            w.set_pred(p, active, all(same));
        }
    }
    w.set32(d, active, &out);
}

/// A reduction over the active lanes.
pub(super) fn redux(w: &mut Warp, f: fn(u32, u32) -> u32, d: Slot, a: Slot, active: u32) {
    let v = w.get32(a);
    let sum = lanes(active).map(|l| v[l]).reduce(f).unwrap_or(0);
    w.set32(d, active, &[sum; W]);
}

fn words(count: Option<u32>) -> String {
    count.map_or("all".to_string(), |c| c.to_string())
}
