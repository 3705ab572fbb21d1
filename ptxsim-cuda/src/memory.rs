//! Memory: whose it is, what an address is in words, and the copies and fills that are given of it.

use std::alloc::Layout;
use std::collections::HashMap;

use crate::code::{self, Fail, fail};
use crate::driver::{FIRST, SPAN, Session, State};
use crate::options::Check;
use crate::raw::HostAddress;
use crate::work::{Move, Side, Watch, Work};

/// Device memory that a program allocated.
#[derive(Debug)]
pub(crate) struct Block {
    pub bytes: u64,
    pub context: u64,
    pub card: usize,
    /// The how many-th allocation of the run, as messages call it.
    pub serial: u64,
    /// Stream-ordered memory comes to be when its stream gets there.
    pub made: bool,
    /// The pool that it is of; 0 where it is of none.
    pub pool: u64,
    /// Host memory that cards address too.
    pub managed: bool,
}

impl Block {
    /// Memory that is there from now on, of no pool, and the device's alone.
    pub fn new(bytes: u64, context: u64, card: usize, serial: u64) -> Block {
        Block { bytes, context, card, serial, made: true, pool: 0, managed: false }
    }
}

/// Page-locked host memory.
#[derive(Debug)]
pub(crate) struct Host {
    pub bytes: usize,
    /// The driver's own; none for registered memory.
    pub owned: Option<(usize, Layout)>,
    pub context: u64,
    pub flags: u32,
    /// Times the driver wrote to it.
    pub writes: u64,
    /// No other memory has it.
    pub serial: u64,
    pub managed: bool,
    /// A program asked for its device address.
    pub exposed: bool,
}

/// `CU_MEMHOSTALLOC_DEVICEMAP`, `CU_MEMHOSTREGISTER_DEVICEMAP`.
const DEVICE_MAP: u32 = 2;

impl Host {
    /// Kernels may address all of it.
    pub fn mapped(&self) -> bool {
        self.managed || self.exposed || self.flags & DEVICE_MAP != 0
    }
}

/// A pool of stream-ordered memory.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub card: usize,
    /// A card's own is never destroyed.
    pub default: bool,
    /// What was set, by attribute.
    pub set: HashMap<u32, u64>,
}

/// Where one end of a copy is, as the caller gave it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Device(u64),
    Host(usize),
    /// Decided by the address.
    Any(u64),
}

/// The shape of a copy: rows of so many bytes, each end with its pitch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub row: usize,
    pub rows: usize,
    pub from_pitch: usize,
    pub to_pitch: usize,
}

impl Shape {
    pub fn line(bytes: usize) -> Shape {
        Shape { row: bytes, rows: 1, from_pitch: bytes, to_pitch: bytes }
    }

    /// Bytes from the first to the last, of one end.
    fn span(&self, pitch: usize) -> Option<usize> {
        let rows = self.rows.checked_sub(1)?;
        let span = rows.checked_mul(pitch)?.checked_add(self.row)?;
        isize::try_from(span).is_ok().then_some(span)
    }
}

/// How far a copy may go on after the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The call returns when it is done, whatever the memory.
    Always,
    /// As the memory allows: pageable host memory is staged (in) or waited for (out).
    Memory,
}

/// A range whose place is known.
enum Found {
    Card(usize, u64),
    Pinned(usize),
    Pageable(usize),
}

impl State {
    /// The block that holds a range of device memory; none for module variables.
    pub fn block(&self, at: u64) -> Option<(u64, &Block)> {
        let (&base, block) = self.memory.range(..=at).next_back()?;
        (at - base < block.bytes).then_some((base, block))
    }

    /// The page-locked memory that holds a range.
    pub fn pinned(&self, at: usize, bytes: usize) -> Option<(usize, &Host)> {
        let (&base, host) = self.host.range(..=at).next_back()?;
        (at.checked_add(bytes)? <= base + host.bytes).then_some((base, host))
    }
}

impl Session {
    /// The card whose addresses these are.
    pub fn card_of(&self, at: u64) -> Option<usize> {
        let card = usize::try_from(at.checked_sub(FIRST)? / SPAN).ok()?;
        (card < self.driver.cards.len()).then_some(card)
    }

