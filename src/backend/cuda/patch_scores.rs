//! MSM on cards: runs of images against each other, maxima for every degree, and the mean of the lowest distances.
//!
//! The pairs of a layer are dealt out in chunks ([`Schedule`]). Every pair of images is in one chunk only, so a key is
//! written by one card and the sums of a pair are the same bits however the work is cut: in groups, in blocks from the
//! host, on any number of cards.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::Buffer;
use super::card::Card;
use super::features::Features;
use super::image_set::{ImageSet, Units};
use super::launch::gemm::Operands;
use super::launch::gram_pool::Shape;
use super::launch::local_distance::TokenShape;
use super::launch::{
    GRAM_STRIDE, Keys, MAX_DEGREE, MAX_DEGREES, MAX_PATCHES, MAX_SIDE, Matrix, PairBlock, gemm,
    gram_pool, interval_mean, local_distance, patch_distance,
};
use super::left_out;
use super::merge::Merge;
use super::plan::{MAX_LAUNCH_IMAGES, Route, ScoringPlan, ScoringSizes, SetSizes, local_radius};
use super::stream::{Event, Stream};
use crate::backend::features::{References, check_alike, unseen};
use crate::progress::go_on;
use crate::scoring::schedule::{Chunk, Schedule};
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Grid, Progress, Result, Stage};

/// Chunks that may be under way before the host waits: enough to keep a card busy, few enough to stop soon.
const UNDER_WAY: usize = 4;

/// Scores the queries on the cards.
pub(super) fn patch_scores(
    cards: &[Arc<Card>],
    queries: &Features,
    references: References<'_, Features>,
    scoring: &MutualScoring,
    progress: &dyn Progress,
) -> Result<PatchScores> {
    let job = Job::new(cards, queries, references, scoring)?;
    let plane = queries.images * queries.patches;
    let layers = queries.layers.len();
    progress.begin(Stage::Scoring, job.schedule.pairs() * layers as u64);
    let mut by_degree_layer = vec![0.0f32; scoring.degrees.len() * layers * plane];
    let mut workers =
        cards.iter().map(|card| Worker::new(card, &job)).collect::<Result<Vec<_>>>()?;
    let mut merge = Merge::new(cards)?;
    for layer in 0..layers {
        on_all(&mut workers, |_, worker| worker.begin_layer(&job, layer))?;
        let mut scores = vec![0.0f32; job.degrees.len() * plane];
        for group in job.schedule.groups() {
            let count = cards.len();
            on_all(&mut workers, |at, worker| {
                worker.pairs_of_group(&job, &group, (at, count), progress)
            })?;
            merge_keys(&mut merge, &mut workers, &job, &group)?;
            if let Some(first) = workers.first_mut() {
                first.forget_unseen(&job, &group)?;
                first.see_nothing(&job, &group)?;
                first.means(&job, &group, &mut scores)?;
            }
        }
        for scores in scores.chunks_exact_mut(plane.max(1)) {
            for (score, _) in scores.iter_mut().zip(&queries.left_out).filter(|(_, out)| **out) {
                *score = 0.0;
            }
        }
        // The scores are by ascending degree; the result is in the order that was asked for.
        for (at, degree) in scoring.degrees.iter().enumerate() {
            let Some(from) = job.degrees.iter().position(|sorted| sorted == degree) else {
                continue;
            };
            by_degree_layer[(at * layers + layer) * plane..][..plane]
                .copy_from_slice(&scores[from * plane..][..plane]);
        }
    }
    progress.end();
    Ok(PatchScores {
        images: queries.images,
        grid: queries.grid,
        degrees: scoring.degrees.clone(),
        layers,
        by_degree_layer,
    })
}

