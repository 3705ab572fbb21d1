//! Ground-truth masks: files to defect maps of the working size.

use std::path::Path;

use image::DynamicImage;

use super::decode::{Opened, open};
use super::{Canvas, resize_gray};
use crate::{Error, ImageSize, Result};

/// Which pixels of a mask, resized to the working size in 8 bit, count as defective.
///
/// The authors' program differs between data sets, and their published figures with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaskRule {
    /// Only pixels that are exactly 255 after the resize: the border of a defect is left out (MVTec AD, BTAD).
    FullOnly,
    /// Every pixel above 0 after the resize: the border is taken in (VisA).
    AnyPositive,
}

/// A mask's pixels at its own size: values, width, height.
///
/// Colour becomes grey by Pillow's integer weights (19595, 38470, 7471, of 65536), which leave grey stored as
/// colour unchanged; alpha is dropped; of 16 bits the high byte is kept.
///
/// # Shapes
/// `[height, width]`, a byte a pixel.
///
/// # Errors
/// As [`super::decode`].
pub fn decode_gray_mask(path: &Path) -> Result<(Vec<u8>, u32, u32)> {
    let mask = read(path)?;
    Ok((mask.values, mask.width, mask.height))
}

/// Reads a mask and brings it to a size: 1 where defective, 0 elsewhere, padding included.
///
/// Resized with Pillow's triangle filter, then cut by `rule`. One case apart: a PNG of one bit a pixel under
/// [`MaskRule::FullOnly`] is resized to the nearest pixel, as Pillow does for its mode "1". A palette is expanded
/// to grey first (the authors' program would take the palette's indices for values).
///
/// # Shapes
/// `[height, width]` of `to`, a byte a pixel. `image_size` is (width, height) of the image the mask belongs to.
///
/// # Errors
/// [`Error::Dataset`] when `image_size` is given and is not the mask's size, or when the mask is in colour under
/// [`MaskRule::FullOnly`]; otherwise as [`super::decode`].
pub fn load_mask(
    path: &Path,
    to: impl Into<Canvas>,
    rule: MaskRule,
    image_size: Option<(u32, u32)>,
) -> Result<Vec<u8>> {
    let mask = read(path)?;
    let refuse = |reason: String| Err(Error::Dataset { path: path.to_path_buf(), reason });
    if let Some((width, height)) = image_size
        && (width, height) != (mask.width, mask.height)
    {
        return refuse(format!(
            "the mask is {}x{} pixels, its image {width}x{height}: both must be of one size",
            mask.width, mask.height
        ));
    }
    if mask.coloured && rule == MaskRule::FullOnly {
        return refuse(String::from(
            "the mask is in colour, expected grey with defective pixels at 255",
        ));
    }
    let from = ImageSize::new(mask.height as usize, mask.width as usize);
    let nearest = mask.one_bit_png && rule == MaskRule::FullOnly;
    let scale = if nearest { resize_nearest } else { resize_gray };
    let mut values = to.into().lay_mask(&mask.values, from, scale);
    for value in &mut values {
        *value = match rule {
            MaskRule::FullOnly => u8::from(*value == 255),
            MaskRule::AnyPositive => u8::from(*value > 0),
        };
    }
    Ok(values)
}

struct Mask {
    values: Vec<u8>,
    width: u32,
    height: u32,
    /// Some pixel's channels differ.
    coloured: bool,
    one_bit_png: bool,
}

fn read(path: &Path) -> Result<Mask> {
    let Opened { pixels, one_bit_png } = open(path)?;
    let (width, height) = (pixels.width(), pixels.height());
    let mut coloured = false;
    let mut grey = |[red, green, blue]: [u8; 3]| {
        coloured |= red != green || green != blue;
        let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471;
        ((sum + 0x8000) >> 16) as u8
    };
    let high = |value: u16| (value >> 8) as u8;
    let values: Vec<u8> = match pixels {
        DynamicImage::ImageLuma8(image) => image.into_raw(),
        DynamicImage::ImageLumaA8(image) => image.pixels().map(|pixel| pixel[0]).collect(),
        DynamicImage::ImageRgb8(image) => image.pixels().map(|pixel| grey(pixel.0)).collect(),
        DynamicImage::ImageRgba8(image) => {
            image.pixels().map(|pixel| grey([pixel[0], pixel[1], pixel[2]])).collect()
        }
        DynamicImage::ImageLuma16(image) => image.pixels().map(|pixel| high(pixel[0])).collect(),
        DynamicImage::ImageLumaA16(image) => image.pixels().map(|pixel| high(pixel[0])).collect(),
        DynamicImage::ImageRgb16(image) => {
            image.pixels().map(|pixel| grey(pixel.0.map(high))).collect()
        }
        DynamicImage::ImageRgba16(image) => {
            image.pixels().map(|pixel| grey([pixel[0], pixel[1], pixel[2]].map(high))).collect()
        }
        other => {
            return Err(Error::Image {
                path: path.to_path_buf(),
                reason: format!("pixels of type {:?} are not supported", other.color()),
            });
        }
    };
    Ok(Mask { values, width, height, coloured, one_bit_png })
}

/// Pillow's nearest-pixel resize: positions advance by repeated addition in f64.
fn resize_nearest(data: &[u8], from: ImageSize, to: ImageSize) -> Vec<u8> {
    let positions = |from: usize, to: usize| -> Vec<usize> {
        let step = from as f64 / to as f64;
        let mut position = step * 0.5;
        (0..to)
            .map(|_| {
                let index = (position as usize).min(from - 1);
                position += step;
                index
            })
            .collect()
    };
    let columns = positions(from.width, to.width);
    positions(from.height, to.height)
        .into_iter()
        .flat_map(|row| columns.iter().map(move |&column| data[row * from.width + column]))
        .collect()
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
