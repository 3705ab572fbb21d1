//! `musc-bench verify`: whether the kernels of this program give the right numbers on a device.
//!
//! | module | what it owns |
//! |---|---|
//! | `judge` | what an element has to be, and how an output came out |
//! | `memory` | buffers with margins, poisoned before each of two passes |
//! | `numbers`, `images` | operands, f64 definitions, bounds an element |
//! | `gemm`, `attention`, `rows`, `pairs`, `pair_trials` | the trials of each kernel file: shapes, formats, classes |
//! | `defects` | faults that are seeded in every run and have to be found |
//! | `whole` | repeats of the whole scoring; images to scores, against the CPU |
//! | `loaded` | what the driver made of the kernels: registers, local memory, seconds |
//! | `report` | text and the document |
//!
//! Two classes: *exact* operands are integers (or powers of two) whose sums no order and no rounding changes, so bits have to be
//! equal; *rounding* operands look like tokens, outlier channels among them, and each element has a bound of its own, which holds
//! for tensor cores that cut their sums toward zero.

mod attention;
mod defects;
mod gemm;
mod images;
mod judge;
mod loaded;
mod memory;
mod numbers;
mod pair_trials;
mod pairs;
mod report;
mod rows;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use self::judge::Judged;
use self::memory::{Lab, Outcome, Tamper};
use super::args::{Device, SumsArg, VerifyArgs};
use crate::shell::voice::Voice;
use crate::shell::{Stop, interrupt};
use musc::backend::cuda::Card;
use musc::backend::cuda::driver::sim::{MmaSums, Sim, SimOptions};
use musc::backend::cuda::kernels::{self, ptx_for};
use musc::backend::cuda::launch::Half;
use musc::{Error, Result};

/// Which numbers a trial takes, and how they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Integers: equal bits.
    Exact,
    /// Tokens: a bound for each element.
    Rounding,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Exact => "exact",
            Class::Rounding => "rounding",
        }
    }
}

type Run = Box<dyn Fn(&Lab<'_>) -> Result<Vec<Outcome>>>;

/// A launch, or a few, whose outputs are judged.
pub struct Trial {
    stem: &'static str,
    /// The entry it is for, should it come to nothing.
    entry: String,
    shape: String,
    class: Class,
    run: Run,
}

impl Trial {
    fn new(
        stem: &'static str,
        entry: &str,
        shape: String,
        class: Class,
        run: impl Fn(&Lab<'_>) -> Result<Vec<Outcome>> + 'static,
    ) -> Self {
        Trial { stem, entry: entry.to_string(), shape, class, run: Box::new(run) }
    }
}

/// What came of one output of a trial.
struct Record {
    entry: String,
    output: String,
    shape: String,
    class: Class,
    /// How it came out, or why it did not.
    result: std::result::Result<Judged, String>,
}

impl Record {
    fn verified(&self) -> bool {
        self.result.as_ref().is_ok_and(Judged::verified)
    }
}

/// What is said of an entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Verified,
    Differs,
    NotRun,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Verified => "verified",
            Verdict::Differs => "differs",
            Verdict::NotRun => "not run",
        }
    }
}

/// The formats whose kernels a card has.
fn halves(card: &Card) -> Vec<Half> {
    let all = [Half::F16, Half::Bf16];
    all.into_iter()
        .filter(|half| *half == Half::F16 || card.info().compute_capability >= 80)
        .collect()
}

/// The entry points that a card gets, by kernel file.
fn entries(card: &Card) -> Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for stem in kernels::stems() {
        let (_, ptx) = ptx_for(stem, card.info())?;
        found.extend(kernels::entries(ptx).map(|entry| (stem, entry.to_string())));
    }
    Ok(found)
}

/// The trials of a kernel file, or of all.
fn trials(half: Half, only: Option<&str>, quick: bool) -> Vec<Trial> {
    let of_files = [gemm::trials, attention::trials, rows::trials, pair_trials::trials];
    let all = of_files.into_iter().flat_map(|trials| trials(half, quick));
    all.filter(|trial| only.is_none_or(|stem| trial.stem == stem)).collect()
}

/// Runs a trial, with a defect if there is one.
fn run_trial(card: &Arc<Card>, trial: &Trial, tamper: Option<Tamper<'_>>) -> Result<Vec<Record>> {
    interrupt::check()?;
    let lab = match tamper {
        Some(tamper) => Lab::with(card, tamper)?,
        None => Lab::new(card)?,
    };
    let record = |entry: String, output: &str, result| Record {
        entry,
        output: output.to_string(),
        shape: trial.shape.clone(),
        class: trial.class,
        result,
    };
    match (trial.run)(&lab) {
        Ok(outcomes) => Ok(outcomes
            .into_iter()
            .map(|made| record(made.entry, made.output, Ok(made.judged)))
            .collect()),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => Ok(vec![record(trial.entry.clone(), "launch", Err(error.to_string()))]),
    }
}

