//! The whole job: images in, scores and anomaly maps out.
//!
//! ```no_run
//! use musc::inspect::{Batch, Inspector};
//!
//! let inspector = Inspector::builder().backbone("dinov2_vits14").size(448).build()?;
//! let inspection = inspector.inspect(&Batch::folder("photos")?, &())?;
//! for (sample, score) in inspection.samples().iter().zip(inspection.scores()) {
//!     println!("{score:.3} {}", sample.path.display());
//! }
//! # Ok::<(), musc::Error>(())
//! ```
//!
//! An [`Inspector`] owns a device, a backbone on it and one pool of CPU threads; it prints nothing and reads no arguments.
//! A [`Batch`] goes in, an [`Inspection`] comes out; [`Progress`] watches and stops.
//!
//! # Memory
//! With n the images of a subset (of the whole batch, where there is one), h·w the input in pixels, L patches, C the token
//! width, E the class token's width, l feature layers, b bytes a token value (CPU 4, card 2):
//!
//! | what | bytes | until |
//! |---|---|---|
//! | pixels | n·h·w·3; of files on the CPU one image's a thread | the subset's features are made |
//! | tokens | l·n·L·C·b | the subset is scored |
//! | the backend's own | see [`backend::cpu`](crate::backend::cpu) and [`backend::cuda`](crate::backend::cuda) | |
//! | patch scores, of all N images | N·L·4 (12 with the authors' quirks, and while a subset's are joined) | the inspection is dropped |
//! | marks of patches left out, of all N images, if there are any | N·L | the inspection is dropped |
//! | class tokens, of all N images | N·E·4 | the inspection is dropped |
//! | masks and maps, of all images with masks | N·h·w·5 (9; 6 to 16 where patches are left out) | the figures are made |
//!
//! With R·C tiles h·w and L are a tile's, for tokens one position at a time ([`TileMatch::Same`]; with
//! [`TileMatch::Any`] all R·C), for patch scores and marks all R·C; h·w of masks and maps is [`Inspection::map_size`].
//!
//! So with subsets nothing but scores and class tokens grows with N; [`Inspector::expected_bytes`] is this table as a
//! function.

mod backbone;
mod bank;
mod batch;
mod blocks;
mod builder;
mod cache;
mod decide;
mod figures;
mod inspection;
mod laps;
mod likeness;
mod maps;
mod page;
mod parts;
mod pictures;
mod predictor;
mod references;
mod regions;
mod tiles;
mod work;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;

pub use self::backbone::{ActivationChoice, LoadedBackbone, Weights};
pub use self::bank::{Bank, BankSettings, Thumbnails};
pub use self::batch::Batch;
pub use self::blocks::Block;
pub use self::builder::InspectorBuilder;
use self::builder::Settings;
use self::cache::Cache;
pub use self::cache::{CacheCounts, USUAL_CACHE_BYTES};
pub use self::inspection::{Inspection, Note};
pub use self::parts::{Part, PartStore, StoreTerms};
pub use self::pictures::{PictureFiles, SHEET_IMAGES};
pub use self::predictor::Predictor;
pub use self::references::ReferenceSet;
pub use self::regions::Regions;
pub use self::tiles::{TileMatch, Tiles, USUAL_OVERLAP};
pub use self::work::Plan;
use crate::backend::device::{AnyBackend, AnyModel, Formats};
use crate::backend::{Backend, Extraction, FeatureSet, HostFeatures, Pixels};
use crate::image::{Fit, Resize};
use crate::metrics::ClassMetrics;
use crate::scoring::MutualScoring;
use crate::scoring::rscin::Similarity;
use crate::{ImageSize, Progress, Result};

/// The size at which images go through the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputSize {
    /// Both sides are resized to this, each on its own.
    Exactly(ImageSize),
    /// The batch's proportions are kept: the longer side gets `longest` pixels, the other the nearest multiple of the patch
    /// size. Images of another proportion than most are an error, unless `pad` puts them on a larger canvas whose empty part
    /// is left out of the scoring.
    KeepAspect {
        /// The longer side in pixels, a multiple of the patch size.
        longest: usize,
        /// Whether images of another proportion are letterboxed.
        pad: bool,
    },
}

