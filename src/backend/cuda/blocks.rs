//! Blocks of one set on cards: the pairs of two runs of images, and scores from a whole table.
//!
//! Two runs are joined into one small set, so that every kernel, plan and schedule is that of a set scored against itself; of
//! its pairs only those across the runs are computed. Large runs are taken in tiles, since a joined set's table has room for
//! the pairs inside the runs, too.

use std::ops::Range;

use super::features::{Features, Place};
use super::launch::interval_mean;
use super::merge::Merge;
use super::patch_scores::{Job, Worker, merge_keys, on_all};
use super::plan::{ScoringSizes, SetSizes};
use super::{Card, Cuda};
use crate::backend::References;
use crate::backend::blocks::{BestCosines, Pairs, QueryTable, Run};
use crate::backend::features::join_marks;
use crate::progress::go_on;
use crate::scoring::MutualScoring;
use crate::{Error, Progress, Result, Stage};

/// The share of what is free on a card that a tile's table may take.
const TABLE_SHARE: u64 = 4;

/// A part of the pairs: a run of the rows' images, and one of the columns' where those are others.
type Tile = (Range<usize>, Option<Range<usize>>);

/// See [`Backend::best_cosines`](crate::backend::Backend::best_cosines). The runs have been checked.
pub(super) fn of_pairs(
    cuda: &Cuda,
    pairs: &Pairs<'_, Features>,
    scoring: &MutualScoring,
    progress: &dyn Progress,
) -> Result<BestCosines> {
    let scoring = scoring.clone().with_radius(None).with_table_bytes(None);
    let ((n, m), (of_rows, of_columns)) = (pairs.sizes(), pairs.ways());
    let patches = pairs.rows.features.patches;
    let cells = scoring.degrees.len() * n * m * patches;
    let room = |wanted: bool| vec![0u32; if wanted { cells } else { 0 }];
    let mut found = BestCosines { of_rows: room(of_rows), of_columns: room(of_columns) };
    for (rows, columns) in tiles(cuda, pairs, scoring.degrees.len())? {
        go_on(progress)?;
        let run = |run: &Run<'_, Features>, part: &Range<usize>| {
            let start = run.images.start;
            (start + part.start..start + part.end, run.layer)
        };
        let mut runs = vec![(pairs.rows.features, run(&pairs.rows, &rows))];
        if let Some(columns) = &columns {
            let of = pairs.columns.as_ref().unwrap_or(&pairs.rows);
            runs.push((of.features, run(of, columns)));
        }
        let joined = joined(cuda, &runs)?;
        let (split, all) = (rows.len(), joined.images);
        // Of one run each image is both a row and a column.
        let alone = pairs.columns.is_none();
        let kept = match (alone || of_rows, alone || of_columns) {
            (true, true) => 0..all,
            (true, false) => 0..split,
            _ => split..all,
        };
        let between = columns.as_ref().map(|_| split);
        table_of(cuda, &joined, (between, kept), &scoring, progress, |degree, query, cosines| {
            // Of one run with itself both ends are its rows; a tile beside the diagonal is both.
            let first = query < split;
            let (at, others) = match (&columns, first) {
                (None, _) => (rows.start + query, rows.clone()),
                (Some(columns), true) => (rows.start + query, columns.clone()),
                (Some(columns), false) => (columns.start + query - split, rows.clone()),
            };
            let from = if columns.is_some() && first { split } else { 0 } * patches;
            let (table, width) = match (alone, first) {
                (true, _) | (false, true) => (&mut found.of_rows, m),
                (false, false) => (&mut found.of_columns, n),
            };
            let height = if alone || first { n } else { m };
            let to = ((degree * height + at) * width + others.start) * patches;
            let count = others.len() * patches;
            table[to..to + count].copy_from_slice(&cosines[from..from + count]);
        })?;
        let (a, b) = (split as u64, (all - split) as u64);
        progress.advance(if columns.is_none() { a * (a - 1) / 2 } else { a * b });
    }
    Ok(found)
}

