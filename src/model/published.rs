//! Where weights are published: the one table behind `musc-run weights`, the search of the local cache and
//! `weights/README.md`.

use super::scheme::Scheme;

/// A file on the Hugging Face Hub with the weights of a backbone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The backbone's name.
    pub backbone: &'static str,
    /// The set of weights; empty where the backbone has only one.
    pub pretrained: &'static str,
    /// `organisation/name`.
    pub repository: &'static str,
    /// The file in the repository.
    pub file: &'static str,
    /// The naming of its tensors.
    pub scheme: Scheme,
    /// Size in MB (10^6 bytes), where it is known.
    pub megabytes: Option<u32>,
    /// The licence of the weights.
    pub licence: &'static str,
}

/// The file name of every repository but open_clip's.
const MODEL: &str = "model.safetensors";
/// The file name of open_clip's.
const OPEN_CLIP: &str = "open_clip_model.safetensors";

const fn row(
    (backbone, pretrained): (&'static str, &'static str),
    repository: &'static str,
    scheme: Scheme,
    megabytes: Option<u32>,
) -> Published {
    let file = if matches!(scheme, Scheme::OpenClip) { OPEN_CLIP } else { MODEL };
    let clip = matches!(scheme, Scheme::OpenClip | Scheme::TimmClip | Scheme::HuggingFaceClip);
    let licence = if clip { "MIT" } else { "Apache-2.0" };
    Published { backbone, pretrained, repository, file, scheme, megabytes, licence }
}

/// Every published file that is known, backbone by backbone in the order of [`BACKBONES`](super::BACKBONES); of the files of
/// one set of weights, the first is the one to download.
pub const PUBLISHED: &[Published] = {
    use Scheme::{
        Dino, Dinov2, HuggingFaceClip, HuggingFaceDinov2, HuggingFaceVit, OpenClip, TimmClip,
    };
    const OPENAI: &str = "openai";
    const E31: &str = "laion400m_e31";
    const E32: &str = "laion400m_e32";
    const B32: &str = "ViT-B-32";
    const B16: &str = "ViT-B-16";
    const PLUS: &str = "ViT-B-16-plus-240";
    const L14: &str = "ViT-L-14";
    const L336: &str = "ViT-L-14-336";
    &[
        row((B32, OPENAI), "timm/vit_base_patch32_clip_224.openai", OpenClip, Some(605)),
        row((B32, OPENAI), "openai/clip-vit-base-patch32", HuggingFaceClip, None),
        row((B32, E31), "timm/vit_base_patch32_clip_224.laion400m_e31", OpenClip, None),
        row((B32, E32), "timm/vit_base_patch32_clip_224.laion400m_e32", OpenClip, None),
        row((B32, E32), "timm/vit_base_patch32_clip_224.laion400m_e32", TimmClip, None),
        row((B16, OPENAI), "timm/vit_base_patch16_clip_224.openai", OpenClip, None),
        row((B16, OPENAI), "openai/clip-vit-base-patch16", HuggingFaceClip, None),
        row((B16, E31), "timm/vit_base_patch16_clip_224.laion400m_e31", OpenClip, None),
        row((B16, E32), "timm/vit_base_patch16_clip_224.laion400m_e32", OpenClip, None),
        row((B16, E32), "timm/vit_base_patch16_clip_224.laion400m_e32", TimmClip, None),
        row((PLUS, E31), "timm/vit_base_patch16_plus_clip_240.laion400m_e31", OpenClip, None),
        row((PLUS, E32), "timm/vit_base_patch16_plus_clip_240.laion400m_e32", OpenClip, None),
        row((PLUS, E32), "timm/vit_base_patch16_plus_clip_240.laion400m_e32", TimmClip, None),
        row((L14, OPENAI), "timm/vit_large_patch14_clip_224.openai", OpenClip, None),
        row((L14, OPENAI), "openai/clip-vit-large-patch14", HuggingFaceClip, None),
        row((L14, E31), "timm/vit_large_patch14_clip_224.laion400m_e31", OpenClip, None),
        row((L14, E32), "timm/vit_large_patch14_clip_224.laion400m_e32", OpenClip, None),
        row((L14, E32), "timm/vit_large_patch14_clip_224.laion400m_e32", TimmClip, None),
        row((L336, OPENAI), "timm/vit_large_patch14_clip_336.openai", OpenClip, None),
        row((L336, OPENAI), "openai/clip-vit-large-patch14-336", HuggingFaceClip, None),
        row(("dino_vitbase8", ""), "timm/vit_base_patch8_224.dino", Dino, None),
        row(("dino_vitbase8", ""), "facebook/dino-vitb8", HuggingFaceVit, Some(343)),
        row(("dino_vitbase16", ""), "timm/vit_base_patch16_224.dino", Dino, None),
        row(("dino_vitbase16", ""), "facebook/dino-vitb16", HuggingFaceVit, None),
        row(("dinov2_vits14", ""), "timm/vit_small_patch14_dinov2.lvd142m", Dinov2, None),
        row(("dinov2_vits14", ""), "facebook/dinov2-small", HuggingFaceDinov2, None),
        row(("dinov2_vitb14", ""), "timm/vit_base_patch14_dinov2.lvd142m", Dinov2, Some(346)),
        row(("dinov2_vitb14", ""), "facebook/dinov2-base", HuggingFaceDinov2, Some(346)),
        row(("dinov2_vitl14", ""), "timm/vit_large_patch14_dinov2.lvd142m", Dinov2, None),
        row(("dinov2_vitl14", ""), "facebook/dinov2-large", HuggingFaceDinov2, Some(1220)),
    ]
};

