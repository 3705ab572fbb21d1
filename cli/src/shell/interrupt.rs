//! Ctrl-C: the first one asks every stage to stop, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use musc::{Error, Result};

static ASKED: AtomicBool = AtomicBool::new(false);

/// The exit code of an interrupted run: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

/// Starts listening.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    })
    .map_err(|reason| Error::invalid("Ctrl-C handler", reason, "a system that lets it be set"))
}

/// True once the user has asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Ends the run with [`Error::Interrupted`] once the user has asked to stop.
pub fn check() -> Result<()> {
    if asked() { Err(Error::Interrupted) } else { Ok(()) }
}
