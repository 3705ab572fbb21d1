//! MSM with a radius: each patch against those near its own place, from the pooled tokens themselves.
//!
//! Math: Z_r = box_r F'/‖box_r F'‖, F' = F − mean; for every place p and every q with |q − p|∞ <= radius on the grid the
//! product of all queries at p with all references at q, `[N, C]`·`[C, M]`, and the maximum over q. A place of a query for
//! which a reference has nothing within the radius (all of it left out) counts as far as can be: cosine −1, distance 2.
//!
//! # Memory
//! The unit tokens of one layer and degree, (N + M)·L·token_stride(C) f32 (N alone where the queries are compared with
//! each other), the scores of one layer and degree once more (N·L), and a thread 2·64·M f32, a centred image (L·C) and the
//! box sums of r grid rows. There is no table of minima: all references of a place are compared at once.
//!
//! Places go to threads. The products are the same whatever the number of threads, so the numbers are, too.

use std::sync::atomic::{AtomicU64, Ordering};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::aligned::Aligned;
use super::gram_pool::row_stride;
use super::interval_mean::interval_mean;
use super::lnamd::{centre, token_stride, unit_tokens};
use super::sides::{Sides, left_out_of};
use crate::backend::HostFeatures;
use crate::gemm::{Right, Shape, Store, gemm};
use crate::progress::go_on;
use crate::scoring::MutualScoring;
use crate::{Grid, Progress, Result, Stage};

/// Queries that go through a product together: their cosines with all references stay in the L2 cache.
const QUERIES: usize = 64;

/// The cosine with a reference that has nothing to compare with.
const FARTHEST: f32 = -1.0;

/// `[R, layers, N, L]` where a patch sees patches within `radius` rows and columns of its own place.
pub fn local_distance(
    sides: &Sides<'_>,
    scoring: &MutualScoring,
    radius: usize,
    arch: Arch,
    progress: &dyn Progress,
) -> Result<Vec<f32>> {
    let (images, grid) = (sides.queries.images, sides.queries.grid);
    let (patches, layers) = (grid.patches(), sides.queries.tokens.len());
    let plane = images * patches;
    let mut by_degree_layer = vec![0.0f32; scoring.degrees.len() * layers * plane];
    let steps = Steps::new(
        sides.pairs() * layers as u64,
        (scoring.degrees.len() * layers * patches) as u64,
        progress,
    );
    progress.begin(Stage::Scoring, steps.pairs);
    let mut queries = Places::new(sides.queries);
    let mut references = (!sides.others).then(|| Places::new(sides.references));
    let mut by_place = vec![0.0f32; plane];
    let planes = by_degree_layer.chunks_exact_mut(plane.max(1));
    for (part, plane) in planes.enumerate() {
        let (degree, layer) = (scoring.degrees[part / layers], part % layers);
        queries.fill(layer, degree, arch);
        if let Some(references) = &mut references {
            references.fill(layer, degree, arch);
        }
        let against = references.as_ref().unwrap_or(&queries);
        by_place.par_chunks_exact_mut(images).enumerate().try_for_each_init(
            || Scratch::new(sides.references.images),
            |scratch, (place, scores)| {
                let near = Near { grid, place, radius };
                for first in (0..images).step_by(QUERIES) {
                    go_on(progress)?;
                    let scores = &mut scores[first..images.min(first + QUERIES)];
                    best_cosines((&queries, first, scores.len()), against, near, arch, scratch);
                    for (at, score) in scores.iter_mut().enumerate() {
                        let query = first + at;
                        let out = left_out_of(sides.queries, query);
                        if out.get(place).is_some_and(|&out| out) {
                            *score = 0.0;
                            continue;
                        }
                        let Scratch { best, seen, references, stride, .. } = &mut *scratch;
                        sides.values_seen(query, &best[at * *stride..][..*references], seen);
                        let (first, last) = scoring.ranks(seen.len());
                        *score = interval_mean(seen, first, last);
                    }
                }
                steps.one_more();
                Ok(())
            },
        )?;
        plane.par_chunks_exact_mut(patches).enumerate().for_each(|(image, scores)| {
            for (score, of_place) in scores.iter_mut().zip(by_place.chunks_exact(images)) {
                *score = of_place[image];
            }
        });
    }
    progress.end();
    Ok(by_degree_layer)
}

/// Tells of pairs while places are done.
struct Steps<'a> {
    pairs: u64,
    parts: u64,
    done: AtomicU64,
    progress: &'a dyn Progress,
}

impl<'a> Steps<'a> {
    fn new(pairs: u64, parts: u64, progress: &'a dyn Progress) -> Self {
        Steps { pairs, parts, done: AtomicU64::new(0), progress }
    }

    /// One more part is done: all together tell of every pair once.
    fn one_more(&self) {
        let before = self.done.fetch_add(1, Ordering::Relaxed);
        let pairs = |parts: u64| {
            (u128::from(self.pairs) * u128::from(parts) / u128::from(self.parts)) as u64
        };
        self.progress.advance(pairs(before + 1) - pairs(before));
    }
}

/// The unit tokens of one layer and degree, a place after the other.
struct Places<'a> {
    features: &'a HostFeatures,
    /// `[L, N, token_stride(C)]`.
    tokens: Aligned,
    /// For each place, `[L]`, what is added to the images' cosines: 0, or −∞ where the place is left out, `[N]`. Empty where
    /// nothing is left out.
    left_out: Vec<Aligned>,
}

