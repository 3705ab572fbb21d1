//! Samples' files to the backbone's square input, with progress; every bad file is found before work starts.

use super::interrupt;
use super::progress::Voice;
use crate::backend::Monitor;
use crate::dataset::{Category, Loaded, Sample, load_masks, load_pixels};
use crate::image::Filter;
use crate::{Error, Result};

/// Decodes and resizes. Returns the seconds it took, too.
pub fn load(
    samples: &[Sample],
    size: usize,
    filter: Filter,
    skip_bad: bool,
    voice: Voice,
) -> Result<(Loaded, f64)> {
    let stage = voice.stage("reading", samples.len() as u64, "images");
    let loaded =
        load_pixels(samples, size, filter, skip_bad, &|_| stage.advance(1), &interrupt::asked)?;
    Ok((loaded, stage.finish()))
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
