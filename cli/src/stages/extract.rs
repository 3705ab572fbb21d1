//! `musc-run extract`: images, or pixels made elsewhere, to patch tokens and class tokens.

use std::path::Path;

use musc::backend::{HostFeatures, write_features};
use musc::dataset::FolderOptions;
use musc::inspect::{Batch, InputSize, Subsets};
use musc::tensor_file::TensorFile;
use musc::{Error, ImageSize, Result};

use super::report;
use crate::args::ExtractArgs;
use crate::embedded::BUILT_IN_BACKBONE;
use crate::run::config::{
    BackboneConfig, DEFAULT_IMAGE_SIZE, MachineConfig, input_size, may_write,
};
use crate::run::sources::passed_over;
use crate::run::yaml::Yaml;
use crate::shards;
use crate::shell::Stop;
use crate::shell::voice::{Voice, warn};

/// Runs the command.
pub fn extract(args: ExtractArgs) -> Result<(), Stop> {
    let share = shards::share(args.shard)?;
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    if let Some(output) = &args.output {
        may_write(output, args.overwrite).map_err(Stop::Usage)?;
    }
    let mut none = Yaml::default();
    let backbone =
        BackboneConfig::new(args.backbone, &mut none, BUILT_IN_BACKBONE).map_err(Stop::Usage)?;
    let voice = Voice::new(machine.quiet);
    let teller = voice.teller();

    let given = args.pixels.as_deref().map(read_pixels).transpose()?;
    let asked = args.size;
    let input = match &given {
        None => input_size(asked, None, DEFAULT_IMAGE_SIZE).map_err(Stop::Usage)?,
        Some((_, size)) => {
            let exact = InputSize::Exactly(*size);
            let named = asked.img_resize.map(ImageSize::square).or(asked.img_size);
            if named.is_some_and(|named| named != *size) || asked.keep_aspect.is_some() {
                let found = format!("a size beside pixels of {size}");
                let expected = "the size of the pixels, or none";
                return Err(Stop::Usage(Error::invalid("--img-resize", found, expected)));
            }
            exact
        }
    };
    // Images are listed before the weights are read.
    let batch = match &given {
        Some(_) => None,
        None => {
            let batch = Batch::paths(&args.images, &FolderOptions::default())?;
            if let Some(note) = passed_over(&batch) {
                warn(&format!("note: {note}"));
            }
            Some(batch.skip_bad(args.skip_bad))
        }
    };
    let inspector = backbone
        .builder(&machine)
        .input(input)
        .subsets(Subsets::All)
        .build_with(&voice.teller())?;
    if let Some(note) = inspector.device_note() {
        voice.say(note);
    }
    let output = match (share, &batch, args.output) {
        (Some(share), Some(batch), _) => {
            return shards::extract(&machine, &inspector, batch, share);
        }
        (_, _, Some(output)) => output,
        _ => return Err(Stop::Usage(Error::invalid("--output", "nothing", "a file"))),
    };
    let features = match (given, batch) {
        (Some((pixels, size)), _) => inspector.features_of_pixels(&pixels, size, &teller)?,
        (None, Some(batch)) => {
            let (features, skipped) = inspector.features(&batch, &teller)?;
            for (path, reason) in skipped {
                warn(&format!("skipped {}: {reason}", path.display()));
            }
            features
        }
        (None, None) => return Err(Error::invalid("images", "none", "at least one").into()),
    };
    musc::progress::go_on(&teller)?;
    let patch = inspector.backbone().architecture().patch;
    let (rows, columns) = (features.grid.rows * patch, features.grid.columns * patch);
    let size = ImageSize::new(rows, columns);
    let size = size.side().map_or_else(|| size.to_string(), |side| side.to_string());
    write_features(&output, &features, &[("image_size", size)])?;
    Ok(report(&machine, &output, &shapes(&features))?)
}

/// Names and shapes of what was written.
fn shapes(features: &HostFeatures) -> Vec<(String, Vec<usize>)> {
    let (images, patches) = (features.images, features.grid.patches());
    let tokens = features
        .layers
        .iter()
        .map(|layer| (format!("tokens.{layer}"), vec![images, patches, features.width]));
    let class = (String::from("class_tokens"), vec![images, features.class_width]);
    tokens.chain([class]).collect()
}

/// Normalised pixels [N,3,H,W] and their size.
fn read_pixels(path: &Path) -> Result<(Vec<f32>, ImageSize)> {
    let mut file = TensorFile::open(path)?;
    let values = file.f32("pixels", &["N", "3", "H", "W"])?;
    match values.shape[..] {
        [images, 3, height, width] if images > 0 && height > 0 && width > 0 => {
            Ok((values.data, ImageSize::new(height, width)))
        }
        _ => Err(file.wrong(
            "pixels",
            format!("shape {:?}", values.shape),
            "[N,3,H,W] with at least one image",
        )),
    }
}
