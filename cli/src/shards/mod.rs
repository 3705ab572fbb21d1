//! One job by many processes: `musc-run inspect --shard` makes parts of it, `musc-run merge` the result.

mod blocks;
mod merge;
mod place;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use musc::inspect::{
    Bank, Batch, Inspector, Part, PartStore, Plan, ReferenceSet, StoreTerms, Subsets,
};
use musc::model::sha256_of_bytes;
use musc::progress::go_on;
use musc::{Error, Progress, Result};
use serde_json::{Value, json};

pub use self::blocks::extract;
pub use self::merge::merge;
use self::place::{Place, place};
use crate::args::{InspectArgs, ShardArgs};
use crate::run::config::{Config, KnownImages, Source};
use crate::run::known::{self, Found, Known};
use crate::run::{run, sources};
use crate::shell::voice::{Voice, warn};
use crate::shell::{Stop, out};

/// The bank of known images that the first shard makes of a folder.
const BANK: &str = "references.bank.safetensors";
/// Files of a store that says what its own are called.
const MANIFEST: &str = "manifest.json";

/// Missing parts that are named.
const SHOWN: usize = 10;

/// Runs `musc-run inspect`: all of it, or a share.
pub fn inspect(args: InspectArgs) -> Result<(), Stop> {
    let config = Config::from_run(args.run).map_err(Stop::Usage)?;
    match share(args.shard)? {
        Some((place, store)) => shard(&config, &place, &store),
        None => run(config),
    }
}

/// The share of a job that was asked for, if one was, and its store.
pub fn share(args: ShardArgs) -> Result<Option<(Place, PathBuf)>, Stop> {
    // One is not given without the other.
    let (Some(asked), Some(store)) = (args.shard, args.store) else { return Ok(None) };
    let place = place(asked, |name| std::env::var(name).ok()).map_err(Stop::Usage)?;
    Ok(Some((place, store)))
}

/// What a shard has done.
#[derive(Default)]
struct Done {
    made: usize,
    found: usize,
    parts: usize,
    missing: usize,
}

fn shard(config: &Config, place: &Place, store: &Path) -> Result<(), Stop> {
    let voice = Voice::new(config.machine.quiet);
    let teller = voice.teller();
    if let Some(known) = config.known.as_ref().filter(|known| known.each_other) {
        let found = format!("all+{}, with shards", known.path);
        let expected =
            "all, a number, or PATH: with all+PATH every image is compared with every other";
        return Err(Stop::Usage(Error::invalid("--references", found, expected)));
    }
    place.introduce(voice);
    let note = note()?;
    let (batches, notes) = sources::batches(config, Path::new(""))?;
    for note in config.notes.iter().chain(&notes) {
        warn(&format!("note: {note}"));
    }
    let found = config.known.as_ref().map(|of| known::find(of, config)).transpose()?;
    let inspector = config.inspector(&teller)?;
    let known = match found {
        Some((found, note)) => {
            if let Some(note) = note {
                warn(&format!("note: {note}"));
            }
            let known = known_images(found, config, &inspector, store, &teller)?;
            if let Some(note) = inspector.note_of(known.bank()) {
                warn(&format!("note: {note}"));
            }
            Some(known)
        }
        None => None,
    };
    let job = Job { inspector: &inspector, known: known.as_ref(), blocks: in_blocks(config) };
    let mut done = Done::default();
    // Parts are counted through all categories, so that small ones do not all go to the first shard.
    let mut number = 0;
    for batch in &batches {
        let shares = job.shares(batch, &teller)?;
        let folder = folder_of(store, batch, batches.len() > 1);
        let terms = job.terms(batch, &shares)?;
        let store = PartStore::open(&folder, &terms, shares.len(), &note)?;
        let mine = place.of(shares.len(), number);
        number += shares.len();
        done.parts += shares.len();
        let mut to_do = Vec::new();
        for &part in &mine {
            go_on(&teller)?;
            match store.read(part) {
                Ok(Some(_)) => {
                    done.found += 1;
                    continue;
                }
                Ok(None) => {}
                Err(damaged) => warn(&format!("note: made again: {damaged}")),
            }
            to_do.push(part);
        }
        let with = blocks::With { job: &job, batch, shares: &shares, voice, progress: &teller };
        let tokens = match &shares.blocks {
            Some(_) if !to_do.is_empty() => Some(with.tokens(&folder, &terms, &note, &mine)?),
            _ => None,
        };
        for part in to_do {
            go_on(&teller)?;
            voice.say(&format!("{}: part {part} of {}", batch.name(), shares.len()));
            let made = match &tokens {
                Some(tokens) => with.scored(tokens, part)?,
                None => job.part(batch, &shares.plan, part, &teller)?,
            };
            for (path, reason) in made.skipped() {
                warn(&format!("skipped {}: {reason}", path.display()));
            }
            store.write(part, &made)?;
            done.made += 1;
        }
        done.missing += store.missing().len();
    }
    Ok(say(config, place, &done)?)
}

