//! A folder in which images appear: each is answered once, when it is finished.
//!
//! The folder is listed again and again; that works on every file system, network shares among them. A file is known by its
//! number on the file system, its size and the time of its last change, not by its name: one that is renamed is not asked twice,
//! and one that is replaced is asked again. It is taken when it has not changed for the time of settling; where it cannot be
//! decoded then, its writer may only be slow, and it is tried again when it changes, or once more before it is given up.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use musc::image::has_image_extension;
use musc::{Error, Result};

use super::TOGETHER;
use super::answer::{Answers, Unread};
use crate::shell::interrupt;

/// The shortest time between two looks.
const TICK: Duration = Duration::from_millis(50);
/// A file that has not changed for so long and cannot be read is broken, not unfinished.
const GIVEN_UP: Duration = Duration::from_secs(15);

/// A file that has not been seen for so long is gone, and one that is the same to the last number is another.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// A file as it is at one time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    file: (u64, u64),
    bytes: u64,
    changed: Option<SystemTime>,
    /// Its path, where files have no number.
    path: Option<PathBuf>,
}

impl State {
    #[cfg(unix)]
    fn of(_: &Path, found: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        State {
            file: (found.dev(), found.ino()),
            bytes: found.len(),
            changed: found.modified().ok(),
            path: None,
        }
    }

    #[cfg(not(unix))]
    fn of(path: &Path, found: &Metadata) -> Self {
        State {
            file: (0, 0),
            bytes: found.len(),
            changed: found.modified().ok(),
            path: Some(path.to_path_buf()),
        }
    }
}

/// What is known of a file that has not been answered.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Instant,
    /// It could not be decoded when it had settled.
    tried: bool,
}

/// A folder that is looked at.
pub struct Folder {
    root: PathBuf,
    /// When each file that was answered was there last.
    answered: HashMap<State, Instant>,
    waiting: HashMap<State, Waiting>,
}

impl Folder {
    /// Takes down what is there, which counts as answered unless it is asked for as well.
    pub fn open(root: &Path, existing: bool) -> Result<Self> {
        if !root.is_dir() {
            let found = if root.exists() { "no folder" } else { "not there" };
            let what = format!("--watch {}", root.display());
            return Err(Error::invalid(what, found, "a folder"));
        }
        let mut folder =
            Folder { root: root.to_path_buf(), answered: HashMap::new(), waiting: HashMap::new() };
        if !existing {
            let now = Instant::now();
            folder.answered.extend(folder.list()?.into_iter().map(|(state, _)| (state, now)));
        }
        Ok(folder)
    }

    /// Every image file, as it is now.
    fn list(&self) -> Result<Vec<(State, PathBuf)>> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(reason) if folder == self.root => {
                    return Err(Error::io("list the watched folder", &folder)(reason));
                }
                // A sub-folder may go between two looks.
                Err(_) => continue,
            };
            for entry in entries.flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                // Hidden files are what writers write before they rename.
                if name.to_string_lossy().starts_with('.') {
                    continue;
                }
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    folders.push(path);
                } else if has_image_extension(&path)
                    && let Ok(about) = std::fs::metadata(&path)
                    && about.is_file()
                {
                    found.push((State::of(&path, &about), path));
                }
            }
        }
        Ok(found)
    }

    /// The files that have settled, oldest first.
    fn settled(&mut self, settle: Duration) -> Result<Vec<(State, PathBuf)>> {
        let listed = self.list()?;
        let now = Instant::now();
        let there: HashSet<&State> = listed.iter().map(|(state, _)| state).collect();
        // A file that is renamed while the folder is listed can be in neither place: it is not forgotten at once.
        self.answered.retain(|state, seen| {
            if there.contains(state) {
                *seen = now;
            }
            now.duration_since(*seen) < FORGOTTEN
        });
        self.waiting.retain(|state, _| there.contains(state));
        let mut ready = Vec::new();
        let mut taken = HashSet::new();
        for (state, path) in &listed {
            // Two names of one file are one image.
            if self.answered.contains_key(state) || !taken.insert(state.clone()) {
                continue;
            }
            let waiting =
                self.waiting.entry(state.clone()).or_insert(Waiting { since: now, tried: false });
            let wait = if waiting.tried { GIVEN_UP.max(settle) } else { settle };
            if now.duration_since(waiting.since) >= wait {
                ready.push((state.clone(), path.clone()));
            }
        }
        ready.sort_by(|(a, one), (b, two)| (a.changed, one).cmp(&(b.changed, two)));
        Ok(ready)
    }
}

/// Answers until it is interrupted, or the folder is gone.
pub fn watch(mut folder: Folder, settle: f64, answers: &mut Answers<'_>) -> Result<()> {
    let settle = Duration::from_secs_f64(settle);
    loop {
        interrupt::check()?;
        let looked = Instant::now();
        let ready = folder.settled(settle)?;
        let listing = looked.elapsed();
        for part in ready.chunks(TOGETHER) {
            interrupt::check()?;
            let paths: Vec<PathBuf> = part.iter().map(|(_, path)| path.clone()).collect();
            let unread = answers.try_answer(&paths)?;
            for (state, path) in part {
                match unread.iter().find(|unread| unread.path == *path) {
                    None => {
                        folder.answered.insert(state.clone(), Instant::now());
                        folder.waiting.remove(state);
                    }
                    Some(unread) => folder.unread(state, unread, answers)?,
                }
            }
        }
        if ready.is_empty() {
            // Of a very large folder no more than a fifth of the time.
            std::thread::sleep(TICK.max(listing * 4).min(Duration::from_secs(10)));
        }
    }
}

impl Folder {
    /// A file that had settled and could not be read: gone, unfinished or broken.
    fn unread(&mut self, state: &State, unread: &Unread, answers: &mut Answers<'_>) -> Result<()> {
        let now = std::fs::metadata(&unread.path).ok();
        if now.is_none_or(|found| State::of(&unread.path, &found) != *state) {
            // Renamed, replaced or still growing: the next look finds it as it is then.
            self.waiting.remove(state);
            return Ok(());
        }
        match self.waiting.get_mut(state) {
            Some(waiting) if !waiting.tried => {
                waiting.tried = true;
                Ok(())
            }
            _ => {
                self.waiting.remove(state);
                self.answered.insert(state.clone(), Instant::now());
                answers.fail(&unread.path, &unread.reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_out_of_sight_for_a_moment_is_not_new() {
        let folder = tempfile::tempdir().expect("folder");
        let (inside, aside) = (folder.path().join("in"), folder.path().join("aside.png"));
        std::fs::create_dir(&inside).expect("create");
        std::fs::write(inside.join("a.png"), b"a").expect("write");
        let mut watched = Folder::open(&inside, true).expect("open");
        let settle = Duration::ZERO;
        let (state, _) = watched.settled(settle).expect("list").remove(0);
        watched.answered.insert(state, Instant::now());
        // As a rename looks to a listing that passes both names at the wrong time.
        std::fs::rename(inside.join("a.png"), &aside).expect("rename");
        assert!(watched.settled(settle).expect("list").is_empty());
        std::fs::rename(&aside, inside.join("b.png")).expect("rename");
        assert!(watched.settled(settle).expect("list").is_empty());
        // What is written anew is new.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(inside.join("b.png"), b"bb").expect("write");
        assert_eq!(watched.settled(settle).expect("list").len(), 1);
    }
}
