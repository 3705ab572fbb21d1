use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images")
}

/// Pillow's pixels of every fixture, by file name.
fn expected() -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let file = fs::read(folder().join("expected.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

/// The largest and the mean difference from Pillow's pixels, in levels.
fn compare(name: &str) -> (u8, f64) {
    let (shape, pixels) = expected().remove(name).unwrap();
    let decoded = decode(&folder().join(name)).unwrap();
    assert_eq!(vec![decoded.image.height, decoded.image.width, 3], shape, "{name}");
    assert!(!decoded.scaled_from_16_bit);
    let differences: Vec<u8> =
        decoded.image.data.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    (differences.into_iter().max().unwrap(), mean)
}

#[test]
fn lossless_files_equal_pillow() {
    for name in [
        "rgb.png",
        "rgb.bmp",
        "rgb.tif",
        "gray.png",
        "gray.bmp",
        "gray.tif",
        "rgba.png",
        "rgba.tif",
        "gray_alpha.png",
        "palette.png",
        "palette_transparent.png",
        "palette.bmp",
        "one_bit.png",
        "one_bit.bmp",
    ] {
        assert_eq!(compare(name), (0, 0.0), "{name}");
    }
}

#[cfg(feature = "libjpeg")]
#[test]
fn jpeg_is_pillows_to_the_bit_with_libjpeg() {
    let names =
        ["rgb_444.jpg", "rgb_420.jpg", "progressive.jpg", "restart.jpg", "turned.jpg", "gray.jpg"];
    for name in names {
        assert_eq!(compare(name), (0, 0.0), "{name}");
    }
}

#[test]
fn jpeg_is_within_a_few_levels_of_pillow() {
    // The standard's own accuracy test for the inverse transform (ISO/IEC 10918-2) allows a level either way;
    // colour conversion adds up to 1.772 times the chroma's level, rounded: 3 a pixel. The picture is a ramp, on
    // which all ways of enlarging half-resolution colour agree, and ink is a product of two such values.
    for name in [
        "rgb_444.jpg",
        "rgb_420.jpg",
        "progressive.jpg",
        "restart.jpg",
        "turned.jpg",
        "gray.jpg",
        "cmyk.jpg",
    ] {
        let (worst, mean) = compare(name);
        assert!(worst <= 3 && mean < 1.0, "{name}: {worst} levels, mean {mean}");
    }
}

#[test]
fn sixteen_bits_keep_their_high_byte_and_say_so() {
    let (_, pixels) = expected().remove("gray16").unwrap();
    let high: Vec<u8> = pixels.chunks_exact(2).flat_map(|value| [value[1]; 3]).collect();
    for name in ["gray16.png", "gray16.tif"] {
        let decoded = decode(&folder().join(name)).unwrap();
        assert!(decoded.scaled_from_16_bit, "{name}");
        assert_eq!(decoded.image.data, high, "{name}");
    }
}

/// The error's message, without the path.
fn reason(path: &Path) -> String {
    match decode(path) {
        Err(Error::Image { path: named, reason }) => {
            assert_eq!(named, path);
            reason
        }
        other => panic!("expected an image error, got {other:?}"),
    }
}

fn fixtures() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| has_image_extension(path))
        .collect();
    files.sort();
    assert!(files.len() > 20);
    files
}

#[test]
fn the_head_tells_the_size_that_decoding_gives() {
    for path in fixtures() {
        let size = image_size(&path).unwrap();
        assert_eq!(size, decode(&path).unwrap().image.size(), "{}", path.display());
    }
}

#[test]
fn a_head_without_an_image_is_refused_as_the_file_is() {
    let scratch = tempfile::tempdir().unwrap();
    let fixture = |name: &str| fs::read(folder().join(name)).unwrap();
    let mut bomb = fixture("rgb.bmp");
    bomb[18..22].copy_from_slice(&70_000i32.to_le_bytes());
    let mut wide = fixture("rgb.bmp");
    wide[18..22].copy_from_slice(&60_000i32.to_le_bytes());
    wide[22..26].copy_from_slice(&60_000i32.to_le_bytes());
    for (name, bytes) in [
        ("empty.png", Vec::new()),
        ("wrong.png", fixture("gray.jpg")),
        ("note.bmp", b"not an image, just words\n".to_vec()),
        ("archive", b"PK\x03\x04\x00\x00".to_vec()),
        ("bomb.bmp", bomb),
        ("wide.bmp", wide),
    ] {
        let path = scratch.path().join(name);
        fs::write(&path, bytes).unwrap();
        let said = image_size(&path).unwrap_err().to_string();
        assert_eq!(said, decode(&path).unwrap_err().to_string(), "{name}");
    }
    // A head that ends too early has no size; a file without its end has one.
    let png = fixture("rgb.png");
    let path = scratch.path().join("cut.png");
    fs::write(&path, &png[..20]).unwrap();
    assert!(matches!(image_size(&path), Err(Error::Image { .. })));
    fs::write(&path, &png[..png.len() - 20]).unwrap();
    assert_eq!(image_size(&path).unwrap(), ImageSize::new(23, 37));
    let absent = scratch.path().join("absent.png");
    assert!(matches!(image_size(&absent), Err(Error::Io { .. })));
}

