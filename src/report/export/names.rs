//! What images are called in an export: relative to the folder that all of them share.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use crate::dataset::shared_folder;
use crate::report::inspected::InspectedImage;

/// The names of some images, relative to a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageNames {
    /// The folder that all images are below, absolute; empty where they share none.
    pub folder: PathBuf,
    /// An image's path from there, with `/` between its parts and no `..`; no two are equal.
    pub names: Vec<String>,
    /// An image's whole path, absolute where it is a file's.
    pub paths: Vec<PathBuf>,
}

impl ImageNames {
    /// Those of some images, in their order. Paths are taken from the working folder where they are relative; no file is looked
    /// at. A path that is no UTF-8 is named by its readable part.
    pub fn of(images: &[InspectedImage]) -> Self {
        let paths: Vec<PathBuf> = images.iter().map(|image| absolute(&image.path)).collect();
        let folder = shared_folder(paths.iter().map(PathBuf::as_path));
        let mut taken = HashSet::new();
        let names = paths
            .iter()
            .map(|path| {
                let inside = path.strip_prefix(&folder).unwrap_or(path);
                let parts: Vec<_> = inside
                    .components()
                    .filter_map(|part| match part {
                        Component::Normal(part) => Some(part.to_string_lossy()),
                        _ => None,
                    })
                    .collect();
                let plain = parts.join("/");
                let (mut name, mut number) = (plain.clone(), 2);
                // Only frames that were given one name, and names that were no UTF-8.
                while !taken.insert(name.clone()) {
                    name = format!("{plain}-{number}");
                    number += 1;
                }
                name
            })
            .collect();
        ImageNames { folder, names, paths }
    }
}

/// The path from the root, without `.` and `..`, as far as that can be told from the path alone.
fn absolute(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut plain = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::report::inspected::samples::image;

    fn names(paths: &[&str]) -> ImageNames {
        let images: Vec<InspectedImage> = paths.iter().map(|path| image(path, "c", 0.25)).collect();
        ImageNames::of(&images)
    }

    #[test]
    fn names_are_relative_to_what_all_share() {
        let found =
            names(&["/data/part/good/a.png", "/data/part/bad/../bad/b.png", "/data/part/./c.png"]);
        assert_eq!(found.folder, Path::new("/data/part"));
        assert_eq!(found.names, ["good/a.png", "bad/b.png", "c.png"]);
        assert_eq!(names(&["/data/a.png"]).names, ["a.png"]);
        assert_eq!(names(&["/data/a.png", "/other/a.png"]).names, ["data/a.png", "other/a.png"]);
        let here = std::env::current_dir().expect("folder");
        let found = names(&["set/x.png", "../y.png"]);
        assert_eq!(found.folder, here.parent().expect("parent"));
        let own = here.file_name().expect("name").to_string_lossy().into_owned();
        assert_eq!(found.names, [format!("{own}/set/x.png"), "y.png".into()]);
        assert!(names(&[]).names.is_empty());
    }

    #[test]
    fn no_two_names_are_equal() {
        assert_eq!(names(&["/d/a", "/d/a", "/d/a-2", "/d/a"]).names, ["a", "a-2", "a-2-2", "a-3"]);
    }
}
