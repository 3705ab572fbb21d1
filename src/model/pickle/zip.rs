//! The part of zip that `torch.save` writes: entries that are stored, not compressed, with sizes known beforehand.
//!
//! Written here because a length in such a file must never become an allocation: entries are taken from the directory one
//! by one, and each costs its forty-six bytes or more in the file.

use std::ops::Range;

/// End of the central directory, without its comment.
const END_BYTES: usize = 22;
/// Where the end for large files is.
const LOCATOR_BYTES: usize = 20;
/// An entry of the directory, without its texts.
const ENTRY_BYTES: usize = 46;
/// In front of an entry's data, without its texts.
const LOCAL_BYTES: usize = 30;
/// Stands for a number that is in the extra field.
const IN_EXTRA: u64 = 0xffff_ffff;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub name: &'a str,
    /// Stored as it is, neither compressed nor encrypted.
    pub plain: bool,
    pub crc: u32,
    size: u64,
    /// Where its local header begins.
    offset: u64,
}

impl Entry<'_> {
    /// Where its bytes lie.
    pub fn range(&self, file: &[u8]) -> Result<Range<usize>, String> {
        let outside = || "it lies outside the file".to_owned();
        let offset = usize::try_from(self.offset).map_err(|_| outside())?;
        let local = file.get(offset..).ok_or_else(outside)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err("its header is not where the directory says".into());
        }
        let (name, extra) = (number(local, 26, 2), number(local, 28, 2));
        let texts = name.zip(extra).ok_or_else(outside)?;
        // Two numbers of two bytes.
        let start = offset + LOCAL_BYTES + texts.0 as usize + texts.1 as usize;
        let size = usize::try_from(self.size).map_err(|_| outside())?;
        let end = start.checked_add(size).filter(|&end| end <= file.len()).ok_or_else(outside)?;
        Ok(start..end)
    }
}

/// Calls `each` with every entry of the directory.
pub(super) fn entries<'a>(
    file: &'a [u8],
    mut each: impl FnMut(Entry<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let (start, size, count) = directory(file)?;
    let range = usize::try_from(start).ok().zip(usize::try_from(size).ok());
    let end = range.and_then(|(start, size)| start.checked_add(size));
    let part = range.zip(end).and_then(|((start, _), end)| file.get(start..end));
    let mut left = part.ok_or("its directory lies outside the file")?;
    let mut found = 0;
    while !left.is_empty() {
        let (entry, rest) = entry(left).ok_or("its directory is damaged")?;
        each(entry)?;
        left = rest;
        found += 1;
    }
    if found == count { Ok(()) } else { Err(format!("it has {found} entries, expected {count}")) }
}

/// A little-endian number of `width` bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(width)?)?;
    Some(part.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// The directory's start, its size, and its number of entries.
fn directory(file: &[u8]) -> Result<(u64, u64, u64), String> {
    let cut = || "it has no directory at its end: cut short or damaged".to_owned();
    // The end comes last, but for a comment of two bytes' length.
    let last = file.len().checked_sub(END_BYTES).ok_or_else(cut)?;
    let is_end = |&at: &usize| {
        let comment = number(file, at + 20, 2);
        file.get(at..at + 4) == Some(b"PK\x05\x06") && comment == Some((last - at) as u64)
    };
    let end = (last.saturating_sub(0xffff)..=last).rev().find(is_end).ok_or_else(cut)?;
    let of_end = |at, width| number(file, end + at, width).ok_or_else(cut);
    let (count, size, start) = (of_end(10, 2)?, of_end(12, 4)?, of_end(16, 4)?);
    if count != 0xffff && size != IN_EXTRA && start != IN_EXTRA {
        return Ok((start, size, count));
    }
    let locator = end.checked_sub(LOCATOR_BYTES).ok_or_else(cut)?;
    if file.get(locator..locator + 4) != Some(b"PK\x06\x07") {
        // Numbers that happen to be the largest.
        return Ok((start, size, count));
    }
    let large = number(file, locator + 8, 8).and_then(|at| usize::try_from(at).ok());
    let large = large.and_then(|at| file.get(at..)).ok_or_else(cut)?;
    if !large.starts_with(b"PK\x06\x06") {
        return Err(cut());
    }
    let of_large = |at| number(large, at, 8).ok_or_else(cut);
    Ok((of_large(48)?, of_large(40)?, of_large(32)?))
}

/// The first entry of a directory, and what comes after it.
fn entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    if !bytes.starts_with(b"PK\x01\x02") {
        return None;
    }
    let of = |at, width| number(bytes, at, width);
    let (flags, method, crc) = (of(8, 2)?, of(10, 2)?, of(16, 4)?);
    let (mut compressed, mut size) = (of(20, 4)?, of(24, 4)?);
    let mut offset = of(42, 4)?;
    // Three numbers of two bytes.
    let lengths = [of(28, 2)? as usize, of(30, 2)? as usize, of(32, 2)? as usize];
    let (name, rest) = bytes.get(ENTRY_BYTES..)?.split_at_checked(lengths[0])?;
    let (mut extra, rest) = rest.split_at_checked(lengths[1])?;
    let (_comment, rest) = rest.split_at_checked(lengths[2])?;
    while let (Some(id), Some(length)) = (number(extra, 0, 2), number(extra, 2, 2)) {
        let field = extra.get(4..4 + length as usize)?;
        if id == 1 {
            let mut at = 0;
            // In this order, each only if it is not in its place.
            for value in [&mut size, &mut compressed, &mut offset] {
                if *value == IN_EXTRA {
                    *value = number(field, at, 8)?;
                    at += 8;
                }
            }
        }
        extra = extra.get(4 + length as usize..)?;
    }
    let plain = method == 0 && flags & 1 == 0 && compressed == size;
    // A name of other bytes is none that is asked for.
    let name = std::str::from_utf8(name).unwrap_or_default();
    Some((Entry { name, plain, crc: crc as u32, size, offset }, rest))
}
