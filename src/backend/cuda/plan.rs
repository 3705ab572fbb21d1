//! How much memory a run takes on a card, worked out before it is taken.

use super::launch::GRAM_STRIDE;
use super::launch::gemm::TILE;
use super::launch::patch_embed::row_width;
use crate::scoring::MutualScoring;
use crate::scoring::schedule::Schedule;
use crate::{Grid, Result};

/// The most images of A in a Gram block, where memory allows: twice as many pad less and fill a card's last round of blocks
/// better (modelled 2 % of a run), more only cost memory. The block leaves the cache anyway.
pub const MAX_GRAM_IMAGES: usize = 8;

/// The most images of A in a launch whose work grows with N, of `patch_distance` and `interval_mean`: with 2000 images of
/// ViT-L a T4 would take a second for all, and a watchdog of the display ends a launch after two.
pub const MAX_LAUNCH_IMAGES: usize = 64;

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
    /// H × W.
    pub grid: Grid,
}

impl BackboneSizes {
    /// L.
    pub fn patches(&self) -> usize {
        self.grid.patches()
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
        let pixels = patches * self.patch * self.patch;
        vec![
            ("pixels", 2 * bytes::<u8>(batch * pixels * 3)),
            ("patch rows", bytes::<u16>(batch * patches * row_width(self.patch))),
            ("residual stream", bytes::<f32>(tokens * d)),
            ("normalised rows", bytes::<u16>(tokens * d)),
            ("query, key, value", bytes::<u16>(tokens * 3 * d)),
            ("MLP", bytes::<u16>(tokens * self.mlp_width)),
            ("tokens on their way", 2 * bytes::<u16>(layers_to_host * batch * patches * d)),
        ]
    }
}

/// The images of one set, and where their tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSizes {
    /// Images.
    pub images: usize,
    /// The tokens are on the card already; else they come from the host in blocks.
    pub on_card: bool,
}

/// How the images of a chunk are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// A Gram block is stored and pooled for every degree.
    Gram,
    /// Degree 1 alone: maxima in the product itself, no Gram block.
    Fused,
    /// With a radius: unit tokens of every degree are stored and compared near each patch's place.
    Local,
}

/// What is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScoringSizes {
    /// N.
    pub queries: SetSizes,
    /// M; none where the queries see each other.
    pub references: Option<SetSizes>,
    /// L.
    pub patches: usize,
    /// C.
    pub width: usize,
    /// R.
    pub degrees: usize,
    /// How.
    pub route: Route,
}

/// How the scoring of a layer is cut to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScoringPlan {
    /// Queries with a row of keys at a time.
    pub group: usize,
    /// Images of A in a Gram block; of a product where none is stored.
    pub gram_images: usize,
    /// Queries and references of a block of tokens.
    pub blocks: (usize, usize),
    /// What it takes.
    pub parts: Vec<Part>,
}

impl ScoringSizes {
    /// The sizes for tokens of `width` numbers, padding included, on a grid.
    pub fn new(
        queries: SetSizes,
        references: Option<SetSizes>,
        (grid, width): (Grid, usize),
        scoring: &MutualScoring,
    ) -> Self {
        let mut degrees = scoring.degrees.clone();
        degrees.sort_unstable();
        degrees.dedup();
        let route = match local_radius(scoring, grid) {
            Some(_) => Route::Local,
            None if degrees == [1] => Route::Fused,
            None => Route::Gram,
        };
        ScoringSizes {
            queries,
            references,
            patches: grid.patches(),
            width,
            degrees: degrees.len(),
            route,
        }
    }

    /// N and M, where the queries see each other N twice.
    pub fn images(&self) -> (usize, usize) {
        (self.queries.images, self.references.unwrap_or(self.queries).images)
    }

    /// Images of B in a Gram block.
    pub fn gram_columns(&self) -> usize {
        (GRAM_STRIDE / self.patches.max(1)).clamp(1, self.images().1.max(1))
    }

