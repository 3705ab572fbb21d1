//! From a backbone's name or weights to what can be handed to a device, checked, with every default filled in.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::image::Filter;
use crate::model::{
    Activation, Architecture, BACKBONES, Backbone, Family, Vit, backbone, default_activation,
    locate, sha256_of_bytes, sha256_of_file,
};
use crate::{Error, ImageSize, Result};

/// Where a backbone's weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Weights {
    /// The file found for the backbone's name: `weights/NAME.safetensors` in the working folder, or the cache of the
    /// Hugging Face Hub ([`locate`]).
    #[default]
    Found,
    /// This safetensors file, in any of the accepted namings.
    File(PathBuf),
    /// A safetensors file that is part of the program.
    Static {
        /// What stands for it in messages and records.
        name: &'static str,
        /// Its bytes.
        bytes: &'static [u8],
    },
}

/// Which activation the backbone's MLPs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ActivationChoice {
    /// What the authors' program ends up with for this backbone, these weights and this size.
    #[default]
    Official,
    /// This one.
    Exactly(Activation),
}

/// What is asked of a backbone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its name; none means: whatever the weights are.
    pub name: Option<String>,
    /// The weights' training set.
    pub pretrained: String,
    /// Where they come from.
    pub weights: Weights,
    /// The MLPs' activation.
    pub activation: ActivationChoice,
    /// Feature layers; none means the backbone's own.
    pub layers: Option<Vec<usize>>,
    /// Feature layers of DINO as the authors' program indexes them.
    pub paper: bool,
}

/// A backbone that is ready to be handed to a device.
#[derive(Debug)]
pub struct LoadedBackbone {
    /// Its weights.
    pub(super) vit: Vit,
    name: String,
    source: String,
    file: Option<PathBuf>,
    /// The weights, where they are part of the program.
    bytes: &'static [u8],
    sha256: Mutex<Option<String>>,
    /// The feature layers as they were asked for.
    layers: Vec<usize>,
    /// The blocks that are read for them.
    pub(super) blocks: Vec<usize>,
    known: Option<&'static Backbone>,
    pretrained: String,
    activation: ActivationChoice,
}

impl LoadedBackbone {
    /// Its name, or the weight file's where no backbone known by name fits.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the weights came from: a path, or the name of bytes inside the program.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The weights' file, where they are in one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Its sizes.
    pub fn architecture(&self) -> &Architecture {
        &self.vit.architecture
    }

    /// The SHA-256 of the weights, hexadecimal; made when it is asked for first.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the weights' file cannot be read any more.
    pub fn weights_sha256(&self) -> Result<String> {
        // Whoever comes while it is made waits for it.
        let mut known = self.sha256.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref() {
            return Ok(known.clone());
        }
        let made = match &self.file {
            Some(file) => sha256_of_file(file)?,
            None => sha256_of_bytes(self.bytes),
        };
        Ok(known.insert(made).clone())
    }

    /// The weights' training set, where a backbone has several.
    pub fn pretrained(&self) -> &str {
        &self.pretrained
    }

    /// The activation of the MLPs as it was asked for.
    pub fn asked_activation(&self) -> ActivationChoice {
        self.activation
    }

    /// The feature layers as they were asked for: block indices, 0-based.
    pub fn layers(&self) -> &[usize] {
        &self.layers
    }

    /// The blocks whose output is read for the feature layers; others than the layers only with the authors' quirks.
    pub fn blocks_read(&self) -> &[usize] {
        &self.blocks
    }

    /// How images are resized for it.
    pub fn filter(&self) -> Filter {
        self.vit.architecture.family.filter()
    }

    /// The MLPs' activation at an input size.
    pub fn activation(&self, input: ImageSize) -> Activation {
        match (self.activation, self.known) {
            (ActivationChoice::Exactly(activation), _) => activation,
            (ActivationChoice::Official, Some(known)) => {
                known.default_activation(&self.pretrained, input)
            }
            // Weights without a name of their own go by the same rule as their family.
            (ActivationChoice::Official, None) => {
                let of = &self.vit.architecture;
                default_activation(of.family, of.native_size(), &self.pretrained, input)
            }
        }
    }
}