/// The pairs cut so that the table of a joined tile fits.
fn tiles(cuda: &Cuda, pairs: &Pairs<'_, Features>, degrees: usize) -> Result<Vec<Tile>> {
    let (n, m) = pairs.sizes();
    let mut available = u64::MAX;
    for card in &cuda.cards {
        available = available.min(card.available_bytes()?);
    }
    let a_pair = (degrees * pairs.rows.features.patches * size_of::<u32>()) as u64;
    let joined = (available / TABLE_SHARE / a_pair.max(1)).isqrt();
    let side = usize::try_from(joined / 2).unwrap_or(usize::MAX).max(1);
    let pieces = |all: usize| -> Vec<Range<usize>> {
        (0..all).step_by(side).map(|start| start..all.min(start.saturating_add(side))).collect()
    };
    let (of_rows, of_columns) = (pieces(n), pieces(m));
    let across = |(at, rows): (usize, &Range<usize>)| -> Vec<Tile> {
        let first = if pairs.columns.is_none() { at + 1 } else { 0 };
        of_columns[first..].iter().map(|columns| (rows.clone(), Some(columns.clone()))).collect()
    };
    let mut tiles: Vec<Tile> = Vec::new();
    if pairs.columns.is_none() {
        // One image has no pair.
        tiles.extend(of_rows.iter().filter(|rows| rows.len() > 1).map(|rows| (rows.clone(), None)));
    }
    tiles.extend(of_rows.iter().enumerate().flat_map(across));
    Ok(tiles)
}

/// One layer of some runs of images, as one set: on the card where it fits there.
fn joined(cuda: &Cuda, runs: &[(&Features, (Range<usize>, usize))]) -> Result<Features> {
    let (first, (_, layer)) = &runs[0];
    let images = runs.iter().map(|(_, (run, _))| run.len()).sum();
    let mut tokens: Vec<u16> = Vec::with_capacity(images * first.image_values());
    let mut left_out = Vec::new();
    let mut count = 0;
    for (features, (run, layer)) in runs {
        let values = features.image_values();
        let range = run.start * values..run.end * values;
        let absent = || Error::invalid("feature layer index", layer, "one of the features");
        match &features.place {
            Place::Host(layers) => {
                tokens.extend_from_slice(&layers.get(*layer).ok_or_else(absent)?[range]);
            }
            Place::Card(layers) => {
                let layer = layers.get(*layer).ok_or_else(absent)?;
                let stream = layer.card().stream()?;
                tokens.extend(stream.download_new(layer.view().part(range)?)?);
            }
        }
        let patches = features.patches;
        let marks = features.left_out.get(run.start * patches..run.end * patches);
        let marks = marks.unwrap_or_default();
        join_marks((&mut left_out, count), (marks, run.len()), patches);
        count += run.len();
    }
    let token_bytes = size_of_val(&tokens[..]) as u64;
    let set = SetSizes { images, on_card: true };
    let scoring = MutualScoring::default();
    let sizes = ScoringSizes::new(set, None, (first.grid, first.stride), &scoring);
    let place = match cuda.card_that_holds(token_bytes, 0, &sizes)? {
        Some(card) => Place::Card(vec![card.stream()?.upload_new(&tokens, "patch tokens")?]),
        None => {
            let mut pinned = cuda.pinned(1, tokens.len())?;
            for to in &mut pinned {
                to.copy_from_slice(&tokens);
            }
            Place::Host(pinned)
        }
    };
    Ok(Features {
        images,
        grid: first.grid,
        patches: first.patches,
        width: first.width,
        stride: first.stride,
        layers: vec![first.layers[*layer]],
        half: first.half,
        place,
        class_width: 0,
        class_tokens: Vec::new(),
        content: vec![0; images],
        left_out: if left_out.contains(&true) { left_out } else { Vec::new() },
    })
}

