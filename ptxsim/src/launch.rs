//! Launching a kernel: checks, then blocks over host threads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{LaunchConfig, SHARED_BYTES_WITHOUT_OPT_IN, WarpOrder};
use crate::counters::{Counters, Counts};
use crate::device::Device;
use crate::error::{Error, Result, Site};
use crate::exec::block::{Block, Env, Failure, Rng};
use crate::ir::{Code, Const64, ModuleData};
use crate::memory::global::View;
use crate::module::{Module, source, text};

/// One kernel argument: the bytes of its value, as a struct or number is passed by value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg(pub Vec<u8>);

impl Arg {
    /// Any value's bytes.
    pub fn bytes(bytes: &[u8]) -> Arg {
        Arg(bytes.to_vec())
    }
}

macro_rules! arg_from {
    ($($t:ty),*) => {$(
        impl From<$t> for Arg {
            fn from(v: $t) -> Arg {
                Arg(v.to_le_bytes().to_vec())
            }
        }
    )*};
}

arg_from!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Device {
    /// Runs a kernel to its end and counts what it did.
    ///
    /// # Errors
    /// Before it runs: [`Error::NoEntry`], [`Error::ParamCount`], [`Error::ParamSize`],
    /// [`Error::TargetTooNew`], [`Error::LaunchShape`], [`Error::RequiredBlock`],
    /// [`Error::SharedMemory`], [`Error::OutOfMemory`]. While it runs: any of the errors that
    /// have a [`site`](Error::site). What blocks wrote before an error stays written.
    pub fn launch(
        &self,
        module: &Module,
        entry: &str,
        config: LaunchConfig,
        args: &[Arg],
    ) -> Result<Counters> {
        let code = module.code(entry)?;
        let params = self.check(&module.data, &code, &config, args)?;
        let _one = self.launching.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = self.load(&module.data)?;
        let (allocations, epoch) = self.snapshot();
        let consts64 = code.consts64.iter().map(|&(s, c)| match c {
            Const64::Value(v) => (s, v),
            Const64::Variable(i, offset) => {
                let base = addresses.get(i as usize).copied().unwrap_or_default();
                (s, base.wrapping_add(offset as u64))
            }
        });
        let env = Env {
            code: &code,
            view: View {
                allocations,
                splits: &self.splits,
                wide_atomics: Mutex::new(()),
                check_blocks: config.check_blocks,
            },
            params,
            grid: config.grid,
            block: config.block,
            shared_bytes: shared_bytes(&code, &config) as u32,
            dynamic_bytes: config.shared_bytes,
            consts64: consts64.collect(),
            epoch,
            seed: config.seed,
            sms: self.config().multiprocessors.max(1),
            instruction_limit: config.instruction_limit,
            collectives_order: config.warp_order == WarpOrder::Collectives,
            grid_id: self.launches.load(Relaxed),
            mma_sums: self.config().mma_sums,
            failed: AtomicU64::new(u64::MAX),
        };
        let (counts, printed) = run(&env, &config);
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).extend(printed);
        let counts = counts.map_err(|f| f.into_error(&module.data, &env))?;
        let (blocks, warps) = (env.blocks(), env.blocks() * env.warps() as u64);
        let module = Arc::clone(&module.data);
        Ok(Counters { module, code: Arc::clone(&code), counts, blocks, warps })
    }

    /// Whether [`launch`](Device::launch) would let the kernel start.
    ///
    /// # Errors
    /// Those of `launch` from before the kernel runs, but for [`Error::OutOfMemory`].
    pub fn check_launch(
        &self,
        module: &Module,
        entry: &str,
        config: &LaunchConfig,
        args: &[Arg],
    ) -> Result<()> {
        let code = module.code(entry)?;
        self.check(&module.data, &code, config, args).map(|_| ())
    }

    /// Everything that can be refused before the kernel runs; returns the parameter bytes.
    fn check(
        &self,
        module: &ModuleData,
        code: &Code,
        config: &LaunchConfig,
        args: &[Arg],
    ) -> Result<Vec<u8>> {
        let kernel = || code.name.clone();
        let device = self.config();
        if module.target > device.compute_capability {
            return Err(Error::TargetTooNew {
                module: module.name.clone(),
                target: module.target,
                device: device.compute_capability,
            });
        }
        if args.len() != code.params.len() {
            return Err(Error::ParamCount {
                kernel: kernel(),
                expected: code.params.len(),
                found: args.len(),
            });
        }
        let mut params = vec![0; code.param_bytes];
        for (index, (p, a)) in code.params.iter().zip(args).enumerate() {
            if a.0.len() != p.size {
                return Err(Error::ParamSize {
                    kernel: kernel(),
                    index,
                    expected: p.size,
                    found: a.0.len(),
                });
            }
            params[p.offset..p.offset + p.size].copy_from_slice(&a.0);
        }
        let shape = |what: &str, found: u64, limit: u64| {
            if (1..=limit).contains(&found) {
                return Ok(());
            }
            Err(Error::LaunchShape { kernel: kernel(), what: what.into(), found, limit })
        };
        let [gx, gy, gz] = config.grid.map(u64::from);
        shape("grid x", gx, (1 << 31) - 1)?;
        shape("grid y", gy, 65535)?;
        shape("grid z", gz, 65535)?;
        let [bx, by, bz] = config.block.map(u64::from);
        shape("block x", bx, 1024)?;
        shape("block y", by, 1024)?;
        shape("block z", bz, 64)?;
        shape("block threads", bx * by * bz, u64::from(device.threads_per_block.min(1024)))?;
        if let Some(expected) = code.required_threads
            && expected != config.block
        {
            return Err(Error::RequiredBlock { kernel: kernel(), expected, found: config.block });
        }
        if let Some(max) = code.max_threads {
            let limit = max.iter().map(|m| u64::from(*m)).product();
            shape("block threads (.maxntid)", bx * by * bz, limit)?;
        }
        let need = shared_bytes(code, config);
        let opt_in = config.allow_large_shared;
        let fixed = u64::from(code.static_shared);
        let limit =
            if opt_in { device.shared_bytes_per_block } else { SHARED_BYTES_WITHOUT_OPT_IN };
        if need > u64::from(limit) || fixed > u64::from(SHARED_BYTES_WITHOUT_OPT_IN) {
            let hint = if fixed > u64::from(SHARED_BYTES_WITHOUT_OPT_IN) {
                "; static shared memory is limited to 49152 bytes".to_string()
            } else if opt_in {
                format!(" on sm_{}", device.compute_capability)
            } else {
                "; more needs the opt-in attribute (allow_large_shared)".to_string()
            };
            let limit = u64::from(limit);
            return Err(Error::SharedMemory { kernel: kernel(), need, fixed, limit, hint });
        }
        Ok(params)
    }
}