/// What all cards have in common.
pub(super) struct Job<'a> {
    pub queries: &'a Features,
    /// None where the queries see each other.
    pub others: Option<&'a Features>,
    /// For each query the references with its own content; empty where the queries see each other.
    unseen: Vec<Vec<usize>>,
    /// Ascending, each once.
    pub degrees: Vec<usize>,
    /// Runs of `degrees` that one launch of the pooling takes; degree 1 is in none.
    launches: Vec<Range<usize>>,
    radius: usize,
    ranks: Vec<(usize, usize)>,
    /// Where a reference has nothing left within the radius, `[M, L]`; empty where that is nowhere.
    blind: Vec<bool>,
    pub sizes: ScoringSizes,
    pub plan: ScoringPlan,
    pub schedule: Schedule,
}

impl<'a> Job<'a> {
    pub fn new(
        cards: &[Arc<Card>],
        queries: &'a Features,
        references: References<'a, Features>,
        scoring: &'a MutualScoring,
    ) -> Result<Self> {
        let (n, grid) = (queries.images, queries.grid);
        let (others, unseen, seen) = match references {
            References::Others => (None, Vec::new(), vec![n.saturating_sub(1); n]),
            References::Set(set) => {
                check_alike(queries, set)?;
                let unseen = unseen(&queries.content, &set.content)?;
                let seen = unseen.iter().map(|unseen| set.images - unseen.len()).collect();
                (Some(set), unseen, seen)
            }
        };
        scoring.check(seen.iter().copied().min().unwrap_or(0), grid)?;
        let mut degrees = scoring.degrees.clone();
        degrees.sort_unstable();
        degrees.dedup();
        if let Some(&large) = degrees.iter().find(|&&degree| degree > MAX_DEGREE) {
            return Err(Error::invalid(
                "aggregation degree r, on a card",
                large,
                format!("at most {MAX_DEGREE}: larger ones need the CPU"),
            ));
        }
        if grid.longest() > MAX_SIDE || grid.patches() > MAX_PATCHES {
            return Err(Error::invalid(
                "grid of patches, on a card",
                grid,
                format!(
                    "sides up to {MAX_SIDE} and at most {MAX_PATCHES} patches: choose a smaller image size, or the CPU"
                ),
            ));
        }
        let set =
            |features: &Features| SetSizes { images: features.images, on_card: features.on_card() };
        let tokens = (grid, queries.stride);
        let sizes = ScoringSizes::new(set(queries), others.map(set), tokens, scoring);
        // Every card works by the plan of the one with the least.
        let mut available = u64::MAX;
        let mut shared = u32::MAX;
        for card in cards {
            available = available.min(card.available_bytes()?);
            shared = shared.min(card.info().shared_bytes_per_block);
        }
        let plan = sizes.plan(scoring, available).ok_or_else(|| Error::OutOfMemory {
            device: cards.first().map_or_else(String::new, |card| card.info().label.clone()),
            what: format!(
                "scoring {n} images of {} patch tokens (the least it can do with)",
                queries.patches
            ),
            need: sizes.least(),
            have: available,
        })?;
        let radius = local_radius(scoring, grid);
        let references = others.unwrap_or(queries);
        let blind = match radius {
            Some(radius) => left_out::blind(&references.left_out, grid, radius),
            None => Vec::new(),
        };
        Ok(Job {
            queries,
            others,
            unseen,
            launches: launches(grid, &degrees, shared),
            degrees,
            radius: radius.unwrap_or(0),
            ranks: seen.into_iter().map(|seen| scoring.ranks(seen)).collect(),
            blind,
            schedule: sizes.schedule(&plan),
            sizes,
            plan,
        })
    }

    /// The images that are compared with.
    fn references(&self) -> &'a Features {
        self.others.unwrap_or(self.queries)
    }

    /// Keys of a group of queries in one degree.
    fn keys_of_degree(&self, queries: usize) -> usize {
        queries * self.references().images * self.queries.patches
    }

    /// How the tokens lie.
    pub fn token_shape(&self) -> TokenShape {
        let Features { half, grid, stride, width, .. } = *self.queries;
        TokenShape { half, grid, width: stride, channels: width }
    }
}

