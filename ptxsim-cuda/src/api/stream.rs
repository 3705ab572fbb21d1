//! Streams.

use super::{flags_within, unless};
use crate::code::{self, Fail};
use crate::driver::{Kind, Session};
use crate::order::{Order, Stream};
use crate::raw::Out;
use crate::work::Work;

/// Priorities reach from 0, the least, down to this.
pub(super) const GREATEST_PRIORITY: i32 = -5;

fn create(stream: Out<u64>, flags: u32, priority: i32) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let context = session.current()?;
    stream.needed()?;
    flags_within(flags, 1)?;
    let order = if flags & 1 == 1 { Order::NonBlocking } else { Order::Blocking };
    let handle = session.handle(Kind::Stream);
    session
        .streams
        .insert(handle, Stream::new(context, order, flags, priority.clamp(GREATEST_PRIORITY, 0)));
    stream.put(handle)
}

api! {
    fn cuStreamCreate(stream: Out<u64>, flags: u32) {
        create(stream, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, priority: i32) {
        create(stream, flags, priority)
    }

    /// What it still has to do is done all the same.
    fn cuStreamDestroy_v2(stream: u64) {
        let mut session = Session::open()?;
        unless(stream <= 2, code::INVALID_HANDLE, || "a default stream is never destroyed".into())?;
        let stream = session.stream(stream)?;
        if let Some(queue) = session.streams.get_mut(&stream) {
            queue.closed = true;
            if queue.done >= queue.given {
                session.streams.remove(&stream);
            }
        }
        Ok(())
    }

    fn cuStreamSynchronize as cuStreamSynchronize_ptsz(stream: u64) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        session.finish(stream)
    }

    fn cuStreamQuery as cuStreamQuery_ptsz(stream: u64) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        let (given, asked) = session.streams.get(&stream).map_or((0, 0), |queue| (queue.given, queue.asked));
        let passed = session.passed(stream, given, asked);
        let context = session.streams.get(&stream).map_or(0, |queue| queue.context);
        if let Some(queue) = session.streams.get_mut(&stream) {
            queue.asked = if passed { 0 } else { asked + 1 };
        }
        session.healthy(context)?;
        if passed { Ok(()) } else { Err(code::NOT_READY.into()) }
    }

    fn cuStreamWaitEvent as cuStreamWaitEvent_ptsz(stream: u64, event: u64, flags: u32) {
        let mut session = Session::open()?;
        flags_within(flags, 1)?;
        let stream = session.stream(stream)?;
        if let Some(at) = session.event(event)?.at.filter(|at| at.0 != stream) {
            session.give(stream, Work::Wait, vec![at])?;
        }
        Ok(())
    }

    fn cuStreamGetCtx as cuStreamGetCtx_ptsz(stream: u64, context: Out<u64>) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        context.put(session.streams.get(&stream).map_or(0, |queue| queue.context))
    }

    fn cuStreamGetDevice as cuStreamGetDevice_ptsz(stream: u64, device: Out<i32>) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        let context = session.streams.get(&stream).map_or(0, |queue| queue.context);
        device.put(session.context(context)?.card as i32)
    }

    fn cuStreamGetFlags as cuStreamGetFlags_ptsz(stream: u64, flags: Out<u32>) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        flags.put(session.streams.get(&stream).map_or(0, |queue| queue.flags))
    }

    fn cuStreamGetPriority as cuStreamGetPriority_ptsz(stream: u64, priority: Out<i32>) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        priority.put(session.streams.get(&stream).map_or(0, |queue| queue.priority))
    }

    fn cuStreamGetId as cuStreamGetId_ptsz(stream: u64, id: Out<u64>) {
        let mut session = Session::open()?;
        let stream = session.stream(stream)?;
        id.put(stream >> 4 & 0xffff_ffff)
    }

    /// Nothing is ever captured.
    fn cuStreamIsCapturing as cuStreamIsCapturing_ptsz(stream: u64, status: Out<u32>) {
        let mut session = Session::open()?;
        session.stream(stream)?;
        status.put(0)
    }
}
