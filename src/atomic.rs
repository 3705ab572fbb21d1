//! Files that are either whole or not there: what every part of the crate writes files with.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// A file in the making: a temporary file beside the final path, removed when dropped before [`Self::finish`].
#[derive(Debug)]
pub(crate) struct PendingFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl PendingFile {
    /// Makes the folders that are missing and opens the temporary file.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder).map_err(Error::io("create the folder of", path))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".musc-").suffix(".part");
        // Like any new file: readable as the user's umask says, not by its owner alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(Error::io("create", path))?;
        Ok(Self { path: path.to_path_buf(), writer: BufWriter::with_capacity(1 << 16, file) })
    }

    /// Where the bytes go. Errors are to be passed through [`Self::failed`].
    pub fn writer(&mut self) -> &mut BufWriter<NamedTempFile> {
        &mut self.writer
    }

    /// The error of a failed write, under the file's final name.
    pub fn failed(&self, error: io::Error) -> Error {
        Error::io("write", &self.path)(error)
    }

    /// Writes what is still buffered.
    fn written(self) -> Result<(PathBuf, NamedTempFile)> {
        let Self { path, writer } = self;
        let file =
            writer.into_inner().map_err(|error| Error::io("write", &path)(error.into_error()))?;
        Ok((path, file))
    }

    /// As [`Self::finish`], unless there is a file of that name already: then that one stays.
    pub fn finish_new(self) -> Result<()> {
        let (path, file) = self.written()?;
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io("write", &path)(error.error))
            }
            _ => Ok(()),
        }
    }

    /// Writes what is still buffered and gives the file its name.
    pub fn finish(self) -> Result<()> {
        let (path, file) = self.written()?;
        file.persist(&path).map_err(|error| Error::io("write", &path)(error.error))?;
        Ok(())
    }
}

/// Writes a file by way of a temporary one in the same folder. Missing folders are made; a file of that name is replaced.
///
/// # Errors
/// [`Error::Io`] with the final path; nothing is left behind then.
pub fn write_file(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut pending = PendingFile::create(path)?;
    content(pending.writer()).map_err(|error| pending.failed(error))?;
    pending.finish()
}

/// As [`write_file`], but a file of that name that is there, or comes first, stays as it is.
///
/// # Errors
/// As [`write_file`].
pub fn write_new_file(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut pending = PendingFile::create(path)?;
    content(pending.writer()).map_err(|error| pending.failed(error))?;
    pending.finish_new()
}

/// As [`write_file`], with a look at the file before it gets its name: when `check` refuses it, there is none.
///
/// # Errors
/// [`Error::Io`] with the final path, or what `check` says; nothing is left behind then.
pub fn write_checked_file<T>(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    check: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let mut pending = PendingFile::create(path)?;
    content(pending.writer())
        .and_then(|()| pending.writer().flush())
        .map_err(|error| pending.failed(error))?;
    let checked = check(pending.writer().get_ref().path())?;
    pending.finish()?;
    Ok(checked)
}

/// Makes the folder if it is missing and proves that a file can be written there.
pub(crate) fn probe_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let probe = || -> io::Result<()> {
        let mut file: File = tempfile::tempfile_in(folder)?;
        file.write_all(b"musc")
    };
    probe().map_err(Error::io("write in", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a/b/out.txt");
        write_file(&path, |w| w.write_all(b"one")).expect("write");
        write_file(&path, |w| w.write_all(b"two")).expect("replace");
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        let failed = write_file(&path, |w| {
            w.write_all(&[0; 200_000])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        let message = failed.expect_err("disk full").to_string();
        assert!(message.contains("out.txt") && message.starts_with("cannot write"), "{message}");
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        let names = std::fs::read_dir(path.parent().expect("parent")).expect("list").count();
        assert_eq!(names, 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_is_refused_gets_no_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.txt");
        let write = |good| {
            write_checked_file(
                &path,
                |w| w.write_all(b"content"),
                |aside| match good {
                    true => Ok(std::fs::read(aside).expect("read").len()),
                    false => Err(Error::Interrupted),
                },
            )
        };
        assert!(write(false).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
        assert_eq!(write(true).expect("write"), 7);
        assert_eq!(std::fs::read(&path).expect("read"), b"content");
    }

    #[test]
    fn an_unusable_folder_names_the_final_path() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        std::fs::write(&file, b"").expect("write");
        let message = write_file(&file.join("out.csv"), |_| Ok(())).expect_err("not a folder");
        assert!(message.to_string().contains("out.csv"), "{message}");
        assert!(probe_folder(&file).is_err());
        assert!(probe_folder(&folder.path().join("new")).is_ok());
    }
}
