//! The constants of normalisation.

use super::Normalisation;

impl Normalisation {
    /// OpenAI's CLIP.
    pub const CLIP: Self = Self {
        mean: [0.48145466, 0.4578275, 0.40821073],
        std: [0.26862954, 0.261_302_6, 0.275_777_1],
    };
    /// ImageNet: DINO and DINOv2.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
}
