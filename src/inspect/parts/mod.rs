//! One batch by several workers: a plan, parts of it scored anywhere, and what they come to together.
//!
//! A [`Plan`] says which images are scored with which; it depends on the batch's names and the settings alone, so that every
//! worker makes the same one. Parts need nothing of each other. What is of the whole batch (RsCIN, decisions, figures) comes
//! when they are joined: the same bits as [`Inspector::inspect`], whoever made the parts, in whatever order.

mod block_file;
mod file;
mod part;
mod store;

pub use self::part::Part;
pub(super) use self::part::{Joined, PartFiles, Scored};
pub use self::store::{PartStore, StoreTerms};
use super::laps::Laps;
use super::maps::Maps;
use super::work::{self, Plan};
use super::{Batch, Inspection, Inspector, ReferenceSet, references, tiles};
use crate::progress::go_on;
use crate::{Error, Progress, Result};

impl Inspector {
    /// How a batch is scored: in which subsets, or all together as one part.
    ///
    /// Files are opened only where unreadable ones are to be skipped, since subsets are made of those that can be read; with
    /// proportions to keep, their heads are read besides.
    ///
    /// # Errors
    /// Fewer than two images; a setting that does not fit the images; an unreadable file; an interruption.
    pub fn plan(&self, batch: &Batch, progress: &dyn Progress) -> Result<Plan> {
        let laps = Laps::new(progress);
        work::plan(self, batch, false, &laps)
    }

    /// How a batch is compared with references: in runs of images, each of which is as good as alone.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn plan_to_compare(&self, batch: &Batch, references: &ReferenceSet) -> Result<Plan> {
        tiles::refuse(self, "references")?;
        let input = self.input_of_queries(batch, references)?;
        let places: Vec<usize> = (0..batch.len()).collect();
        let parts = places.chunks(references::TOGETHER).map(<[usize]>::to_vec).collect();
        Ok(Plan { input, parts, bad: Vec::new(), notes: Vec::new() })
    }

    /// Scores a part of a batch's plan.
    ///
    /// # Errors
    /// A part that is none; otherwise as [`inspect`](Self::inspect).
    pub fn inspect_part(
        &self,
        batch: &Batch,
        plan: &Plan,
        part: usize,
        progress: &dyn Progress,
    ) -> Result<Part> {
        go_on(progress)?;
        work::part(self, batch, plan.input, plan.part(part)?, progress)
    }

    /// Compares a part of a batch's plan with references.
    ///
    /// # Errors
    /// A part that is none; otherwise as [`compare`](Self::compare).
    pub fn compare_part(
        &self,
        batch: &Batch,
        plan: &Plan,
        part: usize,
        references: &ReferenceSet,
        progress: &dyn Progress,
    ) -> Result<Part> {
        go_on(progress)?;
        self.part_compared(batch, plan.part(part)?, (plan.input, references), progress)
    }

    /// What a batch comes to of its parts, in whatever order they come: the same bits as [`inspect`](Self::inspect).
    ///
    /// # Errors
    /// The first error among the parts; images that are in no part, or in two; an interruption.
    pub fn join(
        &self,
        batch: &Batch,
        plan: &Plan,
        parts: impl IntoIterator<Item = Result<Part>>,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let laps = Laps::new(progress);
        let joined = self.joined(plan, parts, progress)?;
        work::finish(self, batch, plan, joined, laps)
    }

    /// What a batch comes to of the parts that were compared with these references: the same bits as
    /// [`compare`](Self::compare).
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_compared(
        &self,
        batch: &Batch,
        plan: &Plan,
        parts: impl IntoIterator<Item = Result<Part>>,
        references: &ReferenceSet,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let laps = Laps::new(progress);
        let joined = self.joined(plan, parts, progress)?;
        self.finish_compared(batch, plan.input, joined, references, laps)
    }

    fn joined(
        &self,
        plan: &Plan,
        parts: impl IntoIterator<Item = Result<Part>>,
        progress: &dyn Progress,
    ) -> Result<Joined> {
        let mut joined = Joined::new(plan.places(), self.settings.paper);
        for part in parts {
            go_on(progress)?;
            joined.add(part?)?;
        }
        Ok(joined)
    }
}

impl Plan {
    /// Number of parts.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there is no part.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The images of a part: places in the batch, rising.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are not so many parts.
    pub fn part(&self, part: usize) -> Result<&[usize]> {
        let found = self.parts.get(part).map(Vec::as_slice);
        found.ok_or_else(|| Error::invalid("part", part, format!("below {}", self.len())))
    }

    /// The size at which the images go through the backbone.
    pub fn input(&self) -> crate::ImageSize {
        self.input
    }

    /// All images, rising.
    pub(super) fn places(&self) -> Vec<usize> {
        let mut places: Vec<usize> = self.parts.iter().flatten().copied().collect();
        places.sort_unstable();
        places
    }

    /// How patch scores lie, once it is known of which size the images are.
    pub(super) fn maps(&self, inspector: &Inspector, image: (u32, u32)) -> Maps {
        let grid = self.input.grid(inspector.backbone.architecture().patch);
        let image = crate::ImageSize::new(image.1 as usize, image.0 as usize);
        match inspector.settings.tiles {
            Some(tiles) => Maps::of_tiles(grid, tiles.cut, self.input, image),
            None => Maps::whole(grid, self.input),
        }
    }
}
