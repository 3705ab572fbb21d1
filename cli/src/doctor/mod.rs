//! `musc-run doctor`: what this machine has for a run, what would run, and where it would not, why and what helps.
//!
//! The exit code is 0 when a run works on the device that was asked for: a small scoring was done there.

mod advice;
mod machine;

use std::time::Instant;

use serde_json::{Value, json};

use self::advice::Surroundings;
use crate::args::DoctorArgs;
use crate::embedded::{BUILT_IN_BACKBONE, built_in_weights};
use crate::shell::{Stop, out};
use crate::smi::{self, Told};
use musc::backend::cuda::driver::card::{CudaCard, count};
use musc::backend::cuda::driver::{CardInfo, Driver};
use musc::backend::cuda::kernels::{decimal, ptx_for, stems};
use musc::backend::device::{Device, DeviceOptions};
use musc::backend::{Backend, HostFeatures, References};
use musc::model::locate::find;
use musc::model::{BACKBONES, HubCache, PUBLISHED, locate};
use musc::scoring::MutualScoring;
use musc::{Error, Grid, Result};

/// A card of this machine.
struct Card {
    number: usize,
    /// What it is, and its free bytes; or why it cannot be opened.
    found: std::result::Result<(CardInfo, Option<u64>), String>,
    /// Why its kernels cannot be loaded.
    refused: Option<String>,
    told: Option<Told>,
}

/// What the device that was asked for came to.
struct Asked {
    name: String,
    /// What works, and what was said of it; or why nothing does.
    result: std::result::Result<(String, Option<String>), Error>,
    seconds: f64,
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> std::result::Result<(), Stop> {
    let name = args.device.clone().unwrap_or_else(|| String::from("auto"));
    let device: Device = name.parse().map_err(Stop::Usage)?;
    let told = smi::ask();
    let driver = count();
    let surroundings = Surroundings::of_machine(&told);
    let cards: Vec<Card> = match &driver {
        Ok(count) => (0..*count).map(|number| look(number, &told)).collect(),
        Err(_) => Vec::new(),
    };
    let start = Instant::now();
    let result = try_out(&device);
    let asked = Asked { name, result, seconds: start.elapsed().as_secs_f64() };
    let report = Report { driver, cards, told, surroundings, asked, weights: weights() };
    out::print_either(args.json.then(|| report.json()), || report.text())?;
    report.asked.result.map(drop).map_err(Stop::Failed)
}

/// Opens a card and looks whether it takes the kernels.
fn look(number: usize, told: &[Told]) -> Card {
    match CudaCard::open(number) {
        Ok(card) => {
            let info = card.info().clone();
            let refusal = stems().into_iter().find_map(|stem| ptx_for(stem, &info).err());
            let told = smi::of_card(told, &info.name);
            let free = card.free_bytes().ok();
            Card { number, found: Ok((info, free)), refused: refusal.map(|e| e.to_string()), told }
        }
        Err(error) => Card { number, found: Err(error.to_string()), refused: None, told: None },
    }
}

/// A small scoring on the device: what it became, and what was said of that.
fn try_out(device: &Device) -> Result<(String, Option<String>)> {
    let (backend, note) = device.open(DeviceOptions::default())?;
    let (images, grid, width) = (3, Grid::square(3), 128);
    let tokens: Vec<f32> = (0..images * grid.patches() * width)
        .map(|at| ((at * 37 + at / width * 11) % 64) as f32 - 31.5)
        .collect();
    let features = HostFeatures::new(images, grid, width, vec![0], vec![tokens]);
    let features = backend.upload(features)?;
    let scores =
        backend.patch_scores(&features, References::Others, &MutualScoring::default(), &())?;
    if scores.by_degree_layer.iter().all(|score| score.is_finite() && (0.0..=2.0).contains(score)) {
        return Ok((backend.description(), note));
    }
    Err(Error::Device {
        device: device.to_string(),
        reason: String::from(
            "it gives scores that are no distances; `musc-bench verify` says more",
        ),
    })
}

/// Backbones whose weights are on this machine, and where.
fn weights() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if built_in_weights().is_some() {
        found.push((BUILT_IN_BACKBONE, String::from("built in")));
    }
    let cache = HubCache::of_environment();
    for backbone in BACKBONES {
        if found.iter().any(|(name, _)| *name == backbone.name) {
            continue;
        }
        let pretrained = backbone.pretrained.first().copied().unwrap_or(locate::DEFAULT_PRETRAINED);
        if let Ok(file) = find(backbone, pretrained) {
            found.push((backbone.name, file.origin.to_string()));
        } else if PUBLISHED.iter().any(|row| {
            row.backbone == backbone.name && locate::cached(cache.as_ref(), row).is_some()
        }) {
            found.push((backbone.name, String::from("cache")));
        }
    }
    found
}

