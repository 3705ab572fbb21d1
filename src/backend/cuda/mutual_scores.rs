//! MSM on cards: Gram blocks of runs of images, pooled for every degree, and the mean of the lowest distances.
//!
//! A layer's pairs i < j are dealt out in chunks: a run of images A against a run of images B. A chunk is one product,
//! one pooling, and every pair of images is in one chunk only, so a key is written by one card and the sums of a pair
//! are the same bits however the work is cut: in groups, in blocks from the host, on any number of cards.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::Buffer;
use super::card::Card;
use super::features::{Blocks, Features};
use super::launch::gemm::Operands;
use super::launch::gram_pool::Shape;
use super::launch::lnamd::Statistics;
use super::launch::{
    GRAM_STRIDE, Keys, MAX_DEGREE, MAX_DEGREES, MAX_PATCHES, Matrix, PairBlock, Side, gemm,
    gram_pool, interval_mean, lnamd, patch_distance,
};
use super::plan::{ScoringPlan, ScoringSizes};
use super::stream::{Event, Stream};
use crate::backend::Monitor;
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Grid, Result};

/// Chunks that may be under way before the host waits: enough to keep a card busy, few enough to stop soon.
const UNDER_WAY: usize = 4;

/// Scores the features on the cards. The options have been checked.
pub(super) fn mutual_scores(
    cards: &[Arc<Card>],
    features: &Features,
    scoring: &MutualScoring,
    monitor: &dyn Monitor,
) -> Result<PatchScores> {
    let job = Job::new(cards, features, scoring)?;
    let plane = features.images * features.patches;
    let layers = features.layers.len();
    let mut by_degree_layer = vec![0.0f32; scoring.degrees.len() * layers * plane];
    let mut workers =
        cards.iter().map(|card| Worker::new(card, &job)).collect::<Result<Vec<_>>>()?;
    for layer in 0..layers {
        on_all(&mut workers, |_, worker| worker.begin_layer(&job, layer))?;
        for start in (0..features.images).step_by(job.plan.group) {
            let group = start..features.images.min(start + job.plan.group);
            let count = cards.len();
            on_all(&mut workers, |at, worker| {
                worker.pairs_of_group(&job, &group, (at, count), monitor)
            })?;
            merge_keys(&mut workers, &job, &group)?;
            if let Some(first) = workers.first_mut() {
                first.means(&job, &group)?;
            }
        }
        let Some(first) = workers.first_mut() else { continue };
        let scores = first.stream.download_new(first.scores.view())?;
        // The scores are by ascending degree; the result is in the order that was asked for.
        for (at, degree) in scoring.degrees.iter().enumerate() {
            let Some(from) = job.degrees.iter().position(|sorted| sorted == degree) else {
                continue;
            };
            by_degree_layer[(at * layers + layer) * plane..][..plane]
                .copy_from_slice(&scores[from * plane..][..plane]);
        }
    }
    Ok(PatchScores {
        images: features.images,
        patches: features.patches,
        degrees: scoring.degrees.clone(),
        layers,
        by_degree_layer,
    })
}

/// The steps that the monitor will be advanced by.
pub(super) fn steps(
    cards: &[Arc<Card>],
    features: &Features,
    scoring: &MutualScoring,
) -> Result<u64> {
    let job = Job::new(cards, features, scoring)?;
    Ok(MutualScoring::pairs_in_groups(features.images, job.plan.group)
        * features.layers.len() as u64)
}

/// What all cards have in common.
struct Job<'a> {
    features: &'a Features,
    grid: Grid,
    /// Ascending, each once.
    degrees: Vec<usize>,
    /// Runs of `degrees` that one launch takes.
    launches: Vec<Range<usize>>,
    ranks: Range<usize>,
    sizes: ScoringSizes,
    plan: ScoringPlan,
}

