//! The CPU backend: f32, one image or one pair of images a thread.
//!
//! Every number is independent of the number of threads: a thread computes whole images and whole pairs.
//!
//! # Memory
//! Extraction holds the weights in f32, the tokens of the feature layers (layers·N·L·C f32) and, a thread, one
//! image in flight: (6·D + M)·(1 + L) f32 and a block of attention scores. `batch_size` has no effect here.
//!
//! Mutual scoring holds the tokens (layers·N·L·C f32), a centred copy of one layer and its transpose (2·N·L·C), the table of minima
//! (at most [`MutualScoring::table_bytes`], and never less than one image's R·N·L) and, a thread, one Gram block
//! with the windows of the largest degree (L² + (Σr)·H·L). Nothing grows with N².

mod aligned;
mod attention;
mod elementwise;
mod gemm;
mod gram_pool;
mod interval_mean;
mod lnamd;
mod mutual_scores;
mod vit;

pub use vit::Model;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::backend::{Backend, Extraction, HostFeatures, Pixels, References};
use crate::model::Vit;
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Progress, Result};

/// What the table of pairwise minima may take where [`MutualScoring::table_bytes`] does not say.
const TABLE_BYTES: usize = 1 << 30;

/// The CPU as a device.
pub struct Cpu {
    pool: ThreadPool,
}

impl Cpu {
    /// A backend with `threads` threads; 0 means one a core.
    ///
    /// # Errors
    /// When the system refuses the threads.
    pub fn new(threads: usize) -> Result<Self> {
        gemm::tune();
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("musc-{index}"))
            .build()
            .map_err(|error| Error::Device { device: "cpu".into(), reason: error.to_string() })?;
        Ok(Cpu { pool })
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

impl Backend for Cpu {
    type Model = vit::Model;
    type Features = HostFeatures;

    fn description(&self) -> String {
        format!("cpu, {} threads, f32", self.threads())
    }

    fn load(&self, vit: &Vit, extraction: &Extraction) -> Result<vit::Model> {
        self.pool.install(|| vit::Model::new(vit, extraction))
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
        let marked = features.clone().with_left_out(left_out);
        marked.check()?;
        *features = marked;
        Ok(())
    }

    fn patch_scores(
        &self,
        queries: &HostFeatures,
        references: References<'_, HostFeatures>,
        scoring: &MutualScoring,
        progress: &dyn Progress,
    ) -> Result<PatchScores> {
        let References::Others = references else {
            return Err(Error::invalid("references", "another set", "the other images"));
        };
        scoring.check(queries.images.saturating_sub(1), queries.grid)?;
        let tokens = mutual_scores::Tokens {
            images: queries.images,
            grid: queries.grid.rows,
            width: queries.width,
            layers: queries.tokens.iter().map(Vec::as_slice).collect(),
        };
        self.pool.install(|| mutual_scores::mutual_scores(&tokens, scoring, progress))
    }
}
