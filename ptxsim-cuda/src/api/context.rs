//! Contexts: primary ones by count, created ones, and the stack of each thread.

use super::{flags_within, unless};
use crate::code::{self, Fail, fail};
use crate::driver::{Kind, Session, with_stack};
use crate::raw::{In, Out};

/// Scheduling (0 to 2, 4), mapped host memory, keeping local memory, core dumps, synchronous memory operations.
const FLAGS: u32 = 0xff;
/// The version that `cuCtxGetApiVersion` says of contexts made by the 3.2 interface and later.
const API_VERSION: u32 = 3020;

fn create(context: Out<u64>, flags: u32, device: i32) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let card = session.driver.card(device)?;
    context.needed()?;
    flags_within(flags, FLAGS)?;
    let handle = session.handle(Kind::Context);
    session.make_context(handle, card, false, flags, API_VERSION);
    with_stack(|stack| stack.push(handle))?;
    context.put(handle)
}

fn release(device: i32, all: bool) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let card = session.driver.card(device)?;
    let primary = &mut session.primaries[card];
    let handle = primary.handle;
    if !all {
        unless(primary.count == 0, code::INVALID_CONTEXT, || {
            format!("the primary context of card {card} is not held")
        })?;
        primary.count -= 1;
        if primary.count > 0 {
            return Ok(());
        }
    }
    session.end_context(handle);
    Ok(())
}

