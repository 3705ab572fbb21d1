//! Ctrl-C and SIGTERM: the first one asks every stage to stop, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use musc::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of a run that Ctrl-C has ended: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;
/// The exit code of a run that SIGTERM has ended, as schedulers do: it may be tried again.
pub const TERMINATED: u8 = 1;

static SIGNALS: OnceLock<Signals> = OnceLock::new();

#[derive(Default)]
struct Signals {
    asked: Arc<AtomicBool>,
    /// By SIGTERM or a terminal that is gone, not by Ctrl-C.
    terminated: Arc<AtomicBool>,
}

/// Starts listening.
pub fn listen() -> Result<()> {
    let signals = SIGNALS.get_or_init(Signals::default);
    let listen = || -> std::io::Result<()> {
        for (signal, code) in listened() {
            // In this order: the first signal finds the flag down and raises it.
            flag::register_conditional_shutdown(signal, code.into(), Arc::clone(&signals.asked))?;
            if code == TERMINATED {
                flag::register(signal, Arc::clone(&signals.terminated))?;
            }
            flag::register(signal, Arc::clone(&signals.asked))?;
        }
        Ok(())
    };
    listen().map_err(|reason| {
        Error::invalid("handlers of Ctrl-C and SIGTERM", reason, "a system that lets them be set")
    })
}

/// Signals, and the exit codes that they stand for.
fn listened() -> Vec<(i32, u8)> {
    let mut signals = vec![(SIGINT, EXIT_CODE), (SIGTERM, TERMINATED)];
    #[cfg(unix)]
    signals.push((signal_hook::consts::SIGHUP, TERMINATED));
    signals
}

/// True once the user, or the system, has asked to stop.
pub fn asked() -> bool {
    SIGNALS.get().is_some_and(|signals| signals.asked.load(Ordering::SeqCst))
}

/// The exit code of a run that was interrupted.
pub fn code() -> u8 {
    let terminated = SIGNALS.get().is_some_and(|signals| signals.terminated.load(Ordering::SeqCst));
    if terminated { TERMINATED } else { EXIT_CODE }
}

/// Ends the run with [`Error::Interrupted`] once the user has asked to stop.
pub fn check() -> Result<()> {
    if asked() { Err(Error::Interrupted) } else { Ok(()) }
}
