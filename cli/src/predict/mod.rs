//! `musc-run predict`: new images against a bank, in one go, as they are asked for, or as they appear in a folder.

mod answer;
mod ask;
mod watch;

use musc::dataset::FolderOptions;
use musc::inspect::{Bank, Batch, Predictor};
use musc::{Error, Result};

use self::answer::Answers;
use crate::args::PredictArgs;
use crate::bank::inspector_of;
use crate::run::config::{MachineConfig, RegionConfig, may_write};
use crate::run::sources::passed_over;
use crate::shell::Stop;
use crate::shell::voice::{Voice, warn};

/// Images that are answered together where they are all known: it changes no number.
const TOGETHER: usize = 32;

/// Runs the command.
pub fn run(args: PredictArgs) -> Result<(), Stop> {
    let machine = MachineConfig::new(args.machine.clone(), None).map_err(Stop::Usage)?;
    let from_stdin = args.images == ["-"];
    if let (true, [first, _, ..]) = (args.images.iter().any(|path| path == "-"), &args.images[..]) {
        let expected = "`-` alone, or paths";
        return Err(Stop::Usage(Error::invalid("IMAGES", format!("`-` and `{first}`"), expected)));
    }
    if let Some(path) = &args.bank_out {
        may_write(path, args.overwrite)
            .map_err(|error| Stop::Usage(crate::shell::renamed(error, "--bank-out")))?;
    }
    let watched = args.watch.as_deref().map(|folder| watch::Folder::open(folder, args.existing));
    let watched = watched.transpose()?;
    let voice = Voice::new(machine.quiet);
    let bank = Bank::open(&args.bank)?;
    let known = if from_stdin || watched.is_some() {
        None
    } else {
        let batch = Batch::paths(&args.images, &FolderOptions::default())?;
        if let Some(note) = passed_over(&batch) {
            warn(&format!("note: {note}"));
        }
        Some(batch)
    };
    let regions = RegionConfig::from(&args.looked_at);
    if bank.has_regions() && regions.is_everywhere() {
        warn(
            "note: the bank looks at regions of its images, and everything of the new ones is looked at: --roi or --ignore-border say which",
        );
    }
    let inspector = inspector_of(&bank, &args.weights, &machine, voice)?;
    if let Some(note) = inspector.note_of(&bank) {
        warn(&format!("note: {note}"));
    }
    let mut predictor = Predictor::new(&inspector, bank)?;
    if let Some(keep) = args.keep {
        predictor = predictor.keep(keep)?;
    }
    if let Some(rule) = args.decide {
        predictor = predictor.with_rule(rule)?;
    }
    let references = predictor.references();
    voice.say(&format!(
        "{references} references, threshold {:.4}, {}",
        predictor.threshold(),
        inspector.device()
    ));
    let lines = machine.json || known.is_none();
    let mut answers = Answers::new(predictor, regions, lines);
    let done = match (known, watched) {
        (Some(batch), _) => files(&batch, &mut answers),
        (None, Some(folder)) => watch::watch(folder, args.settle, &mut answers),
        (None, None) => ask::ask(&mut answers),
    };
    // The bank is kept however the work ended: what was learnt is not asked for twice.
    if let Some(path) = &args.bank_out {
        answers.bank().save(path)?;
    }
    done?;
    let (failed, defective) = (answers.failed(), answers.defective());
    if failed > 0 {
        let found = format!("{failed} that could not be answered");
        return Err(Error::invalid("images", found, "images that can be read").into());
    }
    match (args.fail_on_ng, defective) {
        (true, 1..) => Err(Stop::Defective(defective)),
        _ => Ok(()),
    }
}

/// Images that are all known.
fn files(batch: &Batch, answers: &mut Answers<'_>) -> Result<()> {
    let paths: Vec<_> = batch.samples().iter().map(|sample| sample.path.clone()).collect();
    paths.chunks(TOGETHER).try_for_each(|part| answers.answer(part).map(|_| ()))
}
