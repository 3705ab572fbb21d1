//! From a file to normalised pixels: decode, Pillow-exact resize, normalise.
//!
//! Owns everything between an image file and the backbone's input; knows nothing of data sets or models
//! beyond the filter and the constants it is handed.

mod aspect;
#[cfg(feature = "files")]
mod content;
#[cfg(feature = "files")]
mod decode;
mod fit;
#[cfg(feature = "libjpeg")]
mod jpeg;
#[cfg(feature = "files")]
mod mask;
mod normalise;
mod region;
mod resize;
mod tiles;

pub use aspect::{common_size, common_size_padded, padding};
#[cfg(feature = "files")]
pub use decode::{
    Decoded, EXTENSIONS, MAX_DECODED_BYTES, MAX_SIDE, decode, has_image_extension, image_size,
};
pub use fit::{Canvas, Fit, PAD_COLOUR, Rectangle, Resize};
#[cfg(feature = "files")]
pub use mask::{MaskRule, decode_gray_mask, load_mask};
pub use normalise::normalise;
pub use region::RegionMask;
pub use resize::{resize, resize_gray};
pub use tiles::{Cut, Tile};

use std::borrow::Cow;

use crate::{Error, ImageSize, Result};

/// An 8-bit RGB image, rows top to bottom, three interleaved channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes: R, G, B of each pixel.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// An image from its bytes, R, G, B of each pixel, rows top to bottom.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `data` does not hold `height * width * 3` bytes.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if expected != Some(data.len()) {
            return Err(Error::invalid(
                format!("bytes of a {width}x{height} RGB image"),
                data.len(),
                "width * height * 3",
            ));
        }
        Ok(RgbImage { width, height, data })
    }

    /// Its height and width.
    pub fn size(&self) -> ImageSize {
        ImageSize::new(self.height, self.width)
    }
}

/// Images that get ready one after another, while a backend works on those before.
pub trait PixelSource: Sync {
    /// Number of images N.
    fn images(&self) -> usize;
    /// An image by its number; waits until it is ready, or makes it so. One that is given away is held by nobody else: its
    /// pixels go with it. So each is asked for once.
    ///
    /// # Errors
    /// When it will never be: the file is bad, or the reading was stopped.
    fn image(&self, index: usize) -> Result<Cow<'_, RgbImage>>;
}

impl std::fmt::Debug for dyn PixelSource + '_ {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "source of {} images", self.images())
    }
}

/// Pillow's resampling filters that the backbones use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Filter {
    /// Triangle filter, support 1 (DINO, DINOv2, masks).
    Bilinear,
    /// Cubic filter with a = -0.5, support 2 (CLIP).
    Bicubic,
}

/// Mean and standard deviation a channel, on pixels scaled to 0..1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Mean of R, G, B.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B.
    pub std: [f32; 3],
}

impl Normalisation {
    /// The constants of CLIP's training images (github.com/openai/CLIP, `clip/clip.py`).
    pub const CLIP: Normalisation = Normalisation {
        mean: [0.48145466, 0.4578275, 0.40821073],
        std: [0.26862954, 0.2613026, 0.2757771],
    };

    /// The constants of ImageNet, which DINO and DINOv2 use.
    pub const IMAGENET: Normalisation =
        Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
}