/// Degrees cut into runs that one launch of the pooling can take. Degree 1 is the product's own.
fn launches(grid: Grid, degrees: &[usize], shared_bytes: u32) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = usize::from(degrees.first() == Some(&1));
    while start < degrees.len() {
        let most = (degrees.len() - start).min(MAX_DEGREES);
        let count = (1..=most)
            .rev()
            .find(|&count| {
                Shape::best(grid, &degrees[start..start + count], shared_bytes).is_some()
            })
            .unwrap_or(1);
        runs.push(start..start + count);
        start += count;
    }
    runs
}

/// One card's memory and stream.
pub(super) struct Worker<'a> {
    stream: Stream,
    queries: ImageSet<'a>,
    /// None where the queries see each other.
    references: Option<ImageSet<'a>>,
    ranks: Buffer<u32>,
    keys: Buffer<u32>,
    gram: Option<Buffer<f32>>,
    /// Unit tokens of a block of A and of one of B.
    units: Vec<Units>,
    scores: Buffer<f32>,
    under_way: Vec<(Event, u64)>,
    /// Events to record again.
    passed: Vec<Event>,
}

impl<'a> Worker<'a> {
    pub fn new(card: &Arc<Card>, job: &Job<'a>) -> Result<Self> {
        let (n, l, r) = (job.queries.images, job.queries.patches, job.degrees.len());
        let (blocks, slots) = (job.plan.blocks, job.sizes.slots());
        let stream = card.stream()?;
        let ranks: Vec<u32> =
            job.ranks.iter().flat_map(|&(low, high)| [low as u32, high as u32]).collect();
        let gram = (job.sizes.route == Route::Gram)
            .then(|| card.alloc(job.plan.gram_images * l * GRAM_STRIDE, "Gram block"))
            .transpose()?;
        let units =
            [blocks.0, blocks.1].into_iter().take(job.sizes.unit_blocks(blocks.0.max(blocks.1)));
        let keys = r * job.keys_of_degree(job.plan.group);
        Ok(Worker {
            queries: ImageSet::new(card, job.queries, r, (blocks.0, slots.0))?,
            references: job
                .others
                .map(|set| ImageSet::new(card, set, r, (blocks.1, slots.1)))
                .transpose()?,
            ranks: stream.upload_new(&ranks, "ranks")?,
            keys: card.alloc(keys, "table of largest cosines")?,
            gram,
            units: units.map(|images| Units::new(card, job, images)).collect::<Result<_>>()?,
            scores: card.alloc(r * n * l, "patch scores")?,
            under_way: Vec::new(),
            passed: Vec::new(),
            stream,
        })
    }

    /// Row sums, means and norms of a layer.
    pub fn begin_layer(&mut self, job: &Job<'_>, layer: usize) -> Result<()> {
        let first = self.first_streamed(job);
        self.queries.begin_layer(&self.stream, layer, &job.degrees, first)?;
        match &mut self.references {
            None => Ok(()),
            Some(references) => references.begin_layer(&self.stream, layer, &job.degrees, 0),
        }
    }

    /// The first of the places that blocks of columns take in turn, where the queries see each other.
    fn first_streamed(&self, job: &Job<'_>) -> usize {
        usize::from(job.sizes.route != Route::Local && job.others.is_none())
    }

    /// The pairs with an image of the group in them, `turn.0` of every `turn.1` parts of the work.
    pub fn pairs_of_group(
        &mut self,
        job: &Job<'_>,
        group: &Range<usize>,
        turn: (usize, usize),
        progress: &dyn Progress,
    ) -> Result<()> {
        let used = job.degrees.len() * job.keys_of_degree(group.len());
        self.stream.zero(self.keys.view_mut().part(0..used)?)?;
        let mut held = None;
        for chunk in job.schedule.chunks(group.clone(), turn) {
            go_on(progress)?;
            match job.sizes.route {
                Route::Local => self.local(job, group, &chunk)?,
                Route::Gram | Route::Fused => {
                    self.hold(job, &mut held, Some((chunk.block_a, chunk.block_b)))?;
                    self.product(job, group, &chunk)?;
                }
            }
            self.throttle(chunk.count(), progress)?;
        }
        self.hold(job, &mut held, None)?;
        while !self.under_way.is_empty() {
            self.wait_for_oldest(progress)?;
        }
        Ok(())
    }