impl<'a> Places<'a> {
    /// Room for one layer and degree.
    fn new(features: &'a HostFeatures) -> Self {
        let (images, patches) = (features.images, features.grid.patches());
        let mut left_out = Vec::new();
        if features.left_out.contains(&true) {
            left_out.resize_with(patches, || Aligned::zeros(row_stride(images)));
            for (at, _) in features.left_out.iter().enumerate().filter(|(_, out)| **out) {
                left_out[at % patches][at / patches] = f32::NEG_INFINITY;
            }
        }
        let tokens = Aligned::zeros(patches * images * token_stride(features.width));
        Places { features, tokens, left_out }
    }

    /// Takes in a layer, pooled.
    fn fill(&mut self, layer: usize, degree: usize, arch: Arch) {
        let HostFeatures { images, grid, width, ref tokens, .. } = *self.features;
        let (features, patches, stride) = (self.features, grid.patches(), token_stride(width));
        // One row of slices an image: its token at each place.
        let mut by_image: Vec<Vec<&mut [f32]>> =
            (0..images).map(|_| Vec::with_capacity(patches)).collect();
        for place in self.tokens.chunks_exact_mut(images * stride) {
            for (image, token) in by_image.iter_mut().zip(place.chunks_exact_mut(stride)) {
                image.push(token);
            }
        }
        tokens[layer].par_chunks_exact(patches * width).zip(by_image).enumerate().for_each_init(
            || Aligned::zeros(patches * stride),
            |centred, (image, (tokens, mut out))| {
                centre(tokens, width, left_out_of(features, image), centred);
                unit_tokens(arch, centred, grid, stride, degree, &mut out);
            },
        );
    }

    /// The tokens of `count` images from `first` on at a place, and their shape.
    fn at(&self, place: usize, first: usize, count: usize) -> (&[f32], Shape) {
        let (width, stride) = (self.features.width, token_stride(self.features.width));
        let start = (place * self.features.images + first) * stride;
        (&self.tokens[start..][..count * stride], Shape::strided(count, width, stride))
    }
}

/// The places that a place sees.
#[derive(Clone, Copy)]
struct Near {
    grid: Grid,
    place: usize,
    radius: usize,
}

impl Near {
    fn places(self) -> impl Iterator<Item = usize> {
        let Grid { rows, columns } = self.grid;
        let window = |center: usize, side: usize| {
            center.saturating_sub(self.radius)
                ..side.min(center.saturating_add(self.radius).saturating_add(1))
        };
        let (of_rows, of_columns) =
            (window(self.place / columns, rows), window(self.place % columns, columns));
        of_rows.flat_map(move |y| of_columns.clone().map(move |x| y * columns + x))
    }
}

/// A thread's memory.
struct Scratch {
    /// References M, and from one query to the next.
    references: usize,
    stride: usize,
    /// Cosines of the queries at a place with the references at another, `[QUERIES, stride]`.
    product: Aligned,
    /// The largest so far.
    best: Aligned,
    /// Of one query those of the references that it sees.
    seen: Vec<f32>,
}

impl Scratch {
    fn new(references: usize) -> Self {
        let stride = row_stride(references);
        let room = || Aligned::zeros(QUERIES * stride);
        Scratch { references, stride, product: room(), best: room(), seen: Vec::new() }
    }
}

/// For `count` queries from `first` on, at a place, the largest cosine with each reference near it, into `scratch.best`.
fn best_cosines(
    (queries, first, count): (&Places<'_>, usize, usize),
    references: &Places<'_>,
    near: Near,
    arch: Arch,
    scratch: &mut Scratch,
) {
    let Scratch { references: columns, stride, ref mut product, ref mut best, .. } = *scratch;
    let left = queries.at(near.place, first, count);
    let (product, best) = (&mut product[..count * stride], &mut best[..count * stride]);
    best.fill(FARTHEST);
    for place in near.places() {
        let (right, shape) = references.at(place, 0, columns);
        gemm(
            left,
            (right, shape, Right::Transposed),
            (product, Shape::strided(count, columns, stride), Store::Overwrite),
            1,
        );
        let left_out = references.left_out.get(place).map(|place| &**place);
        arch.dispatch(Raise { product, best, stride, left_out });
    }
}

/// best = max(best, product), where the references are not left out.
struct Raise<'a> {
    product: &'a [f32],
    best: &'a mut [f32],
    stride: usize,
    left_out: Option<&'a [f32]>,
}

impl WithSimd for Raise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows =
            self.best.chunks_exact_mut(self.stride).zip(self.product.chunks_exact(self.stride));
        for (best, product) in rows {
            let (best, product) = (S::as_mut_simd_f32s(best).0, S::as_simd_f32s(product).0);
            match self.left_out {
                None => {
                    for (best, &cosine) in best.iter_mut().zip(product) {
                        *best = simd.max_f32s(*best, cosine);
                    }
                }
                Some(left_out) => {
                    let left_out = S::as_simd_f32s(left_out).0;
                    for ((best, &cosine), &out) in best.iter_mut().zip(product).zip(left_out) {
                        *best = simd.max_f32s(*best, simd.add_f32s(cosine, out));
                    }
                }
            }
        }
    }
}
