//! The ROC and the precision-recall curve of image scores, to be drawn.

use crate::{Error, Result};

/// Two curves over all thresholds, from the highest score down. Every coordinate is in 0..=1.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageCurves {
    /// (false positive rate, true positive rate), from (0, 0) to (1, 1). The area under its straight lines is the AUROC.
    pub roc: Vec<(f64, f64)>,
    /// (recall, precision) at each threshold at which a defective image is found. The area under its steps, each as high as
    /// its right end, is the average precision.
    pub precision_recall: Vec<(f64, f64)>,
}

/// The curves of image scores; nothing where a class is missing.
///
/// # Shapes
/// `labels` `[N]` (`true` = defective), `scores` `[N]` (higher = more anomalous). At most N + 1 points a curve.
///
/// # Errors
/// [`Error::Invalid`] when the lengths differ or a score is not finite.
pub fn image_curves(labels: &[bool], scores: &[f64]) -> Result<Option<ImageCurves>> {
    if labels.len() != scores.len() {
        let expected = format!("{}, one a score", scores.len());
        return Err(Error::invalid("image labels", labels.len(), expected));
    }
    if let Some(image) = scores.iter().position(|score| !score.is_finite()) {
        let what = format!("score of image {image}");
        return Err(Error::invalid(what, scores[image], "a finite number"));
    }
    let positives = labels.iter().filter(|defective| **defective).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return Ok(None);
    }
    let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut curves = ImageCurves { roc: vec![(0.0, 0.0)], precision_recall: Vec::new() };
    let (mut found, mut false_alarms) = (0usize, 0usize);
    // Equal scores are on one side of every threshold.
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let defective = tied.iter().filter(|(_, defective)| *defective).count();
        found += defective;
        false_alarms += tied.len() - defective;
        let recall = found as f64 / positives as f64;
        curves.roc.push((false_alarms as f64 / negatives as f64, recall));
        if defective > 0 {
            let precision = found as f64 / (found + false_alarms) as f64;
            curves.precision_recall.push((recall, precision));
        }
    }
    Ok(Some(curves))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::image_metrics;

    #[test]
    fn points_are_those_counted_by_hand() {
        // From the top: defective, normal and defective tied, normal.
        let labels = [false, true, true, false];
        let scores = [0.5, 0.5, 0.9, 0.1];
        let curves = image_curves(&labels, &scores).expect("curves").expect("both classes");
        assert_eq!(curves.roc, [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]);
        assert_eq!(curves.precision_recall, [(0.5, 1.0), (1.0, 2.0 / 3.0)]);
    }

    #[test]
    fn areas_are_the_figures() {
        let labels: Vec<bool> = (0..60).map(|at| at * 7 % 11 < 4).collect();
        let scores: Vec<f64> = (0..60)
            .map(|at| f64::from(at * 13 % 17) + if labels[at as usize] { 3.0 } else { 0.0 })
            .collect();
        let curves = image_curves(&labels, &scores).expect("curves").expect("both classes");
        let metrics = image_metrics(&labels, &scores).expect("metrics");
        let roc: f64 = curves
            .roc
            .windows(2)
            .map(|ends| (ends[1].0 - ends[0].0) * (ends[0].1 + ends[1].1) / 2.0)
            .sum();
        let mut before = 0.0;
        let mut area = 0.0;
        for &(recall, precision) in &curves.precision_recall {
            area += (recall - before) * precision;
            before = recall;
        }
        // Sums of at most 61 terms below 1, each within 2^-52 of itself.
        assert!((roc - metrics.auroc.expect("auroc")).abs() < 61.0 * f64::EPSILON);
        assert!((area - metrics.ap.expect("ap")).abs() < 61.0 * f64::EPSILON);
    }

    #[test]
    fn one_class_has_no_curves_and_bad_scores_are_named() {
        assert_eq!(image_curves(&[true, true], &[0.1, 0.2]).expect("curves"), None);
        assert_eq!(image_curves(&[], &[]).expect("curves"), None);
        assert!(image_curves(&[true], &[0.1, 0.2]).is_err());
        let said = image_curves(&[true, false], &[0.1, f64::NAN]).expect_err("nan").to_string();
        assert!(said.contains("image 1"), "{said}");
    }
}
