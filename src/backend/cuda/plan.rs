//! How much memory a run takes on a card, worked out before it is taken.

use super::launch::GRAM_STRIDE;
use super::launch::patch_embed::row_width;
use crate::Result;
use crate::scoring::MutualScoring;

/// The most images of A in a Gram block: more than a few pad no less, and the block leaves the cache anyway.
pub const MAX_GRAM_IMAGES: usize = 4;
/// Share of what is left that blocks of tokens from the host get, when the table of keys could take it all.
const TOKENS_SHARE: u64 = 2;

/// Tokens of a batch that a card chooses itself: enough tiles for a last round of blocks that counts for little on the
/// largest card (22,000 tokens of width 1024 are 1376 tiles of a product, 5.2 rounds of an H100), for half a gigabyte.
pub const BATCH_TOKENS: usize = 22_000;
/// The most images of such a batch.
pub const MAX_BATCH: usize = 64;

/// A part of a plan: what it is for and its bytes.
pub type Part = (&'static str, u64);

fn bytes<T>(values: usize) -> u64 {
    values as u64 * size_of::<T>() as u64
}

/// The bytes of a plan.
pub fn total(parts: &[Part]) -> u64 {
    parts.iter().map(|(_, bytes)| bytes).sum()
}

/// The sizes of a backbone at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackboneSizes {
    /// D.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// M.
    pub mlp_width: usize,
    /// P.
    pub patch: usize,
    /// H.
    pub grid: usize,
}

impl BackboneSizes {
    /// L.
    pub fn patches(&self) -> usize {
        self.grid * self.grid
    }

    /// The weights, the matrices in 16 bits.
    pub fn weights(&self) -> u64 {
        let (d, m) = (self.width, self.mlp_width);
        let block = bytes::<u16>(4 * d * d + 2 * d * m) + bytes::<f32>(11 * d + m);
        bytes::<u16>(d * row_width(self.patch))
            + bytes::<f32>((1 + self.patches()) * d)
            + self.depth as u64 * block
    }

    /// Images of a batch, where it is left to the card and memory is no matter.
    pub fn batch(&self) -> usize {
        (BATCH_TOKENS / (self.patches() + 1)).clamp(1, MAX_BATCH)
    }

    /// Images of a batch, where it is left to the card and the workspace has so many bytes.
    pub fn batch_within(&self, layers_to_host: usize, available: u64) -> usize {
        let mut batch = self.batch();
        while batch > 1 && total(&self.workspace(batch, layers_to_host)) > available {
            batch /= 2;
        }
        batch
    }

    /// What a batch of `batch` images needs beside the weights; with tokens that go to the host, `layers` layers of them
    /// twice over.
    pub fn workspace(&self, batch: usize, layers_to_host: usize) -> Vec<Part> {
        let (d, patches) = (self.width, self.patches());
        let tokens = batch * (patches + 1);
        let side = self.grid * self.patch;
        vec![
            ("pixels", 2 * bytes::<u8>(batch * side * side * 3)),
            ("patch rows", bytes::<u16>(batch * patches * row_width(self.patch))),
            ("residual stream", bytes::<f32>(tokens * d)),
            ("normalised rows", bytes::<u16>(tokens * d)),
            ("query, key, value", bytes::<u16>(tokens * 3 * d)),
            ("MLP", bytes::<u16>(tokens * self.mlp_width)),
            ("tokens on their way", 2 * bytes::<u16>(layers_to_host * batch * patches * d)),
        ]
    }
}

/// What is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoringSizes {
    /// N.
    pub images: usize,
    /// L.
    pub patches: usize,
    /// C.
    pub width: usize,
    /// R.
    pub degrees: usize,
    /// Only degree 1: no Gram block is stored.
    pub fused: bool,
    /// The tokens are on the card already.
    pub on_card: bool,
}

/// How the scoring of a layer is cut to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoringPlan {
    /// Images with a row of keys at a time.
    pub group: usize,
    /// Images of A in a Gram block; of a product where none is stored.
    pub gram_images: usize,
    /// Images of a block of tokens.
    pub block: usize,
    /// What it takes.
    pub parts: Vec<Part>,
}

impl ScoringSizes {
    /// Images of B in a Gram block.
    pub fn gram_columns(&self) -> usize {
        (GRAM_STRIDE / self.patches.max(1)).clamp(1, self.images.max(1))
    }

    fn parts(&self, plan: (usize, usize, usize)) -> Vec<Part> {
        let (group, gram_images, block) = plan;
        let (n, l, r) = (self.images, self.patches, self.degrees);
        let gram = if self.fused { 0 } else { gram_images * l * GRAM_STRIDE };
        let slots = match () {
            () if self.on_card => 0,
            () if block >= n => 1,
            () => super::features::SLOTS,
        };
        vec![
            ("norms and means", bytes::<f32>(n * l * (1 + r) + n)),
            ("ranks", bytes::<u32>(2 * n)),
            ("patch scores", bytes::<f32>(r * n * l)),
            ("table of largest cosines", bytes::<u32>(r * group * n * l)),
            ("Gram block", bytes::<f32>(gram)),
            ("blocks of tokens", slots as u64 * bytes::<u16>(block * l * self.width)),
        ]
    }