impl<'a> Job<'a> {
    fn new(cards: &[Arc<Card>], features: &'a Features, scoring: &MutualScoring) -> Result<Self> {
        let grid = Grid::of_square(features.patches).unwrap_or(Grid::new(1, features.patches));
        let mut degrees = scoring.degrees.clone();
        degrees.sort_unstable();
        degrees.dedup();
        if let Some(&large) = degrees.iter().find(|&&degree| degree > MAX_DEGREE) {
            return Err(Error::invalid(
                "aggregation degree r, on a card",
                large,
                format!("at most {MAX_DEGREE}; --device cpu takes any"),
            ));
        }
        if grid.patches() > MAX_PATCHES {
            return Err(Error::invalid(
                "patches of an image, on a card",
                grid.patches(),
                format!("at most {MAX_PATCHES}: choose a smaller image size"),
            ));
        }
        let fused = degrees == [1];
        let sizes = ScoringSizes {
            images: features.images,
            patches: features.patches,
            width: features.stride,
            degrees: degrees.len(),
            fused,
            on_card: features.on_card(),
        };
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
                "scoring {} images of {} patch tokens (the least it can do with)",
                features.images, features.patches
            ),
            need: sizes.least(),
            have: available,
        })?;
        let launches = launches(grid, &degrees, shared);
        let (first, last) = scoring.ranks(features.images);
        Ok(Job { features, grid, degrees, launches, ranks: first..last, sizes, plan })
    }

    /// Keys of a group of images in all degrees.
    fn keys_of_group(&self, group: &Range<usize>) -> usize {
        self.degrees.len() * group.len() * self.features.images * self.features.patches
    }
}

/// Degrees cut into runs that one launch can take.
fn launches(grid: Grid, degrees: &[usize], shared_bytes: u32) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
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
struct Worker<'a> {
    stream: Stream,
    row_sum: Buffer<f32>,
    mean: Buffer<f32>,
    inv_norm: Buffer<f32>,
    keys: Buffer<u32>,
    gram: Option<Buffer<f32>>,
    scores: Buffer<f32>,
    ranks: Buffer<u32>,
    blocks: Blocks<'a>,
    under_way: Vec<(Event, u64)>,
}

impl<'a> Worker<'a> {
    fn new(card: &Arc<Card>, job: &Job<'a>) -> Result<Self> {
        let (n, l, r) = (job.features.images, job.features.patches, job.degrees.len());
        let gram = (!job.sizes.fused)
            .then(|| card.alloc(job.plan.gram_images * l * GRAM_STRIDE, "Gram block"))
            .transpose()?;
        let stream = card.stream()?;
        let ranks = [job.ranks.start as u32, job.ranks.end as u32].repeat(n);
        let ranks = stream.upload_new(&ranks, "ranks")?;
        Ok(Worker {
            stream,
            ranks,
            row_sum: card.alloc(n * l, "row sums")?,
            mean: card.alloc(n, "means")?,
            inv_norm: card.alloc(r * n * l, "norms")?,
            keys: card
                .alloc(job.keys_of_group(&(0..job.plan.group)), "table of largest cosines")?,
            gram,
            scores: card.alloc(r * n * l, "patch scores")?,
            blocks: Blocks::new(card, job.features, job.plan.block)?,
            under_way: Vec::new(),
        })
    }

    /// Row sums, means and norms of a layer.
    fn begin_layer(&mut self, job: &Job<'_>, layer: usize) -> Result<()> {
        let features = job.features;
        let (n, l) = (features.images, features.patches);
        self.blocks.set_layer(layer);
        for block in 0..self.blocks.count() {
            // The slots of B in turn.
            let slot = 1 + block % 2;
            self.blocks.ensure(block, slot, &self.stream)?;
            let images = self.blocks.images(block);
            let tokens = self.blocks.tokens(slot, &images)?;
            let widths = (features.stride, features.width);
            for (chunk, degrees) in job.degrees.chunks(MAX_DEGREES).enumerate() {
                let first_degree = chunk * MAX_DEGREES;
                let out = Statistics {
                    row_sum: self.row_sum.view_mut().part(images.start * l..images.end * l)?,
                    mean: self.mean.view_mut().part(images.clone())?,
                    inv_norm: self
                        .inv_norm
                        .view_mut()
                        .part((first_degree * n + images.start) * l..job.degrees.len() * n * l)?,
                    norm_images: n,
                };
                let sizes = (images.len(), job.grid);
                lnamd::statistics(
                    &self.stream,
                    features.half,
                    tokens,
                    sizes,
                    widths,
                    degrees,
                    &out,
                )?;
            }
            self.blocks.release(slot, &self.stream)?;
        }
        let means = self.stream.download_new(self.mean.view())?;
        match means.iter().position(|mean| !mean.is_finite()) {
            None => Ok(()),
            Some(image) => Err(Error::invalid(
                format!(
                    "patch tokens of layer {} of image {image} in {}",
                    features.layers[layer],
                    features.half.name()
                ),
                "numbers that are not finite",
                "finite ones: try bf16, whose range is that of f32",
            )),
        }
    }

