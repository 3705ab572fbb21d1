//! Memory that host and cards address alike: managed, and mapped page-locked memory.

use super::{flags_within, unless};
use crate::code::{self, Fail, fail};
use crate::driver::Session;
use crate::raw::{self, In, Out};

/// Errors unless a range lies in managed memory.
fn managed(session: &Session, at: u64, bytes: usize) -> Result<(), Fail> {
    session.current()?;
    let found = session
        .block(at)
        .filter(|(base, block)| block.managed && at - base + bytes as u64 <= block.bytes);
    unless(found.is_none() || bytes == 0, code::INVALID_VALUE, || {
        format!("{bytes} bytes at {at:#x} are not of managed memory")
    })
}

/// Writes one attribute of a managed range (`CUmem_range_attribute`): read mostly, preferred place, those who access it,
/// last place of prefetching. Advice has no effect, and is not kept.
fn range_attribute(to: usize, bytes: usize, which: u32) -> Result<(), Fail> {
    let value = match which {
        1 => 0,
        // Nowhere.
        2..=4 => -2i32,
        _ => return Err(fail(code::INVALID_VALUE, format!("no range attribute {which}"))),
    };
    unless(bytes == 0 || bytes % 4 != 0, code::INVALID_VALUE, || {
        format!("room for {bytes} bytes of an attribute")
    })?;
    for at in (0..bytes).step_by(4) {
        // SAFETY: the caller gave room for so many bytes.
        unsafe { raw::put_at_address(to + at, value) }
    }
    Ok(())
}

api! {
    fn cuMemAllocManaged(at: Out<u64>, bytes: usize, flags: u32) {
        let mut session = Session::open()?;
        at.needed()?;
        unless(!matches!(flags, 1 | 2), code::INVALID_VALUE, || format!("flags {flags:#x}, expected 1 or 2"))?;
        at.put(session.alloc_managed(bytes)?)
    }

    /// Host memory has one address.
    fn cuMemHostGetDevicePointer_v2(to: Out<u64>, at: usize, flags: u32) {
        let mut session = Session::open()?;
        session.current()?;
        to.needed()?;
        flags_within(flags, 0)?;
        let found = session.pinned(at, 1).map(|(base, _)| base);
        let base = found.ok_or_else(|| fail(code::INVALID_VALUE, format!("{at:#x} is in no page-locked memory")))?;
        if let Some(host) = session.host.get_mut(&base) {
            host.exposed = true;
        }
        to.put(at as u64)
    }

    fn cuMemPrefetchAsync as cuMemPrefetchAsync_ptsz(at: u64, bytes: usize, device: i32, stream: u64) {
        let mut session = Session::open()?;
        session.stream(stream)?;
        managed(&session, at, bytes)?;
        // The host is -1.
        if device == -1 { Ok(()) } else { session.driver.card(device).map(|_| ()) }
    }

    /// The place is its kind (1: a device), then its number.
    fn cuMemPrefetchAsync_v2 as cuMemPrefetchAsync_v2_ptsz(at: u64, bytes: usize, place: u64, flags: u32, stream: u64) {
        let mut session = Session::open()?;
        session.stream(stream)?;
        flags_within(flags, 0)?;
        managed(&session, at, bytes)?;
        if place as u32 == 1 { session.driver.card((place >> 32) as i32).map(|_| ()) } else { Ok(()) }
    }

    fn cuMemAdvise(at: u64, bytes: usize, advice: u32, _device: i32) {
        managed(&Session::open()?, at, bytes)?;
        unless(!(1..=6).contains(&advice), code::INVALID_VALUE, || format!("no advice {advice}"))
    }

    fn cuMemAdvise_v2(at: u64, bytes: usize, advice: u32, _place: u64) {
        managed(&Session::open()?, at, bytes)?;
        unless(!(1..=6).contains(&advice), code::INVALID_VALUE, || format!("no advice {advice}"))
    }

    fn cuMemRangeGetAttribute(data: Out<u8>, size: usize, which: u32, at: u64, bytes: usize) {
        managed(&Session::open()?, at, bytes)?;
        data.needed()?;
        range_attribute(data.address(), size, which)
    }

    fn cuMemRangeGetAttributes(data: In<usize>, sizes: In<usize>, which: In<u32>, count: usize, at: u64, bytes: usize) {
        managed(&Session::open()?, at, bytes)?;
        for i in 0..count {
            range_attribute(data.at(i)?, sizes.at(i)?, which.at(i)?)?;
        }
        Ok(())
    }

    /// Managed memory is every stream's.
    fn cuStreamAttachMemAsync as cuStreamAttachMemAsync_ptsz(stream: u64, at: u64, _bytes: usize, flags: u32) {
        let mut session = Session::open()?;
        session.stream(stream)?;
        unless(!matches!(flags, 1 | 2 | 4), code::INVALID_VALUE, || format!("flags {flags:#x}, expected 1, 2 or 4"))?;
        let known = session.block(at).is_some_and(|(_, block)| block.managed);
        unless(!known, code::INVALID_VALUE, || format!("{at:#x} is in no managed memory"))
    }
}
