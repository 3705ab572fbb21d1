//! Memory: whose it is, device and page-locked host memory, and what an address is in words.

use std::alloc::Layout;
use std::collections::HashMap;

use crate::code::{self, Fail, fail};
use crate::driver::{FIRST, Kind, SPAN, Session, State};
use crate::options::Check;
use crate::raw::HostAddress;
use crate::work::{Move, Side, Watch, Work};

/// Pages that page-locked memory is aligned to.
const PAGE: usize = 4096;
/// Freed allocations that messages know of.
const REMEMBERED: usize = 4096;

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
        if at % value.len() as u64 != 0 {
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

    /// Allocates device memory of the current context.
    pub fn alloc(&mut self, bytes: usize) -> Result<u64, Fail> {
        let (context, card) = self.current_card()?;
        if bytes == 0 {
            return Err(fail(code::INVALID_VALUE, "an allocation of 0 bytes"));
        }
        let serial = self.allocations + 1;
        let at =
            self.driver.cards[card].alloc_named(bytes as u64, &format!("allocation {serial}"))?;
        self.allocations = serial;
        self.memory.insert(
            at,
            Block {
                bytes: bytes as u64,
                context,
                card,
                serial,
                made: true,
                pool: 0,
                managed: false,
            },
        );
        Ok(at)
    }

    /// Frees device memory, once the card has done its work.
    pub fn free(&mut self, at: u64) -> Result<(), Fail> {
        self.current()?;
        let Some(block) = self.memory.get(&at) else {
            let why = match self.freed.get(&at) {
                Some((_, what)) => format!("{what} at {at:#x} was freed before"),
                None => match self.block(at) {
                    Some((base, block)) => format!(
                        "{at:#x} is byte {} of allocation {}; it begins at {base:#x}",
                        at - base,
                        block.serial
                    ),
                    None => format!("no allocation begins at {at:#x}"),
                },
            };
            return Err(fail(code::INVALID_VALUE, why));
        };
        let (card, context, managed) = (block.card, block.context, block.managed);
        if managed {
            for card in 0..self.driver.cards.len() {
                self.drain_card(card);
            }
        }
        self.drain_card(card);
        self.healthy(context)?;
        self.release(at);
        Ok(())
    }

    /// Lets go of device memory.
    pub fn release(&mut self, at: u64) {
        let Some(block) = self.memory.remove(&at) else { return };
        if block.managed {
            self.release_host(at as usize);
        } else {
            // It was the device's, or a pool's that has not come to be.
            let _ = self.driver.cards[block.card].free(at);
        }
        self.remember(at, &block);
    }

    /// Messages know of freed memory.
    fn remember(&mut self, at: u64, block: &Block) {
        if self.freed.len() >= REMEMBERED {
            self.freed.pop_first();
        }
        self.freed.insert(
            at,
            (block.bytes, format!("allocation {}, {} bytes", block.serial, block.bytes)),
        );
    }

    /// Page-locked memory of the driver's own, all zero.
    pub fn host_alloc(&mut self, bytes: usize, flags: u32) -> Result<usize, Fail> {
        let context = self.current()?;
        if bytes == 0 {
            return Err(fail(code::INVALID_VALUE, "an allocation of 0 bytes"));
        }
        if flags & !7 != 0 {
            return Err(fail(
                code::INVALID_VALUE,
                format!("flags {flags:#x} of page-locked memory, expected at most 0x7"),
            ));
        }
        let none = || fail(code::OUT_OF_MEMORY, format!("no host memory of {bytes} bytes"));
        let layout = bytes
            .checked_add(PAGE)
            .and_then(|n| Layout::from_size_align(n, 16).ok())
            .ok_or_else(none)?;
        // SAFETY: the layout is not of 0 bytes.
        let got = unsafe { std::alloc::alloc_zeroed(layout) };
        if got.is_null() {
            return Err(none());
        }
        let got = got as usize;
        let at = got.next_multiple_of(PAGE);
        let serial = self.handle(Kind::Pool);
        self.host.insert(
            at,
            Host {
                bytes,
                owned: Some((got, layout)),
                context,
                flags,
                writes: 0,
                serial,
                managed: false,
                exposed: false,
            },
        );
        Ok(at)
    }

    /// Takes a program's own memory for page-locked from now on.
    pub fn host_register(&mut self, at: usize, bytes: usize, flags: u32) -> Result<(), Fail> {
        let context = self.current()?;
        if at == 0 || bytes == 0 || at.checked_add(bytes).is_none() {
            return Err(fail(code::INVALID_VALUE, format!("{bytes} bytes at {at:#x} to register")));
        }
        let before = self.host.range(..at + bytes).next_back();
        if before.is_some_and(|(&base, host)| base + host.bytes > at) {
            return Err(fail(
                code::HOST_MEMORY_ALREADY_REGISTERED,
                format!("{bytes} bytes at {at:#x} are page-locked already"),
            ));
        }
        let serial = self.handle(Kind::Pool);
        self.host.insert(
            at,
            Host {
                bytes,
                owned: None,
                context,
                flags,
                writes: 0,
                serial,
                managed: false,
                exposed: false,
            },
        );
        Ok(())
    }

    /// Ends page-locked memory, once nothing pending uses it.
    pub fn host_end(&mut self, at: usize, owned: bool) -> Result<(), Fail> {
        self.current()?;
        let found =
            self.host.get(&at).filter(|host| host.owned.is_some() == owned && !host.managed);
        if found.is_none() {
            return Err(if owned {
                fail(
                    code::INVALID_VALUE,
                    format!("no page-locked memory of the driver begins at {at:#x}"),
                )
            } else {
                fail(
                    code::HOST_MEMORY_NOT_REGISTERED,
                    format!("no registered memory begins at {at:#x}"),
                )
            });
        }
        for card in 0..self.driver.cards.len() {
            self.drain_card(card);
        }
        self.release_host(at);
        self.current().map(|_| ())
    }

    pub fn release_host(&mut self, at: usize) {
        if let Some((got, layout)) = self.host.remove(&at).and_then(|host| host.owned) {
            // SAFETY: made by `host_alloc` with this layout; nothing pending uses it: callers ran all work or dropped it.
            unsafe { std::alloc::dealloc(got as *mut u8, layout) }
        }
    }

    /// Stream-ordered memory of a pool.
    pub fn alloc_async(&mut self, bytes: usize, pool: u64, stream: u64) -> Result<u64, Fail> {
        if bytes == 0 {
            return Err(fail(code::INVALID_VALUE, "an allocation of 0 bytes"));
        }
        let context = self.streams.get(&stream).map_or(0, |queue| queue.context);
        let card = self.context(context)?.card;
        let device = &self.driver.cards[card];
        let used = device.used_bytes() + self.promised[card];
        let have = self.driver.options.memory_bytes.saturating_sub(used);
        let bytes = bytes as u64;
        if bytes > have {
            return Err(fail(
                code::OUT_OF_MEMORY,
                format!("out of device memory: need {bytes} bytes, have {have}"),
            ));
        }
        let at = device.reserve(bytes)?;
        self.allocations += 1;
        self.promised[card] += bytes;
        let serial = self.allocations;
        self.memory
            .insert(at, Block { bytes, context, card, serial, made: false, pool, managed: false });
        self.give(stream, Work::Alloc { card, at, bytes, serial }, Vec::new())?;
        Ok(at)
    }

    /// Frees stream-ordered memory in stream order: what is given from now on may not use it.
    pub fn free_async(&mut self, at: u64, stream: u64) -> Result<(), Fail> {
        let Some(block) = self.memory.get(&at) else {
            let why = match self.freed.get(&at) {
                Some((_, what)) => format!("{what} at {at:#x} was freed before"),
                None => format!("no allocation begins at {at:#x}"),
            };
            return Err(fail(code::INVALID_VALUE, why));
        };
        if block.pool == 0 {
            let serial = block.serial;
            return Err(fail(
                code::INVALID_VALUE,
                format!("allocation {serial} at {at:#x} is not stream-ordered"),
            ));
        }
        let card = block.card;
        if let Some(block) = self.memory.remove(&at) {
            self.remember(at, &block);
        }
        self.give(stream, Work::Free { card, at }, Vec::new())?;
        Ok(())
    }

    /// Memory that host and cards address alike.
    pub fn alloc_managed(&mut self, bytes: usize) -> Result<u64, Fail> {
        let (context, card) = self.current_card()?;
        let at = self.host_alloc(bytes, 0)?;
        self.allocations += 1;
        let serial = self.allocations;
        if let Some(host) = self.host.get_mut(&at) {
            host.managed = true;
        }
        let at = at as u64;
        self.memory.insert(
            at,
            Block {
                bytes: bytes as u64,
                context,
                card,
                serial,
                made: true,
                pool: 0,
                managed: true,
            },
        );
        Ok(at)
    }
}
