//! Where the heavy work runs: one trait, one folder a device.
//!
//! A backend is two operations plus the memory they need: [`Backend::extract`] turns pixels into patch
//! tokens and class tokens, which stay on the device, and [`Backend::mutual_scores`] turns those into one
//! score a patch. Everything before and after is shared; nothing else in the crate branches on the device.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod input;

use crate::image::{Normalisation, PixelSource, RgbImage};
use crate::model::{Activation, Vit};
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Result};

/// What to extract from a backbone, and at which size.
#[derive(Debug, Clone, PartialEq)]
pub struct Extraction {
    /// Feature layers: block indices, 0-based, in the order in which they are wanted.
    pub layers: Vec<usize>,
    /// Side S of the square input in pixels, a multiple of the patch size.
    pub image_size: usize,
    /// The activation of the MLPs.
    pub activation: Activation,
    /// Mean and standard deviation for [`Pixels::Rgb`].
    pub normalisation: Normalisation,
    /// Images that go through the backbone together; 0 leaves it to the device. It bounds the working memory, and changes
    /// no number.
    pub batch_size: usize,
}

/// The backbone's input.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// Images already resized to S×S, 8 bit.
    Rgb(&'a [RgbImage]),
    /// `[N, 3, S, S]`, already normalised.
    Normalised(&'a [f32]),
    /// Images that are still being read, S×S and 8 bit.
    Source(&'a dyn PixelSource),
}

/// Watches a long operation: counts its steps and may stop it.
pub trait Monitor: Sync {
    /// `steps` more of the operation's steps are done (images for an extraction, image pairs for scoring).
    fn advance(&self, steps: u64);
    /// True when the operation should end with [`Error::Interrupted`].
    fn stopped(&self) -> bool;
}

/// The monitor that does not watch.
impl Monitor for () {
    fn advance(&self, _steps: u64) {}
    fn stopped(&self) -> bool {
        false
    }
}

/// Patch tokens and class tokens of N images, wherever the backend keeps them.
pub trait FeatureSet {
    /// Number of images N.
    fn images(&self) -> usize;
    /// Patch tokens an image L, a square number.
    fn patches(&self) -> usize;
    /// Width C of a token.
    fn width(&self) -> usize;
    /// The feature layers' block indices.
    fn layers(&self) -> &[usize];
    /// Width E of a class token; 0 when there are none.
    fn class_width(&self) -> usize;
    /// The class tokens `[N, E]`, copied to the host.
    ///
    /// # Errors
    /// The device's, when the copy fails.
    fn class_tokens(&self) -> Result<Vec<f32>>;
    /// The patch tokens `[N, L, C]` of the `index`-th feature layer, copied to the host.
    ///
    /// # Errors
    /// An index past the last layer, or the device's error when the copy fails.
    fn patch_tokens(&self, index: usize) -> Result<Vec<f32>>;
}

/// Features on the host, the form in which they enter a backend from outside and leave it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFeatures {
    /// Number of images N.
    pub images: usize,
    /// Patch tokens an image L.
    pub patches: usize,
    /// Width C.
    pub width: usize,
    /// Block indices of the feature layers.
    pub layers: Vec<usize>,
    /// One `[N, L, C]` a layer.
    pub tokens: Vec<Vec<f32>>,
    /// Width E of a class token.
    pub class_width: usize,
    /// `[N, E]`.
    pub class_tokens: Vec<f32>,
}

/// A device that can run the method.
pub trait Backend {
    /// A backbone's weights, ready on the device.
    type Model;
    /// Tokens on the device.
    type Features: FeatureSet;

    /// Whether files may be read and resized on the processor while this device works: then images are best given as
    /// [`Pixels::Source`].
    fn leaves_processor_free(&self) -> bool {
        false
    }

    /// One line for people and for `run.json`: the device and what it uses.
    fn description(&self) -> String;

    /// Prepares a backbone's weights for one extraction setting.
    ///
    /// # Errors
    /// A layer past the last block, a size that is no multiple of the patch size, or the device's own.
    fn load(&self, vit: &Vit, extraction: &Extraction) -> Result<Self::Model>;

    /// Pixels of N images to the tokens of the feature layers and the class tokens. Advances `monitor` by one
    /// an image.
    ///
    /// # Errors
    /// Pixels of another size than the model was prepared for, an interruption, or the device's own.
    fn extract(
        &self,
        model: &Self::Model,
        pixels: Pixels<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Self::Features>;

    /// Takes features from the host.
    ///
    /// # Errors
    /// Sizes that do not fit together, values that are not finite, or the device's own.
    fn upload(&self, features: HostFeatures) -> Result<Self::Features>;

    /// Mutual scoring of all images against each other: LNAMD for each aggregation degree, then MSM.
    /// Advances `monitor` by one a pair of images and feature layer.
    ///
    /// # Errors
    /// Fewer than two images, an even degree, an interval that is empty or outside 0..=1, an interruption, or
    /// the device's own.
    fn mutual_scores(
        &self,
        features: &Self::Features,
        scoring: &MutualScoring,
        monitor: &dyn Monitor,
    ) -> Result<PatchScores>;

    /// The steps by which [`mutual_scores`](Self::mutual_scores) will advance its monitor on these features.
    ///
    /// # Errors
    /// Options that it would refuse, or too little memory for it.
    fn scoring_steps(&self, features: &Self::Features, scoring: &MutualScoring) -> Result<u64>;
}

impl HostFeatures {
    /// The grid's side H, with L = H·H.
    ///
    /// # Errors
    /// Sizes that do not fit together, a number of patch tokens that is no square, or values that are not finite.
    pub fn check(&self) -> Result<usize> {
        let grid = self.patches.isqrt();
        if grid == 0 || grid * grid != self.patches {
            return Err(Error::invalid(
                "patch tokens an image",
                self.patches,
                "a square number: the grid is H x H",
            ));
        }
        if self.tokens.is_empty() || self.tokens.len() != self.layers.len() {
            return Err(Error::invalid(
                "feature layers",
                self.tokens.len(),
                format!("{} (one a named layer, at least one)", self.layers.len()),
            ));
        }
        let expected = self.images * self.patches * self.width;
        for (layer, tokens) in self.layers.iter().zip(&self.tokens) {
            check_values(&format!("patch tokens of layer {layer}"), tokens, expected)?;
        }
        check_values("class tokens", &self.class_tokens, self.images * self.class_width)?;
        Ok(grid)
    }
}

fn check_values(what: &str, values: &[f32], expected: usize) -> Result<()> {
    if values.len() != expected {
        return Err(Error::invalid(what, format!("{} values", values.len()), expected.to_string()));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            Err(Error::invalid(what, format!("{} at position {at}", values[at]), "finite numbers"))
        }
        None => Ok(()),
    }
}
