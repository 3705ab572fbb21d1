//! Any images: folders, glob patterns, files, lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::layout::{file_name, is_hidden, list};
use super::list::{self as lists, Entry};
use super::{Category, Mask, Sample};
use crate::image::{EXTENSIONS, has_image_extension};
use crate::{Error, Result};

/// What to make of the files that [`collect`] finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderOptions {
    /// Name of the category; without one the folder's name, or `images` for other inputs.
    pub name: Option<String>,
    /// Take labels from folder names: an image in or below a folder named `good`, `normal` or `ok` is normal, one in
    /// any other sub-folder is defective. A label that a list gives goes first.
    pub labels_from_folders: bool,
}

impl FolderOptions {
    /// With this name for the category.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// With labels taken from folder names, or not.
    pub fn with_labels_from_folders(mut self, taken: bool) -> Self {
        self.labels_from_folders = taken;
        self
    }
}

/// Collects images into one category, sorted by path, each file once.
///
/// An input is, in this order: `@LIST`, a list file; a folder, searched to its last sub-folder; a `.txt` or `.csv`
/// file, a list; any other file, an image; a glob pattern (`*`, `?`, `[a-z]`, `**`).
/// A list names a path a line, or has the columns `path`, `label` (0, normal, good; 1, anomaly, defective; empty:
/// unknown) and `mask`; paths start at the list's folder. In folders and patterns files are taken by their
/// extension ([`EXTENSIONS`]); a folder's other files (`Thumbs.db`, `labels.csv`, notes) are left out and named in
/// [`Category::ignored`]; hidden files and `__MACOSX` are not seen.
///
/// # Errors
/// [`Error::Dataset`] when an input does not exist, a pattern matches no image, a list is malformed or names missing files,
/// no image is left, one image has two labels, or a label is to come from a folder name and there is none;
/// [`Error::Invalid`] for no input or a malformed pattern; [`Error::Io`] when a folder or list cannot be read.
pub fn collect(inputs: &[String], options: &FolderOptions) -> Result<Category> {
    let Some(first) = inputs.first() else {
        return Err(Error::invalid("images", "none", "folders, patterns, files or lists"));
    };
    let mut collector = Collector::default();
    let mut files = Vec::new();
    for input in inputs {
        let path = Path::new(input);
        if let Some(list) = input.strip_prefix('@') {
            collector.add_list(Path::new(list), options)?;
        } else if path.is_dir() {
            collector.add_folder(path, options)?;
        } else if path.is_file() {
            match path.extension().map(|extension| extension.to_ascii_lowercase()) {
                Some(extension) if extension == "txt" || extension == "csv" => {
                    collector.add_list(path, options)?;
                }
                _ => files.push(path.to_path_buf()),
            }
        } else if input.contains(['*', '?', '[']) {
            collector.add_pattern(input, options)?;
        } else {
            return Err(Error::Dataset {
                path: path.to_path_buf(),
                reason: String::from("no such file or folder"),
            });
        }
    }
    collector.add_files(files, options)?;
    let name = match (&options.name, inputs) {
        (Some(name), _) => name.clone(),
        (None, [one]) => folder_name(Path::new(one)).unwrap_or_else(|| String::from("images")),
        _ => String::from("images"),
    };
    collector.finish(Path::new(first), name)
}

/// The name of a folder, also of `.` and `..`.
fn folder_name(path: &Path) -> Option<String> {
    let whole = path.canonicalize().ok().filter(|whole| whole.is_dir())?;
    whole.file_name().map(|name| name.to_string_lossy().into_owned())
}

#[derive(Default)]
struct Collector {
    /// By the file's true path, so that two ways of writing one path are one file.
    samples: BTreeMap<PathBuf, Sample>,
    ignored: BTreeSet<PathBuf>,
    duplicates: Vec<PathBuf>,
}

impl Collector {
    fn add_folder(&mut self, root: &Path, options: &FolderOptions) -> Result<()> {
        // True paths of the folders on the way, so that a link to a folder above ends.
        let mut seen = BTreeSet::new();
        let mut waiting = vec![root.to_path_buf()];
        while let Some(folder) = waiting.pop() {
            let whole = folder.canonicalize().map_err(Error::io("list", &folder))?;
            if !seen.insert(whole) {
                continue;
            }
            let listing = list(&folder)?;
            waiting.extend(listing.folders);
            for path in listing.files {
                if has_image_extension(&path) {
                    let relative = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
                    self.add(path, &relative, None, Mask::Unknown, options)?;
                } else {
                    self.ignored.insert(path);
                }
            }
        }
        Ok(())
    }

