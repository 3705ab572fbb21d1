//! The figures against their definitions, written out plainly, and against the goldens.

use safetensors::SafeTensors;

use super::curve::{Group, figures};
use super::regions::regions;
use super::*;

/// The definitions over all thresholds, in f64, one pass a threshold.
mod plain {
    pub fn auroc(labels: &[bool], scores: &[f64]) -> f64 {
        let of = |wanted: bool| -> Vec<f64> {
            let both = labels.iter().zip(scores);
            both.filter(|(label, _)| **label == wanted).map(|(_, &score)| score).collect()
        };
        let (positives, negatives) = (of(true), of(false));
        let mut sum = 0.0;
        for p in &positives {
            for n in &negatives {
                sum += if p > n { 1.0 } else { f64::from(u8::from(p == n)) * 0.5 };
            }
        }
        sum / (positives.len() * negatives.len()) as f64
    }

    /// (precision, recall) at each distinct threshold, highest first.
    pub fn curve(labels: &[bool], scores: &[f64]) -> Vec<(f64, f64)> {
        let mut thresholds = scores.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let positives = labels.iter().filter(|l| **l).count() as f64;
        let point = |threshold: f64| {
            let predicted = scores.iter().filter(|&&s| s >= threshold).count() as f64;
            let both = labels.iter().zip(scores);
            let found = both.filter(|(l, s)| **l && **s >= threshold).count() as f64;
            (found / predicted, found / positives)
        };
        thresholds.into_iter().map(point).collect()
    }

    pub fn f1_max(labels: &[bool], scores: &[f64]) -> f64 {
        let f1 = curve(labels, scores).into_iter().map(|(p, r)| 2.0 * p * r / (p + r));
        f1.filter(|f1| f1.is_finite()).fold(0.0, f64::max)
    }

    pub fn ap(labels: &[bool], scores: &[f64]) -> f64 {
        let mut before = 0.0;
        let mut sum = 0.0;
        for (precision, recall) in curve(labels, scores) {
            sum += (recall - before) * precision;
            before = recall;
        }
        sum
    }

    /// Labels regions by repeated spreading to the 8 neighbours.
    pub fn regions(mask: &[u8], w: usize) -> Vec<Vec<u32>> {
        let h = mask.len() / w;
        let mut left: Vec<bool> = mask.iter().map(|m| *m != 0).collect();
        let mut found = Vec::new();
        for seed in 0..mask.len() {
            if !left[seed] {
                continue;
            }
            left[seed] = false;
            let (mut region, mut open) = (vec![], vec![seed]);
            while let Some(at) = open.pop() {
                region.push(at as u32);
                let (y, x) = (at / w, at % w);
                for ny in y.saturating_sub(1)..(y + 2).min(h) {
                    for nx in x.saturating_sub(1)..(x + 2).min(w) {
                        if std::mem::take(&mut left[ny * w + nx]) {
                            open.push(ny * w + nx);
                        }
                    }
                }
            }
            region.sort_unstable();
            found.push(region);
        }
        found
    }

    /// One walk over all pixels a threshold.
    pub fn aupro(masks: &[u8], maps: &[f32], h: usize, w: usize) -> f64 {
        let low = maps.iter().copied().fold(f32::INFINITY, f32::min);
        let high = maps.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = (high - low) / 200.0;
        let count = ((high - low) / step).ceil() as usize;
        let step = f64::from(low + step) - f64::from(low);
        let maps: Vec<f64> = maps.iter().map(|v| f64::from(*v)).collect();
        let mut points = Vec::new();
        for i in 0..count {
            let threshold = f64::from(low) + i as f64 * step;
            let mut shares = Vec::new();
            for (mask, map) in masks.chunks(h * w).zip(maps.chunks(h * w)) {
                for region in regions(mask, w) {
                    let covered = region.iter().filter(|p| map[**p as usize] > threshold).count();
                    shares.push(covered as f64 / region.len() as f64);
                }
            }
            let normal = masks.iter().filter(|m| **m == 0).count() as f64;
            let both = masks.iter().zip(&maps);
            let wrong = both.filter(|(m, v)| **m == 0 && **v > threshold).count() as f64;
            let pro = shares.iter().sum::<f64>() / shares.len() as f64;
            if wrong / normal < 0.3 {
                points.push((wrong / normal, pro));
            }
        }
        let low = points.iter().map(|p| p.0).fold(f64::INFINITY, f64::min);
        let high = points.iter().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
        let strip = |p: &[(f64, f64)]| (p[0].0 - p[1].0) / (high - low) * (p[0].1 + p[1].1) / 2.0;
        points.windows(2).map(strip).sum()
    }
}

