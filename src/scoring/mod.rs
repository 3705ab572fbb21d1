//! The method's definitions that every backend shares: LNAMD, MSM, RsCIN, maps.
//!
//! Owns the options, the result types and the plain f64 versions which tests compare with; knows nothing of
//! devices, files or data sets.

pub mod decision;
pub mod reference;
pub mod rscin;
pub mod schedule;
pub mod upsample;

use crate::{Error, Grid, Result};

/// How images score each other (spec: LNAMD and MSM).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MutualScoring {
    /// Aggregation degrees r, each odd; 1 is no pooling.
    pub degrees: Vec<usize>,
    /// The interval `[low, high)` of the sorted distances whose mean is a patch's score, as fractions of the number of
    /// references that the patch's image sees.
    pub interval: (f64, f64),
    /// A patch sees only patches within so many rows and columns of its own place, in every reference: for parts that
    /// always lie alike. `None`: patches anywhere.
    pub radius: Option<usize>,
    /// The most bytes that the table of pairwise minima may take; `None` leaves it to the device. Where it would take
    /// more, the images are scored in groups, at the price of computing the pairs between groups of one set twice. Where a
    /// device needs no table (the CPU with a radius) this has no effect.
    pub table_bytes: Option<usize>,
}

impl Default for MutualScoring {
    /// The authors' setting: r = 1, 3, 5, the lowest 30 %, patches anywhere.
    fn default() -> Self {
        MutualScoring {
            degrees: vec![1, 3, 5],
            interval: (0.0, 0.3),
            radius: None,
            table_bytes: None,
        }
    }
}

impl MutualScoring {
    /// With these aggregation degrees.
    pub fn with_degrees(mut self, degrees: impl Into<Vec<usize>>) -> Self {
        self.degrees = degrees.into();
        self
    }

    /// With the mean over this interval of the sorted distances.
    pub fn with_interval(mut self, low: f64, high: f64) -> Self {
        self.interval = (low, high);
        self
    }

    /// With patches that see no further than this from their own place; `None`: anywhere.
    pub fn with_radius(mut self, radius: Option<usize>) -> Self {
        self.radius = radius;
        self
    }

    /// With at most so many bytes for the table of pairwise minima; `None`: what is usual on the device.
    pub fn with_table_bytes(mut self, bytes: Option<usize>) -> Self {
        self.table_bytes = bytes;
        self
    }

    /// Checks the options against the number of images that each image sees at least, and a grid of patch tokens.
    ///
    /// # Errors
    /// Nobody to see; no degree, an even one, or one whose window is wider than the grid on both sides; an interval that
    /// is empty or leaves 0..=1.
    pub fn check(&self, seen: usize, grid: Grid) -> Result<()> {
        if seen == 0 {
            return Err(Error::invalid(
                "images that an image is compared with",
                0,
                "at least 1: images are scored against each other, so a set needs at least 2",
            ));
        }
        if self.degrees.is_empty() {
            return Err(Error::invalid("aggregation degrees", "none", "at least one odd number"));
        }
        let largest = 2 * grid.longest().max(1) - 1;
        for &degree in &self.degrees {
            if degree % 2 == 0 || degree > largest {
                return Err(Error::invalid(
                    "aggregation degree r",
                    degree,
                    format!("an odd number from 1 to {largest} (grid {grid})"),
                ));
            }
        }
        let (low, high) = self.interval;
        if !(0.0..=1.0).contains(&low) || !(0.0..=1.0).contains(&high) || low >= high {
            return Err(Error::invalid(
                "interval of the sorted distances",
                format!("[{low}, {high})"),
                "0 <= low < high <= 1",
            ));
        }
        Ok(())
    }

    /// The ranks `[first, last)` of the sorted distances to the `seen` images that an image is compared with, whose mean
    /// is the score; never empty.
    pub fn ranks(&self, seen: usize) -> (usize, usize) {
        let (low, high) = self.interval;
        let first = ((seen as f64 * low) as usize).min(seen.saturating_sub(1));
        let last = ((seen as f64 * high) as usize).clamp(first + 1, seen.max(first + 1));
        (first, last)
    }

