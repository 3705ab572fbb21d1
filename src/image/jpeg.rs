//! JPEG by libjpeg's own inverse transform and enlargement of colour: the bits that Pillow gives.
//!
//! The library is `mozjpeg`'s, which decodes as libjpeg-turbo does; it is C, compiled with the crate.

use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress};

/// What came of a JPEG file.
pub(super) enum Jpeg {
    /// Grey or RGB pixels.
    Pixels(DynamicImage),
    /// It claims more pixels than are decoded.
    TooLarge,
    /// Colours that are left to the other decoder (four channels).
    OtherColours,
}

/// Decodes a file's bytes, unless they claim a side over `max_side` pixels or more than `max_bytes` of pixels; or says why
/// it cannot.
pub(super) fn decode(bytes: &[u8], max_side: u32, max_bytes: u64) -> Result<Jpeg, String> {
    caught(|| pixels(bytes, max_side, max_bytes))
}

/// Width and height of a file, from its head: what [`decode`] would find them to be. `None` where it would find them too
/// large.
pub(super) fn size(
    file: impl BufRead,
    max_side: u32,
    max_bytes: u64,
) -> Result<Option<(u32, u32)>, String> {
    caught(|| {
        let file = Decompress::new_reader(file).map_err(|error| error.to_string())?;
        Ok(within(file.size(), max_side, max_bytes))
    })
}

/// Width and height, if they and the pixels' bytes are within the limits.
fn within((width, height): (usize, usize), max_side: u32, max_bytes: u64) -> Option<(u32, u32)> {
    let sides = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let bytes = (width as u64 * height as u64).saturating_mul(3);
    (sides.0.max(sides.1) <= max_side && bytes <= max_bytes).then_some(sides)
}

/// What the library says, its fatal errors too.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // The library reports a fatal error by unwinding through its C frames; nothing is shared with the closure that
    // could be left half-changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let reason = payload.downcast_ref::<String>().map_or("unknown", String::as_str);
        Err(reason.trim_start_matches("libjpeg fatal error: ").to_string())
    })
}

fn pixels(bytes: &[u8], max_side: u32, max_bytes: u64) -> Result<Jpeg, String> {
    let file = Decompress::new_mem(bytes).map_err(|error| error.to_string())?;
    let Some((width, height)) = within(file.size(), max_side, max_bytes) else {
        return Ok(Jpeg::TooLarge);
    };
    let grey = match file.color_space() {
        ColorSpace::JCS_GRAYSCALE => true,
        ColorSpace::JCS_RGB | ColorSpace::JCS_YCbCr => false,
        _ => return Ok(Jpeg::OtherColours),
    };
    let started = if grey { file.grayscale() } else { file.rgb() };
    let mut started = started.map_err(|error| error.to_string())?;
    let data: Vec<u8> = started.read_scanlines().map_err(|error| error.to_string())?;
    started.finish().map_err(|error| error.to_string())?;
    let image = if grey {
        GrayImage::from_raw(width, height, data).map(DynamicImage::ImageLuma8)
    } else {
        RgbImage::from_raw(width, height, data).map(DynamicImage::ImageRgb8)
    };
    image.map(Jpeg::Pixels).ok_or_else(|| String::from("fewer pixels than its header says"))
}
