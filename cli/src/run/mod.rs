//! A run: settings to batches, each inspected, and the files and words at the end.
//!
//! Pixels, features and scores are the library's ([`musc::inspect`], with their memory); nothing is kept from one batch to the
//! next but scores.

pub mod config;
pub mod demo;
mod hand_off;
pub mod known;
mod layout;
mod record;
mod report;
pub mod sources;
pub mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use musc::inspect::{Batch, CacheCounts, Inspection, Inspector};
use musc::metrics::ClassMetrics;
use musc::progress::go_on;
use musc::report::html::{INLINE_IMAGES, ReportPictures};
use musc::report::{
    OutputFolder, ScoreRow, metrics_json, metrics_table, ranks, write_defects_json, write_json,
    write_metrics_json, write_results_xlsx, write_scores_csv,
};
use musc::scoring::decision::{DecisionRule, threshold};
use musc::{Error, Progress, Result};
use serde_json::{Value, json};

use self::config::{Config, Source};
use self::hand_off::HandOff;
use self::known::Found;
pub use self::known::Known;
use self::layout::CategoryFiles;
use self::record::Record;
use self::report::Report;
use crate::shell::voice::{Teller, Voice, duration, warn};
use crate::shell::{Stop, memory, out};

/// Images shown when there are no figures to show.
const SHOWN_SCORES: usize = 10;

/// How a batch comes to its scores, with the known images where there are some: as [`Inspector::inspect`] and
/// [`Inspector::compare`].
pub type Engine<'a> =
    &'a mut dyn FnMut(&Inspector, &Batch, Option<&Known>, &dyn Progress) -> Result<Inspection>;

/// Runs with these settings.
pub fn run(config: Config) -> Result<(), Stop> {
    run_with(config, true, &mut |inspector, batch, known, progress| match known {
        Some(known) => known.inspect(inspector, batch, progress),
        None => inspector.inspect(batch, progress),
    })
}

/// Runs with these settings, images scored by an engine. With `checks` every file of several categories is opened before the
/// first is scored, so that bad ones are told of at once.
pub fn run_with(config: Config, checks: bool, engine: Engine<'_>) -> Result<(), Stop> {
    let fails = config.fail_on_ng;
    match (fails, inspect(config, checks, engine)?) {
        (false, _) | (true, 0) => Ok(()),
        (true, images) => Err(Stop::Defective(images)),
    }
}

/// Runs; the number of images that are NG.
fn inspect(config: Config, checks: bool, engine: Engine<'_>) -> Result<usize> {
    let started = Instant::now();
    let voice = Voice::new(config.machine.quiet);
    let teller = voice.teller();
    let mut run = Run::new(config, voice, started)?;
    let batches = std::mem::take(&mut run.batches);
    if run.several && checks {
        let checking = Instant::now();
        run.inspector.check(&batches, &teller)?;
        run.record.add_seconds([("checking", checking.elapsed().as_secs_f64())]);
    }
    let mut outcome = Outcome::default();
    let known = run.known(&teller)?;
    for batch in &batches {
        voice.say(&format!("{}: {} images", batch.name(), batch.len()));
        let inspection = engine(&run.inspector, batch, known.as_ref(), &teller)?;
        run.threshold_of_known =
            known.as_ref().and_then(|known| known.threshold(run.config.decide));
        run.keep(batch, inspection, &mut outcome, &teller)?;
    }
    go_on(&teller)?;
    run.finish(&outcome)?;
    Ok(outcome.rows.iter().filter(|row| row.is_defective() == Some(true)).count())
}

/// A run of which everything is known but the pixels.
struct Run {
    config: Config,
    inspector: Arc<Inspector>,
    batches: Vec<Batch>,
    output: OutputFolder,
    record: Record,
    /// The page, where one is asked for.
    report: Option<Report>,
    /// The weights' hash, made beside the work: only `run.json` needs it.
    hash: JoinHandle<Result<String>>,
    /// More than one category: each tells its figures as it ends.
    several: bool,
    /// Known images that the others are compared with, until they are on the device.
    found: Option<Found>,
    /// The threshold, where it is that of known images.
    threshold_of_known: Option<f64>,
    voice: Voice,
    started: Instant,
}

