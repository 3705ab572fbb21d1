//! Image files to 8-bit RGB.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

#[cfg(feature = "libjpeg")]
use super::jpeg::{self, Jpeg};
use super::{RgbImage, content};
use crate::{Error, ImageSize, Result};

/// Extensions (lower case) by which images are found in a folder.
pub const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff"];

/// Longest side of an image that is decoded, in pixels.
pub const MAX_SIDE: u32 = 65_535;

/// Most bytes that one image may take while it is decoded: a small file that claims more is refused before
/// anything is allocated.
pub const MAX_DECODED_BYTES: u64 = 512 << 20;

/// An image file's pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The pixels, at the file's own size, never without any.
    pub image: RgbImage,
    /// The file had 16 bits a channel: the low byte was dropped. Such files are outside what the authors of the
    /// method measured; a camera's 12-bit values in a 16-bit file come out dark.
    pub scaled_from_16_bit: bool,
}

/// True when the name ends in one of [`EXTENSIONS`], in any case.
pub fn has_image_extension(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| {
        EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
    })
}

/// Decodes a PNG, JPEG, BMP or TIFF file to RGB.
///
/// The content decides the format; a name that says another image format is an error, a name that says none is
/// not.
///
/// What Pillow's `Image.open(path).convert("RGB")` gives, with these marks:
/// * PNG, BMP and TIFF are lossless: the pixels are equal. For JPEG the standard leaves the rounding of the inverse
///   transform and the way colour is enlarged open. With the feature `libjpeg` the pixels are those
///   of libjpeg-turbo, which Pillow has inside; without it, and for four-channel files, the `image` crate decodes,
///   a level or two off, and a few more where colour is stored at half (4:2:0).
/// * An orientation in the EXIF data is not applied; Pillow does not apply it either.
/// * Grey is repeated to three channels. An alpha channel is dropped, not blended. Palettes are expanded.
/// * 16 bits a channel become 8 by keeping the high byte, as Pillow does for RGB, and [`Decoded`] says so.
/// * Of a file with several pages the first is read.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Image`] when it is empty, truncated, wrongly named, not an
/// image, damaged, of floating-point pixels, or larger than [`MAX_SIDE`] or [`MAX_DECODED_BYTES`].
pub fn decode(path: &Path) -> Result<Decoded> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    decode_bytes(path, &bytes)
}

/// [`decode`] of a file's content; `path` is its name only.
fn decode_bytes(path: &Path, bytes: &[u8]) -> Result<Decoded> {
    let refuse = |reason| Error::Image { path: path.to_path_buf(), reason };
    let Opened { pixels, .. } = open_bytes(path, bytes).map_err(refuse)?;
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let (data, scaled_from_16_bit) = to_rgb(pixels).map_err(refuse)?;
    Ok(Decoded { image: RgbImage::new(width, height, data)?, scaled_from_16_bit })
}

/// Bytes from which a file's content is told.
const HEAD_BYTES: u64 = 512;

/// Height and width of an image file, from its head alone: no pixel is decoded.
///
/// # Errors
/// As [`decode`], as far as the head tells: a file whose end is missing or damaged has a size all the same.
pub fn image_size(path: &Path) -> Result<ImageSize> {
    let refuse = |reason| Error::Image { path: path.to_path_buf(), reason };
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(Error::io("read", path))?;
    let format = content::identify(path, &head).map_err(refuse)?;
    file.rewind().map_err(Error::io("read", path))?;
    #[cfg(feature = "libjpeg")]
    if format == ImageFormat::Jpeg {
        let size = jpeg::size(BufReader::new(file), MAX_SIDE, MAX_DECODED_BYTES);
        let size = size.map_err(|reason| refuse(damaged(&reason)))?;
        let (width, height) = size.ok_or_else(|| refuse(too_large()))?;
        check_sides(width, height).map_err(refuse)?;
        return Ok(ImageSize::new(height as usize, width as usize));
    }
    let (decoder, mut limits) =
        decoder(format, BufReader::new(file)).map_err(|error| refuse(say(error)))?;
    let (width, height) = decoder.dimensions();
    limits.reserve(decoder.total_bytes()).map_err(|error| refuse(say(error)))?;
    check_sides(width, height).map_err(refuse)?;
    Ok(ImageSize::new(height as usize, width as usize))
}