    /// Images scored together so that the table of minima, `[R, group, references, L]` of 32 bits, stays within
    /// `table_bytes`, or within what is usual on the device; at least one, at most all.
    pub fn group_images(
        &self,
        (images, references): (usize, usize),
        patches: usize,
        usual_bytes: usize,
    ) -> usize {
        let bytes_an_image = self.degrees.len() * references * patches * size_of::<f32>();
        let bytes = self.table_bytes.unwrap_or(usual_bytes);
        (bytes / bytes_an_image.max(1)).clamp(1, images.max(1))
    }
}

/// The outcome of mutual scoring.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PatchScores {
    /// Number of images N that were scored.
    pub images: usize,
    /// Their grid of patches, L = H·W.
    pub grid: Grid,
    /// Aggregation degrees, R of them.
    pub degrees: Vec<usize>,
    /// Number of feature layers.
    pub layers: usize,
    /// `[R, layers, N, L]`: the score for each degree and layer, a distance between unit vectors (0..=2).
    pub by_degree_layer: Vec<f32>,
}

impl PatchScores {
    /// Scores of the same images that were made of one feature layer after another, in the layers' order: the same bits as made
    /// of all layers at once, when only tokens of one layer need be in memory.
    ///
    /// # Errors
    /// No part; parts of other images, grids or degrees than the first, or with a number of scores that does not fit.
    pub fn of_layers(parts: Vec<PatchScores>) -> Result<PatchScores> {
        let Some(first) = parts.first() else {
            return Err(Error::invalid("feature layers", "none", "at least one"));
        };
        let (images, grid, degrees) = (first.images, first.grid, first.degrees.clone());
        let plane = images * grid.patches();
        for (at, part) in parts.iter().enumerate() {
            let alike = (part.images, part.grid) == (images, grid) && part.degrees == degrees;
            if !alike || part.by_degree_layer.len() != degrees.len() * part.layers * plane {
                return Err(Error::invalid(
                    format!("scores of part {at}"),
                    format!("{} images of {}, r = {:?}", part.images, part.grid, part.degrees),
                    format!("{images} images of {grid}, r = {degrees:?}, and all their scores"),
                ));
            }
        }
        let mut by_degree_layer = Vec::new();
        for degree in 0..degrees.len() {
            for part in &parts {
                let scores = part.layers * plane;
                by_degree_layer
                    .extend_from_slice(&part.by_degree_layer[degree * scores..][..scores]);
            }
        }
        let layers = parts.iter().map(|part| part.layers).sum();
        Ok(PatchScores { images, grid, degrees, layers, by_degree_layer })
    }

    /// Patches an image, L.
    pub fn patches(&self) -> usize {
        self.grid.patches()
    }

    /// The patch scores `[N, L]`: the mean over the degrees of the mean over the layers.
    pub fn mean(&self) -> Vec<f32> {
        self.mean_f64().into_iter().map(|score| score as f32).collect()
    }

    /// As [`Self::mean`], not rounded to f32: the precision in which the authors' program goes on.
    pub fn mean_f64(&self) -> Vec<f64> {
        let plane = self.images * self.patches();
        let parts = (self.degrees.len() * self.layers) as f64;
        (0..plane)
            .map(|at| {
                let sum: f64 =
                    self.by_degree_layer.iter().skip(at).step_by(plane).map(|&s| s as f64).sum();
                sum / parts
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_one_after_another_are_all_at_once() {
        // Two degrees, three images of two patches: a score says its degree, its layer and its place.
        let part = |layers: &[usize]| PatchScores {
            images: 3,
            grid: Grid::new(1, 2),
            degrees: vec![1, 3],
            layers: layers.len(),
            by_degree_layer: [0, 1]
                .iter()
                .flat_map(|degree| layers.iter().map(move |layer| (degree, layer)))
                .flat_map(|(degree, layer)| {
                    (0..6).map(move |at| (degree * 100 + layer * 10 + at) as f32)
                })
                .collect(),
        };
        let joined = PatchScores::of_layers(vec![part(&[0]), part(&[1, 2]), part(&[3])]).unwrap();
        assert_eq!(joined, part(&[0, 1, 2, 3]));
        assert!(PatchScores::of_layers(Vec::new()).is_err());
        let mut other = part(&[1]);
        other.degrees = vec![1, 5];
        let said = PatchScores::of_layers(vec![part(&[0]), other]).unwrap_err().to_string();
        assert!(said.contains("part 1") && said.contains("[1, 5]"), "{said}");
        let mut short = part(&[1]);
        short.by_degree_layer.pop();
        assert!(PatchScores::of_layers(vec![part(&[0]), short]).is_err());
    }
}
