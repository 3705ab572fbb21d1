//! Queries with whom they are compared, for tests of scoring on the CPU.

use half::bf16;
use musc::backend::cpu::Cpu;
use musc::backend::{Backend, HostFeatures, References};
use musc::scoring::{MutualScoring, PatchScores, reference};

use crate::compare::assert_within;
use crate::random_features::random_features;
use musc::Grid;

/// What is scored against what.
pub struct Sides {
    pub queries: HostFeatures,
    pub references: Option<HostFeatures>,
}

impl Sides {
    pub fn others(queries: HostFeatures) -> Self {
        Sides { queries, references: None }
    }

    /// Queries against references, two of which are queries 0 and 1: twins in content, and named so.
    pub fn set(queries: usize, references: usize, grid: Grid, width: usize, layers: usize) -> Self {
        let all = random_features(queries + references, grid, width, layers);
        let values = grid.patches() * width;
        let part = |from: usize, to: usize| {
            let of_layer = |layer: &Vec<f32>| layer[from * values..to * values].to_vec();
            let tokens = all.tokens.iter().map(of_layer).collect();
            HostFeatures::new(to - from, grid, width, all.layers.clone(), tokens)
        };
        let queries_part = part(0, queries);
        let mut set = part(queries, queries + references);
        for (layer, own) in set.tokens.iter_mut().zip(&queries_part.tokens) {
            layer[values..2 * values].copy_from_slice(&own[..values]);
            if queries > 1 && references > 3 {
                layer[3 * values..4 * values].copy_from_slice(&own[values..2 * values]);
            }
        }
        Sides { queries: queries_part, references: Some(set) }
    }

    /// With tokens that rounding to bf16 does not change, nor centring before it: each has the sum 0.
    pub fn in_bf16(mut self) -> Self {
        for features in [&mut self.queries].into_iter().chain(&mut self.references) {
            for token in features.tokens.iter_mut().flat_map(|l| l.chunks_mut(features.width)) {
                let (pairs, rest) = token.as_chunks_mut::<2>();
                for pair in pairs {
                    let value = bf16::from_f32(pair[0]).to_f32();
                    *pair = [value, -value];
                }
                rest.fill(0.0);
            }
        }
        self
    }

    /// With about one patch in four left out, others in each image, and something large in its place.
    pub fn with_left_out(mut self) -> Self {
        let mark = |features: &mut HostFeatures, salt: usize| {
            let patches = features.grid.patches();
            let marks: Vec<bool> = (0..features.images * patches)
                .map(|at| at % patches != 0 && (at * 7919 + at / patches * 31 + salt) % 13 < 3)
                .collect();
            for layer in &mut features.tokens {
                for (token, _) in
                    layer.chunks_exact_mut(features.width).zip(&marks).filter(|(_, out)| **out)
                {
                    token.fill(1e6 + salt as f32);
                }
            }
            features.left_out = marks;
        };
        mark(&mut self.queries, 0);
        if let Some(references) = &mut self.references {
            mark(references, 5);
        }
        self
    }

    pub fn references(&self) -> References<'_, HostFeatures> {
        self.references.as_ref().map_or(References::Others, References::Set)
    }

    pub fn scores(&self, cpu: &Cpu, scoring: &MutualScoring) -> PatchScores {
        cpu.patch_scores(&self.queries, self.references(), scoring, &()).unwrap()
    }

    /// The references with the tokens of a query, for each query. None where tokens are left out: they were overwritten by
    /// others in the references.
    pub fn unseen(&self) -> Vec<Vec<usize>> {
        let Some(references) = &self.references else { return Vec::new() };
        let values = self.queries.grid.patches() * self.queries.width;
        let image = |features: &HostFeatures, at: usize| -> Vec<f32> {
            let of_layer = |layer: &Vec<f32>| layer[at * values..(at + 1) * values].to_vec();
            features.tokens.iter().flat_map(of_layer).collect()
        };
        let same = |query: usize| {
            let query = image(&self.queries, query);
            (0..references.images).filter(|&at| image(references, at) == query).collect()
        };
        (0..self.queries.images).map(same).collect()
    }

    /// `[R, layers, N, L]` by the definition.
    pub fn expected(&self, scoring: &MutualScoring) -> Vec<f64> {
        let unseen = self.unseen();
        let mut scores = Vec::new();
        for &degree in &scoring.degrees {
            for layer in 0..self.queries.layers.len() {
                let queries = layer_of(&self.queries, layer);
                let references = self.references.as_ref().map(|set| layer_of(set, layer));
                let references = references.as_ref().map(|set| (set, unseen.as_slice()));
                scores.extend(reference::patch_scores(&queries, references, degree, scoring));
            }
        }
        scores
    }

    /// Holds the scores to the definition, as a difference of cosines: d = √(2 − 2c), so an error δ of the cosine is δ/d of
    /// the distance, and √(2δ) at most where d is 0.
    ///
    /// A cosine carries the rounding of a dot product and of four box sums of up to 9 terms of f32: eight roundings of 1.2e-7
    /// in a row.
    pub fn assert_scored(&self, cpu: &Cpu, scoring: &MutualScoring) {
        let scores = self.scores(cpu, scoring);
        let expected = self.expected(scoring);
        assert_eq!((scores.images, scores.grid), (self.queries.images, self.queries.grid));
        let what = format!("grid {}, {scoring:?}", self.queries.grid);
        let cosine = 1e-6f64;
        assert_within(&what, &scores.by_degree_layer, &expected, |at| {
            (cosine / expected[at]).min((2.0 * cosine).sqrt())
        });
    }
}

fn layer_of(features: &HostFeatures, layer: usize) -> reference::Layer<'_> {
    let HostFeatures { images, grid, width, .. } = *features;
    let (tokens, left_out) = (&features.tokens[layer], &features.left_out);
    reference::Layer { tokens, images, grid, width, left_out }
}
