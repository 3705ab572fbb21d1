//! The output folder of a run, and the refusal to overwrite another run's files.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Fails if any of the paths exists, naming the first. With `overwrite` it never fails.
///
/// # Errors
/// [`Error::Exists`] with the first path, in the order given, at which there is something already.
pub fn check_free<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    overwrite: bool,
) -> Result<()> {
    if overwrite {
        return Ok(());
    }
    // A dangling link counts as taken.
    match paths.into_iter().find(|path| path.as_ref().symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(taken) => Err(Error::Exists { path: taken.as_ref().to_path_buf() }),
    }
}

/// Where a run writes, and whether it may replace files.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    root: PathBuf,
    overwrite: bool,
}

impl OutputFolder {
    /// Makes the folder if it is missing and proves that it can be written to.
    ///
    /// # Errors
    /// [`Error::Io`] naming the folder.
    pub fn create(root: impl Into<PathBuf>, overwrite: bool) -> Result<Self> {
        let root = root.into();
        crate::atomic::probe_folder(&root)?;
        Ok(Self { root, overwrite })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside the folder.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Checks, before any work starts, that none of the files the run is going to write is there already.
    /// Paths are relative to the folder (an absolute path stands for itself).
    ///
    /// # Errors
    /// As [`check_free`].
    pub fn check_free<P: AsRef<Path>>(&self, relative: impl IntoIterator<Item = P>) -> Result<()> {
        check_free(relative.into_iter().map(|path| self.root.join(path)), self.overwrite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_run_are_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().join("out");
        let output = OutputFolder::create(&root, false).expect("create");
        assert!(output.check_free(["a.csv", "b.csv"]).is_ok());
        std::fs::write(output.join("b.csv"), b"").expect("write");
        std::fs::write(output.join("c.csv"), b"").expect("write");
        let taken = output.check_free(["a.csv", "b.csv", "c.csv"]).expect_err("taken");
        let message = taken.to_string();
        assert!(message.contains("b.csv") && message.contains("already there"), "{message}");
        assert!(matches!(taken, Error::Exists { path } if path == output.join("b.csv")));
        let replacing = OutputFolder::create(&root, true).expect("create");
        assert!(replacing.check_free(["b.csv"]).is_ok());
        assert_eq!(replacing.root(), root);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        std::fs::write(&file, b"").expect("write");
        let message = OutputFolder::create(file.join("out"), false).expect_err("file").to_string();
        assert!(message.contains("out"), "{message}");
    }
}
