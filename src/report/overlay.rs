//! An image with its anomaly map laid over it.

use super::colour::{jet, quantise};
use super::heat_map::check_map;
use crate::image::RgbImage;
use crate::{Error, ImageSize, Result};

/// Share of the map's colour where the map is lowest, and what is added to it up to the highest: normal parts stay
/// recognisable, defects stand out.
const SHARE_LOW: f32 = 0.15;
const SHARE_RISE: f32 = 0.5;
/// One pixel of contour width for so many pixels of the shorter side.
const SIDE_PER_CONTOUR_PIXEL: usize = 256;
const CONTOUR: [u8; 3] = [255, 255, 255];

/// The image with its map in JET colours over it, and a white contour around the regions above `threshold`, if one is given.
///
/// # Shapes
/// `image` of any size; `map` `[height, width]` of `size`, which is stretched over the whole image. `range` is the scale of the colours:
/// the map's own, or one shared by a class.
///
/// # Errors
/// [`Error::Invalid`] when a length does not fit.
pub fn overlay(
    image: &RgbImage,
    map: &[f32],
    size: ImageSize,
    range: (f32, f32),
    threshold: Option<f32>,
) -> Result<RgbImage> {
    check_image(image)?;
    check_map(map, size)?;
    let stretched = stretch(map, size, image.size());
    let mut out = blend(image, &stretched, range);
    if let Some(threshold) = threshold {
        draw_contour(&mut out, &stretched, threshold);
    }
    Ok(out)
}

pub(super) fn check_image(image: &RgbImage) -> Result<()> {
    let expected = image.width.checked_mul(image.height).and_then(|v| v.checked_mul(3));
    if !image.data.is_empty() && expected == Some(image.data.len()) {
        return Ok(());
    }
    Err(Error::invalid(
        "image",
        format!("{} bytes", image.data.len()),
        format!("{} x {} RGB pixels, at least 1", image.width, image.height),
    ))
}

/// Mixes the map's colours into an image of the same size.
pub(super) fn blend(image: &RgbImage, map: &[f32], range: (f32, f32)) -> RgbImage {
    let mut data = Vec::with_capacity(image.data.len());
    for (pixel, &value) in image.data.chunks_exact(3).zip(map) {
        let level = quantise(value, range);
        let share = SHARE_LOW + SHARE_RISE * f32::from(level) / 255.0;
        for (&below, above) in pixel.iter().zip(jet(level)) {
            let mixed = f32::from(below) * (1.0 - share) + f32::from(above) * share;
            data.push(mixed.round() as u8);
        }
    }
    RgbImage { width: image.width, height: image.height, data }
}

/// Bilinear, pixel centres aligned as in the resize that made the network's input: `[height, width]` of `to`.
pub(super) fn stretch(map: &[f32], from: ImageSize, to: ImageSize) -> Vec<f32> {
    let taps = |size: usize, count: usize| -> Vec<(usize, usize, f32)> {
        let last = (size - 1) as f32;
        (0..count)
            .map(|at| {
                let source = (at as f32 + 0.5) * size as f32 / count as f32 - 0.5;
                let source = source.clamp(0.0, last);
                let before = source as usize;
                (before, (before + 1).min(size - 1), source - before as f32)
            })
            .collect()
    };
    let columns = taps(from.width, to.width);
    let mut out = Vec::with_capacity(to.pixels());
    for (above, below, share) in taps(from.height, to.height) {
        let line = |row: usize| &map[row * from.width..][..from.width];
        let (above, below) = (line(above), line(below));
        out.extend(columns.iter().map(|&(left, right, across)| {
            let top = above[left] + (above[right] - above[left]) * across;
            let bottom = below[left] + (below[right] - below[left]) * across;
            top + (bottom - top) * share
        }));
    }
    out
}