#[test]
fn every_truncation_is_an_error() {
    for path in fixtures() {
        let bytes = fs::read(&path).unwrap();
        let whole = decode(&path).unwrap();
        for length in 0..bytes.len() {
            // A cut that takes only padding after the last pixel leaves the image as it was.
            match decode_bytes(&path, &bytes[..length]) {
                Ok(decoded) => assert_eq!(decoded, whole, "{} cut to {length}", path.display()),
                Err(error) => assert!(matches!(error, Error::Image { .. }), "{error}"),
            }
        }
        // Half a file is never a picture.
        assert!(decode_bytes(&path, &bytes[..bytes.len() / 2]).is_err(), "{}", path.display());
    }
}

#[test]
fn a_tail_of_zeros_is_a_truncation() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["rgb_444.jpg", "progressive.jpg", "rgb.png"] {
        let mut bytes = fs::read(folder().join(name)).unwrap();
        let half = bytes.len() * 2 / 3;
        bytes[half..].fill(0);
        let path = scratch.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert!(!reason(&path).is_empty());
    }
}

#[test]
fn damage_never_panics() {
    let mut state = 1u32;
    for path in fixtures() {
        let bytes = fs::read(&path).unwrap();
        for _ in 0..200 {
            let mut damaged = bytes.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let position = (state >> 8) as usize % damaged.len();
                damaged[position] ^= 1 << (state & 7);
            }
            if let Ok(decoded) = decode_bytes(&path, &damaged) {
                assert!(decoded.image.width > 0 && decoded.image.height > 0);
            }
        }
    }
}

#[test]
fn bad_files_say_what_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = scratch.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let fixture = |name: &str| fs::read(folder().join(name)).unwrap();

    assert_eq!(reason(&write("empty.png", b"")), "the file is empty (0 bytes)");
    assert_eq!(
        reason(&write("wrong.png", &fixture("gray.jpg"))),
        "the name (.png) says PNG, the content is JPEG"
    );
    assert_eq!(
        reason(&write("wrong.JPG", &fixture("rgb.bmp"))),
        "the name (.JPG) says JPEG, the content is BMP"
    );
    assert_eq!(
        reason(&write("note.bmp", b"not an image, just words\n")),
        "the name (.bmp) says BMP, the content is text"
    );
    assert_eq!(
        reason(&write("zeros.tif", &[0; 700])),
        "the name (.tif) says TIFF, the content is zero bytes"
    );
    assert_eq!(
        reason(&write("animation.gif", b"GIF89a\x01\x00\x01\x00")),
        "the content is GIF, expected PNG, JPEG, BMP or TIFF"
    );
    assert_eq!(
        reason(&write("archive", b"PK\x03\x04\x00\x00")),
        "the content is a ZIP archive, expected PNG, JPEG, BMP or TIFF"
    );
    let cut = reason(&write("cut.jpg", &fixture("rgb_420.jpg")[..700]));
    assert_eq!(cut, "the file is truncated: its 700 bytes end before the JPEG end-of-image marker");
    let cut = reason(&write("cut.png", &fixture("gray.png")[..100]));
    assert_eq!(cut, "the file is truncated: its 100 bytes end before the PNG IEND chunk");
}

#[test]
fn a_name_without_a_format_does_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, source) in [("image", "rgb.png"), ("frame.0001", "gray.jpg"), ("A.PNG", "rgb.png")] {
        let path = scratch.path().join(name);
        fs::copy(folder().join(source), &path).unwrap();
        assert_eq!(decode(&path).unwrap(), decode(&folder().join(source)).unwrap());
    }
}

#[test]
fn a_missing_file_or_a_folder_cannot_be_read() {
    let scratch = tempfile::tempdir().unwrap();
    for path in [scratch.path().join("absent.png"), scratch.path().to_path_buf()] {
        let error = decode(&path).unwrap_err();
        assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
    }
}

#[test]
fn a_claimed_size_beyond_the_limit_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let bytes = fs::read(folder().join("rgb.bmp")).unwrap();
    for (width, height) in [(70_000i32, 1i32), (60_000, 60_000)] {
        let mut bomb = bytes.clone();
        bomb[18..22].copy_from_slice(&width.to_le_bytes());
        bomb[22..26].copy_from_slice(&height.to_le_bytes());
        let path = scratch.path().join("bomb.bmp");
        fs::write(&path, bomb).unwrap();
        let text = reason(&path);
        assert!(text.contains("65535"), "{text}");
    }
}

#[test]
fn floating_point_pixels_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("float.tif");
    DynamicImage::new_rgb32f(3, 2).save(&path).unwrap();
    assert!(reason(&path).contains("not supported"));
}

#[test]
fn extensions_in_any_case() {
    for name in ["a.png", "a.JPG", "a.Jpeg", "a.bmp", "a.tif", "dir.x/a.TIFF"] {
        assert!(has_image_extension(Path::new(name)), "{name}");
    }
    for name in ["a.gif", "png", "a", ".png", "a.png.txt"] {
        assert!(!has_image_extension(Path::new(name)), "{name}");
    }
}