/// Finds, opens and checks the weights.
pub(super) fn load(asked: &Asked) -> Result<LoadedBackbone> {
    let named = asked.name.as_deref().map(backbone).transpose()?;
    if let Some(known) = named {
        locate::check_pretrained(known, &asked.pretrained)?;
    }
    let file = match (&asked.weights, named) {
        (Weights::File(file), _) => Some(file.clone()),
        (Weights::Static { .. }, _) => None,
        (Weights::Found, Some(known)) => Some(locate::find(known, &asked.pretrained)?.path),
        (Weights::Found, None) => {
            return Err(Error::invalid(
                "backbone",
                "neither a name nor weights",
                "a backbone's name, or weights",
            ));
        }
    };
    let (vit, source) = match (&file, &asked.weights) {
        (None, Weights::Static { name, bytes }) => {
            (Vit::from_static(&format!("{name} weights"), bytes)?, name.to_string())
        }
        (file, _) => {
            let file = file.clone().unwrap_or_default();
            (Vit::open(&file)?, file.display().to_string())
        }
    };
    if let Some(known) = named {
        vit.check_backbone(known)?;
    }
    let known = named.or_else(|| BACKBONES.iter().find(|known| vit.check_backbone(known).is_ok()));
    let of_file =
        file.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    let architecture = &vit.architecture;
    let layers = asked.layers.clone().unwrap_or_else(|| default_layers(architecture.depth));
    check_layers(architecture, &layers)?;
    let blocks = if asked.paper { paper_layers(architecture, &layers) } else { layers.clone() };
    Ok(LoadedBackbone {
        name: known
            .map(|known| known.name.to_string())
            .or(of_file)
            .unwrap_or_else(|| "backbone".into()),
        source,
        file,
        bytes: match asked.weights {
            Weights::Static { bytes, .. } => bytes,
            _ => &[],
        },
        sha256: Mutex::new(None),
        layers,
        blocks,
        known,
        pretrained: asked.pretrained.clone(),
        activation: asked.activation,
        vit,
    })
}

/// What a device cannot know: that each layer is named once, in the numbers the caller gave.
fn check_layers(architecture: &Architecture, layers: &[usize]) -> Result<()> {
    for (at, layer) in layers.iter().enumerate() {
        if *layer >= architecture.depth {
            let last = architecture.depth.saturating_sub(1);
            let expected = format!("block indices from 0 to {last}");
            return Err(Error::invalid("feature layers", layer, expected));
        }
        if layers[..at].contains(layer) {
            let found = format!("{layer} twice");
            return Err(Error::invalid("feature layers", found, "each block once"));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(weights: &str) -> Asked {
        let file = format!("{}/tests/data/{weights}", env!("CARGO_MANIFEST_DIR"));
        Asked {
            name: None,
            pretrained: "openai".into(),
            weights: Weights::File(file.into()),
            activation: ActivationChoice::Official,
            layers: None,
            paper: false,
        }
    }

    fn message(asked: &Asked) -> String {
        load(asked).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    #[cfg_attr(packaged, ignore = "a file that is in the repository only")]
    fn weights_of_one_s_own_have_a_name_and_layers() {
        let loaded = load(&asked("dinov2_tiny_weights.safetensors")).unwrap();
        assert_eq!(loaded.name(), "dinov2_tiny_weights");
        assert_eq!(loaded.layers(), [0, 1, 2, 3]);
        assert_eq!(loaded.activation(ImageSize::square(56)), Activation::Gelu);
        assert!(loaded.source().ends_with("dinov2_tiny_weights.safetensors"));
        let clip = load(&asked("clip_tiny_weights.safetensors")).unwrap();
        assert_eq!(clip.activation(ImageSize::square(56)), Activation::QuickGelu);
        assert_eq!(clip.activation(ImageSize::new(56, 70)), Activation::Gelu);
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
    #[cfg_attr(packaged, ignore = "a file that is in the repository only")]
    fn paper_counts_the_layers_of_dino_from_the_wrong_end() {
        let blocks = |weights: &str, layers: &[usize], paper| {
            let asked = Asked { layers: Some(layers.to_vec()), paper, ..asked(weights) };
            let loaded = load(&asked).unwrap();
            assert_eq!(loaded.layers(), layers);
            loaded.blocks_read().to_vec()
        };
        // Four blocks: the last three are taken, and 0, 2 index into blocks 1, 2, 3.
        assert_eq!(blocks("dino_tiny_weights.safetensors", &[0, 2], true), [1, 3]);
        assert_eq!(blocks("dino_tiny_weights.safetensors", &[0, 2], false), [0, 2]);
        assert_eq!(blocks("dino_tiny_weights.safetensors", &[1, 3], true), [1, 3]);
        for family in ["clip", "dinov2"] {
            let weights = format!("{family}_tiny_weights.safetensors");
            assert_eq!(blocks(&weights, &[0, 2], true), [0, 2]);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let tiny = || asked("dinov2_tiny_weights.safetensors");
        let layer = message(&Asked { layers: Some(vec![1, 12]), ..tiny() });
        assert!(layer.contains("found 12") && layer.contains("0 to 3"), "{layer}");
        assert!(message(&Asked { layers: Some(vec![1, 1]), ..tiny() }).contains("twice"));
        let name = |name: &str| Asked { name: Some(name.into()), ..tiny() };
        assert!(message(&name("ViT-X")).contains("dinov2_vits14"));
        assert!(message(&name("ViT-B-16-plus-240")).contains("laion400m_e31"));
        assert!(message(&name("dinov2_vits14")).contains("not the weights of dinov2_vits14"));
        let nothing = Asked { weights: Weights::Found, ..tiny() };
        assert!(message(&nothing).contains("backbone"));
    }
}