/// Paints the pixels above the threshold that lie within the contour's width of one that is not.
fn draw_contour(image: &mut RgbImage, map: &[f32], threshold: f32) {
    let (width, height) = (image.width, image.height);
    let reach = (width.min(height) / SIDE_PER_CONTOUR_PIXEL).max(1);
    let above: Vec<bool> = map.iter().map(|value| *value > threshold).collect();
    for y in 0..height {
        for x in (0..width).filter(|x| above[y * width + x]) {
            let mut columns = x.saturating_sub(reach)..(x + reach + 1).min(width);
            let mut rows = y.saturating_sub(reach)..(y + reach + 1).min(height);
            let on_edge = columns.any(|other| !above[y * width + other])
                || rows.any(|other| !above[other * width + x]);
            if on_edge {
                image.data[(y * width + x) * 3..][..3].copy_from_slice(&CONTOUR);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize) -> RgbImage {
        RgbImage { width, height, data: vec![100; width * height * 3] }
    }

    #[test]
    fn cold_parts_keep_the_image_and_hot_parts_turn_red() {
        let image = grey(7, 5);
        let map = [0.0, 1.0, 0.0, 1.0];
        let out = overlay(&image, &map, ImageSize::square(2), (0.0, 1.0), None).expect("overlay");
        assert_eq!((out.width, out.height), (7, 5));
        // Level 0 is (0, 0, 128) at 0.15; level 255 is (128, 0, 0) at 0.65.
        assert_eq!(out.data[..3], [85, 85, 104]);
        assert_eq!(out.data[18..21], [118, 35, 35]);
        let flat =
            overlay(&image, &[0.3; 4], ImageSize::new(1, 4), (0.3, 0.3), None).expect("overlay");
        assert!(flat.data.chunks(3).all(|pixel| pixel == [85, 85, 104]));
    }

    #[test]
    fn the_contour_follows_the_region() {
        let size = ImageSize::new(9, 11);
        let mut map = vec![0.0; 99];
        for y in 2..7 {
            for x in 3..6 {
                map[y * 11 + x] = 1.0;
            }
        }
        let out = overlay(&grey(11, 9), &map, size, (0.0, 1.0), Some(0.5)).expect("overlay");
        for y in 0..9 {
            for x in 0..11 {
                let inside = (2..7).contains(&y) && (3..6).contains(&x);
                let core = (3..6).contains(&y) && x == 4;
                let white = out.data[(y * 11 + x) * 3..][..3] == CONTOUR;
                assert_eq!(white, inside && !core, "row {y} column {x}");
            }
        }
        // A region that fills the image has no edge to draw.
        let full = overlay(&grey(11, 9), &[1.0; 99], size, (0.0, 1.0), Some(0.5)).expect("overlay");
        assert!(full.data.chunks(3).all(|pixel| pixel != CONTOUR));
    }

    #[test]
    fn stretching_keeps_centres() {
        let (two, wide) = (ImageSize::square(2), ImageSize::new(1, 4));
        assert_eq!(stretch(&[0.0, 1.0, 2.0, 3.0], two, two), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(stretch(&[5.0], ImageSize::square(1), ImageSize::new(2, 3)), [5.0; 6]);
        assert_eq!(stretch(&[0.0, 1.0, 0.0, 1.0], two, wide), [0.0, 0.25, 0.75, 1.0]);
        let tall = stretch(&[0.0, 8.0, 4.0, 4.0], wide, ImageSize::new(2, 2));
        assert_eq!(tall, [4.0, 4.0, 4.0, 4.0]);
        let column = stretch(&[0.0, 1.0], ImageSize::new(2, 1), ImageSize::new(4, 2));
        assert_eq!(column, [0.0, 0.0, 0.25, 0.25, 0.75, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_named() {
        let short = RgbImage { width: 2, height: 2, data: vec![0; 11] };
        assert!(overlay(&short, &[0.0], ImageSize::square(1), (0.0, 1.0), None).is_err());
        assert!(overlay(&grey(2, 2), &[0.0; 3], ImageSize::square(2), (0.0, 1.0), None).is_err());
    }
}
