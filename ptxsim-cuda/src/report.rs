//! What is told: sentences on standard error, leaks, and the report of counters when the process ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use ptxsim::{Counters, Counts};

use crate::driver::{Context, Session, driver_if_made};
use crate::options::{Leaks, Log};

/// The exit code of a process that leaked, where it was asked to fail.
const LEAKED: i32 = 70;

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    kernels: BTreeMap<String, Kernel>,
    pub faults: Vec<String>,
    pub warnings: Vec<String>,
    pub leaks: Vec<String>,
}

#[derive(Debug, Default)]
struct Kernel {
    launches: u64,
    blocks: u64,
    warps: u64,
    counts: Counts,
    classes: BTreeMap<String, u64>,
}

impl Tally {
    pub fn launch(&mut self, counters: &Counters) {
        let kernel = self.kernels.entry(counters.kernel().to_string()).or_default();
        let summary = counters.total();
        kernel.launches += 1;
        kernel.blocks += counters.blocks();
        kernel.warps += counters.warps();
        kernel.counts.add(&summary.total);
        for (class, counts) in summary.classes() {
            *kernel.classes.entry(format!("{class:?}")).or_default() += counts.warps;
        }
    }

    fn json(&self) -> String {
        let list =
            |lines: &[String]| lines.iter().map(|line| quoted(line)).collect::<Vec<_>>().join(", ");
        let kernels = self.kernels.iter().map(|(name, k)| {
            let c = &k.counts;
            let classes = k.classes.iter().map(|(class, n)| format!("{}: {n}", quoted(class)));
            format!(
                "    {{\"name\": {}, \"launches\": {}, \"blocks\": {}, \"warps\": {}, \"warp_instructions\": {}, \
                 \"lane_instructions\": {}, \"sectors\": {}, \"sectors_needed\": {}, \"global_bytes\": {}, \
                 \"shared_wavefronts\": {}, \"bank_conflicts\": {}, \"mma_flops\": {}, \"instructions\": {{{}}}}}",
                quoted(name),
                k.launches,
                k.blocks,
                k.warps,
                c.warps,
                c.lanes,
                c.sectors,
                c.sectors_needed,
                c.global_bytes,
                c.wavefronts,
                c.bank_conflicts(),
                c.mma_flops,
                classes.collect::<Vec<_>>().join(", ")
            )
        });
        format!(
            "{{\n  \"kernels\": [\n{}\n  ],\n  \"faults\": [{}],\n  \"warnings\": [{}],\n  \"leaks\": [{}]\n}}\n",
            kernels.collect::<Vec<_>>().join(",\n"),
            list(&self.faults),
            list(&self.warnings),
            list(&self.leaks)
        )
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A line on standard error, unless it is switched off.
pub(crate) fn say(line: &str) {
    if driver_if_made().is_none_or(|driver| driver.options.log != Log::Off) {
        // Nobody is left to tell where standard error is closed.
        let _ = writeln!(std::io::stderr().lock(), "ptxsim-cuda: {line}");
    }
}

/// What kernels printed goes to standard output.
pub(crate) fn printed(text: &[u8]) {
    if !text.is_empty() {
        let mut out = std::io::stdout().lock();
        // Nobody is left to tell where standard output is closed.
        let _ = out.write_all(text).and_then(|()| out.flush());
    }
}

/// Tells a warning and keeps it for the report.
pub(crate) fn warn(session: &mut Session, line: String) {
    say(&format!("warning: {line}"));
    session.tally.warnings.push(line);
}

/// Tells what a context still owns when it ends.
pub(crate) fn leaks(session: &mut Session, handle: u64, context: &Context) {
    // What has a fault cannot be freed.
    if session.driver.options.leaks == Leaks::Off || context.fault.is_some() {
        return;
    }
    let mut lines = Vec::new();
    for (at, block) in session.memory.iter().filter(|(_, block)| block.context == handle) {
        lines.push(format!(
            "leak: allocation {}, {} bytes at {at:#x} on card {}",
            block.serial, block.bytes, block.card
        ));
    }
    for (at, host) in
        session.host.iter().filter(|(_, host)| host.context == handle && !host.managed)
    {
        let what = if host.owned.is_some() { "page-locked memory" } else { "registered memory" };
        lines.push(format!("leak: {what}, {} bytes at {at:#x}", host.bytes));
    }
    for line in &lines {
        say(line);
    }
    session.tally.leaks.append(&mut lines);
}

// SAFETY: the C library's, as its manual declares them.
unsafe extern "C" {
    fn atexit(f: extern "C" fn()) -> i32;
    fn fflush(file: *mut std::ffi::c_void) -> i32;
    fn _exit(code: i32) -> !;
}

/// Arranges for the report at the end of the process.
pub(crate) fn at_exit() {
    // SAFETY: C's `atexit`; the library is never unloaded, so the function is there.
    if unsafe { atexit(end_of_process) } != 0 {
        say("warning: no report at the end of the process: atexit refused it");
    }
}

extern "C" fn end_of_process() {
    let told = std::panic::catch_unwind(|| {
        let driver = driver_if_made()?;
        // A thread that ended the process inside a call holds the lock for ever; any other lets go of it soon.
        let free = |_: &u32| {
            driver.state.try_lock().is_ok() || {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        };
        (0..100).find(free)?;
        let mut session = Session::always().ok()?;
        let pending: u64 = session.streams.values().map(|s| s.given - s.done).sum();
        if pending > 0 {
            say(&format!(
                "warning: the process ends with {pending} pieces of work that nothing waited for"
            ));
        }
        let contexts: Vec<u64> = session.contexts.keys().copied().collect();
        for handle in contexts {
            if let Some(context) = session.contexts.remove(&handle) {
                leaks(&mut session, handle, &context);
            }
        }
        if let Some(path) = &driver.options.report
            && let Err(error) = std::fs::write(path, session.tally.json())
        {
            say(&format!("the report {} cannot be written: {error}", path.display()));
        }
        (driver.options.leaks == Leaks::Fail && !session.tally.leaks.is_empty()).then_some(())
    });
    if let Ok(Some(())) = told {
        // SAFETY: writes out all of the C library's buffers, as `exit` would after this, and ends the process.
        unsafe {
            fflush(std::ptr::null_mut());
            _exit(LEAKED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000ad\"");
        assert!(Tally::default().json().contains("\"kernels\""));
    }
}