/// Whom each image of a batch is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Subsets {
    /// With all others up to [`MANY`] images; above that in subsets of about [`USUAL_REFERENCES`] + 1.
    #[default]
    Auto,
    /// With all others.
    All,
    /// With about so many others: the batch is dealt into subsets, by a hash of each image's name.
    References(usize),
    /// In so many subsets, dealt out as the authors' program does (`divide_num`).
    Divide(usize),
}

/// The most images that are scored all against all where nobody says how.
pub const MANY: usize = 300;
/// The references of an image in a larger batch where nobody says how many.
pub const USUAL_REFERENCES: usize = 200;

/// How images are re-scored (RsCIN).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rescoring {
    /// The neighbourhood sizes, the image itself counted; `None` takes the batch's own.
    pub k: Option<Vec<usize>>,
    /// How class tokens are compared.
    pub similarity: Similarity,
}

impl Default for Rescoring {
    /// The batch's own k, by cosine.
    fn default() -> Self {
        Rescoring { k: None, similarity: Similarity::Cosine }
    }
}

impl Rescoring {
    /// With these neighbourhood sizes; `None` takes the batch's own.
    pub fn with_k(mut self, k: Option<Vec<usize>>) -> Self {
        self.k = k;
        self
    }

    /// With class tokens compared like this.
    pub fn with_similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
        self
    }
}

/// A device with a backbone on it, ready to inspect batches. `Send` and `Sync`; one batch at a time is worked on at full
/// speed.
#[derive(Debug)]
pub struct Inspector {
    backend: AnyBackend,
    description: String,
    device_note: Option<String>,
    backbone: LoadedBackbone,
    batch_size: usize,
    settings: Settings,
    cache: Option<Cache>,
    /// Threads for the work around the device; the CPU backend's own are used where that is the device.
    pool: Option<ThreadPool>,
    /// The backbone on the device, for the input size it was needed at last.
    model: Mutex<Option<(ImageSize, Arc<AnyModel>)>>,
}

impl Inspector {
    /// Settings to choose from.
    pub fn builder() -> InspectorBuilder {
        InspectorBuilder::default()
    }

    /// One line for people: the device and what it uses.
    pub fn device(&self) -> &str {
        &self.description
    }

    /// The number formats that the device multiplies in, and with what.
    pub fn formats(&self) -> Formats {
        self.backend.formats()
    }

    /// Why the device is another than the one that was named, or which one it became.
    pub fn device_note(&self) -> Option<&str> {
        self.device_note.as_deref()
    }

    /// The backbone.
    pub fn backbone(&self) -> &LoadedBackbone {
        &self.backbone
    }

    /// The options of mutual scoring.
    pub fn mutual_scoring(&self) -> &MutualScoring {
        &self.settings.scoring
    }

    /// How images are cut into tiles, if they are.
    pub fn tiles(&self) -> Option<Tiles> {
        self.settings.tiles
    }

    /// How images are resized.
    pub fn input(&self) -> InputSize {
        self.settings.input
    }

    /// Images that go through the backbone together, where that was asked for.
    pub fn asked_batch_size(&self) -> Option<usize> {
        (self.batch_size > 0).then_some(self.batch_size)
    }

    /// Opens every file of some batches to its last pixel only to see that it can be read, with their masks, and tells of
    /// all bad ones at once: for work on several batches, whose pixels are not all kept.
    ///
    /// # Errors
    /// [`Error::BadImages`](crate::Error::BadImages) with every file that cannot be read and is not to be skipped; a mask
    /// that does not fit its image; an interruption.
    pub fn check(&self, batches: &[Batch], progress: &dyn Progress) -> Result<()> {
        if let Some(tiles) = self.settings.tiles {
            for batch in batches {
                tiles::input_of(self, batch, tiles.cut)?;
            }
        }
        self.on_pool(|| work::check(batches, progress))
    }