/// Verdicts by entry: verified where every output of every trial is, not run where there was none.
fn verdicts(entries: &[(&'static str, String)], records: &[Record]) -> BTreeMap<String, Verdict> {
    let of_entry = |entry: &String| {
        let of: Vec<&Record> = records.iter().filter(|record| record.entry == *entry).collect();
        match of.as_slice() {
            [] => Verdict::NotRun,
            all if all.iter().all(|record| record.verified()) => Verdict::Verified,
            _ => Verdict::Differs,
        }
    };
    entries.iter().map(|(_, entry)| (entry.clone(), of_entry(entry))).collect()
}

/// What keeps a kernel file from being timed: the first fault of its quick trials, in f16.
///
/// # Errors
/// [`Error::Kernel`] when an output is not what it has to be, or a launch fails.
pub fn check(card: &Arc<Card>, stem: &str) -> Result<()> {
    card.set_checked(true);
    let done = check_trials(card, stem);
    card.set_checked(false);
    done
}

fn check_trials(card: &Arc<Card>, stem: &str) -> Result<()> {
    for trial in trials(Half::F16, Some(stem), true) {
        for record in run_trial(card, &trial, None)? {
            let faults = match &record.result {
                Ok(judged) if judged.verified() => continue,
                Ok(judged) => judged.faults().join("; "),
                Err(reason) => reason.clone(),
            };
            return Err(Error::Kernel {
                kernel: record.entry,
                reason: format!("not timed, {} of {}: {faults}", record.output, record.shape),
            });
        }
    }
    Ok(())
}

/// Opens what `--device` names.
fn open(device: Device, mma_sums: MmaSums) -> Result<Arc<Card>> {
    match device {
        Device::Sim => {
            let sim = Sim::new(SimOptions { mma_sums, ..SimOptions::default() });
            Ok(Card::with_driver(Arc::new(sim), None))
        }
        Device::Cuda(number) => Card::open(number),
    }
}

/// Everything that was found, for the report.
struct Findings {
    quick: bool,
    sums: SumsArg,
    card: Arc<Card>,
    loaded: loaded::Loaded,
    entries: Vec<(&'static str, String)>,
    records: Vec<Record>,
    defects: Vec<defects::Seeded>,
    repeats: Option<whole::Repeats>,
    images: Option<whole::Whole>,
    seconds: f64,
}

impl Findings {
    fn verified(&self) -> bool {
        verdicts(&self.entries, &self.records).values().all(|verdict| *verdict == Verdict::Verified)
            && self.records.iter().all(Record::verified)
            && self.defects.iter().all(|seeded| seeded.caught())
            && self.repeats.as_ref().is_none_or(whole::Repeats::verified)
            && self.images.as_ref().is_none_or(whole::Whole::verified)
    }
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> std::result::Result<(), Stop> {
    let device = args.device().map_err(Stop::Usage)?;
    let only = args.only().map_err(Stop::Usage)?;
    let quick = args.quick(device);
    let voice = Voice::new(args.quiet || args.json);
    let start = Instant::now();
    let card = open(device, args.sums.of_simulator())?;
    let mut entries = entries(&card)?;
    entries.retain(|(stem, _)| only.is_none_or(|only| only == *stem));
    let loaded = loaded::load(&card, &entries)?;
    let mut records = Vec::new();
    // A kernel that fails is named, where else the failure shows in a later call.
    card.set_checked(true);
    for half in halves(&card) {
        let trials = trials(half, only, quick);
        voice.say(&format!("{}: {} trials in {}", card.info().label, trials.len(), half.name()));
        for trial in &trials {
            records.extend(run_trial(&card, trial, None)?);
        }
    }
    voice.say("seeded defects");
    let defects = defects::seed(&card, only)?;
    card.set_checked(false);
    let whole = only.is_none() && !args.kernels_only;
    let repeats = if whole {
        voice.say("repeats of the scoring");
        Some(whole::repeats(&card, quick)?)
    } else {
        None
    };
    // The simulator that a run opens has sums in f32.
    let images = if whole && args.sums == SumsArg::F32 {
        voice.say("images to scores");
        whole::images(&args.device, quick)?
    } else {
        None
    };
    let seconds = start.elapsed().as_secs_f64();
    let findings = Findings {
        quick,
        sums: args.sums,
        card,
        loaded,
        entries,
        records,
        defects,
        repeats,
        images,
        seconds,
    };
    report::tell(&findings, args)?;
    if findings.verified() { Ok(()) } else { Err(Stop::Differs(report::summary(&findings))) }
}

#[cfg(test)]
mod fault_tests;