struct Report {
    driver: Result<usize>,
    cards: Vec<Card>,
    told: Vec<Told>,
    surroundings: Surroundings,
    asked: Asked,
    weights: Vec<(&'static str, String)>,
}

/// Gigabytes with one decimal.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Lines under a heading: the first beside it, the others below.
fn lines(text: &mut String, heading: &str, all: &[String]) {
    for (at, line) in all.iter().enumerate() {
        let heading = if at == 0 { heading } else { "" };
        text.push_str(&format!("{heading:10}  {line}\n"));
    }
}

impl Report {
    fn fix(&self, reason: &str) -> Option<String> {
        self.surroundings.advice(reason)
    }

    fn with_fix(&self, reason: &str) -> Vec<String> {
        let fix = self.fix(reason).map(|fix| format!("  {fix}"));
        std::iter::once(reason.to_string()).chain(fix).collect()
    }

    fn card_lines(&self, card: &Card) -> Vec<String> {
        let label = format!("cuda:{}", card.number);
        match &card.found {
            Err(reason) => self.with_fix(reason),
            Ok((info, free)) => {
                let free =
                    free.map_or_else(String::new, |free| format!(" ({} free)", gigabytes(free)));
                let (major, minor) = info.cuda_version;
                let mut all = vec![format!(
                    "{label} {}, capability {}, {}{free}, driver of CUDA {major}.{minor}",
                    info.name,
                    decimal(info.compute_capability),
                    gigabytes(info.memory_bytes),
                )];
                all.extend(card.told.as_ref().map(|told| format!("  {}", told.line())));
                if let Some(reason) = &card.refused {
                    all.extend(self.with_fix(reason).into_iter().map(|line| format!("  {line}")));
                }
                all
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        lines(&mut text, "musc", &[crate::version().to_string()]);
        lines(&mut text, "processor", &[machine::processor(), machine::auto_line()]);
        lines(&mut text, "memory", &[machine::memory_line()]);
        match &self.driver {
            Ok(_) => {
                let all: Vec<String> =
                    self.cards.iter().flat_map(|card| self.card_lines(card)).collect();
                lines(&mut text, "cards", &all);
            }
            Err(error) => {
                lines(&mut text, "cards", &self.with_fix(&error.to_string()));
                let told: Vec<String> =
                    self.told.iter().map(|told| format!("nvidia-smi: {}", told.line())).collect();
                lines(&mut text, "", &told);
            }
        }
        let weights = self.weights.iter().map(|(name, origin)| format!("{name} ({origin})"));
        let mut weights: Vec<String> = weights.collect();
        if weights.is_empty() {
            weights.push(String::from("none; `musc-run weights download NAME` gets them"));
        }
        lines(&mut text, "weights", &weights);
        let name = &self.asked.name;
        match &self.asked.result {
            Ok((became, note)) => {
                let mut all = vec![format!(
                    "`--device {name}` works, in {:.2} s: {became}",
                    self.asked.seconds
                )];
                all.extend(note.iter().map(|note| format!("  {note}")));
                lines(&mut text, "run", &all);
            }
            Err(error) => {
                let mut all = vec![format!("`--device {name}` does not work")];
                let reason = error.to_string();
                all.extend(self.fix(&reason).map(|fix| format!("  {fix}")));
                all.push(String::from("  without a card: `--device cpu`"));
                lines(&mut text, "run", &all);
            }
        }
        text
    }

    fn json(&self) -> Value {
        let cards: Vec<Value> = self.cards.iter().map(|card| self.card_json(card)).collect();
        let driver = match &self.driver {
            Ok(count) => json!({ "cards": count }),
            Err(error) => {
                let reason = error.to_string();
                json!({ "cards": 0, "reason": reason, "fix": self.fix(&reason) })
            }
        };
        let asked = match &self.asked.result {
            Ok((became, note)) => json!({
                "asked": self.asked.name, "works": true, "device": became, "note": note, "seconds": self.asked.seconds,
            }),
            Err(error) => {
                let reason = error.to_string();
                json!({ "asked": self.asked.name, "works": false, "reason": reason, "fix": self.fix(&reason) })
            }
        };
        let weights: Vec<Value> = self
            .weights
            .iter()
            .map(|(name, origin)| json!({ "backbone": name, "origin": origin }))
            .collect();
        json!({
            "kind": "doctor",
            "version": crate::version(),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "processor": machine::processor_json(),
            "memory": machine::memory_json(),
            "container": self.surroundings.container,
            "driver": driver,
            "cards": cards,
            "nvidia_smi": self.told.iter().map(Told::json).collect::<Vec<_>>(),
            "weights": weights,
            "device": asked,
        })
    }

    fn card_json(&self, card: &Card) -> Value {
        match &card.found {
            Err(reason) => {
                json!({ "number": card.number, "reason": reason, "fix": self.fix(reason) })
            }
            Ok((info, free)) => json!({
                "number": card.number,
                "name": info.name,
                "compute_capability": decimal(info.compute_capability),
                "multiprocessors": info.multiprocessors,
                "memory_bytes": info.memory_bytes,
                "free_bytes": free,
                "cuda_version": format!("{}.{}", info.cuda_version.0, info.cuda_version.1),
                "reason": card.refused,
                "fix": card.refused.as_ref().and_then(|reason| self.fix(reason)),
            }),
        }
    }
}
