//! The CPU backend: one image or one pair of images a thread; products in f32 or bf16, all else in f32.
//!
//! Every number is independent of the number of threads: a thread computes whole images and whole pairs.
//!
//! # Formats
//! In f32 products are those of the crate `gemm`. In bf16 they are this crate's own (`bf16/`), where the processor has
//! AVX512-BF16: operands of 16 bits, sums in f32. *Features* in bf16 are a backbone with weights and tokens rounded in front of
//! every product; the tokens' sums from block to block, layer normalisations, softmax and the patch embedding stay f32. *Scoring*
//! in bf16 rounds the centred tokens once and is exact from there on; with a radius it is f32 in any case. An int8 Gram block
//! with its winners scored again was weighed and left: `docs/fidelity.md`.
//!
//! # Memory
//! Extraction holds the weights (f32 or bf16), the tokens of the feature layers (layers·N·L·C f32) and, a thread, one
//! image in flight: (6·D + M)·(1 + L) values and a block of attention scores. `batch_size` has no effect here.
//!
//! Scoring N queries holds their tokens (layers·N·L·C f32), those of the M references where they are another set, and of one
//! layer a centred copy of the queries' and a transposed one of the references' (N·L·C + M·L·C values, M = N where the queries
//! are compared with each other; in bf16 half the bytes, and L·C f32 more a thread), the table of minima (at most
//! [`MutualScoring::table_bytes`], and never less than one image's R·M·L) and, a thread, one Gram block with the windows of the
//! largest degree (L² + (Σr)·W·L). With a radius it holds pooled tokens of one layer and degree in place of those copies, and no
//! table: N·L·C + M·L·C (N·L·C where the queries are compared with each other), the scores of one layer and degree (N·L) and, a
//! thread, 128·M + L·C. Of what grows with N² there is only the list of a group's pairs, 16 bytes each.

mod aligned;
mod attention;
mod bf16;
mod blocks;
mod blocks_f32;
mod centred;
mod elementwise;
mod gram_pool;
mod interval_mean;
mod lnamd;
mod local_distance;
mod panels;
mod patch_scores;
mod ready;
mod sides;
mod vit;

pub use self::ready::Ready;
pub use self::vit::Model;
pub use crate::simd::Instructions;

use rayon::{ThreadPool, ThreadPoolBuilder};

use self::sides::Sides;
use crate::backend::blocks::{BestCosines, Pairs, QueryTable};
use crate::backend::{Backend, Extraction, HostFeatures, Pixels, References};
use crate::gemm;
use crate::model::Vit;
use crate::scoring::{MutualScoring, PatchScores};
use crate::simd::{Chosen, Way};
use crate::{Error, Progress, Result};

/// What the table of pairwise minima may take where [`MutualScoring::table_bytes`] does not say.
const TABLE_BYTES: usize = 1 << 30;

/// The number format of the operands of matrix products. They are added up in f32, and what is a sum, a norm, a mean or a
/// softmax is f32, in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Format {
    /// Single precision.
    #[default]
    F32,
    /// The upper half of an f32: its range with 8 bits of precision, at twice the speed. Needs
    /// [`Instructions::Avx512Bf16`].
    Bf16,
}

impl Format {
    /// The name: `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
        }
    }
}

/// How the CPU is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Threads; 0 means one a core.
    pub threads: usize,
    /// The vector instructions; `None` leaves them to the environment variable `MUSC_CPU`, and where that is not set to what
    /// the processor has.
    pub instructions: Option<Instructions>,
    /// The format of the backbone's products: weights, tokens and attention.
    pub features: Format,
    /// The format of tokens that are compared with each other.
    pub scoring: Format,
}

impl CpuOptions {
    /// With so many threads; 0 means one a core.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// With these vector instructions whatever the environment says.
    pub fn with_instructions(mut self, instructions: Instructions) -> Self {
        self.instructions = Some(instructions);
        self
    }

    /// With these formats of features and of scoring.
    pub fn with_formats(mut self, features: Format, scoring: Format) -> Self {
        self.features = features;
        self.scoring = scoring;
        self
    }
}

/// The CPU as a device.
#[derive(Debug)]
pub struct Cpu {
    pool: ThreadPool,
    simd: Chosen,
    features: Format,
    scoring: Format,
}

impl Cpu {
    /// A backend with `threads` threads that multiplies in f32; 0 means one thread a core.
    ///
    /// It computes with the widest vector instructions that the processor has, or with those that the environment variable
    /// `MUSC_CPU` names ([`Instructions`]).
    ///
    /// Products in f32 are those of the crate `gemm`, which chooses its instructions itself. Two of its settings, the sizes
    /// from which it copies operands, are the whole process's: this sets them.
    ///
    /// # Errors
    /// When the system refuses the threads; when `MUSC_CPU` is no name of instructions, or of some that the processor lacks.
    pub fn new(threads: usize) -> Result<Self> {
        Self::open(CpuOptions::default().with_threads(threads))
    }

