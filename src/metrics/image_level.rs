//! Figures over image scores.

use super::ImageMetrics;
use super::curve::{Group, figures};
use crate::{Error, Result};

/// AUROC, F1-max and AP of image scores.
///
/// # Shapes
/// `labels` `[N]` (`true` = defective), `scores` `[N]` (higher = more anomalous).
///
/// All three are `None` when a class is missing.
///
/// # Errors
/// [`Error::Invalid`] when the lengths differ or a score is not finite.
pub fn image_metrics(labels: &[bool], scores: &[f64]) -> Result<ImageMetrics> {
    if labels.len() != scores.len() {
        return Err(Error::invalid(
            "image labels",
            labels.len(),
            format!("{}, one a score", scores.len()),
        ));
    }
    if let Some(image) = scores.iter().position(|score| !score.is_finite()) {
        return Err(Error::invalid(
            format!("score of image {image}"),
            scores[image],
            "a finite number",
        ));
    }
    let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    // By `==`, so that 0 and -0 are one threshold.
    let groups = ranked.chunk_by(|a, b| a.0 == b.0).map(|tied| {
        let positives = tied.iter().filter(|(_, defective)| *defective).count() as u64;
        Group { positives, negatives: tied.len() as u64 - positives }
    });
    Ok(figures(groups).map_or_else(ImageMetrics::default, |found| ImageMetrics {
        auroc: Some(found.auroc),
        f1_max: Some(found.f1_max),
        ap: Some(found.ap),
    }))
}