    /// The places of a pair of blocks.
    fn slots(&self, (block_a, block_b): (usize, usize)) -> (usize, usize) {
        match self.references {
            None if block_a == block_b => (0, 0),
            None => (0, 1 + block_b % 2),
            Some(_) => (0, block_b % 2),
        }
    }

    /// Lets go of the pair of blocks that is held, and makes sure of the next one.
    fn hold(
        &mut self,
        job: &Job<'_>,
        held: &mut Option<(usize, usize)>,
        next: Option<(usize, usize)>,
    ) -> Result<()> {
        if *held == next {
            return Ok(());
        }
        if let Some(before) = *held {
            let (slot_a, slot_b) = self.slots(before);
            let shared = job.others.is_none() && slot_a == slot_b;
            if !shared {
                let columns = self.references.as_ref().unwrap_or(&self.queries);
                columns.blocks.release(slot_b, &self.stream)?;
            }
            if next.is_none_or(|next| next.0 != before.0) {
                self.queries.blocks.release(slot_a, &self.stream)?;
            }
        }
        if let Some(next) = next {
            let (slot_a, slot_b) = self.slots(next);
            if held.is_none_or(|before| before.0 != next.0) {
                self.queries.blocks.ensure(next.0, slot_a, &self.stream)?;
            }
            let columns = self.references.as_mut().unwrap_or(&mut self.queries);
            columns.blocks.ensure(next.1, slot_b, &self.stream)?;
        }
        *held = next;
        Ok(())
    }

    /// A chunk of products: through a Gram block, or fused.
    fn product(&mut self, job: &Job<'_>, group: &Range<usize>, chunk: &Chunk) -> Result<()> {
        let Features { half, grid, patches: l, stride: width, width: channels, .. } = *job.queries;
        let (slot_a, slot_b) = self.slots((chunk.block_a, chunk.block_b));
        let columns = self.references.as_ref().unwrap_or(&self.queries);
        let tokens_a = self.queries.blocks.tokens(slot_a, &chunk.rows)?;
        let tokens_b = columns.blocks.tokens(slot_b, &chunk.columns)?;
        let block = pair_block(job, chunk);
        let all = 0..job.degrees.len();
        let Some(gram) = &mut self.gram else {
            let sides = (&self.queries.side(all.clone())?, &columns.side(all.clone())?);
            let mut keys = keys_of(&mut self.keys, job, group, all)?;
            let (tokens, sizes) = ((tokens_a, tokens_b), (l, width, channels));
            return patch_distance::max(&self.stream, half, tokens, sides, block, sizes, &mut keys);
        };
        let matrix = |values, images: usize| Matrix { values, rows: images * l, stride: width };
        let operands = Operands {
            half,
            a: matrix(tokens_a, chunk.rows.len()),
            b: matrix(tokens_b, chunk.columns.len()),
            k: width,
        };
        let sides = (&self.queries.side(all.clone())?, &columns.side(all)?);
        let sizes = (l, channels);
        if job.degrees.first() == Some(&1) {
            let mut keys = keys_of(&mut self.keys, job, group, 0..1)?;
            let out = gram.view_mut();
            gemm::gram_max(&self.stream, &operands, block, sizes, sides, out, &mut keys)?;
        } else {
            gemm::gram(&self.stream, &operands, block, sizes, sides, gram.view_mut())?;
        }
        for run in &job.launches {
            let sides = (&self.queries.side(run.clone())?, &columns.side(run.clone())?);
            let mut keys = keys_of(&mut self.keys, job, group, run.clone())?;
            let degrees = &job.degrees[run.clone()];
            let gram = gram.view();
            gram_pool::pool(&self.stream, gram, sides, block, grid, degrees, &mut keys)?;
        }
        Ok(())
    }

