//! All against all by shards: each makes the tokens of its blocks of images, then scores them with those of all others, which it
//! reads from the store one after the other.

use std::ops::Range;
use std::path::{Path, PathBuf};

use musc::backend::FeatureSet;
use musc::inspect::{Batch, Inspector, Part, PartStore, StoreTerms};
use musc::progress::go_on;
use musc::{Progress, Result, Stage};
use serde_json::Value;

use super::{Job, Place, Shares, note, some_of};
use crate::run::config::MachineConfig;
use crate::shell::voice::{Teller, Voice, warn};
use crate::shell::{Stop, out};

/// The folder of tokens within a store.
const TOKENS: &str = "tokens";
/// The most images of a block, and blocks of a job that is smaller: few reads of others' tokens, enough blocks to share out.
const MOST: usize = 64;
const BLOCKS: usize = 16;

/// The blocks of so many images.
pub(super) fn runs(images: usize) -> Vec<Range<usize>> {
    let size = images.div_ceil(BLOCKS).clamp(1, MOST);
    (0..images).step_by(size).map(|start| start..images.min(start + size)).collect()
}

/// The tokens of all blocks.
pub(super) struct Tokens {
    store: PartStore,
    /// Images of each block.
    images: Vec<usize>,
}

/// What the blocks of a batch have in common.
pub(super) struct With<'a> {
    pub job: &'a Job<'a>,
    pub batch: &'a Batch,
    pub shares: &'a Shares,
    pub voice: Voice,
    pub progress: &'a Teller,
}

impl With<'_> {
    /// The store of all tokens, this shard's made where they are missing.
    ///
    /// # Errors
    /// [`Stop::Incomplete`] where others' are missing.
    pub fn tokens(
        &self,
        folder: &Path,
        terms: &StoreTerms,
        note: &Value,
        mine: &[usize],
    ) -> Result<Tokens, Stop> {
        let store =
            PartStore::open(&folder.join(TOKENS), &terms.of_tokens(), self.shares.len(), note)?;
        self.make(&store, mine)?;
        let missing = store.missing_blocks();
        if missing.is_empty() {
            let images = (0..store.parts()).map(|at| store.images_of_block(at));
            return Ok(Tokens { images: images.collect::<Result<_>>()?, store });
        }
        Err(Stop::Incomplete(format!(
            "{}: tokens of {} of {} blocks are missing: {}; the shards that make them have to be run, then this one again",
            folder.join(TOKENS).display(),
            missing.len(),
            store.parts(),
            some_of(&missing)
        )))
    }

    /// Makes these blocks' tokens where they are missing; how many.
    fn make(&self, store: &PartStore, mine: &[usize]) -> Result<usize> {
        let mut made = 0;
        for &at in mine {
            go_on(self.progress)?;
            let Some(run) = self.shares.blocks.as_ref().and_then(|blocks| blocks.get(at)) else {
                continue;
            };
            match store.has_block(self.job.inspector, at) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(damaged) => warn(&format!("note: made again: {damaged}")),
            }
            self.voice.say(&format!(
                "{}: tokens of block {at} of {}",
                self.batch.name(),
                store.parts()
            ));
            let plan = &self.shares.plan;
            let block = self.job.inspector.block(self.batch, plan, run.clone(), self.progress)?;
            store.write_block(at, &block)?;
            made += 1;
        }
        Ok(made)
    }

    /// A block scored with all others.
    pub fn scored(&self, tokens: &Tokens, own: usize) -> Result<Part> {
        let inspector = self.job.inspector;
        let Tokens { store: tokens, images } = tokens;
        let block = tokens.read_block(inspector, own)?;
        let mut scoring = inspector.block_scoring(images, own, &block)?;
        self.progress.begin(Stage::Scoring, 0);
        for group in 0..scoring.groups() {
            for layer in 0..block.features().layers().len() {
                let mut pass = scoring.begin(group, layer)?;
                scoring.within(&mut pass, self.progress)?;
                for other in (0..tokens.parts()).filter(|&other| other != own) {
                    go_on(self.progress)?;
                    let features = tokens.read_layer(inspector, other, layer)?;
                    scoring.take(&mut pass, other, &features, self.progress)?;
                }
                scoring.finish(pass)?;
            }
        }
        self.progress.end();
        let scores = scoring.scores()?;
        inspector.part_of_block(block, &scores)
    }
}

/// `musc-run extract --shard`: the tokens of a share of the blocks, for `musc-run inspect --references all --shard` to score.
/// The inspector compares all with all.
pub fn extract(
    machine: &MachineConfig,
    inspector: &Inspector,
    batch: &Batch,
    (place, store): (Place, PathBuf),
) -> Result<(), Stop> {
    let voice = Voice::new(machine.quiet);
    let teller = voice.teller();
    place.introduce(voice);
    let job = Job { inspector, known: None, blocks: true };
    let shares = job.shares(batch, &teller)?;
    let terms = job.terms(batch, &shares)?.of_tokens();
    let tokens = PartStore::open(&store.join(TOKENS), &terms, shares.len(), &note()?)?;
    let mine = place.of(shares.len(), 0);
    let with = With { job: &job, batch, shares: &shares, voice, progress: &teller };
    let made = with.make(&tokens, &mine)?;
    let (found, missing) = (mine.len() - made, tokens.missing_blocks().len());
    if machine.json {
        return Ok(out::print_json(&serde_json::json!({
            "shard": place.index, "shards": place.count, "by": place.from,
            "made": made, "found": found, "blocks": shares.len(), "missing": missing,
        }))?);
    }
    Ok(out::print(&format!(
        "shard {} of {}: tokens of {made} blocks made, of {found} found; of the job's {} blocks {missing} are missing\n",
        place.index,
        place.count,
        shares.len()
    ))?)
}
