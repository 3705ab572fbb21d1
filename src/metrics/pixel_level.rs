//! Figures over all pixels of a class.
//!
//! Tens of millions of pixels, of which a few in a hundred are defective. The three curve figures change only at the
//! scores of defective pixels, so only those are sorted; every other pixel is counted into the gap or the tie it falls
//! in. Memory beyond the input: about 40 bytes a defective pixel, nothing a normal one.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::PixelMetrics;
use super::aupro::aupro;
use super::curve::{Figures, Group, figures};
use crate::{Error, Real, Result};

/// Pixels a task counts before it takes the next.
const CHUNK: usize = 1 << 16;
/// Entries, at most, of the table that narrows a search among the sorted scores.
const MAX_BUCKETS: usize = 1 << 20;

/// AUROC, F1-max, AP and AUPRO over the pixels of `n` images.
///
/// # Shapes
/// `masks` and `maps` `[n, h, w]`; a mask value other than 0 is a defective pixel; maps are higher where more anomalous.
///
/// AUPRO's thresholds are made in the type of the maps, as NumPy would: the figure of f64 maps is that of the authors' program,
/// which has them in f64; rounding to f32 moves it by some 1e-5.
///
/// The figures are `None` when a class of pixels is missing. AUPRO is `None` too where its curve has no extent: maps that
/// are constant, or whose false positive rate does not vary below 0.3 (the authors' program gives NaN or stops there).
///
/// # Errors
/// [`Error::Invalid`] when a length does not fit or a map value is not finite.
pub fn pixel_metrics<T: Real>(
    masks: &[u8],
    maps: &[T],
    n: usize,
    h: usize,
    w: usize,
) -> Result<PixelMetrics> {
    pixel_metrics_within(masks, maps, &[], n, h, w)
}

/// As [`pixel_metrics`], over the pixels that are looked at: `inside` `[n, h, w]`, empty where all are. The others count
/// neither as normal nor as defective, and a defective region is what of it is inside. Takes another copy of the masks and
/// maps inside.
///
/// # Errors
/// As [`pixel_metrics`].
pub fn pixel_metrics_within<T: Real>(
    masks: &[u8],
    maps: &[T],
    inside: &[bool],
    n: usize,
    h: usize,
    w: usize,
) -> Result<PixelMetrics> {
    let expected = n.checked_mul(h).and_then(|v| v.checked_mul(w));
    let all = if inside.is_empty() { masks.len() } else { inside.len() };
    for (what, len) in
        [("masks", masks.len()), ("anomaly maps", maps.len()), ("marks of pixels", all)]
    {
        if expected != Some(len) {
            return Err(Error::invalid(
                what,
                format!("{len} values"),
                format!("{n} images x {h} x {w} pixels"),
            ));
        }
    }
    if let Some(at) = maps.par_iter().position_first(|&value| !value.into().is_finite()) {
        return Err(Error::invalid(
            format!("anomaly map of image {}", at / (h * w)),
            maps[at],
            "finite numbers",
        ));
    }
    let found = if inside.is_empty() {
        curve_figures(masks, maps)
    } else {
        let kept = (0..maps.len()).into_par_iter().filter(|&at| inside[at]);
        let (masks, maps): (Vec<u8>, Vec<T>) = kept.map(|at| (masks[at], maps[at])).unzip();
        curve_figures(&masks, &maps)
    };
    let Some(found) = found else {
        return Ok(PixelMetrics::default());
    };
    Ok(PixelMetrics {
        auroc: Some(found.auroc),
        f1_max: Some(found.f1_max),
        ap: Some(found.ap),
        aupro: aupro(masks, maps, inside, h, w),
    })
}

/// The distinct scores of the defective pixels, ascending, with how many pixels share each.
struct Steps<T> {
    scores: Vec<T>,
    positives: Vec<u64>,
    /// `first[b]..first[b + 1]`: the scores whose bucket is b. The bucket grows with the score.
    first: Vec<u32>,
    low: f64,
    scale: f64,
}

impl<T: Real> Steps<T> {
    /// `None` without any score. `sorted` is ascending by value.
    fn new(sorted: &[T]) -> Option<Self> {
        let (mut scores, mut positives) = (Vec::new(), Vec::new());
        for tied in sorted.chunk_by(|a, b| a == b) {
            scores.push(tied[0]);
            positives.push(tied.len() as u64);
        }
        let (low, high): (f64, f64) = ((*scores.first()?).into(), (*scores.last()?).into());
        let buckets = scores.len().next_power_of_two().min(MAX_BUCKETS);
        let scale = if high > low { buckets as f64 / (high - low) } else { 0.0 };
        let mut steps = Self { scores, positives, first: Vec::new(), low, scale };
        let mut first = vec![0u32; buckets + 1];
        for &score in &steps.scores {
            first[steps.bucket(score, buckets) + 1] += 1;
        }
        for bucket in 0..buckets {
            first[bucket + 1] += first[bucket];
        }
        steps.first = first;
        Some(steps)
    }

    fn bucket(&self, score: T, buckets: usize) -> usize {
        // A cast from a float saturates: below the lowest score is bucket 0.
        (((score.into() - self.low) * self.scale) as usize).min(buckets - 1)
    }

    /// 2i for a score between steps i-1 and i, 2i + 1 for one equal to step i.
    fn slot(&self, score: T) -> usize {
        let bucket = self.bucket(score, self.first.len() - 1);
        let (from, to) = (self.first[bucket] as usize, self.first[bucket + 1] as usize);
        let step = from + self.scores[from..to].partition_point(|&other| other < score);
        2 * step + usize::from(self.scores.get(step) == Some(&score))
    }
}

fn curve_figures<T: Real>(masks: &[u8], maps: &[T]) -> Option<Figures> {
    let mut sorted: Vec<T> = masks
        .par_iter()
        .zip(maps)
        .filter(|(mask, _)| **mask != 0)
        .map(|(_, &score)| score)
        .collect();
    // -0 before 0 does no harm: they compare equal and end in one step.
    sorted.par_sort_unstable_by(T::total_cmp);
    let steps = Steps::new(&sorted)?;
    drop(sorted);
    let counts: Vec<AtomicU64> = (0..=2 * steps.scores.len()).map(|_| AtomicU64::new(0)).collect();
    masks.par_chunks(CHUNK).zip(maps.par_chunks(CHUNK)).for_each(|(masks, maps)| {
        // Neighbouring pixels often share a slot (all those below the lowest step do): they are added as one.
        let (mut slot, mut run) = (0, 0u64);
        for (_, &score) in masks.iter().zip(maps).filter(|(mask, _)| **mask == 0) {
            let next = steps.slot(score);
            if next != slot {
                counts[slot].fetch_add(run, Ordering::Relaxed);
                (slot, run) = (next, 0);
            }
            run += 1;
        }
        counts[slot].fetch_add(run, Ordering::Relaxed);
    });
    let groups = counts.iter().enumerate().rev().map(|(slot, count)| Group {
        positives: if slot % 2 == 1 { steps.positives[slot / 2] } else { 0 },
        negatives: count.load(Ordering::Relaxed),
    });
    figures(groups)
}