    /// A chunk of patches near each other's place.
    fn local(&mut self, job: &Job<'_>, group: &Range<usize>, chunk: &Chunk) -> Result<()> {
        let [units_a, others @ ..] = self.units.as_mut_slice() else { return Ok(()) };
        units_a.ensure(job, &mut self.queries, chunk.block_a, &self.stream)?;
        let shared = job.others.is_none() && chunk.block_a == chunk.block_b;
        if let ([units_b], false) = (&mut *others, shared) {
            let columns = self.references.as_mut().unwrap_or(&mut self.queries);
            units_b.ensure(job, columns, chunk.block_b, &self.stream)?;
        }
        let units_b = if shared { &*units_a } else { others.first().unwrap_or(units_a) };
        let columns = self.references.as_ref().unwrap_or(&self.queries);
        let (of_a, of_b) =
            (self.queries.blocks.images(chunk.block_a), columns.blocks.images(chunk.block_b));
        let sets = (job.queries.images, job.references().images);
        for degree in 0..job.degrees.len() {
            let tokens = (
                units_a.tokens(
                    degree,
                    &(chunk.rows.start - of_a.start..chunk.rows.end - of_a.start),
                )?,
                units_b.tokens(
                    degree,
                    &(chunk.columns.start - of_b.start..chunk.columns.end - of_b.start),
                )?,
            );
            let mut keys = keys_of(&mut self.keys, job, group, degree..degree + 1)?;
            let (shape, block) = (job.token_shape(), pair_block(job, chunk));
            local_distance::max(&self.stream, &shape, tokens, sets, block, job.radius, &mut keys)?;
        }
        Ok(())
    }

    /// Lets a few chunks run ahead of the host.
    fn throttle(&mut self, pairs: u64, progress: &dyn Progress) -> Result<()> {
        let event = match self.passed.pop() {
            Some(event) => event,
            None => self.stream.card().event()?,
        };
        self.stream.record(&event)?;
        self.under_way.push((event, pairs));
        if self.under_way.len() > UNDER_WAY { self.wait_for_oldest(progress) } else { Ok(()) }
    }

    fn wait_for_oldest(&mut self, progress: &dyn Progress) -> Result<()> {
        let (event, pairs) = self.under_way.remove(0);
        event.synchronise()?;
        self.passed.push(event);
        progress.advance(pairs);
        Ok(())
    }