    /// The order of the chunks, cut as the plan says.
    pub fn schedule(&self, plan: &ScoringPlan) -> Schedule {
        let (queries, references) = self.images();
        // With a radius a pair is worked out for each of its images.
        let whole = if self.references.is_none() && self.route != Route::Local {
            Schedule::others(queries)
        } else {
            Schedule::set(queries, references)
        };
        let pieces = match self.route {
            Route::Gram | Route::Fused => (plan.gram_images, self.gram_columns()),
            Route::Local => (TILE, TILE),
        };
        whole
            .in_groups(plan.group)
            .in_blocks(plan.blocks.0, plan.blocks.1)
            .in_pieces(pieces.0, pieces.1)
    }

    /// Places on the card for blocks of queries and of references that come from the host, where a block is not all: one
    /// for rows and two in turn for columns. Where the queries see each other they share them; unit tokens are made of a
    /// block at once, and two are enough.
    pub fn slots(&self) -> (usize, usize) {
        match (self.references, self.route) {
            (Some(_), _) => (1, 2),
            (None, Route::Local) => (2, 0),
            (None, _) => (3, 0),
        }
    }

    /// Runs of unit tokens of all degrees that are held, in blocks of `block` images.
    pub(super) fn unit_blocks(&self, block: usize) -> usize {
        match self.route {
            Route::Local if self.references.is_none() && block >= self.queries.images => 1,
            Route::Local => 2,
            Route::Gram | Route::Fused => 0,
        }
    }

    /// Images of a set's block: blocks are for tokens that come from the host, and for unit tokens.
    fn block_of(&self, set: SetSizes, block: usize) -> usize {
        let whole = set.on_card && self.route != Route::Local;
        if whole { set.images } else { block.min(set.images) }
    }

    /// Whether anything is held in blocks.
    fn in_blocks(&self) -> bool {
        let on_card = self.queries.on_card && self.references.is_none_or(|set| set.on_card);
        !on_card || self.route == Route::Local
    }

    fn parts(&self, (group, gram_images, block): (usize, usize, usize)) -> Vec<Part> {
        let (l, r) = (self.patches, self.degrees);
        let (n, m) = self.images();
        let known = n + self.references.map_or(0, |set| set.images);
        let gram = if self.route == Route::Gram { gram_images * l * GRAM_STRIDE } else { 0 };
        let images_in_slots = |set: SetSizes, slots: usize| {
            if set.on_card {
                0
            } else if block >= set.images {
                set.images
            } else {
                slots * block
            }
        };
        let slots = self.slots();
        let slots = images_in_slots(self.queries, slots.0)
            + self.references.map_or(0, |set| images_in_slots(set, slots.1));
        let units = match self.unit_blocks(block) {
            0 => 0,
            1 => block.min(n),
            _ => block.min(n) + block.min(m),
        };
        vec![
            ("norms and means", bytes::<f32>(known * l * (1 + r) + known)),
            ("ranks", bytes::<u32>(2 * n)),
            ("patch scores", bytes::<f32>(r * n * l)),
            ("table of largest cosines", bytes::<u32>(r * group * m * l)),
            ("Gram block", bytes::<f32>(gram)),
            ("blocks of tokens", bytes::<u16>(slots * l * self.width)),
            ("unit tokens", bytes::<u16>(r * units * l * self.width)),
        ]
    }

    /// The least that scoring can do with.
    pub fn least(&self) -> u64 {
        total(&self.parts((1, 1, 1)))
    }