    /// The least that scoring can do with.
    pub fn least(&self) -> u64 {
        total(&self.parts((1, 1, if self.on_card { self.images } else { 1 })))
    }

    /// The plan within `available` bytes: the table as large as `scoring` allows, then the Gram block, then blocks of
    /// tokens. `None` when even the smallest does not fit.
    pub fn plan(&self, scoring: &MutualScoring, available: u64) -> Option<ScoringPlan> {
        // As much as there is: `available` is the limit below.
        let wanted = scoring.group_images((self.images, self.images), self.patches, usize::MAX);
        let gram_wanted = if self.fused { self.images } else { MAX_GRAM_IMAGES.min(self.images) };
        let smallest = if self.on_card { self.images } else { 1 };
        if total(&self.parts((1, 1, smallest))) > available {
            return None;
        }
        // The largest value for which the plan still fits; 1 does.
        let largest = |most: usize, fits: &dyn Fn(usize) -> bool| {
            let (mut low, mut high) = (1, most.max(1));
            while low < high {
                let middle = (low + high).div_ceil(2);
                if fits(middle) { low = middle } else { high = middle - 1 }
            }
            low
        };
        // With tokens on the host the table leaves a share for them, unless it is small anyway.
        let for_table = if self.on_card { available } else { available - available / TOKENS_SHARE };
        let group = largest(wanted, &|group| total(&self.parts((group, 1, smallest))) <= for_table);
        let gram =
            largest(gram_wanted, &|gram| total(&self.parts((group, gram, smallest))) <= available);
        let all = total(&self.parts((group, gram, self.images))) <= available;
        let block = if self.on_card || all {
            self.images
        } else {
            largest(self.images - 1, &|block| total(&self.parts((group, gram, block))) <= available)
        };
        Some(ScoringPlan {
            group,
            gram_images: gram,
            block,
            parts: self.parts((group, gram, block)),
        })
    }
}

/// The whole of a run on one card at its fullest: weights, tokens, and the larger of extraction and scoring.
///
/// # Errors
/// [`crate::Error::Invalid`] when nothing fits `available`.
pub fn whole_run(
    backbone: &BackboneSizes,
    (images, layers, batch): (usize, usize, usize),
    scoring: &MutualScoring,
    available: u64,
) -> Result<Vec<Part>> {
    let patches = backbone.patches();
    let sizes = ScoringSizes {
        images,
        patches,
        width: backbone.width,
        degrees: scoring.degrees.len(),
        fused: scoring.degrees == [1],
        on_card: true,
    };
    let weights = backbone.weights();
    let tokens = bytes::<u16>(layers * images * patches * backbone.width);
    let workspace = backbone.workspace(batch, 0);
    let left = available.saturating_sub(weights + tokens);
    let plan = sizes.plan(scoring, left).ok_or_else(|| {
        crate::Error::invalid(
            "memory of the card",
            format!("{available} bytes"),
            format!("at least {}", weights + tokens + sizes.least()),
        )
    })?;
    let mut parts = vec![("weights", weights), ("tokens", tokens)];
    parts.extend(if total(&workspace) > total(&plan.parts) { workspace } else { plan.parts });
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIT_L: BackboneSizes =
        BackboneSizes { width: 1024, depth: 24, mlp_width: 4096, patch: 14, grid: 37 };

    #[test]
    fn vit_l_with_200_images_stays_below_4_5_gigabytes() {
        let parts = whole_run(&VIT_L, (200, 4, VIT_L.batch()), &MutualScoring::default(), 80 << 30)
            .unwrap();
        let bytes = total(&parts);
        assert!(bytes < 4_500_000_000, "{bytes} bytes: {parts:?}");
    }

    #[test]
    fn batches_fill_a_card_and_shrink_with_its_memory() {
        assert_eq!(VIT_L.batch(), 16);
        assert_eq!(VIT_L.batch_within(0, 80 << 30), 16);
        let four = total(&VIT_L.workspace(4, 0));
        assert_eq!(VIT_L.batch_within(0, four), 4);
        assert_eq!(VIT_L.batch_within(4, four), 2);
        assert_eq!(VIT_L.batch_within(0, 0), 1);
    }

    #[test]
    fn plan_fits_whatever_there_is_or_says_no() {
        let scoring = MutualScoring::default();
        for on_card in [true, false] {
            let sizes = ScoringSizes {
                images: 50,
                patches: 1369,
                width: 1024,
                degrees: 3,
                fused: false,
                on_card,
            };
            let mut last = 0;
            for mebibytes in [0, 20, 50, 60, 100, 200, 400, 1000, 4000] {
                let available = mebibytes << 20;
                match sizes.plan(&scoring, available) {
                    None => assert!(available < sizes.least()),
                    Some(plan) => {
                        assert!(total(&plan.parts) <= available, "{plan:?}");
                        assert!(plan.group >= last, "more memory, no smaller group");
                        last = plan.group;
                    }
                }
            }
            assert_eq!(last, 50);
        }
    }
}
