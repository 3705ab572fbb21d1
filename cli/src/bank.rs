//! `musc-run bank`: references that are kept in a file.

use std::path::Path;
use std::time::Instant;

use musc::dataset::FolderOptions;
use musc::inspect::{Bank, Batch, Inspector, Rescoring, Weights};
use musc::tensor_file::printable;
use musc::{Error, Result};
use serde_json::{Value, json};

use crate::args::{
    BankAddArgs, BankBuildArgs, BankCommand, BankInfoArgs, BankMergeArgs, BankOutputArgs,
    BankWeightsArgs, LookedAtArgs, MatchArg, SimilarityArg,
};
use crate::embedded::{BUILT_IN_BACKBONE, weights_of};
use crate::run::config::{
    BackboneConfig, DEFAULT_IMAGE_SIZE, MachineConfig, RegionConfig, input_size, may_write,
    neighbours, scoring,
};
use crate::run::sources::passed_over;
use crate::run::yaml::Yaml;
use crate::shell::voice::{Voice, duration, warn};
use crate::shell::{Stop, out};

/// References shown of a bank with more.
const SHOWN: usize = 5;

/// Runs the command.
pub fn run(command: BankCommand) -> Result<(), Stop> {
    match command {
        BankCommand::Build(args) => build(*args),
        BankCommand::Info(args) => info(&args),
        BankCommand::Add(args) => add(args),
        BankCommand::Merge(args) => merge(args),
    }
}

fn build(args: BankBuildArgs) -> Result<(), Stop> {
    let started = Instant::now();
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    check_output(&args.output).map_err(Stop::Usage)?;
    let method = args.method;
    let backbone = BackboneConfig::new(args.backbone, &mut Yaml::default(), BUILT_IN_BACKBONE)
        .map_err(Stop::Usage)?;
    let input = input_size(args.size, None, DEFAULT_IMAGE_SIZE).map_err(Stop::Usage)?;
    let radius = method.match_where.and_then(MatchArg::radius);
    let scoring = scoring(method.r_list, None).map_err(Stop::Usage)?.with_radius(radius);
    let k = method.rscin_k.map(|k| neighbours("--rscin-k", k)).transpose().map_err(Stop::Usage)?;
    let similarity = method.rscin_similarity.unwrap_or(SimilarityArg::Cosine).into();
    let batch = batch_of(&args.paths, &args.looked_at, method.skip_bad)?;
    let voice = Voice::new(machine.quiet);
    let inspector = backbone
        .builder(&machine)
        .input(input)
        .scoring(scoring)
        .rescoring(Some(Rescoring::default().with_k(k).with_similarity(similarity)))
        .build_with(&voice.teller())?;
    if let Some(note) = inspector.device_note() {
        voice.say(note);
    }
    let bank = inspector.bank(&batch, method.decide.unwrap_or_default(), &voice.teller())?;
    keep(&bank, &args.output, &machine, voice, started)
}

fn info(args: &BankInfoArgs) -> Result<(), Stop> {
    let bank = Bank::open(&args.bank)?;
    let facts = facts(&bank, &args.bank);
    Ok(out::print_either(args.json.then(|| facts.clone()), || words(&bank, &facts))?)
}

fn add(args: BankAddArgs) -> Result<(), Stop> {
    let started = Instant::now();
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    check_output(&args.output).map_err(Stop::Usage)?;
    let voice = Voice::new(machine.quiet);
    let bank = Bank::open(&args.bank)?;
    let batch = batch_of(&args.paths, &args.looked_at, args.skip_bad)?;
    let before = bank.len();
    let inspector = inspector_of(&bank, &args.weights, &machine, voice)?;
    if let Some(note) = inspector.note_of(&bank) {
        warn(&format!("note: {note}"));
    }
    let more = batch.len();
    let bank = inspector.add_to_bank(bank, &batch, &voice.teller())?;
    let passed = more.saturating_sub(bank.len() - before.min(bank.len()));
    if passed > 0 {
        warn(&format!(
            "note: {passed} of {more} images are not added: unreadable, or in the bank by their pixels"
        ));
    }
    keep(&bank, &args.output, &machine, voice, started)
}

