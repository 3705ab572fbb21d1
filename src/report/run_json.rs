//! JSON files, whole or not at all.

use std::path::Path;

use crate::Result;
use crate::atomic::write_file;

/// Writes a JSON value, indented, with a line end behind it.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    write_file(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, value)?;
        writer.write_all(b"\n")
    })
}

/// The same without spaces: for the many numbers of polygons.
pub(super) fn write_compact_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    write_file(path, |writer| {
        serde_json::to_writer(&mut *writer, value)?;
        writer.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("run.json");
        let value = serde_json::json!({"z": 1.5, "a": [null, "text"]});
        write_json(&path, &value).expect("write");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.ends_with("}\n"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("json"), value);
    }
}
