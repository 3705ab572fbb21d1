//! `run.json`: every setting of a run and what it took, so that it can be made again and compared.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::backbone::{Loaded, activation_name};
use super::category::Seconds;
use super::config::{Config, Source};
use super::memory;
use crate::scoring::rscin::Similarity;

/// What a run has to tell beside its settings.
#[derive(Default)]
pub struct Record {
    /// The device's own line.
    pub device: String,
    /// Images scored, by category.
    pub images: Vec<(String, usize)>,
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
    pub fn document(&self, config: &Config, backbone: &Loaded) -> Value {
        let source = match &config.source {
            Source::Dataset { kind, root, .. } => {
                json!({ "data_set": kind.name(), "data_path": root.display().to_string() })
            }
            Source::Paths { paths, labels_from_folders } => {
                json!({ "paths": paths, "labels_from_folders": labels_from_folders })
            }
            Source::Demo => json!("demo"),
        };
        let seconds: serde_json::Map<String, Value> =
            self.seconds.iter().map(|(name, time)| (name.to_string(), json!(time))).collect();
        let images: serde_json::Map<String, Value> =
            self.images.iter().map(|(name, count)| (name.clone(), json!(count))).collect();
        let k: serde_json::Map<String, Value> =
            self.k.iter().map(|(name, k)| (name.clone(), json!(k))).collect();
        let skipped: Vec<Value> = self
            .skipped
            .iter()
            .map(|(path, reason)| json!({ "path": path, "reason": reason }))
            .collect();
        let words: Vec<String> = std::env::args().skip(1).collect();
        let finished =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let extraction = &backbone.extraction;
        let architecture = &backbone.vit.architecture;
        json!({
            "program": "musc-run",
            "version": env!("CARGO_PKG_VERSION"),
            "arguments": words,
            "finished_unix_seconds": finished,
            "device": {
                "asked_for": config.machine.device_text,
                "used": self.device,
                "max_vram": config.machine.cuda.memory_limit,
            },
            "source": source,
            "skip_bad": config.skip_bad,
            "divide_num": config.divide,
            "paper": config.paper,
            "backbone": {
                "name": backbone.name,
                "family": architecture.family.name(),
                "weights": backbone.source,
                "weights_sha256": backbone.sha256,
                "pretrained": config.backbone.pretrained,
                "activation": activation_name(extraction.activation),
                "img_resize": extraction.image_size,
                "patch_size": architecture.patch,
                "feature_layers": backbone.layers,
                "blocks_read": extraction.layers,
                "batch_size": (extraction.batch_size > 0).then_some(extraction.batch_size),
            },
            "scoring": {
                "r_list": config.scoring.degrees,
                "interval": [config.scoring.interval.0, config.scoring.interval.1],
                "max_table_memory": config.scoring.table_bytes,
            },
            "rscin": {
                "k": k,
                "similarity": match config.similarity { Similarity::Cosine => "cosine", Similarity::Dot => "dot" },
            },
            "output": {
                "output_dir": config.output.dir.display().to_string(),
                "vis": config.output.vis,
                "vis_type": match config.output.vis_type {
                    super::args::VisTypeArg::SingleNorm => "single_norm",
                    super::args::VisTypeArg::WholeNorm => "whole_norm",
                },
                "save_excel": config.output.save_excel,
                "save_maps": config.output.save_maps,
                "overlays": config.output.overlays,
            },
            "images": images,
            "skipped": skipped,
            "ignored": self.ignored,
            "notes": self.notes,
            "seconds": seconds,
            "seconds_total": self.total,
            "peak_memory_bytes": memory::peak_bytes(),
        })
    }
}
