//! A table of labels for images that are known already: a review that comes back, `path,label,review`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Sample;
use crate::{Error, Result};

/// What a row of the table says of its image.
#[derive(Debug)]
struct Row {
    line: u64,
    /// The path as it is meant: without the apostrophe that keeps a spreadsheet from reading it as a formula.
    path: String,
    /// Defective, normal, or nothing: unsure, or not looked at.
    label: Option<bool>,
}

/// The label of each sample by a table with the columns `path`, and `label` or `review` or both, in any order; other columns
/// are not read. A label is 0, normal, good or ok, or 1, anomaly, defective, bad, ko or ng; a review is OK, NG or unsure;
/// nothing, in any case of letters, is no label. Where both say something they have to agree. Images without a row have no
/// label.
///
/// A path is taken from the table's own folder, from the working folder, or as the sample is called, letter by letter: the
/// form in which a report writes it. One leading apostrophe is taken off, as the report puts one before `=`, `+`, `-`, `@`
/// and `'`.
///
/// # Errors
/// [`Error::Io`] when the table cannot be read; [`Error::Dataset`] with the line for a row that names no image, or two, or one
/// that was named before, for a word that is no label, and for a table without its columns or without rows.
pub fn labels_of(samples: &[Sample], table: &Path) -> Result<Vec<Option<bool>>> {
    let refuse = |reason: String| Error::Dataset { path: table.to_path_buf(), reason };
    let bytes = std::fs::read(table).map_err(Error::io("read", table))?;
    let rows = read(&bytes).map_err(refuse)?;
    let folder = table.parent().unwrap_or(Path::new(""));
    let known = Known::new(samples);
    let mut labels = vec![None; samples.len()];
    let mut lines: Vec<Option<u64>> = vec![None; samples.len()];
    for Row { line, path, label } in rows {
        let at = known
            .find(folder, &path)
            .map_err(|reason| refuse(format!("line {line}: `{}` {reason}", shown(&path))))?;
        if let Some(first) = lines[at].replace(line) {
            let path = shown(&path);
            return Err(refuse(format!("line {line}: `{path}` has a row already, line {first}")));
        }
        labels[at] = label;
    }
    Ok(labels)
}

/// The samples by their names and by their true paths.
struct Known {
    names: HashMap<String, Vec<usize>>,
    places: HashMap<PathBuf, usize>,
}

impl Known {
    fn new(samples: &[Sample]) -> Self {
        let mut known = Known { names: HashMap::new(), places: HashMap::new() };
        for (at, sample) in samples.iter().enumerate() {
            let name = sample.path.to_string_lossy().into_owned();
            known.names.entry(name).or_default().push(at);
            if let Ok(place) = sample.path.canonicalize() {
                known.places.insert(place, at);
            }
        }
        known
    }

    fn find(&self, folder: &Path, path: &str) -> Result<usize, String> {
        let mut found: Vec<usize> = self.names.get(path).cloned().unwrap_or_default();
        for place in [folder.join(path), PathBuf::from(path)] {
            let place = place.canonicalize().ok();
            if let Some(&at) = place.and_then(|place| self.places.get(&place))
                && !found.contains(&at)
            {
                found.push(at);
            }
        }
        match found[..] {
            [at] => Ok(at),
            [] => Err(format!(
                "is none of the {} images, expected a path from the table's folder, a whole path, or a name as \
                 scores.csv has it",
                self.names.values().map(Vec::len).sum::<usize>()
            )),
            _ => Err(format!("may be {} of the images, expected a whole path", found.len())),
        }
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Row>, String> {
    // Spreadsheets and editors of Windows put a mark in front.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let headers = reader.byte_headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| {
        headers.iter().position(|header| header.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    };
    let (label_column, review_column) = (column("label"), column("review"));
    let path_column = column("path").filter(|_| label_column.or(review_column).is_some());
    let Some(path_column) = path_column else {
        let found: Vec<String> =
            headers.iter().take(8).map(|name| shown(&String::from_utf8_lossy(name))).collect();
        return Err(format!(
            "found the columns `{}`, expected `path` with `label` or `review`",
            found.join(",")
        ));
    };
    let mut rows = Vec::new();
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(|error| error.to_string())? {
        let line = record.position().map_or(0, csv::Position::line);
        // Not UTF-8: the names of samples are compared in the same reading.
        let field = |column: Option<usize>| {
            String::from_utf8_lossy(column.and_then(|at| record.get(at)).unwrap_or_default())
        };
        let path = field(Some(path_column));
        let path = path.strip_prefix('\'').unwrap_or(&path).to_string();
        if path.is_empty() {
            return Err(format!("line {line}: no path"));
        }
        let label = word("label", &field(label_column), line)?;
        let review = word("review", &field(review_column), line)?;
        let label = match (label, review) {
            (Word::Nothing, one) | (one, Word::Nothing) => one,
            (one, other) if one == other => one,
            _ => {
                let (label, review) = (field(label_column), field(review_column));
                return Err(format!(
                    "line {line}: found label `{label}` beside review `{review}`, expected the same"
                ));
            }
        };
        rows.push(Row { line, path, label: label.label() });
    }
    if rows.is_empty() { Err(String::from("the table has no row")) } else { Ok(rows) }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Nothing,
    Unsure,
    Normal,
    Defective,
}

impl Word {
    fn label(self) -> Option<bool> {
        match self {
            Word::Nothing | Word::Unsure => None,
            Word::Normal => Some(false),
            Word::Defective => Some(true),
        }
    }
}

fn word(column: &str, text: &str, line: u64) -> Result<Word, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" => Ok(Word::Nothing),
        "unsure" => Ok(Word::Unsure),
        "0" | "normal" | "good" | "ok" => Ok(Word::Normal),
        "1" | "anomaly" | "anomalous" | "defective" | "bad" | "ko" | "ng" => Ok(Word::Defective),
        _ => Err(format!(
            "line {line}: found {column} `{}`, expected OK, NG, unsure, 0, 1 or nothing",
            shown(text.trim())
        )),
    }
}

