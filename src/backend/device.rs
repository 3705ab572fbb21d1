//! Which device does the work: asked for by name, opened, and used without a type parameter.
//!
//! [`AnyBackend`] is one of the backends behind an enum: one match a stage, the code inside stays generic.

use std::fmt;
use std::str::FromStr;

use super::blocks::{BestCosines, Pairs, QueryTable};
use super::cpu::{self, Cpu, CpuOptions, Format};
#[cfg(feature = "cuda")]
use super::cuda::{self, Cuda, CudaOptions};
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

/// The number format of the operands of products; they are added up in f32 in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Precision {
    /// The fastest that moves a patch score by at most 2e-4: on a card f16; on the CPU features in f32 and, where the processor
    /// multiplies it, scoring in bf16. Never refused.
    #[default]
    Auto,
    /// Single precision. Of the CPU alone.
    F32,
    /// IEEE half precision, up to 65504. Of cards alone.
    F16,
    /// The upper half of an f32: its range with 8 bits of precision, features and scoring. A card needs compute capability 8.0,
    /// the CPU [`Instructions::Avx512Bf16`](super::cpu::Instructions::Avx512Bf16).
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 4] =
        [Precision::Auto, Precision::F32, Precision::F16, Precision::Bf16];

    /// The name: `auto`, `f32`, `f16` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        }
    }
}

/// The name.
impl fmt::Display for Precision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// From the name.
impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|each| each.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::invalid("precision", format!("`{text}`"), format!("one of {names}"))
        })
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
    /// [`Error::Device`] when a device that must be there is not, or this build has no part for it.
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
        let cards = |numbers: &[usize]| cards(numbers, options, progress);
        let (backend, became) = match self {
            Device::Cpu => (processor()?, None),
            Device::Auto => match cards(&[0]) {
                Ok(backend) => (backend, Some(String::from("device: cuda:0"))),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(reason) => (processor()?, Some(format!("device: cpu, since {reason}"))),
            },
            Device::Prefer(card) => match cards(&[*card]) {
                Ok(backend) => (backend, None),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(reason) => (
                    processor()?,
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
        Precision::Auto => Cpu::open_fastest(of),
        Precision::F32 => Cpu::open(of),
        Precision::Bf16 => Cpu::open(of.with_formats(Format::Bf16, Format::Bf16)),
        Precision::F16 => Err(Error::Device {
            device: "cpu".into(),
            reason: "found the precision f16, expected f32, bf16 or auto: the CPU has no products in f16"
                .into(),
        }),
    }
}

#[cfg(feature = "cuda")]
fn cuda_options(options: DeviceOptions) -> Result<CudaOptions> {
    let half = match options.precision {
        Precision::Auto | Precision::F16 => cuda::Half::F16,
        Precision::Bf16 => cuda::Half::Bf16,
        Precision::F32 => {
            return Err(Error::Device {
                device: "cuda".into(),
                reason: "found the precision f32, expected f16, bf16 or auto: a card's products are 16-bit"
                    .into(),
            });
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
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, device) in [
            ("cpu", Device::Cpu),
            ("auto", Device::Auto),
            ("cuda", Device::Cuda(vec![])),
            ("cuda:2", Device::Cuda(vec![2])),
            ("cuda:0,1", Device::Cuda(vec![0, 1])),
            ("sim", Device::Sim),
            ("0", Device::Prefer(0)),
        ] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "-1", "cuda:1,"] {
            let message = text.parse::<Device>().unwrap_err().to_string();
            assert!(message.starts_with("device: "), "{message}");
        }
    }

    #[test]
    fn card_that_must_be_there_is_never_replaced_by_the_processor() {
        // No machine has this many cards; one without a driver says that.
        let absent = Device::Cuda(vec![4096]);
        assert!(matches!(absent.open(DeviceOptions::default()), Err(Error::Device { .. })));
    }

    #[test]
    fn falling_back_is_said_aloud() {
        let open = |device: Device| device.open(DeviceOptions::default()).unwrap();
        assert!(matches!(open(Device::Cpu), (AnyBackend::Cpu(_), None)));
        assert!(open(Device::Auto).1.is_some());
        let (backend, said) = open(Device::Prefer(4096));
        assert!(matches!(backend, AnyBackend::Cpu(_)));
        assert!(said.unwrap().contains("device 4096"));
    }
}
