//! All against all in blocks: what one process does where the tokens of a batch lie in many.
//!
//! Each process makes the tokens of its [`Block`], scores them with the other blocks' tokens as they come
//! ([`BlockScoring`]), and makes a [`Part`] of it; [`Inspector::join`] gives the bits of [`Inspector::inspect`] with
//! [`Subsets::All`](super::Subsets::All). How tokens travel is the caller's.

use std::ops::Range;

use super::parts::PartFiles;
use super::work::{self, Plan};
use super::{Batch, Inspector, Part, tiles};
use crate::backend::FeatureSet;
use crate::backend::blocks::BlockScoring;
use crate::backend::device::{AnyBackend, AnyFeatures};
use crate::scoring::PatchScores;
use crate::{Error, Progress, Result};

/// Some images of a batch that is scored all against all, with their tokens.
#[derive(Debug)]
pub struct Block {
    pub(super) files: PartFiles,
    pub(super) features: AnyFeatures,
}

impl Block {
    /// Number of images: those that were asked for, less unreadable ones that are skipped.
    pub fn len(&self) -> usize {
        self.features.images()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their tokens, where the device keeps them.
    pub fn features(&self) -> &AnyFeatures {
        &self.features
    }
}

impl Inspector {
    /// The device.
    pub fn backend(&self) -> &AnyBackend {
        &self.backend
    }

    /// The tokens of a run of the images of a batch: `run` counts in the one part of its plan.
    ///
    /// # Errors
    /// A plan of several parts, whose images are not all compared; tiles; images that are not there, or of which none can be
    /// read; otherwise as [`features`](Self::features).
    pub fn block(
        &self,
        batch: &Batch,
        plan: &Plan,
        run: Range<usize>,
        progress: &dyn Progress,
    ) -> Result<Block> {
        tiles::refuse(self, "blocks")?;
        if plan.len() != 1 {
            let expected = "1: images in blocks are scored all against all";
            return Err(Error::invalid("subsets of the batch", plan.len(), expected));
        }
        let all = plan.part(0)?;
        let asked = all.get(run.clone()).filter(|asked| !asked.is_empty()).ok_or_else(|| {
            Error::invalid(
                "images of a block",
                format!("{run:?}"),
                format!("some of {}", all.len()),
            )
        })?;
        let (loaded, features) = work::features_of(self, batch, asked, plan.input, progress)?;
        Ok(Block { files: PartFiles::of(asked, loaded), features })
    }

    /// The scoring of block `own` of a batch whose blocks have so many images.
    ///
    /// # Errors
    /// As [`BlockScoring::new`].
    pub fn block_scoring<'a>(
        &'a self,
        blocks: &[usize],
        own: usize,
        block: &'a Block,
    ) -> Result<BlockScoring<'a, AnyBackend>> {
        BlockScoring::new(&self.backend, &self.settings.scoring, blocks, own, &block.features)
    }

    /// The part of the batch that a scored block is.
    ///
    /// # Errors
    /// Scores of another number of images; or the device's own.
    pub fn part_of_block(&self, block: Block, scores: &PatchScores) -> Result<Part> {
        let Block { files, features } = block;
        let exact = self.settings.paper;
        Part::of_features(files, &features, &scores.mean_f64(), exact)
    }
}
