//! `musc-run merge`: what the shards have laid down, to one result.

use std::path::{Path, PathBuf};

use clap::Parser;
use musc::inspect::{Batch, Inspection, PartStore, StoreTerms};
use musc::{Error, Progress, Result};
use serde_json::Value;

use super::{Job, MANIFEST, folder_of, in_blocks, known_of_store, some_of};
use crate::args::{Cli, Command, MachineArgs, MergeArgs, OutputArgs, RunArgs, normalise};
use crate::run::config::Config;
use crate::run::run_with;
use crate::shell::Stop;
use crate::shell::voice::Voice;

/// Runs `musc-run merge`.
pub fn merge(args: MergeArgs) -> Result<(), Stop> {
    let store = absolute(&args.store)?;
    let folders = folders(&store)?;
    let stores: Vec<PartStore> =
        folders.iter().map(|folder| PartStore::found(folder)).collect::<Result<_>>()?;
    let Some(first) = stores.first() else {
        return Err(
            Error::Dataset { path: store, reason: "no store: found no manifest".into() }.into()
        );
    };
    let missing: Vec<String> = folders.iter().zip(&stores).filter_map(missing_of).collect();
    if !missing.is_empty() {
        return Err(Stop::Incomplete(missing.join("; ")));
    }
    let (words, folder) = read_note(&store, first.note())?;
    let mut run = stored_run(&store, &words)?;
    let MergeArgs { output, machine, .. } = args;
    let quiet = machine.quiet;
    if let Some(given) = &output.output_dir {
        run.output.output_dir = Some(absolute(given)?);
    }
    run.output = over(output, run.output);
    run.machine = MachineArgs {
        device: machine.device.or(Some("cpu".into())),
        threads: machine.threads.or(run.machine.threads),
        quiet: quiet || run.machine.quiet,
        json: machine.json,
        // The shards' may be one that this device lacks.
        precision: machine.precision,
        max_vram: machine.max_vram.or(run.machine.max_vram),
    };
    // Paths in the words count from where the shards were started.
    if std::env::current_dir().ok().as_deref() != Some(&folder) {
        std::env::set_current_dir(&folder).map_err(Error::io("go to", &folder))?;
        let text = format!("paths count from {}, where the shards were started", folder.display());
        Voice::new(quiet).say(&text);
    }
    let mut config = Config::from_run(run).map_err(Stop::Usage)?;
    let parts: usize = stores.iter().map(PartStore::parts).sum();
    let made_by = words.join(" ");
    config.notes.push(format!(
        "merged of {parts} parts in {} (products in {}), made by musc-run {made_by}",
        store.display(),
        first.formats()
    ));
    known_of_store(&mut config, &store);
    let blocks = in_blocks(&config);
    let several = folders.len() > 1;
    run_with(config, false, &mut |inspector, batch, known, progress| {
        let job = Job { inspector, known, blocks };
        joined(&job, batch, &folder_of(&store, batch, several), progress)
    })
}

/// The folders of a store that have a manifest: itself, or one a category.
fn folders(store: &Path) -> Result<Vec<PathBuf>> {
    if store.join(MANIFEST).is_file() {
        return Ok(vec![store.to_path_buf()]);
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(store).map_err(Error::io("list", store))? {
        let path = entry.map_err(Error::io("list", store))?.path();
        if path.join(MANIFEST).is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// The parts that are missing of a store, in words.
fn missing_of((folder, store): (&PathBuf, &PartStore)) -> Option<String> {
    let missing = store.missing();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "{}: {} of {} parts are missing: {}; their shards have to be run, or run again",
        folder.display(),
        missing.len(),
        store.parts(),
        some_of(&missing),
    ))
}

/// The arguments of whoever opened the store first, and the folder they were given in.
fn read_note(store: &Path, note: &Value) -> Result<(Vec<String>, PathBuf)> {
    let read = || {
        let words = note.get("arguments")?.as_array()?;
        let words = words.iter().map(|word| word.as_str().map(String::from));
        Some((words.collect::<Option<Vec<_>>>()?, note.get("folder")?.as_str()?.into()))
    };
    read().ok_or_else(|| Error::Dataset {
        path: store.join(MANIFEST),
        reason: "found no arguments, which `musc-run inspect --shard` leaves there".into(),
    })
}

/// The run that a store's words ask for.
fn stored_run(store: &Path, words: &[String]) -> Result<RunArgs> {
    let refuse = |reason: String| Error::Dataset { path: store.join(MANIFEST), reason };
    let all = ["musc-run"].into_iter().map(String::from).chain(words.iter().cloned());
    let parsed = Cli::try_parse_from(normalise(all.map(Into::into)));
    match parsed.map_err(|error| refuse(format!("its arguments are none: {error}")))?.command {
        Some(Command::Inspect(args)) => Ok(args.run),
        _ => Err(refuse("its arguments are those of another command".into())),
    }
}

/// What was asked for now over what was asked for then.
fn over(now: OutputArgs, then: OutputArgs) -> OutputArgs {
    OutputArgs {
        output_dir: then.output_dir,
        vis: now.vis.or(then.vis),
        vis_type: now.vis_type.or(then.vis_type),
        report: now.report.or(then.report),
        save_excel: now.save_excel.or(then.save_excel),
        save_maps: now.save_maps || then.save_maps,
        overlays: now.overlays || then.overlays,
        export: if now.export.is_empty() { then.export } else { now.export },
        overwrite: now.overwrite || then.overwrite,
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("find", path))
}

/// What a batch comes to of the parts in a folder.
fn joined(
    job: &Job<'_>,
    batch: &Batch,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<Inspection> {
    let shares = job.shares(batch, progress)?;
    let store = PartStore::found(folder)?;
    // A merge may be in other formats: it computes nothing that parts hold.
    store.check(&job.terms(batch, &shares)?, shares.len(), &StoreTerms::NUMBERS)?;
    let parts = (0..shares.len()).map(|part| {
        let path = store.path(part);
        store
            .read(part)?
            .ok_or_else(|| Error::Dataset { path, reason: "not there any more".into() })
    });
    let (inspector, plan) = (job.inspector, &shares.plan);
    match job.references() {
        Some(references) => inspector.join_compared(batch, plan, parts, references, progress),
        None => inspector.join(batch, plan, parts, progress),
    }
}