impl Run {
    /// Checks images' names, the device, the weights and the output folder, in this order, before any work.
    fn new(config: Config, voice: Voice, started: Instant) -> Result<Self> {
        let demo_output = match config.source {
            Source::Demo => {
                // The demo's images go to the folder, so it comes first.
                let root = layout::root(&config, "");
                let output = OutputFolder::create(&root, config.output.overwrite)?;
                output.check_free([
                    layout::RUN,
                    layout::SCORES,
                    layout::METRICS,
                    layout::DEFECTS,
                ])?;
                Some(output)
            }
            _ => None,
        };
        let demo_root = demo_output.as_ref().map_or(Path::new(""), |output| output.root());
        let (batches, notes) = sources::batches(&config, demo_root)?;
        if config.decide == DecisionRule::F1 {
            // Now, and not when all is scored.
            for batch in &batches {
                let labels: Vec<_> = batch.samples().iter().map(|sample| sample.label).collect();
                threshold(config.decide, &vec![0.0; labels.len()], &labels)?;
            }
        }
        let found = config.known.as_ref().map(|known| known::find(known, &config));
        let (found, of_known) = found.transpose()?.unzip();
        let loading = Instant::now();
        let inspector = Arc::new(config.inspector(&voice.teller())?);
        let hashed = Arc::clone(&inspector);
        let hash = std::thread::spawn(move || hashed.backbone().weights_sha256());
        let output = match demo_output {
            Some(output) => output,
            None => {
                let root = layout::root(&config, inspector.backbone().name());
                OutputFolder::create(&root, config.output.overwrite)?
            }
        };
        let mut planned: Vec<PathBuf> =
            [layout::RUN, layout::SCORES, layout::METRICS, layout::RESULTS, layout::DEFECTS]
                .map(PathBuf::from)
                .into();
        planned.extend(hand_off::planned(&config.output.export));
        for batch in &batches {
            let files = CategoryFiles::new(output.root(), &config, batch, batch.samples())?;
            // Paths are relative to the folder, and these have it in front.
            let inside = files.planned(&config, batch.samples());
            planned.extend(
                inside
                    .iter()
                    .filter_map(|path| path.strip_prefix(output.root()).ok().map(PathBuf::from)),
            );
        }
        let images = batches.iter().map(Batch::len).sum();
        let page = output.join(layout::REPORT);
        let report = config.output.report.then(|| Report::new(&config, page.clone(), images));
        if report.is_some() {
            planned.push(layout::REPORT.into());
            planned.extend((images > INLINE_IMAGES).then(|| ReportPictures::folder_of(&page)));
        }
        output.check_free(&planned)?;
        let mut record = Record::default();
        record.add_seconds([("loading", loading.elapsed().as_secs_f64())]);
        if let Some(note) = inspector.device_note() {
            voice.say(note);
        }
        for note in config.notes.iter().cloned().chain(notes).chain(of_known.flatten()) {
            warn(&format!("note: {note}"));
            record.notes.push(note);
        }
        record.notes.extend(inspector.device_note().map(String::from));
        for batch in &batches {
            record.ignored.extend(batch.ignored().iter().map(|path| path.display().to_string()));
        }
        let several = batches.len() > 1;
        Ok(Run {
            several,
            config,
            inspector,
            batches,
            output,
            record,
            report,
            hash,
            found,
            threshold_of_known: None,
            voice,
            started,
        })
    }

