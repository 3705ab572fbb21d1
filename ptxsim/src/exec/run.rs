//! The loop that runs a warp until it must wait.

use super::block::Block;
use super::collective::{match_, redux, shfl, vote};
use super::mma::mma;
use super::warp::{Group, State, Warp, lanes};
use crate::decode::int::{bfe64, bfi, bfi64};
use crate::fault::{Fault, Stop};
use crate::ir::*;

/// What an instruction did to the flow of its group.
pub(super) enum Flow {
    /// On to the next instruction.
    Next,
    /// Where lanes are has changed: choose a group anew.
    Regroup,
    /// The warp waits at a barrier, or has ended.
    Leave,
}

impl Block<'_> {
    /// Runs a warp for at most `budget` instructions, or until it waits or ends.
    pub(super) fn run_warp(&mut self, w: &mut Warp, budget: u64) -> Result<(), Box<Stop>> {
        let stop_at = w.executed + budget;
        while w.state == State::Ready {
            if w.groups.is_empty() {
                w.state = State::Done;
                return Ok(());
            }
            let at = self.choose(w)?;
            self.run_group(w, at, stop_at)?;
            if w.executed >= stop_at {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The group with the smallest instruction among those that can run, of the groups that are
    /// in most functions; groups that meet are joined.
    fn choose(&mut self, w: &mut Warp) -> Result<usize, Box<Stop>> {
        // Who is in a function comes out of it before the others go on: there they meet again.
        let order = |g: &Group| (std::cmp::Reverse(g.depth), g.pc);
        let first = loop {
            if let Some(first) = w.groups.iter().filter(|g| !g.blocked).map(order).min() {
                break first;
            }
            if !w.meet() {
                return Err(self.stuck(w));
            }
        };
        if w.groups.len() > 1 {
            let mask = w.groups.iter().filter(|g| order(g) == first).fold(0, |m, g| m | g.mask);
            w.groups.retain(|g| order(g) != first);
            w.groups.push(Group { pc: first.1, mask, depth: first.0.0, blocked: false });
        }
        Ok(w.groups.len() - 1)
    }

    /// All groups of a warp wait for each other.
    fn stuck(&self, w: &mut Warp) -> Box<Stop> {
        let code = &self.env.code;
        let line = |pc: u32| code.instrs[pc as usize].line;
        let list: Vec<String> = w
            .groups
            .iter()
            .map(|g| format!("lanes {:#010x} wait at PTX line {}", g.mask, line(g.pc)))
            .collect();
        let detail = list.join(", ");
        let first = w.groups[0];
        w.pc = first.pc;
        let lane = first.mask.trailing_zeros();
        match code.instrs[first.pc as usize].op {
            Op::Bar(_) => Fault::DivergentBarrier(detail).at(lane),
            _ => Fault::DivergentWarp(detail).at(lane),
        }
    }

    /// Holds the active lanes at this instruction until the missing ones come; lanes of the
    /// group that skip it go on.
    pub(super) fn hold(&mut self, w: &mut Warp, at: usize, active: u32) -> Flow {
        let pc = w.groups[at].pc;
        // It did not run: it is counted when it does.
        let c = &mut self.counts[pc as usize];
        c.warps -= 1;
        c.lanes -= u64::from(active.count_ones());
        let skip = w.groups[at].mask & !active;
        w.groups[at].mask = active;
        w.groups[at].blocked = true;
        if skip != 0 {
            let depth = w.groups[at].depth;
            w.groups.push(Group { pc: pc + 1, mask: skip, depth, blocked: false });
        }
        Flow::Regroup
    }

    fn run_group(&mut self, w: &mut Warp, at: usize, stop_at: u64) -> Result<(), Box<Stop>> {
        let code: &Code = self.env.code;
        let mut pc = w.groups[at].pc;
        let mask = w.groups[at].mask;
        // Falling into another group's instruction joins it.
        let depth = w.groups[at].depth;
        let meets = |i: usize, g: &Group| i != at && g.depth == depth && g.pc > pc;
        let others = w.groups.iter().enumerate().filter(|(i, g)| meets(*i, g));
        let limit = others.map(|(_, g)| g.pc).min().unwrap_or(u32::MAX);
        let alone = w.groups.len() == 1;
        loop {
            let i = &code.instrs[pc as usize];
            let active = mask & (w.preds[i.guard as usize] ^ i.negate);
            let c = &mut self.counts[pc as usize];
            c.warps += 1;
            c.lanes += u64::from(active.count_ones());
            w.executed += 1;
            w.pc = pc;
            let flow = match &i.op {
                Op::Bra { target } => {
                    if active == mask && alone {
                        // All lanes of the warp jump together.
                        pc = *target;
                        if w.executed >= stop_at {
                            w.groups[at].pc = pc;
                            return Ok(());
                        }
                        continue;
                    }
                    if active == 0 {
                        Flow::Next
                    } else {
                        w.groups[at].pc = pc + 1;
                        w.send(at, active, *target);
                        Flow::Regroup
                    }
                }
                Op::Exit => {
                    if active == 0 {
                        Flow::Next
                    } else {
                        w.groups[at].pc = pc + 1;
                        w.exit(active);
                        Flow::Regroup
                    }
                }
                op => {
                    if active == 0 {
                        Flow::Next
                    } else {
                        w.groups[at].pc = pc;
                        self.step(w, at, pc, op, active)?
                    }
                }
            };
            match flow {
                Flow::Next => {
                    pc += 1;
                    if pc >= limit || w.executed >= stop_at {
                        w.groups[at].pc = pc;
                        return Ok(());
                    }
                }
                Flow::Regroup | Flow::Leave => return Ok(()),
            }
        }
    }

    /// One instruction other than a plain branch or exit.
    #[inline(always)]
    fn step(
        &mut self,
        w: &mut Warp,
        at: usize,
        pc: u32,
        op: &Op,
        active: u32,
    ) -> Result<Flow, Box<Stop>> {
        let here = pc as usize;
        match op {
            Op::Alu32 { f, d, a, b, c } => {
                let mut out = [0; W];
                f(w.get32(*a), w.get32(*b), w.get32(*c), &mut out);
                w.set32(*d, active, &out);
            }
            Op::Alu64 { f, d, a, b, c } => {
                let mut out = [0; W];
                f(w.get64(*a), w.get64(*b), w.get64(*c), &mut out);
                w.set64(*d, active, &out);
            }
            Op::Wide { f, d, a, b, c } => {
                let mut out = [0; W];
                f(w.get32(*a), w.get32(*b), w.get64(*c), &mut out);
                w.set64(*d, active, &out);
            }
            Op::Narrow { f, d, a } => {
                let mut out = [0; W];
                f(w.get64(*a), &mut out);
                w.set32(*d, active, &out);
            }
            Op::Shift64 { f, d, a, b } => {
                let mut out = [0; W];
                f(w.get64(*a), w.get32(*b), &mut out);
                w.set64(*d, active, &out);
            }
            Op::Cmp32 { f, a, b, to } => {
                let t = f(w.get32(*a), w.get32(*b));
                w.set_to(to, active, t);
            }
            Op::Cmp64 { f, a, b, to } => {
                let t = f(w.get64(*a), w.get64(*b));
                w.set_to(to, active, t);
            }
            Op::Set32 { f, a, b, to, d, one } => {
                let t = f(w.get32(*a), w.get32(*b));
                set_number(w, to, active, t, *d, *one);
            }
            Op::Set64 { f, a, b, to, d, one } => {
                let t = f(w.get64(*a), w.get64(*b));
                set_number(w, to, active, t, *d, *one);
            }
            Op::Sel32 { d, a, b, p } => {
                let p = w.preds[*p as usize];
                let (x, y) = (w.get32(*a), w.get32(*b));
                let out: L32 = std::array::from_fn(|i| if p >> i & 1 != 0 { x[i] } else { y[i] });
                w.set32(*d, active, &out);
            }
            Op::Sel64 { d, a, b, p } => {
                let p = w.preds[*p as usize];
                let (x, y) = (w.get64(*a), w.get64(*b));
                let out: L64 = std::array::from_fn(|i| if p >> i & 1 != 0 { x[i] } else { y[i] });
                w.set64(*d, active, &out);
            }
            Op::Pred { op, d, a, a_negate, b, b_negate } => {
                let x = w.preds[*a as usize] ^ a_negate;
                let y = w.preds[*b as usize] ^ b_negate;
                let v = match op {
                    PredOp::Mov => x,
                    PredOp::Not => !x,
                    PredOp::And => x & y,
                    PredOp::Or => x | y,
                    PredOp::Xor => x ^ y,
                };
                w.set_pred(*d, active, v);
            }
            Op::Carry { op, signed, take, give, d, a, b, c } => {
                carry(w, active, *op, *signed, (*take, *give), [*d, *a, *b, *c]);
            }
            Op::Pack32 { d, lo, hi } => {
                let (x, y) = (w.get32(*lo), w.get32(*hi));
                let out: L32 = std::array::from_fn(|i| (x[i] & 0xffff) | y[i] << 16);
                w.set32(*d, active, &out);
            }
            Op::Unpack32 { a, lo, hi } => {
                let v = *w.get32(*a);
                if let Some(d) = lo {
                    w.set32(*d, active, &v.map(|x| x & 0xffff));
                }
                if let Some(d) = hi {
                    w.set32(*d, active, &v.map(|x| x >> 16));
                }
            }
            Op::Pack64 { d, parts } => {
                let bits = 64 / parts.len();
                let mut out = [0u64; W];
                for (n, &s) in parts.iter().enumerate() {
                    for (o, &v) in out.iter_mut().zip(w.get32(s)) {
                        *o |= (u64::from(v) & ((1 << bits) - 1)) << (n * bits);
                    }
                }
                w.set64(*d, active, &out);
            }
            Op::Unpack64 { a, parts } => {
                let v = *w.get64(*a);
                let bits = 64 / parts.len();
                for (n, d) in parts.iter().enumerate() {
                    if let Some(d) = d {
                        let out = v.map(|x| ((x >> (n * bits)) & ((1 << bits) - 1)) as u32);
                        w.set32(*d, active, &out);
                    }
                }
            }
            Op::Bfi { d, a, b, pos, len } => {
                let [x, y, p, n] = [a, b, pos, len].map(|s| w.get32(*s));
                let out: L32 = std::array::from_fn(|i| bfi(x[i], y[i], p[i], n[i]));
                w.set32(*d, active, &out);
            }
            Op::Bfi64 { d, a, b, pos, len } => {
                let (x, y) = (w.get64(*a), w.get64(*b));
                let (p, n) = (w.get32(*pos), w.get32(*len));
                let out: L64 = std::array::from_fn(|i| bfi64(x[i], y[i], p[i], n[i]));
                w.set64(*d, active, &out);
            }
            Op::Bfe64 { signed, d, a, pos, len } => {
                let x = w.get64(*a);
                let (p, n) = (w.get32(*pos), w.get32(*len));
                let out: L64 = std::array::from_fn(|i| bfe64(x[i], p[i], n[i], *signed));
                w.set64(*d, active, &out);
            }
            Op::Ld(a) => self.load(w, here, a, active)?,
            Op::St(a) => self.store(w, here, a, active)?,
            Op::Atom(a) => self.atomic(w, here, a, active)?,
            Op::CpAsync(c) => self.cp_async(w, here, c, active)?,
            Op::CpCommit => {
                for l in lanes(active) {
                    w.committed[l] += 1;
                }
            }
            Op::CpWait { pending } => {
                // Waiting for all also closes the open group.
                self.cp_wait(w, *pending, active);
            }
            Op::LdMatrix { d, trans, addr, generic } => {
                if let Some(flow) = self.whole_warp(w, at, active)? {
                    return Ok(flow);
                }
                let mut addresses = w.addresses(addr);
                if *generic {
                    addresses = addresses.map(|a| a.wrapping_sub(SHARED_WINDOW));
                }
                self.ldmatrix(w, here, d, *trans, &addresses)?;
            }
            Op::Mma(m) => {
                if let Some(flow) = self.whole_warp(w, at, active)? {
                    return Ok(flow);
                }
                mma(w, m, self.env.mma_sums);
                self.counts[here].mma_flops += 2 * 16 * 8 * u64::from(m.k);
            }
            Op::Shfl(s) => {
                let sets = self.members(w, at, s.mask, active)?;
                for &active in sets.ready() {
                    shfl(w, s, active)?;
                }
                if let Some(flow) = sets.flow {
                    return Ok(flow);
                }
            }
            Op::Vote { mode, d, p, p_negate, mask } => {
                let sets = self.members(w, at, *mask, active)?;
                for &active in sets.ready() {
                    vote(w, *mode, *d, (*p, *p_negate), active);
                }
                if let Some(flow) = sets.flow {
                    return Ok(flow);
                }
            }
            Op::Match { d, p, all, a, mask } => {
                let sets = self.members(w, at, *mask, active)?;
                for &active in sets.ready() {
                    match_(w, (*d, *p), *all, *a, active);
                }
                if let Some(flow) = sets.flow {
                    return Ok(flow);
                }
            }
            Op::Redux { f, d, a, mask } => {
                let sets = self.members(w, at, *mask, active)?;
                for &active in sets.ready() {
                    redux(w, *f, *d, *a, active);
                }
                if let Some(flow) = sets.flow {
                    return Ok(flow);
                }
            }
            Op::ActiveMask { d } => w.set32(*d, active, &[active; W]),
            Op::Brx { targets, index } => return brx(w, at, pc, targets, *index, active),
            Op::Bar(b) => return self.barrier(w, at, b, active),
            Op::BarWarp { mask } => {
                let sets = self.members(w, at, *mask, active)?;
                if let Some(flow) = sets.flow {
                    return Ok(flow);
                }
                self.order_members(w, &sets);
            }
            Op::Fence | Op::Nop => {}
            Op::Clock { d } => {
                for l in lanes(active) {
                    w.set_lane(*d, l, w.executed);
                }
            }
            Op::IsSpace { p, a, space } => {
                let v = w.get64(*a);
                let t = (0..W).filter(|&l| super::mem::space_of(v[l]) == *space);
                let t = t.fold(0, |m, l| m | 1 << l);
                w.set_pred(*p, active, t);
            }
            Op::Call(c) => return self.call(w, at, pc, c, active),
            Op::Return => return self.give_back(w, at, pc, active),
            Op::Trap => return Err(Fault::Trap.at(active.trailing_zeros())),
            Op::Bra { .. } | Op::Exit => {}
        }
        Ok(Flow::Next)
    }
}

fn set_number(w: &mut Warp, to: &SetTo, active: u32, t: u32, d: Slot, one: u32) {
    let c = w.preds[to.with as usize] ^ to.with_negate;
    let t = match to.combine {
        Combine::None => t,
        Combine::And => t & c,
        Combine::Or => t | c,
        Combine::Xor => t ^ c,
    };
    let out: L32 = std::array::from_fn(|i| if t >> i & 1 != 0 { one } else { 0 });
    w.set32(d, active, &out);
}

/// `add.cc` and its relatives: `take` reads the carry flag, `give` writes it. Subtraction keeps
/// the borrow there.
fn carry(
    w: &mut Warp,
    active: u32,
    op: CarryOp,
    signed: bool,
    (take, give): (bool, bool),
    [d, a, b, c]: [Slot; 4],
) {
    let (x, y, z) = (*w.get32(a), *w.get32(b), *w.get32(c));
    let mut out = [0; W];
    let mut flag = 0u32;
    for l in 0..W {
        let cin = u64::from(take && w.carry >> l & 1 != 0);
        let (p, q) = (u64::from(x[l]), u64::from(y[l]));
        let product =
            if signed { (i64::from(x[l] as i32) * i64::from(y[l] as i32)) as u64 } else { p * q };
        let wide = match op {
            CarryOp::Add => p + q + cin,
            CarryOp::Sub => p.wrapping_sub(q).wrapping_sub(cin),
            CarryOp::MadLo => (product & 0xffff_ffff) + u64::from(z[l]) + cin,
            CarryOp::MadHi => (product >> 32 & 0xffff_ffff) + u64::from(z[l]) + cin,
        };
        out[l] = wide as u32;
        flag |= u32::from(wide >> 32 & 1 != 0) << l;
    }
    w.set32(d, active, &out);
    if give {
        w.carry = (w.carry & !active) | (flag & active);
    }
}

/// An indexed branch: each lane to its own target.
fn brx(
    w: &mut Warp,
    at: usize,
    pc: u32,
    targets: &[u32],
    index: Slot,
    active: u32,
) -> Result<Flow, Box<Stop>> {
    let index = *w.get32(index);
    w.groups[at].pc = pc + 1;
    let (stay, depth) = (w.groups[at].mask & !active, w.groups[at].depth);
    for l in lanes(active) {
        let Some(&pc) = targets.get(index[l] as usize) else {
            let detail = format!("index {} of {} branch targets", index[l], targets.len());
            return Err(Fault::BadOperand(detail).at(l as u32));
        };
        match w.groups.iter_mut().skip(at + 1).find(|g| g.pc == pc) {
            Some(g) => g.mask |= 1 << l,
            None => w.groups.push(Group { pc, mask: 1 << l, depth, blocked: false }),
        }
    }
    w.groups[at].mask = stay;
    w.groups.retain(|g| g.mask != 0);
    Ok(Flow::Regroup)
}
