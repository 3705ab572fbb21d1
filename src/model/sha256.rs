//! The hash by which weight files are known.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The SHA-256 of a file in hexadecimal.
///
/// # Errors
/// [`Error::Io`] when it cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut chunk).map_err(Error::io("read", path))?;
        if count == 0 {
            return Ok(hexadecimal(&hash.finalize()));
        }
        hash.update(chunk.get(..count).unwrap_or_default());
    }
}

/// The SHA-256 of bytes in hexadecimal.
pub fn sha256_of_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The SHA-256 of several pieces, each with its length, in hexadecimal.
#[cfg(feature = "files")]
pub(crate) fn sha256_of_parts(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hexadecimal(&hash.finalize())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
