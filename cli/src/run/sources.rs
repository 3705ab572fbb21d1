//! The settings' images as batches, none of them opened yet.

use std::path::{Path, PathBuf};

use musc::dataset::{self, FolderOptions};
use musc::inspect::Batch;
use musc::{Error, Result};

use super::config::{Config, Source};
use super::demo;

/// Fewer images than this and the scores say little (the authors name about ten as enough).
const FEW_IMAGES: usize = 10;
/// Names shown of a long list of files.
const SHOWN: usize = 3;

/// The batches of a run, with sentences worth saying about them. The demonstration's images are written to `demo_root`.
pub fn batches(config: &Config, demo_root: &Path) -> Result<(Vec<Batch>, Vec<String>)> {
    let batches: Vec<Batch> = match &config.source {
        Source::Dataset { kind, root, classes } => {
            dataset::load(*kind, root, classes)?.into_iter().map(Batch::from).collect()
        }
        Source::Paths { paths, labels_from_folders, labels_table } => {
            let options = FolderOptions::default().with_labels_from_folders(*labels_from_folders);
            let batch = Batch::paths(paths, &options)?;
            vec![match labels_table {
                Some(table) => batch.with_labels_of(table)?,
                None => batch,
            }]
        }
        Source::Demo => {
            let folder = demo::write_images(demo_root)?;
            let options = FolderOptions::default().with_labels_from_folders(true).with_name("demo");
            vec![Batch::paths(&[folder], &options)?]
        }
    };
    let batches: Vec<Batch> =
        batches.into_iter().map(|batch| batch.skip_bad(config.skip_bad)).collect();
    if let (Some(known), [_, _, ..]) = (&config.known, &batches[..]) {
        let found = format!("`{}` beside {} categories", known.path, batches.len());
        return Err(Error::invalid("--references", found, "a PATH, or one category"));
    }
    let by_class = matches!(config.source, Source::Dataset { .. });
    let batches = config.regions.apply(batches, by_class)?;
    let mut notes = Vec::new();
    for batch in &batches {
        let (name, count) = (batch.name(), batch.len());
        let alone = config.known.is_none();
        if count < 2 && alone {
            return Err(Error::invalid(
                format!("number of images in `{name}`"),
                count,
                "at least 2: images are scored against each other",
            ));
        }
        if count < FEW_IMAGES && alone {
            notes.push(format!(
                "{name}: {count} images are few; scores are more reliable from about {FEW_IMAGES} on"
            ));
        }
        notes.extend(passed_over(batch));
        if !batch.duplicates().is_empty() {
            notes.push(format!(
                "{name}: scored once: {}",
                some_of(batch.duplicates(), "given more than once")
            ));
        }
    }
    Ok((batches, notes))
}

/// A sentence about files beside the images, if there are some.
pub fn passed_over(batch: &Batch) -> Option<String> {
    let ignored = batch.ignored();
    (!ignored.is_empty()).then(|| {
        format!("{}: passed over {}", batch.name(), some_of(ignored, "that are no images"))
    })
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
