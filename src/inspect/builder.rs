//! What an inspector can be asked for, and the checks before any work.

use std::path::PathBuf;
use std::sync::Mutex;

use super::backbone::{self, ActivationChoice, Asked, Weights};
use super::cache::Cache;
use super::{InputSize, Inspector, Rescoring, Subsets, Tiles};
use crate::backend::Backend;
use crate::backend::device::{AnyBackend, Device, DeviceOptions, Precision};
use crate::model::locate::DEFAULT_PRETRAINED;
use crate::scoring::MutualScoring;
use crate::scoring::rscin::Similarity;
use crate::{Error, ImageSize, Progress, Result};

/// Settings of an [`Inspector`]. Each has a default, but the backbone.
#[derive(Debug, Clone)]
pub struct InspectorBuilder {
    asked: Asked,
    device: Device,
    options: DeviceOptions,
    precision: Option<Precision>,
    batch_size: usize,
    cache: Option<(PathBuf, u64)>,
    pub(super) settings: Settings,
}

/// What the work itself needs to know.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub input: InputSize,
    pub tiles: Option<Tiles>,
    pub scoring: MutualScoring,
    pub rescoring: Option<Rescoring>,
    pub subsets: Subsets,
    pub seed: u64,
    pub paper: bool,
}

impl Default for InspectorBuilder {
    fn default() -> Self {
        InspectorBuilder {
            asked: Asked {
                name: None,
                pretrained: DEFAULT_PRETRAINED.into(),
                weights: Weights::Found,
                activation: ActivationChoice::Official,
                layers: None,
                paper: false,
            },
            device: Device::Auto,
            options: DeviceOptions::default(),
            precision: None,
            batch_size: 0,
            cache: None,
            settings: Settings {
                input: InputSize::Exactly(ImageSize::square(518)),
                tiles: None,
                scoring: MutualScoring::default(),
                rescoring: Some(Rescoring::default()),
                subsets: Subsets::Auto,
                seed: 0,
                paper: false,
            },
        }
    }
}

impl InspectorBuilder {
    /// With the backbone of this name, see [`BACKBONES`](crate::model::BACKBONES). Without weights its file is searched.
    pub fn backbone(mut self, name: impl Into<String>) -> Self {
        self.asked.name = Some(name.into());
        self
    }

    /// With these weights. Without a backbone's name they may be any of a family that is known.
    pub fn weights(mut self, weights: Weights) -> Self {
        self.asked.weights = weights;
        self
    }

    /// With weights trained on this set, where a backbone has several [default: openai].
    pub fn pretrained(mut self, set: impl Into<String>) -> Self {
        self.asked.pretrained = set.into();
        self
    }

    /// With this activation of the MLPs [default: official].
    pub fn activation(mut self, activation: ActivationChoice) -> Self {
        self.asked.activation = activation;
        self
    }

    /// With these feature layers, block indices from 0 [default: the last block of each quarter of the depth].
    pub fn layers(mut self, layers: impl Into<Vec<usize>>) -> Self {
        self.asked.layers = Some(layers.into());
        self
    }

