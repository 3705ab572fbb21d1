//! `musc-run metrics`: scores and ground truth to the seven figures.

use musc::metrics::{ImageMetrics, PixelMetrics, image_metrics, pixel_metrics};
use musc::report::metrics_object;
use musc::tensor_file::{TensorFile, Values};
use musc::{Error, Result};

use crate::args::MetricsArgs;
use crate::run::config::MachineConfig;
use crate::shell::{Stop, out};

/// Runs the command.
pub fn metrics(args: MetricsArgs) -> Result<(), Stop> {
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    machine.set_threads()?;
    let mut file = TensorFile::open(&args.input)?;
    let image = if pair(&file, "gt_image", "score_image")? {
        let labels = file.marks("gt_image", &["N"])?;
        let scores = file.f64("score_image", &["N"])?;
        same_shape(&file, "score_image", &labels, &scores)?;
        let labels: Vec<bool> = labels.data.iter().map(|&label| label != 0).collect();
        image_metrics(&labels, &scores.data)?
    } else {
        ImageMetrics::default()
    };
    let pixel = if pair(&file, "gt_pixel", "score_pixel")? {
        let masks = file.marks("gt_pixel", &["N", "H", "W"])?;
        let maps = file.f32("score_pixel", &["N", "H", "W"])?;
        same_shape(&file, "score_pixel", &masks, &maps)?;
        let [n, h, w] = maps.shape[..] else {
            return Err(file
                .wrong("score_pixel", format!("shape {:?}", maps.shape), "[N,H,W]")
                .into());
        };
        pixel_metrics(&masks.data, &maps.data, n, h, w)?
    } else {
        PixelMetrics::default()
    };
    if !file.has("gt_image") && !file.has("gt_pixel") {
        return Err(Error::Dataset {
            path: args.input,
            reason: String::from(
                "found neither gt_image with score_image nor gt_pixel with score_pixel",
            ),
        }
        .into());
    }
    Ok(out::print_json(&serde_json::Value::Object(metrics_object(&image, &pixel)))?)
}

/// True when both tensors are there, false when neither is.
fn pair(file: &TensorFile, truth: &str, score: &str) -> Result<bool> {
    match (file.has(truth), file.has(score)) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => Err(file.wrong(score, "nothing", format!("the scores for {truth}"))),
        (false, true) => Err(file.wrong(truth, "nothing", format!("the ground truth for {score}"))),
    }
}

fn same_shape<T, U>(
    file: &TensorFile,
    name: &str,
    truth: &Values<T>,
    score: &Values<U>,
) -> Result<()> {
    if truth.shape == score.shape {
        return Ok(());
    }
    Err(file.wrong(
        name,
        format!("shape {:?}", score.shape),
        format!("{:?}, as its ground truth", truth.shape),
    ))
}
