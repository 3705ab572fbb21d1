//! `interval_mean` against a full sort.

use crate::params::IntervalMeanParams;
use crate::support::*;

fn distance(cosine: f32) -> f64 {
    (2.0 - 2.0 * f64::from(cosine)).max(0.0).sqrt()
}

#[test]
fn intervals_of_sorted_distances() {
    for target in TARGETS {
        for (images, patches, low, high) in [
            (2, 1, 0, 1),
            (3, 33, 1, 2),
            (5, 49, 0, 4),
            (34, 40, 0, 9),
            (200, 64, 0, 59),
            (200, 33, 20, 60),
            (257, 31, 255, 256),
        ] {
            for ties in [false, true] {
                check(target, images, patches, low, high, ties);
            }
        }
    }
}

fn check(target: u32, images: usize, patches: usize, low: usize, high: usize, ties: bool) {
    let mut random = Random((images * patches) as u64);
    // Few different values make ties within and across the limits; cosines above 1 are what rounding can give.
    let cosines: Vec<f32> =
        (0..images * images * patches)
            .map(|_| {
                if ties { (random.bits() % 5) as f32 * 0.3 - 0.1 } else { random.uniform() * 1.001 }
            })
            .collect();
    let mut keys: Vec<u32> = cosines.iter().map(|&c| key_of(c)).collect();
    for i in 0..images {
        // The entry of the image with itself must not be used.
        keys[(i * images + i) * patches..][..patches].fill(u32::MAX);
    }
    // The launch scores a block of images, not all.
    let scored = (images - 1).min(3);
    let before = random.vec(scored * patches, 1.0);
    for accumulate in [false, true] {
        let mut device = Device::new(target);
        let params = IntervalMeanParams {
            keys: device.upload(&keys[images * patches..]),
            scores: device.upload(&before),
            images: images as u32,
            patches: patches as u32,
            first_image: 1,
            images_a: scored as u32,
            rank_low: low as u32,
            rank_high: high as u32,
            weight: 0.25,
            accumulate: u32::from(accumulate),
        };
        let grid = [patches.div_ceil(32) as u32, scored as u32, 1];
        device.launch("interval_mean", "interval_mean_keys_f32", grid, 256, 0, &params);
        let actual = widen(&device.download::<f32>(params.scores, scored * patches));
        let expected: Vec<f64> = (0..scored * patches)
            .map(|at| {
                let (i, p) = (at / patches + 1, at % patches);
                let mut d: Vec<f64> = (0..images)
                    .filter(|&j| j != i)
                    .map(|j| distance(cosines[(i * images + j) * patches + p]))
                    .collect();
                d.sort_by(f64::total_cmp);
                let mean = d[low..high].iter().sum::<f64>() / (high - low) as f64;
                0.25 * mean + if accumulate { f64::from(before[at]) } else { 0.0 }
            })
            .collect();
        // Every distance is good to 2 roundoffs (2 - 2 cos is exact to one), a sum of n adds n.
        assert_within(
            &format!("{target} N={images} [{low},{high}) ties {ties}"),
            &actual,
            &expected,
            |_| U32 * (2.0 * 0.25 * (high - low + 8) as f64 + 2.0),
        );
    }
}