fn merge(args: BankMergeArgs) -> Result<(), Stop> {
    let started = Instant::now();
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    check_output(&args.output).map_err(Stop::Usage)?;
    let voice = Voice::new(machine.quiet);
    let banks = args.banks.iter().map(|path| Bank::open(path)).collect::<Result<Vec<_>>>()?;
    let first = banks.first().ok_or_else(|| Error::invalid("BANK", "none", "at least one"))?;
    let inspector = inspector_of(first, &args.weights, &machine, voice)?;
    let bank = inspector.merge_banks(banks, &voice.teller())?;
    keep(&bank, &args.output, &machine, voice, started)
}

fn check_output(output: &BankOutputArgs) -> Result<()> {
    may_write(&output.output, output.overwrite)
}

/// The images of some paths.
fn batch_of(paths: &[String], looked_at: &LookedAtArgs, skip_bad: bool) -> Result<Batch> {
    let batch = Batch::paths(paths, &FolderOptions::default())?;
    if let Some(note) = passed_over(&batch) {
        warn(&format!("note: {note}"));
    }
    RegionConfig::from(looked_at).of(batch.skip_bad(skip_bad))
}

/// The inspector that a bank was made with, on this machine.
pub fn inspector_of(
    bank: &Bank,
    weights: &BankWeightsArgs,
    machine: &MachineConfig,
    voice: Voice,
) -> Result<Inspector> {
    let weights = match &weights.weights {
        Some(file) => Weights::File(file.clone()),
        None => weights_of(&bank.settings().backbone),
    };
    let inspector =
        machine.apply(bank.settings().builder().weights(weights)).build_with(&voice.teller())?;
    if let Some(note) = inspector.device_note() {
        voice.say(note);
    }
    Ok(inspector)
}

/// Writes a bank and says what it is.
fn keep(
    bank: &Bank,
    output: &BankOutputArgs,
    machine: &MachineConfig,
    voice: Voice,
    started: Instant,
) -> Result<(), Stop> {
    bank.save(&output.output)?;
    let facts = facts(bank, &output.output);
    out::print_either(machine.json.then(|| facts.clone()), || words(bank, &facts))?;
    voice.say(&format!(
        "{} references in {}",
        bank.len(),
        duration(started.elapsed().as_secs_f64())
    ));
    Ok(())
}

fn facts(bank: &Bank, path: &Path) -> Value {
    let settings = bank.settings();
    json!({
        "bank": path.display().to_string(),
        "references": bank.len(),
        "bytes": std::fs::metadata(path).map(|found| found.len()).ok(),
        "backbone": settings.backbone,
        "weights_sha256": settings.weights_sha256,
        "input": settings.input.to_string(),
        "grid": bank.grid().to_string(),
        "layers": settings.layers,
        "r_list": settings.scoring.degrees,
        "match": settings.scoring.radius.map_or_else(|| json!("anywhere"), |radius| json!(radius)),
        "rscin_k": settings.rescoring.as_ref().and_then(|rescoring| rescoring.k.clone()),
        "token_format": bank.formats().first(),
        "features": match &settings.features[..] {
            [] => json!("not said"),
            formats => json!(formats.join(" and ")),
        },
        "looked_at": if bank.has_regions() { "regions" } else { "everything" },
        "decision": settings.rule.to_string(),
        "threshold": bank.threshold(),
        "names": bank.names(),
        "raw_scores": bank.raw_scores(),
    })
}

fn words(bank: &Bank, facts: &Value) -> String {
    let text = |key: &str| match &facts[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut words = String::new();
    for key in [
        "bank",
        "references",
        "bytes",
        "backbone",
        "weights_sha256",
        "input",
        "grid",
        "layers",
        "r_list",
        "match",
        "rscin_k",
        "token_format",
        "features",
        "looked_at",
        "decision",
        "threshold",
    ] {
        words.push_str(&format!("{key:15} {}\n", text(key)));
    }
    let mut order: Vec<usize> = (0..bank.len()).collect();
    order.sort_by(|&a, &b| bank.raw_scores()[b].total_cmp(&bank.raw_scores()[a]));
    words.push_str("highest raw scores: such references are the first to look at\n");
    for &at in order.iter().take(SHOWN) {
        words.push_str(&format!(
            "  {:.4}  {}\n",
            bank.raw_scores()[at],
            printable(&bank.names()[at])
        ));
    }
    words
}