    /// On this device [default: a card if there is one].
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// With so many CPU threads; 0 means one a core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = threads;
        self
    }

    /// With this number format of products; `None` leaves it to the device, and with [`paper`](Self::paper) the CPU to f32.
    pub fn precision(mut self, precision: impl Into<Option<Precision>>) -> Self {
        self.precision = precision.into();
        self
    }

    /// With at most so many bytes on each card.
    pub fn memory_limit(mut self, bytes: Option<u64>) -> Self {
        self.options.memory_limit = bytes;
        self
    }

    /// With so many images going through the backbone together; 0 leaves it to the device. It changes no number.
    pub fn batch_size(mut self, images: usize) -> Self {
        self.batch_size = images;
        self
    }

    /// With tokens kept in a folder, of at most so many bytes, and taken from there by whoever asks for the same images again;
    /// [`USUAL_CACHE_BYTES`](super::USUAL_CACHE_BYTES) is a good number [default: nothing is kept].
    pub fn cache(mut self, folder: impl Into<PathBuf>, bytes: u64) -> Self {
        self.cache = Some((folder.into(), bytes));
        self
    }

    /// With images resized to a square of this side, a multiple of the patch size [default: 518].
    pub fn size(self, side: usize) -> Self {
        self.input(InputSize::Exactly(ImageSize::square(side)))
    }

    /// With images resized like this.
    pub fn input(mut self, input: InputSize) -> Self {
        self.settings.input = input;
        self
    }

    /// With images cut into tiles, each of which goes through the backbone at the input's size; proportions that are kept
    /// are the tiles'. `None`, the default, cuts nothing. RsCIN compares the class tokens of whole images.
    pub fn tiles(mut self, tiles: impl Into<Option<Tiles>>) -> Self {
        self.settings.tiles = tiles.into();
        self
    }

    /// With these aggregation degrees, each odd [default: 1 3 5].
    pub fn degrees(mut self, degrees: impl Into<Vec<usize>>) -> Self {
        self.settings.scoring.degrees = degrees.into();
        self
    }

    /// With these options of mutual scoring.
    pub fn scoring(mut self, scoring: MutualScoring) -> Self {
        self.settings.scoring = scoring;
        self
    }

    /// With RsCIN done like this; `None` leaves the raw scores as they are [default: by cosine, with the batch's own k].
    pub fn rescoring(mut self, rescoring: Option<Rescoring>) -> Self {
        self.settings.rescoring = rescoring;
        self
    }

    /// With images scored against all others of their batch, or in subsets [default: subsets from 301 images on].
    pub fn subsets(mut self, subsets: Subsets) -> Self {
        self.settings.subsets = subsets;
        self
    }

    /// With subsets drawn by this seed [default: 0].
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// With every quirk of the authors' program, for their figures to the digit: RsCIN by dot product unless
    /// [`rescoring`](Self::rescoring) says otherwise afterwards, DINO's feature layers counted from the wrong end, 0 for a
    /// figure without meaning, maps in f64 for pixel figures, all images against all, and f32 on the CPU unless
    /// [`precision`](Self::precision) says otherwise.
    pub fn paper(mut self) -> Self {
        self.asked.paper = true;
        self.settings.paper = true;
        self.settings.subsets = Subsets::All;
        self.rescoring(Some(Rescoring::default().with_similarity(Similarity::Dot)))
    }

    /// Opens the device, reads the weights and checks that all of it fits together.
    ///
    /// # Errors
    /// [`Error::Device`] for a device that is not there; [`Error::NoWeights`], [`Error::Weights`] and [`Error::Io`] for
    /// weights; [`Error::Invalid`] for a setting outside its range, by name.
    pub fn build(self) -> Result<Inspector> {
        self.build_with(&())
    }

    /// As [`build`](Self::build), watched while a card's kernels are loaded.
    ///
    /// # Errors
    /// As there, or [`Error::Interrupted`].
    pub fn build_with(self, progress: &dyn Progress) -> Result<Inspector> {
        let InspectorBuilder { asked, device, options, precision, batch_size, cache, settings } =
            self;
        settings.check()?;
        let cache = cache.map(|(folder, bytes)| Cache::open(&folder, bytes)).transpose()?;
        let options = options
            .with_precision(precision.unwrap_or_default())
            .with_exact(settings.paper && precision.is_none());
        let (backend, device_note) = device.open_with(options, progress)?;
        let backbone = backbone::load(&asked)?;
        let pool = match &backend {
            AnyBackend::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(_) => {
                Some(rayon::ThreadPoolBuilder::new().num_threads(options.threads).build().map_err(
                    |error| Error::Device { device: "cpu".into(), reason: error.to_string() },
                )?)
            }
        };
        let inspector = Inspector {
            description: backend.description(),
            backend,
            device_note,
            backbone,
            batch_size,
            settings,
            cache,
            pool,
            model: Mutex::new(None),
        };
        if let InputSize::Exactly(input) = inspector.settings.input {
            inspector.model(input)?;
        }
        Ok(inspector)
    }
}

impl Settings {
    /// What can be checked before anything is opened.
    fn check(&self) -> Result<()> {
        if let Some(tiles) = &self.tiles {
            tiles.check(self.input)?;
        }
        if let Subsets::References(references) = self.subsets
            && references < 2
        {
            return Err(Error::invalid("references", references, "at least 2, or all"));
        }
        if self.subsets == Subsets::Divide(0) {
            return Err(Error::invalid("divide_num", 0, "1 or more"));
        }
        if let Some(Rescoring { k: Some(k), .. }) = &self.rescoring
            && (k.is_empty() || k.contains(&0))
        {
            let expected = "whole numbers from 1; 1 is the image itself";
            return Err(Error::invalid("RsCIN k", "0", expected));
        }
        // Against the largest grid there could be; the true one is checked with the batch.
        self.scoring.check(1, crate::Grid::square(1 << 16))
    }
}
