//! The cache of the Hugging Face Hub on this machine, as all its programs share it: read without a network.

use std::path::{Path, PathBuf};

/// The cache's folder. In it, `models--ORGANISATION--NAME` holds a repository: `refs/main` says which commit is the present
/// one, `snapshots/COMMIT/FILE` are the files of a commit, links to `blobs/HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
}

impl HubCache {
    /// The cache at a folder, whether or not it is there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder that the Hub's own programs would use: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`,
    /// `XDG_CACHE_HOME/huggingface/hub` or `~/.cache/huggingface/hub`, the first that is set.
    ///
    /// `variable` looks an environment variable up; `home` is the user's folder. `None` when nothing says where.
    pub fn locate(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<&Path>) -> Option<Self> {
        let set = |name: &str| {
            let path = variable(name).filter(|path| !path.as_os_str().is_empty())?;
            // A shell that does not expand the tilde leaves it to us, as the Hub's programs take it.
            match (path.strip_prefix("~"), home) {
                (Ok(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(path),
            }
        };
        set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(set("HF_HOME")?.join("hub")))
            .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .or_else(|| Some(home?.join(".cache/huggingface/hub")))
            .map(Self::new)
    }

    /// [`HubCache::locate`] with this process's environment.
    pub fn of_environment() -> Option<Self> {
        Self::locate(
            |name| std::env::var_os(name).map(PathBuf::from),
            std::env::home_dir().as_deref(),
        )
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository `organisation/name`.
    pub fn repository(&self, repository: &str) -> PathBuf {
        self.root.join(format!("models--{}", repository.replace('/', "--")))
    }

    /// A file of a repository, if it is there: that of the present commit, else that of any other, the last by name.
    pub fn find(&self, repository: &str, file: &str) -> Option<PathBuf> {
        let folder = self.repository(repository);
        let snapshots = folder.join("snapshots");
        let there = |commit: &Path| {
            let path = snapshots.join(commit).join(file);
            path.is_file().then_some(path)
        };
        let main = std::fs::read_to_string(folder.join("refs/main")).ok();
        let main = main.as_deref().map(str::trim).filter(|commit| is_commit(commit));
        if let Some(found) = main.and_then(|commit| there(Path::new(commit))) {
            return Some(found);
        }
        let entries = std::fs::read_dir(&snapshots).ok()?;
        let mut commits: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        commits.sort();
        commits.iter().rev().find_map(|commit| there(Path::new(commit)))
    }
}

/// A commit's name: hexadecimal, so that it leads nowhere else as part of a path.
pub(crate) fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(set: &[(&str, &str)]) -> Option<PathBuf> {
        let variable = |name: &str| {
            set.iter().find(|(other, _)| *other == name).map(|(_, value)| PathBuf::from(value))
        };
        HubCache::locate(variable, Some(Path::new("/home/me"))).map(|cache| cache.root)
    }

    #[test]
    fn the_first_variable_that_is_set_says_where() {
        let mut set = vec![
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "/d"),
        ];
        for expected in ["/a", "/b", "/c/hub", "/d/huggingface/hub"] {
            assert_eq!(located(&set), Some(expected.into()));
            set.remove(0);
        }
        assert_eq!(located(&[]), Some("/home/me/.cache/huggingface/hub".into()));
        assert_eq!(located(&[("HF_HUB_CACHE", "")]), located(&[]));
        assert_eq!(located(&[("HF_HOME", "~/models")]), Some("/home/me/models/hub".into()));
        assert_eq!(HubCache::locate(|_| None, None), None);
    }

    #[test]
    fn a_file_is_found_in_the_present_commit_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = HubCache::new(folder.path());
        let repository = cache.repository("timm/vit");
        assert!(repository.ends_with("models--timm--vit"));
        assert_eq!(cache.find("timm/vit", "model.safetensors"), None);
        for commit in ["aaaaaaa1", "bbbbbbb2"] {
            let at = repository.join("snapshots").join(commit);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("model.safetensors"), commit).unwrap();
        }
        let found = || std::fs::read(cache.find("timm/vit", "model.safetensors").unwrap()).unwrap();
        assert_eq!(found(), b"bbbbbbb2");
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), "aaaaaaa1\n").unwrap();
        assert_eq!(found(), b"aaaaaaa1");
        // A ref that leads out of the folder is not followed.
        std::fs::write(repository.join("refs/main"), "../../../elsewhere").unwrap();
        assert_eq!(found(), b"bbbbbbb2");
        assert_eq!(cache.find("timm/vit", "other.safetensors"), None);
    }
}
