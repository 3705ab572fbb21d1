//! Images that others are compared with: known-good or earlier ones, learned once.

use std::collections::HashSet;

use super::bank::refuse_differences;
use super::laps::Laps;
use super::maps::Maps;
use super::parts::{Joined, Part, PartFiles};
use super::work::{features_of, input_of, outcome, raw_scores, rescore};
use super::{Bank, Batch, InputSize, Inspection, Inspector, Note, likeness, tiles};
use crate::backend::device::{AnyFeatures, AnyReady, Formats};
use crate::backend::{Backend, FeatureSet, References};
use crate::image::Normalisation;
use crate::progress::{Stage, go_on};
use crate::scoring::rscin::{RscinOptions, rscin};
use crate::{Error, ImageSize, Progress, Result};

/// Images that are compared with references together: it bounds the memory, and changes no number.
pub(super) const TOGETHER: usize = 64;

/// References on the device of the inspector that they belong to, ready to be compared with, with what they are worth among
/// themselves.
#[derive(Debug)]
pub struct ReferenceSet {
    pub(super) ready: AnyReady,
    /// `[M, E]`.
    pub(super) class_tokens: Vec<f32>,
    class_width: usize,
    /// Raw scores of the references against each other.
    pub(super) raw_scores: Vec<f32>,
    setting: Setting,
    note: Option<Note>,
}

/// What must be equal for features to be comparable.
#[derive(Debug, Clone, PartialEq)]
struct Setting {
    backbone: String,
    input: ImageSize,
    pads: bool,
    blocks: Vec<usize>,
    normalisation: Normalisation,
    degrees: Vec<usize>,
    radius: Option<usize>,
    formats: Formats,
}

impl Setting {
    fn of(inspector: &Inspector, input: ImageSize) -> Self {
        let settings = &inspector.settings;
        Setting {
            backbone: inspector.backbone.name().to_string(),
            input,
            pads: matches!(settings.input, InputSize::KeepAspect { pad: true, .. }),
            blocks: inspector.backbone.blocks.clone(),
            normalisation: inspector.backbone.architecture().family.normalisation(),
            degrees: settings.scoring.degrees.clone(),
            radius: settings.scoring.radius,
            formats: inspector.formats(),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("backbone", self.backbone.clone()),
            ("size", self.input.to_string()),
            ("layers", format!("{:?}", self.blocks)),
            ("normalisation", format!("{:?}", self.normalisation)),
            ("aggregation degrees", format!("{:?}", self.degrees)),
            ("radius", format!("{:?}", self.radius)),
            ("format of features", self.formats.features.into()),
            ("format of scoring", self.formats.scoring.into()),
        ]
    }

    /// Refuses queries of another setting, by everything that differs.
    fn check(&self, queries: &Setting) -> Result<()> {
        refuse_differences("queries", queries.facts(), self.facts(), "the references have")
    }
}

impl ReferenceSet {
    /// References that have been made ready on an inspector's device.
    pub(super) fn new(
        inspector: &Inspector,
        input: ImageSize,
        ready: AnyReady,
        (class_tokens, class_width): (Vec<f32>, usize),
        raw_scores: Vec<f32>,
    ) -> Self {
        let setting = Setting::of(inspector, input);
        ReferenceSet { ready, class_tokens, class_width, raw_scores, setting, note: None }
    }

    /// With what is said of every inspection that compares with them.
    pub(super) fn with_note(mut self, note: Option<Note>) -> Self {
        self.note = note;
        self
    }

    pub(super) fn note(&self) -> Option<Note> {
        self.note.clone()
    }

    /// Puts an image's class token and raw score in the place of a reference's.
    pub(super) fn replace(&mut self, at: usize, class_token: &[f32], raw_score: f32) {
        let width = self.class_width;
        self.class_tokens[at * width..][..width].copy_from_slice(class_token);
        self.raw_scores[at] = raw_score;
    }