    /// Brings the known images to the device.
    fn known(&mut self, teller: &Teller) -> Result<Option<Known>> {
        let (Some(found), Some(known)) = (self.found.take(), &self.config.known) else {
            return Ok(None);
        };
        let known = Known::new(found, &self.config, known.each_other, &self.inspector, teller)?;
        self.voice.say(&format!("{} references", known.len()));
        self.record.known = Some(known.len());
        Ok(Some(known))
    }

    /// Makes the figures and the pictures of a batch and keeps its scores.
    fn keep(
        &mut self,
        batch: &Batch,
        mut inspection: Inspection,
        outcome: &mut Outcome,
        teller: &Teller,
    ) -> Result<()> {
        let name = batch.name();
        for (path, reason) in inspection.skipped() {
            warn(&format!("skipped {}: {reason}", path.display()));
            self.record.skipped.push((path.display().to_string(), reason.clone()));
        }
        let metrics = self.inspector.figures(batch, &mut inspection, teller)?;
        for note in inspection.notes() {
            let note = format!("{name}: {note}");
            warn(&format!("note: {note}"));
            self.record.notes.push(note);
        }
        let samples = inspection.samples();
        let files = CategoryFiles::new(self.output.root(), &self.config, batch, samples)?;
        let thresholds = match self.threshold_of_known {
            Some(threshold) => vec![threshold; inspection.len()],
            None => inspection.thresholds(self.config.decide)?,
        };
        let common = thresholds.first().copied().filter(|_| !self.config.decide.is_per_image());
        let inspected = inspection.inspected(&thresholds)?;
        if let Some(report) = &mut self.report {
            let rule = self.config.decide.to_string();
            let decided = (rule.as_str(), common, &inspected[..]);
            let (of, figures) = (&self.inspector, metrics.as_ref());
            report.add(of, batch, &mut inspection, decided, figures, teller)?;
            let plots = report::write_plots(&files, &inspection, common)?;
            // Of one category each by name; of many it would be all that is said.
            outcome.files.extend(plots.into_iter().filter(|_| !self.several));
        }
        let mut pictures = files.pictures(&self.config);
        pictures.thresholds = Some(thresholds.clone());
        if !pictures.is_empty() {
            self.inspector.write_pictures(batch, &mut inspection, &pictures, teller)?;
            outcome.files.extend(pictures.sheet.map(|sheet| ("sheet".into(), sheet)));
            outcome.files.extend(pictures.maps.map(|maps| ("anomaly maps".into(), maps)));
        }
        self.record.images.push((name.to_string(), inspection.len()));
        self.record.k.push((name.to_string(), inspection.rscin_k().to_vec()));
        self.record.inputs.push((name.to_string(), inspection.input().to_string()));
        self.record.maps.push((name.to_string(), inspection.map_size().to_string()));
        self.record.subsets.push((name.to_string(), inspection.subsets()));
        let seconds = inspection.seconds().iter();
        self.record.add_seconds(seconds.map(|(stage, seconds)| (stage.name(), *seconds)));
        self.record.thresholds.push((name.to_string(), common));
        outcome.hand_off.add(
            &self.config.output.export,
            &inspection,
            inspected,
            files.grey_maps.as_slice(),
            teller,
        )?;
        outcome.rows.extend(inspection.samples().iter().enumerate().map(|(at, sample)| {
            let (score, raw) = (inspection.scores()[at], inspection.raw_scores()[at]);
            ScoreRow::new(&sample.path, name, sample.label, score, raw)
                .with_threshold(thresholds[at])
        }));
        if let Some(metrics) = metrics {
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
        match self.report.take() {
            Some(report) => {
                let page = report.write(&self.config, &self.inspector, &self.record)?;
                files.push(("report".into(), page));
            }
            None => {
                let page = self.output.join(layout::REPORT);
                remove_stale(&page)?;
                ReportPictures::new(&page, 0).remove_stale(&page, 0)?;
            }
        }
        let scores = self.output.join(layout::SCORES);
        write_scores_csv(&scores, &outcome.rows)?;
        files.push(("scores".into(), scores));
        let defects = self.output.join(layout::DEFECTS);
        write_defects_json(&defects, &outcome.hand_off.images)?;
        files.push(("defects".into(), defects));
        let metrics = self.output.join(layout::METRICS);
        if outcome.metrics.is_empty() {
            remove_stale(&metrics)?;
        } else {
            write_metrics_json(&metrics, &outcome.metrics)?;
            files.push(("figures".into(), metrics));
        }
        let results = self.output.join(layout::RESULTS);
        if self.config.output.save_excel {
            write_results_xlsx(&results, &outcome.metrics)?;
            files.push(("results".into(), results));
        } else {
            remove_stale(&results)?;
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
        let model =
            format!("musc {} {}", env!("CARGO_PKG_VERSION"), self.inspector.backbone().name());
        let exports = &self.config.output.export;
        for stale in hand_off::others(exports) {
            remove_stale(&self.output.join(stale))?;
        }
        files.extend(outcome.hand_off.write(exports, &self.output.join(layout::EXPORT), &model)?);
        self.record.total = self.started.elapsed().as_secs_f64();
        let run = self.output.join(layout::RUN);
        self.record.sha256 = self.hash.join().map_err(|_| {
            Error::invalid("hash of the weights", "a thread that failed", "one that ends")
        })??;
        let record = self.record.document(&self.config, &self.inspector);
        write_json(&run, &record)?;
        files.push(("run".into(), run));
        if self.config.machine.json {
            return out::print_json(&document(outcome, &files, record));
        }
        let decided = decided(&outcome.rows, &self.config.decide, &self.record.thresholds);
        out::print(&summary(outcome, &decided, &files))?;
        let peak = memory::peak_bytes()
            .map(|bytes| format!(", peak memory {} MiB", bytes >> 20))
            .unwrap_or_default();
        if let Some(counts) = self.inspector.cache_counts() {
            let CacheCounts { found, made, .. } = counts;
            self.voice.say(&format!("cache: tokens of {found} images found, of {made} made"));
        }
        self.voice.say(&format!(
            "{} images in {}{peak}",
            outcome.rows.len(),
            duration(self.record.total)
        ));
        Ok(())
    }
}

/// Removes a file of the run that this one replaces and does not write itself: it would tell of other scores.
fn remove_stale(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(reason) if reason.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(reason))
        }
        _ => Ok(()),
    }
}

