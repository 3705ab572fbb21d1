//! AUPRO: the area under the per-region overlap curve.
//!
//! The definition walks 200 thresholds over all pixels. Here each pixel is looked at once: the number of thresholds it
//! exceeds is found by one division and then settled by the comparison `map > threshold` itself, so the counts equal those
//! of the walk exactly.

use rayon::prelude::*;

use crate::Real;

use super::regions::regions;

/// Thresholds of the curve.
pub const AUPRO_THRESHOLDS: usize = 200;
/// The curve is read below this false positive rate.
pub const AUPRO_MAX_FPR: f64 = 0.3;

/// The thresholds min, min + δ, … below max, with δ = (max − min) / 200.
///
/// As the authors' program makes them with NumPy 2, of maps in either type: δ, their number ⌈(max − min) / δ⌉ (which rounding
/// can make 201) and the second of them are rounded to the maps' type; `arange` then goes on in f64 by the difference of the
/// first two. `None` for maps that are constant, or so nearly that δ is 0.
fn thresholds<T: Real>(low: T, high: T) -> Option<Vec<f64>> {
    let step = (high - low) / T::from_f64(AUPRO_THRESHOLDS as f64);
    if !(step > T::default() && step < T::INFINITY) {
        return None;
    }
    let count = ((high - low) / step).into().ceil() as usize;
    let step: f64 = (low + step).into() - low.into();
    Some((0..count).map(|i| low.into() + i as f64 * step).collect())
}

/// How many thresholds `value` exceeds. They ascend in equal steps, up to rounding.
fn exceeded(value: f64, thresholds: &[f64]) -> usize {
    let (low, step) = match thresholds {
        [first, second, ..] => (*first, second - first),
        _ => (0.0, 1.0),
    };
    let mut count = (((value - low) / step) as usize).min(thresholds.len());
    while count < thresholds.len() && value > thresholds[count] {
        count += 1;
    }
    while count > 0 && value <= thresholds[count - 1] {
        count -= 1;
    }
    count
}

/// What one image adds to the curve, for each threshold.
struct Share {
    /// Normal pixels above it.
    false_positives: Vec<u64>,
    /// Sum over the image's regions of the covered share.
    overlap: Vec<f64>,
    regions: usize,
    normal: u64,
}

/// AUPRO of maps `[n, h, w]` against masks of the same shape (not 0 = defective); all values finite. Pixels that are not
/// `inside`, of the same shape or empty, count for nothing.
///
/// `None` without regions or normal pixels, for constant maps, or if the false positive rate does not vary below the limit.
pub(super) fn aupro<T: Real>(
    masks: &[u8],
    maps: &[T],
    inside: &[bool],
    h: usize,
    w: usize,
) -> Option<f64> {
    let value = |at: usize| inside.get(at).is_none_or(|&inside| inside).then(|| maps[at]);
    let values = || (0..maps.len()).into_par_iter().filter_map(value);
    let low = values().reduce(|| T::INFINITY, T::min);
    let high = values().reduce(|| T::NEG_INFINITY, T::max);
    let thresholds = thresholds(low, high)?;
    let shares: Vec<Share> = masks
        .par_chunks_exact(h * w)
        .zip(maps.par_chunks_exact(h * w))
        .enumerate()
        .map(|(image, (mask, map))| {
            let inside = inside.get(image * h * w..(image + 1) * h * w);
            share_of_image(mask, map, inside, w, &thresholds)
        })
        .collect();
    // Summed in the order of the images, so that the figure does not depend on the number of threads.
    let region_count: usize = shares.iter().map(|share| share.regions).sum();
    let normal: u64 = shares.iter().map(|share| share.normal).sum();
    if region_count == 0 || normal == 0 {
        return None;
    }
    let curve: Vec<(f64, f64)> = (0..thresholds.len())
        .map(|at| {
            let false_positives: u64 = shares.iter().map(|share| share.false_positives[at]).sum();
            let overlap: f64 = shares.iter().map(|share| share.overlap[at]).sum();
            (false_positives as f64 / normal as f64, overlap / region_count as f64)
        })
        .filter(|(fpr, _)| *fpr < AUPRO_MAX_FPR)
        .collect();
    area(&curve)
}

fn share_of_image<T: Real>(
    mask: &[u8],
    map: &[T],
    inside: Option<&[bool]>,
    width: usize,
    thresholds: &[f64],
) -> Share {
    let bin = |value: T| exceeded(value.into(), thresholds);
    let mut histogram = vec![0u64; thresholds.len() + 1];
    let mut normal = 0;
    let counts = |at: usize| inside.is_none_or(|inside| inside[at]);
    let pixels = mask.iter().zip(map).enumerate();
    for (_, (_, &value)) in pixels.filter(|(at, (mask, _))| **mask == 0 && counts(*at)) {
        histogram[bin(value)] += 1;
        normal += 1;
    }
    let false_positives = above(&histogram).collect();
    let mut overlap = vec![0.0f64; thresholds.len()];
    let mut count = 0;
    let cut: Option<Vec<u8>> = inside
        .map(|inside| mask.iter().zip(inside).map(|(&m, &inside)| m * u8::from(inside)).collect());
    for region in regions(cut.as_deref().unwrap_or(mask), width).iter() {
        histogram.fill(0);
        for &pixel in region {
            histogram[bin(map[pixel as usize])] += 1;
        }
        for (sum, covered) in overlap.iter_mut().zip(above(&histogram).collect::<Vec<_>>()) {
            *sum += covered as f64 / region.len() as f64;
        }
        count += 1;
    }
    Share { false_positives, overlap, regions: count, normal }
}

/// For each threshold i, the pixels that exceed it: those in bins above i. `histogram[b]` counts the pixels that exceed b thresholds.
fn above(histogram: &[u64]) -> impl Iterator<Item = u64> {
    let total: u64 = histogram.iter().sum();
    histogram[..histogram.len() - 1].iter().scan(total, |left, &count| {
        *left -= count;
        Some(*left)
    })
}

/// The trapezoid area under (FPR, PRO) points of falling FPR, FPR stretched to 0..1 by its own ends.
fn area(curve: &[(f64, f64)]) -> Option<f64> {
    let (high, low) = (curve.first()?.0, curve.last()?.0);
    if high <= low {
        return None;
    }
    let scaled = |fpr: f64| (fpr - low) / (high - low);
    let strip = |pair: &[(f64, f64)]| {
        (scaled(pair[0].0) - scaled(pair[1].0)) * (pair[0].1 + pair[1].1) / 2.0
    };
    Some(curve.windows(2).map(strip).sum())
}