/// The table of a small set: `row` gets the degree (as asked for), the image and its keys `[N, L]`, for each of the images
/// that are kept. With a split only the pairs across it are computed.
fn table_of(
    cuda: &Cuda,
    set: &Features,
    (split, kept): (Option<usize>, Range<usize>),
    scoring: &MutualScoring,
    progress: &dyn Progress,
    mut row: impl FnMut(usize, usize, &[u32]),
) -> Result<()> {
    let mut job = Job::new(&cuda.cards, set, References::Others, scoring)?;
    if let Some(split) = split {
        job.schedule = job.schedule.across(split);
    }
    let quiet = Quiet(progress);
    let mut workers =
        cuda.cards.iter().map(|card| Worker::new(card, &job)).collect::<Result<Vec<_>>>()?;
    let mut merge = Merge::new(&cuda.cards)?;
    on_all(&mut workers, |_, worker| worker.begin_layer(&job, 0))?;
    for start in kept.clone().step_by(job.plan.group) {
        let group = start..kept.end.min(start + job.plan.group);
        let count = cuda.cards.len();
        on_all(&mut workers, |at, worker| {
            worker.pairs_of_group(&job, &group, (at, count), &quiet)
        })?;
        merge_keys(&mut merge, &mut workers, &job, &group)?;
        let Some(first) = workers.first_mut() else { continue };
        let of_query = set.images * set.patches;
        let keys = first.keys_of_group(&job, &group)?;
        for (at, keys) in keys.chunks_exact(of_query).enumerate() {
            let degree = job.degrees[at / group.len()];
            let query = group.start + at % group.len();
            for (asked, _) in scoring.degrees.iter().enumerate().filter(|(_, of)| **of == degree) {
                row(asked, query, keys);
            }
        }
    }
    Ok(())
}

/// Stops, but tells of nothing: pairs across groups are computed twice, and are told of once.
struct Quiet<'a>(&'a dyn Progress);

impl Progress for Quiet<'_> {
    fn begin(&self, _: Stage, _: u64) {}

    fn stopped(&self) -> bool {
        self.0.stopped()
    }
}

/// `[R, n, L]`, see [`Backend::scores_of_table`](crate::backend::Backend::scores_of_table), on the first card. The table has
/// been checked.
pub(super) fn scores_of_table(
    cuda: &Cuda,
    table: &QueryTable<'_>,
    scoring: &MutualScoring,
) -> Result<Vec<f32>> {
    let (images, patches) = (table.images, table.grid.patches());
    let (queries, of_query) = (table.queries.len(), images * patches);
    let Some(card) = cuda.cards.first() else { return Ok(Vec::new()) };
    let (first, last) = scoring.ranks(images.saturating_sub(1));
    let together = together(card, of_query)?;
    let stream = card.stream()?;
    let mut scores = vec![0.0f32; scoring.degrees.len() * queries * patches];
    let planes = scores.chunks_exact_mut((queries * patches).max(1));
    for (scores, keys) in planes.zip(table.cosines.chunks_exact((queries * of_query).max(1))) {
        for start in (0..queries).step_by(together) {
            let part = start..queries.min(start + together);
            let keys = &keys[part.start * of_query..part.end * of_query];
            let mut keys = stream.upload_new(keys, "table of largest cosines")?;
            for (row, query) in part.clone().enumerate() {
                // An image does not see itself: a key of 0 takes no part.
                let at = (row * images + table.queries.start + query) * patches;
                stream.zero(keys.view_mut().part(at..at + patches)?)?;
            }
            let ranks = [first as u32, last as u32].repeat(part.len());
            let ranks = stream.upload_new(&ranks, "ranks")?;
            let mut out = card.alloc(part.len() * patches, "patch scores")?;
            let sizes = (images, patches);
            interval_mean::keys(
                &stream,
                keys.view(),
                out.view_mut(),
                sizes,
                part.len(),
                ranks.view(),
            )?;
            let to = &mut scores[part.start * patches..part.end * patches];
            stream.download(out.view(), to)?;
        }
        for (score, _) in scores.iter_mut().zip(table.left_out).filter(|(_, out)| **out) {
            *score = 0.0;
        }
    }
    Ok(scores)
}

/// Queries whose keys go to a card together.
fn together(card: &Card, of_query: usize) -> Result<usize> {
    /// Blocks of a launch along an axis.
    const MOST: u64 = 0xffff;
    let bytes = (of_query * size_of::<u32>()).max(1) as u64;
    Ok((card.available_bytes()? / 2 / bytes).clamp(1, MOST) as usize)
}
