//! `musc-bench e2e`: a whole run, launch by launch, summed.

use serde_json::{Value, json};

use super::args::{Device, E2eArgs};
use super::cards::Card;
use super::kernels::{Counters, PLAN_BYTES, account, timed};
use super::measure::Timer;
use super::op::Op;
use super::pipeline::{self, Setting, Work};
use super::probe::Counter;
use super::text::{cells, percent, table};
use crate::shell::{Stop, out};
use musc::Result;
use musc::backend::cuda::Card as OpenCard;
use musc::backend::cuda::plan::{self, Part};

/// A card's sum: seconds of all images by role, with what binds the role's first launch.
struct Sum {
    name: String,
    roles: Vec<(&'static str, f64, &'static str)>,
}

impl Sum {
    fn add(&mut self, role: &'static str, seconds: f64, binding: &'static str) {
        match self.roles.iter_mut().find(|(known, ..)| *known == role) {
            Some((_, total, _)) => *total += seconds,
            None => self.roles.push((role, seconds, binding)),
        }
    }

    fn total(&self) -> f64 {
        self.roles.iter().map(|(_, seconds, _)| seconds).sum()
    }

    fn longest(&self) -> (&'static str, f64, &'static str) {
        self.roles
            .iter()
            .copied()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or(("nothing", 0.0, "-"))
    }
}

/// Tensor operations of an image by part.
#[derive(Default)]
struct Flops {
    features_useful: f64,
    features_issued: f64,
    scoring_useful: f64,
    scoring_issued: f64,
}

/// Runs the command.
pub fn run(args: &E2eArgs) -> std::result::Result<(), Stop> {
    let setting = args.setting().map_err(Stop::Usage)?;
    let cards = args.common.cards().map_err(Stop::Usage)?;
    let device = args.common.device().map_err(Stop::Usage)?;
    let chunk = args.gram_block(setting.grid().pow(2)).map_err(Stop::Usage)?;
    let features = pipeline::features(&setting);
    let scoring = match chunk {
        None => pipeline::scoring(&setting, PLAN_BYTES)?,
        Some(chunk) => pipeline::scoring_by(&setting, setting.plan(PLAN_BYTES)?.group, chunk),
    };
    let memory = memory(&setting)?;
    let (flops, sums, kind) = match device {
        Device::Sim => {
            let (flops, sums) = modelled(&features, &scoring, &cards)?;
            (flops, sums, "modelled")
        }
        Device::Cuda(number) => {
            let (flops, sum) = measured(&features, &scoring, number)?;
            (flops, vec![sum], "measured")
        }
    };
    let document = document(&setting, &flops, &sums, &memory, kind);
    if args.common.json {
        out::print_json(&document)?;
    } else {
        out::print(&text(&setting, &flops, &sums, &memory, kind))?;
    }
    Ok(())
}

/// The plan of a run's memory.
fn memory(setting: &Setting) -> Result<Vec<Part>> {
    plan::whole_run(
        &setting.backbone_sizes(),
        (setting.images, setting.layers(), setting.batch),
        &setting.scoring,
        80 << 30,
    )
}

fn add_flops(flops: &mut Flops, op: &Op, times: u64, issued: f64) {
    let times = times as f64;
    let (useful, all) = if matches!(op, Op::Gram { .. }) {
        (&mut flops.scoring_useful, &mut flops.scoring_issued)
    } else {
        (&mut flops.features_useful, &mut flops.features_issued)
    };
    *useful += op.useful_flops() * times;
    *all += issued * times;
}

