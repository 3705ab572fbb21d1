//! The backbones that can be asked for by name, and what each one is.

use crate::image::{Filter, Normalisation};
use crate::{Error, ImageSize, Result};

/// The activation of a backbone's MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// x·Φ(x), with the error function.
    Gelu,
    /// x·σ(1.702·x).
    QuickGelu,
}

impl Activation {
    /// As open_clip's settings spell it: `gelu` or `quick_gelu`.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
        }
    }
}

/// What kind of vision transformer a backbone is. Its methods are all that the rest of the crate asks of it: preprocessing,
/// LayerNorm's epsilon, what becomes of the tokens, how the position embedding is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// The image tower of CLIP, as open_clip builds it.
    Clip,
    /// DINO.
    Dino,
    /// DINOv2 without register tokens.
    Dinov2,
}

impl Family {
    /// The family's name: `CLIP`, `DINO` or `DINOv2`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Clip => "CLIP",
            Family::Dino => "DINO",
            Family::Dinov2 => "DINOv2",
        }
    }

    /// The filter that resizes an image for this family.
    pub fn filter(self) -> Filter {
        match self {
            Family::Clip => Filter::Bicubic,
            Family::Dino | Family::Dinov2 => Filter::Bilinear,
        }
    }

    /// Mean and standard deviation of the input.
    pub fn normalisation(self) -> Normalisation {
        match self {
            Family::Clip => Normalisation::CLIP,
            Family::Dino | Family::Dinov2 => Normalisation::IMAGENET,
        }
    }

    /// The epsilon inside every LayerNorm. It belongs to the family: weight files do not carry it.
    pub fn layer_norm_eps(self) -> f32 {
        match self {
            Family::Clip => 1e-5,
            Family::Dino | Family::Dinov2 => 1e-6,
        }
    }

    /// Whether the patch tokens of a feature layer go through the final norm; else they are the block's output as it is.
    pub fn norms_patch_tokens(self) -> bool {
        match self {
            Family::Clip => false,
            Family::Dino | Family::Dinov2 => true,
        }
    }

    /// Whether class tokens are divided by their length.
    pub fn unit_class_tokens(self) -> bool {
        match self {
            Family::Clip => true,
            Family::Dino | Family::Dinov2 => false,
        }
    }

    /// What is added to the side of a grid before the position embedding is resized to it by the ratio of the sides.
    pub fn position_offset(self) -> f64 {
        match self {
            Family::Clip => 0.0,
            Family::Dino | Family::Dinov2 => 0.1,
        }
    }
}

/// A backbone that can be asked for by name. Heads are 64 wide and MLPs 4 times the width in all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backbone {
    /// The name the authors' program knows it by.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
    /// Width C of a token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Side P of a patch in pixels.
    pub patch: usize,
    /// Side of the image it was trained at, in pixels.
    pub native_size: usize,
    /// Width E of a class token: CLIP's projection, or the width.
    pub class_dim: usize,
    /// Feature layers when none are asked for: block indices, 0-based.
    pub default_layers: &'static [usize],
    /// The sets of weights the authors' program offers; empty where there is only one.
    pub pretrained: &'static [&'static str],
}

const LAYERS_OF_12: &[usize] = &[2, 5, 8, 11];
const LAYERS_OF_24: &[usize] = &[5, 11, 17, 23];
const OPENAI: &str = "openai";
const OPENAI_AND_LAION: &[&str] = &[OPENAI, "laion400m_e31", "laion400m_e32"];
const LAION: &[&str] = &["laion400m_e31", "laion400m_e32"];

const fn clip(
    name: &'static str,
    (width, depth, patch): (usize, usize, usize),
    native_size: usize,
    class_dim: usize,
    pretrained: &'static [&'static str],
) -> Backbone {
    let default_layers = if depth == 24 { LAYERS_OF_24 } else { LAYERS_OF_12 };
    let family = Family::Clip;
    Backbone {
        name,
        family,
        width,
        depth,
        patch,
        native_size,
        class_dim,
        default_layers,
        pretrained,
    }
}

const fn dino(
    name: &'static str,
    family: Family,
    (width, depth, patch): (usize, usize, usize),
    native_size: usize,
) -> Backbone {
    let default_layers = if depth == 24 { LAYERS_OF_24 } else { LAYERS_OF_12 };
    Backbone {
        name,
        family,
        width,
        depth,
        patch,
        native_size,
        class_dim: width,
        default_layers,
        pretrained: &[],
    }
}

/// Every backbone, in the order in which lists show them.
pub const BACKBONES: &[Backbone] = &[
    clip("ViT-B-32", (768, 12, 32), 224, 512, OPENAI_AND_LAION),
    clip("ViT-B-16", (768, 12, 16), 224, 512, OPENAI_AND_LAION),
    clip("ViT-B-16-plus-240", (896, 12, 16), 240, 640, LAION),
    clip("ViT-L-14", (1024, 24, 14), 224, 768, OPENAI_AND_LAION),
    clip("ViT-L-14-336", (1024, 24, 14), 336, 768, &[OPENAI]),
    dino("dino_vitbase8", Family::Dino, (768, 12, 8), 224),
    dino("dino_vitbase16", Family::Dino, (768, 12, 16), 224),
    dino("dinov2_vits14", Family::Dinov2, (384, 12, 14), 518),
    dino("dinov2_vitb14", Family::Dinov2, (768, 12, 14), 518),
    dino("dinov2_vitl14", Family::Dinov2, (1024, 24, 14), 518),
];

