//! What every backend checks of a setting and of pixels before it works.

use std::borrow::Cow;
use std::ops::Range;

use super::features::ContentHash;
use super::{Extraction, Pixels};
use crate::image::RgbImage;
use crate::model::Vit;
use crate::{Error, Grid, ImageSize, Result};

/// One image as the backbone takes it.
pub(super) enum Image<'a> {
    /// 8-bit pixels `[height, width, 3]`.
    Rgb(Cow<'a, RgbImage>),
    /// Normalised planes `[3, height, width]`.
    Normalised(&'a [f32]),
}

impl Image<'_> {
    /// A hash of its pixels, and of its form.
    pub fn content(&self) -> u64 {
        let mut hash = ContentHash::default();
        match self {
            Image::Rgb(image) => {
                hash.add(&(image.width as u64).to_le_bytes());
                hash.add(&image.data);
            }
            Image::Normalised(values) => hash.add(bytemuck::cast_slice(values)),
        }
        hash.finish()
    }
}

/// The images of some pixels, in order, checked against the size that a model was prepared for as they are taken.
#[derive(Clone)]
pub(super) struct Images<'a> {
    pixels: Pixels<'a>,
    size: ImageSize,
    range: Range<usize>,
}

impl<'a> Pixels<'a> {
    /// The images one by one. What can be checked without waiting for an image is checked here.
    pub(super) fn images(self, size: ImageSize) -> Result<Images<'a>> {
        let values_an_image = 3 * size.pixels();
        let count = match self {
            Pixels::Rgb(images) => images.len(),
            Pixels::Source(source) => source.images(),
            Pixels::Normalised(values) => {
                if values_an_image == 0 || values.len() % values_an_image != 0 {
                    return Err(Error::invalid(
                        "pixels",
                        format!("{} values", values.len()),
                        format!("a multiple of 3x{size}"),
                    ));
                }
                values.len() / values_an_image
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
                let length = 3 * size.pixels();
                return Ok(Image::Normalised(&values[at * length..(at + 1) * length]));
            }
            Pixels::Rgb(images) => Cow::Borrowed(&images[at]),
            Pixels::Source(source) => source.image(at)?,
        };
        if rgb.size() == size && rgb.data.len() == 3 * size.pixels() {
            return Ok(Image::Rgb(rgb));
        }
        Err(Error::invalid(
            "image size",
            format!("{} (height x width)", rgb.size()),
            size.to_string(),
        ))
    }

    /// All of them, when they are ready.
    #[cfg(feature = "cuda")]
    pub fn all(&self) -> Result<Vec<Image<'a>>> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }
}

impl Extraction {
    /// Checks the setting against a backbone; the grid of patches.
    pub(super) fn grid(&self, vit: &Vit) -> Result<Grid> {
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
        let patch = architecture.patch;
        for (what, side) in [("height", self.input.height), ("width", self.input.width)] {
            if side == 0 || side % patch != 0 {
                let below = side / patch * patch;
                let above = below + patch;
                let near =
                    if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
                return Err(Error::invalid(
                    format!("{what} of the input"),
                    side,
                    format!("a multiple of the patch size {patch}, such as {near}"),
                ));
            }
        }
        Ok(self.input.grid(patch))
    }
}
