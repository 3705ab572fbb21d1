//! The settings' images as categories of samples, none of them opened yet.

use std::path::{Path, PathBuf};

use super::config::{Config, Source};
use super::demo;
use crate::dataset::{self, Category, FolderOptions};
use crate::{Error, Result};

/// Fewer images than this and the scores say little (the authors name about ten as enough).
const FEW_IMAGES: usize = 10;
/// Names shown of a long list of files.
const SHOWN: usize = 3;

/// The categories of a run, with sentences worth saying about them.
pub fn categories(config: &Config, root: &Path) -> Result<(Vec<Category>, Vec<String>)> {
    let categories = match &config.source {
        Source::Dataset { kind, root, classes } => dataset::load(*kind, root, classes)?,
        Source::Paths { paths, labels_from_folders } => vec![plain(paths, *labels_from_folders)?],
        Source::Demo => {
            let folder = demo::write_images(root)?;
            let options = FolderOptions { name: Some("demo".into()), labels_from_folders: true };
            vec![dataset::collect(&[folder], &options)?]
        }
    };
    let mut notes = Vec::new();
    for category in &categories {
        let (name, count) = (&category.name, category.samples.len());
        if count < 2 {
            return Err(Error::invalid(
                format!("number of images in `{name}`"),
                count,
                "at least 2: images are scored against each other",
            ));
        }
        if count < FEW_IMAGES {
            notes.push(format!(
                "{name}: {count} images are few; scores are more reliable from about {FEW_IMAGES} on"
            ));
        }
        if config.skip_bad && !category.ignored.is_empty() {
            notes.push(format!(
                "{name}: passed over {}",
                some_of(&category.ignored, "that are no images")
            ));
        }
        if !category.duplicates.is_empty() {
            notes.push(format!(
                "{name}: scored once: {}",
                some_of(&category.duplicates, "given more than once")
            ));
        }
    }
    Ok((categories, notes))
}

/// Plain images as one category.
pub fn plain(paths: &[String], labels_from_folders: bool) -> Result<Category> {
    dataset::collect(paths, &FolderOptions { name: None, labels_from_folders })
}

/// "12 files that are no images (a, b, c and 9 more)".
fn some_of(files: &[PathBuf], what: &str) -> String {
    let shown: Vec<String> =
        files.iter().take(SHOWN).map(|file| file.display().to_string()).collect();
    let more = match files.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let plural = if files.len() == 1 { "file" } else { "files" };
    format!("{} {plural} {what} ({}{more})", files.len(), shown.join(", "))
}
