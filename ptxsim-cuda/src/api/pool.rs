//! Stream-ordered memory and its pools.

use super::{unless, unsupported};
use crate::code::{self, Fail, fail};
use crate::driver::{Kind, Session};
use crate::memory::Pool;
use crate::raw::{self, In, Out};

/// The pool of a card, and the one that is in use.
fn pools_of(session: &mut Session, card: usize) -> (u64, u64) {
    if let Some(&known) = session.default_pools.get(&card) {
        return known;
    }
    let handle = session.handle(Kind::Pool);
    session.pools.insert(handle, Pool { card, default: true, ..Pool::default() });
    session.default_pools.insert(card, (handle, handle));
    (handle, handle)
}

/// Errors where the cards have none.
fn available(session: &Session) -> Result<(), Fail> {
    if session.driver.options.pools {
        Ok(())
    } else {
        Err(unsupported("stream-ordered memory, which is switched off,"))
    }
}

fn pool(session: &Session, handle: u64) -> Result<&Pool, Fail> {
    session.pools.get(&handle).ok_or_else(|| session.no(Kind::Pool, handle))
}

fn alloc(at: Out<u64>, bytes: usize, from: Option<u64>, stream: u64) -> Result<(), Fail> {
    let mut session = Session::open()?;
    at.needed()?;
    available(&session)?;
    let stream = session.stream(stream)?;
    let context = session.streams.get(&stream).map_or(0, |queue| queue.context);
    let card = session.context(context)?.card;
    let handle = match from {
        Some(handle) => handle,
        None => pools_of(&mut session, card).1,
    };
    let of = pool(&session, handle)?.card;
    unless(of != card, code::INVALID_VALUE, || {
        format!("the pool is of card {of}, the stream of card {card}")
    })?;
    let got = session.alloc_async(bytes, handle, stream)?;
    at.put(got)
}

api! {
    fn cuDeviceGetDefaultMemPool(to: Out<u64>, device: i32) {
        let mut session = Session::open()?;
        let card = session.driver.card(device)?;
        available(&session)?;
        to.put(pools_of(&mut session, card).0)
    }

    fn cuDeviceGetMemPool(to: Out<u64>, device: i32) {
        let mut session = Session::open()?;
        let card = session.driver.card(device)?;
        available(&session)?;
        to.put(pools_of(&mut session, card).1)
    }

    fn cuDeviceSetMemPool(device: i32, handle: u64) {
        let mut session = Session::open()?;
        let card = session.driver.card(device)?;
        let of = pool(&session, handle)?.card;
        unless(of != card, code::INVALID_VALUE, || format!("the pool is of card {of}, not of card {card}"))?;
        let own = pools_of(&mut session, card).0;
        session.default_pools.insert(card, (own, handle));
        Ok(())
    }

    /// `CUmemPoolProps`: kind of memory, kind of handles, kind and number of the place.
    fn cuMemPoolCreate(to: Out<u64>, properties: In<[i32; 4]>) {
        let mut session = Session::open()?;
        to.needed()?;
        available(&session)?;
        let [_, _, place, device] = properties.get()?;
        unless(place != 1, code::INVALID_VALUE, || format!("a pool in place {place}, expected a device (1)"))?;
        let card = session.driver.card(device)?;
        let handle = session.handle(Kind::Pool);
        session.pools.insert(handle, Pool { card, ..Pool::default() });
        to.put(handle)
    }

    /// What is allocated of it stays until it is freed.
    fn cuMemPoolDestroy(handle: u64) {
        let mut session = Session::open()?;
        let (card, default) = (pool(&session, handle)?.card, pool(&session, handle)?.default);
        unless(default, code::INVALID_VALUE, || "a card's own pool is never destroyed".into())?;
        session.pools.remove(&handle);
        if let Some(in_use) = session.default_pools.get_mut(&card).filter(|in_use| in_use.1 == handle) {
            in_use.1 = in_use.0;
        }
        Ok(())
    }

    /// Nothing is kept that is not in use.
    fn cuMemPoolTrimTo(handle: u64, _keep: usize) {
        pool(&Session::open()?, handle).map(|_| ())
    }

    fn cuMemPoolGetAttribute(handle: u64, which: u32, value: Out<u8>) {
        let session = Session::open()?;
        value.needed()?;
        let found = pool(&session, handle)?;
        let used = session.memory.values().filter(|block| block.pool == handle).map(|block| block.bytes).sum::<u64>();
        let set = found.set.get(&which).copied();
        match which {
            // SAFETY: the value is an int: how memory may be reused.
            1..=3 => unsafe { raw::put_at_address(value.address(), set.unwrap_or(1) as u32) },
            // SAFETY: the value is 64 bits wide: a threshold, then memory reserved and used, now and at most.
            4 => unsafe { raw::put_at_address(value.address(), set.unwrap_or(0)) },
            // SAFETY: as above.
            5..=8 => unsafe { raw::put_at_address(value.address(), used) },
            _ => return Err(fail(code::INVALID_VALUE, format!("no pool attribute {which}"))),
        }
        Ok(())
    }

    fn cuMemPoolSetAttribute(handle: u64, which: u32, value: In<u8>) {
        let mut session = Session::open()?;
        pool(&session, handle)?;
        let value = match which {
            // SAFETY: the types of the attributes are as above.
            1..=3 => u64::from(unsafe { raw::get_at_address::<u32>(value.address())? }),
            // SAFETY: as above. The peaks are set to 0 alone, and are what is used now.
            4 | 6 | 8 => unsafe { raw::get_at_address::<u64>(value.address())? },
            _ => return Err(fail(code::INVALID_VALUE, format!("pool attribute {which} cannot be set"))),
        };
        if let Some(found) = session.pools.get_mut(&handle) {
            found.set.insert(which, value);
        }
        Ok(())
    }

    /// Only the card of a pool has access.
    fn cuMemPoolGetAccess(flags: Out<u32>, handle: u64, place: In<[i32; 2]>) {
        let session = Session::open()?;
        let card = pool(&session, handle)?.card;
        let [_, device] = place.get()?;
        flags.put(if session.driver.card(device)? == card { 3 } else { 0 })
    }

    fn cuMemPoolSetAccess(handle: u64, descriptions: In<[i32; 3]>, count: usize) {
        let session = Session::open()?;
        let card = pool(&session, handle)?.card;
        for at in 0..count {
            let [_, device, _] = descriptions.at(at)?;
            let other = session.driver.card(device)?;
            unless(other != card, code::INVALID_VALUE, || format!("kernels of card {other} do not reach memory of card {card}"))?;
        }
        Ok(())
    }

    fn cuMemAllocAsync as cuMemAllocAsync_ptsz(at: Out<u64>, bytes: usize, stream: u64) {
        alloc(at, bytes, None, stream)
    }

    fn cuMemAllocFromPoolAsync as cuMemAllocFromPoolAsync_ptsz(at: Out<u64>, bytes: usize, handle: u64, stream: u64) {
        alloc(at, bytes, Some(handle), stream)
    }

    fn cuMemFreeAsync as cuMemFreeAsync_ptsz(at: u64, stream: u64) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        session.free_async(at, stream)
    }
}