/// The backbone of this name.
///
/// ```
/// let backbone = musc::model::backbone("dinov2_vits14")?;
/// assert_eq!((backbone.width, backbone.patch), (384, 14));
/// # Ok::<(), musc::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] with the list of all names when there is none of this name.
pub fn backbone(name: &str) -> Result<&'static Backbone> {
    BACKBONES.iter().find(|backbone| backbone.name == name).ok_or_else(|| {
        let names: Vec<_> = BACKBONES.iter().map(|backbone| backbone.name).collect();
        Error::invalid("backbone", name, format!("one of {}", names.join(", ")))
    })
}

impl Backbone {
    /// The filter that resizes an image.
    pub fn filter(&self) -> Filter {
        self.family.filter()
    }

    /// Mean and standard deviation of the input.
    pub fn normalisation(&self) -> Normalisation {
        self.family.normalisation()
    }

    /// The epsilon inside every LayerNorm.
    pub fn layer_norm_eps(&self) -> f32 {
        self.family.layer_norm_eps()
    }

    /// Patches along a side at the size it was trained at.
    pub fn native_grid(&self) -> usize {
        self.native_size / self.patch
    }

    /// The activation the authors' program ends up with, see [`default_activation`].
    pub fn default_activation(&self, pretrained: &str, input: ImageSize) -> Activation {
        default_activation(self.family, self.native_size, pretrained, input)
    }
}

/// The activation the authors' program ends up with: QuickGELU for `openai` weights of CLIP at the native size, erf-GELU
/// everywhere else. (At any other size their program builds the network anew, without the setting; the published figures
/// come from that.)
pub fn default_activation(
    family: Family,
    native_size: usize,
    pretrained: &str,
    input: ImageSize,
) -> Activation {
    let as_trained = pretrained == OPENAI && input.side() == Some(native_size);
    if family == Family::Clip && as_trained { Activation::QuickGelu } else { Activation::Gelu }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backbone_is_consistent() {
        for each in BACKBONES {
            assert_eq!(backbone(each.name).unwrap(), each);
            assert_eq!(each.width % 64, 0, "{}", each.name);
            assert_eq!(each.native_size % each.patch, 0, "{}", each.name);
            assert_eq!(each.default_layers.len(), 4, "{}", each.name);
            assert_eq!(each.default_layers.last(), Some(&(each.depth - 1)), "{}", each.name);
            assert_eq!(each.pretrained.is_empty(), each.family != Family::Clip, "{}", each.name);
            assert!(each.family == Family::Clip || each.class_dim == each.width, "{}", each.name);
        }
        let mut names: Vec<_> = BACKBONES.iter().map(|each| each.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BACKBONES.len());
    }

    #[test]
    fn an_unknown_name_lists_all_names() {
        let message = backbone("resnet50").unwrap_err().to_string();
        assert!(
            message.starts_with("backbone: found resnet50, expected one of ViT-B-32, "),
            "{message}"
        );
        assert!(BACKBONES.iter().all(|each| message.contains(each.name)), "{message}");
    }

    #[test]
    fn quick_gelu_is_for_openai_weights_at_their_own_size() {
        let large = backbone("ViT-L-14-336").unwrap();
        assert_eq!(
            large.default_activation("openai", ImageSize::square(336)),
            Activation::QuickGelu
        );
        assert_eq!(large.default_activation("openai", ImageSize::square(518)), Activation::Gelu);
        let base = backbone("ViT-B-16").unwrap();
        assert_eq!(
            base.default_activation("openai", ImageSize::square(224)),
            Activation::QuickGelu
        );
        assert_eq!(
            base.default_activation("laion400m_e32", ImageSize::square(224)),
            Activation::Gelu
        );
        let dino = backbone("dinov2_vits14").unwrap();
        assert_eq!(dino.default_activation("openai", ImageSize::square(518)), Activation::Gelu);
    }

    #[test]
    fn families_differ_in_what_goes_in() {
        let clip = backbone("ViT-B-32").unwrap();
        assert_eq!((clip.filter(), clip.layer_norm_eps()), (Filter::Bicubic, 1e-5));
        assert_eq!(clip.normalisation(), Normalisation::CLIP);
        let dino = backbone("dino_vitbase8").unwrap();
        assert_eq!((dino.filter(), dino.layer_norm_eps()), (Filter::Bilinear, 1e-6));
        assert_eq!(dino.normalisation(), Normalisation::IMAGENET);
        assert_eq!(dino.native_grid(), 28);
    }
}
