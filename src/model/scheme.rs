//! The naming schemes of weight files, as data: one table a scheme, read by one loader.

use super::registry::Family;

/// Who named the tensors of a file. The letters are those of `weights/README.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// A: open_clip and OpenAI's CLIP, the tensors of the image tower below `visual.`.
    OpenClip,
    /// B: the image tower of a CLIP model as timm names it.
    TimmClip,
    /// C: Hugging Face `CLIPModel`.
    HuggingFaceClip,
    /// D: DINO, as its authors and timm name it.
    Dino,
    /// E: DINOv2, as its authors and timm name it.
    Dinov2,
    /// F: Hugging Face `ViTModel`, for DINO.
    HuggingFaceVit,
    /// G: Hugging Face `Dinov2Model`.
    HuggingFaceDinov2,
}

/// The query, key and value projections in a file.
pub(super) enum Qkv {
    /// One tensor each for weight and bias, the three stacked: their names.
    Stacked { weight: &'static str, bias: &'static str },
    /// Three linear layers.
    Separate([&'static str; 3]),
}

/// CLIP's projection of the class token in a file.
pub(super) struct Projection {
    pub name: &'static str,
    /// Stored `[E, D]`, as a linear layer's weight, not `[D, E]`.
    pub transposed: bool,
    /// A bias that must hold zeros where it exists: the model has none, its container brings one.
    pub zero_bias: Option<&'static str>,
}

/// Where a scheme keeps each part. Norms and linear layers are named without `.weight` and `.bias`; the names
/// inside a block without the block's prefix.
pub(super) struct Naming {
    pub scheme: Scheme,
    pub family: Family,
    /// The tensor by which the scheme is told.
    pub test: &'static str,
    pub class_token: &'static str,
    pub position_embedding: &'static str,
    pub patch_weight: &'static str,
    pub patch_bias: Option<&'static str>,
    pub pre_norm: Option<&'static str>,
    pub final_norm: &'static str,
    pub projection: Option<Projection>,
    /// In front of a block's index; a dot follows the index.
    pub block: &'static str,
    pub norm1: &'static str,
    pub qkv: Qkv,
    pub out: &'static str,
    /// Full name: it is a vector, not a layer.
    pub scale1: Option<&'static str>,
    pub norm2: &'static str,
    pub fc1: &'static str,
    pub fc2: &'static str,
    pub scale2: Option<&'static str>,
    /// Tensors that may be there and are not needed: names, or prefixes that end in a dot.
    pub ignored: &'static [&'static str],
    /// If set, everything outside this prefix belongs to another part of the model and is ignored.
    pub tower: Option<&'static str>,
}

/// Prefixes that training wrappers put in front of all names; taken off one after another.
pub(super) const WRAPPERS: &[&str] =
    &["module.", "model.", "teacher.", "backbone.", "clip.", "vit.", "dinov2."];

/// Tensors of DINOv2 with registers, in the namings of its authors, timm and Hugging Face.
pub(super) const REGISTER_TOKENS: &[&str] =
    &["register_tokens", "reg_token", "embeddings.register_tokens"];

/// Names shared by facebook and timm, for schemes B, D and E.
const BLOCKS: Naming = Naming {
    scheme: Scheme::Dino,
    family: Family::Dino,
    test: "blocks.0.attn.qkv.weight",
    class_token: "cls_token",
    position_embedding: "pos_embed",
    patch_weight: "patch_embed.proj.weight",
    patch_bias: Some("patch_embed.proj.bias"),
    pre_norm: None,
    final_norm: "norm",
    projection: None,
    block: "blocks.",
    norm1: "norm1",
    qkv: Qkv::Stacked { weight: "attn.qkv.weight", bias: "attn.qkv.bias" },
    out: "attn.proj",
    scale1: None,
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    scale2: None,
    ignored: &["head."],
    tower: None,
};

/// All schemes, in the order in which a file is tested for them: D is what is left when B and E are not.
pub(super) const SCHEMES: &[Naming] = &[
    Naming {
        scheme: Scheme::OpenClip,
        family: Family::Clip,
        test: "visual.conv1.weight",
        class_token: "visual.class_embedding",
        position_embedding: "visual.positional_embedding",
        patch_weight: "visual.conv1.weight",
        patch_bias: None,
        pre_norm: Some("visual.ln_pre"),
        final_norm: "visual.ln_post",
        projection: Some(Projection { name: "visual.proj", transposed: false, zero_bias: None }),
        block: "visual.transformer.resblocks.",
        norm1: "ln_1",
        qkv: Qkv::Stacked { weight: "attn.in_proj_weight", bias: "attn.in_proj_bias" },
        out: "attn.out_proj",
        scale1: None,
        norm2: "ln_2",
        fc1: "mlp.c_fc",
        fc2: "mlp.c_proj",
        scale2: None,
        ignored: &[],
        tower: Some("visual."),
    },
    Naming {
        scheme: Scheme::TimmClip,
        family: Family::Clip,
        test: "norm_pre.weight",
        patch_bias: None,
        pre_norm: Some("norm_pre"),
        projection: Some(Projection {
            name: "head.weight",
            transposed: true,
            zero_bias: Some("head.bias"),
        }),
        ignored: &[],
        ..BLOCKS
    },
    Naming {
        scheme: Scheme::HuggingFaceClip,
        family: Family::Clip,
        test: "vision_model.embeddings.class_embedding",
        class_token: "vision_model.embeddings.class_embedding",
        position_embedding: "vision_model.embeddings.position_embedding.weight",
        patch_weight: "vision_model.embeddings.patch_embedding.weight",
        patch_bias: None,
        // Spelled like this in the files.
        pre_norm: Some("vision_model.pre_layrnorm"),
        final_norm: "vision_model.post_layernorm",
        projection: Some(Projection {
            name: "visual_projection.weight",
            transposed: true,
            zero_bias: None,
        }),
        block: "vision_model.encoder.layers.",
        norm1: "layer_norm1",
        qkv: Qkv::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        out: "self_attn.out_proj",
        scale1: None,
        norm2: "layer_norm2",
        fc1: "mlp.fc1",
        fc2: "mlp.fc2",
        scale2: None,
        ignored: &["vision_model.embeddings.position_ids"],
        tower: Some("vision_model."),
    },
    Naming {
        scheme: Scheme::Dinov2,
        family: Family::Dinov2,
        test: "blocks.0.ls1.gamma",
        scale1: Some("ls1.gamma"),
        scale2: Some("ls2.gamma"),
        ignored: &["head.", "mask_token"],
        ..BLOCKS
    },
    Naming {
        scheme: Scheme::HuggingFaceDinov2,
        family: Family::Dinov2,
        test: "encoder.layer.0.layer_scale1.lambda1",
        norm1: "norm1",
        scale1: Some("layer_scale1.lambda1"),
        norm2: "norm2",
        fc1: "mlp.fc1",
        fc2: "mlp.fc2",
        scale2: Some("layer_scale2.lambda1"),
        ignored: &["embeddings.mask_token", "classifier."],
        ..LAYERS
    },
    LAYERS,
    BLOCKS,
];

/// Names shared by Hugging Face's `ViTModel` and `Dinov2Model`, for schemes F and G.
const LAYERS: Naming = Naming {
    scheme: Scheme::HuggingFaceVit,
    family: Family::Dino,
    test: "encoder.layer.0.layernorm_before.weight",
    class_token: "embeddings.cls_token",
    position_embedding: "embeddings.position_embeddings",
    patch_weight: "embeddings.patch_embeddings.projection.weight",
    patch_bias: Some("embeddings.patch_embeddings.projection.bias"),
    pre_norm: None,
    final_norm: "layernorm",
    projection: None,
    block: "encoder.layer.",
    norm1: "layernorm_before",
    qkv: Qkv::Separate([
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ]),
    out: "attention.output.dense",
    scale1: None,
    norm2: "layernorm_after",
    fc1: "intermediate.dense",
    fc2: "output.dense",
    scale2: None,
    ignored: &["pooler.", "classifier.", "embeddings.mask_token"],
    tower: None,
};

impl Scheme {
    /// The scheme's letter in `weights/README.md`.
    pub fn letter(self) -> char {
        // The description begins with it.
        self.description().chars().next().unwrap_or('?')
    }

