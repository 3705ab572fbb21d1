//! A vision transformer's weights in the one form that backends read, whatever file they came from.

use std::path::Path;

use super::load;
use super::registry::{BACKBONES, Backbone, Family};
use super::scheme::Scheme;
use super::tensor::Tensor;
use super::weight_file::WeightFile;
use crate::{Error, Result};

/// Width of an attention head. Every backbone here has it; weight files do not say it.
pub(super) const HEAD_WIDTH: usize = 64;

/// The sizes of a vision transformer, read off its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Its family, from the naming of the tensors.
    pub family: Family,
    /// Width D of a token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads, each 64 wide.
    pub heads: usize,
    /// Side P of a patch in pixels.
    pub patch: usize,
    /// Side G of the patch grid the position embedding is stored for.
    pub native_grid: usize,
    /// Width M between the two linear layers of an MLP.
    pub mlp_width: usize,
    /// Width E of a class token: D, or what CLIP projects to.
    pub class_dim: usize,
    /// The epsilon inside every LayerNorm.
    pub layer_norm_eps: f32,
}

impl Architecture {
    /// Side of the square input, in pixels, that the position embedding is stored for.
    pub fn native_size(&self) -> usize {
        self.native_grid.saturating_mul(self.patch)
    }
}

/// A linear layer, y = W·x + b.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Tensor,
}

/// A LayerNorm.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[D]`.
    pub weight: Tensor,
    /// `[D]`.
    pub bias: Tensor,
}

/// One block: x += scale1·out(attention(norm1(x))), x += scale2·fc2(activation(fc1(norm2(x)))).
#[derive(Debug, Clone)]
pub struct Block {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// `[3D, D]`: query, key and value in that order, the heads one after another inside each.
    pub qkv: Linear,
    /// `[D, D]`, after the heads are joined.
    pub out: Linear,
    /// LayerScale of the attention `[D]`, in DINOv2.
    pub scale1: Option<Tensor>,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// `[M, D]`.
    pub fc1: Linear,
    /// `[D, M]`.
    pub fc2: Linear,
    /// LayerScale of the MLP `[D]`, in DINOv2.
    pub scale2: Option<Tensor>,
}

/// A vision transformer's weights. Shapes agree with each other and values are finite, or there is no `Vit`.
#[derive(Debug, Clone)]
pub struct Vit {
    /// The sizes.
    pub architecture: Architecture,
    /// The patch convolution `[D, 3, P, P]`, stride P.
    pub patch_weight: Tensor,
    /// `[D]`; CLIP has none.
    pub patch_bias: Option<Tensor>,
    /// `[D]`.
    pub class_token: Tensor,
    /// `[1 + G·G, D]`: the class token's row, then the grid's rows from top to bottom.
    pub position_embedding: Tensor,
    /// Before the first block, in CLIP.
    pub pre_norm: Option<LayerNorm>,
    /// From the first to the last.
    pub blocks: Vec<Block>,
    /// The norm after the last block; CLIP's `ln_post`, for class tokens only.
    pub final_norm: LayerNorm,
    /// CLIP's projection of the class token `[D, E]`, applied as x·projection.
    pub projection: Option<Tensor>,
    pub(super) scheme: Scheme,
    pub(super) source: String,
}

impl Vit {
    /// Opens a `.safetensors` file in any of the accepted namings. The data stay in the mapped file, except
    /// what has to be stacked or transposed.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read. [`Error::Weights`] when it is no safetensors file, is cut
    /// short, has names of no known scheme, or lists every tensor that is missing, in excess, misshapen or of
    /// a type that is not F32, F16 or BF16; or every tensor with a value that is not finite.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_file(&WeightFile::open(path)?)
    }

    /// As [`Vit::open`], for a file that is part of the program. `name` stands for it in messages.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`Vit::open`].
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::from_file(&WeightFile::from_static(name, bytes)?)
    }

    /// As [`Vit::open`], for a file whose header is already read.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`Vit::open`].
    pub fn from_file(file: &WeightFile) -> Result<Self> {
        load::load(file)
    }

    /// The file's path, or the name given for bytes.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The naming scheme of the file.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Checks that these are the weights of the named backbone, as far as sizes tell.
    ///
    /// # Errors
    /// [`Error::Weights`] with what was found, what was expected, and which backbones would fit.
    pub fn check_backbone(&self, backbone: &Backbone) -> Result<()> {
        let found = Sizes::of_architecture(&self.architecture);
        let expected = Sizes::of_backbone(backbone);
        if found == expected {
            return Ok(());
        }
        let fitting: Vec<_> = BACKBONES
            .iter()
            .filter(|other| Sizes::of_backbone(other) == found)
            .map(|other| other.name)
            .collect();
        let advice = match fitting.as_slice() {
            [] => String::from("no backbone known by name fits"),
            names => format!("they fit {}", names.join(", ")),
        };
        let name = backbone.name;
        let problem = format!(
            "not the weights of {name}: found {}, expected {}; {advice}",
            found.describe(),
            expected.describe()
        );
        Err(Error::Weights { file: self.source.clone(), problems: vec![problem] })
    }

    /// Number of values in all tensors.
    pub fn parameter_count(&self) -> usize {
        let norm = |norm: &LayerNorm| norm.weight.elements() + norm.bias.elements();
        let linear = |layer: &Linear| layer.weight.elements() + layer.bias.elements();
        let optional = |tensor: &Option<Tensor>| tensor.as_ref().map_or(0, Tensor::elements);
        let block = |block: &Block| {
            norm(&block.norm1)
                + linear(&block.qkv)
                + linear(&block.out)
                + optional(&block.scale1)
                + norm(&block.norm2)
                + linear(&block.fc1)
                + linear(&block.fc2)
                + optional(&block.scale2)
        };
        self.patch_weight.elements()
            + optional(&self.patch_bias)
            + self.class_token.elements()
            + self.position_embedding.elements()
            + self.pre_norm.as_ref().map_or(0, norm)
            + self.blocks.iter().map(block).sum::<usize>()
            + norm(&self.final_norm)
            + optional(&self.projection)
    }
}

/// What tells one backbone from another.
#[derive(PartialEq)]
struct Sizes {
    family: Family,
    width: usize,
    depth: usize,
    patch: usize,
    native_size: usize,
    mlp_width: usize,
    class_dim: usize,
}

impl Sizes {
    fn of_architecture(found: &Architecture) -> Self {
        Self {
            family: found.family,
            width: found.width,
            depth: found.depth,
            patch: found.patch,
            native_size: found.native_size(),
            mlp_width: found.mlp_width,
            class_dim: found.class_dim,
        }
    }

    fn of_backbone(backbone: &Backbone) -> Self {
        Self {
            family: backbone.family,
            width: backbone.width,
            depth: backbone.depth,
            patch: backbone.patch,
            native_size: backbone.native_size,
            mlp_width: 4 * backbone.width,
            class_dim: backbone.class_dim,
        }
    }

    fn describe(&self) -> String {
        format!(
            "{}, width {}, depth {}, patch {}, native size {}, MLP width {}, class token width {}",
            self.family.name(),
            self.width,
            self.depth,
            self.patch,
            self.native_size,
            self.mlp_width,
            self.class_dim
        )
    }
}
