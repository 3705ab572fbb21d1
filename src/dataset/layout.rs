//! The folder layout that MVTec AD and BTAD share: `CLASS/test/TYPE/*` and `CLASS/ground_truth/TYPE/*`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Category, ClassSelection, DatasetKind, Mask, Sample, first_few, selected_names};
use crate::image::has_image_extension;
use crate::{Error, Result};

/// What differs between the data sets of this layout.
pub(super) struct Layout {
    pub(super) kind: DatasetKind,
    /// The type of images without defects.
    pub(super) normal: &'static str,
    /// What may follow an image's stem in its mask's, the usual one first.
    pub(super) mask_suffixes: &'static [&'static str],
}

pub(super) fn load(
    layout: &Layout,
    root: &Path,
    classes: &ClassSelection,
) -> Result<Vec<Category>> {
    let names = selected_names(layout.kind, classes, |name| root.join(name).join("test").is_dir())?;
    let missing: Vec<&String> =
        names.iter().filter(|name| !root.join(name).join("test").is_dir()).collect();
    if !missing.is_empty() {
        return Err(Error::Dataset {
            path: root.to_path_buf(),
            reason: format!(
                "no folder CLASS/test for {} of {} classes ({}); expected the layout of {}",
                missing.len(),
                names.len(),
                first_few(missing.iter()),
                layout.kind.name()
            ),
        });
    }
    names.iter().map(|name| load_class(layout, root, name)).collect()
}

fn load_class(layout: &Layout, root: &Path, class: &str) -> Result<Category> {
    let test = root.join(class).join("test");
    let mut samples = Vec::new();
    let mut ignored = Vec::new();
    let top = list(&test)?;
    ignored.extend(top.files);
    for folder in top.folders {
        let kind = file_name(&folder);
        let normal = kind == layout.normal;
        let images = images_in(&folder, &mut ignored)?;
        let mut masks = if normal {
            BTreeMap::new()
        } else {
            let masks = root.join(class).join("ground_truth").join(&kind);
            if !masks.is_dir() {
                return Err(Error::Dataset {
                    path: masks,
                    reason: format!("no such folder, expected the masks of {}", folder.display()),
                });
            }
            by_stem(images_in(&masks, &mut ignored)?)?
        };
        let mut unmatched = Vec::new();
        for path in images {
            let mask = if normal {
                Mask::Normal
            } else {
                match take_mask(layout, &path, &mut masks) {
                    Some(mask) => Mask::File(mask),
                    None => {
                        unmatched.push(file_name(&path));
                        continue;
                    }
                }
            };
            samples.push(Sample::new(path, class, kind.clone(), Some(!normal), mask));
        }
        if !unmatched.is_empty() {
            return Err(Error::Dataset {
                path: folder,
                reason: format!(
                    "no mask for {} images ({}), expected {}",
                    unmatched.len(),
                    first_few(unmatched.iter()),
                    root.join(class)
                        .join("ground_truth")
                        .join(&kind)
                        .join(format!("NAME{}.png", layout.mask_suffixes[0]))
                        .display()
                ),
            });
        }
        if !masks.is_empty() {
            return Err(Error::Dataset {
                path: root.join(class).join("ground_truth").join(&kind),
                reason: format!(
                    "{} masks have no image in {} ({})",
                    masks.len(),
                    folder.display(),
                    first_few(masks.values().map(|path| file_name(path)))
                ),
            });
        }
    }
    if samples.is_empty() {
        return Err(Error::Dataset {
            path: test,
            reason: String::from("no images, expected folders of images"),
        });
    }
    Ok(layout.kind.category(class, samples, ignored))
}

/// Takes the mask that belongs to an image out of `masks`.
///
/// The authors' program pairs the two sorted lists by position; by name, a missing mask cannot shift the others.
fn take_mask(
    layout: &Layout,
    image: &Path,
    masks: &mut BTreeMap<OsString, PathBuf>,
) -> Option<PathBuf> {
    let stem = image.file_stem()?;
    layout.mask_suffixes.iter().find_map(|suffix| {
        let mut name = stem.to_os_string();
        name.push(suffix);
        masks.remove(&name)
    })
}

fn by_stem(paths: Vec<PathBuf>) -> Result<BTreeMap<OsString, PathBuf>> {
    let mut map = BTreeMap::new();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_os_string();
        if let Some(other) = map.insert(stem, path.clone()) {
            return Err(Error::Dataset {
                path,
                reason: format!("two masks of one name, the other is {}", file_name(&other)),
            });
        }
    }
    Ok(map)
}

/// The images in a folder, sorted; other files go to `ignored`.
fn images_in(folder: &Path, ignored: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let (images, others) =
        list(folder)?.files.into_iter().partition(|path| has_image_extension(path));
    ignored.extend::<Vec<PathBuf>>(others);
    Ok(images)
}

/// What a folder holds, each part sorted by name.
pub(super) struct Listing {
    pub(super) folders: Vec<PathBuf>,
    pub(super) files: Vec<PathBuf>,
}

/// Lists a folder without hidden entries (a leading dot) and archives' `__MACOSX` folders.
pub(super) fn list(folder: &Path) -> Result<Listing> {
    let mut listing = Listing { folders: Vec::new(), files: Vec::new() };
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if is_hidden(&path) {
            continue;
        }
        // Links are followed; one that leads nowhere counts as a file and is named when it is read.
        if path.is_dir() { &mut listing.folders } else { &mut listing.files }.push(path);
    }
    listing.folders.sort();
    listing.files.sort();
    Ok(listing)
}

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes() == b"__MACOSX"
    })
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