impl Published {
    /// The files of one set of weights, the one to download first.
    pub fn of(backbone: &str, pretrained: &str) -> impl Iterator<Item = &'static Published> {
        let same = move |row: &&Published| {
            row.backbone == backbone && (row.pretrained.is_empty() || row.pretrained == pretrained)
        };
        PUBLISHED.iter().filter(same)
    }

    /// The PyTorch file that the same repository carries, for when its safetensors file is not there.
    pub fn pytorch_file(&self) -> &'static str {
        match self.scheme {
            Scheme::OpenClip => "open_clip_pytorch_model.bin",
            _ => "pytorch_model.bin",
        }
    }

    /// The size as people read it: `605 MB`, or a dash.
    pub fn size(&self) -> String {
        self.megabytes.map_or_else(|| "–".into(), |megabytes| format!("{megabytes} MB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BACKBONES, backbone};

    #[test]
    fn every_set_of_weights_of_every_backbone_is_published() {
        for known in BACKBONES {
            let sets = if known.pretrained.is_empty() { &[""] } else { known.pretrained };
            for set in sets {
                assert!(Published::of(known.name, set).next().is_some(), "{} {set}", known.name);
            }
        }
    }

    #[test]
    fn rows_are_consistent_and_in_the_order_of_the_backbones() {
        let order = |name: &str| BACKBONES.iter().position(|known| known.name == name);
        for pair in PUBLISHED.windows(2) {
            assert!(order(pair[0].backbone) <= order(pair[1].backbone), "{pair:?}");
            assert_ne!(pair[0], pair[1]);
        }
        for row in PUBLISHED {
            let known = backbone(row.backbone).unwrap();
            assert_eq!(known.pretrained.is_empty(), row.pretrained.is_empty(), "{row:?}");
            assert!(row.pretrained.is_empty() || known.pretrained.contains(&row.pretrained));
            assert_eq!(row.repository.split('/').count(), 2, "{row:?}");
            assert_eq!(row.scheme.family(), known.family, "{row:?}");
        }
    }

    #[test]
    fn every_row_stands_in_the_readme() {
        let readme = include_str!("../../weights/README.md");
        for row in PUBLISHED {
            let line = format!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.backbone,
                row.pretrained,
                row.repository,
                row.scheme.letter(),
                row.file,
                row.size(),
                row.licence
            )
            .replace("|  |", "| |");
            assert!(readme.contains(&line), "{line}");
        }
    }
}
