//! What every backend checks of a setting and of pixels before it works.

use std::ops::Range;

use super::{Extraction, Pixels};
use crate::image::RgbImage;
use crate::model::Vit;
use crate::{Error, Result};

/// One image as the backbone takes it.
#[derive(Clone, Copy)]
pub(super) enum Image<'a> {
    /// 8-bit pixels `[S, S, 3]`.
    Rgb(&'a RgbImage),
    /// Normalised planes `[3, S, S]`.
    Normalised(&'a [f32]),
}

/// The images of some pixels, in order, checked against the size that a model was prepared for as they are taken.
#[derive(Clone)]
pub(super) struct Images<'a> {
    pixels: Pixels<'a>,
    size: usize,
    range: Range<usize>,
}

impl<'a> Pixels<'a> {
    /// The images one by one. What can be checked without waiting for an image is checked here.
    pub(super) fn images(self, size: usize) -> Result<Images<'a>> {
        let count = match self {
            Pixels::Rgb(images) => images.len(),
            Pixels::Source(source) => source.images(),
            Pixels::Normalised(values) => {
                if values.len() % (3 * size * size) != 0 {
                    return Err(Error::invalid(
                        "pixels",
                        format!("{} values", values.len()),
                        format!("a multiple of 3x{size}x{size}"),
                    ));
                }
                values.len() / (3 * size * size)
            }
        };
        let images = Images { pixels: self, size, range: 0..count };
        if let Pixels::Rgb(_) = self {
            for index in 0..count {
                images.get(index)?;
            }
        }
        Ok(images)
    }
}

impl<'a> Images<'a> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Images in a range of these.
    #[cfg(feature = "cuda")]
    pub fn part(&self, range: Range<usize>) -> Self {
        let start = self.range.start;
        Images { range: start + range.start..start + range.end, ..self.clone() }
    }

    /// One image, when it is ready.
    pub fn get(&self, index: usize) -> Result<Image<'a>> {
        let (at, size) = (self.range.start + index, self.size);
        let rgb = match self.pixels {
            Pixels::Normalised(values) => {
                let length = 3 * size * size;
                return Ok(Image::Normalised(&values[at * length..(at + 1) * length]));
            }
            Pixels::Rgb(images) => &images[at],
            Pixels::Source(source) => source.image(at)?,
        };
        if (rgb.width, rgb.height) == (size, size) && rgb.data.len() == 3 * size * size {
            return Ok(Image::Rgb(rgb));
        }
        Err(Error::invalid(
            "image size",
            format!("{}x{}", rgb.width, rgb.height),
            format!("{size}x{size}"),
        ))
    }

    /// All of them, when they are ready.
    pub fn all(&self) -> Result<Vec<Image<'a>>> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }
}

impl Extraction {
    /// Checks the setting against a backbone; the grid's side H.
    pub(super) fn grid(&self, vit: &Vit) -> Result<usize> {
        let architecture = &vit.architecture;
        if self.layers.is_empty() {
            return Err(Error::invalid("feature layers", "none", "at least one block index"));
        }
        for &layer in &self.layers {
            if layer >= architecture.depth {
                return Err(Error::invalid(
                    "feature layer",
                    layer,
                    format!(
                        "0 to {}: the backbone has {} blocks",
                        architecture.depth - 1,
                        architecture.depth
                    ),
                ));
            }
        }
        let (size, patch) = (self.image_size, architecture.patch);
        if size == 0 || size % patch != 0 {
            let below = size / patch * patch;
            return Err(Error::invalid(
                "image size",
                size,
                format!(
                    "a multiple of the patch size {patch}, such as {} or {}",
                    below.max(patch),
                    below + patch
                ),
            ));
        }
        Ok(size / patch)
    }
}