    /// The pairs i < j with an image of the group in them, `turn.0` of every `turn.1` parts of the work.
    fn pairs_of_group(
        &mut self,
        job: &Job<'_>,
        group: &Range<usize>,
        (turn, turns): (usize, usize),
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let used = job.keys_of_group(group);
        self.stream.zero(self.keys.view_mut().part(0..used)?)?;
        let mut part = 0;
        // The group's images against all that come after the first of them; those before, against the group.
        let rectangles =
            [(group.clone(), group.start..job.features.images), (0..group.start, group.clone())];
        for (rows, columns) in rectangles {
            for block_a in overlapping(&rows, self.blocks.size) {
                let a = overlap(&self.blocks.images(block_a), &rows);
                let mut loaded = false;
                for block_b in overlapping(&columns, self.blocks.size) {
                    let b = overlap(&self.blocks.images(block_b), &columns);
                    let b = b.start.max(a.start + 1)..b.end;
                    if b.is_empty() {
                        continue;
                    }
                    let several = self.blocks.count() > 1;
                    if several {
                        part += 1;
                        if (part - 1) % turns != turn {
                            continue;
                        }
                    }
                    if !loaded {
                        self.blocks.ensure(block_a, 0, &self.stream)?;
                        loaded = true;
                    }
                    let slot_b = if block_b == block_a { 0 } else { 1 + block_b % 2 };
                    self.blocks.ensure(block_b, slot_b, &self.stream)?;
                    let slots = (0, slot_b);
                    for rows in pieces(&a, job.plan.gram_images) {
                        let first = b.start.max(rows.start + 1);
                        for columns in pieces(&(first..b.end.max(first)), job.sizes.gram_columns())
                        {
                            if !several {
                                part += 1;
                                if (part - 1) % turns != turn {
                                    continue;
                                }
                            }
                            if monitor.stopped() {
                                return Err(Error::Interrupted);
                            }
                            self.chunk(job, group, slots, &rows, &columns)?;
                            self.throttle(pairs(&rows, &columns), monitor)?;
                        }
                    }
                    if slot_b != 0 {
                        self.blocks.release(slot_b, &self.stream)?;
                    }
                }
                if loaded {
                    self.blocks.release(0, &self.stream)?;
                }
            }
        }
        while !self.under_way.is_empty() {
            self.wait_for_oldest(monitor)?;
        }
        Ok(())
    }

