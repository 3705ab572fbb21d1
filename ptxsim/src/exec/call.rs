//! Calls and returns: frames, what is passed, registers of activations.

use super::block::Block;
use super::run::Flow;
use super::warp::{Frame, Group, Warp, lanes};
use crate::fault::{Fault, Stop};
use crate::ir::*;
use crate::memory::local::LIMIT;

type Step = Result<Flow, Box<Stop>>;

/// What registers hold before they are written: as at the start of a kernel.
const NOTHING: u64 = 0xffff_dead_ffff_dead;

impl Block<'_> {
    /// Lanes enter functions, each its own where they are called by address.
    pub(super) fn call(&mut self, w: &mut Warp, at: usize, pc: u32, c: &Call, active: u32) -> Step {
        if let Target::Builtin(b) = c.target {
            self.builtin(w, pc as usize, b, c, active)?;
            return Ok(Flow::Next);
        }
        w.groups[at].pc = pc + 1;
        w.groups[at].mask &= !active;
        for l in lanes(active) {
            let (index, f) = self.callee(w, c, l).map_err(|f| f.at(l as u32))?;
            enter(w, l, pc, c, index, f).map_err(|f| f.at(l as u32))?;
            join(w, f.start, l);
        }
        w.groups.retain(|g| g.mask != 0);
        Ok(Flow::Regroup)
    }

    /// The function that a lane calls.
    fn callee(&self, w: &Warp, c: &Call, lane: usize) -> Result<(u32, &Function), Fault> {
        let functions = &self.env.code.functions;
        let index = match c.target {
            Target::Address(s) => {
                let address = w.get64(s)[lane];
                let offset = address.wrapping_sub(FUNCTION_BASE);
                let index = (offset / FUNCTION_STEP) as usize;
                if !offset.is_multiple_of(FUNCTION_STEP)
                    || functions.get(index).is_none_or(Option::is_none)
                {
                    return Err(Fault::BadOperand(format!("no function at {address:#x}")));
                }
                index
            }
            Target::Function(index) => index as usize,
            Target::Builtin(_) => return Err(Fault::BadOperand("a call".into())),
        };
        let Some(f) = functions.get(index).and_then(Option::as_ref) else {
            return Err(Fault::BadOperand("a function that is not there".into()));
        };
        // A prototype says what it likes: it has to be true.
        let alike = |a: &[(Passed, u32)], b: &[(Taken, u32)]| {
            a.iter().map(|a| a.1).eq(b.iter().map(|b| b.1))
        };
        if !alike(&c.args, &f.params) || !alike(&c.results, &f.results) {
            let detail = format!("`{}` takes and gives other sizes than the call", f.name);
            return Err(Fault::BadOperand(detail));
        }
        Ok((index as u32, f))
    }

    /// Lanes leave a function, each to where it was called.
    pub(super) fn give_back(&mut self, w: &mut Warp, at: usize, pc: u32, active: u32) -> Step {
        w.groups[at].pc = pc + 1;
        w.groups[at].mask &= !active;
        for l in lanes(active) {
            let call = self.leave(w, l).map_err(|f| f.at(l as u32))?;
            join(w, call + 1, l);
        }
        w.groups.retain(|g| g.mask != 0);
        Ok(Flow::Regroup)
    }

    /// Ends a lane's innermost activation; gives the call it came from.
    fn leave(&self, w: &mut Warp, lane: usize) -> Result<u32, Fault> {
        let code = self.env.code;
        let frame = w.frames[lane].pop();
        let f = frame.as_ref().and_then(|f| code.functions.get(f.function as usize)?.as_ref());
        let (Some(frame), Some(f)) = (frame, f) else {
            return Err(Fault::BadOperand("a return from no function".into()));
        };
        if f.noreturn {
            return Err(Fault::BadOperand(format!("`{}` returns, which it must not", f.name)));
        }
        let Op::Call(c) = &code.instrs[frame.call as usize].op else {
            return Err(Fault::BadOperand("a return to no call".into()));
        };
        // What lies in registers, before those of the outer activation come back.
        let value = |(t, _): &(Taken, u32)| match t {
            Taken::Register(r) => w.lane(*r, lane),
            Taken::Frame(_) => 0,
        };
        let values: Vec<u64> = f.results.iter().map(value).collect();
        if let Some(saved) = &frame.saved {
            restore(w, lane, f, saved);
            let outer = w.frames[lane].iter().rfind(|o| o.function == frame.function);
            if let Some(base) = outer.map(|o| o.base) {
                place(w, lane, f, base);
            }
        }
        for (((taken, bytes), (passed, _)), value) in f.results.iter().zip(&c.results).zip(values) {
            match (taken, passed) {
                (Taken::Frame(offset), Passed::Memory(to)) => {
                    let to = w.addresses(to)[lane];
                    w.local.copy(lane, u64::from(frame.base + offset), to, *bytes)?;
                }
                (Taken::Frame(offset), Passed::Register(r)) => {
                    let v = load(w, lane, u64::from(frame.base + offset), *bytes)?;
                    w.set_lane(*r, lane, v);
                }
                (Taken::Register(_), Passed::Memory(to)) => {
                    let to = w.addresses(to)[lane];
                    store(w, lane, to, *bytes, value)?;
                }
                (Taken::Register(_), Passed::Register(r)) => w.set_lane(*r, lane, value),
            }
        }
        w.local.pop(lane, frame.top);
        Ok(frame.call)
    }
}