    /// Takes the references that a query does not see out of its rows of keys.
    fn forget_unseen(&mut self, job: &Job<'_>, group: &Range<usize>) -> Result<()> {
        let (m, l) = (job.references().images, job.queries.patches);
        let kept = job.keys_of_degree(group.len());
        for (row, query) in group.clone().enumerate() {
            let Some(unseen) = job.unseen.get(query) else { continue };
            for run in unseen.chunk_by(|a, b| a + 1 == *b) {
                let (Some(first), count) = (run.first(), run.len()) else { continue };
                for degree in 0..job.degrees.len() {
                    let at = degree * kept + (row * m + first) * l;
                    self.stream.zero(self.keys.view_mut().part(at..at + count * l)?)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what no kernel wrote: keys of places where nothing of a reference is left within the radius.
    fn see_nothing(&mut self, job: &Job<'_>, group: &Range<usize>) -> Result<()> {
        if job.blind.is_empty() {
            return Ok(());
        }
        let of_query = job.keys_of_degree(1);
        for at in 0..job.degrees.len() * group.len() {
            let query = group.start + at % group.len();
            let itself = [query];
            let unseen = match job.others {
                None => &itself[..],
                Some(_) => job.unseen.get(query).map_or(&[][..], Vec::as_slice),
            };
            let at = at * of_query..(at + 1) * of_query;
            let mut keys = self.stream.download_new(self.keys.view().part(at.clone())?)?;
            left_out::farthest(&mut keys, &job.blind, job.queries.patches, unseen);
            self.stream.upload(self.keys.view_mut().part(at)?, &keys)?;
        }
        Ok(())
    }

    /// The group's keys `[R, group, M, L]`, copied to the host.
    pub fn keys_of_group(&self, job: &Job<'_>, group: &Range<usize>) -> Result<Vec<u32>> {
        let used = job.degrees.len() * job.keys_of_degree(group.len());
        self.stream.download_new(self.keys.view().part(0..used)?)
    }

    /// The scores of the group's images from their keys, into `scores` `[R, N, L]`.
    fn means(&mut self, job: &Job<'_>, group: &Range<usize>, scores: &mut [f32]) -> Result<()> {
        let (n, m, l) = (job.queries.images, job.references().images, job.queries.patches);
        let kept = job.keys_of_degree(group.len());
        for degree in 0..job.degrees.len() {
            for start in group.clone().step_by(MAX_LAUNCH_IMAGES) {
                let end = group.end.min(start + MAX_LAUNCH_IMAGES);
                let row = |image: usize| degree * kept + (image - group.start) * m * l;
                let keys = self.keys.view().part(row(start)..row(end))?;
                let out = self.scores.view_mut();
                let out = out.part((degree * n + start) * l..(degree * n + end) * l)?;
                let ranks = self.ranks.view().part(2 * start..2 * end)?;
                interval_mean::keys(&self.stream, keys, out, (m, l), end - start, ranks)?;
            }
        }
        for degree in 0..job.degrees.len() {
            let at = (degree * n + group.start) * l..(degree * n + group.end) * l;
            self.stream.download(self.scores.view().part(at.clone())?, &mut scores[at])?;
        }
        Ok(())
    }
}

/// Rows of keys of a group in a run of degrees.
fn keys_of<'a>(
    keys: &'a mut Buffer<u32>,
    job: &Job<'_>,
    group: &Range<usize>,
    degrees: Range<usize>,
) -> Result<Keys<'a>> {
    let kept = job.keys_of_degree(group.len());
    Ok(Keys {
        keys: keys.view_mut().part(degrees.start * kept..degrees.end * kept)?,
        images: job.references().images,
        first_kept: group.start,
        kept: group.len(),
    })
}

fn pair_block(job: &Job<'_>, chunk: &Chunk) -> PairBlock {
    PairBlock {
        first_a: chunk.rows.start,
        images_a: chunk.rows.len(),
        first_b: chunk.columns.start,
        images_b: chunk.columns.len(),
        symmetric: job.others.is_none(),
    }
}

/// Runs `work` for every card at once.
pub(super) fn on_all<'a>(
    workers: &mut [Worker<'a>],
    work: impl Fn(usize, &mut Worker<'a>) -> Result<()> + Sync,
) -> Result<()> {
    super::at_once(workers.iter_mut().enumerate(), |(at, worker)| work(at, worker)).map(drop)
}

/// The group's keys of all cards into the first one's table.
pub(super) fn merge_keys(
    merge: &mut Merge,
    workers: &mut [Worker<'_>],
    job: &Job<'_>,
    group: &Range<usize>,
) -> Result<()> {
    let used = job.degrees.len() * job.keys_of_degree(group.len());
    let [first, others @ ..] = workers else { return Ok(()) };
    let others: Vec<_> = others.iter().map(|other| (&other.stream, &other.keys)).collect();
    merge.keys((&first.stream, &mut first.keys), &others, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_cut_where_a_launch_is_full() {
        let square = Grid::square;
        assert_eq!(launches(square(37), &[1, 3, 5], 99 << 10), vec![1..3; 1]);
        assert_eq!(launches(square(37), &[1], 64 << 10), vec![0..0; 0]);
        assert_eq!(launches(square(37), &[3], 64 << 10), vec![0..1; 1]);
        for grid in [square(64), Grid::new(128, 64), Grid::new(3, 128)] {
            for degrees in [&[1, 3, 5, 7][..], &[3, 7], &[1, 5, 7]] {
                for shared in [64 << 10, 99 << 10, 227 << 10] {
                    let runs = launches(grid, degrees, shared);
                    let first = usize::from(degrees[0] == 1);
                    assert_eq!(runs.first().map(|run| run.start), Some(first));
                    assert_eq!(runs.last().map(|run| run.end), Some(degrees.len()));
                    assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].start));
                }
            }
        }
    }
}