    fn add_pattern(&mut self, pattern: &str, options: &FolderOptions) -> Result<()> {
        let paths = glob::glob(pattern)
            .map_err(|error| Error::invalid("pattern", format!("`{pattern}`"), error.msg))?;
        // Sub-folders count from the part of the pattern that is fixed.
        let base: PathBuf = Path::new(pattern)
            .components()
            .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']))
            .collect();
        let (mut matched, mut found) = (false, false);
        for path in paths {
            let path = path.map_err(|error| Error::Io {
                action: "list",
                path: error.path().to_path_buf(),
                source: error.into(),
            })?;
            let relative = path.strip_prefix(&base).unwrap_or(&path).to_path_buf();
            // Only what the pattern itself matched can hide a file, not the folder it starts from.
            if path.is_dir() || relative.components().any(|part| is_hidden(part.as_ref())) {
                continue;
            }
            matched = true;
            if has_image_extension(&path) {
                found = true;
                self.add(path, &relative, None, Mask::Unknown, options)?;
            } else {
                self.ignored.insert(path);
            }
        }
        if found {
            return Ok(());
        }
        let reason = if matched {
            format!(
                "as a pattern it matches no image, expected files named .{}",
                EXTENSIONS.join(", .")
            )
        } else {
            String::from("no such file, and as a pattern it matches no file")
        };
        Err(Error::Dataset { path: PathBuf::from(pattern), reason })
    }

    fn add_list(&mut self, list: &Path, options: &FolderOptions) -> Result<()> {
        for Entry { path, written, label, mask } in lists::read(list)? {
            self.add(path, &written, label, mask, options)?;
        }
        Ok(())
    }

    /// Files given one by one, as a shell makes of a pattern: their kinds count from the folder they share.
    fn add_files(&mut self, files: Vec<PathBuf>, options: &FolderOptions) -> Result<()> {
        let mut base: Option<PathBuf> = None;
        for path in &files {
            let parent = path.parent().unwrap_or(Path::new(""));
            base = Some(match base {
                None => parent.to_path_buf(),
                Some(base) => base
                    .components()
                    .zip(parent.components())
                    .take_while(|(one, other)| one == other)
                    .map(|(one, _)| one)
                    .collect(),
            });
        }
        let base = base.unwrap_or_default();
        for path in files {
            let relative = path.strip_prefix(&base).unwrap_or(&path).to_path_buf();
            self.add(path, &relative, None, Mask::Unknown, options)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        path: PathBuf,
        relative: &Path,
        label: Option<bool>,
        mask: Mask,
        options: &FolderOptions,
    ) -> Result<()> {
        let whole = path.canonicalize().map_err(Error::io("read", &path))?;
        let folders = sub_folders(relative);
        let (label, mask) = match label {
            None if options.labels_from_folders => {
                let label = label_from_folders(&path, &whole, &folders)?;
                let unknown = mask == Mask::Unknown;
                (Some(label), if unknown && !label { Mask::Normal } else { mask })
            }
            label => (label, mask),
        };
        let Some(known) = self.samples.get_mut(&whole) else {
            let kind = folders.join("/");
            let sample = Sample::new(path, "", kind, label, mask);
            self.samples.insert(whole, sample);
            return Ok(());
        };
        if let (Some(one), Some(other)) = (known.label, label)
            && one != other
        {
            return Err(Error::Dataset {
                path,
                reason: String::from("given twice, once as normal and once as defective"),
            });
        }
        known.label = known.label.or(label);
        if known.mask == Mask::Unknown {
            known.mask = mask;
        }
        self.duplicates.push(path);
        Ok(())
    }

    fn finish(self, first: &Path, name: String) -> Result<Category> {
        let mut samples: Vec<Sample> = self.samples.into_values().collect();
        if samples.is_empty() {
            return Err(Error::Dataset {
                path: first.to_path_buf(),
                reason: format!(
                    "no images{}; expected files named .{}",
                    match self.ignored.len() {
                        0 => String::new(),
                        1 => ", and 1 other file".into(),
                        others => format!(", and {others} other files"),
                    },
                    EXTENSIONS.join(", .")
                ),
            });
        }
        samples.sort_by(|one, other| one.path.cmp(&other.path));
        for sample in &mut samples {
            sample.class.clone_from(&name);
        }
        Ok(Category {
            ignored: self.ignored.into_iter().collect(),
            duplicates: self.duplicates,
            ..Category::new(name, samples)
        })
    }
}

/// Names of the folders between the input and the file; nothing that leads out of the input.
fn sub_folders(relative: &Path) -> Vec<String> {
    let parent = relative.parent().unwrap_or(Path::new(""));
    if parent.is_absolute() {
        return vec![file_name(parent)];
    }
    parent
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

fn label_from_folders(path: &Path, whole: &Path, folders: &[String]) -> Result<bool> {
    let is_normal = |name: &String| {
        ["good", "normal", "ok"].iter().any(|normal| name.eq_ignore_ascii_case(normal))
    };
    if folders.iter().any(is_normal) {
        return Ok(false);
    }
    if !folders.is_empty() {
        return Ok(true);
    }
    // Directly in what was given: only a folder that says "normal" tells anything.
    if whole.parent().map(file_name).as_ref().is_some_and(is_normal) {
        return Ok(false);
    }
    Err(Error::Dataset {
        path: path.to_path_buf(),
        reason: String::from(
            "labels were asked from folder names, and this image lies in no sub-folder",
        ),
    })
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
