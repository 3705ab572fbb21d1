//! One set of images in blocks: the scores of [`References::Others`](super::References::Others), to the last bit, with the
//! tokens of two blocks in memory at a time.
//!
//! The images of the set stand in runs, the blocks, each of which may lie in another process or on a disk. Whoever holds a
//! block scores its images, the queries, with a [`BlockScoring`]: a pass for each group of queries and feature layer, to
//! which the other blocks come one by one in any order.
//!
//! ```text
//! for group in 0..scoring.groups() {
//!     for layer in 0..layers {
//!         let mut pass = scoring.begin(group, layer)?;
//!         scoring.within(&mut pass, progress)?;             // the block itself
//!         scoring.take(&mut pass, block, &tokens, progress)?; // each other block
//!         scoring.finish(pass)?;
//!     }
//! }
//! let scores = scoring.scores()?;
//! ```
//!
//! The product of two images serves both. Where all queries of every block fit one group, whoever has both blocks gives the
//! other's half away: [`BlockScoring::share`] and [`BlockScoring::accept`] in place of two times `take`.
//!
//! # Memory
//! A pass holds the table of largest cosines, `[R, group, N, L]` of 32 bits, within [`MutualScoring::table_bytes`] (never less
//! than one query's); beside it one pair of blocks' part of it, twice where it is shared. A group costs all other blocks once
//! more, and pairs across blocks are then computed by each side.

use std::ops::Range;

use super::features::FeatureSet;
use super::{Backend, HostFeatures};
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Grid, Progress, Result};

/// What a table may take where [`MutualScoring::table_bytes`] does not say.
const TABLE_BYTES: usize = 1 << 30;

/// A run of images of some features, in one of their layers.
#[derive(Debug)]
pub struct Run<'a, F> {
    /// The features.
    pub features: &'a F,
    /// The images.
    pub images: Range<usize>,
    /// Index of the layer among those of the features.
    pub layer: usize,
}

impl<'a, F> Run<'a, F> {
    fn map<G>(&self, to: impl Fn(&'a F) -> Option<&'a G>) -> Option<Run<'a, G>> {
        Some(Run { features: to(self.features)?, images: self.images.clone(), layer: self.layer })
    }
}

/// Which way the cosines of two runs are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// Of the patches of the rows.
    Rows,
    /// Of the patches of the columns.
    Columns,
    /// Of both.
    Both,
}

/// Pairs of images whose largest cosines are wanted: each image of a run with each other one of the same, or each of a run
/// with each of another that comes later in the set. The earlier image is the row of a product wherever it is computed.
#[derive(Debug)]
pub struct Pairs<'a, F> {
    /// The run whose images come first.
    pub rows: Run<'a, F>,
    /// The other run; none for the pairs of one run, of which both ways are wanted.
    pub columns: Option<Run<'a, F>>,
    /// Which way.
    pub wanted: Wanted,
}

impl<'a, F> Pairs<'a, F> {
    /// The same pairs with the features as another type; none where one of them is not of it.
    pub(super) fn map<G>(&self, to: impl Fn(&'a F) -> Option<&'a G>) -> Option<Pairs<'a, G>> {
        let columns = match &self.columns {
            Some(columns) => Some(columns.map(&to)?),
            None => None,
        };
        Some(Pairs { rows: self.rows.map(&to)?, columns, wanted: self.wanted })
    }
}

impl<F: FeatureSet> Pairs<'_, F> {
    /// Checks that the runs lie within their features and that those fit together.
    pub(super) fn check(&self) -> Result<()> {
        for run in [Some(&self.rows), self.columns.as_ref()].into_iter().flatten() {
            let (images, layers) = (run.features.images(), run.features.layers().len());
            if run.images.start >= run.images.end || run.images.end > images {
                let found = format!("{}..{}", run.images.start, run.images.end);
                return Err(Error::invalid("run of images", found, format!("some of {images}")));
            }
            if run.layer >= layers {
                return Err(Error::invalid("feature layer", run.layer, format!("below {layers}")));
            }
        }
        let Some(columns) = &self.columns else { return Ok(()) };
        let facts = |run: &Run<'_, F>| {
            let of = run.features;
            [
                ("patch grid", of.grid().to_string()),
                ("token width", of.width().to_string()),
                ("feature layer", of.layers()[run.layer].to_string()),
            ]
        };
        for ((what, found), (_, expected)) in facts(columns).into_iter().zip(facts(&self.rows)) {
            if found != expected {
                let expected = format!("{expected}, as the block before it has");
                return Err(Error::invalid(format!("{what} of a block"), found, expected));
            }
        }
        Ok(())
    }

    /// Images of the rows and of the columns.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.rows.images.len(), self.columns.as_ref().unwrap_or(&self.rows).images.len())
    }

    /// Which ways are wanted: of the rows, of the columns. Of one run that is one and the same.
    pub(super) fn ways(&self) -> (bool, bool) {
        match (&self.columns, self.wanted) {
            (None, _) => (true, false),
            (Some(_), wanted) => (wanted != Wanted::Columns, wanted != Wanted::Rows),
        }
    }
}