    /// Scores the images of a batch against each other.
    ///
    /// # Errors
    /// Fewer than two images; a file that cannot be read; a setting that does not fit the images; an interruption; or the
    /// device's own.
    pub fn inspect(&self, batch: &Batch, progress: &dyn Progress) -> Result<Inspection> {
        work::inspect(self, batch, progress)
    }

    /// Figures of an inspection against the labels and masks of its batch; `None` where no label is known.
    ///
    /// # Errors
    /// A mask that cannot be read or does not fit its image; an interruption.
    pub fn figures(
        &self,
        batch: &Batch,
        inspection: &mut Inspection,
        progress: &dyn Progress,
    ) -> Result<Option<ClassMetrics>> {
        let laps = laps::Laps::new(progress);
        let paper = self.settings.paper;
        let found = self.on_pool(|| figures::figures(batch, inspection, paper, &laps))?;
        inspection.seconds.extend(laps.seconds());
        Ok(found.map(|(metrics, note)| {
            inspection.notes.extend(note);
            metrics
        }))
    }

    /// The features of a batch alone, on the host, and the files that were skipped with why.
    ///
    /// # Errors
    /// A file that cannot be read; a setting that does not fit the images; an interruption; or the device's own.
    pub fn features(
        &self,
        batch: &Batch,
        progress: &dyn Progress,
    ) -> Result<(HostFeatures, Vec<(PathBuf, String)>)> {
        tiles::refuse(self, "features")?;
        let input = work::input_of(self, batch)?;
        let places: Vec<usize> = (0..batch.len()).collect();
        let (loaded, features) = work::features_of(self, batch, &places, input, progress)?;
        Ok((features.to_host()?, loaded.bad))
    }

    /// The features of pixels `[N, 3, height, width]` that are normalised already.
    ///
    /// # Errors
    /// A number of values that does not fit; an interruption; or the device's own.
    pub fn features_of_pixels(
        &self,
        pixels: &[f32],
        size: ImageSize,
        progress: &dyn Progress,
    ) -> Result<HostFeatures> {
        let model = self.model(size)?;
        self.backend.extract(&model, Pixels::Normalised(pixels), progress)?.to_host()
    }

    /// How an inspection's images were resized: to make their pictures again. With tiles, to the size of the joined map.
    pub fn resize(&self, inspection: &Inspection) -> Resize {
        self.resize_to(inspection.map_size())
    }

    /// The bytes that inspecting so many images takes at its peak by the table of this module, beside the weights and what
    /// the backend takes for itself.
    pub fn expected_bytes(&self, images: usize, input: ImageSize) -> u64 {
        work::expected_bytes(self, images, input)
    }

    fn resize_to(&self, input: ImageSize) -> Resize {
        let fit = match self.settings.input {
            InputSize::KeepAspect { pad: true, .. } => Fit::Pad,
            _ => Fit::Stretch,
        };
        Resize::new(input, self.backbone.filter()).with_fit(fit)
    }

    /// The backbone on the device, for this input size.
    fn model(&self, input: ImageSize) -> Result<Arc<AnyModel>> {
        let mut held = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, model)) = held.as_ref()
            && *size == input
        {
            return Ok(Arc::clone(model));
        }
        // The one for another size goes first: two would take twice the memory.
        *held = None;
        let extraction = self.extraction(input);
        let model = Arc::new(self.backend.load(&self.backbone.vit, &extraction)?);
        *held = Some((input, Arc::clone(&model)));
        Ok(model)
    }

    /// What the device is told to extract.
    pub fn extraction(&self, input: ImageSize) -> Extraction {
        let architecture = self.backbone.architecture();
        Extraction::new(
            self.backbone.blocks.clone(),
            input,
            self.backbone.activation(input),
            architecture.family.normalisation(),
        )
        .with_batch_size(self.batch_size)
    }

    /// Does parallel work on the one pool of threads.
    fn on_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match (&self.backend, &self.pool) {
            (AnyBackend::Cpu(cpu), _) => cpu.install(work),
            #[cfg(feature = "cuda")]
            (_, Some(pool)) => pool.install(work),
            #[cfg(feature = "cuda")]
            (_, None) => work(),
        }
    }
}
