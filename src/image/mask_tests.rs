use std::fs;
use std::path::PathBuf;

use image::{GrayImage, Luma, Rgb};

use super::*;
use crate::image::Fit;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name)
}

fn expected(name: &str) -> Vec<u8> {
    let file = fs::read(fixture("expected.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    tensors.tensor(name).unwrap().data().to_vec()
}

#[test]
fn colour_becomes_pillows_grey() {
    let (values, width, height) = decode_gray_mask(&fixture("rgb.png")).unwrap();
    assert_eq!((width, height), (37, 23));
    assert_eq!(values, expected("rgb.png_L"));
}

#[test]
fn one_bit_masks_take_the_nearest_pixel() {
    for size in [7, 28, 53] {
        let ours =
            load_mask(&fixture("one_bit.png"), ImageSize::square(size), MaskRule::FullOnly, None)
                .unwrap();
        assert_eq!(ours, expected(&format!("one_bit.png_{size}")), "size {size}");
    }
}

#[test]
fn the_two_rules_differ_at_the_border() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mask.png");
    // Left half defective; 8 to 4 pixels with the triangle filter (support 2): columns 1 and 2 are mixed.
    GrayImage::from_fn(8, 8, |x, _| Luma([if x < 4 { 255 } else { 0 }])).save(&path).unwrap();
    let full = load_mask(&path, ImageSize::square(4), MaskRule::FullOnly, Some((8, 8))).unwrap();
    let any = load_mask(&path, ImageSize::square(4), MaskRule::AnyPositive, Some((8, 8))).unwrap();
    assert_eq!(full[..4], [1, 0, 0, 0]);
    assert_eq!(any[..4], [1, 1, 1, 0]);
    assert_eq!((full.len(), any.len()), (16, 16));
}

#[test]
fn a_mask_of_another_size_names_both() {
    let error = load_mask(
        &fixture("gray.png"),
        ImageSize::square(14),
        MaskRule::AnyPositive,
        Some((23, 37)),
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("mask is 37x23 pixels, its image 23x37"), "{text}");
    assert!(text.contains("gray.png"), "{text}");
}

#[test]
fn grey_stored_as_colour_is_grey_and_true_colour_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let grey = scratch.path().join("grey.png");
    image::RgbImage::from_fn(5, 5, |x, _| Rgb([if x > 2 { 255 } else { 0 }; 3]))
        .save(&grey)
        .unwrap();
    let mask = load_mask(&grey, ImageSize::square(5), MaskRule::FullOnly, Some((5, 5))).unwrap();
    assert_eq!(mask[..5], [0, 0, 0, 1, 1]);
    let red = scratch.path().join("red.png");
    image::RgbImage::from_pixel(5, 5, Rgb([255, 0, 0])).save(&red).unwrap();
    let error = load_mask(&red, ImageSize::square(5), MaskRule::FullOnly, None).unwrap_err();
    assert!(error.to_string().contains("in colour"), "{error}");
    assert_eq!(
        load_mask(&red, ImageSize::square(5), MaskRule::AnyPositive, None).unwrap(),
        vec![1; 25]
    );
}

#[test]
fn masks_of_other_proportions_are_stretched_or_padded() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mask.png");
    // The upper half is defective.
    GrayImage::from_fn(6, 12, |_, y| Luma([if y < 6 { 255 } else { 0 }])).save(&path).unwrap();
    let size = ImageSize::new(12, 3);
    let mask = load_mask(&path, size, MaskRule::FullOnly, Some((6, 12))).unwrap();
    assert_eq!(mask, [vec![1; 18], vec![0; 18]].concat());
    let canvas = Canvas::new(ImageSize::new(12, 10)).with_fit(Fit::Pad);
    let mask = load_mask(&path, canvas, MaskRule::FullOnly, None).unwrap();
    for (at, &value) in mask.iter().enumerate() {
        let inside = at / 10 < 6 && (2..8).contains(&(at % 10));
        assert_eq!(value, u8::from(inside), "pixel {at}");
    }
}

#[test]
fn the_nearest_pixels_of_either_side_are_their_own() {
    // 3 columns to 2: the centres of the halves, 0.75 and 2.25; 2 rows to 4: each twice.
    let found = resize_nearest(&[0, 1, 2, 3, 4, 5], ImageSize::new(2, 3), ImageSize::new(4, 2));
    assert_eq!(found, [0, 2, 0, 2, 3, 5, 3, 5]);
}

#[test]
fn bad_masks_are_image_errors() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mask.png");
    fs::write(&path, b"").unwrap();
    let error = load_mask(&path, ImageSize::square(4), MaskRule::FullOnly, None).unwrap_err();
    assert!(matches!(error, Error::Image { .. }), "{error}");
    let absent = scratch.path().join("absent.png");
    assert!(matches!(decode_gray_mask(&absent), Err(Error::Io { .. })));
}
