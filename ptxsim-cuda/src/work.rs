//! Pieces of work, and how they are done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use ptxsim::{Arg, Counters, LaunchConfig, Module};

use crate::code::{self, Fail, fail};
use crate::driver::{Driver, Session};
use crate::memory::Shape;
use crate::options::Check;
use crate::order::{Piece, Stream, draw};
use crate::raw::HostAddress;

#[derive(Debug)]
pub(crate) enum Work {
    Move(Box<Move>),
    Fill(Box<Fill>),
    Launch(Box<Launch>),
    /// An event's point.
    Mark {
        event: u64,
    },
    /// Only its needs.
    Wait,
    /// A host function; a callback's (the older kind) also gets its stream.
    Call {
        function: usize,
        data: usize,
        stream: Option<u64>,
    },
    /// Stream-ordered memory comes to be, and ends.
    Alloc {
        card: usize,
        at: u64,
        bytes: u64,
        serial: u64,
    },
    Free {
        card: usize,
        at: u64,
    },
}

/// One end of a copy.
#[derive(Debug)]
pub(crate) enum Side {
    Card {
        card: usize,
        at: u64,
        pitch: usize,
    },
    /// Host memory that lives until the work is done: page-locked, or the call waits.
    Host {
        at: HostAddress,
        pitch: usize,
        watch: Option<Watch>,
    },
    Staged(Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct Move {
    pub from: Side,
    pub to: Side,
    pub row: usize,
    pub rows: usize,
}

#[derive(Debug)]
pub(crate) struct Fill {
    /// None: host memory that the card addresses too.
    pub card: Option<usize>,
    pub at: u64,
    pub pitch: usize,
    pub row: usize,
    pub rows: usize,
    /// Whole values, as long as a row or 64 KiB of it.
    pub pattern: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Launch {
    pub card: usize,
    pub module_handle: u64,
    pub module: Arc<Module>,
    pub kernel: String,
    pub config: LaunchConfig,
    pub args: Vec<Arg>,
    /// Page-locked memory that an argument points to.
    pub hosts: Vec<usize>,
}

/// What page-locked memory held when a copy from it was given: the program may not change it before the copy has run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    hash: u64,
    /// Of the memory: which, and how often the driver wrote to it.
    serial: u64,
    writes: u64,
    callbacks: u64,
}

impl Watch {
    pub fn new(state: &Session, at: HostAddress, shape: Shape) -> Option<Watch> {
        let (_, host) = state.pinned(at.0, shape.row)?;
        let hash = hash(at, shape.from_pitch, shape.row, shape.rows);
        Some(Watch { hash, serial: host.serial, writes: host.writes, callbacks: state.callbacks })
    }

    /// Whether the bytes changed, and by nothing the driver did.
    fn broken(
        &self,
        state: &Session,
        at: HostAddress,
        (pitch, row, rows): (usize, usize, usize),
    ) -> bool {
        let same = state
            .pinned(at.0, row)
            .is_some_and(|(_, host)| (host.serial, host.writes) == (self.serial, self.writes));
        same && state.callbacks == self.callbacks && hash(at, pitch, row, rows) != self.hash
    }
}

fn hash(at: HostAddress, pitch: usize, row: usize, rows: usize) -> u64 {
    let mut sum = 0u64;
    for r in 0..rows {
        // SAFETY: the caller of the copy promised the bytes until it has run.
        let bytes = unsafe { at.bytes(r * pitch, row) };
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let word = word.try_into().map_or(0, u64::from_le_bytes);
            sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        for &byte in words.remainder() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
    sum
}

/// What a piece of work did, for the books.
struct Done {
    nanoseconds: f64,
    counters: Option<Counters>,
    /// Host memory that was written.
    wrote: Option<usize>,
}

/// Does a piece of work with no lock held.
pub(crate) fn run(
    session: &mut Session,
    context: u64,
    stream: u64,
    piece: Piece,
) -> Result<(), Fail> {
    let card = session.contexts.get(&context).map_or(0, |context| context.card);
    if let Work::Move(copy) = &piece.work
        && let Side::Host { at, pitch, watch: Some(watch) } = copy.from
        && watch.broken(session, at, (pitch, copy.row, copy.rows))
    {
        return Err(fail(
            code::LAUNCH_FAILED,
            format!(
                "the page-locked memory at {:#x} was changed by the host before the copy of {} bytes from it had run (stream {stream:#x})",
                at.0,
                copy.row * copy.rows
            ),
        ));
    }
    session.launches += u64::from(matches!(piece.work, Work::Launch(_)));
    let number = session.launches;
    let shared = match &piece.work {
        Work::Launch(launch) => shared_memory(session, launch),
        _ => Vec::new(),
    };
    // It begins when it was given, what it needs is done, and its stream has come to it.
    let own = session.streams.get(&stream).map_or(0.0, Stream::end);
    let mut start = piece.given_at.max(own);
    for &(of, position) in &piece.needs {
        start = start.max(session.streams.get(&of).map_or(0.0, |queue| queue.end_of(position)));
    }
    let done = session.unlocked(|driver| {
        catch_unwind(AssertUnwindSafe(|| perform(driver, &piece.work, number, &shared)))
            .unwrap_or_else(|_| {
                Err(fail(code::UNKNOWN, "the simulator failed; this is a fault of it"))
            })
    });
    if let Some(device) = session.driver.cards.get(card) {
        crate::report::printed(&device.take_printed());
    }
    if let Work::Alloc { card, bytes, .. } = piece.work {
        session.promised[card] -= bytes;
    }
    let done = done.map_err(|failed| explain(session, card, failed))?;
    // Nothing takes no time at all.
    let end = start + done.nanoseconds.max(1.0);
    if let Some(queue) = session.streams.get_mut(&stream) {
        queue.ended(end);
    }
    for at in done.wrote.into_iter().chain(shared.iter().map(|range| range.at)) {
        if let Some((base, _)) = session.pinned(at, 1)
            && let Some(host) = session.host.get_mut(&base)
        {
            host.writes += 1;
        }
    }
    if let Some(counters) = &done.counters {
        session.tally.launch(counters);
    }
    match piece.work {
        Work::Mark { event } => {
            if let Some(event) = session.events.get_mut(&event)
                && event.at == Some((stream, piece.position))
            {
                event.time = Some(end);
            }
        }
        Work::Call { .. } => session.callbacks += 1,
        Work::Alloc { at, .. } => {
            if let Some(block) = session.memory.get_mut(&at) {
                block.made = true;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Host memory that a card's kernels address: copied to the card before a launch, and what changed back after it.
struct Range {
    at: usize,
    bytes: usize,
}

/// What a launch may touch of it: managed memory, mapped memory, and what its arguments point to.
fn shared_memory(session: &Session, launch: &Launch) -> Vec<Range> {
    let hosts = session.host.iter().filter(|(at, host)| host.mapped() || launch.hosts.contains(at));
    hosts.map(|(&at, host)| Range { at, bytes: host.bytes }).collect()
}

/// Runs a launch with the shared memory on its card.
fn with_shared(
    driver: &Driver,
    card: usize,
    shared: &[Range],
    launch: impl FnOnce() -> Result<Done, Fail>,
) -> Result<Done, Fail> {
    if shared.is_empty() {
        return launch();
    }
    // One launch at a time has it on the card.
    let _one = driver.shared[card].lock().unwrap_or_else(PoisonError::into_inner);
    let device = &driver.cards[card];
    let mut before = Vec::with_capacity(shared.len());
    for range in shared {
        let at = range.at as u64;
        if device.holding(at).is_none() {
            device.alloc_at(at, range.bytes as u64, "host memory")?;
        }
        // SAFETY: page-locked or managed memory, which is freed only when all work is done. A program that writes it
        // while a kernel may use it has a race of its own, as on a card.
        let bytes = unsafe { HostAddress(range.at).bytes(0, range.bytes) }.to_vec();
        device.write(at, &bytes).map_err(lost)?;
        before.push(bytes);
    }
    let done = launch();
    for (range, before) in shared.iter().zip(&before) {
        let mut after = vec![0; range.bytes];
        device.read_any(range.at as u64, &mut after).map_err(lost)?;
        // Only what the kernel changed: the host may have written elsewhere.
        for (i, (new, old)) in after.iter().zip(before).enumerate() {
            if new != old {
                // SAFETY: as above.
                let byte = unsafe { HostAddress(range.at).bytes_mut(i, 1) };
                byte[0] = *new;
            }
        }
        device.free(range.at as u64).map_err(lost)?;
    }
    done
}

fn perform(driver: &Driver, work: &Work, number: u64, shared: &[Range]) -> Result<Done, Fail> {
    let done = |nanoseconds: f64| Done { nanoseconds, counters: None, wrote: None };
    match work {
        Work::Move(copy) => {
            perform_move(driver, copy)?;
            let wrote = match copy.to {
                Side::Host { at, .. } => Some(at.0),
                _ => None,
            };
            Ok(Done { wrote, ..done((copy.row * copy.rows) as f64 / 16.0) })
        }
        Work::Fill(fill) => {
            for r in 0..fill.rows {
                let mut at = fill.at + (r * fill.pitch) as u64;
                let mut left = fill.row;
                while left > 0 {
                    let n = left.min(fill.pattern.len());
                    let bytes = &fill.pattern[..n];
                    match fill.card {
                        Some(card) => driver.cards[card].write(at, bytes).map_err(lost)?,
                        // SAFETY: managed memory, which is freed only when all work is done.
                        None => unsafe { HostAddress(at as usize).bytes_mut(0, n) }
                            .copy_from_slice(bytes),
                    }
                    at += n as u64;
                    left -= n;
                }
            }
            Ok(done((fill.row * fill.rows) as f64 / 256.0))
        }
        Work::Launch(launch) => {
            let mut config = launch.config.clone();
            config.seed = draw(driver.options.seed, number, 0);
            with_shared(driver, launch.card, shared, || {
                let card = &driver.cards[launch.card];
                let counters = card.launch(&launch.module, &launch.kernel, config, &launch.args)?;
                let nanoseconds = counters.total().total.warps as f64 + 1000.0;
                Ok(Done { counters: Some(counters), ..done(nanoseconds) })
            })
        }
        &Work::Call { function, data, stream } => {
            call_host(function, data, stream);
            Ok(done(0.0))
        }
        &Work::Alloc { card, at, bytes, serial } => {
            driver.cards[card].alloc_at(at, bytes, &format!("allocation {serial}"))?;
            Ok(done(0.0))
        }
        &Work::Free { card, at } => {
            driver.cards[card].free(at).map_err(lost)?;
            Ok(done(0.0))
        }
        Work::Mark { .. } | Work::Wait => Ok(done(0.0)),
    }
}

/// Calls a program's function.
fn call_host(function: usize, data: usize, stream: Option<u64>) {
    crate::driver::as_callback(|| {
        // SAFETY: the caller of `cuLaunchHostFunc` or `cuStreamAddCallback` gave a function of that type, which does not
        // unwind, with its argument.
        unsafe {
            match stream {
                None => std::mem::transmute::<usize, unsafe extern "C" fn(usize)>(function)(data),
                Some(stream) => {
                    std::mem::transmute::<usize, unsafe extern "C" fn(u64, u32, usize)>(function)(
                        stream, 0, data,
                    );
                }
            }
        }
    });
}

/// A range that was good at the call and is not any more, or bytes that nobody wrote.
fn lost(error: ptxsim::Error) -> Fail {
    fail(code::LAUNCH_FAILED, error.to_string())
}

fn perform_move(driver: &Driver, copy: &Move) -> Result<(), Fail> {
    for r in 0..copy.rows {
        let on = |at: u64, pitch: usize| at + (r * pitch) as u64;
        match (&copy.from, &copy.to) {
            (
                &Side::Card { card, at, pitch },
                &Side::Card { card: to_card, at: to, pitch: to_pitch },
            ) => {
                let (at, to, bytes) = (on(at, pitch), on(to, to_pitch), copy.row as u64);
                let (from, into) = (&driver.cards[card], &driver.cards[to_card]);
                if card == to_card {
                    into.copy(to, at, bytes)
                } else {
                    into.copy_from(to, from, at, bytes)
                }
                .map_err(lost)?;
            }
            (&Side::Card { card, at, pitch }, &Side::Host { at: to, pitch: to_pitch, .. }) => {
                // SAFETY: the caller of the copy promised the bytes, to the copy alone, until it has run.
                let to = unsafe { to.bytes_mut(r * to_pitch, copy.row) };
                read(driver, card, on(at, pitch), to)?;
            }
            (&Side::Host { at, pitch, .. }, &Side::Card { card, at: to, pitch: to_pitch }) => {
                // SAFETY: the caller of the copy promised the bytes until it has run.
                let from = unsafe { at.bytes(r * pitch, copy.row) };
                driver.cards[card].write(on(to, to_pitch), from).map_err(lost)?;
            }
            (Side::Staged(bytes), &Side::Card { card, at: to, pitch: to_pitch }) => {
                let from = &bytes[r * copy.row..(r + 1) * copy.row];
                driver.cards[card].write(on(to, to_pitch), from).map_err(lost)?;
            }
            (&Side::Host { at, pitch, .. }, &Side::Host { at: to, pitch: to_pitch, .. }) => {
                // SAFETY: both were promised until the copy has run; the ranges may overlap.
                unsafe {
                    std::ptr::copy(
                        (at.0 + r * pitch) as *const u8,
                        (to.0 + r * to_pitch) as *mut u8,
                        copy.row,
                    )
                };
            }
            (Side::Staged(bytes), &Side::Host { at: to, pitch: to_pitch, .. }) => {
                // SAFETY: as above.
                unsafe { to.bytes_mut(r * to_pitch, copy.row) }
                    .copy_from_slice(&bytes[r * copy.row..(r + 1) * copy.row]);
            }
            (_, Side::Staged(_)) => return Err(fail(code::UNKNOWN, "a copy to nowhere")),
        }
    }
    Ok(())
}

/// Reads device bytes, strictly or not.
fn read(driver: &Driver, card: usize, at: u64, to: &mut [u8]) -> Result<(), Fail> {
    let device = &driver.cards[card];
    if driver.options.check == Check::Strict {
        return device.read(at, to).map_err(lost);
    }
    let unwritten = device.read_any(at, to).map_err(lost)?;
    if let Some(byte) = unwritten.filter(|_| driver.options.check == Check::Warn) {
        crate::report::say(&format!(
            "warning: a copy of {} bytes from {at:#x} to the host: byte {byte} of the allocation was never written",
            to.len()
        ));
    }
    Ok(())
}

/// Adds what the address of an error is.
fn explain(session: &Session, card: usize, mut failed: Fail) -> Fail {
    let address = failed.said.as_deref().and_then(|said| {
        let at = said.find(" at 0x")?;
        let digits: String = said[at + 6..].chars().take_while(char::is_ascii_hexdigit).collect();
        u64::from_str_radix(&digits, 16).ok()
    });
    if let Some(about) = address.and_then(|at| session.about(at, card))
        && let Some(said) = &mut failed.said
    {
        said.push_str("; ");
        said.push_str(&about);
    }
    failed
}
