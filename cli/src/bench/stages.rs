//! `musc-bench stages`: features and scoring on the CPU with the built-in weights, on seeded images.

use std::time::Instant;

use musc::backend::cpu::Instructions;
use musc::backend::device::{AnyBackend, Device, DeviceOptions, Formats};
use musc::backend::{Backend, Extraction, Pixels, References};
use musc::image::RgbImage;
use musc::model::{Vit, backbone, locate};
use musc::{Error, ImageSize, Result};
use serde_json::json;

use super::args::StagesArgs;
use super::measure::Measured;
use super::pipeline::{Setting, Work, features};
use super::text::{cells, percent, table};
use crate::embedded::{BUILT_IN, BUILT_IN_BACKBONE, built_in_weights};
use crate::shell::{Stop, interrupt, out};

/// A stage: its name, its operations for all images by formula, and its times.
struct Stage {
    name: &'static str,
    flops: f64,
    time: Measured,
}

/// Runs the command.
pub fn run(args: &StagesArgs) -> std::result::Result<(), Stop> {
    let known = backbone(BUILT_IN_BACKBONE)?;
    let setting =
        Setting::new(known, args.img_resize, args.images, Some(4)).map_err(Stop::Usage)?;
    if args.repeats == 0 {
        return Err(Stop::Usage(Error::invalid("--repeats", args.repeats, "at least 1")));
    }
    if args.peak_gflops.is_some_and(|peak| !peak.is_finite() || peak <= 0.0) {
        let found = args.peak_gflops.unwrap_or_default();
        return Err(Stop::Usage(Error::invalid("--peak-gflops", found, "a number above 0")));
    }
    let options = DeviceOptions::default()
        .with_threads(args.threads.unwrap_or(0))
        .with_precision(args.precision.unwrap_or_default());
    let (cpu, _) = Device::Cpu.open(options)?;
    let Formats { features, scoring, instructions, .. } = cpu.formats();
    let instructions = instructions.map(Instructions::name);
    let stages = time(&setting, args, &cpu)?;
    let images = setting.images as f64;
    if args.json {
        let stages: Vec<_> = stages
            .iter()
            .map(|stage| {
                let rate = stage.flops / stage.time.median_ms / 1e6;
                json!({
                    "stage": stage.name,
                    "median_ms_per_image": stage.time.median_ms / images,
                    "least_ms_per_image": stage.time.least_ms / images,
                    "most_ms_per_image": stage.time.most_ms / images,
                    "gflop_per_image": stage.flops / images / 1e9,
                    "gflops": rate,
                    "share_of_peak": args.peak_gflops.map(|peak| rate / peak),
                })
            })
            .collect();
        return Ok(out::print_json(&json!({
            "kind": "stages",
            "model": known.name,
            "image_size": setting.image_size,
            "images": setting.images,
            "repeats": args.repeats,
            "device": "cpu",
            "features": features,
            "scoring": scoring,
            "instructions": instructions,
            "times": "measured",
            "stages": stages,
        }))?);
    }
    let rows: Vec<Vec<String>> = stages
        .iter()
        .map(|stage| {
            let rate = stage.flops / stage.time.median_ms / 1e6;
            vec![
                stage.name.to_string(),
                format!("{:.2}", stage.time.median_ms / images),
                format!(
                    "{:.2} to {:.2}",
                    stage.time.least_ms / images,
                    stage.time.most_ms / images
                ),
                format!("{:.2}", stage.flops / images / 1e9),
                format!("{rate:.1}"),
                args.peak_gflops.map_or_else(|| String::from("-"), |peak| percent(rate / peak)),
            ]
        })
        .collect();
    let head = cells([
        "stage",
        "ms an image, median",
        "least to most",
        "GFLOP an image",
        "GFLOP/s",
        "of peak, %",
    ]);
    Ok(out::print(&format!(
        "## {} at {} px, {} images on the CPU, {} runs; features {features}, scoring {scoring}{}\n\n{}",
        known.name,
        setting.image_size,
        setting.images,
        args.repeats,
        instructions.map_or_else(String::new, |name| format!(" ({name})")),
        table(&head, &rows)
    ))?)
}

fn time(setting: &Setting, args: &StagesArgs, cpu: &AnyBackend) -> Result<Vec<Stage>> {
    let vit = match built_in_weights() {
        Some(bytes) => Vit::from_static(BUILT_IN, bytes)?,
        None => Vit::open(&locate::find(setting.backbone, "")?.path)?,
    };
    let input = ImageSize::square(setting.image_size);
    let extraction = Extraction::new(
        setting.backbone.default_layers.to_vec(),
        input,
        setting.backbone.default_activation("", input),
        setting.backbone.normalisation(),
    )
    .with_batch_size(setting.batch);
    let model = cpu.load(&vit, &extraction)?;
    let side = setting.image_size;
    let image = |seed: usize| RgbImage {
        width: side,
        height: side,
        data: (0..side * side * 3)
            .map(|at| ((at * 31 + at / 97 * 7 + seed * 131) % 251) as u8)
            .collect(),
    };
    let pictures: Vec<RgbImage> = (0..setting.images).map(image).collect();
    // The run that is not timed is also the one that is checked.
    let features_of_cpu = cpu.extract(&model, Pixels::Rgb(&pictures), &())?;
    let extract =
        repeat(args.repeats, || cpu.extract(&model, Pixels::Rgb(&pictures), &()).map(|_| ()))?;
    let others = References::Others;
    let scores = cpu.patch_scores(&features_of_cpu, others, &setting.scoring, &())?;
    if scores.by_degree_layer.iter().any(|score| !(0.0..=2.0).contains(score)) {
        return Err(Error::invalid(
            "patch scores",
            "numbers outside 0 to 2",
            "distances of unit vectors",
        ));
    }
    let score = repeat(args.repeats, || {
        cpu.patch_scores(&features_of_cpu, others, &setting.scoring, &()).map(|_| ())
    })?;
    let of_features: f64 = features(setting)
        .iter()
        .map(|Work { op, times, .. }| op.useful_flops() * *times as f64)
        .sum();
    let patches = setting.grid().pow(2) as f64;
    let pairs = (setting.images * (setting.images - 1) / 2 * setting.layers()) as f64;
    let of_scoring = pairs * 2.0 * patches * patches * setting.backbone.width as f64;
    Ok(vec![
        Stage { name: "features", flops: of_features, time: extract },
        Stage { name: "scoring", flops: of_scoring, time: score },
    ])
}

/// Milliseconds of several runs of a piece of work.
fn repeat(repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<Measured> {
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        interrupt::check()?;
        let started = Instant::now();
        work()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Measured::of(times).ok_or_else(|| Error::invalid("--repeats", repeats, "at least 1"))
}
