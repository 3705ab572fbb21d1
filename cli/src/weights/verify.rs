//! `musc-run weights verify`: opens weights as a run does and says what they are.

use std::path::Path;

use musc::Result;
use musc::inspect::Weights;
use musc::model::{BACKBONES, Vit, locate, sha256_of_bytes, sha256_of_file};
use serde_json::{Value, json};

use super::named;
use crate::args::WeightsVerifyArgs;
use crate::embedded::weights_of;
use crate::shell::{Stop, out};

/// Runs the command.
pub fn verify(args: WeightsVerifyArgs) -> Result<(), Stop> {
    let path = Path::new(&args.weights);
    let is_name = BACKBONES.iter().any(|known| known.name == args.weights);
    let (vit, sha256) = if is_name && !path.exists() {
        let (known, pretrained) = named(&args.weights, args.pretrained)?;
        let (vit, sha256) = match weights_of(known.name) {
            Weights::Static { name, bytes } => {
                (Vit::from_static(name, bytes)?, sha256_of_bytes(bytes))
            }
            _ => open(&locate::find(known, &pretrained)?.path)?,
        };
        vit.check_backbone(known)?;
        (vit, sha256)
    } else {
        open(path)?
    };
    let json = args.messages.json.then(|| document(&vit, &sha256));
    Ok(out::print_either(json, || text(&vit, &sha256))?)
}

fn open(path: &Path) -> Result<(Vit, String)> {
    Ok((Vit::open(path)?, sha256_of_file(path)?))
}

/// The backbones that have these sizes.
pub fn fitting(vit: &Vit) -> Vec<&'static str> {
    BACKBONES
        .iter()
        .filter(|known| vit.check_backbone(known).is_ok())
        .map(|known| known.name)
        .collect()
}

/// The facts about weights that were read, a line each.
pub fn facts(vit: &Vit) -> String {
    let of = &vit.architecture;
    let fits = fitting(vit);
    let fits = if fits.is_empty() { "no backbone known by name".into() } else { fits.join(", ") };
    format!(
        "naming        {}\n\
         architecture  {}, width {}, depth {}, heads {}, patch {}, native size {}, MLP width {}, class token width {}\n\
         fits          {fits}\n\
         parameters    {}\n",
        vit.scheme().description(),
        of.family.name(),
        of.width,
        of.depth,
        of.heads,
        of.patch,
        of.native_size(),
        of.mlp_width,
        of.class_dim,
        vit.parameter_count(),
    )
}

fn text(vit: &Vit, sha256: &str) -> String {
    // The loader refuses values that are not finite, so that a file which was read has none.
    format!(
        "file          {}\n{}values        all finite\nsha256        {sha256}\n",
        vit.source(),
        facts(vit)
    )
}

/// The same as a document.
pub fn document(vit: &Vit, sha256: &str) -> Value {
    let of = &vit.architecture;
    json!({
        "file": vit.source(),
        "scheme": vit.scheme().letter().to_string(),
        "naming": vit.scheme().description(),
        "architecture": {
            "family": of.family.name(),
            "width": of.width,
            "depth": of.depth,
            "heads": of.heads,
            "patch_size": of.patch,
            "native_size": of.native_size(),
            "mlp_width": of.mlp_width,
            "class_dim": of.class_dim,
        },
        "fits": fitting(vit),
        "parameters": vit.parameter_count(),
        "finite": true,
        "sha256": sha256,
    })
}
