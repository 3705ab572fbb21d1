//! The whole job: settings to categories, each scored on the device, and the files and words at the end.
//!
//! # Memory
//! Beside the weights and what the backend needs (see there), a category of N images takes N·S²·3 bytes for its
//! pixels and N·L·4 for its patch scores. Anomaly maps are made one a thread; only pixel figures hold all of them,
//! N·S²·5 bytes with the masks, when the tokens are gone. Nothing is kept from one category to the next but scores.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::backbone::{self, Loaded};
use super::category::{Scored, Shared};
use super::config::{Config, Source};
use super::device::{self, Job};
use super::layout::{self, CategoryFiles};
use super::progress::{Voice, duration, warn};
use super::record::Record;
use super::{interrupt, memory, out, pictures, pixels, sources};
use crate::backend::Backend;
use crate::dataset::Category;
use crate::metrics::ClassMetrics;
use crate::report::{
    OutputFolder, ScoreRow, metrics_json, metrics_table, ranks, write_json, write_metrics_json,
    write_results_xlsx, write_scores_csv,
};
use crate::{Error, Result};

/// Images shown when there are no figures to show.
const SHOWN_SCORES: usize = 10;

/// Runs with these settings.
pub fn run(config: Config) -> Result<()> {
    let started = Instant::now();
    let voice = Voice::new(config.machine.quiet);
    device::set_threads(config.machine.threads)?;
    let (device, note) = device::choose(&config.machine.device, config.machine.cuda)?;
    if let Some(note) = &note {
        voice.say(note);
    }
    let threads = config.machine.threads;
    let plan = Plan::new(config, note, voice, started)?;
    device.run(threads, plan)
}

/// A run of which everything is known but the pixels.
struct Plan {
    config: Config,
    backbone: Loaded,
    categories: Vec<Category>,
    output: OutputFolder,
    record: Record,
    /// More than one category: each tells its figures as it ends.
    several: bool,
    voice: Voice,
    started: Instant,
}

impl Plan {
    /// Checks weights, images' names and the output folder, in this order, before any work.
    fn new(
        config: Config,
        device_note: Option<String>,
        voice: Voice,
        started: Instant,
    ) -> Result<Self> {
        let backbone = backbone::load(&config.backbone)?;
        let root = layout::root(&config, &backbone.name);
        let output = if config.source == Source::Demo {
            // The demo's images go to the folder, so it comes first.
            let output = OutputFolder::create(&root, config.output.overwrite)?;
            output.check_free([layout::RUN, layout::SCORES, layout::METRICS])?;
            Some(output)
        } else {
            None
        };
        let (categories, notes) = sources::categories(&config, &root)?;
        let output = match output {
            Some(output) => output,
            None => OutputFolder::create(&root, config.output.overwrite)?,
        };
        let mut planned: Vec<PathBuf> =
            [layout::RUN, layout::SCORES, layout::METRICS, layout::RESULTS]
                .map(PathBuf::from)
                .into();
        for category in &categories {
            let files = CategoryFiles::new(output.root(), &config, category, &category.samples)?;
            // Paths are relative to the folder, and these have it in front.
            let inside = files.planned(&config, &category.samples);
            planned.extend(
                inside
                    .iter()
                    .filter_map(|path| path.strip_prefix(output.root()).ok().map(PathBuf::from)),
            );
        }
        output.check_free(&planned)?;
        let mut record = Record::default();
        for note in config.notes.iter().cloned().chain(notes) {
            warn(&format!("note: {note}"));
            record.notes.push(note);
        }
        record.notes.extend(device_note);
        for category in &categories {
            record.ignored.extend(category.ignored.iter().map(|path| path.display().to_string()));
        }
        let several = categories.len() > 1;
        Ok(Plan { several, config, backbone, categories, output, record, voice, started })
    }
}

/// What is kept of a category once its images are let go.
struct Outcome {
    rows: Vec<ScoreRow>,
    metrics: Vec<ClassMetrics>,
    files: Vec<(String, PathBuf)>,
}

impl Job for Plan {
    type Output = ();

    fn run<B: Backend>(mut self, backend: &B) -> Result<()> {
        self.record.device = backend.description();
        let loading = Instant::now();
        let model = backend.load(&self.backbone.vit, &self.backbone.extraction)?;
        self.record.add_seconds([("loading", loading.elapsed().as_secs_f64())]);
        if self.several {
            let checking = pixels::check(&self.categories, self.config.skip_bad, self.voice)?;
            self.record.add_seconds([("checking", checking)]);
        }
        let mut outcome = Outcome { rows: Vec::new(), metrics: Vec::new(), files: Vec::new() };
        let categories = std::mem::take(&mut self.categories);
        for category in &categories {
            self.voice.say(&format!("{}: {} images", category.name, category.samples.len()));
            let shared = Shared {
                backend,
                model: &model,
                extraction: &self.backbone.extraction,
                patch: self.backbone.vit.architecture.patch,
                filter: self.backbone.filter,
                config: &self.config,
                voice: self.voice,
            };
            let scored = shared.score(category)?;
            self.keep(category, scored, &mut outcome)?;
        }
        interrupt::check()?;
        self.finish(&outcome)
    }
}

