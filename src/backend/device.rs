//! Which device does the work: asked for by name, opened, and used without a type parameter.
//!
//! [`AnyBackend`] is one of the backends behind an enum: one match a stage, the code inside stays generic.

use std::fmt;
use std::str::FromStr;

use super::blocks::{BestCosines, Pairs, QueryTable};
use super::cpu::{self, Cpu, CpuOptions, Format};
#[cfg(feature = "cuda")]
use super::cuda::{self, Cuda, CudaOptions};
pub use super::precision::{Formats, Precision};
use super::{Backend, Extraction, FeatureSet, HostFeatures, Pixels, References};
use crate::model::Vit;
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Grid, Progress, Result};

/// A device as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// A card if there is one that can be used, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// These cards and no other device; without numbers, the first.
    Cuda(Vec<usize>),
    /// The simulated card.
    Sim,
    /// The authors' way: the card of this number if there is one, else the processor.
    Prefer(usize),
}

/// As it is read: `auto`, `cpu`, `cuda`, `cuda:0,1`, `sim`, or a card's number.
impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => out.write_str("auto"),
            Device::Cpu => out.write_str("cpu"),
            Device::Sim => out.write_str("sim"),
            Device::Prefer(card) => write!(out, "{card}"),
            Device::Cuda(cards) => {
                out.write_str("cuda")?;
                for (at, card) in cards.iter().enumerate() {
                    write!(out, "{}{card}", if at == 0 { ":" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(
                "device",
                format!("`{text}`"),
                "cpu, auto, cuda, cuda:0, cuda:0,1, sim or a card's number",
            )
        };
        match text {
            "cpu" => Ok(Device::Cpu),
            "auto" => Ok(Device::Auto),
            "cuda" => Ok(Device::Cuda(Vec::new())),
            "sim" => Ok(Device::Sim),
            _ => match text.strip_prefix("cuda:") {
                Some(cards) => cards
                    .split(',')
                    .map(|card| card.parse().map_err(|_| wrong()))
                    .collect::<Result<_>>()
                    .map(Device::Cuda),
                None => text.parse().map(Device::Prefer).map_err(|_| wrong()),
            },
        }
    }
}

/// How a device is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeviceOptions {
    /// CPU threads; 0 means one a core.
    pub threads: usize,
    /// Number format of products.
    pub precision: Precision,
    /// With [`Precision::Auto`], f32 wherever the device has it: on the CPU.
    pub exact: bool,
    /// The most bytes to take on each card; `None` leaves it to what is free.
    pub memory_limit: Option<u64>,
}

impl DeviceOptions {
    /// With so many CPU threads; 0 means one a core.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// With this number format of products.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// With [`Precision::Auto`] as f32 wherever the device has it.
    pub fn with_exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// With at most so many bytes on each card.
    pub fn with_memory_limit(mut self, bytes: Option<u64>) -> Self {
        self.memory_limit = bytes;
        self
    }
}

impl Device {
    /// Opens the device, and says in a sentence what it became where that is not what was named. Only
    /// [`Auto`](Self::Auto) and [`Prefer`](Self::Prefer) ever come to another device than they name, and they say so.
    ///
    /// # Errors
    /// [`Error::Device`] when a device that must be there is not, or this build has no part for it, or the processor lacks
    /// instructions for the number format; [`Error::Invalid`] for a number format that no such device has.
    pub fn open(&self, options: DeviceOptions) -> Result<(AnyBackend, Option<String>)> {
        self.open_with(options, &())
    }

