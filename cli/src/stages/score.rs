//! `musc-run score`: patch tokens to patch scores, maps and image scores.

use musc::backend::device::DeviceOptions;
use musc::backend::{Backend, FeatureSet, References, read_features};
use musc::scoring::upsample::{upsample_max_within, upsample_within};
use musc::tensor_file::{Tensor, write_tensors};
use musc::{ImageSize, Result};
use rayon::prelude::*;

use super::report;
use crate::args::{MatchArg, ScoreArgs};
use crate::run::config::{self, MachineConfig, at_least_one, may_write};
use crate::shell::Stop;
use crate::shell::voice::Voice;

/// Runs the command.
pub fn score(args: ScoreArgs) -> Result<(), Stop> {
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    machine.set_threads()?;
    let radius = args.match_where.and_then(MatchArg::radius);
    let scoring = config::scoring(args.r_list, args.max_table_memory)
        .map_err(Stop::Usage)?
        .with_radius(radius);
    let side = args.img_resize.map(|size| at_least_one("--img-resize", size)).transpose();
    let size = side.map_err(Stop::Usage)?.map(ImageSize::square).or(args.img_size);
    may_write(&args.output, args.overwrite).map_err(Stop::Usage)?;
    let features = read_features(&args.features, args.grid)?;
    let others =
        args.references.as_deref().map(|path| read_features(path, args.grid)).transpose()?;
    let voice = Voice::new(machine.quiet);
    let teller = voice.teller();
    let options = DeviceOptions::default()
        .with_threads(machine.threads.unwrap_or(0))
        .with_precision(machine.precision.unwrap_or_default())
        .with_memory_limit(machine.memory_limit);
    let (backend, note) = machine.device.open_with(options, &teller)?;
    if let Some(note) = note {
        voice.say(&note);
    }
    let features = backend.upload(features)?;
    let others = others.map(|others| backend.upload(others)).transpose()?;
    let references = others.as_ref().map_or(References::Others, References::Set);
    let scores = backend.patch_scores(&features, references, &scoring, &teller)?;

    let (images, grid, patches) = (scores.images, scores.grid, scores.patches());
    let mean = scores.mean();
    let mut tensors = vec![
        ("patch_scores", vec![images, patches], mean.as_slice()),
        (
            "patch_scores_by_r_layer",
            vec![scores.degrees.len(), scores.layers, images, patches],
            scores.by_degree_layer.as_slice(),
        ),
    ];
    let left_out = features.left_out();
    let marks =
        |image: usize| left_out.get(image * patches..(image + 1) * patches).unwrap_or_default();
    let mut maps = Vec::new();
    let image_scores = match size {
        Some(size) => {
            maps = vec![0f32; images * size.pixels()];
            maps.par_chunks_exact_mut(size.pixels())
                .zip(mean.par_chunks_exact(patches))
                .enumerate()
                .try_for_each(|(at, (map, scores))| {
                    upsample_within(scores, marks(at), grid, size, map)
                })?;
            mean.par_chunks_exact(patches)
                .enumerate()
                .map(|(at, scores)| upsample_max_within(scores, marks(at), grid, size))
                .collect::<Result<Vec<f32>>>()?
        }
        None => mean
            .chunks_exact(patches)
            .map(|of| of.iter().copied().fold(f32::MIN, f32::max))
            .collect(),
    };
    if let Some(size) = size {
        tensors.push(("anomaly_map", vec![images, size.height, size.width], &maps));
    }
    tensors.push(("image_scores", vec![images], &image_scores));
    let listed: Vec<Tensor<'_>> =
        tensors.iter().map(|(name, shape, data)| Tensor::f32(name, shape, data)).collect();
    musc::progress::go_on(&teller)?;
    write_tensors(&args.output, &listed, &[("grid", grid.to_string())])?;
    let shapes: Vec<_> =
        tensors.into_iter().map(|(name, shape, _)| (name.to_string(), shape)).collect();
    Ok(report(&machine, &args.output, &shapes)?)
}
