//! Pieces of work, and how they are done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ptxsim::{Arg, Counters, LaunchConfig, Module};

use crate::code::{self, Fail, fail};
use crate::driver::{Driver, Session};
use crate::memory::Shape;
use crate::options::Check;
use crate::order::{Piece, draw};
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
    pub card: usize,
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
    let done = session.unlocked(|driver| {
        catch_unwind(AssertUnwindSafe(|| perform(driver, &piece.work, number))).unwrap_or_else(
            |_| Err(fail(code::UNKNOWN, "the simulator failed; this is a fault of it")),
        )
    });
    let done = done.map_err(|failed| explain(session, card, failed))?;
    if let Some(clock) = session.clocks.get_mut(card) {
        // Nothing takes no time at all.
        *clock += done.nanoseconds.max(1.0);
    }
    if let Some(at) = done.wrote
        && let Some((base, _)) = session.pinned(at, 1)
        && let Some(host) = session.host.get_mut(&base)
    {
        host.writes += 1;
    }
    if let Some(counters) = &done.counters {
        session.tally.launch(counters);
    }
    if let Work::Mark { event } = piece.work {
        let now = session.clocks.get(card).copied();
        if let Some(event) = session.events.get_mut(&event)
            && event.at == Some((stream, piece.position))
        {
            event.time = now;
        }
    }
    Ok(())
}

fn perform(driver: &Driver, work: &Work, number: u64) -> Result<Done, Fail> {
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
            let card = &driver.cards[fill.card];
            for r in 0..fill.rows {
                let mut at = fill.at + (r * fill.pitch) as u64;
                let mut left = fill.row;
                while left > 0 {
                    let n = left.min(fill.pattern.len());
                    card.write(at, &fill.pattern[..n]).map_err(lost)?;
                    at += n as u64;
                    left -= n;
                }
            }
            Ok(done((fill.row * fill.rows) as f64 / 256.0))
        }
        Work::Launch(launch) => {
            let mut config = launch.config.clone();
            config.seed = draw(driver.options.seed, number, 0);
            let card = &driver.cards[launch.card];
            let counters = card.launch(&launch.module, &launch.kernel, config, &launch.args)?;
            let nanoseconds = counters.total().total.warps as f64 + 1000.0;
            Ok(Done { counters: Some(counters), ..done(nanoseconds) })
        }
        Work::Mark { .. } | Work::Wait => Ok(done(0.0)),
    }
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
