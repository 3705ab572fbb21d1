//! Allocations, page-locked memory, and what an address is.

use super::{flags_within, unless};
use crate::code::{self, Fail, fail};
use crate::driver::Session;
use crate::raw::{self, In, Out};

/// Bytes that rows of `cuMemAllocPitch` begin at multiples of.
const PITCH: usize = 512;

/// Writes an attribute of an address, by its number (`CUpointer_attribute`), as the type it has. Says whether the address is
/// known.
fn attribute(session: &Session, which: u32, at: u64, to: usize) -> Result<bool, Fail> {
    let block = session.block(at);
    let variable = session.card_of(at).filter(|_| block.is_none()).and_then(|card| {
        let (base, bytes) = session.driver.cards[card].holding(at)?;
        let context = session.primaries[card].handle;
        Some((base, bytes, card, context, 0))
    });
    let device = block.map(|(base, b)| (base, b.bytes, b.card, b.context, b.serial)).or(variable);
    let host = session.pinned(at as usize, 1);
    let known = device.is_some() || host.is_some();
    let card = device.map_or_else(
        || host.and_then(|(_, h)| session.contexts.get(&h.context)).map_or(-1, |c| c.card as i32),
        |d| d.2 as i32,
    );
    let context = device.map_or_else(|| host.map_or(0, |(_, h)| h.context), |d| d.3);
    let range = device.map_or_else(
        || host.map_or((0, 0), |(base, h)| (base as u64, h.bytes as u64)),
        |d| (d.0, d.1),
    );
    let serial = device.map_or_else(|| host.map_or(0, |(_, h)| h.serial), |d| d.4);
    let managed = block.is_some_and(|(_, b)| b.managed);
    let pool = block.map_or(0, |(_, b)| b.pool);
    let long = |value: u64| (value, 8);
    let flag = |value: bool| (u64::from(value), 1);
    let (value, bytes) = match which {
        1 => long(context),
        // Host memory or device memory.
        2 => (if device.is_some() { 2 } else { u64::from(host.is_some()) }, 4),
        // Page-locked memory is the device's at the same address.
        3 => long(if known { at } else { 0 }),
        4 => long(if host.is_some() { at } else { 0 }),
        7 => long(serial),
        8 => flag(managed),
        9 => (u64::from(card as u32), 4),
        11 => long(range.0),
        12 => long(range.1),
        13 => flag(known),
        // Synchronous operations, sharing, direct access, kinds of handles: nothing of it.
        6 | 10 | 14 | 15 | 18 => flag(false),
        // Reading and writing.
        16 => (3, 4),
        17 => long(pool),
        _ => return Err(fail(code::INVALID_VALUE, format!("no pointer attribute {which}"))),
    };
    for (i, &byte) in value.to_le_bytes()[..bytes].iter().enumerate() {
        // SAFETY: the caller gave room for the attribute's type, which has `bytes` bytes.
        unsafe { raw::put_at_address(to + i, byte) }
    }
    Ok(known)
}

api! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let session = Session::open()?;
        let (_, card) = session.current_card()?;
        let bytes = session.driver.options.memory_bytes;
        free.put_if(bytes.saturating_sub(session.driver.cards[card].used_bytes()) as usize);
        total.put_if(bytes as usize);
        Ok(())
    }

    fn cuMemAlloc_v2(at: Out<u64>, bytes: usize) {
        let mut session = Session::open()?;
        at.needed()?;
        at.put(session.alloc(bytes)?)
    }

    fn cuMemAllocPitch_v2(at: Out<u64>, pitch: Out<usize>, width: usize, height: usize, element: u32) {
        let mut session = Session::open()?;
        at.needed()?;
        pitch.needed()?;
        unless(!matches!(element, 4 | 8 | 16), code::INVALID_VALUE, || format!("elements of {element} bytes, expected 4, 8 or 16"))?;
        let row = width.checked_next_multiple_of(PITCH).ok_or(code::INVALID_VALUE)?;
        let bytes = row.checked_mul(height).ok_or_else(|| fail(code::INVALID_VALUE, "more bytes than there are addresses"))?;
        at.put(session.alloc(bytes)?)?;
        pitch.put(row)
    }

    fn cuMemFree_v2(at: u64) {
        Session::open()?.free(at)
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, size: Out<usize>, at: u64) {
        let session = Session::open()?;
        session.current()?;
        let found = session.block(at).map(|(base, block)| (base, block.bytes));
        let found = found.or_else(|| session.card_of(at).and_then(|card| session.driver.cards[card].holding(at)));
        let (first, bytes) = found.ok_or_else(|| fail(code::NOT_FOUND, format!("no allocation holds {at:#x}")))?;
        base.put_if(first);
        size.put_if(bytes as usize);
        Ok(())
    }

    fn cuMemHostAlloc(at: Out<usize>, bytes: usize, flags: u32) {
        let mut session = Session::open()?;
        at.needed()?;
        at.put(session.host_alloc(bytes, flags)?)
    }

    fn cuMemAllocHost_v2(at: Out<usize>, bytes: usize) {
        let mut session = Session::open()?;
        at.needed()?;
        at.put(session.host_alloc(bytes, 0)?)
    }

    fn cuMemFreeHost(at: usize) {
        Session::open()?.host_end(at, true)
    }

    fn cuMemHostRegister_v2(at: usize, bytes: usize, flags: u32) {
        let mut session = Session::open()?;
        flags_within(flags, 15)?;
        session.host_register(at, bytes, flags)
    }

    fn cuMemHostUnregister(at: usize) {
        Session::open()?.host_end(at, false)
    }

    fn cuMemHostGetFlags(flags: Out<u32>, at: usize) {
        let session = Session::open()?;
        session.current()?;
        let found = session.pinned(at, 1).filter(|(_, host)| host.owned.is_some());
        let (_, host) = found.ok_or_else(|| fail(code::INVALID_VALUE, format!("{at:#x} is in no page-locked memory of the driver")))?;
        flags.put(host.flags)
    }

    fn cuPointerGetAttribute(data: Out<u8>, which: u32, at: u64) {
        let session = Session::open()?;
        data.needed()?;
        let known = attribute(&session, which, at, data.address())?;
        unless(!known, code::INVALID_VALUE, || format!("{at:#x} is in no memory of the driver"))
    }

    /// Of an unknown address each attribute is null, and that is success.
    fn cuPointerGetAttributes(count: u32, which: In<u32>, data: In<usize>, at: u64) {
        let session = Session::open()?;
        for i in 0..count as usize {
            attribute(&session, which.at(i)?, at, data.at(i)?)?;
        }
        Ok(())
    }

    fn cuPointerSetAttribute(value: In<u32>, which: u32, at: u64) {
        let session = Session::open()?;
        value.get()?;
        unless(which != 6 || session.block(at).is_none(), code::INVALID_VALUE, || format!("attribute {which} of {at:#x} cannot be set"))
    }
}