/// A small generator of our own (xorshift), so that the cases never change.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn close(name: &str, found: Option<f64>, expected: f64) {
    let found = found.unwrap_or(f64::NAN);
    // Sums of at most a few thousand f64 terms of size 1.
    assert!((found - expected).abs() <= 1e-12, "{name}: {found} instead of {expected}");
}

#[test]
fn equal_the_goldens() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let bytes = std::fs::read(format!("{folder}/metrics.safetensors")).expect("golden");
    let text = std::fs::read_to_string(format!("{folder}/metrics.json")).expect("golden");
    let expected: serde_json::Value = serde_json::from_str(&text).expect("json");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let words = |name: &str| -> Vec<[u8; 4]> {
        let tensor = file.tensor(name).expect("tensor");
        tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect()
    };
    let floats = |name: &str| words(name).into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
    let flags = |name: &str| words(name).into_iter().map(|b| i32::from_le_bytes(b) != 0);
    let labels: Vec<bool> = flags("gt_image").collect();
    let scores: Vec<f64> = floats("score_image").into_iter().map(f64::from).collect();
    let masks: Vec<u8> = flags("gt_pixel").map(u8::from).collect();
    let image = image_metrics(&labels, &scores).expect("image metrics");
    let pixel = pixel_metrics(&masks, &floats("score_pixel"), 9, 64, 64).expect("pixel metrics");
    for (name, found) in [
        ("image_auroc", image.auroc),
        ("image_f1max", image.f1_max),
        ("image_ap", image.ap),
        ("pixel_auroc", pixel.auroc),
        ("pixel_f1max", pixel.f1_max),
        ("pixel_ap", pixel.ap),
        ("pixel_aupro", pixel.aupro),
    ] {
        let expected = expected[name].as_f64().expect("number");
        let error = (found.expect("both classes") - expected).abs();
        assert!(error <= 1e-9, "{name}: {found:?} instead of {expected}, off by {error}");
    }
}

/// The authors' `cal_pro_score` on the golden's maps in f64: 0.50903…, where the same maps in f32 give 0.50907….
#[test]
fn aupro_of_f64_maps_is_that_of_the_authors() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let bytes = std::fs::read(format!("{folder}/metrics.safetensors")).expect("golden");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let words = |name: &str| -> Vec<[u8; 4]> {
        let tensor = file.tensor(name).expect("tensor");
        tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect()
    };
    let masks: Vec<u8> =
        words("gt_pixel").into_iter().map(|b| u8::from(i32::from_le_bytes(b) != 0)).collect();
    let maps: Vec<f32> = words("score_pixel").into_iter().map(f32::from_le_bytes).collect();
    let wide: Vec<f64> = maps.iter().map(|&value| f64::from(value)).collect();
    let narrow = pixel_metrics(&masks, &maps, 9, 64, 64).expect("metrics");
    let wide = pixel_metrics(&masks, &wide, 9, 64, 64).expect("metrics");
    assert!((wide.aupro.expect("aupro") - 0.5090309099369988).abs() < 1e-12, "{wide:?}");
    assert!((narrow.aupro.expect("aupro") - 0.5090672614631216).abs() < 1e-12, "{narrow:?}");
    // Every f32 is an f64: the other figures see the same order.
    assert_eq!((wide.auroc, wide.f1_max, wide.ap), (narrow.auroc, narrow.f1_max, narrow.ap));
}

#[test]
fn image_figures_equal_their_definitions() {
    let mut numbers = Numbers(7);
    for count in [2, 3, 5, 31, 97, 256] {
        for distinct in [1, 2, 7, 1000] {
            let mut labels: Vec<bool> = (0..count).map(|_| numbers.below(3) == 0).collect();
            (labels[0], labels[1]) = (true, false);
            let scores: Vec<f64> =
                (0..count).map(|_| numbers.below(distinct) as f64 / 7.0 - 1.0).collect();
            let found = image_metrics(&labels, &scores).expect("metrics");
            close("auroc", found.auroc, plain::auroc(&labels, &scores));
            close("f1", found.f1_max, plain::f1_max(&labels, &scores));
            close("ap", found.ap, plain::ap(&labels, &scores));
        }
    }
}

