//! Samples' files to the backbone's square input, with progress; every bad file is found before work starts.

use super::interrupt;
use super::progress::Voice;
use crate::backend::Monitor;
use crate::dataset::{Category, Loaded, Sample, load_masks, load_pixels, load_pixels_beside};
use crate::image::{EXTENSIONS, Filter, PixelSource};
use crate::{Error, Result};

/// Decodes and resizes. Files of the folder that are no images by their names count as bad ones: what a folder of
/// images should hold is the user's to say. Returns the seconds it took, too.
pub fn load(
    category: &Category,
    size: usize,
    filter: Filter,
    skip_bad: bool,
    voice: Voice,
) -> Result<(Loaded, f64)> {
    let samples = &category.samples;
    let stage = voice.stage("reading", samples.len() as u64, "images");
    let read =
        load_pixels(samples, size, filter, skip_bad, &|_| stage.advance(1), &interrupt::asked);
    let loaded = with_ignored(category, skip_bad, read)?;
    Ok((loaded, stage.finish()))
}

/// As [`load`], with `work` done on the images as they get ready.
pub fn load_beside<T>(
    category: &Category,
    size: usize,
    filter: Filter,
    work: impl FnOnce(&dyn PixelSource) -> Result<T>,
) -> Result<(Loaded, T)> {
    let read = load_pixels_beside(&category.samples, size, filter, &interrupt::asked, work);
    with_ignored(category, false, read)
}

/// Adds the files of the folder that are no images by their names to the bad ones.
fn with_ignored<T>(category: &Category, skip_bad: bool, read: Result<T>) -> Result<T> {
    let mut bad = match read {
        Ok(loaded) if skip_bad || category.ignored.is_empty() => return Ok(loaded),
        Ok(_) => Vec::new(),
        Err(Error::BadImages { bad }) => bad,
        Err(other) => return Err(other),
    };
    if !skip_bad {
        let reason = format!("its name does not end as an image's ({})", EXTENSIONS.join(", "));
        bad.extend(category.ignored.iter().map(|path| (path.clone(), reason.clone())));
    }
    Err(Error::BadImages { bad })
}

/// Opens every image and mask only to see that it can be, and lists all bad images at once. For a run of several
/// categories, whose pixels are not all kept in memory. Returns the seconds it took.
pub fn check(categories: &[Category], skip_bad: bool, voice: Voice) -> Result<f64> {
    let count: usize = categories.iter().map(|category| category.samples.len()).sum();
    let stage = voice.stage("checking", count as u64, "images");
    let mut all_bad = Vec::new();
    for category in categories {
        // One pixel an image is all that is kept.
        let read = load_pixels(
            &category.samples,
            1,
            Filter::Bilinear,
            skip_bad,
            &|_| stage.advance(1),
            &interrupt::asked,
        );
        match read {
            Ok(read) => {
                let kept: Vec<Sample> =
                    read.kept.iter().map(|&at| category.samples[at].clone()).collect();
                load_masks(&kept, &read.sizes, 1, category.mask_rule, &interrupt::asked)?;
            }
            Err(Error::BadImages { bad }) => all_bad.extend(bad),
            Err(other) => return Err(other),
        }
    }
    if !all_bad.is_empty() {
        return Err(Error::BadImages { bad: all_bad });
    }
    Ok(stage.finish())
}
