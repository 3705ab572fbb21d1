//! `musc-run extract`: images, or pixels made elsewhere, to patch tokens and class tokens.

use std::path::Path;

use super::{on_device, report};
use crate::backend::{Backend, FeatureSet, HostFeatures, Pixels};
use crate::cli::args::{ActivationArg, ExtractArgs};
use crate::cli::backbone::{self, Loaded};
use crate::cli::config::{
    BackboneConfig, DEFAULT_IMAGE_SIZE, DEFAULT_PRETRAINED, MachineConfig, at_least_one,
    batch_size, may_write,
};
use crate::cli::device::{self, Job};
use crate::cli::progress::{Voice, warn};
use crate::cli::tensors::TensorFile;
use crate::cli::{Stop, interrupt, pixels, sources};
use crate::report::{Tensor, write_tensors};
use crate::{Error, Result};

/// Runs the command.
pub fn extract(args: ExtractArgs) -> Result<(), Stop> {
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    device::set_threads(machine.threads)?;
    may_write(&args.output, args.overwrite).map_err(Stop::Usage)?;
    let batch_size = batch_size(args.batch_size).map_err(Stop::Usage)?;
    let voice = Voice::new(machine.quiet);

    let given = args.pixels.as_deref().map(read_pixels).transpose()?;
    let of_pixels = given.as_ref().map(|(_, size)| *size);
    if let (Some(asked), Some(found)) = (args.img_resize, of_pixels)
        && asked != found
    {
        let found = format!("{asked}, beside pixels of {found}x{found}");
        return Err(Stop::Usage(Error::invalid("--img-resize", found, "the side of the pixels")));
    }
    let size = args.img_resize.or(of_pixels).unwrap_or(DEFAULT_IMAGE_SIZE);
    let config = BackboneConfig {
        name: args.backbone_name,
        pretrained: args.pretrained.unwrap_or_else(|| DEFAULT_PRETRAINED.into()),
        weights: args.weights,
        activation: args.activation.unwrap_or(ActivationArg::Official),
        image_size: at_least_one("--img-resize", size).map_err(Stop::Usage)?,
        layers: args.feature_layers,
        batch_size,
        paper: false,
    };
    let loaded = backbone::load(&config)?;
    let input = match given {
        Some((pixels, _)) => Input::Normalised(pixels),
        None => Input::Files { paths: args.images, skip_bad: args.skip_bad },
    };
    let features = on_device(&machine, Extract { loaded, input, voice })?;

    let (images, patches, width) = (features.images, features.patches, features.width);
    let names: Vec<String> =
        features.layers.iter().map(|layer| format!("tokens.{layer}")).collect();
    let token_shape = [images, patches, width];
    let class_shape = [images, features.class_width];
    let mut tensors: Vec<Tensor<'_>> = names
        .iter()
        .zip(&features.tokens)
        .map(|(name, data)| Tensor { name, shape: &token_shape, data })
        .collect();
    tensors.push(Tensor {
        name: "class_tokens",
        shape: &class_shape,
        data: &features.class_tokens,
    });
    interrupt::check()?;
    write_tensors(&args.output, &tensors, &[("image_size", size.to_string())])?;
    let shapes: Vec<_> =
        tensors.iter().map(|tensor| (tensor.name, tensor.shape.to_vec())).collect();
    Ok(report(&machine, &args.output, &shapes)?)
}

enum Input {
    Normalised(Vec<f32>),
    Files { paths: Vec<String>, skip_bad: bool },
}

struct Extract {
    loaded: Loaded,
    input: Input,
    voice: Voice,
}

impl Job for Extract {
    type Output = HostFeatures;

    fn run<B: Backend>(self, backend: &B) -> Result<HostFeatures> {
        let Loaded { vit, extraction, filter, .. } = &self.loaded;
        let model = backend.load(vit, extraction)?;
        let size = extraction.image_size;
        let features = match &self.input {
            Input::Normalised(pixels) => {
                let images = pixels.len() / (3 * size * size);
                let stage = self.voice.stage("features", images as u64, "images");
                let features = backend.extract(&model, Pixels::Normalised(pixels), &stage)?;
                stage.finish();
                features
            }
            Input::Files { paths, skip_bad } => {
                let found = sources::plain(paths, false)?;
                let count = found.samples.len() as u64;
                if backend.leaves_processor_free() && !skip_bad && found.ignored.is_empty() {
                    let stage = self.voice.stage("features", count, "images");
                    let (_, features) = pixels::load_beside(&found, size, *filter, |source| {
                        backend.extract(&model, Pixels::Source(source), &stage)
                    })?;
                    stage.finish();
                    return to_host(&features);
                }
                let (pixels, _) = pixels::load(&found, size, *filter, *skip_bad, self.voice)?;
                for (path, reason) in &pixels.bad {
                    warn(&format!("skipped {}: {reason}", path.display()));
                }
                let stage = self.voice.stage("features", pixels.images.len() as u64, "images");
                let features = backend.extract(&model, Pixels::Rgb(&pixels.images), &stage)?;
                stage.finish();
                features
            }
        };
        to_host(&features)
    }
}

/// Everything, copied off the device.
fn to_host(features: &impl FeatureSet) -> Result<HostFeatures> {
    let tokens =
        (0..features.layers().len()).map(|at| features.patch_tokens(at)).collect::<Result<_>>()?;
    Ok(HostFeatures {
        images: features.images(),
        patches: features.patches(),
        width: features.width(),
        layers: features.layers().to_vec(),
        tokens,
        class_width: features.class_width(),
        class_tokens: features.class_tokens()?,
    })
}

/// Normalised pixels [N,3,S,S] and their side.
fn read_pixels(path: &Path) -> Result<(Vec<f32>, usize)> {
    let mut file = TensorFile::open(path)?;
    let values = file.f32("pixels", &["N", "3", "S", "S"])?;
    match values.shape[..] {
        [images, 3, height, width] if images > 0 && height == width && width > 0 => {
            Ok((values.data, width))
        }
        _ => Err(file.wrong(
            "pixels",
            format!("shape {:?}", values.shape),
            "[N,3,S,S] with at least one image",
        )),
    }
}