    /// What an address is, for messages; none where there is nothing to add.
    pub fn about(&self, at: u64, card: usize) -> Option<String> {
        if let Some((base, block)) = self.block(at) {
            if block.card != card && !block.managed {
                return Some(format!(
                    "{at:#x} is memory of card {} (byte {} of allocation {}), not of card {card}",
                    block.card,
                    at - base,
                    block.serial
                ));
            }
            return (!block.made).then(|| {
                format!("allocation {} at {base:#x} is stream-ordered, and its stream has not come to it", block.serial)
            });
        }
        if let Some((&base, (bytes, what))) = self.freed.range(..=at).next_back()
            && at - base < *bytes
        {
            return Some(format!("{at:#x} is freed memory (byte {} of {what})", at - base));
        }
        if let Some((base, host)) = self.pinned(at as usize, 1) {
            return Some(format!(
                "{at:#x} is page-locked host memory (byte {} of {} bytes)",
                at as usize - base,
                host.bytes
            ));
        }
        let of = self.card_of(at)?;
        (of != card).then(|| format!("{at:#x} is an address of card {of}, not of card {card}"))
    }

    /// Whether an address is of memory that a program gave back, be it still there for work before.
    fn was_freed(&self, at: u64) -> bool {
        self.freed.range(..=at).next_back().is_some_and(|(&base, (bytes, _))| at - base < *bytes)
    }

    /// Checks a range of device memory that is used by the current context; the card it is of.
    fn device_range(&self, at: u64, bytes: usize, current: Option<usize>) -> Result<usize, Fail> {
        let wrong = |why: String| {
            fail(code::INVALID_VALUE, format!("{bytes} bytes of device memory at {at:#x}: {why}"))
        };
        let near = || {
            self.about(at, current.unwrap_or(usize::MAX))
                .unwrap_or_else(|| "no allocation there".into())
        };
        let found = match self.block(at) {
            Some((base, block)) => Some((base, block.bytes, block.card)),
            None if self.was_freed(at) => None,
            // A module's variable.
            None => self.card_of(at).and_then(|card| {
                let (base, bytes) = self.driver.cards[card].holding(at)?;
                Some((base, bytes, card))
            }),
        };
        let Some((base, size, card)) = found.filter(|&(base, size, _)| at - base < size) else {
            return Err(wrong(near()));
        };
        if bytes as u64 > size - (at - base) {
            return Err(wrong(format!("the allocation of {size} bytes at {base:#x} ends before")));
        }
        let managed = self.block(at).is_some_and(|(_, block)| block.managed);
        if let Some(current) = current
            && !managed
            && card != current
            && !self.peers(current, card)
        {
            let said = format!(
                "{bytes} bytes at {at:#x} are of card {card}, the current context is on card {current}"
            );
            match self.driver.options.check {
                Check::Strict => return Err(fail(code::INVALID_VALUE, said)),
                Check::Warn => crate::report::say(&format!("warning: {said}")),
                Check::Off => {}
            }
        }
        Ok(card)
    }

    /// Whether a context of one card was given access to another's memory.
    fn peers(&self, card: usize, other: usize) -> bool {
        let contexts = self.contexts.values().filter(|c| c.card == card);
        contexts
            .flat_map(|c| &c.peers)
            .any(|peer| self.contexts.get(peer).is_some_and(|c| c.card == other))
    }

    fn find(&self, end: End, span: usize, current: Option<usize>) -> Result<Found, Fail> {
        let host = |at: usize| {
            if at == 0 {
                return Err(fail(
                    code::INVALID_VALUE,
                    format!("a copy of {span} bytes from or to a null pointer"),
                ));
            }
            if self.card_of(at as u64).is_some() {
                return Err(fail(
                    code::INVALID_VALUE,
                    format!("{at:#x} is a device address, a host address is expected"),
                ));
            }
            if at.checked_add(span).is_none() {
                return Err(fail(
                    code::INVALID_VALUE,
                    format!("{span} bytes at {at:#x} pass the end of all addresses"),
                ));
            }
            Ok(if self.pinned(at, span).is_some() {
                Found::Pinned(at)
            } else {
                Found::Pageable(at)
            })
        };
        if let End::Device(at) | End::Any(at) = end
            && self.card_of(at).is_none()
            && self.pinned(at as usize, span).is_some()
        {
            // Managed and mapped memory has one address.
            return Ok(Found::Pinned(at as usize));
        }
        match end {
            End::Device(at) => Ok(Found::Card(self.device_range(at, span, current)?, at)),
            End::Host(at) => host(at),
            End::Any(at) if self.card_of(at).is_some() => {
                Ok(Found::Card(self.device_range(at, span, None)?, at))
            }
            End::Any(at) => host(at as usize),
        }
    }

    /// A copy on a stream.
    pub fn copy(
        &mut self,
        stream: u64,
        from: End,
        to: End,
        shape: Shape,
        wait: Wait,
    ) -> Result<(), Fail> {
        let current =
            self.streams.get(&stream).and_then(|s| self.contexts.get(&s.context)).map(|c| c.card);
        self.copy_between(stream, from, to, shape, wait, current)
    }