/// The largest cosine of each patch with each image, in 32 bits that only the kind of backend that made them reads. Patches
/// that are left out have any number.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BestCosines {
    /// `[R, rows, columns, L]`, or empty where it was not wanted. Of one run `[R, n, n, L]`, an image with itself 0.
    pub of_rows: Vec<u32>,
    /// `[R, columns, rows, L]`, or empty where it was not wanted, and for one run.
    pub of_columns: Vec<u32>,
}

/// Queries with the largest cosines of their patches with every image of the set.
#[derive(Debug)]
pub struct QueryTable<'a> {
    /// `[R, n, N, L]`: what [`BestCosines`] hold, the images of the set in order. A query's row for itself is not looked at.
    pub cosines: &'a [u32],
    /// The places of the n queries in the set.
    pub queries: Range<usize>,
    /// N.
    pub images: usize,
    /// The grid of L patches.
    pub grid: Grid,
    /// The queries' patches that are left out, `[n, L]`, or none.
    pub left_out: &'a [bool],
}

impl QueryTable<'_> {
    /// Checks the sizes against each other.
    pub(super) fn check(&self, scoring: &MutualScoring) -> Result<()> {
        let (queries, patches) = (self.queries.len(), self.grid.patches());
        let cells = scoring.degrees.len() * queries * self.images * patches;
        let fits = self.cosines.len() == cells
            && self.queries.end <= self.images
            && (self.left_out.is_empty() || self.left_out.len() == queries * patches);
        if fits {
            return scoring.check(self.images.saturating_sub(1), self.grid);
        }
        Err(Error::invalid(
            "table of largest cosines",
            format!("{} cells, {} marks", self.cosines.len(), self.left_out.len()),
            format!("{cells} for images {:?} of {}", self.queries, self.images),
        ))
    }
}

/// The half of a pair of blocks that is another block's: what its holder gives to [`BlockScoring::accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The queries whose patches the cosines are of, by their places in the set.
    pub queries: Range<usize>,
    /// The images that they were compared with, by their places in the set.
    pub images: Range<usize>,
    /// `[R, queries, images, L]`.
    pub cosines: Vec<u32>,
}

/// A group of queries in one feature layer: what is known so far of their cosines.
#[derive(Debug)]
pub struct Pass {
    /// Index of the group.
    group: usize,
    /// The queries, by their places in the block.
    queries: Range<usize>,
    layer: usize,
    /// `[R, group, N, L]`.
    table: Vec<u32>,
    /// `[group, N]`: what the table holds.
    known: Vec<bool>,
}

/// The scoring of one block of a set against all of it.
#[derive(Debug)]
pub struct BlockScoring<'a, B: Backend> {
    backend: &'a B,
    scoring: &'a MutualScoring,
    features: &'a B::Features,
    /// The first image of each block, and N.
    starts: Vec<usize>,
    own: usize,
    group: usize,
    /// `[R, layers, n, L]`.
    scores: Vec<f32>,
    /// `[groups, layers]`.
    done: Vec<bool>,
}