    /// The family that is named like this.
    pub fn family(self) -> Family {
        match self {
            Scheme::OpenClip | Scheme::TimmClip | Scheme::HuggingFaceClip => Family::Clip,
            Scheme::Dino | Scheme::HuggingFaceVit => Family::Dino,
            Scheme::Dinov2 | Scheme::HuggingFaceDinov2 => Family::Dinov2,
        }
    }

    /// The scheme's letter in `weights/README.md`, and whose naming it is.
    pub fn description(self) -> &'static str {
        match self {
            Scheme::OpenClip => "A, open_clip",
            Scheme::TimmClip => "B, timm CLIP image tower",
            Scheme::HuggingFaceClip => "C, Hugging Face CLIPModel",
            Scheme::Dino => "D, DINO",
            Scheme::Dinov2 => "E, DINOv2",
            Scheme::HuggingFaceVit => "F, Hugging Face ViTModel",
            Scheme::HuggingFaceDinov2 => "G, Hugging Face Dinov2Model",
        }
    }
}

impl Naming {
    /// True for a tensor that may be in the file without being used.
    pub fn ignores(&self, name: &str) -> bool {
        let outside = self.tower.is_some_and(|tower| !name.starts_with(tower));
        outside
            || self.ignored.iter().any(|&ignored| {
                name == ignored || ignored.ends_with('.') && name.starts_with(ignored)
            })
    }
}
