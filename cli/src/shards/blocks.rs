//! All against all by shards: each makes the tokens of its blocks of images, then scores them with those of all others, which it
//! reads from the store one after the other.

use std::ops::Range;
use std::path::Path;

use musc::backend::FeatureSet;
use musc::inspect::{Batch, Block, InputSize, Part, PartStore, StoreTerms, Subsets};
use musc::progress::go_on;
use musc::{Error, Progress, Result, Stage};
use serde_json::Value;

use super::place::place;
use super::{Job, Shares, note};
use crate::args::ExtractArgs;
use crate::embedded::BUILT_IN_BACKBONE;
use crate::run::config::{BackboneConfig, DEFAULT_IMAGE_SIZE, MachineConfig, input_size};
use crate::run::yaml::Yaml;
use crate::shell::voice::{Teller, Voice, warn};
use crate::shell::{Stop, out};
use crate::stages::listed;

/// The folder of tokens within a store.
const TOKENS: &str = "tokens";
/// The most images of a block, and blocks of a job that is smaller: few reads of others' tokens, enough blocks to share out.
const MOST: usize = 64;
const BLOCKS: usize = 16;
/// Missing blocks that are named.
const SHOWN: usize = 10;

/// The blocks of so many images.
pub(super) fn runs(images: usize) -> Vec<Range<usize>> {
    let size = images.div_ceil(BLOCKS).clamp(1, MOST);
    (0..images).step_by(size).map(|start| start..images.min(start + size)).collect()
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
    ) -> Result<PartStore, Stop> {
        let store =
            PartStore::open(&folder.join(TOKENS), &terms.of_tokens(), self.shares.len(), note)?;
        self.make(&store, mine)?;
        let missing = store.missing_blocks();
        if missing.is_empty() {
            return Ok(store);
        }
        let shown: Vec<String> = missing.iter().take(SHOWN).map(usize::to_string).collect();
        let more = match missing.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(Stop::Incomplete(format!(
            "{}: tokens of {} of {} blocks are missing: {}{more}; the shards that make them have to be run, then this one again",
            folder.join(TOKENS).display(),
            missing.len(),
            store.parts(),
            shown.join(", ")
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
            match store.read_block(self.job.inspector, at) {
                Ok(Some(_)) => continue,
                Ok(None) => {}
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
    pub fn scored(&self, tokens: &PartStore, own: usize) -> Result<Part> {
        let inspector = self.job.inspector;
        let gone = |at: usize| Error::Dataset {
            path: tokens.block_path(at),
            reason: "not there any more".into(),
        };
        let block: Block = tokens.read_block(inspector, own)?.ok_or_else(|| gone(own))?;
        let sizes =
            (0..tokens.parts()).map(|at| tokens.images_of_block(at)).collect::<Result<Vec<_>>>()?;
        let mut scoring = inspector.block_scoring(&sizes, own, &block)?;
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
pub fn extract(args: ExtractArgs) -> Result<(), Stop> {
    let (Some(asked), Some(store)) = (args.shard.shard, args.shard.store) else {
        return Err(Stop::Usage(Error::invalid("--shard", "nothing", "a shard and its --store")));
    };
    let place = place(asked, |name| std::env::var(name).ok()).map_err(Stop::Usage)?;
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    let mut none = Yaml::default();
    let backbone =
        BackboneConfig::new(args.backbone, &mut none, BUILT_IN_BACKBONE).map_err(Stop::Usage)?;
    let input: InputSize = input_size(args.size, None, DEFAULT_IMAGE_SIZE).map_err(Stop::Usage)?;
    let voice = Voice::new(machine.quiet);
    let teller = voice.teller();
    if let Some(from) = &place.from {
        voice.say(&format!("shard {} of {}, by {from}", place.index, place.count));
    }
    let batch = listed(&args.images, args.skip_bad)?;
    let inspector = backbone.builder(&machine).input(input).subsets(Subsets::All).build()?;
    let job = Job { inspector: &inspector, known: None, blocks: true };
    let shares = job.shares(&batch, &teller)?;
    let terms = job.terms(&batch, &shares)?.of_tokens();
    let tokens = PartStore::open(&store.join(TOKENS), &terms, shares.len(), &note()?)?;
    let mine: Vec<usize> = (0..shares.len()).filter(|at| at % place.count == place.index).collect();
    let with = With { job: &job, batch: &batch, shares: &shares, voice, progress: &teller };
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
