//! An RGB image in the format its file name asks for.

use std::io::{self, Cursor};
use std::path::Path;

#[cfg(not(feature = "libjpeg"))]
use ::image::ImageEncoder;
#[cfg(not(feature = "libjpeg"))]
use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ExtendedColorType, ImageError, ImageFormat};

use crate::atomic::write_file;
use crate::image::RgbImage;
use crate::{Error, ImageSize, Result};

/// JPEG quality, that of OpenCV's `imwrite`.
const JPEG_QUALITY: u8 = 95;

/// Writes an image as PNG, JPEG (quality 95; with the feature `libjpeg` the very file that OpenCV's `imwrite` makes), BMP or
/// TIFF, by the ending of its name; any other ending is an error.
///
/// # Errors
/// [`Error::Invalid`] for an unknown ending or an image whose data does not fit its size; [`Error::Io`] with the path.
pub fn write_image(path: &Path, image: &RgbImage) -> Result<()> {
    let format = format_of(path).ok_or_else(|| {
        Error::invalid(
            "image file",
            path.display(),
            "a name that ends in png, jpg, jpeg, bmp, tif or tiff",
        )
    })?;
    let bytes = encode(image, format).map_err(Error::io("write", path))?;
    write_file(path, |writer| writer.write_all(&bytes))
}

/// Writes a PNG of one channel of 8 bits, row by row, whatever its name ends in.
///
/// # Errors
/// [`Error::Invalid`] for another number of values than pixels, or none; [`Error::Io`] with the path.
pub fn write_grey_png(path: &Path, values: &[u8], size: ImageSize) -> Result<()> {
    let sides = (u32::try_from(size.width), u32::try_from(size.height));
    let fits = size.height.checked_mul(size.width) == Some(values.len()) && !values.is_empty();
    let ((Ok(width), Ok(height)), true) = (sides, fits) else {
        let expected = format!("{size} of them, at least 1");
        return Err(Error::invalid("grey values", values.len(), expected));
    };
    let mut bytes = Cursor::new(Vec::new());
    let kind = (ExtendedColorType::L8, ImageFormat::Png);
    ::image::write_buffer_with_format(&mut bytes, values, width, height, kind.0, kind.1)
        .map_err(|error| Error::io("write", path)(io::Error::other(error)))?;
    write_file(path, |writer| writer.write_all(bytes.get_ref()))
}

/// The format that a file name asks for, if it is one we write.
pub(super) fn format_of(path: &Path) -> Option<ImageFormat> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    match ending.as_str() {
        "png" => Some(ImageFormat::Png),
        "jpg" | "jpeg" => Some(ImageFormat::Jpeg),
        "bmp" => Some(ImageFormat::Bmp),
        "tif" | "tiff" => Some(ImageFormat::Tiff),
        _ => None,
    }
}

fn encode(image: &RgbImage, format: ImageFormat) -> io::Result<Vec<u8>> {
    let expected = image.width.checked_mul(image.height).and_then(|v| v.checked_mul(3));
    let size = (u32::try_from(image.width), u32::try_from(image.height));
    let (Ok(width), Ok(height)) = size else {
        return Err(io::Error::other("an image side of more than 2^32 pixels"));
    };
    if expected != Some(image.data.len()) || image.data.is_empty() {
        let (w, h, len) = (image.width, image.height, image.data.len());
        return Err(io::Error::other(format!("{len} bytes for an RGB image of {w} x {h} pixels")));
    }
    if format == ImageFormat::Jpeg {
        return jpeg_bytes(image, JPEG_QUALITY);
    }
    let mut bytes = Cursor::new(Vec::new());
    let colour = ExtendedColorType::Rgb8;
    ::image::write_buffer_with_format(&mut bytes, &image.data, width, height, colour, format)
        .map_err(as_io)?;
    Ok(bytes.into_inner())
}

/// A JPEG of an image whose data fit its size, at this quality (1 to 100).
#[cfg(feature = "libjpeg")]
pub(super) fn jpeg_bytes(image: &RgbImage, quality: u8) -> io::Result<Vec<u8>> {
    super::jpeg::encode(image, quality)
}

/// A JPEG of an image whose data fit its size, at this quality (1 to 100).
#[cfg(not(feature = "libjpeg"))]
pub(super) fn jpeg_bytes(image: &RgbImage, quality: u8) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (image.width as u32, image.height as u32);
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    encoder.write_image(&image.data, width, height, ExtendedColorType::Rgb8).map_err(as_io)?;
    Ok(bytes.into_inner())
}

fn as_io(error: ImageError) -> io::Error {
    match error {
        ImageError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient() -> RgbImage {
        let data =
            (0..13 * 17).flat_map(|i| [(i / 13 * 15) as u8, (i % 13 * 19) as u8, 200]).collect();
        RgbImage { width: 13, height: 17, data }
    }

    #[test]
    fn the_name_decides_the_format() {
        let folder = tempfile::tempdir().expect("folder");
        let image = gradient();
        for (name, format) in [
            ("a.png", ImageFormat::Png),
            ("a.BMP", ImageFormat::Bmp),
            ("a.tif", ImageFormat::Tiff),
            ("a.jpg", ImageFormat::Jpeg),
        ] {
            let path = folder.path().join(name);
            write_image(&path, &image).expect("write");
            let bytes = std::fs::read(&path).expect("read");
            assert_eq!(::image::guess_format(&bytes).expect("known"), format, "{name}");
            let read = ::image::load_from_memory_with_format(&bytes, format).expect("decode");
            let read = read.to_rgb8().into_raw();
            let worst = read.iter().zip(&image.data).map(|(a, b)| a.abs_diff(*b)).max();
            // Channels in order: a swap of R and B would be off by up to 200. JPEG at quality 95 loses a few levels.
            let bound = if format == ImageFormat::Jpeg { 24 } else { 0 };
            assert!(worst <= Some(bound), "{name}: {worst:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.webp");
        let message = write_image(&path, &gradient()).expect_err("webp").to_string();
        assert!(message.contains("a.webp") && message.contains("png"), "{message}");
        let empty = RgbImage { width: 0, height: 3, data: vec![] };
        assert!(write_image(&folder.path().join("a.png"), &empty).is_err());
        let short = RgbImage { width: 2, height: 3, data: vec![0; 17] };
        assert!(write_image(&folder.path().join("a.png"), &short).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }
}
