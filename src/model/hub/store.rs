//! Where a fetched file is kept: the layout that the Hub's own programs read and write.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::{Hub, Remote, failed};
use crate::model::{WeightFile, sha256_of_file};
use crate::{Error, Progress, Result, Stage};

impl Hub {
    /// Brings a file into the cache and returns its path there. What is there already is not fetched again. `progress` counts
    /// bytes and may stop it; what came by then is kept, and a later call goes on from there.
    ///
    /// # Errors
    /// [`Error::Download`] when the bytes do not come, or are not those that were announced: another number, another hash, or
    /// no safetensors file; nothing of them is kept then. [`Error::Io`] when the cache cannot be written.
    /// [`Error::Interrupted`].
    pub fn fetch(&self, remote: &Remote, progress: &dyn Progress) -> Result<PathBuf> {
        let folder = self.cache.repository(&remote.repository);
        let blobs = folder.join("blobs");
        let blob = blobs.join(&remote.etag);
        if self.offline {
            let url = self.url(&remote.repository, &remote.commit, &remote.file);
            return Err(failed(&url, "HF_HUB_OFFLINE is set, so no network is used"));
        }
        std::fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
        let _lock = self.lock(remote)?;
        progress.begin(Stage::Download, remote.bytes);
        if blob.is_file() && self.check(remote, &blob).is_ok() {
            progress.advance(remote.bytes);
        } else {
            let incomplete = blobs.join(format!("{}.incomplete", remote.etag));
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(&incomplete)
                .map_err(Error::io("write", &incomplete))?;
            self.fill(remote, &incomplete, &mut file, progress)?;
            drop(file);
            if let Err(reason) = self.check(remote, &incomplete) {
                // Going on from wrong bytes would never end well. Should they stay, the check refuses them again.
                let _ = std::fs::remove_file(&incomplete);
                return Err(reason);
            }
            std::fs::rename(&incomplete, &blob).map_err(Error::io("write", &blob))?;
        }
        progress.end();
        let path = self.link(remote, &folder, &blob)?;
        let reference = folder.join("refs/main");
        replace(&reference, |aside| std::fs::write(aside, &remote.commit))?;
        Ok(path)
    }

    /// Compares a file with what was announced: size, hash, and that it is a safetensors file.
    fn check(&self, remote: &Remote, path: &Path) -> Result<()> {
        let url = self.url(&remote.repository, &remote.commit, &remote.file);
        let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        if length != remote.bytes {
            let expected = remote.bytes;
            return Err(failed(&url, format!("found {length} bytes, expected {expected}")));
        }
        if let Some(expected) = remote.sha256() {
            let found = sha256_of_file(path)?;
            if !found.eq_ignore_ascii_case(expected) {
                let reason =
                    format!("found SHA-256 {found}, expected {expected}: damaged on its way");
                return Err(failed(&url, reason));
            }
        }
        WeightFile::open(path).map(|_| ()).map_err(|reason| match reason {
            Error::Weights { problems, .. } => failed(&url, problems.join("; ")),
            other => other,
        })
    }

    /// Keeps other programs that use the same cache from fetching the same file meanwhile. It ends when dropped.
    fn lock(&self, remote: &Remote) -> Result<File> {
        let name = format!("models--{}", remote.repository.replace('/', "--"));
        let folder = self.cache.root().join(".locks").join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let path = folder.join(format!("{}.lock", remote.etag));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                let url = self.url(&remote.repository, &remote.commit, &remote.file);
                Err(failed(
                    &url,
                    format!("another program is fetching it (it holds {})", path.display()),
                ))
            }
            // A file system without locks: two programs at once would be told by the hash.
            Err(std::fs::TryLockError::Error(_)) => Ok(file),
        }
    }

    /// Puts the file into its commit's folder.
    fn link(&self, remote: &Remote, folder: &Path, blob: &Path) -> Result<PathBuf> {
        let path = folder.join("snapshots").join(&remote.commit).join(&remote.file);
        replace(&path, |aside| {
            // Relative, so that the cache can be moved as a whole.
            let depth = 2 + Path::new(&remote.file).components().count().saturating_sub(1);
            let target = "../".repeat(depth) + "blobs/" + &remote.etag;
            symbolic_link(Path::new(&target), aside)
                .or_else(|_| std::fs::hard_link(blob, aside))
                .or_else(|_| std::fs::copy(blob, aside).map(|_| ()))
        })?;
        Ok(path)
    }
}

#[cfg(unix)]
fn symbolic_link(target: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(not(unix))]
fn symbolic_link(_target: &Path, _at: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Makes a file aside and renames it to its place.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let aside = tempfile::Builder::new()
        .prefix(".musc-")
        .tempdir_in(folder)
        .map_err(Error::io("write", path))?;
    let made = aside.path().join("made");
    make(&made).and_then(|()| std::fs::rename(&made, path)).map_err(Error::io("write", path))
}
