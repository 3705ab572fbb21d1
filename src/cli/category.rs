//! One category from image files to scores and figures, on any backend.

use std::path::PathBuf;

use rayon::prelude::*;

use super::config::Config;
use super::interrupt;
use super::pixels;
use super::progress::Voice;
use crate::backend::{Backend, Extraction, FeatureSet, Pixels};
use crate::dataset::{Category, Mask, Sample, divide, load_masks};
use crate::image::{Filter, RgbImage};
use crate::metrics::{ClassMetrics, ImageMetrics, PixelMetrics, image_metrics, pixel_metrics};
use crate::scoring::rscin::{RscinOptions, rscin};
use crate::scoring::upsample::{upsample, upsample_max};
use crate::{Real, Result};

/// A stage's name and its seconds.
pub type Seconds = (&'static str, f64);

/// What a category came to.
pub struct Scored {
    /// The samples that were read, in order.
    pub samples: Vec<Sample>,
    /// Their S×S images.
    pub images: Vec<RgbImage>,
    /// Patch scores `[N, L]`.
    pub patch_scores: Vec<f32>,
    /// The same, not rounded to f32, where pixel figures are to equal the authors' (`--paper`); else empty.
    pub exact_scores: Vec<f64>,
    /// Side H of the patch grid.
    pub grid: usize,
    /// The largest value of each anomaly map.
    pub raw_scores: Vec<f32>,
    /// The scores after RsCIN.
    pub scores: Vec<f64>,
    /// The neighbourhood sizes RsCIN used.
    pub k: Vec<usize>,
    /// The figures, where labels are known.
    pub metrics: Option<ClassMetrics>,
    /// Files left out.
    pub skipped: Vec<(PathBuf, String)>,
    /// Sentences worth keeping.
    pub notes: Vec<String>,
    /// Seconds a stage.
    pub seconds: Vec<Seconds>,
}

impl Scored {
    /// The anomaly map of an image, `[size, size]`, into `map`.
    pub fn map(&self, image: usize, size: usize, map: &mut [f32]) -> Result<()> {
        let patches = self.grid * self.grid;
        upsample(&self.patch_scores[image * patches..][..patches], self.grid, size, map)
    }
}

/// What all categories of a run share.
pub struct Shared<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// The backbone on it.
    pub model: &'a B::Model,
    /// What is extracted.
    pub extraction: &'a Extraction,
    /// Side P of a patch.
    pub patch: usize,
    /// How images are resized.
    pub filter: Filter,
    /// The settings.
    pub config: &'a Config,
    /// How progress is told.
    pub voice: Voice,
}