impl<'a, B: Backend> BlockScoring<'a, B> {
    /// The scoring of block `own` of a set whose blocks have so many images; `features` are that block's, with all layers.
    ///
    /// # Errors
    /// Options that [`MutualScoring::check`] refuses for such a set; a radius, with which a patch's references are compared
    /// at once and not a pair at a time; a block without images; features of another number than the block's.
    pub fn new(
        backend: &'a B,
        scoring: &'a MutualScoring,
        blocks: &[usize],
        own: usize,
        features: &'a B::Features,
    ) -> Result<Self> {
        if let Some(radius) = scoring.radius {
            return Err(Error::invalid(
                "radius, with the images in blocks",
                radius,
                "none: within a radius all images are compared at once",
            ));
        }
        if let Some(empty) = blocks.iter().position(|&images| images == 0) {
            return Err(Error::invalid(format!("images of block {empty}"), 0, "at least 1"));
        }
        let mut starts = vec![0];
        starts.extend(blocks.iter().scan(0, |sum, images| {
            *sum += images;
            Some(*sum)
        }));
        let images = blocks.get(own).copied().unwrap_or(0);
        if images == 0 || features.images() != images {
            let expected = format!("{images}, those of block {own} of {}", blocks.len());
            return Err(Error::invalid("images of a block", features.images(), expected));
        }
        let all = starts.last().copied().unwrap_or(0);
        scoring.check(all.saturating_sub(1), features.grid())?;
        let patches = features.patches();
        let group = scoring.group_images((images, all), patches, TABLE_BYTES);
        let layers = features.layers().len();
        Ok(BlockScoring {
            backend,
            scoring,
            features,
            starts,
            own,
            group,
            scores: vec![0.0; scoring.degrees.len() * layers * images * patches],
            done: vec![false; images.div_ceil(group) * layers],
        })
    }

    /// The groups that the queries are scored in, one where the whole table fits.
    pub fn groups(&self) -> usize {
        self.features.images().div_ceil(self.group)
    }

    /// The images of a block, by their places in the set.
    pub fn images_of(&self, block: usize) -> Range<usize> {
        match (self.starts.get(block), self.starts.get(block + 1)) {
            (Some(&start), Some(&end)) => start..end,
            _ => 0..0,
        }
    }