/// Static and dynamic shared memory of a block.
fn shared_bytes(code: &Code, config: &LaunchConfig) -> u64 {
    if config.shared_bytes == 0 {
        return u64::from(code.static_shared);
    }
    u64::from(code.dynamic_offset) + u64::from(config.shared_bytes)
}

/// Runs all blocks; on failure, the one that comes first in the running order. And what they
/// printed, up to that one.
fn run(env: &Env, config: &LaunchConfig) -> (Result<Vec<Counts>, Box<Failure>>, Vec<u8>) {
    let blocks = env.blocks();
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = if env.code.order_matters { 1 } else { config.host_threads.unwrap_or(available) };
    let threads = (wanted.max(1) as u64).min(blocks) as usize;
    let order = Order::new(blocks, config.seed);
    let next = AtomicU64::new(0);
    let work = || {
        let mut block = Block::new(env);
        let mut printed = Vec::new();
        loop {
            let turn = next.fetch_add(1, Relaxed);
            if turn >= blocks || env.failed.load(Relaxed) < turn {
                return (block.counts, None, printed);
            }
            let done = block.run(order.at(turn), turn);
            if !block.printed.is_empty() {
                printed.push((turn, std::mem::take(&mut block.printed)));
            }
            if let Err(failure) = done {
                env.failed.fetch_min(turn, Relaxed);
                return (block.counts, Some((turn, failure)), printed);
            }
        }
    };
    let results: Vec<_> = if threads == 1 {
        vec![work()]
    } else {
        std::thread::scope(|s| {
            let handles: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
            let join = |h: std::thread::ScopedJoinHandle<'_, _>| match h.join() {
                Ok(r) => r,
                // A panic of the simulator itself goes on to the caller.
                Err(panic) => std::panic::resume_unwind(panic),
            };
            handles.into_iter().map(join).collect()
        })
    };
    let mut total = vec![Counts::default(); env.code.instrs.len()];
    let mut first: Option<(u64, Failure)> = None;
    let mut printed = Vec::new();
    for (counts, failure, texts) in results {
        printed.extend(texts);
        for (t, c) in total.iter_mut().zip(&counts) {
            t.add(c);
        }
        if let Some(f) = failure
            && first.as_ref().is_none_or(|g| f.0 < g.0)
        {
            first = Some(f);
        }
    }
    let last = first.as_ref().map_or(u64::MAX, |f| f.0);
    printed.retain(|text| text.0 <= last);
    printed.sort_unstable_by_key(|text| text.0);
    let printed = printed.into_iter().flat_map(|text| text.1).collect();
    match first {
        Some((_, f)) => (Err(Box::new(f)), printed),
        None => (Ok(total), printed),
    }
}

/// A permutation of the blocks: a seeded start and a step without a common divisor. Seed 0 is
/// the order of their indices.
struct Order {
    blocks: u64,
    start: u64,
    step: u64,
}

impl Order {
    fn new(blocks: u64, seed: u64) -> Order {
        if seed == 0 {
            return Order { blocks, start: 0, step: 1 };
        }
        let mut rng = Rng::new(seed);
        let (start, mut step) = (rng.below(blocks), rng.below(blocks) | 1);
        while gcd(step, blocks) != 1 {
            step += 2;
        }
        Order { blocks, start, step }
    }

    fn at(&self, turn: u64) -> u64 {
        let v = u128::from(turn) * u128::from(self.step) + u128::from(self.start);
        (v % u128::from(self.blocks)) as u64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Failure {
    fn into_error(self, module: &ModuleData, env: &Env) -> Error {
        let i = &env.code.instrs[self.pc as usize];
        let threads = env.threads();
        let tid = (32 * self.warp as u32 + self.stop.lane).min(threads.saturating_sub(1));
        let site = Site {
            kernel: env.code.name.clone(),
            module: module.name.clone(),
            line: i.line,
            source: source(module, i.loc),
            instruction: text(module, i.line),
            block: env.block_index(self.block),
            thread: env.thread_index(tid),
        };
        self.stop.fault.into_error(site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_its_turn_once() {
        for blocks in [1, 2, 7, 12, 100] {
            for seed in 0..5 {
                let o = Order::new(blocks, seed);
                let mut seen: Vec<u64> = (0..blocks).map(|t| o.at(t)).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..blocks).collect::<Vec<_>>());
            }
        }
    }
}