    /// A backend that works so.
    ///
    /// # Errors
    /// As [`Cpu::new`]; a format for which instructions are missing.
    pub fn open(options: CpuOptions) -> Result<Self> {
        let CpuOptions { threads, instructions, features, scoring } = options;
        let simd = match instructions {
            Some(instructions) => Chosen::new(instructions)?,
            None => Chosen::of_environment()?,
        };
        if [features, scoring].contains(&Format::Bf16) && simd.bf16().is_none() {
            let reason = format!(
                "found {} instructions, expected {} for products in bf16: f32 needs none of them",
                simd.instructions(),
                Instructions::Avx512Bf16
            );
            return Err(Error::Device { device: "cpu".into(), reason });
        }
        gemm::tune();
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("musc-{index}"))
            .build()
            .map_err(|error| Error::Device { device: "cpu".into(), reason: error.to_string() })?;
        Ok(Cpu { pool, simd, features, scoring })
    }

    /// A backend with the fastest formats that the instructions have and that move a patch score by at most 2e-4
    /// (`docs/fidelity.md`): features in f32, scoring in bf16 where it is there. The options' own formats are not looked at.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn open_fastest(options: CpuOptions) -> Result<Self> {
        let mut cpu = Self::open(options.with_formats(Format::F32, Format::F32))?;
        if cpu.simd.bf16().is_some() {
            cpu.scoring = Format::Bf16;
        }
        Ok(cpu)
    }

    /// The format of the backbone's products.
    pub fn features_format(&self) -> Format {
        self.features
    }

    /// The format of tokens that are compared with each other.
    pub fn scoring_format(&self) -> Format {
        self.scoring
    }

    /// The vector instructions it computes with, the matrix products apart.
    pub fn instructions(&self) -> Instructions {
        self.simd.instructions()
    }

    fn way(&self, format: Format) -> Way {
        let bf16 = if format == Format::Bf16 { self.simd.bf16() } else { None };
        Way { arch: self.simd.arch(), bf16 }
    }

    /// Does parallel work on this backend's threads.
    #[cfg(feature = "files")]
    pub(crate) fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

impl Backend for Cpu {
    type Model = vit::Model;
    type Features = HostFeatures;
    type Ready = Ready;

    fn description(&self) -> String {
        let formats = match (self.features, self.scoring) {
            (Format::F32, Format::F32) => "f32".into(),
            (features, scoring) => {
                let instructions = self.instructions();
                format!("features {}, scoring {} ({instructions})", features.name(), scoring.name())
            }
        };
        format!("cpu, {} threads, {formats}", self.threads())
    }

    fn load(&self, vit: &Vit, extraction: &Extraction) -> Result<vit::Model> {
        self.pool.install(|| vit::Model::new(vit, extraction, self.way(self.features)))
    }

    fn extract(
        &self,
        model: &vit::Model,
        pixels: Pixels<'_>,
        progress: &dyn Progress,
    ) -> Result<HostFeatures> {
        self.pool.install(|| model.extract(pixels, progress))
    }

    fn upload(&self, features: HostFeatures) -> Result<HostFeatures> {
        features.check()?;
        Ok(features.with_known_content())
    }

    fn leave_out(&self, features: &mut HostFeatures, left_out: Vec<bool>) -> Result<()> {
        let before = std::mem::replace(&mut features.left_out, left_out);
        let checked = features.check_sizes();
        if checked.is_err() {
            features.left_out = before;
        }
        checked
    }

    fn patch_scores(
        &self,
        queries: &HostFeatures,
        references: References<'_, HostFeatures>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<PatchScores> {
        let sides = Sides::new(queries, references)?;
        scoring.check(sides.fewest_seen(), queries.grid)?;
        let way = self.way(self.scoring);
        self.pool.install(|| patch_scores::patch_scores(&sides, None, scoring, way, progress))
    }

    fn make_ready(&self, references: HostFeatures, scoring: &MutualScoring) -> Result<Ready> {
        self.pool.install(|| Ready::new(references, scoring, self.way(self.scoring)))
    }

    fn replace(
        &self,
        ready: &mut Ready,
        at: usize,
        features: &HostFeatures,
        image: usize,
    ) -> Result<()> {
        ready.replace(at, (features, image), self.simd.arch())
    }

    fn compare(
        &self,
        queries: &HostFeatures,
        references: &Ready,
        progress: &dyn Progress,
    ) -> Result<PatchScores> {
        let sides = Sides::of_ready(queries, references.features())?;
        let scoring = references.scoring();
        scoring.check(sides.fewest_seen(), queries.grid)?;
        let (way, layers) = (references.way(), references.layers());
        self.pool.install(|| patch_scores::patch_scores(&sides, layers, scoring, way, progress))
    }

    fn best_cosines(
        &self,
        pairs: &Pairs<'_, HostFeatures>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<BestCosines> {
        pairs.check()?;
        self.pool.install(|| blocks::of_pairs(pairs, scoring, self.way(self.scoring), progress))
    }

    fn scores_of_table(&self, table: &QueryTable<'_>, scoring: &MutualScoring) -> Result<Vec<f32>> {
        table.check(scoring)?;
        Ok(self.pool.install(|| blocks::scores_of_table(table, scoring)))
    }
}
