//! What every backend checks of a setting and of pixels before it works.

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

impl<'a> Pixels<'a> {
    /// The images one by one, checked against the size that a model was prepared for.
    pub(super) fn images(self, size: usize) -> Result<Vec<Image<'a>>> {
        match self {
            Pixels::Rgb(images) => images
                .iter()
                .map(|image| {
                    if (image.width, image.height) == (size, size)
                        && image.data.len() == 3 * size * size
                    {
                        Ok(Image::Rgb(image))
                    } else {
                        Err(Error::invalid(
                            "image size",
                            format!("{}x{}", image.width, image.height),
                            format!("{size}x{size}"),
                        ))
                    }
                })
                .collect(),
            Pixels::Normalised(values) => {
                if values.len() % (3 * size * size) != 0 {
                    return Err(Error::invalid(
                        "pixels",
                        format!("{} values", values.len()),
                        format!("a multiple of 3x{size}x{size}"),
                    ));
                }
                Ok(values.chunks_exact(3 * size * size).map(Image::Normalised).collect())
            }
        }
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