    /// The plan within `available` bytes: the table as large as `scoring` allows, then the Gram block, then blocks of
    /// tokens. `None` when even the smallest does not fit.
    pub fn plan(&self, scoring: &MutualScoring, available: u64) -> Option<ScoringPlan> {
        let (n, m) = self.images();
        // As much as there is: `available` is the limit below.
        let wanted = scoring.group_images((n, m), self.patches, usize::MAX);
        let gram_wanted = match self.route {
            Route::Gram => MAX_GRAM_IMAGES.min(n),
            Route::Fused => MAX_LAUNCH_IMAGES.min(n),
            Route::Local => 1,
        };
        let fits = |group: usize, gram: usize, block: usize, bytes: u64| {
            total(&self.parts((group, gram, block))) <= bytes
        };
        if !fits(1, 1, 1, available) {
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
        // Where something is held in blocks the table leaves half for them, unless it is small anyway.
        let for_table = if self.in_blocks() { available.div_ceil(2) } else { available };
        let group = largest(wanted, &|group| fits(group, 1, 1, for_table));
        let gram = largest(gram_wanted, &|gram| fits(group, gram, 1, available));
        let all = n.max(m);
        let block = if fits(group, gram, all, available) {
            all
        } else {
            largest(all.saturating_sub(1), &|block| fits(group, gram, block, available))
        };
        let references = self.references.unwrap_or(self.queries);
        Some(ScoringPlan {
            group,
            gram_images: gram,
            blocks: (self.block_of(self.queries, block), self.block_of(references, block)),
            parts: self.parts((group, gram, block)),
        })
    }
}

/// The radius of a scoring, where it leaves out any patch of the grid.
pub(super) fn local_radius(scoring: &MutualScoring, grid: Grid) -> Option<usize> {
    scoring.radius.filter(|radius| radius.saturating_add(1) < grid.longest())
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
    let queries = SetSizes { images, on_card: true };
    let sizes = ScoringSizes::new(queries, None, (backbone.grid, backbone.width), scoring);
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

    const VIT_L: BackboneSizes = BackboneSizes {
        width: 1024,
        depth: 24,
        mlp_width: 4096,
        patch: 14,
        grid: Grid::square(37),
    };

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

    /// One set and two, tokens on the card and on the host, with and without a radius.
    fn all_sizes(scoring: &MutualScoring) -> Vec<ScoringSizes> {
        let set = |images, on_card| SetSizes { images, on_card };
        let mut sizes = Vec::new();
        for radius in [None, Some(3)] {
            for (queries, references) in [
                (set(50, true), None),
                (set(50, false), None),
                (set(50, true), Some(set(30, true))),
                (set(7, true), Some(set(50, false))),
                (set(50, false), Some(set(7, true))),
                (set(50, false), Some(set(30, false))),
            ] {
                let scoring = scoring.clone().with_radius(radius);
                let grid = (Grid::new(37, 37), 1024);
                sizes.push(ScoringSizes::new(queries, references, grid, &scoring));
            }
        }
        sizes
    }

    #[test]
    fn plan_fits_whatever_there_is_or_says_no() {
        let scoring = MutualScoring::default();
        for sizes in all_sizes(&scoring) {
            let (mut last, mut refused) = (0, 0);
            for mebibytes in [0, 20, 50, 60, 100, 200, 400, 1000, 4000] {
                let available = mebibytes << 20;
                match sizes.plan(&scoring, available) {
                    None => {
                        refused += 1;
                        assert!(available < sizes.least());
                    }
                    Some(plan) => {
                        assert!(total(&plan.parts) <= available, "{plan:?}");
                        assert!(plan.group >= last, "more memory, no smaller group");
                        last = plan.group;
                        let pairs = sizes.schedule(&plan).pairs();
                        let (n, m) = sizes.images();
                        let once = sizes.references.is_some() || sizes.route == Route::Local;
                        let least = if once { n * m } else { n * (n - 1) / 2 };
                        assert!(pairs >= least as u64, "{pairs} {sizes:?} {plan:?}");
                    }
                }
            }
            assert_eq!(last, sizes.queries.images, "{sizes:?}");
            assert!(refused > 0);
        }
    }

    #[test]
    fn a_radius_that_leaves_nothing_out_is_none() {
        let route = |degrees: &[usize], radius| {
            let scoring = MutualScoring::default().with_degrees(degrees).with_radius(radius);
            let queries = SetSizes { images: 5, on_card: true };
            ScoringSizes::new(queries, None, (Grid::new(4, 9), 128), &scoring).route
        };
        assert_eq!(route(&[1, 3], Some(8)), Route::Gram);
        assert_eq!(route(&[1, 1], Some(usize::MAX)), Route::Fused);
        assert_eq!(route(&[1], Some(7)), Route::Local);
        assert_eq!(route(&[3], Some(0)), Route::Local);
    }
}
