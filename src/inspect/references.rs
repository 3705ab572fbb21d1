//! Images that others are compared with: known-good or earlier ones, learned once.

use super::laps::Laps;
use super::work::{features_of, input_of, raw_scores};
use super::{Batch, Inspection, Inspector};
use crate::backend::device::AnyFeatures;
use crate::backend::{Backend, FeatureSet, References};
use crate::image::Normalisation;
use crate::progress::Stage;
use crate::scoring::rscin::{RscinOptions, rscin};
use crate::{Error, ImageSize, Progress, Result};

/// Features of reference images on the device of the inspector that learned them, with what they are worth among
/// themselves.
#[derive(Debug)]
pub struct ReferenceSet {
    features: AnyFeatures,
    class_tokens: Vec<f32>,
    /// Raw scores of the references against each other.
    raw_scores: Vec<f32>,
    setting: Setting,
}

/// What must be equal for features to be comparable.
#[derive(Debug, Clone, PartialEq)]
struct Setting {
    backbone: String,
    input: ImageSize,
    blocks: Vec<usize>,
    normalisation: Normalisation,
}

impl Setting {
    fn of(inspector: &Inspector, input: ImageSize) -> Self {
        Setting {
            backbone: inspector.backbone.name().to_string(),
            input,
            blocks: inspector.backbone.blocks.clone(),
            normalisation: inspector.backbone.architecture().family.normalisation(),
        }
    }

    /// Refuses queries of another setting, by everything that differs.
    fn check(&self, queries: &Setting) -> Result<()> {
        let mut found = Vec::new();
        let mut expected = Vec::new();
        let mut compare = |what: &str, query: String, reference: String| {
            if query != reference {
                found.push(format!("{what} {query}"));
                expected.push(format!("{what} {reference}"));
            }
        };
        compare("backbone", queries.backbone.clone(), self.backbone.clone());
        compare("size", queries.input.to_string(), self.input.to_string());
        compare("layers", format!("{:?}", queries.blocks), format!("{:?}", self.blocks));
        compare(
            "normalisation",
            format!("{:?}", queries.normalisation),
            format!("{:?}", self.normalisation),
        );
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(
            "setting of the queries",
            found.join(", "),
            format!("{}, as the references have", expected.join(", ")),
        ))
    }
}

impl ReferenceSet {
    /// Number of references M.
    pub fn len(&self) -> usize {
        self.features.images()
    }

    /// Whether there is no reference.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Raw scores of the references against each other, `[M]`.
    pub fn raw_scores(&self) -> &[f32] {
        &self.raw_scores
    }
}

impl Inspector {
    /// Makes features of a batch to compare other images with, and scores the batch against itself.
    ///
    /// # Errors
    /// Fewer than two images; a file that cannot be read; a setting that does not fit; an interruption; or the device's
    /// own.
    pub fn learn(&self, batch: &Batch, progress: &dyn Progress) -> Result<ReferenceSet> {
        let input = input_of(self, batch)?;
        let grid = input.grid(self.backbone.architecture().patch);
        let scoring = &self.settings.scoring;
        scoring.check(batch.len().saturating_sub(1), grid)?;
        let places: Vec<usize> = (0..batch.len()).collect();
        let (_, features) = features_of(self, batch, &places, input, progress)?;
        scoring.check(features.images().saturating_sub(1), grid)?;
        let scores = self.backend.patch_scores(&features, References::Others, scoring, progress)?;
        let raw_scores = raw_scores(self, &scores.mean(), grid, input)?;
        let class_tokens = features.class_tokens()?;
        Ok(ReferenceSet { features, class_tokens, raw_scores, setting: Setting::of(self, input) })
    }

    /// Scores images against references alone: each of them as if it were the only new one. An image that is among the
    /// references is not compared with itself. RsCIN takes the references' class tokens and raw scores, and the image's.
    ///
    /// # Errors
    /// References of another backbone, size, layers or normalisation, with both values; no reference but the image itself;
    /// otherwise as [`inspect`](Self::inspect).
    pub fn compare(
        &self,
        batch: &Batch,
        references: &ReferenceSet,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        let laps = Laps::new(progress);
        let input = input_of(self, batch)?;
        references.setting.check(&Setting::of(self, input))?;
        let places: Vec<usize> = (0..batch.len()).collect();
        let (loaded, features) = features_of(self, batch, &places, input, &laps)?;
        let set = References::Set(&references.features);
        let scoring = &self.settings.scoring;
        let patch_scores = self.backend.patch_scores(&features, set, scoring, &laps)?;
        let grid = features.grid();
        let mean = patch_scores.mean_f64();
        let single: Vec<f32> = mean.iter().map(|&score| score as f32).collect();
        let count = loaded.kept.len();
        laps.begin(Stage::Rescoring, count as u64);
        let raw_scores = raw_scores(self, &single, grid, input)?;
        let class_tokens = features.class_tokens()?;
        let (scores, k) = self.rescored(batch, &raw_scores, &class_tokens, references)?;
        laps.advance(count as u64);
        laps.end();
        Ok(Inspection {
            name: batch.name().to_string(),
            samples: batch.some(&loaded.kept),
            kept: loaded.kept,
            file_sizes: loaded.sizes,
            fit: self.resize_to(input).fit,
            input,
            grid,
            patch_scores: single,
            exact_scores: self.settings.paper.then_some(mean),
            raw_scores,
            scores,
            class_tokens,
            class_width: features.class_width(),
            k,
            subsets: 1,
            skipped: loaded.bad,
            notes: Vec::new(),
            seconds: laps.seconds(),
        })
    }

    /// Each image re-scored among the references.
    fn rescored(
        &self,
        batch: &Batch,
        raw_scores: &[f32],
        class_tokens: &[f32],
        references: &ReferenceSet,
    ) -> Result<(Vec<f64>, Vec<usize>)> {
        let raw = || raw_scores.iter().map(|&score| f64::from(score));
        let Some(rescoring) = &self.settings.rescoring else {
            return Ok((raw().collect(), Vec::new()));
        };
        let k = rescoring.k.clone().unwrap_or_else(|| batch.rscin_k().to_vec());
        let options =
            RscinOptions::default().with_k(k.clone()).with_similarity(rescoring.similarity);
        let width = references.features.class_width();
        let mut scores: Vec<f64> = references.raw_scores.iter().map(|&s| f64::from(s)).collect();
        let mut tokens = references.class_tokens.clone();
        let (known, known_tokens) = (scores.len(), tokens.len());
        let rescored = raw()
            .zip(class_tokens.chunks_exact(width.max(1)))
            .map(|(score, token)| {
                scores.truncate(known);
                scores.push(score);
                tokens.truncate(known_tokens);
                tokens.extend_from_slice(token);
                let all = self.on_pool(|| rscin(&scores, &tokens, width, &options))?;
                all.last().copied().ok_or_else(|| Error::invalid("images", 0, "at least one"))
            })
            .collect::<Result<_>>()?;
        Ok((rescored, k))
    }
}