    /// Number of references M.
    pub fn len(&self) -> usize {
        self.raw_scores.len()
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
    /// Makes features of a batch to compare other images with, and scores the batch against itself. To keep them, see
    /// [`bank`](Self::bank).
    ///
    /// # Errors
    /// Fewer than two images; a file that cannot be read; a setting that does not fit; an interruption; or the device's
    /// own.
    pub fn learn(&self, batch: &Batch, progress: &dyn Progress) -> Result<ReferenceSet> {
        tiles::refuse(self, "references")?;
        let input = input_of(self, batch)?;
        let grid = input.grid(self.backbone.architecture().patch);
        let scoring = &self.settings.scoring;
        scoring.check(batch.len().saturating_sub(1), grid)?;
        let places: Vec<usize> = (0..batch.len()).collect();
        let (_, features) = features_of(self, batch, &places, input, progress)?;
        scoring.check(features.images().saturating_sub(1), grid)?;
        let scores = self.backend.patch_scores(&features, References::Others, scoring, progress)?;
        let left_out = features.left_out();
        let raw_scores =
            raw_scores(self, &scores.mean(), left_out, &Maps::whole(grid, input), &[])?;
        let class_tokens = (features.class_tokens()?, features.class_width());
        let ready = self.backend.make_ready(features, scoring)?;
        Ok(ReferenceSet::new(self, input, ready, class_tokens, raw_scores))
    }

    /// Scores images against references alone: each of them as if it were the only new one. An image that is among the
    /// references is not compared with itself. RsCIN takes the references' class tokens and raw scores, and the image's.
    /// Memory does not grow with the batch but for patch scores and class tokens.
    ///
    /// # Errors
    /// References of another backbone, size, layers, normalisation or scoring, with both values; no reference but the image
    /// itself; otherwise as [`inspect`](Self::inspect).
    pub fn compare(
        &self,
        batch: &Batch,
        references: &ReferenceSet,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        tiles::refuse(self, "references")?;
        let laps = Laps::new(progress);
        let plan = self.plan_to_compare(batch, references)?;
        let mut joined = Joined::new(plan.places(), self.settings.paper);
        for part in &plan.parts {
            go_on(&laps)?;
            joined.add(self.part_compared(batch, part, (plan.input, references), &laps)?)?;
        }
        let mut found = self.finish_compared(batch, plan.input, joined, references, laps)?;
        found.notes.extend(references.note());
        Ok(found)
    }

    /// Scores the images of a batch against each other and against a bank's, which are not scored themselves but for RsCIN. An
    /// image of the bank that is in the batch too, by its pixels, counts once.
    ///
    /// The batch is not dealt into subsets: tokens of both, in f32 and in the device's form, are in memory together.
    ///
    /// # Errors
    /// A bank of another setting, with both values; otherwise as [`inspect`](Self::inspect).
    pub fn inspect_with(
        &self,
        batch: &Batch,
        bank: &Bank,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        tiles::refuse(self, "references")?;
        let laps = Laps::new(progress);
        let input = self.input_with(batch, bank.settings())?;
        self.check_bank(bank, input)?;
        let grid = input.grid(self.backbone.architecture().patch);
        let places: Vec<usize> = (0..batch.len()).collect();
        let (loaded, features) = features_of(self, batch, &places, input, &laps)?;
        let mut host = features.to_host()?;
        drop(features);
        let own: HashSet<u64> = host.content.iter().copied().collect();
        let others: Vec<usize> =
            (0..bank.len()).filter(|&at| !own.contains(&bank.content()[at])).collect();
        let count = host.images;
        host.push(bank.some(&others).features());
        let both = self.backend.upload(host)?;
        let scoring = &self.settings.scoring;
        scoring.check(both.images().saturating_sub(1), grid)?;
        let scores = self.backend.patch_scores(&both, References::Others, scoring, &laps)?;
        let scores = scores.mean_f64();
        let class_tokens = both.class_tokens()?;
        let width = both.class_width();
        let own = count * grid.patches();
        let marks = both.left_out();
        let of_batch = (class_tokens[..count * width].to_vec(), width);
        let exact = self.settings.paper;
        let files = PartFiles::of(&places, loaded);
        let mut part = Part::empty(files, grid.patches(), of_batch, exact);
        part.set(0, &scores[..own]);
        if let Some(marks) = marks.get(..own) {
            part.mark(0, marks);
        }
        let mut joined = Joined::new(places, exact);
        joined.add(part)?;
        let (files, scored) = joined.finish()?;
        laps.begin(Stage::Rescoring, both.images() as u64);
        let single: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
        let maps = Maps::whole(grid, input);
        let mut raw = raw_scores(self, &single, marks, &maps, &[])?;
        let (mut rescored, k) = rescore(self, batch, &raw, (&class_tokens, width))?;
        laps.advance(both.images() as u64);
        laps.end();
        raw.truncate(count);
        rescored.truncate(count);
        let mut inspection =
            outcome(self, batch, (input, maps), (files, scored), (raw, rescored, k), 1, laps);
        let alike = self.on_pool(|| likeness::notes_of(&inspection));
        inspection.notes.extend(alike);
        inspection.notes.extend(self.note_of(bank));
        Ok(inspection)
    }

    /// The size at which images go through the backbone that are compared with references.
    pub(super) fn input_of_queries(
        &self,
        batch: &Batch,
        references: &ReferenceSet,
    ) -> Result<ImageSize> {
        let setting = &references.setting;
        // A canvas is the references': alone, an image would be given one of its own.
        let pads = matches!(self.settings.input, InputSize::KeepAspect { pad: true, .. });
        let input = if pads && setting.pads { setting.input } else { input_of(self, batch)? };
        setting.check(&Setting::of(self, input))?;
        Ok(input)
    }

    /// Some of a batch's images, their features and patch scores.
    pub(super) fn compared(
        &self,
        batch: &Batch,
        places: &[usize],
        (input, references): (ImageSize, &ReferenceSet),
        progress: &dyn Progress,
    ) -> Result<(Part, AnyFeatures)> {
        let (loaded, features) = features_of(self, batch, places, input, progress)?;
        let scores = self.backend.compare(&features, &references.ready, progress)?.mean_f64();
        let exact = self.settings.paper;
        let files = PartFiles::of(places, loaded);
        Ok((Part::of_features(files, &features, &scores, exact)?, features))
    }

    /// As [`Self::compared`], the features let go.
    pub(super) fn part_compared(
        &self,
        batch: &Batch,
        places: &[usize],
        with: (ImageSize, &ReferenceSet),
        progress: &dyn Progress,
    ) -> Result<Part> {
        Ok(self.compared(batch, places, with, progress)?.0)
    }

    /// Raw scores and RsCIN of images that have been compared.
    pub(super) fn finish_compared(
        &self,
        batch: &Batch,
        input: ImageSize,
        joined: Joined,
        references: &ReferenceSet,
        laps: Laps<'_>,
    ) -> Result<Inspection> {
        let (files, scored) = joined.finish()?;
        let count = files.kept.len();
        laps.begin(Stage::Rescoring, count as u64);
        let maps = Maps::whole(input.grid(self.backbone.architecture().patch), input);
        let raw_scores = raw_scores(self, &scored.patch_scores, &scored.left_out, &maps, &[])?;
        let (scores, k) = self.rescored(batch, &raw_scores, &scored.class_tokens, references)?;
        laps.advance(count as u64);
        laps.end();
        let all = (raw_scores, scores, k);
        Ok(outcome(self, batch, (input, maps), (files, scored), all, 1, laps))
    }

    /// Each image re-scored among the references.
    pub(super) fn rescored(
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
        let width = references.class_width;
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