    /// A copy whose device addresses may be of any card where `current` is none.
    pub fn copy_between(
        &mut self,
        stream: u64,
        from: End,
        to: End,
        shape: Shape,
        wait: Wait,
        current: Option<usize>,
    ) -> Result<(), Fail> {
        if shape.row == 0 || shape.rows == 0 {
            return Ok(());
        }
        let too_large =
            || fail(code::INVALID_VALUE, "a copy of more bytes than there are addresses");
        let from_span = shape.span(shape.from_pitch).ok_or_else(too_large)?;
        let to_span = shape.span(shape.to_pitch).ok_or_else(too_large)?;
        let mut blocks = wait == Wait::Always;
        let from = match self.find(from, from_span, current)? {
            Found::Card(card, at) => Side::Card { card, at, pitch: shape.from_pitch },
            Found::Pinned(at) => {
                let from = HostAddress(at);
                let watch = Watch::new(self, from, shape);
                Side::Host { at: from, pitch: shape.from_pitch, watch }
            }
            Found::Pageable(at) if wait == Wait::Always => {
                Side::Host { at: HostAddress(at), pitch: shape.from_pitch, watch: None }
            }
            Found::Pageable(at) => {
                let mut staged = Vec::new();
                let bytes = shape
                    .row
                    .checked_mul(shape.rows)
                    .filter(|&n| staged.try_reserve_exact(n).is_ok());
                bytes.ok_or_else(|| fail(code::OUT_OF_MEMORY, "no host memory to stage a copy"))?;
                for row in 0..shape.rows {
                    // SAFETY: the caller of the copy promised `from_span` bytes there, until the call returns.
                    staged.extend_from_slice(unsafe {
                        HostAddress(at).bytes(row * shape.from_pitch, shape.row)
                    });
                }
                Side::Staged(staged)
            }
        };
        let to = match self.find(to, to_span, current)? {
            Found::Card(card, at) => Side::Card { card, at, pitch: shape.to_pitch },
            Found::Pinned(at) => {
                Side::Host { at: HostAddress(at), pitch: shape.to_pitch, watch: None }
            }
            Found::Pageable(at) => {
                blocks = true;
                Side::Host { at: HostAddress(at), pitch: shape.to_pitch, watch: None }
            }
        };
        let work = Work::Move(Box::new(Move { from, to, row: shape.row, rows: shape.rows }));
        let position = self.give(stream, work, Vec::new())?;
        if blocks {
            let context = self.streams.get(&stream).map_or(0, |s| s.context);
            self.reach(stream, position, crate::order::Why::Wait);
            self.healthy(context)?;
        }
        Ok(())
    }

    /// Fills rows of values of 1, 2 or 4 bytes.
    pub fn fill(
        &mut self,
        stream: u64,
        at: u64,
        value: &[u8],
        (count, rows, pitch): (usize, usize, usize),
    ) -> Result<(), Fail> {
        let row = count.checked_mul(value.len()).ok_or_else(|| {
            fail(code::INVALID_VALUE, "a fill of more bytes than there are addresses")
        })?;
        if row == 0 || rows == 0 {
            return Ok(());
        }
        if !at.is_multiple_of(value.len() as u64) {
            return Err(fail(
                code::INVALID_VALUE,
                format!("{at:#x} is no multiple of the {} bytes of a value", value.len()),
            ));
        }
        if rows > 1 && pitch < row {
            return Err(fail(
                code::INVALID_VALUE,
                format!("rows of {row} bytes, {pitch} bytes apart"),
            ));
        }
        let shape = Shape { row, rows, from_pitch: pitch, to_pitch: pitch };
        let span = shape.span(pitch).ok_or_else(|| {
            fail(code::INVALID_VALUE, "a fill of more bytes than there are addresses")
        })?;
        let current =
            self.streams.get(&stream).and_then(|s| self.contexts.get(&s.context)).map(|c| c.card);
        let card = if self.card_of(at).is_none() && self.pinned(at as usize, span).is_some() {
            None
        } else {
            Some(self.device_range(at, span, current)?)
        };
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(row.min(1 << 16)).map_err(|_| code::OUT_OF_MEMORY)?;
        // A multiple of 4 bytes, or the whole row.
        while bytes.len() < row.min(1 << 16) {
            bytes.extend_from_slice(value);
        }
        self.give(
            stream,
            Work::Fill(Box::new(crate::work::Fill { card, at, pitch, row, rows, pattern: bytes })),
            Vec::new(),
        )?;
        Ok(())
    }
}
