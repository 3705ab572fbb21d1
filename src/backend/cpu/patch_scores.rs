//! MSM on the CPU: every pair of images once, a group of queries at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use pulp::Arch;
use rayon::prelude::*;

use super::TABLE_BYTES;
use super::aligned::{Aligned, LANES};
use super::centred::Centred;
use super::gram_pool::{GramPool, Pair, row_stride};
use super::interval_mean::{IntervalMeans, interval_mean};
use super::local_distance::local_distance;
use super::sides::{Sides, left_out_of};
use crate::progress::go_on;
use crate::scoring::schedule::Schedule;
use crate::scoring::{MutualScoring, PatchScores};
use crate::simd::Way;
use crate::{Grid, Progress, Result, Stage};

/// Pairs are visited in tiles of this many images a side, so that a tile's tokens stay in the last-level cache.
pub(super) const TILE_IMAGES: usize = 8;

/// Scores on the current thread pool. The options have been checked.
///
/// `ready` has the layers of the references where they have been made ready before.
pub fn patch_scores(
    sides: &Sides<'_>,
    ready: Option<&[Centred]>,
    scoring: &MutualScoring,
    way: Way,
    progress: &dyn Progress,
) -> Result<PatchScores> {
    let by_degree_layer = match scoring.radius {
        None => anywhere(sides, ready, scoring, way, progress)?,
        Some(radius) => local_distance(sides, scoring, radius, way.arch, progress)?,
    };
    Ok(PatchScores {
        images: sides.queries.images,
        grid: sides.queries.grid,
        degrees: scoring.degrees.clone(),
        layers: sides.queries.layers.len(),
        by_degree_layer,
    })
}

/// A thread's memory for one pair.
pub(super) struct Scratch {
    gram: Aligned,
    pool: GramPool,
    pub rows: Vec<Vec<f32>>,
    pub columns: Vec<Vec<f32>>,
}

/// `[R, layers, N, L]` where a patch sees patches anywhere.
fn anywhere(
    sides: &Sides<'_>,
    ready: Option<&[Centred]>,
    scoring: &MutualScoring,
    way: Way,
    progress: &dyn Progress,
) -> Result<Vec<f32>> {
    let (queries, references) = (sides.queries, sides.references);
    let (images, columns, grid) = (queries.images, references.images, queries.grid);
    let (patches, layers) = (grid.patches(), queries.tokens.len());
    let degrees = &scoring.degrees;
    let plane = images * patches;
    let mut by_degree_layer = vec![0.0f32; degrees.len() * layers * plane];
    let scratch: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());
    let group_images = scoring.group_images((images, columns), patches, TABLE_BYTES);
    // One table serves every group of every layer: [R, group, M, L].
    let table: Vec<AtomicU32> = (0..degrees.len() * group_images * columns * patches)
        .into_par_iter()
        .map(|_| AtomicU32::new(0))
        .collect();
    let schedule =
        if sides.others { Schedule::others(images) } else { Schedule::set(images, columns) };
    let schedule = schedule.in_groups(group_images).in_pieces(TILE_IMAGES, TILE_IMAGES);
    let pairs = if sides.others { schedule.pairs() } else { sides.pairs() };
    progress.begin(Stage::Scoring, pairs * layers as u64);
    let mut left = Centred::new(queries, degrees, way).with_tokens();
    let mut right = None;
    if sides.others {
        left = left.with_panels();
    } else if ready.is_none() {
        right = Some(Centred::new(references, degrees, way).with_panels());
    }
    for layer in 0..layers {
        left.fill(queries, layer, way.arch);
        if let Some(right) = &mut right {
            right.fill(references, layer, way.arch);
        }
        let right = ready.map(|ready| &ready[layer]).or(right.as_ref()).unwrap_or(&left);
        for group in schedule.groups() {
            let slot = |degree: usize, query: usize, reference: usize| {
                let row = (degree * group_images + query - group.start) * columns + reference;
                &table[row * patches..][..patches]
            };
            // The lower image is always the row, whichever of the two is asked for: so a pair's numbers are the same bits
            // in any grouping.
            let pairs: Vec<(usize, usize)> = schedule
                .chunks(group.clone(), (0, 1))
                .flat_map(|chunk| chunk.pairs())
                .filter(|&(i, j)| sides.sees(i, j))
                .collect();
            pairs.into_par_iter().try_for_each(|(i, j)| {
                go_on(progress)?;
                let taken = take(&scratch);
                let mut mine = taken.unwrap_or_else(|| Scratch::new(way.arch, grid, degrees));
                let marks = (left_out_of(queries, i), left_out_of(references, j));
                best_cosines((&left, i), (right, j), marks, sides.others, &mut mine);
                for degree in 0..degrees.len() {
                    if group.contains(&i) {
                        store(slot(degree, i, j), &mine.rows[degree]);
                    }
                    if sides.others && group.contains(&j) {
                        store(slot(degree, j, i), &mine.columns[degree]);
                    }
                }
                put(&scratch, mine);
                progress.advance(1);
                Ok(())
            })?;
            for degree in 0..degrees.len() {
                let scores = &mut by_degree_layer[(degree * layers + layer) * plane..];
                scores[group.start * patches..group.end * patches]
                    .par_chunks_mut(patches)
                    .enumerate()
                    .for_each(|(offset, scores)| {
                        let query = group.start + offset;
                        let bits = |reference, patch: usize| {
                            slot(degree, query, reference)[patch].load(Ordering::Relaxed)
                        };
                        let seen = sides.seen_by(query);
                        mean_of_lowest(&seen, bits, scoring.ranks(seen.len()), scores);
                        for (score, _) in
                            scores.iter_mut().zip(left_out_of(queries, query)).filter(|(_, o)| **o)
                        {
                            *score = 0.0;
                        }
                    });
            }
        }
    }
    progress.end();
    Ok(by_degree_layer)
}

