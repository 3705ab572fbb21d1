//! From the backbone's options to its weights, checked, with every default filled in.

use std::path::Path;

use super::args::ActivationArg;
use super::config::BackboneConfig;
use super::weights::locate;
use crate::backend::Extraction;
use crate::image::Filter;
use crate::model::{
    Activation, Architecture, BACKBONES, Backbone, EMBEDDED_BACKBONE, Family, Vit, backbone,
    embedded_weights, sha256_of_bytes, sha256_of_file,
};
use crate::{Error, Result};

/// A backbone that is ready to be handed to a device.
pub struct Loaded {
    /// Its weights.
    pub vit: Vit,
    /// Its name, or the weight file's where no backbone known by name fits.
    pub name: String,
    /// Where the weights came from.
    pub source: String,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
    /// What to extract.
    pub extraction: Extraction,
    /// The feature layers as they were asked for; with `--paper` other blocks may be read for them.
    pub layers: Vec<usize>,
    /// How images are resized for it.
    pub filter: Filter,
}

/// Finds, opens and checks the weights.
pub fn load(config: &BackboneConfig) -> Result<Loaded> {
    let named = config.name.as_deref().map(backbone).transpose()?;
    if let Some(known) = named {
        locate::check_pretrained(known, &config.pretrained)?;
    }
    let file = match (&config.weights, named) {
        (Some(file), _) => Some(file.clone()),
        (None, None) => None,
        (None, Some(known)) if known.name == EMBEDDED_BACKBONE => None,
        (None, Some(known)) => Some(locate::find(known, &config.pretrained)?.path),
    };
    let (vit, sha256) = match &file {
        Some(file) => (Vit::open(file)?, sha256_of_file(file)?),
        None => {
            let bytes = embedded_weights();
            (Vit::from_static("built-in weights", bytes)?, sha256_of_bytes(bytes))
        }
    };
    if let Some(known) = named {
        vit.check_backbone(known)?;
    }
    let known = named.or_else(|| BACKBONES.iter().find(|known| vit.check_backbone(known).is_ok()));
    let of_file =
        file.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    let architecture = &vit.architecture;
    check_size(architecture, config.image_size)?;
    let layers = config.layers.clone().unwrap_or_else(|| default_layers(architecture.depth));
    check_layers(architecture, &layers)?;
    let read = if config.paper { paper_layers(architecture, &layers) } else { layers.clone() };
    let extraction = Extraction {
        layers: read,
        image_size: config.image_size,
        activation: activation(architecture, known, config),
        normalisation: architecture.family.normalisation(),
        batch_size: config.batch_size,
    };
    Ok(Loaded {
        name: known
            .map(|known| known.name.to_string())
            .or(of_file)
            .unwrap_or_else(|| "backbone".into()),
        source: file.map_or_else(|| "built-in".into(), |file| file.display().to_string()),
        sha256,
        filter: architecture.family.filter(),
        layers,
        extraction,
        vit,
    })
}

fn check_size(architecture: &Architecture, size: usize) -> Result<()> {
    let patch = architecture.patch;
    if size.is_multiple_of(patch) {
        return Ok(());
    }
    let below = size / patch * patch;
    let near =
        if below == 0 { format!("{patch}") } else { format!("{below} or {}", below + patch) };
    Err(Error::invalid(
        "--img_resize",
        size,
        format!("a multiple of the patch size {patch}, such as {near}"),
    ))
}

fn check_layers(architecture: &Architecture, layers: &[usize]) -> Result<()> {
    for (at, layer) in layers.iter().enumerate() {
        if *layer >= architecture.depth {
            let expected = format!("block indices from 0 to {}", architecture.depth - 1);
            return Err(Error::invalid("--feature_layers", layer, expected));
        }
        if layers[..at].contains(layer) {
            return Err(Error::invalid(
                "--feature_layers",
                format!("{layer} twice"),
                "each block once",
            ));
        }
    }
    Ok(())
}

/// The blocks that the authors' program reads for these feature layers.
///
/// From DINO (not DINOv2, not CLIP) it takes the last `max + 1` blocks and indexes into those by layer: as long as the
/// largest layer is the last block that is the layer itself, else each is `depth - 1 - max` too high.
fn paper_layers(architecture: &Architecture, layers: &[usize]) -> Vec<usize> {
    let largest = layers.iter().copied().max().unwrap_or(0);
    let shift = match architecture.family {
        Family::Dino => architecture.depth.saturating_sub(1 + largest),
        Family::Clip | Family::Dinov2 => 0,
    };
    layers.iter().map(|layer| layer + shift).collect()
}

