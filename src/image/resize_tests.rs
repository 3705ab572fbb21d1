use std::path::Path;

use super::*;

/// A picture with edges, ramps and noise, the same on every machine and in the script that made the hashes.
fn picture(width: usize, height: usize, channels: usize) -> Vec<u8> {
    let mut state = (width * 7919 + height) as u32;
    (0..width * height * channels)
        .map(|index| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match index / 16 % 3 {
                0 => (state >> 24) as u8,
                1 => (index % 256) as u8,
                _ => (state >> 31) as u8 * 255,
            }
        })
        .collect()
}

/// FNV-1a, 64 bit.
fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn equals_pillow_on_the_golden_image() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/resize.safetensors");
    let file = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let source = tensors.tensor("image_u8").unwrap();
    let (height, width) = (source.shape()[0], source.shape()[1]);
    let image = RgbImage::new(width, height, source.data().to_vec()).unwrap();
    for (name, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)] {
        for size in [224, 240, 518] {
            let ours = resize(&image, ImageSize::square(size), filter);
            // Every 16th row is kept in the file, to show where a difference is; the hash covers the whole.
            let rows = tensors.tensor(&format!("{name}_{size}_rows")).unwrap();
            for (index, row) in rows.data().chunks_exact(size * 3).enumerate() {
                let start = index * 16 * size * 3;
                assert_eq!(&ours.data[start..start + size * 3], row, "{name} {size} row {index}");
            }
            let whole = tensors.tensor(&format!("{name}_{size}_fnv1a")).unwrap();
            let expected = u64::from_le_bytes(whole.data().try_into().unwrap());
            assert_eq!(hash(&ours.data), expected, "{name} {size}: hash of the whole image");
        }
    }
}

/// (width, height, new width, new height, FNV-1a of Pillow's bilinear result, of its bicubic result), from
/// `tests/data/make_image_fixtures.py`.
const PILLOW: &[(usize, usize, usize, usize, u64, u64)] =
    include!("../../tests/data/resize_hashes.in");

#[test]
fn equals_pillow_at_awkward_sizes() {
    assert!(PILLOW.len() > 20);
    for &(width, height, to_width, to_height, bilinear, bicubic) in PILLOW {
        let image = RgbImage::new(width, height, picture(width, height, 3)).unwrap();
        for (filter, expected) in [(Filter::Bilinear, bilinear), (Filter::Bicubic, bicubic)] {
            let ours = resize(&image, ImageSize::new(to_height, to_width), filter);
            assert_eq!(
                hash(&ours.data),
                expected,
                "{filter:?} {width}x{height} to {to_width}x{to_height}"
            );
        }
    }
}

/// One pass by the definition, weights in f64 and never rounded, the result rounded to 8 bit.
fn reference_pass(line: &[u8], to: usize, filter: Filter) -> Vec<u8> {
    let scale = line.len() as f64 / to as f64;
    let stretch = scale.max(1.0);
    (0..to)
        .map(|position| {
            let centre = (position as f64 + 0.5) * scale;
            let (mut total, mut sum) = (0.0, 0.0);
            for (input, &value) in line.iter().enumerate() {
                let reach = filter.support() * stretch;
                let (low, high) = ((centre - reach + 0.5).floor(), (centre + reach + 0.5).floor());
                if (input as f64) < low || input as f64 >= high {
                    continue;
                }
                let weight = filter.weight((input as f64 + 0.5 - centre) / stretch);
                total += weight;
                sum += weight * f64::from(value);
            }
            (sum / total).round().clamp(0.0, 255.0) as u8
        })
        .collect()
}

fn transpose(data: &[u8], width: usize) -> Vec<u8> {
    let height = data.len() / width;
    (0..data.len()).map(|index| data[index % height * width + index / height]).collect()
}

fn reference(data: &[u8], width: usize, to: (usize, usize), filter: Filter) -> Vec<u8> {
    let wide: Vec<u8> =
        data.chunks_exact(width).flat_map(|line| reference_pass(line, to.0, filter)).collect();
    let columns = transpose(&wide, to.0);
    let height = data.len() / width;
    let tall: Vec<u8> =
        columns.chunks_exact(height).flat_map(|line| reference_pass(line, to.1, filter)).collect();
    transpose(&tall, to.1)
}