/// A decoded file, before its channels are made what the caller wants.
pub(super) struct Opened {
    /// The pixels as they are stored.
    pub(super) pixels: DynamicImage,
    /// A PNG of one grey bit a pixel.
    pub(super) one_bit_png: bool,
}

pub(super) fn open(path: &Path) -> Result<Opened> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    open_bytes(path, &bytes).map_err(|reason| Error::Image { path: path.to_path_buf(), reason })
}

fn open_bytes(path: &Path, bytes: &[u8]) -> Result<Opened, String> {
    let format = content::identify(path, bytes)?;
    content::check_whole(format, bytes)?;
    let pixels = read_pixels(format, bytes).map_err(say)?;
    check_sides(pixels.width(), pixels.height())?;
    Ok(Opened { pixels, one_bit_png: content::is_one_bit_png(format, bytes) })
}

/// A decoder's error in our words.
fn say(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => too_large(),
        error => damaged(&error),
    }
}

fn too_large() -> String {
    let most = MAX_DECODED_BYTES >> 20;
    format!("it claims a side over {MAX_SIDE} pixels or more than {most} MiB of pixels")
}

fn damaged(reason: &dyn std::fmt::Display) -> String {
    format!("it cannot be decoded, damaged or truncated: {reason}")
}

fn check_sides(width: u32, height: u32) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("it has no pixels: {width}x{height}"));
    }
    Ok(())
}

fn read_pixels(format: ImageFormat, bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    #[cfg(feature = "libjpeg")]
    if format == ImageFormat::Jpeg {
        use image::error::{DecodingError, LimitError, LimitErrorKind};

        match jpeg::decode(bytes, MAX_SIDE, MAX_DECODED_BYTES) {
            Ok(Jpeg::Pixels(pixels)) => return Ok(pixels),
            Ok(Jpeg::TooLarge) => {
                let kind = LimitErrorKind::DimensionError;
                return Err(ImageError::Limits(LimitError::from_kind(kind)));
            }
            Ok(Jpeg::OtherColours) => {}
            Err(reason) => {
                return Err(ImageError::Decoding(DecodingError::new(format.into(), reason)));
            }
        }
    }
    let (decoder, mut limits) = decoder(format, Cursor::new(bytes))?;
    // The decoders count their own buffers only; this is the buffer of the result.
    limits.reserve(decoder.total_bytes())?;
    DynamicImage::from_decoder(decoder)
}

/// A decoder that has read the file's head, and the limits it was given.
fn decoder<'a>(
    format: ImageFormat,
    source: impl BufRead + Seek + 'a,
) -> Result<(impl ImageDecoder + 'a, Limits), ImageError> {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    let mut reader = ImageReader::with_format(source, format);
    reader.limits(limits.clone());
    Ok((reader.into_decoder()?, limits))
}

/// RGB bytes, and whether they came from 16 bits.
fn to_rgb(pixels: DynamicImage) -> Result<(Vec<u8>, bool), String> {
    let high = |value: u16| (value >> 8) as u8;
    Ok(match pixels {
        DynamicImage::ImageRgb8(image) => (image.into_raw(), false),
        DynamicImage::ImageRgba8(image) => {
            (image.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(), false)
        }
        DynamicImage::ImageLuma8(image) => {
            (image.pixels().flat_map(|pixel| [pixel[0]; 3]).collect(), false)
        }
        DynamicImage::ImageLumaA8(image) => {
            (image.pixels().flat_map(|pixel| [pixel[0]; 3]).collect(), false)
        }
        DynamicImage::ImageRgb16(image) => {
            (image.pixels().flat_map(|pixel| pixel.0.map(high)).collect(), true)
        }
        DynamicImage::ImageRgba16(image) => {
            let first_three = |pixel: &image::Rgba<u16>| [pixel[0], pixel[1], pixel[2]].map(high);
            (image.pixels().flat_map(first_three).collect(), true)
        }
        DynamicImage::ImageLuma16(image) => {
            (image.pixels().flat_map(|pixel| [high(pixel[0]); 3]).collect(), true)
        }
        DynamicImage::ImageLumaA16(image) => {
            (image.pixels().flat_map(|pixel| [high(pixel[0]); 3]).collect(), true)
        }
        other => return Err(format!("pixels of type {:?} are not supported", other.color())),
    })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