api! {
    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) {
        let mut session = Session::open()?;
        let card = session.driver.card(device)?;
        context.needed()?;
        if session.primaries[card].handle == 0 {
            session.primaries[card].handle = session.handle(Kind::Context);
        }
        let (handle, flags) = (session.primaries[card].handle, session.primaries[card].flags);
        if !session.contexts.contains_key(&handle) {
            session.make_context(handle, card, true, flags, API_VERSION);
        }
        session.primaries[card].count += 1;
        context.put(handle)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        release(device, false)
    }

    fn cuDevicePrimaryCtxRelease(device: i32) {
        release(device, false)
    }

    fn cuDevicePrimaryCtxReset_v2(device: i32) {
        release(device, true)
    }

    fn cuDevicePrimaryCtxReset(device: i32) {
        release(device, true)
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) {
        let mut session = Session::open()?;
        let card = session.driver.card(device)?;
        flags_within(flags, FLAGS)?;
        session.primaries[card].flags = flags;
        let handle = session.primaries[card].handle;
        if let Some(context) = session.contexts.get_mut(&handle) {
            context.flags = flags;
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        let session = Session::open()?;
        let card = session.driver.card(device)?;
        let primary = &session.primaries[card];
        flags.put(primary.flags)?;
        active.put(i32::from(session.contexts.contains_key(&primary.handle)))
    }

    fn cuCtxCreate_v2(context: Out<u64>, flags: u32, device: i32) {
        create(context, flags, device)
    }

    fn cuCtxCreate_v3(context: Out<u64>, _affinity: In<u8>, _count: i32, flags: u32, device: i32) {
        create(context, flags, device)
    }

    fn cuCtxCreate_v4(context: Out<u64>, _params: In<u8>, flags: u32, device: i32) {
        create(context, flags, device)
    }

    fn cuCtxDestroy_v2(context: u64) {
        let mut session = Session::open()?;
        let primary = session.context(context)?.primary;
        unless(primary, code::INVALID_CONTEXT, || "a primary context is released, not destroyed".into())?;
        session.end_context(context);
        with_stack(|stack| {
            if stack.last() == Some(&context) {
                stack.pop();
            }
        })
    }

    fn cuCtxGetCurrent(context: Out<u64>) {
        let session = Session::open()?;
        context.put(session.current_or_null()?)
    }

    fn cuCtxSetCurrent(context: u64) {
        let session = Session::open()?;
        if context != 0 {
            session.context(context)?;
        }
        with_stack(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        })
    }

    fn cuCtxPushCurrent_v2(context: u64) {
        Session::open()?.context(context)?;
        with_stack(|stack| stack.push(context))
    }

    fn cuCtxPopCurrent_v2(context: Out<u64>) {
        let _session = Session::open()?;
        let top = with_stack(Vec::pop)?;
        context.put_if(top.unwrap_or(0));
        unless(top.is_none(), code::INVALID_CONTEXT, || "this thread has no context to pop".into())
    }

    fn cuCtxGetDevice(device: Out<i32>) {
        let session = Session::open()?;
        if session.current_or_null()? == 0 {
            // Programs ask whether there is one.
            return Err(code::INVALID_CONTEXT.into());
        }
        let (_, card) = session.current_card()?;
        device.put(card as i32)
    }

    fn cuCtxGetDevice_v2(device: Out<i32>, context: u64) {
        let session = Session::open()?;
        let context = if context == 0 { session.current()? } else { context };
        device.put(session.context(context)?.card as i32)
    }

    fn cuCtxGetFlags(flags: Out<u32>) {
        let session = Session::open()?;
        let context = session.current()?;
        flags.put(session.context(context)?.flags)
    }

    fn cuCtxSetFlags(flags: u32) {
        let mut session = Session::open()?;
        let context = session.current()?;
        flags_within(flags, FLAGS)?;
        if let Some(context) = session.contexts.get_mut(&context) {
            context.flags = flags;
        }
        Ok(())
    }

    fn cuCtxGetId(context: u64, id: Out<u64>) {
        let session = Session::open()?;
        let context = if context == 0 { session.current()? } else { context };
        session.context(context)?;
        id.put(context >> 4 & 0xffff_ffff)
    }

    fn cuCtxGetApiVersion(context: u64, version: Out<u32>) {
        let session = Session::open()?;
        let context = if context == 0 { session.current()? } else { context };
        version.put(session.context(context)?.api_version)
    }

    fn cuCtxSynchronize() {
        let mut session = Session::open()?;
        let context = session.current()?;
        session.drain(context);
        session.healthy(context)
    }

    fn cuCtxSynchronize_v2(context: u64) {
        let mut session = Session::open()?;
        let context = if context == 0 { session.current()? } else { context };
        session.drain(context);
        session.healthy(context)
    }

    /// Kept, and of no effect.
    fn cuCtxSetLimit(limit: u32, value: usize) {
        let mut session = Session::open()?;
        let context = session.current()?;
        unless(limit > 7, code::UNSUPPORTED_LIMIT, || format!("no limit {limit}"))?;
        if let Some(context) = session.contexts.get_mut(&context) {
            context.limits.insert(limit, value);
        }
        Ok(())
    }

    fn cuCtxGetLimit(value: Out<usize>, limit: u32) {
        let session = Session::open()?;
        let context = session.current()?;
        // Stack of a thread, printf's buffer, malloc's heap, and what has no meaning here.
        let default = match limit {
            0 => 1024,
            1 => 1 << 20,
            2 => 8 << 20,
            3 => 2,
            4 => 2048,
            5 => 128,
            6 | 7 => 0,
            _ => return Err(fail(code::UNSUPPORTED_LIMIT, format!("no limit {limit}"))),
        };
        value.put(session.context(context)?.limits.get(&limit).copied().unwrap_or(default))
    }

    fn cuCtxGetCacheConfig(config: Out<u32>) {
        Session::open()?.current()?;
        config.put(0)
    }

    fn cuCtxSetCacheConfig(config: u32) {
        Session::open()?.current()?;
        unless(config > 3, code::INVALID_VALUE, || format!("no cache configuration {config}"))
    }

    fn cuCtxGetSharedMemConfig(config: Out<u32>) {
        Session::open()?.current()?;
        config.put(1)
    }

    fn cuCtxSetSharedMemConfig(config: u32) {
        Session::open()?.current()?;
        unless(config > 2, code::INVALID_VALUE, || format!("no configuration {config} of shared memory"))
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        Session::open()?.current()?;
        least.put_if(0);
        greatest.put_if(super::stream::GREATEST_PRIORITY);
        Ok(())
    }

    fn cuCtxResetPersistingL2Cache() {
        Session::open()?.current().map(|_| ())
    }

    fn cuCtxEnablePeerAccess(peer: u64, flags: u32) {
        let session = Session::open()?;
        let (_, card) = session.current_card()?;
        unless(flags != 0, code::INVALID_VALUE, || format!("flags {flags:#x}, expected 0"))?;
        let other = session.context(peer)?.card;
        unless(other == card, code::INVALID_DEVICE, || format!("both contexts are on card {card}"))?;
        Err(fail(code::PEER_ACCESS_UNSUPPORTED, format!("kernels of card {card} do not reach memory of card {other}")))
    }

    fn cuCtxDisablePeerAccess(peer: u64) {
        let session = Session::open()?;
        session.current()?;
        session.context(peer)?;
        Err(fail(code::PEER_ACCESS_NOT_ENABLED, "no access was enabled"))
    }
}
