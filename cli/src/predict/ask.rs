//! Paths from stdin, each answered before the next is taken.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use musc::{Error, Result};

use super::answer::Answers;
use crate::shell::interrupt;

/// How soon Ctrl-C is noticed while nothing is asked.
const TICK: Duration = Duration::from_millis(100);

/// Answers until stdin ends. Empty lines are passed over.
pub fn ask(answers: &mut Answers<'_>) -> Result<()> {
    // Lines are read on a thread of their own: a read cannot be interrupted.
    let (sender, lines) = sync_channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = stdin.read_until(b'\n', &mut line);
            let ends = matches!(read, Ok(0) | Err(_));
            if sender.send(read.map(|_| line)).is_err() || ends {
                return;
            }
        }
    });
    loop {
        interrupt::check()?;
        let line = match lines.recv_timeout(TICK) {
            Ok(line) => line.map_err(Error::io("read", std::path::Path::new("standard input")))?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        if line.is_empty() {
            return Ok(());
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !text.is_empty() {
            answers.answer(&[path_of(text)])?;
        }
    }
}

#[cfg(unix)]
fn path_of(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(text))
}

#[cfg(not(unix))]
fn path_of(text: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(text).into_owned())
}