    /// As [`open`](Self::open), watched: a card's kernels are loaded, which is the stage
    /// [`Kernels`](crate::Stage::Kernels).
    ///
    /// # Errors
    /// As there, or [`Error::Interrupted`].
    pub fn open_with(
        &self,
        options: DeviceOptions,
        progress: &dyn Progress,
    ) -> Result<(AnyBackend, Option<String>)> {
        let processor = || processor(options).map(AnyBackend::Cpu);
        // Where neither does, both say why.
        let instead = |reason: &Error| {
            processor().map_err(|error| Error::Device {
                device: self.to_string(),
                reason: format!("no card, since {reason}; and not the CPU, since {error}"),
            })
        };
        let cards = |numbers: &[usize]| cards(numbers, options, progress);
        let (backend, became) = match self {
            Device::Cpu => (processor()?, None),
            Device::Auto => match cards(&[0]) {
                Ok(backend) => (backend, Some(String::from("device: cuda:0"))),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(reason) => (instead(&reason)?, Some(format!("device: cpu, since {reason}"))),
            },
            Device::Prefer(card) => match cards(&[*card]) {
                Ok(backend) => (backend, None),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(reason) => (
                    instead(&reason)?,
                    Some(format!("device {card}: the run is on the CPU, since {reason}")),
                ),
            },
            Device::Cuda(numbers) => (cards(numbers)?, None),
            Device::Sim => (simulated(options)?, None),
        };
        let told: Vec<String> = became.into_iter().chain(backend.kernel_notes()).collect();
        Ok((backend, (!told.is_empty()).then(|| told.join("; "))))
    }
}

