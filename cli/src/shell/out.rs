//! What goes to stdout. A reader that stops reading, as `head` does, ends the output and is no error.

use std::io::{ErrorKind, Write};

use musc::{Error, Result};

/// Writes text to stdout.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(reason) if reason.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("write", "standard output")(reason))
        }
        _ => Ok(()),
    }
}

/// Writes text to stdout; a reader that has gone is an error that ends the work: nobody is left to hear the answers.
pub fn print_or_stop(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Error::io("write", std::path::Path::new("standard output")))
}

/// Writes a JSON document and a line end.
pub fn print_json(document: &serde_json::Value) -> Result<()> {
    print(&format!("{document:#}\n"))
}

/// Writes a document if there is one, else text.
pub fn print_either(
    document: Option<serde_json::Value>,
    text: impl FnOnce() -> String,
) -> Result<()> {
    match document {
        Some(document) => print_json(&document),
        None => print(&text()),
    }
}
