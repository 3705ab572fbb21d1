//! One new image after the other against a bank, which may slide along with them.

use super::laps::Laps;
use super::maps::Maps;
use super::parts::{Joined, Scored};
use super::work::{self, outcome};
use super::{Bank, BankSettings, Batch, Inspection, Inspector, ReferenceSet, Thumbnails};
use crate::backend::device::AnyFeatures;
use crate::backend::{Backend, FeatureSet};
use crate::progress::go_on;
use crate::scoring::decision::DecisionRule;
use crate::{Error, Progress, Result};

/// A bank in use: images are compared with it as they come.
///
/// With a sliding bank ([`Self::keep`]) an image that is not above the threshold takes the place of the oldest reference. Its
/// tokens are rounded as those of the bank are, and its raw score is the one it was accepted with; the raw scores of the others
/// and the threshold stay what they were: a bank that follows the light of a day must not follow a growing defect as well.
#[derive(Debug)]
pub struct Predictor<'a> {
    inspector: &'a Inspector,
    bank: Bank,
    references: ReferenceSet,
    /// References that are kept, where the bank slides.
    keep: Option<usize>,
    /// The place of the oldest reference.
    oldest: usize,
    accepted: u64,
}

impl<'a> Predictor<'a> {
    /// Takes a bank to an inspector's device.
    ///
    /// # Errors
    /// As [`Inspector::references`].
    pub fn new(inspector: &'a Inspector, bank: Bank) -> Result<Self> {
        let references = inspector.references(&bank)?;
        Ok(Predictor { inspector, bank, references, keep: None, oldest: 0, accepted: 0 })
    }

    /// Lets the bank slide: the last `keep` accepted images are the references. A bank with more loses its first ones, one
    /// with fewer grows.
    ///
    /// # Errors
    /// Fewer than two; or the device's own.
    pub fn keep(mut self, keep: usize) -> Result<Self> {
        if keep < 2 {
            return Err(Error::invalid("references to keep", keep, "at least 2"));
        }
        if self.bank.len() > keep {
            let last: Vec<usize> = (self.bank.len() - keep..self.bank.len()).collect();
            self.bank = self.bank.some(&last);
            self.references = self.inspector.references(&self.bank)?;
        }
        self.keep = Some(keep);
        Ok(self)
    }

    /// With the threshold of another rule on the bank's raw scores.
    ///
    /// # Errors
    /// As [`Bank::with_rule`].
    pub fn with_rule(mut self, rule: DecisionRule) -> Result<Self> {
        self.bank = self.bank.with_rule(rule)?;
        Ok(self)
    }

    /// Above this raw score an image is defective.
    pub fn threshold(&self) -> f64 {
        self.bank.threshold()
    }

    /// Number of references now.
    pub fn references(&self) -> usize {
        self.bank.len()
    }

    /// Images that have become references so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The bank as it is now, its references in the order of their age.
    pub fn bank(&self) -> Bank {
        let places: Vec<usize> = (self.oldest..self.bank.len()).chain(0..self.oldest).collect();
        self.bank.some(&places)
    }

    /// Compares the images of a batch with the bank; with a sliding bank one after the other, each with the bank that those
    /// before it have left.
    ///
    /// # Errors
    /// As [`Inspector::compare`].
    pub fn predict(&mut self, batch: &Batch, progress: &dyn Progress) -> Result<Inspection> {
        let Some(keep) = self.keep else {
            return self.inspector.compare(batch, &self.references, progress);
        };
        let laps = Laps::new(progress);
        let inspector = self.inspector;
        let input = inspector.input_of_queries(batch, &self.references)?;
        let mut joined = Joined::new((0..batch.len()).collect(), inspector.settings.paper);
        let maps = Maps::whole(input.grid(inspector.backbone.architecture().patch), input);
        let (mut raw_scores, mut scores, mut k) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..batch.len() {
            go_on(&laps)?;
            let (part, features) =
                inspector.compared(batch, &[at], (input, &self.references), &laps)?;
            if part.is_empty() {
                joined.add(part)?;
                continue;
            }
            let Scored { patch_scores, left_out, class_tokens, .. } = part.scored();
            let raw = work::raw_scores(inspector, patch_scores, left_out, &maps, &[])?;
            let rescored = inspector.rescored(batch, &raw, class_tokens, &self.references)?;
            joined.add(part)?;
            raw_scores.extend(&raw);
            scores.extend(rescored.0);
            k = rescored.1;
            if let [raw] = raw[..]
                && f64::from(raw) <= self.threshold()
            {
                self.accept(batch, at, &features, raw, keep)?;
            }
        }
        let all = (raw_scores, scores, k);
        let files = joined.finish()?;
        let mut found = outcome(inspector, batch, (input, maps), files, all, 1, laps);
        found.notes.extend(self.references.note());
        Ok(found)
    }

    /// Makes a reference of an image, in the place of the oldest where there are `keep` already. One that is a reference
    /// already, by its pixels, changes nothing.
    fn accept(
        &mut self,
        batch: &Batch,
        at: usize,
        features: &AnyFeatures,
        raw: f32,
        keep: usize,
    ) -> Result<()> {
        let host = features.to_host()?;
        if host.content.iter().any(|content| self.bank.content.contains(content)) {
            return Ok(());
        }
        let features = vec![self.inspector.formats().features.to_string()];
        let settings = BankSettings { features, ..self.bank.settings.clone() };
        let name = batch.samples()[at].path.display().to_string();
        let inspector = self.inspector;
        let size = self.bank.thumbnails.size;
        let pixels = inspector.on_pool(|| inspector.thumbnail_of(batch, at, size))?;
        let thumbnails = Thumbnails { size, pixels };
        let mut one = Bank::of_features(settings, host, vec![name], thumbnails);
        one.raw_scores = vec![raw];
        self.accepted += 1;
        if self.bank.len() < keep {
            self.bank.push(&one);
            self.references = inspector.references(&self.bank)?;
            return Ok(());
        }
        let rounded = inspector.backend.upload(one.features())?;
        inspector.backend.replace(&mut self.references.ready, self.oldest, &rounded, 0)?;
        self.references.replace(self.oldest, &one.class_tokens, raw);
        self.bank.replace(self.oldest, &one);
        self.oldest = (self.oldest + 1) % keep;
        Ok(())
    }
}