#[test]
fn figures_worked_out_by_hand() {
    // scikit-learn's own documentation example: AUROC 0.75, AP 0.8333…
    let found = image_metrics(&[false, false, true, true], &[0.1, 0.4, 0.35, 0.8]).expect("ok");
    assert_eq!(found.auroc, Some(0.75));
    close("ap", found.ap, 5.0 / 6.0);
    // Thresholds 0.8, 0.4, 0.35, 0.1 give F1 2/3, 1/2, 4/5, 2/3.
    close("f1", found.f1_max, 0.8);
    // 0 and -0 are one threshold.
    let zeros = image_metrics(&[true, false], &[0.0, -0.0]).expect("ok");
    assert_eq!(zeros.auroc, Some(0.5));
    let pixels = pixel_metrics(&[1, 0], &[-0.0, 0.0], 1, 1, 2).expect("ok");
    assert_eq!((pixels.auroc, pixels.aupro), (Some(0.5), None));
}

#[test]
fn pixel_figures_equal_their_definitions() {
    let mut numbers = Numbers(11);
    for (n, h, w) in [(1, 1, 2), (1, 1, 7), (2, 5, 3), (3, 13, 17), (1, 31, 29), (5, 8, 8)] {
        for distinct in [1, 2, 11, 100_000] {
            for odds in [2, 5, 20] {
                let len = n * h * w;
                let mut masks: Vec<u8> =
                    (0..len).map(|_| u8::from(numbers.below(odds) == 0)).collect();
                (masks[0], masks[1]) = (1, 0);
                let maps: Vec<f32> = masks
                    .iter()
                    .map(|m| (numbers.below(distinct) as f32 + f32::from(*m)) / 977.0 - 0.5)
                    .collect();
                let labels: Vec<bool> = masks.iter().map(|m| *m != 0).collect();
                let scores: Vec<f64> = maps.iter().map(|v| f64::from(*v)).collect();
                let found = pixel_metrics(&masks, &maps, n, h, w).expect("metrics");
                close("auroc", found.auroc, plain::auroc(&labels, &scores));
                close("f1", found.f1_max, plain::f1_max(&labels, &scores));
                close("ap", found.ap, plain::ap(&labels, &scores));
                let expected = plain::aupro(&masks, &maps, h, w);
                match found.aupro {
                    Some(_) => close("aupro", found.aupro, expected),
                    // No extent: the definition divides by 0 or has no strip at all.
                    None => assert!(!expected.is_finite() || expected == 0.0, "{expected}"),
                }
            }
        }
    }
}

#[test]
fn pixels_that_are_not_looked_at_count_for_nothing() {
    // Columns 3.. of wide images, against the same images cut down to columns 0..3.
    let mut numbers = Numbers(23);
    let (n, h, wide, narrow) = (3, 7, 5, 3);
    let masks: Vec<u8> = (0..n * h * wide).map(|_| u8::from(numbers.below(3) == 0)).collect();
    // The highest and the lowest values lie outside.
    let maps: Vec<f32> = (0..n * h * wide)
        .map(|at| {
            let inside = numbers.below(50) as f32 + 30.0 * f32::from(masks[at]);
            if at % wide < narrow { inside } else { 1e3 - 2e3 * (at % 2) as f32 }
        })
        .collect();
    let inside: Vec<bool> = (0..n * h * wide).map(|at| at % wide < narrow).collect();
    let within = pixel_metrics_within(&masks, &maps, &inside, n, h, wide).expect("metrics");
    let some = |at: &usize| inside[*at];
    let cut_masks: Vec<u8> = (0..inside.len()).filter(some).map(|at| masks[at]).collect();
    let cut_maps: Vec<f32> = (0..inside.len()).filter(some).map(|at| maps[at]).collect();
    let cut = pixel_metrics(&cut_masks, &cut_maps, n, h, narrow).expect("metrics");
    assert!(cut.aupro.is_some_and(|aupro| aupro > 0.1), "{cut:?}");
    assert_eq!(within, cut);
    let whole = vec![true; inside.len()];
    let all = pixel_metrics(&masks, &maps, n, h, wide).expect("metrics");
    assert_eq!(pixel_metrics_within(&masks, &maps, &whole, n, h, wide).expect("metrics"), all);
    assert_ne!(all, cut);
    assert!(pixel_metrics_within(&masks, &maps, &whole[1..], n, h, wide).is_err());
}

