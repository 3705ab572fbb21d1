//! How many blocks fit a multiprocessor: by threads, shared memory, and a fiction of registers.

use super::{kernel, unless};
use crate::code::{self, Fail, fail};
use crate::driver::Session;
use crate::raw::{In, Out};

/// Registers of a multiprocessor.
const REGISTERS: u32 = 65536;
/// Lanes of a warp.
const LANES: u32 = 32;

/// Blocks of `threads` threads that a multiprocessor holds.
fn blocks(session: &Session, function: u64, threads: u32, dynamic: usize) -> Result<u32, Fail> {
    let found = session
        .functions
        .get(&function)
        .ok_or_else(|| session.no(crate::driver::Kind::Function, function))?;
    let card = session.context(found.context)?.card;
    let config = session.driver.cards[card].config();
    unless(threads == 0, code::INVALID_VALUE, || "blocks of no threads".into())?;
    if threads > config.threads_per_block
        || found.entry.max_threads.is_some_and(|sides| threads > sides.iter().product())
    {
        return Ok(0);
    }
    let warps = threads.div_ceil(LANES);
    let shared = u64::from(found.entry.static_shared_bytes).saturating_add(dynamic as u64);
    if shared > u64::from(config.shared_bytes_per_block) {
        return Ok(0);
    }
    let by_warps = config.warps_per_multiprocessor / warps;
    let by_registers = REGISTERS / (kernel::REGISTERS as u32 * warps * LANES);
    let by_shared =
        u64::from(config.shared_bytes_per_multiprocessor).checked_div(shared).unwrap_or(u64::MAX);
    let most = config.warps_per_multiprocessor / 2;
    Ok(by_warps.min(by_registers).min(most).min(u32::try_from(by_shared).unwrap_or(u32::MAX)))
}

fn active(count: Out<i32>, function: u64, threads: i32, dynamic: usize) -> Result<(), Fail> {
    let mut session = Session::open()?;
    count.needed()?;
    let function = kernel::resolve(&mut session, function)?;
    let threads = u32::try_from(threads)
        .map_err(|_| fail(code::INVALID_VALUE, format!("blocks of {threads} threads")))?;
    let found = blocks(&session, function, threads, dynamic)?;
    count.put(found as i32)
}

/// A program's function of the shared bytes a block of so many threads needs.
type SharedOf = Option<unsafe extern "C" fn(i32) -> usize>;

fn potential(
    (grid, block): (Out<i32>, Out<i32>),
    function: u64,
    shared_of: SharedOf,
    dynamic: usize,
    limit: i32,
) -> Result<(), Fail> {
    let mut session = Session::open()?;
    grid.needed()?;
    block.needed()?;
    let function = kernel::resolve(&mut session, function)?;
    let config = session.driver.cards[session.current_card()?.1].config().clone();
    let most = if limit <= 0 {
        config.threads_per_block
    } else {
        (limit as u32).min(config.threads_per_block)
    };
    let mut best = (0, 0, 0);
    for threads in (LANES..=most.next_multiple_of(LANES))
        .step_by(LANES as usize)
        .map(|threads| threads.min(most))
    {
        // SAFETY: the caller gave a function of this type; no lock is held while it runs.
        let shared =
            session.unlocked(|_| shared_of.map_or(dynamic, |f| unsafe { f(threads as i32) }));
        let count = blocks(&session, function, threads, shared)?;
        if count * threads >= best.0 {
            best = (count * threads, threads, count);
        }
    }
    unless(best.2 == 0, code::INVALID_VALUE, || "no block of it fits".into())?;
    grid.put((best.2 * config.multiprocessors) as i32)?;
    block.put(best.1 as i32)
}

api! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(count: Out<i32>, function: u64, threads: i32, dynamic: usize) {
        active(count, function, threads, dynamic)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: Out<i32>, function: u64, threads: i32, dynamic: usize, _flags: u32,
    ) {
        active(count, function, threads, dynamic)
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>, block: Out<i32>, function: u64, shared_of: SharedOf, dynamic: usize, limit: i32,
    ) {
        potential((grid, block), function, shared_of, dynamic, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>, block: Out<i32>, function: u64, shared_of: SharedOf, dynamic: usize, limit: i32, _flags: u32,
    ) {
        potential((grid, block), function, shared_of, dynamic, limit)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: Out<usize>, function: u64, count: i32, threads: i32) {
        let mut session = Session::open()?;
        bytes.needed()?;
        let function = kernel::resolve(&mut session, function)?;
        let found = session.functions.get(&function).ok_or(code::INVALID_HANDLE)?;
        let config = session.driver.cards[session.current_card()?.1].config();
        unless(count <= 0 || threads <= 0, code::INVALID_VALUE, || format!("{count} blocks of {threads} threads"))?;
        let each = (config.shared_bytes_per_multiprocessor / count as u32).min(config.shared_bytes_per_block);
        bytes.put(each.saturating_sub(found.entry.static_shared_bytes) as usize)
    }

    /// Clusters are not simulated: none fits.
    fn cuOccupancyMaxActiveClusters(count: Out<i32>, function: u64, _config: In<u8>) {
        let mut session = Session::open()?;
        kernel::resolve(&mut session, function)?;
        count.put(0)
    }
}
