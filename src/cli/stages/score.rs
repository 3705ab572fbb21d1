//! `musc-run score`: patch tokens to patch scores, maps and image scores.

use std::path::Path;

use rayon::prelude::*;

use super::{on_device, report};
use crate::backend::{Backend, HostFeatures};
use crate::cli::Stop;
use crate::cli::args::ScoreArgs;
use crate::cli::config::{self, MachineConfig, at_least_one, may_write};
use crate::cli::device::{self, Job};
use crate::cli::interrupt;
use crate::cli::progress::Voice;
use crate::cli::tensors::TensorFile;
use crate::report::{Tensor, write_tensors};
use crate::scoring::upsample::{upsample, upsample_max};
use crate::scoring::{MutualScoring, PatchScores};
use crate::{Error, Result};

/// Runs the command.
pub fn score(args: ScoreArgs) -> Result<(), Stop> {
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    device::set_threads(machine.threads)?;
    let scoring = config::scoring(args.r_list, args.max_table_memory).map_err(Stop::Usage)?;
    let size = args
        .img_resize
        .map(|size| at_least_one("--img-resize", size))
        .transpose()
        .map_err(Stop::Usage)?;
    may_write(&args.output, args.overwrite).map_err(Stop::Usage)?;
    let features = read_features(&args.features)?;
    let grid = features.check()?;
    let job = Score { features, scoring, voice: Voice::new(machine.quiet) };
    let scores = on_device(&machine, job)?;

    let (images, patches) = (scores.images, scores.patches);
    let mean = scores.mean();
    let mut tensors = vec![
        ("patch_scores", vec![images, patches], mean.as_slice()),
        (
            "patch_scores_by_r_layer",
            vec![scores.degrees.len(), scores.layers, images, patches],
            scores.by_degree_layer.as_slice(),
        ),
    ];
    let mut maps = Vec::new();
    let image_scores = match size {
        Some(size) => {
            maps = vec![0f32; images * size * size];
            maps.par_chunks_exact_mut(size * size)
                .zip(mean.par_chunks_exact(patches))
                .try_for_each(|(map, scores)| upsample(scores, grid, size, map))?;
            mean.par_chunks_exact(patches)
                .map(|scores| upsample_max(scores, grid, size))
                .collect::<Result<Vec<f32>>>()?
        }
        None => mean
            .chunks_exact(patches)
            .map(|of| of.iter().copied().fold(f32::MIN, f32::max))
            .collect(),
    };
    if let Some(size) = size {
        tensors.push(("anomaly_map", vec![images, size, size], &maps));
    }
    tensors.push(("image_scores", vec![images], &image_scores));
    let listed: Vec<Tensor<'_>> =
        tensors.iter().map(|(name, shape, data)| Tensor { name, shape, data }).collect();
    interrupt::check()?;
    write_tensors(&args.output, &listed, &[])?;
    let shapes: Vec<_> = tensors.into_iter().map(|(name, shape, _)| (name, shape)).collect();
    Ok(report(&machine, &args.output, &shapes)?)
}

struct Score {
    features: HostFeatures,
    scoring: MutualScoring,
    voice: Voice,
}

impl Job for Score {
    type Output = PatchScores;

    fn run<B: Backend>(self, backend: &B) -> Result<PatchScores> {
        let features = backend.upload(self.features)?;
        let pairs = backend.scoring_steps(&features, &self.scoring)?;
        let stage = self.voice.stage("scoring", pairs, "pairs");
        let scores = backend.mutual_scores(&features, &self.scoring, &stage)?;
        stage.finish();
        Ok(scores)
    }
}

/// The tensors `tokens.LAYER`, in the layers' order.
fn read_features(path: &Path) -> Result<HostFeatures> {
    let mut file = TensorFile::open(path)?;
    let mut layers: Vec<(usize, String)> = Vec::new();
    for name in file.names() {
        if let Some(layer) = name.strip_prefix("tokens.") {
            let number = layer.parse().map_err(|_| {
                file.wrong(name, "a name that ends in no number", "tokens.LAYER, such as tokens.5")
            })?;
            layers.push((number, name.to_string()));
        }
    }
    layers.sort();
    if layers.is_empty() {
        return Err(file.wrong("tokens.LAYER", "none", "at least one, of shape [N,L,C]"));
    }
    let mut tokens = Vec::with_capacity(layers.len());
    let mut sizes: Option<Vec<usize>> = None;
    for (_, name) in &layers {
        let values = file.f32(name, &["N", "L", "C"])?;
        match &sizes {
            Some(first) if *first != values.shape => {
                return Err(file.wrong(
                    name,
                    format!("shape {:?}", values.shape),
                    format!("{first:?}, as the first layer"),
                ));
            }
            _ => sizes = Some(values.shape),
        }
        tokens.push(values.data);
    }
    let sizes = sizes.unwrap_or_default();
    let [images, patches, width] = sizes[..] else {
        return Err(Error::invalid("patch tokens", format!("{sizes:?}"), "[N,L,C]"));
    };
    Ok(HostFeatures {
        images,
        patches,
        width,
        layers: layers.into_iter().map(|(layer, _)| layer).collect(),
        tokens,
        class_width: 0,
        class_tokens: Vec::new(),
    })
}
