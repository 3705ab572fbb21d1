//! Events.

use super::{flags_within, unless};
use crate::code::{self, Fail, fail};
use crate::driver::{Event, Kind, Session};
use crate::raw::Out;

/// Nanoseconds of a millisecond.
const MILLISECOND: f64 = 1e6;

fn elapsed(milliseconds: Out<f32>, start: u64, end: u64) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let mut times = [0.0; 2];
    for (time, handle) in times.iter_mut().zip([start, end]) {
        let event = session.event(handle)?;
        unless(!event.timed, code::INVALID_HANDLE, || {
            format!("event {handle:#x} was made without timing")
        })?;
        let Some((stream, until)) = event.at else {
            return Err(fail(
                code::INVALID_HANDLE,
                format!("event {handle:#x} was never recorded"),
            ));
        };
        if !session.passed(stream, until, 0) {
            return Err(code::NOT_READY.into());
        }
        *time = session.event(handle)?.time.unwrap_or(0.0);
    }
    milliseconds.put(((times[1] - times[0]) / MILLISECOND) as f32)
}

fn record(event: u64, stream: u64) -> Result<(), Fail> {
    let mut session = Session::open()?;
    let stream = session.stream(stream)?;
    session.record(event, stream)
}

api! {
    fn cuEventCreate(event: Out<u64>, flags: u32) {
        let mut session = Session::open()?;
        let context = session.current()?;
        event.needed()?;
        flags_within(flags, 7)?;
        let timed = flags & 2 == 0;
        unless(flags & 4 != 0 && timed, code::INVALID_VALUE, || "an event between processes has no timing".into())?;
        let handle = session.handle(Kind::Event);
        session.events.insert(handle, Event { context, timed, at: None, time: None, asked: 0 });
        event.put(handle)
    }

    /// Those who wait for it go on waiting for the work it stood for.
    fn cuEventDestroy_v2(event: u64) {
        let mut session = Session::open()?;
        session.event(event)?;
        session.events.remove(&event);
        Ok(())
    }

    fn cuEventRecord as cuEventRecord_ptsz(event: u64, stream: u64) {
        record(event, stream)
    }

    fn cuEventRecordWithFlags as cuEventRecordWithFlags_ptsz(event: u64, stream: u64, flags: u32) {
        flags_within(flags, 1)?;
        record(event, stream)
    }

    fn cuEventQuery(event: u64) {
        let mut session = Session::open()?;
        let found = session.event(event)?;
        let (context, asked) = (found.context, found.asked);
        let Some((stream, until)) = found.at else { return Ok(()) };
        let passed = session.passed(stream, until, asked);
        session.healthy(context)?;
        if passed {
            return Ok(());
        }
        if let Some(event) = session.events.get_mut(&event) {
            event.asked += 1;
        }
        Err(code::NOT_READY.into())
    }

    fn cuEventSynchronize(event: u64) {
        let mut session = Session::open()?;
        let found = session.event(event)?;
        let context = found.context;
        if let Some((stream, until)) = found.at {
            session.reach(stream, until, crate::order::Why::Wait);
        }
        session.healthy(context)
    }

    /// Time is a fiction: it goes on with instructions and bytes, the same in every run.
    fn cuEventElapsedTime(milliseconds: Out<f32>, start: u64, end: u64) {
        elapsed(milliseconds, start, end)
    }

    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: u64, end: u64) {
        elapsed(milliseconds, start, end)
    }
}
