//! `run.json`: every setting of a run and what it took, so that it can be made again and compared.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use musc::backend::cpu::Instructions;
use musc::inspect::{InputSize, Inspector, Subsets, TileMatch};
use musc::scoring::rscin::Similarity;

use super::config::{Config, Source};
use crate::shell::memory;

/// A stage's name and its seconds.
pub type Seconds = (&'static str, f64);

/// What a run has to tell beside its settings.
#[derive(Default)]
pub struct Record {
    /// The weights' SHA-256, in hexadecimal.
    pub sha256: String,
    /// The size each category's images went through the backbone at.
    pub inputs: Vec<(String, String)>,
    /// The size of each category's anomaly maps.
    pub maps: Vec<(String, String)>,
    /// Subsets, by category.
    pub subsets: Vec<(String, usize)>,
    /// Known images that the others were compared with.
    pub known: Option<usize>,
    /// Images scored, by category.
    pub images: Vec<(String, usize)>,
    /// Thresholds of the decision, by category; none where each image has its own.
    pub thresholds: Vec<(String, Option<f64>)>,
    /// RsCIN's neighbourhood sizes, by category.
    pub k: Vec<(String, Vec<usize>)>,
    /// Files left out with `--skip-bad`.
    pub skipped: Vec<(String, String)>,
    /// Files passed over because they are no images.
    pub ignored: Vec<String>,
    /// What was said aloud.
    pub notes: Vec<String>,
    /// Seconds a stage, over all categories.
    pub seconds: Vec<Seconds>,
    /// Seconds from the program's start.
    pub total: f64,
}

impl Record {
    /// Adds the seconds of stages, each to its name.
    pub fn add_seconds(&mut self, seconds: impl IntoIterator<Item = Seconds>) {
        for (name, time) in seconds {
            match self.seconds.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += time,
                None => self.seconds.push((name, time)),
            }
        }
    }

    /// The document.
    pub fn document(&self, config: &Config, inspector: &Inspector) -> Value {
        let source = match &config.source {
            Source::Dataset { kind, root, .. } => {
                json!({ "data_set": kind.name(), "data_path": root.display().to_string() })
            }
            Source::Paths { paths, labels_from_folders, labels_table } => {
                let table = labels_table.as_ref().map(|table| table.display().to_string());
                json!({ "paths": paths, "labels_from_folders": labels_from_folders, "labels": table })
            }
            Source::Demo => json!("demo"),
        };
        let seconds: serde_json::Map<String, Value> =
            self.seconds.iter().map(|(name, time)| (name.to_string(), json!(time))).collect();
        let backbone = inspector.backbone();
        let side = match config.input {
            InputSize::Exactly(size) => size.side(),
            _ => None,
        };
        let activation = match config.input {
            InputSize::Exactly(size) => backbone.activation(size).name(),
            _ => "by the size of each category",
        };
        let references = match (&config.known, config.subsets) {
            (Some(known), _) => json!({
                "path": known.path,
                "images": self.known,
                "each_other": known.each_other,
            }),
            (None, subsets) => match subsets {
                Subsets::References(references) => json!(references),
                Subsets::Auto => json!("auto"),
                _ => json!("all"),
            },
        };
        let skipped: Vec<Value> = self
            .skipped
            .iter()
            .map(|(path, reason)| json!({ "path": path, "reason": reason }))
            .collect();
        let words: Vec<String> = std::env::args().skip(1).collect();
        let finished =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let architecture = backbone.architecture();
        let scoring = inspector.mutual_scoring();
        let formats = inspector.formats();
        json!({
            "program": "musc-run",
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("MUSC_COMMIT"),
            "arguments": words,
            "finished_unix_seconds": finished,
            "device": {
                "asked_for": config.machine.device_text,
                "used": inspector.device(),
                "precision": config.machine.precision.unwrap_or_default().name(),
                "features": formats.features,
                "scoring": formats.scoring,
                "instructions": formats.instructions.map(Instructions::name),
                "max_vram": config.machine.memory_limit,
            },
            "source": source,
            "skip_bad": config.skip_bad,
            "roi": config.regions.roi.as_ref().map(|path| path.display().to_string()),
            "ignore_border": config.regions.border,
            "tiles": config.tiles.map(|tiles| json!({
                "rows": tiles.cut.rows(),
                "columns": tiles.cut.columns(),
                "overlap": tiles.cut.overlap(),
                "match": match tiles.matching { TileMatch::Same => "same", TileMatch::Any => "any", _ => "other" },
                "maps": by_name(&self.maps),
            })),
            "divide_num": match config.subsets { Subsets::Divide(parts) => parts, _ => 1 },
            "references": references,
            "subsets": by_name(&self.subsets),
            "seed": config.seed,
            "paper": config.paper,
            "backbone": {
                "name": backbone.name(),
                "family": architecture.family.name(),
                "weights": backbone.source(),
                "weights_sha256": self.sha256,
                "pretrained": config.backbone.pretrained,
                "activation": activation,
                "img_resize": side,
                "input": by_name(&self.inputs),
                "patch_size": architecture.patch,
                "feature_layers": backbone.layers(),
                "blocks_read": backbone.blocks_read(),
                "batch_size": inspector.asked_batch_size(),
            },
            "scoring": {
                "r_list": scoring.degrees,
                "interval": [scoring.interval.0, scoring.interval.1],
                "match": scoring.radius.map_or_else(|| json!("anywhere"), |radius| json!(radius)),
                "max_table_memory": scoring.table_bytes,
            },
            "rscin": {
                "k": by_name(&self.k),
                "similarity": match config.similarity { Similarity::Cosine => "cosine", Similarity::Dot => "dot", _ => "other" },
            },
            "decision": {
                "rule": config.decide.to_string(),
                "on": "raw_score",
                "why": config.decide.reason(),
                "per_image": config.decide.is_per_image(),
                "thresholds": by_name(&self.thresholds),
            },
            "output": {
                "output_dir": config.output.dir.display().to_string(),
                "vis": config.output.vis,
                "report": config.output.report,
                "vis_type": if config.output.by_each_map { "single_norm" } else { "whole_norm" },
                "save_excel": config.output.save_excel,
                "save_maps": config.output.save_maps,
                "overlays": config.output.overlays,
                "export": config.output.export.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "cache": config.backbone.cache.as_ref().map(|(folder, bytes)| {
                let counts = inspector.cache_counts().unwrap_or_default();
                json!({
                    "folder": folder.display().to_string(),
                    "bytes": bytes,
                    "found": counts.found,
                    "made": counts.made,
                })
            }),
            "images": by_name(&self.images),
            "skipped": skipped,
            "ignored": self.ignored,
            "notes": self.notes,
            "seconds": seconds,
            "seconds_total": self.total,
            "peak_memory_bytes": memory::peak_bytes(),
        })
    }
}

/// An object with a value for each category.
fn by_name<T: serde::Serialize>(values: &[(String, T)]) -> Value {
    let object: serde_json::Map<String, Value> =
        values.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    Value::Object(object)
}