    /// One run of images against another.
    fn chunk(
        &mut self,
        job: &Job<'_>,
        group: &Range<usize>,
        (slot_a, slot_b): (usize, usize),
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> Result<()> {
        let features = job.features;
        let (n, l, width) = (features.images, features.patches, features.stride);
        let block = PairBlock {
            first_a: rows.start,
            images_a: rows.len(),
            first_b: columns.start,
            images_b: columns.len(),
            symmetric: true,
        };
        let tokens_a = self.blocks.tokens(slot_a, rows)?;
        let tokens_b = self.blocks.tokens(slot_b, columns)?;
        let kept = group.len() * n * l;
        let Some(gram) = &mut self.gram else {
            let side = Side {
                row_sum: self.row_sum.view(),
                mean: self.mean.view(),
                inv_norm: self.inv_norm.view(),
                images: n,
            };
            let mut keys = Keys {
                keys: self.keys.view_mut().part(0..kept)?,
                images: n,
                first_kept: group.start,
                kept: group.len(),
            };
            let tokens = (tokens_a, tokens_b);
            let sizes = (l, width, features.width);
            let half = features.half;
            return patch_distance::max(
                &self.stream,
                half,
                tokens,
                (&side, &side),
                block,
                sizes,
                &mut keys,
            );
        };
        let matrix = |values, images: usize| Matrix { values, rows: images * l, stride: width };
        let operands = Operands {
            half: features.half,
            a: matrix(tokens_a, rows.len()),
            b: matrix(tokens_b, columns.len()),
            k: width,
        };
        let side = Side {
            row_sum: self.row_sum.view(),
            mean: self.mean.view(),
            inv_norm: self.inv_norm.view(),
            images: n,
        };
        let sizes = (l, features.width);
        gemm::gram(&self.stream, &operands, block, sizes, (&side, &side), gram.view_mut())?;
        for run in &job.launches {
            let mut keys = Keys {
                keys: self.keys.view_mut().part(run.start * kept..run.end * kept)?,
                images: n,
                first_kept: group.start,
                kept: group.len(),
            };
            let inv_norm = self.inv_norm.view().part(run.start * n * l..run.end * n * l)?;
            let side = Side { inv_norm, ..side };
            let degrees = &job.degrees[run.clone()];
            gram_pool::pool(
                &self.stream,
                gram.view(),
                (&side, &side),
                block,
                job.grid,
                degrees,
                &mut keys,
            )?;
        }
        Ok(())
    }

    /// Lets a few chunks run ahead of the host.
    fn throttle(&mut self, pairs: u64, monitor: &dyn Monitor) -> Result<()> {
        let event = self.stream.card().event()?;
        self.stream.record(&event)?;
        self.under_way.push((event, pairs));
        if self.under_way.len() > UNDER_WAY { self.wait_for_oldest(monitor) } else { Ok(()) }
    }

    fn wait_for_oldest(&mut self, monitor: &dyn Monitor) -> Result<()> {
        let (event, pairs) = self.under_way.remove(0);
        event.synchronise()?;
        monitor.advance(pairs);
        Ok(())
    }

    /// The scores of the group's images, from their keys.
    fn means(&mut self, job: &Job<'_>, group: &Range<usize>) -> Result<()> {
        let (n, l) = (job.features.images, job.features.patches);
        let kept = group.len() * n * l;
        for degree in 0..job.degrees.len() {
            let keys = self.keys.view().part(degree * kept..(degree + 1) * kept)?;
            let first = (degree * n + group.start) * l;
            let scores = self.scores.view_mut().part(first..first + group.len() * l)?;
            let ranks = self.ranks.view().part(0..2 * group.len())?;
            interval_mean::keys(&self.stream, keys, scores, (n, l), group.len(), ranks)?;
        }
        self.stream.synchronise()
    }
}

/// Runs `work` for every card at once.
fn on_all<'a>(
    workers: &mut [Worker<'a>],
    work: impl Fn(usize, &mut Worker<'a>) -> Result<()> + Sync,
) -> Result<()> {
    if let [only] = workers {
        return work(0, only);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = workers
            .iter_mut()
            .enumerate()
            .map(|(at, worker)| scope.spawn(move || work(at, worker)))
            .collect();
        // All are waited for; the first error is told.
        let results: Vec<Result<()>> = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        results.into_iter().collect()
    })
}

/// Every key was written by one card, and is 0 on the others: the largest of each is the table, on the first card.
fn merge_keys(workers: &mut [Worker<'_>], job: &Job<'_>, group: &Range<usize>) -> Result<()> {
    let used = job.keys_of_group(group);
    let [first, others @ ..] = workers else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    let mut table = first.stream.download_new(first.keys.view().part(0..used)?)?;
    for other in others {
        let keys = other.stream.download_new(other.keys.view().part(0..used)?)?;
        for (largest, key) in table.iter_mut().zip(keys) {
            *largest = (*largest).max(key);
        }
    }
    first.stream.upload(first.keys.view_mut().part(0..used)?, &table)
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// The blocks of `size` images that hold some of `images`.
fn overlapping(images: &Range<usize>, size: usize) -> Range<usize> {
    if images.is_empty() { 0..0 } else { images.start / size..images.end.div_ceil(size) }
}

/// A range in pieces of `size`.
fn pieces(range: &Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(size.max(1)).map(move |start| start..end.min(start + size))
}

/// Pairs i < j of two runs of images.
fn pairs(rows: &Range<usize>, columns: &Range<usize>) -> u64 {
    rows.clone().map(|i| columns.end.saturating_sub(columns.start.max(i + 1)) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_two_runs() {
        assert_eq!(pairs(&(0..3), &(1..4)), 6);
        assert_eq!(pairs(&(0..2), &(5..9)), 8);
        assert_eq!(pairs(&(4..5), &(5..5)), 0);
    }

    #[test]
    fn degrees_are_cut_where_a_launch_is_full() {
        assert_eq!(launches(Grid::square(37), &[1, 3, 5], 99 << 10), vec![0..3; 1]);
        assert_eq!(launches(Grid::square(37), &[1], 64 << 10), vec![0..1; 1]);
        for degrees in [&[1, 3, 5, 7][..], &[3, 7], &[1, 5, 7]] {
            for shared in [64 << 10, 99 << 10, 227 << 10] {
                let runs = launches(Grid::square(64), degrees, shared);
                assert_eq!(runs.first().map(|run| run.start), Some(0));
                assert_eq!(runs.last().map(|run| run.end), Some(degrees.len()));
                assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        }
    }
}