/// One image's scores from its table: for each patch the mean distance over `ranks` of the images it sees. `bits` gives the
/// cosine of an image and a patch.
pub(super) fn mean_of_lowest(
    seen: &[usize],
    bits: impl Fn(usize, usize) -> u32,
    (first, last): (usize, usize),
    scores: &mut [f32],
) {
    // Patches are gathered a cache line of each table row at a time, and are lanes where they are enough.
    let lanes =
        (seen.len() <= IntervalMeans::MOST).then(|| IntervalMeans::new(seen.len(), first, last));
    let mut gathered = vec![[0.0f32; LANES]; seen.len()];
    let mut one = vec![0.0f32; seen.len()];
    for (chunk_index, chunk) in scores.chunks_mut(LANES).enumerate() {
        for (line, &other) in gathered.iter_mut().zip(seen) {
            for (patch, cosine) in line[..chunk.len()].iter_mut().enumerate() {
                *cosine = f32::from_bits(bits(other, chunk_index * LANES + patch));
            }
        }
        match &lanes {
            Some(lanes) if chunk.len() > LANES / 2 => {
                chunk.copy_from_slice(&lanes.of(&mut gathered)[..chunk.len()]);
            }
            _ => {
                for (lane, score) in chunk.iter_mut().enumerate() {
                    for (cosine, line) in one.iter_mut().zip(&gathered) {
                        *cosine = line[lane];
                    }
                    *score = interval_mean(&mut one, first, last);
                }
            }
        }
    }
}

pub(super) fn store(cells: &[AtomicU32], values: &[f32]) {
    for (cell, value) in cells.iter().zip(values) {
        cell.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// A scratch that no thread uses at the moment.
pub(super) fn take(scratch: &Mutex<Vec<Scratch>>) -> Option<Scratch> {
    scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop()
}

pub(super) fn put(scratch: &Mutex<Vec<Scratch>>, mine: Scratch) {
    scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(mine);
}

impl Scratch {
    pub fn new(arch: Arch, grid: Grid, degrees: &[usize]) -> Self {
        let patches = grid.patches();
        Scratch {
            gram: Aligned::zeros(patches * row_stride(patches)),
            pool: GramPool::new(arch, grid, degrees),
            rows: vec![Vec::new(); degrees.len()],
            columns: vec![Vec::new(); degrees.len()],
        }
    }
}

/// The pair's Gram block and its pooled maxima, into `scratch.rows` and, where `columns`, `scratch.columns`.
pub(super) fn best_cosines(
    (left, i): (&Centred, usize),
    (right, j): (&Centred, usize),
    (row_left_out, column_left_out): (&[bool], &[bool]),
    columns: bool,
    scratch: &mut Scratch,
) {
    left.gram(i, right, j, row_stride(left.grid.patches()), &mut scratch.gram);
    let pair = Pair {
        gram: &scratch.gram,
        row_scale: &left.norms(i),
        column_scale: &right.norms(j),
        row_left_out,
        column_left_out,
    };
    let columns = columns.then_some(scratch.columns.as_mut_slice());
    scratch.pool.best_cosines(&pair, &mut scratch.rows, columns);
}
