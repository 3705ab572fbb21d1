//! From a file to normalised pixels: decode, Pillow-exact resize, normalise.
//!
//! Owns everything between an image file and the backbone's input; knows nothing of data sets or models
//! beyond the filter and the constants it is handed.

mod normalise;

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

/// Pillow's resampling filters that the backbones use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
