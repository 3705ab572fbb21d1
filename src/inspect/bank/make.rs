//! Banks of images, and references of banks.

use rayon::prelude::*;

use super::{Bank, BankSettings, Thumbnails, bank_threshold, without_duplicates};
use crate::backend::{Backend, FeatureSet, References};
use crate::inspect::maps::Maps;
use crate::inspect::work::{features_of, input_of, raw_scores};
use crate::inspect::{Batch, Inspector, Note, ReferenceSet, tiles};
use crate::scoring::decision::DecisionRule;
use crate::{Error, ImageSize, Progress, Result};

/// The longer side of a bank's small pictures.
const THUMBNAIL: usize = 96;

impl Inspector {
    /// A bank of a batch: its features in 16 bits, its raw scores against each other, and the threshold that `rule` makes of
    /// them. An image that is in the batch twice, by its pixels, is kept once.
    ///
    /// # Errors
    /// Fewer than two images; a file that cannot be read; a setting that does not fit; F1 as the rule; an interruption; or the
    /// device's own.
    pub fn bank(&self, batch: &Batch, rule: DecisionRule, progress: &dyn Progress) -> Result<Bank> {
        // Before any work.
        tiles::refuse(self, "banks")?;
        bank_threshold(rule, &[0.0, 0.0])?;
        let input = input_of(self, batch)?;
        let grid = input.grid(self.backbone.architecture().patch);
        self.settings.scoring.check(batch.len().saturating_sub(1), grid)?;
        let settings = BankSettings::of(self, input, batch.rscin_k(), rule)?;
        let bank = self.unscored_bank(batch, input, settings, progress)?;
        self.scored(bank, progress)
    }

    /// A bank with the images of a batch besides; those that it has already, by their pixels, are passed over. Raw scores and
    /// threshold are made anew.
    ///
    /// # Errors
    /// A setting of this inspector that is not the bank's; otherwise as [`bank`](Self::bank).
    pub fn add_to_bank(&self, bank: Bank, batch: &Batch, progress: &dyn Progress) -> Result<Bank> {
        let input = self.input_with(batch, &bank.settings)?;
        let settings = BankSettings::of(self, input, batch.rscin_k(), bank.settings.rule)?;
        bank.settings.check_equal(&settings, "images")?;
        let features = settings.features;
        let settings = BankSettings { features, ..bank.settings.clone() };
        let more = self.unscored_bank(batch, input, settings, progress)?;
        self.merge_banks(vec![bank, more], progress)
    }

    /// Several banks as one; of images that are in several, by their pixels, the first is kept. Rule and names are those of the
    /// first bank first; raw scores and threshold are made anew.
    ///
    /// # Errors
    /// No bank; banks of different settings, with both values; an interruption; or the device's own.
    pub fn merge_banks(&self, banks: Vec<Bank>, progress: &dyn Progress) -> Result<Bank> {
        let mut banks = banks.into_iter();
        let Some(mut bank) = banks.next() else {
            return Err(Error::invalid("banks", "none", "at least one"));
        };
        for other in banks {
            bank.settings.check_equal(&other.settings, "second bank")?;
            bank.push(&other);
        }
        self.scored(without_duplicates(bank), progress)
    }

    /// The references of a bank on this inspector's device, to [`compare`](Self::compare) images with.
    ///
    /// # Errors
    /// A bank of another backbone, other weights, layers or scoring, with both values; values that are not finite; or the
    /// device's own.
    pub fn references(&self, bank: &Bank) -> Result<ReferenceSet> {
        self.check_bank(bank, bank.settings.input)?;
        let features = self.backend.upload(bank.features())?;
        Ok(ReferenceSet::new(
            self,
            bank.settings.input,
            self.backend.make_ready(features, &self.settings.scoring)?,
            (bank.class_tokens.clone(), bank.class_width),
            bank.raw_scores.clone(),
        )
        .with_note(self.note_of(bank)))
    }

    /// What there is to say before images are compared with a bank: that tokens of one of them are in bf16, the others' not.
    pub fn note_of(&self, bank: &Bank) -> Option<Note> {
        let images = self.formats().features;
        let of = &bank.settings.features;
        let differs = of.iter().any(|bank| (bank == "bf16") != (images == "bf16"));
        differs.then(|| Note::OtherFeatures { bank: of.join(" and "), images })
    }

    /// Refuses a bank of other settings than this inspector's at this size.
    pub(in crate::inspect) fn check_bank(&self, bank: &Bank, input: ImageSize) -> Result<()> {
        tiles::refuse(self, "banks")?;
        let settings = BankSettings::of(self, input, &[], bank.settings.rule)?;
        bank.settings.check_equal(&settings, "images")
    }

    /// The size at which images go through the backbone that are compared with a bank.
    pub(in crate::inspect) fn input_with(
        &self,
        batch: &Batch,
        bank: &BankSettings,
    ) -> Result<ImageSize> {
        // A canvas is the bank's: alone, an image would be given one of its own.
        if bank.pads() && self.settings.input == bank.asked_input {
            return Ok(bank.input);
        }
        input_of(self, batch)
    }

    fn unscored_bank(
        &self,
        batch: &Batch,
        input: ImageSize,
        settings: BankSettings,
        progress: &dyn Progress,
    ) -> Result<Bank> {
        let places: Vec<usize> = (0..batch.len()).collect();
        let (loaded, features) = features_of(self, batch, &places, input, progress)?;
        let names = batch.some(&loaded.kept).iter().map(|s| s.path.display().to_string()).collect();
        let thumbnails = self.thumbnails(batch, &loaded.kept, input)?;
        let bank = Bank::of_features(settings, features.to_host()?, names, thumbnails);
        Ok(without_duplicates(bank))
    }

    fn thumbnails(&self, batch: &Batch, kept: &[usize], input: ImageSize) -> Result<Thumbnails> {
        let longest = input.height.max(input.width).max(1);
        let scaled = |side: usize| (side * THUMBNAIL / longest).max(1);
        let size = ImageSize::new(scaled(input.height), scaled(input.width));
        let pixels: Vec<Vec<u8>> = self.on_pool(|| {
            kept.par_iter().map(|&at| self.thumbnail_of(batch, at, size)).collect::<Result<_>>()
        })?;
        Ok(Thumbnails { size, pixels: pixels.concat() })
    }

    /// The small picture of an image, `[height, width, 3]`.
    pub(in crate::inspect) fn thumbnail_of(
        &self,
        batch: &Batch,
        at: usize,
        size: ImageSize,
    ) -> Result<Vec<u8>> {
        Ok(batch.image(at, &self.resize_to(size))?.data)
    }

    /// A bank whose raw scores are those of its images against each other.
    fn scored(&self, mut bank: Bank, progress: &dyn Progress) -> Result<Bank> {
        let scoring = &self.settings.scoring;
        scoring.check(bank.len().saturating_sub(1), bank.grid)?;
        let features = self.backend.upload(bank.features())?;
        let scores = self.backend.patch_scores(&features, References::Others, scoring, progress)?;
        let maps = Maps::whole(bank.grid, bank.settings.input);
        bank.raw_scores = raw_scores(self, &scores.mean(), &bank.left_out, &maps, &[])?;
        bank.threshold = bank_threshold(bank.settings.rule, &bank.raw_scores)?;
        Ok(bank)
    }
}
