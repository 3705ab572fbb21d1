//! The method's definitions that every backend shares: LNAMD, MSM, RsCIN, maps.
//!
//! Owns the options, the result types and the plain f64 versions which tests compare with; knows nothing of
//! devices, files or data sets.

pub mod reference;
pub mod rscin;
pub mod upsample;

use crate::{Error, Result};

/// How images score each other (spec: LNAMD and MSM).
#[derive(Debug, Clone, PartialEq)]
pub struct MutualScoring {
    /// Aggregation degrees r, each odd; 1 is no pooling.
    pub degrees: Vec<usize>,
    /// The interval `[low, high)` of the sorted distances whose mean is a patch's score, as fractions of N − 1.
    pub interval: (f64, f64),
    /// The most bytes that the table of pairwise minima may take; `None` leaves it to the device. Where it would take
    /// more, the images are scored in groups, at the price of computing the pairs between groups twice.
    pub table_bytes: Option<usize>,
}

impl Default for MutualScoring {
    /// The authors' setting: r = 1, 3, 5, the lowest 30 %.
    fn default() -> Self {
        MutualScoring { degrees: vec![1, 3, 5], interval: (0.0, 0.3), table_bytes: None }
    }
}

impl MutualScoring {
    /// Checks the options against a number of images and a grid of patch tokens.
    ///
    /// # Errors
    /// Fewer than two images; no degree, an even one, or one whose window is wider than the grid on both
    /// sides; an interval that is empty or leaves 0..=1.
    pub fn check(&self, images: usize, grid: usize) -> Result<()> {
        if images < 2 {
            return Err(Error::invalid(
                "number of images",
                images,
                "at least 2: images are scored against each other",
            ));
        }
        if self.degrees.is_empty() {
            return Err(Error::invalid("aggregation degrees", "none", "at least one odd number"));
        }
        for &degree in &self.degrees {
            if degree % 2 == 0 || degree > 2 * grid.max(1) - 1 {
                return Err(Error::invalid(
                    "aggregation degree r",
                    degree,
                    format!("an odd number from 1 to {} (grid {grid}x{grid})", 2 * grid.max(1) - 1),
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

    /// The ranks `[first, last)` of the N − 1 sorted distances whose mean is the score; never empty.
    pub fn ranks(&self, images: usize) -> (usize, usize) {
        let others = images.saturating_sub(1);
        let (low, high) = self.interval;
        let first = ((others as f64 * low) as usize).min(others.saturating_sub(1));
        let last = ((others as f64 * high) as usize).clamp(first + 1, others.max(first + 1));
        (first, last)
    }

    /// Images scored together so that the table of minima, `[R, group, N, L]` f32, stays within `table_bytes`, or
    /// within what is usual on the device; at least one, at most all.
    pub fn group_images(&self, images: usize, patches: usize, usual_bytes: usize) -> usize {
        let bytes_an_image = self.degrees.len() * images * patches * size_of::<f32>();
        let bytes = self.table_bytes.unwrap_or(usual_bytes);
        (bytes / bytes_an_image.max(1)).clamp(1, images.max(1))
    }

    /// Pairs of images that are computed when the images are scored in groups of `group`: pairs within a group once,
    /// pairs across groups twice.
    pub fn pairs_in_groups(images: usize, group: usize) -> u64 {
        let mut pairs = 0;
        for start in (0..images).step_by(group.max(1)) {
            let size = group.min(images - start);
            pairs += size * (size - 1) / 2 + size * (images - size);
        }
        pairs as u64
    }
}

/// The outcome of mutual scoring.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchScores {
    /// Number of images N.
    pub images: usize,
    /// Patch tokens an image L.
    pub patches: usize,
    /// Aggregation degrees, R of them.
    pub degrees: Vec<usize>,
    /// Number of feature layers.
    pub layers: usize,
    /// `[R, layers, N, L]`: the score for each degree and layer, a distance between unit vectors (0..=2).
    pub by_degree_layer: Vec<f32>,
}

impl PatchScores {
    /// The patch scores `[N, L]`: the mean over the degrees of the mean over the layers.
    pub fn mean(&self) -> Vec<f32> {
        self.mean_f64().into_iter().map(|score| score as f32).collect()
    }

    /// As [`Self::mean`], not rounded to f32: the precision in which the authors' program goes on.
    pub fn mean_f64(&self) -> Vec<f64> {
        let plane = self.images * self.patches;
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
