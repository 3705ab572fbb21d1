use super::*;
use crate::metrics::regions::regions;

fn of(maps: &[Vec<f32>], size: ImageSize) -> Vec<f64> {
    let peaks: Vec<f32> =
        maps.iter().map(|map| map.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
    mebin(&peaks, size, |at, map| {
        map.copy_from_slice(&maps[at]);
        Ok(())
    })
    .unwrap()
}

/// A map of zeros with squares of a side at places, each of a value.
fn squares(size: ImageSize, side: usize, at: &[(usize, usize, f32)]) -> Vec<f32> {
    let mut map = vec![0.0; size.pixels()];
    for &(top, left, value) in at {
        for y in top..top + side {
            map[y * size.width + left..][..side].fill(value);
        }
    }
    map
}

#[test]
fn the_longest_stretch_ends_where_another_region_appears() {
    let size = ImageSize::new(30, 40);
    // A quiet map sets s = 0.5; S is 2.5. u of 2.5 is 255, of 1.5 it is 127.5: the second square appears at the threshold
    // 127, step 32. One region from 251 to 131 (steps 1 to 31), two from 127 to 3 (steps 32 to 63): two wins.
    let quiet = vec![0.5; size.pixels()];
    let loud = squares(size, 8, &[(2, 2, 2.5), (15, 20, 1.5)]);
    let found = of(&[quiet.clone(), loud], size);
    assert_eq!(found[0], 2.5);
    assert!((found[1] - (0.5 + 3.0 / 255.0 * 2.0)).abs() < 1e-12, "{}", found[1]);
    // At 1.4, u is 114.75, first above 111, step 36: one region lasts 35 steps, two 28. One wins, up to step 35.
    let loud = squares(size, 8, &[(2, 2, 2.5), (15, 20, 1.4)]);
    let found = of(&[quiet.clone(), loud], size);
    assert!((found[1] - (0.5 + 115.0 / 255.0 * 2.0)).abs() < 1e-12, "{}", found[1]);
    // A square of 5 pixels is gone once eroded, one of 6 leaves a pixel; at the border 3 are enough above and left.
    let small = squares(size, 5, &[(12, 12, 2.5)]);
    assert_eq!(of(&[quiet.clone(), small], size)[1], 2.5);
    let six = squares(size, 6, &[(12, 12, 2.5)]);
    assert!(of(&[quiet.clone(), six], size)[1] < 2.5);
    let corner = squares(size, 3, &[(0, 0, 2.5)]);
    assert!(of(&[quiet.clone(), corner], size)[1] < 2.5, "2 pixels behind are enough");
    let corner = squares(size, 3, &[(27, 37, 2.5)]);
    assert_eq!(of(&[quiet, corner], size)[1], 2.5, "3 pixels before are not");
}

#[test]
fn equal_peaks_take_the_least_value_and_equal_maps_have_no_defect() {
    let size = ImageSize::square(20);
    let one = squares(size, 8, &[(3, 3, 1.0)]);
    // From 0 to 1: one region at every threshold below 255.
    let found = of(&[one.clone(), one.clone()], size);
    assert!((found[0] - 3.0 / 255.0).abs() < 1e-15 && found[0] == found[1]);
    assert_eq!(of(&[one], size)[0], found[0], "a map alone");
    assert_eq!(of(&vec![vec![0.3; 400]; 3], size), [f64::from(0.3f32); 3]);
}

#[test]
fn ties_go_to_the_count_that_was_stable_first() {
    let counts = |parts: &[(usize, usize)]| -> Vec<usize> {
        parts.iter().flat_map(|&(count, length)| vec![count; length]).collect()
    };
    assert_eq!(stable_end(&counts(&[(0, 64)])), None);
    assert_eq!(stable_end(&counts(&[(0, 30), (1, 3), (2, 3), (3, 3), (0, 25)])), None);
    assert_eq!(stable_end(&counts(&[(0, 10), (1, 4), (0, 50)])), Some(13));
    // 3 and 2 are stable equally long, 3 first.
    assert_eq!(stable_end(&counts(&[(0, 1), (3, 6), (2, 6), (0, 51)])), Some(6));
    // 2 was stable first, though only its second stretch is as long as that of 3.
    assert_eq!(stable_end(&counts(&[(2, 4), (3, 6), (2, 6), (0, 48)])), Some(15));
    // Of two equal stretches of one count the first.
    assert_eq!(stable_end(&counts(&[(2, 6), (3, 5), (2, 6), (0, 47)])), Some(5));
    assert_eq!(stable_end(&counts(&[(0, 59), (1, 5)])), Some(63));
}

/// Smooth hills by a few cosines, with values of their own.
fn hills(size: ImageSize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let waves: Vec<[f64; 4]> = (0..7).map(|_| [next(), next(), next(), next()]).collect();
    let value = |x: usize, y: usize| {
        waves
            .iter()
            .map(move |w| w[0] * (x as f64 * 0.2 * w[1] + y as f64 * 0.2 * w[2] + 6.0 * w[3]).cos())
    };
    (0..size.pixels())
        .map(|at| value(at % size.width, at / size.width).sum::<f64>() as f32)
        .collect()
}

#[test]
fn counts_and_thresholds_are_those_of_the_definition() {
    let size = ImageSize::new(37, 52);
    let maps: Vec<Vec<f32>> = (1..9).map(|seed| hills(size, seed)).collect();
    let peak = |map: &Vec<f32>| f64::from(map.iter().copied().fold(f32::MIN, f32::max));
    let (s, most) =
        maps.iter().map(peak).fold((f64::MAX, f64::MIN), |(a, b), m| (a.min(m), b.max(m)));
    let found = of(&maps, size);
    let mut defective = 0;
    for (map, &threshold) in maps.iter().zip(&found) {
        let u: Vec<f64> = map
            .iter()
            .map(|&a| f64::from(a))
            .map(|a| if a < s { 0.0 } else { ((a - s) / (most - s) * 255.0).clamp(0.0, 255.0) })
            .collect();
        let counts: Vec<usize> = (0..64)
            .map(|step| {
                let above = |x: i64, y: i64| {
                    // Beyond the border nothing erodes.
                    if !(0..52).contains(&x) || !(0..37).contains(&y) {
                        return true;
                    }
                    u[(y * 52 + x) as usize] > f64::from(255 - 4 * step)
                };
                let stays = |at: i64| {
                    let (x, y) = (at % 52, at / 52);
                    (-3..=2).all(|dy| (-3..=2).all(|dx| above(x + dx, y + dy)))
                };
                let mask: Vec<u8> = (0..37 * 52).map(|at| u8::from(stays(at))).collect();
                regions(&mask, 52).iter().count()
            })
            .collect();
        let levels = levels(map, s, most - s);
        assert_eq!(region_counts(&eroded(levels, size), size).to_vec(), counts);
        let expected = match stable_end(&counts) {
            Some(end) => s + f64::from(255 - 4 * end as i32) / 255.0 * (most - s),
            None => most,
        };
        assert!((threshold - expected).abs() < 1e-12 * most.abs());
        defective += usize::from(peak(map) > threshold);
    }
    assert!((1..8).contains(&defective), "{defective}: the maps test nothing");
}

#[test]
fn values_at_a_threshold_are_not_above_it() {
    for step in 0..64 {
        let t = 255 - 4 * step;
        let exact = levels(&[t as f32], 0.0, 255.0)[0] as usize;
        assert_eq!(exact, step + 1, "{t}");
        let above = levels(&[(t as f32).next_up()], 0.0, 255.0)[0] as usize;
        assert_eq!(above, if t == 255 { 1 } else { step }, "{t}");
    }
    assert_eq!(levels(&[f32::NAN, -1.0, 0.0, 3.0, 1e9], 0.0, 255.0), [64, 64, 64, 64, 1]);
}

#[test]
fn equals_the_golden() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mebin.safetensors");
    let bytes = std::fs::read(path).expect("the golden is in the repository");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let floats = |name: &str| -> (Vec<usize>, Vec<f32>) {
        let tensor = file.tensor(name).expect(name);
        let values = tensor.data().chunks_exact(4);
        let values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (tensor.shape().to_vec(), values)
    };
    for group in ["square", "wide", "equal"] {
        let (shape, values) = floats(&format!("{group}.maps"));
        let [count, height, width] = shape[..] else { panic!("{shape:?}") };
        let maps: Vec<Vec<f32>> =
            values.chunks_exact(height * width).map(<[f32]>::to_vec).collect();
        let (_, expected) = floats(&format!("{group}.thresholds"));
        assert_eq!((maps.len(), expected.len()), (count, count));
        let found = of(&maps, ImageSize::new(height, width));
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            // The golden's are rounded to f32, and below 1; the next step of a threshold is 4/255 of the range away.
            let error = (found - f64::from(expected)).abs();
            assert!(error <= f64::from(f32::EPSILON) / 2.0, "{group} {at}: {found} {expected}");
        }
    }
}

#[test]
fn what_cannot_be_decided_is_named() {
    let nothing = |_: usize, _: &mut [f32]| Ok(());
    let says = |peaks: &[f32], size, part: &str| {
        let said = mebin(peaks, size, nothing).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    };
    says(&[], ImageSize::square(4), "found 0");
    says(&[1.0, f32::NAN], ImageSize::square(4), "NaN of image 1");
    says(&[1.0], ImageSize::new(4, 513), "513");
    says(&[1.0], ImageSize::new(0, 4), "1 to 512");
    let failing = |at: usize, _: &mut [f32]| Err(Error::invalid("map", at, "another"));
    assert!(mebin(&[1.0, 2.0], ImageSize::square(4), failing).is_err());
    for (size, expected) in [
        ((512, 512), (512, 512)),
        ((1024, 512), (512, 256)),
        ((3, 2000), (1, 512)),
        ((672, 448), (512, 341)),
    ] {
        let found = mebin_size(ImageSize::new(size.0, size.1));
        assert_eq!((found.height, found.width), expected, "{size:?}");
    }
}