fn processor(options: DeviceOptions) -> Result<Cpu> {
    let of = CpuOptions::default().with_threads(options.threads);
    match options.precision {
        Precision::Auto if !options.exact => Cpu::open_fastest(of),
        Precision::Auto | Precision::F32 => Cpu::open(of),
        Precision::Bf16 => Cpu::open(of.with_formats(Format::Bf16, Format::Bf16)),
        Precision::F16 => {
            let expected = "f32, bf16 or auto on the CPU, which has no products in f16";
            Err(Error::invalid("precision", options.precision, expected))
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda_options(options: DeviceOptions) -> Result<CudaOptions> {
    let half = match options.precision {
        Precision::Auto | Precision::F16 => cuda::Half::F16,
        Precision::Bf16 => cuda::Half::Bf16,
        Precision::F32 => {
            let expected = "f16, bf16 or auto on a card, whose products are 16-bit";
            return Err(Error::invalid("precision", options.precision, expected));
        }
    };
    Ok(CudaOptions::default().with_half(half).with_memory_limit(options.memory_limit))
}

#[cfg(feature = "cuda")]
fn cards(numbers: &[usize], options: DeviceOptions, progress: &dyn Progress) -> Result<AnyBackend> {
    Cuda::open_with(numbers, cuda_options(options)?, progress).map(AnyBackend::Cuda)
}

#[cfg(not(feature = "cuda"))]
fn cards(_: &[usize], _: DeviceOptions, _: &dyn Progress) -> Result<AnyBackend> {
    Err(not_built("cuda"))
}

#[cfg(feature = "sim")]
fn simulated(options: DeviceOptions) -> Result<AnyBackend> {
    Cuda::sim(cuda_options(options)?).map(AnyBackend::Cuda)
}

#[cfg(not(feature = "sim"))]
fn simulated(_: DeviceOptions) -> Result<AnyBackend> {
    Err(not_built("sim"))
}

#[cfg(not(feature = "sim"))]
fn not_built(feature: &str) -> Error {
    Error::Device {
        device: feature.into(),
        reason: format!("this build of musc is without its feature `{feature}`"),
    }
}

/// One of the backends.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyBackend {
    /// The processor.
    Cpu(Cpu),
    /// Cards, or the simulator.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

impl AnyBackend {
    /// The number formats that it multiplies in, and with what.
    pub fn formats(&self) -> Formats {
        match self {
            AnyBackend::Cpu(cpu) => Formats {
                features: cpu.features_format().name(),
                scoring: cpu.scoring_format().name(),
                instructions: Some(cpu.instructions()),
            },
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => {
                let half = cuda.half().name();
                Formats { features: half, scoring: half, instructions: None }
            }
        }
    }

    /// What there is to say of how the kernels were loaded: that a driver compiled them for a noticeable time, or spills.
    fn kernel_notes(&self) -> Vec<String> {
        match self {
            AnyBackend::Cpu(_) => Vec::new(),
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => cuda.kernel_notes(),
        }
    }
}

/// A backbone on one of the backends.
#[derive(Debug)]
pub enum AnyModel {
    /// On the processor.
    Cpu(Box<cpu::Model>),
    /// On cards.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Model),
}

/// Features on one of the backends.
#[derive(Debug)]
pub enum AnyFeatures {
    /// In the host's memory.
    Cpu(HostFeatures),
    /// On a card, or page-locked beside several.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Features),
}

/// References on one of the backends, made ready.
#[derive(Debug)]
pub enum AnyReady {
    /// In the host's memory.
    Cpu(Box<cpu::Ready>),
    /// On a card, or page-locked beside several.
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::Ready>),
}

/// What a device is given belongs to another one. A caller with one backend never meets it.
fn elsewhere<T>(what: &str) -> Result<T> {
    Err(Error::invalid(what, "one that was made on another device", "one of this device"))
}

macro_rules! on_features {
    ($features:expr, $each:ident => $done:expr) => {
        match $features {
            AnyFeatures::Cpu($each) => $done,
            #[cfg(feature = "cuda")]
            AnyFeatures::Cuda($each) => $done,
        }
    };
}

#[cfg(feature = "files")]
impl AnyFeatures {
    /// Says anew which images are the same one, `[N]`: for tiles, which count as their image.
    pub(crate) fn set_content(&mut self, content: Vec<u64>) {
        on_features!(self, each => each.set_content(content))
    }
}

impl FeatureSet for AnyFeatures {
    fn images(&self) -> usize {
        on_features!(self, each => each.images())
    }
    fn grid(&self) -> Grid {
        on_features!(self, each => each.grid())
    }
    fn width(&self) -> usize {
        on_features!(self, each => each.width())
    }
    fn layers(&self) -> &[usize] {
        on_features!(self, each => each.layers())
    }
    fn class_width(&self) -> usize {
        on_features!(self, each => each.class_width())
    }
    fn content(&self) -> &[u64] {
        on_features!(self, each => each.content())
    }
    fn left_out(&self) -> &[bool] {
        on_features!(self, each => each.left_out())
    }
    fn class_tokens(&self) -> Result<Vec<f32>> {
        on_features!(self, each => each.class_tokens())
    }
    fn patch_tokens(&self, index: usize) -> Result<Vec<f32>> {
        on_features!(self, each => each.patch_tokens(index))
    }
}

impl Backend for AnyBackend {
    type Model = AnyModel;
    type Features = AnyFeatures;
    type Ready = AnyReady;

    fn leaves_processor_free(&self) -> bool {
        match self {
            AnyBackend::Cpu(cpu) => cpu.leaves_processor_free(),
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => cuda.leaves_processor_free(),
        }
    }

    fn description(&self) -> String {
        match self {
            AnyBackend::Cpu(cpu) => cpu.description(),
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => cuda.description(),
        }
    }

    fn load(&self, vit: &Vit, extraction: &Extraction) -> Result<AnyModel> {
        match self {
            AnyBackend::Cpu(cpu) => {
                cpu.load(vit, extraction).map(|model| AnyModel::Cpu(Box::new(model)))
            }
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => cuda.load(vit, extraction).map(AnyModel::Cuda),
        }
    }

    fn extract(
        &self,
        model: &AnyModel,
        pixels: Pixels<'_>,
        progress: &dyn Progress,
    ) -> Result<AnyFeatures> {
        match (self, model) {
            (AnyBackend::Cpu(cpu), AnyModel::Cpu(model)) => {
                cpu.extract(model, pixels, progress).map(AnyFeatures::Cpu)
            }
            #[cfg(feature = "cuda")]
            (AnyBackend::Cuda(cuda), AnyModel::Cuda(model)) => {
                cuda.extract(model, pixels, progress).map(AnyFeatures::Cuda)
            }
            #[cfg(feature = "cuda")]
            _ => elsewhere("backbone"),
        }
    }

    fn upload(&self, features: HostFeatures) -> Result<AnyFeatures> {
        match self {
            AnyBackend::Cpu(cpu) => cpu.upload(features).map(AnyFeatures::Cpu),
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => cuda.upload(features).map(AnyFeatures::Cuda),
        }
    }

    fn leave_out(&self, features: &mut AnyFeatures, left_out: Vec<bool>) -> Result<()> {
        match (self, features) {
            (AnyBackend::Cpu(cpu), AnyFeatures::Cpu(features)) => cpu.leave_out(features, left_out),
            #[cfg(feature = "cuda")]
            (AnyBackend::Cuda(cuda), AnyFeatures::Cuda(features)) => {
                cuda.leave_out(features, left_out)
            }
            #[cfg(feature = "cuda")]
            _ => elsewhere("features"),
        }
    }

    fn patch_scores(
        &self,
        queries: &AnyFeatures,
        references: References<'_, AnyFeatures>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<PatchScores> {
        match (self, queries) {
            (AnyBackend::Cpu(cpu), AnyFeatures::Cpu(queries)) => {
                let references = match references {
                    References::Others => References::Others,
                    References::Set(AnyFeatures::Cpu(set)) => References::Set(set),
                    #[cfg(feature = "cuda")]
                    References::Set(_) => return elsewhere("references"),
                };
                cpu.patch_scores(queries, references, scoring, progress)
            }
            #[cfg(feature = "cuda")]
            (AnyBackend::Cuda(cuda), AnyFeatures::Cuda(queries)) => {
                let references = match references {
                    References::Others => References::Others,
                    References::Set(AnyFeatures::Cuda(set)) => References::Set(set),
                    References::Set(_) => return elsewhere("references"),
                };
                cuda.patch_scores(queries, references, scoring, progress)
            }
            #[cfg(feature = "cuda")]
            _ => elsewhere("features"),
        }
    }

    fn make_ready(&self, references: AnyFeatures, scoring: &MutualScoring) -> Result<AnyReady> {
        match (self, references) {
            (AnyBackend::Cpu(cpu), AnyFeatures::Cpu(references)) => {
                Ok(AnyReady::Cpu(Box::new(cpu.make_ready(references, scoring)?)))
            }
            #[cfg(feature = "cuda")]
            (AnyBackend::Cuda(cuda), AnyFeatures::Cuda(references)) => {
                Ok(AnyReady::Cuda(Box::new(cuda.make_ready(references, scoring)?)))
            }
            #[cfg(feature = "cuda")]
            _ => elsewhere("references"),
        }
    }

    fn replace(
        &self,
        references: &mut AnyReady,
        at: usize,
        features: &AnyFeatures,
        image: usize,
    ) -> Result<()> {
        match (self, references, features) {
            (AnyBackend::Cpu(cpu), AnyReady::Cpu(ready), AnyFeatures::Cpu(features)) => {
                cpu.replace(ready, at, features, image)
            }
            #[cfg(feature = "cuda")]
            (AnyBackend::Cuda(cuda), AnyReady::Cuda(ready), AnyFeatures::Cuda(features)) => {
                cuda.replace(ready, at, features, image)
            }
            #[cfg(feature = "cuda")]
            _ => elsewhere("references or features"),
        }
    }

    fn compare(
        &self,
        queries: &AnyFeatures,
        references: &AnyReady,
        progress: &dyn Progress,
    ) -> Result<PatchScores> {
        match (self, queries, references) {
            (AnyBackend::Cpu(cpu), AnyFeatures::Cpu(queries), AnyReady::Cpu(ready)) => {
                cpu.compare(queries, ready, progress)
            }
            #[cfg(feature = "cuda")]
            (AnyBackend::Cuda(cuda), AnyFeatures::Cuda(queries), AnyReady::Cuda(ready)) => {
                cuda.compare(queries, ready, progress)
            }
            #[cfg(feature = "cuda")]
            _ => elsewhere("features or references"),
        }
    }

    fn best_cosines(
        &self,
        pairs: &Pairs<'_, AnyFeatures>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<BestCosines> {
        match self {
            AnyBackend::Cpu(cpu) => {
                let own = pairs.map(|features| match features {
                    AnyFeatures::Cpu(features) => Some(features),
                    #[cfg(feature = "cuda")]
                    _ => None,
                });
                own.map_or_else(
                    || elsewhere("block"),
                    |pairs| cpu.best_cosines(&pairs, scoring, progress),
                )
            }
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => {
                let own = pairs.map(|features| match features {
                    AnyFeatures::Cuda(features) => Some(features),
                    _ => None,
                });
                own.map_or_else(
                    || elsewhere("block"),
                    |pairs| cuda.best_cosines(&pairs, scoring, progress),
                )
            }
        }
    }

    fn scores_of_table(&self, table: &QueryTable<'_>, scoring: &MutualScoring) -> Result<Vec<f32>> {
        match self {
            AnyBackend::Cpu(cpu) => cpu.scores_of_table(table, scoring),
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => cuda.scores_of_table(table, scoring),
        }
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
