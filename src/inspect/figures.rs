//! Figures of a batch whose labels, and perhaps masks, are known.

use rayon::prelude::*;

use super::{Batch, Inspection, Note};
use crate::dataset::{Mask, load_masks};
use crate::metrics::{ClassMetrics, PixelMetrics, image_metrics, pixel_metrics_within};
use crate::progress::{Stage, go_on};
use crate::{Progress, Real, Result};

/// The figures, and a note where labels are known in part; nothing where none is known. With `paper` a figure without
/// meaning is 0, as in the authors' program.
///
/// Pixel figures hold the maps and masks of all images whose defective pixels are known: N·height·width·5 bytes, with
/// `paper` 9.
pub(super) fn figures(
    batch: &Batch,
    inspection: &Inspection,
    paper: bool,
    progress: &dyn Progress,
) -> Result<Option<(ClassMetrics, Option<Note>)>> {
    let samples = inspection.samples();
    let labelled: Vec<usize> =
        (0..samples.len()).filter(|&at| samples[at].label.is_some()).collect();
    if labelled.is_empty() {
        return Ok(None);
    }
    progress.begin(Stage::Figures, 0);
    let partly = (labelled.len() < samples.len())
        .then_some(Note::PartlyLabelled { known: labelled.len(), all: samples.len() });
    let labels: Vec<bool> = labelled.iter().map(|&at| samples[at].label == Some(true)).collect();
    let of = |value: &dyn Fn(usize) -> f64| -> Vec<f64> {
        labelled.iter().map(|&at| value(at)).collect()
    };
    let mut image = image_metrics(&labels, &of(&|at| inspection.scores[at]))?;
    let mut raw = image_metrics(&labels, &of(&|at| f64::from(inspection.raw_scores[at])))?;
    if paper {
        image = image.or_zero();
        raw = raw.or_zero();
    }
    let pixel = pixel_figures(batch, inspection, paper, progress)?;
    progress.end();
    let metrics =
        ClassMetrics { class: batch.name().to_string(), image, image_auroc_raw: raw.auroc, pixel };
    Ok(Some((metrics, partly)))
}

/// The pixel figures, over the images whose defective pixels are known.
fn pixel_figures(
    batch: &Batch,
    inspection: &Inspection,
    paper: bool,
    progress: &dyn Progress,
) -> Result<PixelMetrics> {
    let (samples, size) = (inspection.samples(), inspection.map_size());
    let known: Vec<usize> =
        (0..samples.len()).filter(|&at| samples[at].mask != Mask::Unknown).collect();
    if known.iter().all(|&at| samples[at].mask == Mask::Normal) {
        let none = PixelMetrics::default();
        // Where no mask is known at all there is no figure, which their program has no case for.
        let theirs = paper && !known.is_empty();
        return Ok(if theirs { none.or_zero() } else { none });
    }
    let rule = batch.mask_rule();
    let masks = load_masks(samples, &inspection.file_sizes, size, rule, progress)?;
    let joined: Vec<u8> = masks.into_iter().flatten().flatten().collect();
    go_on(progress)?;
    match &inspection.exact_scores {
        Some(exact) => {
            let found = of_maps(&joined, exact, inspection, &known)?;
            Ok(if paper { found.or_zero() } else { found })
        }
        None => of_maps(&joined, &inspection.patch_scores, inspection, &known),
    }
}

/// The pixel figures of the maps of these images against their masks, one behind the other in `masks`. Pixels of patches that
/// are left out count for nothing.
fn of_maps<T: Real>(
    masks: &[u8],
    patch_scores: &[T],
    inspection: &Inspection,
    images: &[usize],
) -> Result<PixelMetrics> {
    let (patches, size) = (inspection.maps.patches(), inspection.map_size());
    let mut maps = vec![T::default(); images.len() * size.pixels()];
    maps.par_chunks_exact_mut(size.pixels()).zip(images).try_for_each(|(map, &at)| {
        let scores = &patch_scores[at * patches..][..patches];
        inspection.maps.map(inspection.of_image(at, scores), size, map)
    })?;
    let mut inside = Vec::new();
    if images.iter().any(|&at| inspection.left_out(at).contains(&true)) {
        inside = vec![true; maps.len()];
        inside.par_chunks_exact_mut(size.pixels()).zip(images).try_for_each(|(inside, &at)| {
            for (to, from) in inside.iter_mut().zip(inspection.inside(at, size)?) {
                *to = from;
            }
            Result::Ok(())
        })?;
    }
    pixel_metrics_within(masks, &maps, &inside, images.len(), size.height, size.width)
}
