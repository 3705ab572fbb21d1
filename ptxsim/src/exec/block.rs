//! A block: its warps take turns in a seeded order, meet at barriers, share memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::warp::{State, Warp};
use crate::config::MmaSums;
use crate::counters::Counts;
use crate::fault::{Fault, Stop};
use crate::ir::*;
use crate::memory::global::View;
use crate::memory::shared::Shared;
use crate::memory::tags::Who;

/// What all blocks of a launch have in common.
pub(crate) struct Env<'a> {
    pub code: &'a Code,
    pub view: View<'a>,
    pub params: Vec<u8>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub dynamic_bytes: u32,
    pub consts64: Vec<(Slot, u64)>,
    pub epoch: u32,
    pub seed: u64,
    pub sms: u32,
    pub instruction_limit: u64,
    pub collectives_order: bool,
    pub grid_id: u64,
    pub mma_sums: MmaSums,
    /// The first block, in running order, that failed: later ones need not go on.
    pub failed: AtomicU64,
}

impl Env<'_> {
    pub fn threads(&self) -> u32 {
        self.block[0] * self.block[1] * self.block[2]
    }

    pub fn warps(&self) -> usize {
        self.threads().div_ceil(32) as usize
    }

    /// Threads of one warp: 32 but for the last.
    pub fn threads_of(&self, warp: usize) -> u8 {
        (self.threads() - 32 * warp as u32).min(32) as u8
    }

    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|g| u64::from(*g)).product()
    }

    /// Index of a block from its linear number.
    pub fn block_index(&self, linear: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(linear % x) as u32, (linear / x % y) as u32, (linear / (x * y)) as u32]
    }

    /// Index of a thread in its block.
    pub fn thread_index(&self, tid: u32) -> [u32; 3] {
        let [x, y, _] = self.block;
        [tid % x, tid / x % y, tid / (x * y)]
    }
}

/// A block barrier that warps wait at.
#[derive(Debug, Clone, Default)]
pub(super) struct Barrier {
    /// Where the first warp came to it.
    pub pc: u32,
    pub count: Option<u32>,
    /// Warps that wait.
    pub warps: u32,
    /// Warps that take part: those that wait and those that only arrived.
    pub members: u32,
    /// Threads (with a count) or warps (without) that came.
    pub arrived: u32,
    pub votes: u32,
    pub voters: u32,
    pub results: Vec<(usize, BarMode, u32)>,
}

/// Where a block failed.
pub(crate) struct Failure {
    pub stop: Box<Stop>,
    pub pc: u32,
    pub warp: usize,
    pub block: u64,
}

/// The working state of one host thread; blocks run in it one after another.
pub(crate) struct Block<'a> {
    pub(super) env: &'a Env<'a>,
    pub(super) shared: Shared,
    pub counts: Vec<Counts>,
    /// Where each memory instruction last found its allocation.
    pub(super) hints: Vec<usize>,
    pub(super) who: Who,
    pub(super) barriers: Vec<Barrier>,
    /// What `printf` has printed.
    pub printed: Vec<u8>,
    warps: Vec<Warp>,
    linear: u64,
}

/// A small generator for orders (xorshift with a multiplier).
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut r = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1 | 1);
        r.next();
        r.next();
        r
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { (self.next() >> 16) % n }
    }
}

