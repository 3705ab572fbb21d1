//! `--references PATH`: known-good or earlier images that the others are compared with.

use std::path::Path;

use musc::dataset::FolderOptions;
use musc::inspect::{Bank, Batch, Inspection, Inspector, ReferenceSet};
use musc::scoring::decision::DecisionRule;
use musc::{Progress, Result};

use super::config::{Config, KnownImages};
use super::sources::passed_over;

/// The images, as they were found.
pub enum Found {
    /// A bank, read.
    Bank(Box<Bank>),
    /// Images, none of them opened yet.
    Images(Batch),
}

/// Finds the images before any weights are read.
pub fn find(known: &KnownImages, config: &Config) -> Result<(Found, Option<String>)> {
    let path = Path::new(&known.path);
    let bank = path.is_file() && path.extension().is_some_and(|word| word == "safetensors");
    if bank {
        return Ok((Found::Bank(Box::new(Bank::open(path)?)), None));
    }
    let batch = Batch::paths(std::slice::from_ref(&known.path), &FolderOptions::default())?;
    let note = passed_over(&batch);
    let batch = batch.named("references").skip_bad(config.skip_bad);
    // The same part of them is looked at.
    Ok((Found::Images(config.regions.of(batch)?), note))
}

/// Known images on the device.
pub struct Known {
    bank: Bank,
    /// What images are compared with where they are not compared with each other.
    alone: Option<ReferenceSet>,
}

impl Known {
    /// Makes a bank of images, and references of it.
    pub fn new(
        found: Found,
        config: &Config,
        each_other: bool,
        inspector: &Inspector,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let rule = own_rule(config.decide);
        let bank = match found {
            Found::Bank(bank) => bank.with_rule(rule)?,
            Found::Images(batch) => inspector.bank(&batch, rule, progress)?,
        };
        let alone = if each_other { None } else { Some(inspector.references(&bank)?) };
        Ok(Known { bank, alone })
    }

    /// What images are compared with, where they are not compared with each other as well.
    pub fn alone(&self) -> Option<&ReferenceSet> {
        self.alone.as_ref()
    }

    /// The images as a bank.
    pub fn bank(&self) -> &Bank {
        &self.bank
    }

    /// Number of known images.
    pub fn len(&self) -> usize {
        self.bank.len()
    }

    /// Scores a batch.
    pub fn inspect(
        &self,
        inspector: &Inspector,
        batch: &Batch,
        progress: &dyn Progress,
    ) -> Result<Inspection> {
        match &self.alone {
            Some(references) => inspector.compare(batch, references, progress),
            None => inspector.inspect_with(batch, &self.bank, progress),
        }
    }

    /// The threshold of a rule that looks at raw scores: where images are compared with known ones alone, the known ones' among
    /// themselves. A batch may be defective from end to end then.
    pub fn threshold(&self, rule: DecisionRule) -> Option<f64> {
        (self.alone.is_some() && own_rule(rule) == rule).then(|| self.bank.threshold())
    }
}

/// The rule where it looks at raw scores alone; any other says nothing of a bank.
fn own_rule(rule: DecisionRule) -> DecisionRule {
    if matches!(rule, DecisionRule::F1 | DecisionRule::Mebin) {
        DecisionRule::default()
    } else {
        rule
    }
}
