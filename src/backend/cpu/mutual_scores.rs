//! MSM on the CPU: every pair of images once, a block of images at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::TABLE_BYTES;
use super::aligned::Aligned;
use super::gemm::{Into, Panels, Shape, fill_panels, product_of_panels};
use super::gram_pool::{GramPool, Pair, row_stride};
use super::interval_mean::interval_mean;
use super::lnamd::{centre, inverse_norms, token_stride};
use crate::progress::go_on;
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Grid, Progress, Result, Stage};

/// Pairs are visited in tiles of this many images a side, so that a tile's tokens stay in the last-level cache.
const TILE_IMAGES: usize = 8;

/// The tokens that take part: one `[N, L, C]` a layer.
pub struct Tokens<'a> {
    pub images: usize,
    pub grid: usize,
    pub width: usize,
    pub layers: Vec<&'a [f32]>,
}

/// One layer, ready for products.
struct Centred {
    images: usize,
    grid: usize,
    width: usize,
    /// F' `[N, L, token_stride(C)]`.
    tokens: Aligned,
    /// F'ᵀ `[N]` in panels of `[C, L]`: the right operand of the products.
    panels: Aligned,
    /// 1/‖box_r F'‖ `[R][N, L]`.
    inverse_norms: Vec<Vec<f32>>,
}

/// A thread's memory for one pair.
struct Scratch {
    gram: Aligned,
    pool: GramPool,
    rows: Vec<Vec<f32>>,
    columns: Vec<Vec<f32>>,
}

/// Scores `tokens` on the current thread pool. The options have been checked.
pub fn mutual_scores(
    tokens: &Tokens<'_>,
    scoring: &MutualScoring,
    progress: &dyn Progress,
) -> Result<PatchScores> {
    let (images, grid) = (tokens.images, tokens.grid);
    let patches = grid * grid;
    let degrees = &scoring.degrees;
    let layers = tokens.layers.len();
    let plane = images * patches;
    let mut by_degree_layer = vec![0.0f32; degrees.len() * layers * plane];
    let scratch: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());
    let group_images = scoring.group_images((images, images), patches, TABLE_BYTES);
    // One table serves every group of every layer: [R, group, N, L].
    let table: Vec<AtomicU32> = (0..degrees.len() * group_images * images * patches)
        .into_par_iter()
        .map(|_| AtomicU32::new(0))
        .collect();
    let pairs = MutualScoring::pairs_in_groups(images, group_images) * layers as u64;
    progress.begin(Stage::Scoring, pairs);
    let mut centred = Centred::new(tokens, degrees.len());
    for (layer_index, layer) in tokens.layers.iter().enumerate() {
        centred.fill(layer, degrees);
        for start in (0..images).step_by(group_images) {
            let group = start..images.min(start + group_images);
            let slot = |degree: usize, image: usize, other: usize| {
                &table[((degree * group_images + image - start) * images + other) * patches..]
                    [..patches]
            };
            pairs_of_group(&group, images).into_par_iter().try_for_each(|(i, j)| {
                go_on(progress)?;
                let mut mine = take(&scratch).unwrap_or_else(|| Scratch::new(grid, degrees));
                centred.best_cosines(i, j, &mut mine);
                for degree in 0..degrees.len() {
                    if group.contains(&i) {
                        store(slot(degree, i, j), &mine.rows[degree]);
                    }
                    if group.contains(&j) {
                        store(slot(degree, j, i), &mine.columns[degree]);
                    }
                }
                put(&scratch, mine);
                progress.advance(1);
                Ok(())
            })?;
            for degree in 0..degrees.len() {
                let scores = &mut by_degree_layer[(degree * layers + layer_index) * plane..];
                scores[group.start * patches..group.end * patches]
                    .par_chunks_mut(patches)
                    .enumerate()
                    .for_each(|(offset, scores)| {
                        let image = group.start + offset;
                        let row = |other| slot(degree, image, other);
                        mean_of_lowest(images, image, row, scoring.ranks(images - 1), scores);
                    });
            }
        }
    }
    progress.end();
    Ok(PatchScores {
        images,
        grid: Grid::square(grid),
        degrees: degrees.clone(),
        layers,
        by_degree_layer,
    })
}

/// The pairs (i, j), i < j, with an image of the group in them, in tiles so that neighbours in the list share
/// tokens. The lower image is always the row, whichever of the two is asked for: so a pair's numbers are the
/// same bits in any grouping.
fn pairs_of_group(group: &std::ops::Range<usize>, images: usize) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for i_tile in (0..group.end).step_by(TILE_IMAGES) {
        for j_tile in (i_tile..images).step_by(TILE_IMAGES) {
            for i in i_tile..group.end.min(i_tile + TILE_IMAGES) {
                for j in j_tile.max(i + 1)..images.min(j_tile + TILE_IMAGES) {
                    if group.contains(&i) || group.contains(&j) {
                        pairs.push((i, j));
                    }
                }
            }
        }
    }
    pairs
}