impl<B: Backend> Shared<'_, B> {
    /// Scores a category.
    pub fn score(&self, category: &Category) -> Result<Scored> {
        let size = self.extraction.image_size;
        let grid = size / self.patch;
        let mut notes = Vec::new();
        let mut seconds = Vec::new();

        // Where the device leaves the processor free, files are read while features are made. Not with files that may
        // be left out, or in subsets: then it must be known first which images there are.
        let beside = self.backend.leaves_processor_free()
            && !self.config.skip_bad
            && self.config.divide == 1
            && category.ignored.is_empty();
        let (read, features) = if beside {
            self.config.scoring.check(category.samples.len(), grid)?;
            let stage = self.voice.stage("features", category.samples.len() as u64, "images");
            let (read, features) = pixels::load_beside(category, size, self.filter, |source| {
                self.backend.extract(self.model, Pixels::Source(source), &stage)
            })?;
            seconds.push(("reading and features", stage.finish()));
            (read, Some(features))
        } else {
            let (read, time) =
                pixels::load(category, size, self.filter, self.config.skip_bad, self.voice)?;
            seconds.push(("reading", time));
            (read, None)
        };
        let samples: Vec<Sample> =
            read.kept.iter().map(|&at| category.samples[at].clone()).collect();
        if read.scaled_from_16_bit > 0 {
            let (name, count) = (&category.name, read.scaled_from_16_bit);
            notes.push(format!("{name}: {count} images of 16 bits a channel were cut to 8"));
        }
        let masks = load_masks(&samples, &read.sizes, size, category.mask_rule, &interrupt::asked)?;
        let images = read.images;

        let (exact_scores, class_tokens) = match features {
            Some(features) => {
                let (scores, time) = self.mutual_scores(&features)?;
                seconds.push(("scoring", time));
                (scores, features.class_tokens()?)
            }
            None => self.score_subsets(&samples, &images, grid, &mut seconds)?,
        };
        let patch_scores: Vec<f32> = exact_scores.iter().map(|&score| score as f32).collect();
        let exact_scores = if self.config.paper { exact_scores } else { Vec::new() };

        let stage = self.voice.stage("rescoring", samples.len() as u64, "images");
        let raw_scores: Vec<f32> = patch_scores
            .par_chunks_exact(grid * grid)
            .map(|scores| upsample_max(scores, grid, size))
            .collect::<Result<_>>()?;
        let k = self.config.rscin_k.clone().unwrap_or_else(|| category.rscin_k.clone());
        if let Some(large) = k.iter().find(|&&k| k > samples.len()) {
            let count = samples.len();
            notes.push(format!(
                "{}: k = {large} of RsCIN is more than its {count} images and counts as {count}",
                category.name
            ));
        }
        let options = RscinOptions { k, similarity: self.config.similarity };
        let wide_scores: Vec<f64> = raw_scores.iter().map(|&score| f64::from(score)).collect();
        let scores =
            rscin(&wide_scores, &class_tokens, class_tokens.len() / samples.len(), &options)?;
        seconds.push(("rescoring", stage.finish()));

        let mut scored = Scored {
            samples,
            images,
            patch_scores,
            exact_scores,
            grid,
            raw_scores,
            scores,
            k: options.k,
            metrics: None,
            skipped: read.bad,
            notes,
            seconds,
        };
        self.figures(&mut scored, category, masks)?;
        Ok(scored)
    }

    /// Patch scores `[N, L]` and class tokens `[N, E]`, each subset scored on its own.
    fn score_subsets(
        &self,
        samples: &[Sample],
        images: &[RgbImage],
        grid: usize,
        seconds: &mut Vec<Seconds>,
    ) -> Result<(Vec<f64>, Vec<f32>)> {
        let patches = grid * grid;
        let subsets = divide(samples, self.config.divide)?;
        for subset in &subsets {
            self.config.scoring.check(subset.len(), grid)?;
        }
        let mut patch_scores = vec![0f64; samples.len() * patches];
        let mut class_tokens = Vec::new();
        for subset in &subsets {
            let features = self.features(images, subset, seconds)?;
            let (scores, time) = self.mutual_scores(&features)?;
            seconds.push(("scoring", time));
            let tokens = features.class_tokens()?;
            let width = tokens.len() / subset.len();
            class_tokens.resize(samples.len() * width, 0f32);
            for (from, &to) in subset.iter().enumerate() {
                patch_scores[to * patches..][..patches]
                    .copy_from_slice(&scores[from * patches..][..patches]);
                class_tokens[to * width..][..width]
                    .copy_from_slice(&tokens[from * width..][..width]);
            }
        }
        Ok((patch_scores, class_tokens))
    }

    fn features(
        &self,
        images: &[RgbImage],
        subset: &[usize],
        seconds: &mut Vec<Seconds>,
    ) -> Result<B::Features> {
        let stage = self.voice.stage("features", subset.len() as u64, "images");
        let features = if subset.iter().copied().eq(0..images.len()) {
            self.backend.extract(self.model, Pixels::Rgb(images), &stage)?
        } else {
            let chosen: Vec<RgbImage> = subset.iter().map(|&at| images[at].clone()).collect();
            self.backend.extract(self.model, Pixels::Rgb(&chosen), &stage)?
        };
        seconds.push(("features", stage.finish()));
        interrupt::check()?;
        Ok(features)
    }

    /// Patch scores `[n, L]` and the seconds they took.
    fn mutual_scores(&self, features: &B::Features) -> Result<(Vec<f64>, f64)> {
        let pairs = self.backend.scoring_steps(features, &self.config.scoring)?;
        let stage = self.voice.stage("scoring", pairs, "pairs");
        let scores = self.backend.mutual_scores(features, &self.config.scoring, &stage)?;
        Ok((scores.mean_f64(), stage.finish()))
    }

    /// The figures that the labels and masks allow.
    fn figures(
        &self,
        scored: &mut Scored,
        category: &Category,
        masks: Vec<Option<Vec<u8>>>,
    ) -> Result<()> {
        let labelled: Vec<usize> =
            (0..scored.samples.len()).filter(|&at| scored.samples[at].label.is_some()).collect();
        if labelled.is_empty() {
            return Ok(());
        }
        let stage = self.voice.stage("figures", 0, "");
        if labelled.len() < scored.samples.len() {
            let (known, all) = (labelled.len(), scored.samples.len());
            scored.notes.push(format!(
                "{}: figures are of the {known} of {all} images whose label is known",
                category.name
            ));
        }
        let labels: Vec<bool> =
            labelled.iter().map(|&at| scored.samples[at].label == Some(true)).collect();
        let of = |values: &dyn Fn(usize) -> f64| -> Vec<f64> {
            labelled.iter().map(|&at| values(at)).collect()
        };
        let mut image: ImageMetrics = image_metrics(&labels, &of(&|at| scored.scores[at]))?;
        let mut raw = image_metrics(&labels, &of(&|at| f64::from(scored.raw_scores[at])))?;
        if self.config.paper {
            image = image.or_zero();
            raw = raw.or_zero();
        }
        let pixel = self.pixel_figures(scored, masks)?;
        scored.metrics = Some(ClassMetrics {
            class: category.name.clone(),
            image,
            image_auroc_raw: raw.auroc,
            pixel,
        });
        scored.seconds.push(("figures", stage.finish()));
        Ok(())
    }

    /// The pixel figures, over the images whose defective pixels are known. All their maps are in memory here,
    /// N·S²·4 bytes (with `--paper` 8), and nowhere else.
    fn pixel_figures(&self, scored: &Scored, masks: Vec<Option<Vec<u8>>>) -> Result<PixelMetrics> {
        let size = self.extraction.image_size;
        let known: Vec<usize> = (0..masks.len()).filter(|&at| masks[at].is_some()).collect();
        if known.iter().all(|&at| scored.samples[at].mask == Mask::Normal) {
            let none = PixelMetrics::default();
            // Where no mask is known at all there is no figure, which their program has no case for.
            let theirs = self.config.paper && !known.is_empty();
            return Ok(if theirs { none.or_zero() } else { none });
        }
        let joined: Vec<u8> = masks.into_iter().flatten().flatten().collect();
        if self.config.paper {
            let found = pixel_figures_of(&joined, &scored.exact_scores, scored.grid, &known, size)?;
            Ok(found.or_zero())
        } else {
            pixel_figures_of(&joined, &scored.patch_scores, scored.grid, &known, size)
        }
    }
}

/// The pixel figures of the maps of these images against their masks, one behind the other in `masks`.
fn pixel_figures_of<T: Real>(
    masks: &[u8],
    patch_scores: &[T],
    grid: usize,
    images: &[usize],
    size: usize,
) -> Result<PixelMetrics> {
    let mut maps = vec![T::default(); images.len() * size * size];
    maps.par_chunks_exact_mut(size * size).zip(images).try_for_each(|(map, &at)| {
        upsample(&patch_scores[at * grid * grid..][..grid * grid], grid, size, map)
    })?;
    interrupt::check()?;
    pixel_metrics(masks, &maps, images.len(), size, size)
}