fn modelled(
    features: &[Work],
    scoring: &[Work],
    cards: &[&'static Card],
) -> Result<(Flops, Vec<Sum>)> {
    let mut counters = Counters::default();
    let mut flops = Flops::default();
    let mut sums: Vec<Sum> =
        cards.iter().map(|card| Sum { name: card.name.into(), roles: Vec::new() }).collect();
    for Work { role, op, times } in features.iter().chain(scoring) {
        let (counts, on_cards) = account(&mut counters, op, cards)?;
        add_flops(&mut flops, op, *times, counts.mma_flops);
        for (sum, on) in sums.iter_mut().zip(&on_cards) {
            sum.add(role, on.modelled.seconds * *times as f64, on.modelled.binding);
        }
    }
    Ok((flops, sums))
}

/// The same sum with measured launches: each shape is timed once and taken as often as a run has it.
fn measured(features: &[Work], scoring: &[Work], number: usize) -> Result<(Flops, Sum)> {
    let card = OpenCard::open(number)?;
    let (mut simulator, mut timer) = (Counter::new(80), Timer::new(&card)?);
    let mut flops = Flops::default();
    let mut sum = Sum { name: card.info().name.clone(), roles: Vec::new() };
    for Work { role, op, times } in features.iter().chain(scoring) {
        let counts = simulator.counts(op)?;
        add_flops(&mut flops, op, *times, counts.mma_flops);
        if let Some(time) = timed(&mut timer, op)? {
            sum.add(role, time.cold.median_ms / 1e3 * *times as f64, "measured");
        }
    }
    Ok((flops, sum))
}

fn document(setting: &Setting, flops: &Flops, sums: &[Sum], memory: &[Part], kind: &str) -> Value {
    let images = setting.images as f64;
    let cards: Vec<Value> = sums
        .iter()
        .map(|sum| {
            let (kernel, seconds, limit) = sum.longest();
            let by_kernel: Vec<Value> = sum
                .roles
                .iter()
                .map(|(role, seconds, binding)| {
                    json!({ "role": role, "ms_per_image": seconds * 1e3 / images, "binding": binding })
                })
                .collect();
            json!({
                "card": sum.name,
                "ms_per_image": sum.total() * 1e3 / images,
                "binding_kernel": kernel,
                "binding_kernel_ms_per_image": seconds * 1e3 / images,
                "binding_limit": limit,
                "by_kernel": by_kernel,
            })
        })
        .collect();
    let parts: Vec<Value> =
        memory.iter().map(|(what, bytes)| json!({ "part": what, "bytes": bytes })).collect();
    json!({
        "kind": "e2e",
        "model": setting.backbone.name,
        "image_size": setting.image_size,
        "images": setting.images,
        "batch": setting.batch,
        "times": kind,
        "tflop_per_image": {
            "features_useful": flops.features_useful / images / 1e12,
            "features_issued": flops.features_issued / images / 1e12,
            "scoring_useful": flops.scoring_useful / images / 1e12,
            "scoring_issued": flops.scoring_issued / images / 1e12,
        },
        "cards": cards,
        "memory": { "bytes": plan::total(memory), "parts": parts },
    })
}

fn text(setting: &Setting, flops: &Flops, sums: &[Sum], memory: &[Part], kind: &str) -> String {
    let images = setting.images as f64;
    let mut text = format!(
        "## {} at {} px, N = {}, batch {}: {kind} ms an image\n\n",
        setting.backbone.name, setting.image_size, setting.images, setting.batch
    );
    let head: Vec<String> =
        std::iter::once("part".into()).chain(sums.iter().map(|sum| sum.name.clone())).collect();
    let roles: Vec<&str> = sums
        .first()
        .map(|sum| sum.roles.iter().map(|(role, ..)| *role).collect())
        .unwrap_or_default();
    let mut rows: Vec<Vec<String>> = roles
        .iter()
        .enumerate()
        .map(|(at, role)| {
            let of_cards = sums
                .iter()
                .filter_map(|sum| sum.roles.get(at))
                .map(|(_, s, binding)| format!("{:.3} ({binding})", s * 1e3 / images));
            std::iter::once((*role).to_string()).chain(of_cards).collect()
        })
        .collect();
    let totals = sums.iter().map(|sum| format!("**{:.1}**", sum.total() * 1e3 / images));
    rows.push(std::iter::once(String::from("**all**")).chain(totals).collect());
    let longest = sums.iter().map(|sum| {
        let (role, seconds, _) = sum.longest();
        format!("{role}, {} %", percent(seconds / sum.total()))
    });
    rows.push(std::iter::once(String::from("the longest part")).chain(longest).collect());
    text += &table(&head, &rows);

    text += "\nTensor work, TFLOP an image:\n\n";
    let row = |name: &str, useful: f64, issued: f64| {
        vec![
            name.to_string(),
            format!("{:.4}", useful / images / 1e12),
            format!("{:.4}", issued / images / 1e12),
            if issued > 0.0 { percent(useful / issued) } else { String::from("-") },
        ]
    };
    text += &table(
        &cells(["part", "useful", "issued", "useful ÷ issued, %"]),
        &[
            row("features", flops.features_useful, flops.features_issued),
            row("scoring", flops.scoring_useful, flops.scoring_issued),
        ],
    );

    text += "\nMemory of a card at its fullest:\n\n";
    let mut rows: Vec<Vec<String>> = memory
        .iter()
        .map(|(what, bytes)| vec![(*what).to_string(), format!("{:.1}", *bytes as f64 / 1e6)])
        .collect();
    rows.push(vec![
        String::from("**all**"),
        format!("**{:.1}**", plan::total(memory) as f64 / 1e6),
    ]);
    text + &table(&cells(["part", "MB"]), &rows)
}
