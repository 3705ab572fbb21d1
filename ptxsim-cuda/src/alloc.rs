//! Allocations: device memory, page-locked and managed memory, and memory in stream order.

use std::alloc::Layout;

use crate::code::{self, Fail, fail};
use crate::driver::{Kind, Session};
use crate::memory::{Block, Host};
use crate::work::Work;

/// Pages that page-locked memory is aligned to.
const PAGE: usize = 4096;
/// Freed allocations that messages know of.
const REMEMBERED: usize = 4096;

impl Session {
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
        self.memory.insert(at, Block::new(bytes as u64, context, card, serial));
        Ok(at)
    }

    /// Frees device memory, once the card has done its work.
    pub fn free(&mut self, at: u64) -> Result<(), Fail> {
        self.current()?;
        let block = self.memory.get(&at).ok_or_else(|| self.no_allocation(at))?;
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

    /// Why nothing that begins at an address can be freed.
    fn no_allocation(&self, at: u64) -> Fail {
        let why = match (self.freed.get(&at), self.block(at)) {
            (Some((_, what)), _) => format!("{what} at {at:#x} was freed before"),
            (None, Some((base, block))) => format!(
                "{at:#x} is byte {} of allocation {}; it begins at {base:#x}",
                at - base,
                block.serial
            ),
            (None, None) => format!("no allocation begins at {at:#x}"),
        };
        fail(code::INVALID_VALUE, why)
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
        self.keep_host(at, bytes, Some((got, layout)), context, flags);
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
        self.keep_host(at, bytes, None, context, flags);
        Ok(())
    }

    fn keep_host(
        &mut self,
        at: usize,
        bytes: usize,
        owned: Option<(usize, Layout)>,
        context: u64,
        flags: u32,
    ) {
        let serial = self.handle(Kind::Pool);
        let host = Host {
            bytes,
            owned,
            context,
            flags,
            writes: 0,
            serial,
            managed: false,
            exposed: false,
        };
        self.host.insert(at, host);
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
        let block = Block { made: false, pool, ..Block::new(bytes, context, card, serial) };
        self.memory.insert(at, block);
        self.give(stream, Work::Alloc { card, at, bytes, serial }, Vec::new())?;
        Ok(at)
    }

    /// Frees stream-ordered memory in stream order: what is given from now on may not use it.
    pub fn free_async(&mut self, at: u64, stream: u64) -> Result<(), Fail> {
        let block = self.memory.get(&at).ok_or_else(|| self.no_allocation(at))?;
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
        let block = Block { managed: true, ..Block::new(bytes as u64, context, card, serial) };
        self.memory.insert(at, block);
        Ok(at)
    }
}