impl<'a> Block<'a> {
    pub fn new(env: &'a Env<'a>) -> Block<'a> {
        let n = env.code.instrs.len();
        Block {
            env,
            shared: Shared::default(),
            counts: vec![Counts::default(); n],
            hints: vec![0; n],
            who: Who::new(0, env.epoch),
            barriers: vec![Barrier::default(); 16],
            printed: Vec::new(),
            warps: (0..env.warps()).map(Warp::new).collect(),
            linear: 0,
        }
    }

    /// Runs one block to its end. `order` is its place in the running order.
    pub fn run(&mut self, linear: u64, order: u64) -> Result<(), Failure> {
        self.start(linear);
        let mut rng = Rng::new(self.env.seed ^ linear.wrapping_mul(0xd134_2543_de82_ef95));
        let n = self.warps.len();
        let mut turn: Vec<usize> = (0..n).collect();
        loop {
            for i in (1..n).rev() {
                turn.swap(i, rng.below(i as u64 + 1) as usize);
            }
            let mut ran = false;
            for &i in &turn {
                if self.warps[i].state != State::Ready {
                    continue;
                }
                ran = true;
                if self.env.failed.load(Relaxed) < order {
                    return Ok(());
                }
                let budget = 2000 + rng.below(6000);
                // The warp leaves the list while it runs, so that it and the block can both
                // be changed.
                let mut w = std::mem::replace(&mut self.warps[i], Warp::new(i));
                let result = self.run_warp(&mut w, budget);
                let (pc, state) = (w.pc, w.state);
                let over = w.executed > self.env.instruction_limit;
                let lane = w.live.trailing_zeros().min(31);
                self.warps[i] = w;
                let limit = Fault::InstructionLimit(self.env.instruction_limit);
                let result = if over { result.and(Err(limit.at(lane))) } else { result };
                result.map_err(|stop| Failure { stop, pc, warp: i, block: linear })?;
                match state {
                    State::Waiting(id) => self.release(id as usize),
                    State::Done => (0..16).for_each(|id| self.release(id)),
                    State::Ready => {}
                }
            }
            if !ran {
                return self.ended();
            }
        }
    }

    /// Nothing is ready: either all have ended, or the rest wait for ever.
    fn ended(&self) -> Result<(), Failure> {
        let Some(w) = self.warps.iter().find(|w| w.state != State::Done) else { return Ok(()) };
        let line = |w: &Warp| self.env.code.instrs[w.pc as usize].line;
        let waiting: Vec<String> = self
            .warps
            .iter()
            .filter_map(|w| match w.state {
                State::Waiting(id) => {
                    Some(format!("warp {} at barrier {id} (PTX line {})", w.index, line(w)))
                }
                _ => None,
            })
            .collect();
        let done = self.warps.iter().filter(|w| w.state == State::Done).count();
        let detail = format!("{done} warps have ended, waiting for ever: {}", waiting.join(", "));
        let lane = w.live.trailing_zeros().min(31);
        let stop = Fault::Deadlock(detail).at(lane);
        Err(Failure { stop, pc: w.pc, warp: w.index, block: self.linear })
    }

    fn start(&mut self, linear: u64) {
        let env = self.env;
        self.linear = linear;
        self.who = Who::new(linear, env.epoch);
        self.shared.reset(env.shared_bytes, self.warps.len());
        self.barriers.iter_mut().for_each(|b| *b = Barrier::default());
        let ctaid = env.block_index(linear);
        for w in &mut self.warps {
            let threads = env.threads_of(w.index);
            let live = if threads == 32 { u32::MAX } else { (1 << threads) - 1 };
            w.reset(env.code, live);
            for &(s, v) in &env.code.consts32 {
                w.r32[s as usize] = [v; W];
            }
            for &(s, v) in &env.consts64 {
                w.r64[s as usize] = [v; W];
            }
            for &(s, v) in &env.code.specials {
                w.r32[s as usize] = special(env, v, w.index, ctaid, linear);
            }
        }
    }

    /// Lets the warps at a barrier go when everyone it waits for has come.
    pub(super) fn release(&mut self, id: usize) {
        let b = &self.barriers[id];
        if b.members == 0 {
            return;
        }
        let running = |w: &Warp| w.state != State::Done && w.live != 0;
        let complete = match b.count {
            Some(n) => b.arrived >= n,
            None => {
                let missing =
                    self.warps.iter().filter(|w| running(w) && b.members >> w.index & 1 == 0);
                missing.count() == 0
            }
        };
        if !complete {
            return;
        }
        let b = std::mem::take(&mut self.barriers[id]);
        for &(warp, mode, mask) in &b.results {
            let w = &mut self.warps[warp];
            w.state = State::Ready;
            let all = |yes: bool| if yes { u32::MAX } else { 0 };
            match mode {
                BarMode::Popc(d) => w.set32(d, mask, &[b.votes; W]),
                BarMode::And(d) => w.set_pred(d, mask, all(b.votes == b.voters)),
                BarMode::Or(d) => w.set_pred(d, mask, all(b.votes != 0)),
                BarMode::Sync | BarMode::Arrive => {}
            }
        }
        let alive = self.warps.iter().filter(|w| running(w)).fold(0, |m, w| m | 1 << w.index);
        let everyone = b.warps & alive == alive;
        self.shared.barrier(b.members, b.warps, everyone);
    }
}

fn special(env: &Env, s: Special, warp: usize, ctaid: [u32; 3], linear: u64) -> L32 {
    let first = 32 * warp as u32;
    match s {
        Special::Tid(axis) => {
            std::array::from_fn(|l| env.thread_index(first + l as u32)[usize::from(axis)])
        }
        Special::Ntid(a) => [env.block[usize::from(a)]; W],
        Special::Ctaid(a) => [ctaid[usize::from(a)]; W],
        Special::Nctaid(a) => [env.grid[usize::from(a)]; W],
        Special::LaneId => std::array::from_fn(|l| l as u32),
        Special::WarpId => [warp as u32; W],
        Special::NWarpId => [env.warps() as u32; W],
        Special::SmId => [(linear % u64::from(env.sms)) as u32; W],
        Special::NSmId => [env.sms; W],
        Special::GridId => [env.grid_id as u32; W],
        Special::WarpSize => [32; W],
        Special::LaneMask(m) => std::array::from_fn(|l| {
            let bit = 1u32 << l;
            match m {
                LaneMask::Eq => bit,
                LaneMask::Lt => bit - 1,
                LaneMask::Le => bit | (bit - 1),
                LaneMask::Gt => !(bit | (bit - 1)),
                LaneMask::Ge => !(bit - 1),
            }
        }),
        Special::DynamicShared => [env.dynamic_bytes; W],
        Special::TotalShared => [env.shared_bytes; W],
    }
}
