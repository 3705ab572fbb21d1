//! `interval_mean` against a full sort.

use crate::params::IntervalMeanParams;
use crate::support::*;

fn distance(cosine: f32) -> f64 {
    (2.0 - 2.0 * f64::from(cosine)).max(0.0).sqrt()
}

/// Which images a scored image is compared with, and the ranks whose mean is its score.
#[derive(Debug, Clone, Copy)]
enum Compared {
    /// All but itself, with these ranks.
    Others(u32, u32),
    /// Those of another set, but for some that are the image again; the ranks of an interval of what is left.
    Set(f64, f64),
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
                check(target, (images, patches), Compared::Others(low, high), ties);
            }
        }
        for (images, patches) in [(4, 1), (9, 33), (64, 17), (130, 64)] {
            for (low, high) in [(0.0, 0.3), (0.2, 0.6), (0.0, 1.0)] {
                for ties in [false, true] {
                    check(target, (images, patches), Compared::Set(low, high), ties);
                }
            }
        }
    }
}

fn check(target: u32, (images, patches): (usize, usize), compared: Compared, ties: bool) {
    let mut random = Random((images * patches) as u64);
    // The launch scores a block of images, from the second on.
    let scored = (images - 1).min(3);
    // Few different values make ties within and across the limits; cosines above 1 are what rounding can give.
    let cosines: Vec<f32> =
        (0..scored * images * patches)
            .map(|_| {
                if ties { (random.bits() % 5) as f32 * 0.3 - 0.1 } else { random.uniform() * 1.001 }
            })
            .collect();
    let absent = |i: usize, j: usize| match compared {
        Compared::Others(..) => j == i + 1,
        // Another number of them for each image: none, one, two.
        Compared::Set(..) => j % 3 == 1 && j / 3 < i,
    };
    let mut keys: Vec<u32> = cosines.iter().map(|&c| key_of(c)).collect();
    let mut ranks = vec![];
    for i in 0..scored {
        for j in (0..images).filter(|&j| absent(i, j)) {
            keys[(i * images + j) * patches..][..patches].fill(0);
        }
        let count = (0..images).filter(|&j| !absent(i, j)).count();
        let (low, high) = match compared {
            Compared::Others(low, high) => (low, high),
            Compared::Set(low, high) => {
                let low = (count as f64 * low) as u32;
                (low, ((count as f64 * high) as u32).max(low + 1))
            }
        };
        ranks.extend([low, high]);
    }
    let before = random.vec(scored * patches, 1.0);
    for accumulate in [false, true] {
        let scores = score(target, &keys, &ranks, &before, (images, patches), accumulate);
        let expected: Vec<f64> = (0..scored * patches)
            .map(|at| {
                let (i, p) = (at / patches, at % patches);
                let mut d: Vec<f64> = (0..images)
                    .filter(|&j| !absent(i, j))
                    .map(|j| distance(cosines[(i * images + j) * patches + p]))
                    .collect();
                d.sort_by(f64::total_cmp);
                let (low, high) = (ranks[2 * i] as usize, ranks[2 * i + 1] as usize);
                let mean = d[low..high].iter().sum::<f64>() / (high - low) as f64;
                0.25 * mean + if accumulate { f64::from(before[at]) } else { 0.0 }
            })
            .collect();
        // Every distance is good to 2 roundoffs (2 - 2 cos is exact to one), a sum of n adds n.
        assert_within(
            &format!("{target} N={images} {compared:?} ties {ties}"),
            &widen(&scores),
            &expected,
            |at| {
                let (low, high) = (ranks[at / patches * 2], ranks[at / patches * 2 + 1]);
                U32 * (2.0 * 0.25 * f64::from(high - low + 8) + 2.0)
            },
        );
    }
}

fn score(
    target: u32,
    keys: &[u32],
    ranks: &[u32],
    before: &[f32],
    (images, patches): (usize, usize),
    accumulate: bool,
) -> Vec<f32> {
    let scored = ranks.len() / 2;
    let mut device = Device::new(target);
    let params = IntervalMeanParams {
        keys: device.upload(keys),
        scores: device.upload(before),
        ranks: device.upload(ranks),
        images: images as u32,
        patches: patches as u32,
        images_a: scored as u32,
        weight: 0.25,
        accumulate: u32::from(accumulate),
        reserved: 0,
    };
    let grid = [patches.div_ceil(32) as u32, scored as u32, 1];
    device.launch("interval_mean", "interval_mean_keys_f32", grid, 256, 0, &params);
    device.download::<f32>(params.scores, scored * patches)
}

/// Fewer images were compared than the ranks ask for: no distance is made up.
#[test]
fn ranks_beyond_what_was_compared_give_nan() {
    let (images, patches) = (6, 3);
    for target in TARGETS {
        // Of each row of keys the last two are 0.
        let keys: Vec<u32> = (0..6 * images * patches)
            .map(|at| if at / patches % images < 4 { key_of(0.5) } else { 0 })
            .collect();
        let ranks = [0, 4, 0, 5, 2, 2, 5, 9, 0, 0, 3, 2];
        let before = vec![0.0; 6 * patches];
        let scores = score(target, &keys, &ranks, &before, (images, patches), false);
        for (image, scores) in scores.chunks_exact(patches).enumerate() {
            let told = scores.iter().all(|score| score.is_nan() == (image > 0));
            assert!(told, "{target}: ranks {:?} give {scores:?}", &ranks[2 * image..][..2]);
        }
    }
}
