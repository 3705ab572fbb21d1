//! List files: `.txt` with a path a line, `.csv` with the columns `path`, `label`, `mask`.

use std::path::{Path, PathBuf};

use super::{Mask, first_few};
use crate::{Error, Result};

/// One line of a list.
#[derive(Debug)]
pub(super) struct Entry {
    /// The image, found from the list's folder.
    pub(super) path: PathBuf,
    /// The path as it is written.
    pub(super) written: PathBuf,
    pub(super) label: Option<bool>,
    pub(super) mask: Mask,
}

/// Reads a list by its extension: `.csv` is a table, anything else a path a line.
pub(super) fn read(list: &Path) -> Result<Vec<Entry>> {
    let bytes = std::fs::read(list).map_err(Error::io("read", list))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| Error::Dataset {
        path: list.to_path_buf(),
        reason: format!("not a list: byte {} is not UTF-8 text", error.valid_up_to()),
    })?;
    // Spreadsheets and editors of Windows put a mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let folder = list.parent().unwrap_or(Path::new(""));
    let is_table = list.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let entries = if is_table { read_table(list, folder, text)? } else { read_lines(folder, text) };
    if entries.is_empty() {
        return Err(Error::Dataset {
            path: list.to_path_buf(),
            reason: String::from("the list names no image"),
        });
    }
    let named = entries.iter().flat_map(|entry| {
        let mask = if let Mask::File(mask) = &entry.mask { Some(mask) } else { None };
        std::iter::once(&entry.path).chain(mask)
    });
    let missing: Vec<&PathBuf> = named.filter(|path| !path.is_file()).collect();
    if !missing.is_empty() {
        return Err(Error::Dataset {
            path: list.to_path_buf(),
            reason: format!(
                "{} files of the list are missing ({})",
                missing.len(),
                first_few(missing.iter().map(|path| path.display()))
            ),
        });
    }
    Ok(entries)
}

fn read_lines(folder: &Path, text: &str) -> Vec<Entry> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| Entry {
            path: folder.join(line),
            written: PathBuf::from(line),
            label: None,
            mask: Mask::Unknown,
        })
        .collect()
}

fn read_table(list: &Path, folder: &Path, text: &str) -> Result<Vec<Entry>> {
    let refuse = |reason: String| Error::Dataset { path: list.to_path_buf(), reason };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|error| refuse(error.to_string()))?.clone();
    let column = |name: &str| headers.iter().position(|header| header.eq_ignore_ascii_case(name));
    let path_column = column("path").ok_or_else(|| {
        refuse(format!(
            "no column `path`, found `{}`, expected path,label[,mask]",
            headers.iter().collect::<Vec<&str>>().join(",")
        ))
    })?;
    let (label_column, mask_column) = (column("label"), column("mask"));
    let mut entries = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| refuse(error.to_string()))?;
        let line = row.position().map_or(0, |position| position.line());
        let field = |column: Option<usize>| column.and_then(|index| row.get(index)).unwrap_or("");
        let written = field(Some(path_column));
        if written.is_empty() {
            return Err(refuse(format!("line {line}: no path")));
        }
        let label = parse_label(field(label_column))
            .map_err(|reason| refuse(format!("line {line}: {reason}")))?;
        let mask = match (field(mask_column), label) {
            ("", Some(false)) => Mask::Normal,
            ("", _) => Mask::Unknown,
            (mask, _) => Mask::File(folder.join(mask)),
        };
        let path = folder.join(written);
        entries.push(Entry { path, written: PathBuf::from(written), label, mask });
    }
    Ok(entries)
}

fn parse_label(text: &str) -> Result<Option<bool>, String> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "0" | "normal" | "good" | "ok" => Ok(Some(false)),
        "1" | "anomaly" | "anomalous" | "defective" | "bad" | "ko" => Ok(Some(true)),
        _ => Err(format!("label `{text}`, expected 0, normal, good or 1, anomaly, defective")),
    }
}