fn say(config: &Config, place: &Place, done: &Done) -> Result<()> {
    let Place { index, count, from } = place;
    let Done { made, found, parts, missing } = done;
    if config.machine.json {
        return out::print_json(&json!({
            "shard": index, "shards": count, "by": from, "made": made, "found": found, "parts": parts, "missing": missing,
        }));
    }
    out::print(&format!(
        "shard {index} of {count}: {made} parts made, {found} found; of the job's {parts} parts {missing} are missing\n"
    ))
}

/// The folder of a category's parts, among several or alone.
fn folder_of(store: &Path, batch: &Batch, several: bool) -> PathBuf {
    if several { store.join(batch.name()) } else { store.to_path_buf() }
}

/// The first of some numbers, and how many more there are.
fn some_of(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(SHOWN).map(usize::to_string).collect();
    let more = match numbers.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// What the manifest keeps of this process, for the merge.
fn note() -> Result<Value> {
    let mut words = Vec::new();
    for word in std::env::args_os().skip(1) {
        words.push(word.into_string().map_err(|word| {
            Error::invalid(
                "arguments",
                word.to_string_lossy(),
                "text in UTF-8, which a store can keep",
            )
        })?);
    }
    let folder = std::env::current_dir().map_err(|reason| Error::Io {
        action: "find",
        path: ".".into(),
        source: reason,
    })?;
    Ok(json!({ "arguments": words, "folder": folder }))
}

/// The known images on the device; of a folder of them the store keeps a bank, which one shard makes.
fn known_images(
    found: Found,
    config: &Config,
    inspector: &Inspector,
    store: &Path,
    progress: &dyn Progress,
) -> Result<Known> {
    let path = store.join(BANK);
    let (found, to_save) = match found {
        Found::Images(batch) if path.is_file() => {
            let bank = Bank::open(&path)?;
            let names: HashSet<String> =
                batch.samples().iter().map(|sample| sample.path.display().to_string()).collect();
            if !bank.names().iter().all(|name| names.contains(name)) {
                let reason = format!(
                    "it was made of other references: found {} images, expected those of the {} that are asked for",
                    bank.len(),
                    names.len()
                );
                return Err(Error::Dataset { path, reason });
            }
            (Found::Bank(Box::new(bank)), false)
        }
        Found::Images(batch) => (Found::Images(batch), true),
        bank => (bank, false),
    };
    let known = Known::new(found, config, false, inspector, progress)?;
    if to_save {
        known.bank().save(&path)?;
    }
    Ok(known)
}

/// Whether images are scored all against all, block by block. Where that is a data set's default its categories are what is
/// shared out.
fn in_blocks(config: &Config) -> bool {
    config.subsets == Subsets::All
        && config.known.is_none()
        && config.tiles.is_none()
        && config.scoring.radius.is_none()
        && matches!(config.source, Source::Paths { .. })
}

/// What is done with every batch.
struct Job<'a> {
    inspector: &'a Inspector,
    known: Option<&'a Known>,
    /// See [`in_blocks`].
    blocks: bool,
}

/// How a batch is shared out.
struct Shares {
    plan: Plan,
    /// Runs of the images of the plan's one part, where they are scored block by block.
    blocks: Option<Vec<Range<usize>>>,
}

impl Shares {
    fn len(&self) -> usize {
        self.blocks.as_ref().map_or(self.plan.len(), Vec::len)
    }
}

impl Job<'_> {
    fn references(&self) -> Option<&ReferenceSet> {
        self.known.and_then(Known::alone)
    }

    fn shares(&self, batch: &Batch, progress: &dyn Progress) -> Result<Shares> {
        let plan = match self.references() {
            Some(references) => self.inspector.plan_to_compare(batch, references)?,
            None => self.inspector.plan(batch, progress)?,
        };
        let blocks = match self.blocks && plan.len() == 1 {
            true => Some(blocks::runs(plan.part(0)?.len())),
            false => None,
        };
        Ok(Shares { plan, blocks })
    }

    fn terms(&self, batch: &Batch, shares: &Shares) -> Result<StoreTerms> {
        let terms = self.inspector.store_terms(batch, &shares.plan)?;
        Ok(match self.known {
            Some(known) => {
                let content = known.bank().content();
                let bytes: Vec<u8> = content.iter().flat_map(|of| of.to_le_bytes()).collect();
                let hash = sha256_of_bytes(&bytes);
                terms.with("references", format!("{} with SHA-256 {hash}", content.len()))
            }
            None if shares.blocks.is_some() => terms.with("parts", "blocks of all"),
            None => terms,
        })
    }

    fn part(
        &self,
        batch: &Batch,
        plan: &Plan,
        part: usize,
        progress: &dyn Progress,
    ) -> Result<Part> {
        match self.references() {
            Some(references) => {
                self.inspector.compare_part(batch, plan, part, references, progress)
            }
            None => self.inspector.inspect_part(batch, plan, part, progress),
        }
    }
}

/// The known images of a merge: the bank that the shards made, if they made one.
fn known_of_store(config: &mut Config, store: &Path) {
    let path = store.join(BANK);
    if let Some(known) = &mut config.known
        && path.is_file()
    {
        *known = KnownImages { path: path.display().to_string(), each_other: false };
    }
}