/// One image's scores from its table rows: for each patch the mean distance over `ranks` of the other images.
fn mean_of_lowest<'a>(
    images: usize,
    image: usize,
    row: impl Fn(usize) -> &'a [AtomicU32],
    (first, last): (usize, usize),
    scores: &mut [f32],
) {
    /// Patches gathered together: a cache line of each table row.
    const TOGETHER: usize = 16;
    let others: Vec<usize> = (0..images).filter(|&other| other != image).collect();
    let mut gathered = vec![0.0f32; TOGETHER * others.len()];
    for (chunk_index, chunk) in scores.chunks_mut(TOGETHER).enumerate() {
        for (at, &other) in others.iter().enumerate() {
            let cells = &row(other)[chunk_index * TOGETHER..][..chunk.len()];
            for (patch, cell) in cells.iter().enumerate() {
                gathered[patch * others.len() + at] = f32::from_bits(cell.load(Ordering::Relaxed));
            }
        }
        for (score, cosines) in chunk.iter_mut().zip(gathered.chunks_exact_mut(others.len())) {
            *score = interval_mean(cosines, first, last);
        }
    }
}

fn store(cells: &[AtomicU32], values: &[f32]) {
    for (cell, value) in cells.iter().zip(values) {
        cell.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// A scratch that no thread uses at the moment.
fn take(scratch: &Mutex<Vec<Scratch>>) -> Option<Scratch> {
    scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop()
}

fn put(scratch: &Mutex<Vec<Scratch>>, mine: Scratch) {
    scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(mine);
}

impl Scratch {
    fn new(grid: usize, degrees: &[usize]) -> Self {
        let patches = grid * grid;
        Scratch {
            gram: Aligned::zeros(patches * row_stride(patches)),
            pool: GramPool::new(grid, degrees),
            rows: vec![Vec::new(); degrees.len()],
            columns: vec![Vec::new(); degrees.len()],
        }
    }
}

impl Centred {
    /// Room for one layer.
    fn new(tokens: &Tokens<'_>, degrees: usize) -> Self {
        let (images, grid, width) = (tokens.images, tokens.grid, tokens.width);
        let patches = grid * grid;
        Centred {
            images,
            grid,
            width,
            tokens: Aligned::zeros(images * patches * token_stride(width)),
            panels: Aligned::zeros(images * Panels::extent(width, patches)),
            inverse_norms: vec![vec![0.0; images * patches]; degrees],
        }
    }

    /// Takes in a layer, `[N, L, C]`.
    fn fill(&mut self, layer: &[f32], degrees: &[usize]) {
        let (grid, width, patches) = (self.grid, self.width, self.grid * self.grid);
        let stride = token_stride(width);
        self.tokens
            .par_chunks_mut(patches * stride)
            .zip(self.panels.par_chunks_mut(Panels::extent(width, patches)))
            .zip(layer.par_chunks(patches * width))
            .for_each(|((centred, panels), tokens)| {
                centre(tokens, width, centred);
                fill_panels(centred, stride, width, panels);
            });
        for (&degree, norms) in degrees.iter().zip(&mut self.inverse_norms) {
            norms
                .par_chunks_mut(patches)
                .zip(self.tokens.par_chunks(patches * stride))
                .for_each(|(norms, centred)| inverse_norms(centred, grid, stride, degree, norms));
        }
    }

    /// The pair's Gram block and its pooled maxima, into `scratch.rows` and `scratch.columns`.
    fn best_cosines(&self, i: usize, j: usize, scratch: &mut Scratch) {
        debug_assert!(i < self.images && j < self.images);
        let patches = self.grid * self.grid;
        let (stride, gram_stride) = (token_stride(self.width), row_stride(patches));
        let left = &self.tokens[i * patches * stride..][..patches * stride];
        let extent = Panels::extent(self.width, patches);
        let right = &self.panels[j * extent..][..extent];
        product_of_panels(
            (left, Shape::strided(patches, self.width, stride)),
            (right, self.width, patches),
            (&mut scratch.gram, Shape::strided(patches, patches, gram_stride), Into::Overwrite),
            1,
        );
        let norms = |image: usize| -> Vec<&[f32]> {
            self.inverse_norms.iter().map(|n| &n[image * patches..][..patches]).collect()
        };
        let pair = Pair { gram: &scratch.gram, row_scale: &norms(i), column_scale: &norms(j) };
        scratch.pool.best_cosines(&pair, &mut scratch.rows, &mut scratch.columns);
    }
}