    /// Images of the whole set.
    pub fn images(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Begins a group of queries in the `layer`-th feature layer, with an empty table.
    ///
    /// # Errors
    /// No such group or layer.
    pub fn begin(&self, group: usize, layer: usize) -> Result<Pass> {
        let layers = self.features.layers().len();
        for (what, at, all) in
            [("group of queries", group, self.groups()), ("layer", layer, layers)]
        {
            if at >= all {
                return Err(Error::invalid(what, at, format!("below {all}")));
            }
        }
        let first = group * self.group;
        let queries = first..self.features.images().min(first + self.group);
        let rows = queries.len() * self.images();
        let cells = self.scoring.degrees.len() * rows * self.features.patches();
        Ok(Pass { group, queries, layer, table: vec![0; cells], known: vec![false; rows] })
    }

    /// Compares the pass's queries with the other images of their own block.
    ///
    /// # Errors
    /// An interruption, or the device's own.
    pub fn within(&self, pass: &mut Pass, progress: &dyn Progress) -> Result<()> {
        let start = self.images_of(self.own).start;
        let run = |images: Range<usize>| Run { features: self.features, images, layer: pass.layer };
        let (group, all) = (pass.queries.clone(), self.features.images());
        let (before, after) = (0..group.start, group.end..all);
        let of_set = |images: &Range<usize>| start + images.start..start + images.end;
        if group.len() > 1 {
            let pairs = Pairs { rows: run(group.clone()), columns: None, wanted: Wanted::Both };
            let found = self.backend.best_cosines(&pairs, self.scoring, progress)?;
            self.place(pass, &group, &of_set(&group), &found.of_rows);
        }
        let run = |images: Range<usize>| Run { features: self.features, images, layer: pass.layer };
        if !before.is_empty() {
            let (rows, columns) = (run(before.clone()), Some(run(group.clone())));
            let pairs = Pairs { rows, columns, wanted: Wanted::Columns };
            let found = self.backend.best_cosines(&pairs, self.scoring, progress)?;
            self.place(pass, &group, &of_set(&before), &found.of_columns);
        }
        let run = |images: Range<usize>| Run { features: self.features, images, layer: pass.layer };
        if !after.is_empty() {
            let (rows, columns) = (run(group.clone()), Some(run(after.clone())));
            let pairs = Pairs { rows, columns, wanted: Wanted::Rows };
            let found = self.backend.best_cosines(&pairs, self.scoring, progress)?;
            self.place(pass, &group, &of_set(&after), &found.of_rows);
        }
        Ok(())
    }

    /// Compares the pass's queries with the images of another block. `features` are that block's: all of its layers, or the
    /// pass's alone.
    ///
    /// # Errors
    /// The block itself or none of the set; features of another number of images, grid, width or layer; an interruption; or
    /// the device's own.
    pub fn take(
        &self,
        pass: &mut Pass,
        block: usize,
        features: &B::Features,
        progress: &dyn Progress,
    ) -> Result<()> {
        let queries = pass.queries.clone();
        let images = 0..features.images();
        self.compare(pass, (block, features), (queries, images), false, progress).map(drop)
    }

    /// As [`Self::take`], of some of the pass's queries (by their places in the block) with some images of another block (by
    /// theirs). Gives the other block's half.
    ///
    /// # Errors
    /// As [`Self::take`]; images that are not there.
    pub fn share(
        &self,
        pass: &mut Pass,
        block: usize,
        features: &B::Features,
        (queries, images): (Range<usize>, Range<usize>),
        progress: &dyn Progress,
    ) -> Result<Shared> {
        let start = self.images_of(block).start;
        let own = self.images_of(self.own).start;
        let cosines = self.compare(
            pass,
            (block, features),
            (queries.clone(), images.clone()),
            true,
            progress,
        )?;
        Ok(Shared {
            queries: start + images.start..start + images.end,
            images: own + queries.start..own + queries.end,
            cosines,
        })
    }

    fn compare(
        &self,
        pass: &mut Pass,
        (block, features): (usize, &B::Features),
        (queries, images): (Range<usize>, Range<usize>),
        both: bool,
        progress: &dyn Progress,
    ) -> Result<Vec<u32>> {
        let of_set = self.images_of(block);
        if block == self.own || of_set.is_empty() {
            let expected = format!("another of the {}", self.starts.len() - 1);
            return Err(Error::invalid("block to compare with", block, expected));
        }
        if features.images() != of_set.len() {
            let what = format!("images of block {block}");
            return Err(Error::invalid(what, features.images(), of_set.len().to_string()));
        }
        if queries.start < pass.queries.start || queries.end > pass.queries.end {
            let expected = format!("some of {:?}", pass.queries);
            return Err(Error::invalid("queries of a pass", format!("{queries:?}"), expected));
        }
        let own_layer = self.features.layers()[pass.layer];
        let layer = features.layers().iter().position(|&layer| layer == own_layer);
        let Some(layer) = layer else {
            let found = format!("{:?}", features.layers());
            let what = format!("feature layers of block {block}");
            return Err(Error::invalid(what, found, format!("{own_layer} among them")));
        };
        if queries.is_empty() || images.is_empty() {
            return Ok(Vec::new());
        }
        let mine = Run { features: self.features, images: queries.clone(), layer: pass.layer };
        let theirs = Run { features, images: images.clone(), layer };
        let first = self.own < block;
        let (rows, columns) = if first { (mine, theirs) } else { (theirs, mine) };
        let wanted = match (both, first) {
            (true, _) => Wanted::Both,
            (false, true) => Wanted::Rows,
            (false, false) => Wanted::Columns,
        };
        let pairs = Pairs { rows, columns: Some(columns), wanted };
        let found = self.backend.best_cosines(&pairs, self.scoring, progress)?;
        let (own, other) = match first {
            true => (found.of_rows, found.of_columns),
            false => (found.of_columns, found.of_rows),
        };
        let images = of_set.start + images.start..of_set.start + images.end;
        self.place(pass, &queries, &images, &own);
        Ok(other)
    }

    /// Takes in what the holder of another block found for this one.
    ///
    /// # Errors
    /// Queries that are not the pass's, images that are not the set's, or another number of cosines than theirs.
    pub fn accept(&self, pass: &mut Pass, shared: &Shared) -> Result<()> {
        let start = self.images_of(self.own).start;
        let within = start + pass.queries.start..start + pass.queries.end;
        let Shared { queries, images, cosines } = shared;
        let cells = queries.len() * images.len() * self.features.patches();
        let fits = queries.start >= within.start
            && queries.end <= within.end
            && images.end <= self.images()
            && cosines.len() == self.scoring.degrees.len() * cells;
        if !fits {
            return Err(Error::invalid(
                "cosines from another block",
                format!("{} of {queries:?} with {images:?}", cosines.len()),
                format!("all of some of {within:?} with some of {}", self.images()),
            ));
        }
        if cells > 0 {
            let queries = queries.start - start..queries.end - start;
            self.place(pass, &queries, images, cosines);
        }
        Ok(())
    }

    /// Puts cosines `[R, queries, images, L]` in the table: queries by their places in the block, images by those in the set.
    fn place(
        &self,
        pass: &mut Pass,
        queries: &Range<usize>,
        images: &Range<usize>,
        cosines: &[u32],
    ) {
        let (all, patches) = (self.images(), self.features.patches());
        let (rows, run) = (pass.queries.len(), images.len() * patches);
        let mut from = cosines.chunks_exact(run);
        for degree in 0..self.scoring.degrees.len() {
            for query in queries.clone() {
                let row = query - pass.queries.start;
                let to = ((degree * rows + row) * all + images.start) * patches;
                if let Some(from) = from.next() {
                    pass.table[to..to + run].copy_from_slice(from);
                }
                pass.known[row * all..][images.clone()].fill(true);
            }
        }
    }

    /// Turns a pass's table into scores, once every other image has been compared.
    ///
    /// # Errors
    /// An image with which a query was not compared; or the device's own.
    pub fn finish(&mut self, pass: Pass) -> Result<()> {
        let (all, patches) = (self.images(), self.features.patches());
        let start = self.images_of(self.own).start;
        let queries = start + pass.queries.start..start + pass.queries.end;
        for (query, known) in queries.clone().zip(pass.known.chunks_exact(all)) {
            if let Some(image) = (0..all).find(|&image| image != query && !known[image]) {
                return Err(Error::invalid(
                    format!("cosines of image {query} of the set"),
                    format!("none with image {image}"),
                    "those with all others: every block is to be taken before the end",
                ));
            }
        }
        let marks = pass.queries.start * patches..pass.queries.end * patches;
        let table = QueryTable {
            cosines: &pass.table,
            queries,
            images: all,
            grid: self.features.grid(),
            left_out: self.features.left_out().get(marks.clone()).unwrap_or_default(),
        };
        let scores = self.backend.scores_of_table(&table, self.scoring)?;
        let (layers, plane) = (self.features.layers().len(), self.features.images() * patches);
        for (degree, scores) in scores.chunks_exact(marks.len()).enumerate() {
            let to = (degree * layers + pass.layer) * plane;
            self.scores[to + marks.start..to + marks.end].copy_from_slice(scores);
        }
        self.done[pass.group * layers + pass.layer] = true;
        Ok(())
    }

    /// The scores of the block's images, when every pass is done.
    ///
    /// # Errors
    /// A pass that is missing.
    pub fn scores(self) -> Result<PatchScores> {
        let layers = self.features.layers().len();
        if let Some(missing) = self.done.iter().position(|done| !done) {
            return Err(Error::invalid(
                "passes of a block",
                format!("none of group {} in layer {}", missing / layers, missing % layers),
                "all of them",
            ));
        }
        Ok(PatchScores {
            images: self.features.images(),
            grid: self.features.grid(),
            degrees: self.scoring.degrees.clone(),
            layers,
            by_degree_layer: self.scores,
        })
    }
}

impl HostFeatures {
    /// One layer of some images, without their class tokens: what goes to the holder of another block.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a layer or images that are not there.
    pub fn part(&self, images: Range<usize>, layer: usize) -> Result<HostFeatures> {
        let (values, patches) = (self.patches() * self.width, self.patches());
        let tokens = self.tokens.get(layer);
        let tokens = tokens.and_then(|of| of.get(images.start * values..images.end * values));
        let Some(tokens) = tokens else {
            return Err(Error::invalid(
                "part of features",
                format!("images {images:?} of layer {layer}"),
                format!("some of {} in {} layers", self.images, self.tokens.len()),
            ));
        };
        let part = HostFeatures::new(
            images.len(),
            self.grid,
            self.width,
            vec![self.layers[layer]],
            vec![tokens.to_vec()],
        );
        let marks = self.left_out.get(images.start * patches..images.end * patches);
        let content = self.content.get(images);
        Ok(part
            .with_left_out(marks.unwrap_or_default().to_vec())
            .with_content(content.unwrap_or_default().to_vec()))
    }
}