#[test]
fn skewed_scores_are_counted_exactly() {
    // All but one of the defective scores fall into the first of the search table's buckets.
    let count = 4001;
    let masks: Vec<u8> = (0..count).map(|i| u8::from(i % 4 == 0)).collect();
    let mut maps: Vec<f32> = (0..count).map(|i| (i * 7919 % 4001) as f32 * 1e-9).collect();
    maps[4000] = 1e30;
    let labels: Vec<bool> = masks.iter().map(|m| *m != 0).collect();
    let scores: Vec<f64> = maps.iter().map(|v| f64::from(*v)).collect();
    let found = pixel_metrics(&masks, &maps, 1, 1, count).expect("metrics");
    close("auroc", found.auroc, plain::auroc(&labels, &scores));
    close("f1", found.f1_max, plain::f1_max(&labels, &scores));
    close("ap", found.ap, plain::ap(&labels, &scores));
}

#[test]
fn a_missing_class_gives_no_figure() {
    for labels in [vec![], vec![true], vec![false; 3], vec![true; 5]] {
        let scores = vec![0.5; labels.len()];
        let found = image_metrics(&labels, &scores).expect("metrics");
        assert_eq!(found, ImageMetrics::default(), "{labels:?}");
        let masks: Vec<u8> = labels.iter().map(|l| u8::from(*l)).collect();
        let maps: Vec<f32> = (0..labels.len()).map(|i| i as f32).collect();
        let found = pixel_metrics(&masks, &maps, labels.len(), 1, 1).expect("metrics");
        assert_eq!(found, PixelMetrics::default(), "{labels:?}");
    }
    assert_eq!(figures([Group { positives: 3, negatives: 0 }].into_iter()), None);
}

#[test]
fn a_map_equal_to_the_mask_has_no_aupro_but_is_perfect_otherwise() {
    // Every threshold gives FPR 0: the curve has no width (the authors' program gives NaN).
    let found = pixel_metrics(&[0, 1, 1, 0], &[0.0, 1.0, 1.0, 0.0], 1, 2, 2).expect("metrics");
    let one = Some(1.0);
    assert_eq!(found, PixelMetrics { auroc: one, f1_max: one, ap: one, aupro: None });
}

#[test]
fn bad_input_is_named() {
    let message = |error: crate::Error| error.to_string();
    assert!(message(image_metrics(&[true], &[]).expect_err("length")).contains("image labels"));
    let nan = image_metrics(&[true, false], &[0.0, f64::NAN]).expect_err("NaN");
    assert!(message(nan).contains("image 1"));
    let short = pixel_metrics(&[0; 4], &[0.0; 3], 1, 2, 2).expect_err("length");
    assert!(message(short).contains("anomaly maps"));
    let maps = [0.0, 1.0, f32::INFINITY, 0.0];
    let infinite = pixel_metrics(&[0; 4], &maps, 2, 1, 2).expect_err("infinite");
    assert!(message(infinite).contains("image 1"));
}

#[test]
fn regions_equal_spreading() {
    let mut numbers = Numbers(3);
    let mut check = |h: usize, w: usize, odds: u64| {
        let mask: Vec<u8> = (0..h * w).map(|_| u8::from(numbers.below(odds) < 2)).collect();
        let found = regions(&mask, w);
        let sorted: Vec<Vec<u32>> = found
            .iter()
            .map(|region| {
                let mut region = region.to_vec();
                region.sort_unstable();
                region
            })
            .collect();
        assert_eq!(sorted, plain::regions(&mask, w), "{h} x {w}, odds {odds}");
    };
    for (h, w) in [(1, 1), (1, 9), (9, 1), (2, 2), (7, 11), (23, 19), (64, 64)] {
        for odds in [2, 3, 4, 5, 8] {
            check(h, w, odds);
        }
    }
    assert!(regions(&[], 0).ends.is_empty());
    // Two squares that touch by a corner are one region; a gap of one pixel makes two.
    assert_eq!(regions(&[1, 0, 0, 1], 2).ends, [2]);
    assert_eq!(regions(&[1, 0, 1], 3).ends, [1, 2]);
}

#[test]
fn a_mean_leaves_out_what_a_class_does_not_have() {
    let class = |auroc, aupro| ClassMetrics {
        image: ImageMetrics { auroc, ..Default::default() },
        pixel: PixelMetrics { aupro, ..Default::default() },
        ..Default::default()
    };
    let mean = merge_mean(&[class(Some(0.5), None), class(Some(1.0), Some(0.25))]);
    assert_eq!(mean.class, "mean");
    assert_eq!((mean.image.auroc, mean.pixel.aupro), (Some(0.75), Some(0.25)));
    assert_eq!((mean.image.ap, mean.image_auroc_raw), (None, None));
    assert_eq!(merge_mean(&[]).image.auroc, None);
}