/// The last block of each quarter: 2 5 8 11 of twelve, 5 11 17 23 of twenty-four.
fn default_layers(depth: usize) -> Vec<usize> {
    let mut layers: Vec<usize> = (1..=4).map(|quarter| (quarter * depth / 4).max(1) - 1).collect();
    layers.dedup();
    layers
}

fn activation(
    architecture: &Architecture,
    known: Option<&Backbone>,
    config: &BackboneConfig,
) -> Activation {
    match config.activation {
        ActivationArg::Gelu => Activation::Gelu,
        ActivationArg::QuickGelu => Activation::QuickGelu,
        ActivationArg::Official => match known {
            Some(known) => known.default_activation(&config.pretrained, config.image_size),
            // Weights without a name of their own go by the same rule as their family.
            None => Backbone {
                name: "",
                family: architecture.family,
                width: architecture.width,
                depth: architecture.depth,
                patch: architecture.patch,
                native_size: architecture.native_size(),
                class_dim: architecture.class_dim,
                default_layers: &[],
                pretrained: &[],
            }
            .default_activation(&config.pretrained, config.image_size),
        },
    }
}

/// The activation's name, as the options spell it.
pub fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::QuickGelu => "quick_gelu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BackboneConfig {
        BackboneConfig {
            name: None,
            pretrained: "openai".into(),
            weights: None,
            activation: ActivationArg::Official,
            image_size: 448,
            layers: None,
            batch_size: 4,
            paper: false,
        }
    }

    fn message(config: &BackboneConfig) -> String {
        load(config).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn built_in_weights_have_name_and_layers() {
        let loaded = load(&config()).unwrap();
        assert_eq!(loaded.name, "dinov2_vits14");
        assert_eq!(loaded.extraction.layers, [2, 5, 8, 11]);
        assert_eq!(loaded.extraction.activation, Activation::Gelu);
        assert_eq!(loaded.sha256.len(), 64);
        assert_eq!(loaded.vit.architecture.family, Family::Dinov2);
    }

    #[test]
    fn default_layers_agree_with_the_registry() {
        for known in BACKBONES {
            assert_eq!(default_layers(known.depth), known.default_layers, "{}", known.name);
        }
        assert_eq!(default_layers(1), [0]);
        assert_eq!(default_layers(3), [0, 1, 2]);
    }

    #[test]
    fn paper_counts_the_layers_of_dino_from_the_wrong_end() {
        let blocks = |weights: &str, layers: &[usize], paper| {
            let file = format!("{}/tests/data/{weights}", env!("CARGO_MANIFEST_DIR"));
            let config = BackboneConfig {
                weights: Some(file.into()),
                layers: Some(layers.to_vec()),
                image_size: 112,
                paper,
                ..config()
            };
            let loaded = load(&config).unwrap();
            assert_eq!(loaded.layers, layers);
            loaded.extraction.layers
        };
        // Four blocks: the last three are taken, and 0, 2 index into blocks 1, 2, 3.
        assert_eq!(blocks("dino_tiny_weights.safetensors", &[0, 2], true), [1, 3]);
        assert_eq!(blocks("dino_tiny_weights.safetensors", &[0, 2], false), [0, 2]);
        assert_eq!(blocks("dino_tiny_weights.safetensors", &[1, 3], true), [1, 3]);
        for family in ["clip", "dinov2"] {
            assert_eq!(
                blocks(&format!("{family}_tiny_weights.safetensors"), &[0, 2], true),
                [0, 2]
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let size = message(&BackboneConfig { image_size: 500, ..config() });
        assert!(size.contains("490 or 504"), "{size}");
        assert!(message(&BackboneConfig { image_size: 13, ..config() }).contains("such as 14"));
        let layer = message(&BackboneConfig { layers: Some(vec![5, 12]), ..config() });
        assert!(layer.contains("found 12") && layer.contains("0 to 11"), "{layer}");
        assert!(
            message(&BackboneConfig { layers: Some(vec![5, 5]), ..config() }).contains("twice")
        );
        let name = |name: &str| BackboneConfig { name: Some(name.into()), ..config() };
        assert!(message(&name("ViT-X")).contains("dinov2_vits14"));
        assert!(message(&name("ViT-B-16-plus-240")).contains("laion400m_e31"));
    }
}