impl Plan {
    /// Writes the pictures of a category and keeps its scores.
    fn keep(&mut self, category: &Category, scored: Scored, outcome: &mut Outcome) -> Result<()> {
        let output = &self.config.output;
        for (path, reason) in &scored.skipped {
            warn(&format!("skipped {}: {reason}", path.display()));
            self.record.skipped.push((path.display().to_string(), reason.clone()));
        }
        for note in &scored.notes {
            warn(&format!("note: {note}"));
        }
        self.record.notes.extend(scored.notes.iter().cloned());
        self.record.images.push((category.name.clone(), scored.samples.len()));
        self.record.k.push((category.name.clone(), scored.k.clone()));
        self.record.add_seconds(scored.seconds.iter().copied());
        if output.vis || output.overlays || output.save_maps {
            let files =
                CategoryFiles::new(self.output.root(), &self.config, category, &scored.samples)?;
            let seconds = pictures::write(&self.config, category, &scored, &files, self.voice)?;
            self.record.add_seconds([("pictures", seconds)]);
            if output.vis {
                outcome.files.push(("sheet".into(), files.sheet));
            }
            if output.save_maps {
                outcome.files.push(("anomaly maps".into(), files.maps));
            }
        }
        outcome.rows.extend(scored.samples.iter().enumerate().map(|(at, sample)| ScoreRow {
            path: sample.path.clone(),
            class: category.name.clone(),
            label: sample.label,
            score: scored.scores[at],
            raw_score: scored.raw_scores[at],
        }));
        if let Some(metrics) = scored.metrics {
            if self.several {
                self.voice.say(&metrics_table(std::slice::from_ref(&metrics)));
            }
            outcome.metrics.push(metrics);
        }
        Ok(())
    }

    /// Writes the tables and says what came out.
    fn finish(mut self, outcome: &Outcome) -> Result<()> {
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        let scores = self.output.join(layout::SCORES);
        write_scores_csv(&scores, &outcome.rows)?;
        files.push(("scores".into(), scores));
        let metrics = self.output.join(layout::METRICS);
        if outcome.metrics.is_empty() {
            self.remove_stale(&metrics)?;
        } else {
            write_metrics_json(&metrics, &outcome.metrics)?;
            files.push(("figures".into(), metrics));
        }
        let results = self.output.join(layout::RESULTS);
        if self.config.output.save_excel {
            write_results_xlsx(&results, &outcome.metrics)?;
            files.push(("results".into(), results));
        } else {
            self.remove_stale(&results)?;
        }
        files.extend(outcome.files.iter().cloned());
        if self.config.output.vis {
            let maps = match self.config.source {
                Source::Dataset { .. } => self.output.root().to_path_buf(),
                _ => self.output.join("maps"),
            };
            files.push(("heat maps".into(), maps));
        }
        if self.config.output.overlays {
            files.push(("overlays".into(), self.output.join("overlays")));
        }
        self.record.total = self.started.elapsed().as_secs_f64();
        let run = self.output.join(layout::RUN);
        let record = self.record.document(&self.config, &self.backbone);
        write_json(&run, &record)?;
        files.push(("run".into(), run));
        if self.config.machine.json {
            return out::print_json(&document(outcome, &files, record));
        }
        out::print(&summary(outcome, &files))?;
        let peak = memory::peak_bytes()
            .map(|bytes| format!(", peak memory {} MiB", bytes >> 20))
            .unwrap_or_default();
        self.voice.say(&format!(
            "{} images in {}{peak}",
            outcome.rows.len(),
            duration(self.record.total)
        ));
        Ok(())
    }

    /// Removes a file of the run that this one replaces and does not write itself: it would tell of other scores.
    fn remove_stale(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(reason) if reason.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(reason))
            }
            _ => Ok(()),
        }
    }
}

/// The words at the end: the figures, or the highest scores, and where the files are.
fn summary(outcome: &Outcome, files: &[(String, PathBuf)]) -> String {
    let mut text = if outcome.metrics.is_empty() {
        highest(&outcome.rows)
    } else {
        metrics_table(&outcome.metrics)
    };
    text.push('\n');
    for (name, path) in files {
        text.push_str(&format!("{name:12} {}\n", path.display()));
    }
    text
}

/// The images with the highest scores, when there are no labels to compare with.
fn highest(rows: &[ScoreRow]) -> String {
    let scores: Vec<f64> = rows.iter().map(|row| row.score).collect();
    let mut ranked: Vec<(usize, &ScoreRow)> = ranks(&scores).into_iter().zip(rows).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut text = String::from("rank   score     raw  image\n");
    for (rank, row) in ranked.iter().take(SHOWN_SCORES) {
        text.push_str(&format!(
            "{rank:4}  {:.4}  {:.4}  {}\n",
            row.score,
            row.raw_score,
            row.path.display()
        ));
    }
    if rows.len() > SHOWN_SCORES {
        text.push_str(&format!("and {} more in {}\n", rows.len() - SHOWN_SCORES, layout::SCORES));
    }
    text
}

/// What `--json` prints.
fn document(outcome: &Outcome, files: &[(String, PathBuf)], record: Value) -> Value {
    let scores: Vec<Value> = outcome
        .rows
        .iter()
        .map(|row| {
            json!({
                "path": row.path.display().to_string(),
                "class": row.class,
                "label": row.label.map(u8::from),
                "score": row.score,
                "raw_score": row.raw_score,
            })
        })
        .collect();
    let files: Vec<Value> = files
        .iter()
        .map(|(name, path)| json!({ "what": name, "path": path.display().to_string() }))
        .collect();
    let metrics =
        if outcome.metrics.is_empty() { Value::Null } else { metrics_json(&outcome.metrics) };
    json!({ "metrics": metrics, "scores": scores, "files": files, "run": record })
}