#[test]
fn stays_within_a_grey_level_a_pass_of_f64_weights() {
    let sizes = [(1, 1), (1, 13), (17, 1), (2, 3), (31, 29), (127, 61), (61, 127)];
    for (width, height) in sizes {
        let data = picture(width, height, 1);
        for to in [(1, 1), (2, 2), (7, 31), (31, 7), (53, 1), (1, 53), (128, 28)] {
            for filter in [Filter::Bilinear, Filter::Bicubic] {
                let ours = resample::<1>(simd::arch(), &data, (width, height), to, filter);
                let theirs = reference(&data, width, to, filter);
                assert_eq!(ours.len(), theirs.len());
                // A rounded weight is off by 2^-23 at most: the sum by 255 * taps * 2^-23, far less than half
                // a level, so a pass moves a value to the next level at most. The second pass then adds one.
                let worst = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(
                    worst <= Some(2),
                    "{filter:?} {width}x{height} to {to:?}: {worst:?} levels, allowed 2"
                );
            }
        }
    }
}

#[test]
fn a_flat_image_stays_flat() {
    for value in [0, 1, 127, 254, 255] {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for (width, height) in [(1, 1), (1, 11), (11, 1), (37, 23)] {
                let image = RgbImage::new(width, height, vec![value; width * height * 3]).unwrap();
                for (rows, columns) in [(1, 1), (2, 5), (14, 1), (53, 28)] {
                    let size = ImageSize::new(rows, columns);
                    let ours = resize(&image, size, filter);
                    assert_eq!(ours.size(), size);
                    assert_eq!(ours.data, vec![value; size.pixels() * 3]);
                }
            }
        }
    }
}

#[test]
fn the_target_size_is_left_alone() {
    for (width, height) in [(29, 29), (29, 14)] {
        let image = RgbImage::new(width, height, picture(width, height, 3)).unwrap();
        assert_eq!(resize(&image, image.size(), Filter::Bicubic), image);
    }
}

#[test]
fn one_channel_equals_three() {
    let gray = picture(41, 67, 1);
    let three: Vec<u8> = gray.iter().flat_map(|&value| [value; 3]).collect();
    let image = RgbImage::new(41, 67, three).unwrap();
    let size = ImageSize::new(28, 42);
    let ours = resize_gray(&gray, image.size(), size);
    let rgb = resize(&image, size, Filter::Bilinear);
    assert_eq!(ours, rgb.data.iter().copied().step_by(3).collect::<Vec<u8>>());
}

#[test]
fn nothing_in_gives_black_and_nothing_out_gives_nothing() {
    let empty = RgbImage::new(0, 5, Vec::new()).unwrap();
    assert_eq!(resize(&empty, ImageSize::new(2, 3), Filter::Bicubic).data, vec![0; 18]);
    let one = RgbImage::new(1, 1, vec![7; 3]).unwrap();
    assert_eq!(resize(&one, ImageSize::new(0, 4), Filter::Bilinear).data, Vec::<u8>::new());
}

#[test]
fn the_sum_of_a_pass_cannot_overflow() {
    for filter in [Filter::Bilinear, Filter::Bicubic] {
        for from in (1..70).chain([217, 301, 1024, 4099]) {
            for to in [1, 2, 3, 5, 14, 97, 224, 518] {
                let weights = Weights::new(from, to, filter);
                for (_, row) in weights.iter() {
                    let sum: i64 = row.iter().map(|&weight| i64::from(weight).abs()).sum();
                    assert!(sum * 2 < 3 << PRECISION_BITS, "{filter:?} {from} to {to}: {sum}");
                }
            }
        }
    }
}

/// Whole numbers: the same bits with every kind of vectors. Their sums are Pillow's, see above.
#[test]
fn every_kind_of_vectors_gives_the_same_bits() {
    for (from, to) in [((37, 53), (19, 90)), ((1, 17), (64, 5)), ((33, 7), (33, 21))] {
        let colour = picture(from.0, from.1, 3);
        let gray = picture(from.0, from.1, 1);
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            let with = |arch| {
                let gray = resample::<1>(arch, &gray, from, to, filter);
                (resample::<3>(arch, &colour, from, to, filter), gray)
            };
            let scalar = with(Arch::Scalar);
            for arch in simd::testable() {
                assert!(with(arch) == scalar, "{from:?} to {to:?}, {arch:?}");
            }
        }
    }
}