/// Text of a file for a message: short, and nothing in it that moves a cursor.
fn shown(text: &str) -> String {
    const MOST: usize = 120;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().count() > MOST {
        short.push('…');
    }
    short.replace("\\'", "'").replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Mask;

    fn samples(names: &[&str]) -> Vec<Sample> {
        names.iter().map(|name| Sample::new(*name, "c", "", Some(true), Mask::Unknown)).collect()
    }

    fn labels(names: &[&str], table: &str) -> Result<Vec<Option<bool>>> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("review.csv");
        std::fs::write(&path, table).expect("write");
        labels_of(&samples(names), &path)
    }

    #[test]
    fn a_review_becomes_labels() {
        let names = ["a.png", "b.png", "c.png", "d.png", "=e,\"f\".png", "'-g.png", "h.png"];
        let table = "path,label,review\r\na.png,1,NG\r\nb.png,0,OK\r\nc.png,,unsure\r\nd.png,,\r\n\
                     \"'=e,\"\"f\"\".png\",1,ng\r\n''-g.png,,Ok\r\n";
        let expected = [Some(true), Some(false), None, None, Some(true), Some(false), None];
        assert_eq!(labels(&names, table).expect("labels"), expected);
        // With a mark in front, columns in another order, and one that means nothing here.
        let other = "\u{feff}Review, note ,path\nNG,\"x\ny\",b.png\n";
        assert_eq!(labels(&["a.png", "b.png"], other).expect("labels"), [None, Some(true)]);
        assert_eq!(labels(&["a.png"], "path,label\na.png,good\n").expect("labels"), [Some(false)]);
    }

    #[test]
    fn paths_count_from_the_table_s_folder() {
        let folder = tempfile::tempdir().expect("folder");
        let image = folder.path().join("deep/a.png");
        std::fs::create_dir_all(folder.path().join("deep")).expect("folder");
        std::fs::write(&image, b"").expect("write");
        let table = folder.path().join("review.csv");
        let known = samples(&[image.to_str().expect("text"), "other.png"]);
        for written in ["deep/a.png", "deep/../deep/a.png", image.to_str().expect("text")] {
            std::fs::write(&table, format!("path,review\n{written},NG\n")).expect("write");
            assert_eq!(labels_of(&known, &table).expect(written), [Some(true), None], "{written}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_come_back() {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"a\xff.png");
        let sample = Sample::new(name, "c", "", None, Mask::Unknown);
        let folder = tempfile::tempdir().expect("folder");
        let table = folder.path().join("review.csv");
        // As a browser writes it, and as scores.csv does.
        for bytes in [&b"path,review\na\xef\xbf\xbd.png,OK\n"[..], b"path,review\na\xff.png,OK\n"] {
            std::fs::write(&table, bytes).expect("write");
            let found = labels_of(std::slice::from_ref(&sample), &table).expect("labels");
            assert_eq!(found, [Some(false)]);
        }
        // Two names that read alike cannot be told apart.
        let other =
            Sample::new(std::ffi::OsStr::from_bytes(b"a\xfe.png"), "c", "", None, Mask::Unknown);
        let said = labels_of(&[sample, other], &table).expect_err("two").to_string();
        assert!(said.contains("line 2") && said.contains("2 of the images"), "{said}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (table, words) in [
            ("path,review\na.png,OK\nx.png,NG\n", ["line 3", "`x.png`", "none of the 2 images"]),
            ("path,review\na.png,OK\na.png,OK\n", ["line 3", "`a.png`", "line 2"]),
            ("path,review\na.png,maybe\n", ["line 2", "review `maybe`", "unsure"]),
            ("path,label\na.png,2\n", ["line 2", "label `2`", "expected"]),
            ("path,label,review\na.png,0,NG\n", ["line 2", "`0` beside", "`NG`"]),
            ("path,review\n,NG\n", ["line 2", "no path", "review.csv"]),
            ("path\na.png\n", ["`path`", "`label`", "`review`"]),
            ("name,label\na.png,1\n", ["`name,label`", "`path`", "`review`"]),
            ("path,review\n", ["no row", "table", "review.csv"]),
            ("", ["expected", "`path`", "review.csv"]),
            ("path,review\n\u{1b}[2J.png,OK\n", ["line 2", "\\u{1b}[2J.png", "none of"]),
        ] {
            let said = labels(&["a.png", "b.png"], table).expect_err(table).to_string();
            for word in words {
                assert!(said.contains(word), "{word} in {said}");
            }
        }
        let said = labels_of(&samples(&["a"]), Path::new("no/such.csv")).expect_err("none");
        assert!(said.to_string().contains("no/such.csv"), "{said}");
    }
}
