//! Which part of an image is looked at, and which patches lie outside of it.

use super::Rectangle;
use crate::{Error, Grid, ImageSize, Result};

/// Which pixels of an image are looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct RegionMask {
    size: ImageSize,
    inside: Vec<bool>,
}

/// Its size alone: the pixels are millions.
impl std::fmt::Debug for RegionMask {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RegionMask").field("size", &self.size).finish_non_exhaustive()
    }
}

impl RegionMask {
    /// A mask from its pixels, `[height, width]`, true for those that are looked at.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of pixels than `size` has, or when none is inside.
    pub fn new(size: ImageSize, inside: Vec<bool>) -> Result<Self> {
        let expected = size.height.checked_mul(size.width);
        if expected != Some(inside.len()) {
            let found = format!("{} pixels", inside.len());
            return Err(Error::invalid("region mask", found, format!("those of {size}")));
        }
        if !inside.contains(&true) {
            let found = format!("none of {} pixels inside", inside.len());
            return Err(Error::invalid("region mask", found, "at least one"));
        }
        Ok(RegionMask { size, inside })
    }

    /// A mask of this size with every pixel inside.
    pub fn everywhere(size: ImageSize) -> Self {
        RegionMask { size, inside: vec![true; size.pixels()] }
    }

    /// Reads a mask: a pixel is inside when its grey is above 0. Files, colours and depths are those of
    /// [`decode_gray_mask`](super::decode_gray_mask): colour becomes grey, alpha is dropped, of 16 bits the high byte counts.
    /// A JPEG's black is seldom 0, so masks belong into PNG, BMP or TIFF.
    ///
    /// # Errors
    /// [`Error::Dataset`] for a mask that is black everywhere; otherwise as [`decode`](super::decode).
    #[cfg(feature = "files")]
    pub fn read(path: &std::path::Path) -> Result<Self> {
        let (values, width, height) = super::decode_gray_mask(path)?;
        let size = ImageSize::new(height as usize, width as usize);
        let inside: Vec<bool> = values.into_iter().map(|value| value > 0).collect();
        if !inside.contains(&true) {
            let reason = format!(
                "the mask is black everywhere: found 0 of {width}x{height} pixels above 0, expected the region that is \
                 looked at in white"
            );
            return Err(Error::Dataset { path: path.to_path_buf(), reason });
        }
        Self::new(size, inside)
    }

    /// Its height and width.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// Whether each pixel is inside, `[height, width]`.
    pub fn inside(&self) -> &[bool] {
        &self.inside
    }

    /// The same without what lies within so many pixels of the image's edges.
    ///
    /// # Errors
    /// [`Error::Invalid`] when nothing would be left.
    pub fn without_border(mut self, pixels: usize) -> Result<Self> {
        let ImageSize { height, width } = self.size;
        if pixels == 0 {
            return Ok(self);
        }
        if pixels >= height.min(width).div_ceil(2) {
            return Err(Error::invalid(
                "border",
                format!("{pixels} pixels of an image of {width}x{height}"),
                "less than half of its shorter side",
            ));
        }
        for (y, row) in self.inside.chunks_exact_mut(width).enumerate() {
            if y < pixels || y >= height - pixels {
                row.fill(false);
            } else {
                row[..pixels].fill(false);
                row[width - pixels..].fill(false);
            }
        }
        if !self.inside.contains(&true) {
            let found = format!("{pixels} pixels, which cover all of the region");
            return Err(Error::invalid("border", found, "one that leaves some of the region"));
        }
        Ok(self)
    }

    /// The patches that lie outside, `[L]`, row by row: those of which less than half of the area is inside.
    ///
    /// `part` of the image lies at `place` of an input of `grid` patches of side `patch`. The areas are exact: a patch's
    /// edge may cut a pixel. A mask with every pixel inside gives what [`padding`](super::padding) gives.
    ///
    /// # Panics
    /// When `part` is not within the mask.
    pub fn outside(
        &self,
        part: Rectangle,
        place: Rectangle,
        grid: Grid,
        patch: usize,
    ) -> Vec<bool> {
        let columns = shares(part.size.width, place.left, place.size.width, grid.columns, patch);
        let rows = shares(part.size.height, place.top, place.size.height, grid.rows, patch);
        // A patch in units in which both its sides and those of a pixel are whole.
        let whole = (patch as u128).pow(2) * part.size.width as u128 * part.size.height as u128;
        let mut outside = Vec::with_capacity(grid.patches());
        for row in &rows {
            let mut areas = vec![0u128; grid.columns];
            for (y, height) in row.iter() {
                let line = &self.inside[(part.top + y) * self.size.width + part.left..];
                let line = &line[..part.size.width];
                for (area, column) in areas.iter_mut().zip(&columns) {
                    let width: u64 =
                        column.iter().filter(|(x, _)| line[*x]).map(|(_, width)| width).sum();
                    *area += u128::from(width) * u128::from(height);
                }
            }
            outside.extend(areas.into_iter().map(|area| 2 * area < whole));
        }
        outside
    }
}

/// The pixels that a patch covers along one side.
struct Share {
    first: usize,
    /// Their lengths inside the patch, in units of which a pixel has as many as the picture has input pixels.
    lengths: Vec<u64>,
}

impl Share {
    fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        self.lengths.iter().enumerate().map(|(at, &length)| (self.first + at, length))
    }
}

/// What each of `patches` patches of side `patch` covers of `pixels` pixels, which lie on `to` input pixels from `start`.
fn shares(pixels: usize, start: usize, to: usize, patches: usize, patch: usize) -> Vec<Share> {
    let (pixels, start, to, patch) = (pixels as i64, start as i64, to as i64, patch as i64);
    (0..patches as i64)
        .map(|at| {
            // The patch's ends, in the units of Share::lengths.
            let from = ((at * patch - start) * pixels).clamp(0, pixels * to);
            let end = (((at + 1) * patch - start) * pixels).clamp(0, pixels * to);
            if from >= end {
                return Share { first: 0, lengths: Vec::new() };
            }
            let (first, last) = (from / to, (end - 1) / to);
            let length = |pixel: i64| (end.min((pixel + 1) * to) - from.max(pixel * to)) as u64;
            Share { first: first as usize, lengths: (first..=last).map(length).collect() }
        })
        .collect()
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