/// Puts a lane at an instruction, beside those that are there.
fn join(w: &mut Warp, pc: u32, lane: usize) {
    let depth = w.frames[lane].len() as u32;
    let here = |g: &&mut Group| g.pc == pc && g.depth == depth && !g.blocked;
    match w.groups.iter_mut().find(here) {
        Some(g) => g.mask |= 1 << lane,
        None => w.groups.push(Group { pc, mask: 1 << lane, depth, blocked: false }),
    }
}

/// Begins an activation of a function.
fn enter(
    w: &mut Warp,
    lane: usize,
    pc: u32,
    c: &Call,
    index: u32,
    f: &Function,
) -> Result<(), Fault> {
    // Before the function's registers lose what they hold: it may call itself.
    let value = |(p, _): &(Passed, u32)| match p {
        Passed::Register(r) => w.lane(*r, lane),
        Passed::Memory(a) => w.addresses(a)[lane],
    };
    let values: Vec<u64> = c.args.iter().map(value).collect();
    let again = w.frames[lane].iter().any(|o| o.function == index);
    let saved = again.then(|| save(w, lane, f));
    let Some((base, top)) = w.local.push(lane, f.frame_bytes) else {
        return Err(Fault::StackOverflow(LIMIT));
    };
    for &s in &f.r32 {
        w.r32[s as usize][lane] = NOTHING as u32;
    }
    for &s in &f.r64 {
        w.r64[s as usize][lane] = NOTHING;
    }
    for &s in &f.preds {
        w.preds[s as usize] &= !(1 << lane);
    }
    place(w, lane, f, base);
    for (((taken, bytes), (passed, _)), value) in f.params.iter().zip(&c.args).zip(values) {
        match (taken, passed) {
            (Taken::Frame(offset), Passed::Memory(_)) => {
                w.local.copy(lane, value, u64::from(base + offset), *bytes)?;
            }
            (Taken::Frame(offset), Passed::Register(_)) => {
                store(w, lane, u64::from(base + offset), *bytes, value)?;
            }
            (Taken::Register(r), Passed::Memory(_)) => {
                let v = load(w, lane, value, *bytes)?;
                w.set_lane(*r, lane, v);
            }
            (Taken::Register(r), Passed::Register(_)) => w.set_lane(*r, lane, value),
        }
    }
    w.frames[lane].push(Frame { function: index, call: pc, base, top, saved });
    Ok(())
}

/// Sets the slots that hold addresses of a frame.
fn place(w: &mut Warp, lane: usize, f: &Function, base: u32) {
    for &(s, offset) in &f.addresses32 {
        w.r32[s as usize][lane] = base.wrapping_add(offset as u32);
    }
    for &(s, offset) in &f.addresses64 {
        w.r64[s as usize][lane] = u64::from(base).wrapping_add(offset as u64);
    }
}

fn save(w: &Warp, lane: usize, f: &Function) -> Box<[u64]> {
    let r32 = f.r32.iter().map(|&s| u64::from(w.r32[s as usize][lane]));
    let r64 = f.r64.iter().map(|&s| w.r64[s as usize][lane]);
    let preds = f.preds.iter().map(|&s| u64::from(w.preds[s as usize] >> lane & 1));
    r32.chain(r64).chain(preds).collect()
}

fn restore(w: &mut Warp, lane: usize, f: &Function, saved: &[u64]) {
    let (r32, rest) = saved.split_at(f.r32.len());
    let (r64, preds) = rest.split_at(f.r64.len());
    for (&s, &v) in f.r32.iter().zip(r32) {
        w.r32[s as usize][lane] = v as u32;
    }
    for (&s, &v) in f.r64.iter().zip(r64) {
        w.r64[s as usize][lane] = v;
    }
    for (&s, &v) in f.preds.iter().zip(preds) {
        let p = &mut w.preds[s as usize];
        *p = (*p & !(1 << lane)) | (v as u32) << lane;
    }
}

pub(super) fn load(w: &Warp, lane: usize, address: u64, bytes: u32) -> Result<u64, Fault> {
    let mut v = [0; 4];
    w.local.read(lane, address, bytes, &mut v)?;
    Ok(u64::from(v[0]) | u64::from(v[1]) << 32)
}

pub(super) fn store(
    w: &mut Warp,
    lane: usize,
    address: u64,
    bytes: u32,
    v: u64,
) -> Result<(), Fault> {
    w.local.write(lane, address, bytes, &[v as u32, (v >> 32) as u32, 0, 0])
}
