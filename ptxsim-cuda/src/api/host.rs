//! Host functions in streams.

use std::sync::Once;
use std::time::Duration;

use super::unless;
use crate::code::{self, Fail};
use crate::driver::Session;
use crate::order::Why;
use crate::raw::In;
use crate::work::Work;

/// A host function that nothing has waited for this long runs on a thread of its own: a program may wait for it without
/// the driver.
const PATIENCE: Duration = Duration::from_millis(20);

fn give(stream: u64, function: usize, data: usize, told: bool) -> Result<(), Fail> {
    let mut session = Session::open()?;
    unless(function == 0, code::INVALID_VALUE, || "the function is null".into())?;
    let handle = stream;
    let stream = session.stream(stream)?;
    session.give(
        stream,
        Work::Call { function, data, stream: told.then_some(handle) },
        Vec::new(),
    )?;
    static THREAD: Once = Once::new();
    THREAD.call_once(|| {
        // Without the thread, host functions run when something waits for them.
        let _ =
            std::thread::Builder::new().name("ptxsim-cuda".into()).spawn(run_what_nobody_waits_for);
    });
    Ok(())
}

/// Every while, what was there the last time too.
fn run_what_nobody_waits_for() {
    let mut seen: Vec<(u64, u64)> = Vec::new();
    loop {
        std::thread::sleep(PATIENCE);
        let Ok(mut session) = Session::always() else { return };
        let mut waiting: Vec<(u64, u64)> = Vec::new();
        for (&at, queue) in &session.streams {
            let calls =
                queue.waiting.iter().filter(|piece| matches!(piece.work, Work::Call { .. }));
            waiting.extend(calls.map(|piece| (at, piece.position)).next());
        }
        waiting.sort_unstable();
        for &(stream, position) in waiting.iter().filter(|call| seen.contains(call)) {
            session.reach(stream, position, Why::Wait);
        }
        seen = waiting;
    }
}

api! {
    fn cuLaunchHostFunc as cuLaunchHostFunc_ptsz(stream: u64, function: usize, data: usize) {
        give(stream, function, data, false)
    }

    fn cuLaunchHostFunc_v2 as cuLaunchHostFunc_v2_ptsz(stream: u64, function: usize, data: usize, _mode: u32) {
        give(stream, function, data, false)
    }

    fn cuStreamAddCallback as cuStreamAddCallback_ptsz(stream: u64, function: usize, data: usize, flags: u32) {
        unless(flags != 0, code::INVALID_VALUE, || format!("flags {flags:#x}, expected 0"))?;
        give(stream, function, data, true)
    }

    /// Of no meaning here.
    fn cuProfilerStart() {
        Session::open()?.current().map(|_| ())
    }

    fn cuProfilerStop() {
        Session::open()?.current().map(|_| ())
    }

    fn cuStreamSetAttribute as cuStreamSetAttribute_ptsz(stream: u64, _which: u32, _value: In<u8>) {
        let mut session = Session::open()?;
        session.stream(stream).map(|_| ())
    }

    fn cuStreamCopyAttributes as cuStreamCopyAttributes_ptsz(to: u64, from: u64) {
        let mut session = Session::open()?;
        session.stream(to)?;
        session.stream(from).map(|_| ())
    }
}