/// What is kept of a batch once its images are let go.
#[derive(Default)]
struct Outcome {
    rows: Vec<ScoreRow>,
    metrics: Vec<ClassMetrics>,
    files: Vec<(String, PathBuf)>,
    hand_off: HandOff,
}

/// The words at the end: the figures, or the highest scores, and where the files are.
fn summary(outcome: &Outcome, decided: &str, files: &[(String, PathBuf)]) -> String {
    let mut text = if outcome.metrics.is_empty() {
        highest(&outcome.rows)
    } else {
        metrics_table(&outcome.metrics)
    };
    text.push('\n');
    text.push_str(decided);
    for (name, path) in files {
        text.push_str(&format!("{name:12} {}\n", path.display()));
    }
    text
}

/// How many images of each category are NG, by which rule.
fn decided(rows: &[ScoreRow], rule: &DecisionRule, thresholds: &[(String, Option<f64>)]) -> String {
    let mut text = String::new();
    for (name, threshold) in thresholds {
        let of_class = || rows.iter().filter(|row| row.class == *name);
        let defective = of_class().filter(|row| row.is_defective() == Some(true)).count();
        let threshold = match threshold {
            Some(threshold) => format!("{threshold:.4}"),
            None => String::from("each image's own threshold"),
        };
        text.push_str(&format!(
            "decision     {name}: {defective} of {} NG, raw score above {threshold} ({rule})\n",
            of_class().count()
        ));
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
                "decision": row.decision(),
                "threshold": row.threshold,
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
