//! Fetching a file's bytes, from where an earlier attempt ended.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{Hub, Remote, failed, header, status};
use crate::{Error, Progress, Result};

/// Bytes taken at a time.
const CHUNK: usize = 1 << 18;
/// Attempts in a row that bring nothing, after which it is given up.
const FRUITLESS: usize = 3;

/// How an attempt ended that did not fail for good.
enum Ended {
    /// All bytes are there.
    Complete,
    /// The connection broke: why.
    Broken(String),
}

impl Hub {
    /// Fills a file up to the size that the Hub says. What is in it already is kept, where the server can go on from there.
    pub(super) fn fill(
        &self,
        remote: &Remote,
        path: &Path,
        file: &mut File,
        progress: &dyn Progress,
    ) -> Result<()> {
        let url = self.url(&remote.repository, &remote.commit, &remote.file);
        let mut had = file.seek(SeekFrom::End(0)).map_err(Error::io("read", path))?;
        if had > remote.bytes {
            // Left by something else; it cannot be a beginning of this file.
            cut(file, path)?;
            had = 0;
        }
        progress.advance(had);
        let mut fruitless = 0;
        let mut furthest = had;
        while had < remote.bytes {
            if progress.stopped() {
                return Err(Error::Interrupted);
            }
            let ended = self.attempt(&url, remote, path, file, progress)?;
            had = file.seek(SeekFrom::End(0)).map_err(Error::io("read", path))?;
            fruitless = if had > furthest { 0 } else { fruitless + 1 };
            furthest = furthest.max(had);
            if let Ended::Broken(reason) = ended
                && fruitless == FRUITLESS
            {
                let bytes = remote.bytes;
                return Err(failed(
                    &url,
                    format!(
                        "{reason}, with {had} of {bytes} bytes; the same command goes on from there"
                    ),
                ));
            }
        }
        file.flush().and_then(|()| file.sync_all()).map_err(Error::io("write", path))
    }

    /// One request for the bytes that are missing.
    fn attempt(
        &self,
        url: &str,
        remote: &Remote,
        path: &Path,
        file: &mut File,
        progress: &dyn Progress,
    ) -> Result<Ended> {
        let mut had = file.seek(SeekFrom::End(0)).map_err(Error::io("read", path))?;
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            // Not sent on to another host.
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if had > 0 {
            request = request.header("Range", format!("bytes={had}-"));
        }
        let mut answer = match request.call() {
            Ok(answer) => answer,
            Err(reason) => return Ok(Ended::Broken(reason.to_string())),
        };
        let found = header(&answer, "content-length").and_then(|length| length.parse().ok());
        match answer.status().as_u16() {
            // The whole file: the server does not know ranges, or was not asked for one.
            200 => {
                if had > 0 {
                    cut(file, path)?;
                    had = 0;
                }
            }
            206 if header(&answer, "content-range").is_some_and(|range| starts_at(range, had)) => {}
            206 => return Err(failed(url, "another part of the file came than was asked for")),
            // What is there is no beginning of the file as it is now.
            416 => {
                cut(file, path)?;
                return Ok(Ended::Broken("the server has no such part".into()));
            }
            500.. => return Ok(Ended::Broken(status(&answer))),
            _ => return Err(failed(url, status(&answer))),
        }
        let missing = remote.bytes - had;
        if let Some(found) = found
            && found != missing
        {
            let expected = remote.bytes;
            let reason = format!("found {} bytes, expected {expected}", had.saturating_add(found));
            return Err(failed(url, reason));
        }
        let mut reader = answer.body_mut().as_reader();
        let mut chunk = vec![0u8; CHUNK];
        let mut left = missing;
        while left > 0 {
            if progress.stopped() {
                return Err(Error::Interrupted);
            }
            let count = match reader.read(&mut chunk) {
                Ok(0) => return Ok(Ended::Broken("the connection ended early".into())),
                Ok(count) => count,
                Err(reason) => return Ok(Ended::Broken(reason.to_string())),
            };
            if count as u64 > left {
                cut(file, path)?;
                let expected = remote.bytes;
                return Err(failed(url, format!("found more than the {expected} bytes expected")));
            }
            let part = chunk.get(..count).unwrap_or_default();
            file.write_all(part).map_err(Error::io("write", path))?;
            left -= count as u64;
            progress.advance(count as u64);
        }
        Ok(Ended::Complete)
    }
}

/// Empties a file.
fn cut(file: &mut File, path: &Path) -> Result<()> {
    file.set_len(0).and_then(|()| file.rewind()).map_err(Error::io("write", path))
}

/// True for `bytes 100-199/200` when asked from 100.
fn starts_at(range: &str, position: u64) -> bool {
    let start = range.strip_prefix("bytes ").and_then(|range| range.split('-').next());
    start.and_then(|start| start.trim().parse().ok()) == Some(position)
}
