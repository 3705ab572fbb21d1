//! Where the heavy work runs: one trait, one folder a device.
//!
//! A backend is two operations plus the memory they need: [`Backend::extract`] turns pixels into patch
//! tokens and class tokens, which stay on the device, and [`Backend::patch_scores`] compares those with their
//! [`References`] and gives one score a patch. Everything before and after is shared; nothing else in the crate
//! branches on the device.

pub mod blocks;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod device;
pub(crate) mod features;
mod features_file;
mod input;
mod patch_embed;
mod precision;

pub use features::{FeatureSet, HostFeatures, References};
pub use features_file::read_features;
#[cfg(feature = "files")]
pub use features_file::write_features;

use self::blocks::{BestCosines, Pairs, QueryTable};
use crate::image::{Normalisation, PixelSource, RgbImage};
use crate::model::{Activation, Vit};
use crate::progress::Progress;
use crate::scoring::{MutualScoring, PatchScores};
use crate::{ImageSize, Result};

/// What to extract from a backbone, and at which size.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Extraction {
    /// Feature layers: block indices, 0-based, in the order in which they are wanted.
    pub layers: Vec<usize>,
    /// Height and width of the input in pixels, multiples of the patch size.
    pub input: ImageSize,
    /// The activation of the MLPs.
    pub activation: Activation,
    /// Mean and standard deviation for [`Pixels::Rgb`].
    pub normalisation: Normalisation,
    /// Images that go through the backbone together; 0 leaves it to the device. It bounds the working memory, and changes
    /// no number.
    pub batch_size: usize,
}

impl Extraction {
    /// These layers of a backbone at this input size; the batch is left to the device.
    pub fn new(
        layers: Vec<usize>,
        input: ImageSize,
        activation: Activation,
        normalisation: Normalisation,
    ) -> Self {
        Extraction { layers, input, activation, normalisation, batch_size: 0 }
    }

    /// With so many images going through the backbone together; 0 leaves it to the device.
    pub fn with_batch_size(mut self, images: usize) -> Self {
        self.batch_size = images;
        self
    }
}

/// The backbone's input.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Pixels<'a> {
    /// Images already resized to the input size, 8 bit.
    Rgb(&'a [RgbImage]),
    /// `[N, 3, height, width]`, already normalised.
    Normalised(&'a [f32]),
    /// Images that are still to be read, of the input size and 8 bit.
    Source(&'a dyn PixelSource),
}

/// A device that can run the method.
pub trait Backend {
    /// A backbone's weights, ready on the device.
    type Model;
    /// Tokens on the device.
    type Features: FeatureSet;
    /// References on the device with what every comparison makes of them made once.
    type Ready: std::fmt::Debug;

    /// Whether files may be read and resized on the processor while this device works: then images are best given as a
    /// [`Pixels::Source`] that other threads fill. A device that is the processor asks a source for images from all of its
    /// threads, so that each may read its own.
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

    /// Pixels of N images to the tokens of the feature layers and the class tokens: the stage
    /// [`Features`](crate::Stage::Features), a step an image.
    ///
    /// # Errors
    /// Pixels of another size than the model was prepared for, an interruption, or the device's own.
    fn extract(
        &self,
        model: &Self::Model,
        pixels: Pixels<'_>,
        progress: &dyn Progress,
    ) -> Result<Self::Features>;

    /// Takes features from the host.
    ///
    /// # Errors
    /// Sizes that do not fit together, values that are not finite, or the device's own.
    fn upload(&self, features: HostFeatures) -> Result<Self::Features>;

    /// Marks patches that are no part of their image, `[N, L]`, see [`HostFeatures::left_out`].
    ///
    /// # Errors
    /// Another number of marks, an image of which nothing would be left, or the device's own.
    fn leave_out(&self, features: &mut Self::Features, left_out: Vec<bool>) -> Result<()>;

    /// One score a patch of the queries, for each aggregation degree and feature layer: LNAMD, then MSM against the
    /// references. The stage [`Scoring`](crate::Stage::Scoring), a step a pair of images and feature layer.
    ///
    /// # Errors
    /// Options that [`MutualScoring::check`] refuses; queries and references of different grids, widths or layers; no
    /// reference, or none but the query itself; an interruption; or the device's own.
    fn patch_scores(
        &self,
        queries: &Self::Features,
        references: References<'_, Self::Features>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<PatchScores>;

    /// References that queries will be compared with again and again by this scoring ([`Self::compare`]).
    ///
    /// # Errors
    /// Sizes that do not fit together, values that are not finite, or the device's own.
    fn make_ready(
        &self,
        references: Self::Features,
        scoring: &MutualScoring,
    ) -> Result<Self::Ready>;

    /// Puts an image of a set in the place of a reference.
    ///
    /// # Errors
    /// A place past the last, another grid, width or layers, or the device's own.
    fn replace(
        &self,
        references: &mut Self::Ready,
        at: usize,
        features: &Self::Features,
        image: usize,
    ) -> Result<()>;

    /// [`Self::patch_scores`] against references that were made ready: the same bits.
    ///
    /// # Errors
    /// As [`Self::patch_scores`].
    fn compare(
        &self,
        queries: &Self::Features,
        references: &Self::Ready,
        progress: &dyn Progress,
    ) -> Result<PatchScores>;

    /// The largest cosines of the patches of two runs of images of one set in one feature layer, for each aggregation degree of
    /// `scoring`; its radius is not looked at. A step a pair of images is told; the stage is the caller's.
    ///
    /// # Errors
    /// Runs that do not fit their features or each other; an interruption; or the device's own.
    fn best_cosines(
        &self,
        pairs: &Pairs<'_, Self::Features>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<BestCosines>;

    /// The scores `[R, n, L]` of queries of which the cosines with all images of their set are known: the bits that
    /// [`Self::patch_scores`] with [`References::Others`] gives them in that layer.
    ///
    /// # Errors
    /// Sizes that do not fit together, or the device's own.
    fn scores_of_table(&self, table: &QueryTable<'_>, scoring: &MutualScoring) -> Result<Vec<f32>>;
}
