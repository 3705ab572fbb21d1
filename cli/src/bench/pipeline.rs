//! What the runtime launches for N images, in its order: the list that is summed for a whole run.
//!
//! [`features`] follows `extract.rs`, [`scoring`] takes the runtime's own schedule with all tokens on one card; the tests below
//! run both on the simulator and compare launch by launch.

use musc::backend::cuda::launch::PairBlock;
use musc::backend::cuda::launch::layer_norm::Rows;
use musc::backend::cuda::launch::patch_embed::row_width;
use musc::backend::cuda::plan::{
    BackboneSizes, MAX_LAUNCH_IMAGES, ScoringPlan, ScoringSizes, SetSizes,
};
use musc::model::{Activation, Backbone, Family};
use musc::scoring::MutualScoring;
use musc::scoring::schedule::Schedule;
use musc::{Error, Grid, ImageSize, Result};

use super::op::{Epilogue, Norm, Op};

/// A launch, what it is for, and how often a run has it.
#[derive(Debug, Clone)]
pub struct Work {
    /// Its place in the pipeline: `qkv`, `gram`.
    pub role: &'static str,
    /// The launch.
    pub op: Op,
    /// How often.
    pub times: u64,
}

/// A run to account for.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The backbone.
    pub backbone: &'static Backbone,
    /// Side of the images.
    pub image_size: usize,
    /// N.
    pub images: usize,
    /// Images of a batch.
    pub batch: usize,
    /// How they are scored.
    pub scoring: MutualScoring,
}

impl Setting {
    /// The authors' options for a backbone at a size; without a batch, the one that a card chooses.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a size that is no multiple of the patch, fewer than two images, an empty batch.
    pub fn new(
        backbone: &'static Backbone,
        image_size: usize,
        images: usize,
        batch: Option<usize>,
    ) -> Result<Self> {
        let patch = backbone.patch;
        if image_size == 0 || !image_size.is_multiple_of(patch) {
            let expected = format!("a multiple of the patch size {patch} of {}", backbone.name);
            return Err(Error::invalid("--img-resize", image_size, expected));
        }
        let grid = image_size / patch;
        if grid > 64 {
            return Err(Error::invalid(
                "--img-resize",
                image_size,
                format!("at most {}", 64 * patch),
            ));
        }
        if batch == Some(0) {
            return Err(Error::invalid("--batch-size", 0, "at least 1"));
        }
        if images > 100_000 {
            return Err(Error::invalid("--images", images, "at most 100000"));
        }
        let scoring = MutualScoring::default();
        scoring.check(images.saturating_sub(1), Grid::square(grid))?;
        let mut setting = Setting { backbone, image_size, images, batch: 1, scoring };
        setting.batch = batch.unwrap_or_else(|| setting.backbone_sizes().batch());
        Ok(setting)
    }

    /// Side of the patch grid.
    pub fn grid(&self) -> usize {
        self.image_size / self.backbone.patch
    }

    /// Feature layers.
    pub fn layers(&self) -> usize {
        self.backbone.default_layers.len()
    }

    /// The backbone as the memory plan takes it.
    pub fn backbone_sizes(&self) -> BackboneSizes {
        BackboneSizes {
            width: self.backbone.width,
            depth: self.backbone.depth,
            mlp_width: 4 * self.backbone.width,
            patch: self.backbone.patch,
            grid: Grid::square(self.grid()),
        }
    }

    /// Width of a token on a card: padded to 128.
    fn width(&self) -> usize {
        self.backbone.width.next_multiple_of(128)
    }

    fn scoring_sizes(&self) -> ScoringSizes {
        let all = SetSizes { images: self.images, on_card: true };
        let tokens = (Grid::square(self.grid()), self.width());
        ScoringSizes::new(all, None, tokens, &self.scoring)
    }

    /// How the runtime cuts the scoring on a card with so much memory left.
    ///
    /// # Errors
    /// [`Error::Invalid`] when not even the least fits.
    pub fn plan(&self, available: u64) -> Result<ScoringPlan> {
        self.scoring_sizes().plan(&self.scoring, available).ok_or_else(|| {
            Error::invalid("memory of the card", available, "more: the least does not fit")
        })
    }
}

/// The launches of the features of all images.
pub fn features(setting: &Setting) -> Vec<Work> {
    let (whole, rest) = (setting.images / setting.batch, setting.images % setting.batch);
    let mut works = batch(setting, setting.batch.min(setting.images), whole as u64);
    works.extend(batch(setting, rest, u64::from(rest > 0)));
    works.retain(|work| work.times > 0);
    works
}

fn batch(setting: &Setting, images: usize, times: u64) -> Vec<Work> {
    let Backbone { width, depth, patch, family, .. } = *setting.backbone;
    let (grid, heads) = (setting.grid(), width / 64);
    let patches = grid * grid;
    let tokens = images * (patches + 1);
    let clip = family == Family::Clip;
    let activation = match setting
        .backbone
        .default_activation("openai", ImageSize::square(setting.image_size))
    {
        Activation::QuickGelu => Epilogue::QuickGelu,
        _ => Epilogue::Gelu,
    };
    let of_all = |norm| Op::LayerNorm { norm, rows: Rows::All(tokens), width };
    let of_patches = Op::LayerNorm {
        norm: if clip { Norm::Round } else { Norm::Store },
        rows: Rows::Patches { images, patches },
        width,
    };
    let class = Op::LayerNorm { norm: Norm::Stream, rows: Rows::Class { images, patches }, width };
    let product = |epilogue, m, n, k| Op::Gemm { epilogue, m, n, k };
    let once = |role, op| Work { role, op, times };
    let each = |role, op| Work { role, op, times: times * depth as u64 };
    let mut works = vec![
        once("patch rows", Op::PatchRows { images, grid, patch }),
        once("class rows", Op::ClassRows { images, grid, width }),
        once(
            "patch embedding",
            product(Epilogue::Embed(patches), images * patches, width, row_width(patch)),
        ),
    ];
    if clip {
        works.push(once("norm before the blocks", of_all(Norm::Stream)));
    }
    works.extend([
        Work { role: "norm", op: of_all(Norm::Store), times: 2 * times * depth as u64 },
        each("query, key, value", product(Epilogue::Bias, tokens, 3 * width, width)),
        each("attention", Op::Attention { images, tokens: patches + 1, heads }),
        each("attention out", product(Epilogue::Residual, tokens, width, width)),
        each("MLP in", product(activation, tokens, 4 * width, width)),
        each("MLP out", product(Epilogue::Residual, tokens, width, 4 * width)),
        Work { role: "tokens kept", op: of_patches, times: times * setting.layers() as u64 },
        once("class tokens", class),
    ]);
    works
}

/// The launches of the scoring of all images, with a card's memory for the plan.
///
/// # Errors
/// As [`Setting::plan`].
pub fn scoring(setting: &Setting, available: u64) -> Result<Vec<Work>> {
    let plan = setting.plan(available)?;
    Ok(scoring_by(setting, plan.group, (plan.gram_images, setting.scoring_sizes().gram_columns())))
}

/// As [`scoring`], with a group of images and chunks of images of A and of B given.
pub fn scoring_by(setting: &Setting, group: usize, chunk: (usize, usize)) -> Vec<Work> {
    let (images, grid, width) = (setting.images, setting.grid(), setting.width());
    let (patches, layers) = (grid * grid, setting.layers() as u64);
    let degrees = setting.scoring.degrees.clone();
    let once = |role, op| Work { role, op, times: layers };
    let mut works = vec![
        once("row sums", Op::Sums { images, grid, width, degrees: degrees.clone() }),
        once("image means", Op::Mean { images, grid, width, degrees: degrees.clone() }),
        once("norms", Op::Norms { images, grid, width, degrees: degrees.clone() }),
    ];
    let mut shapes: Vec<(PairBlock, u64)> = Vec::new();
    let ranks = setting.scoring.ranks(images.saturating_sub(1));
    let schedule = Schedule::others(images).in_groups(group).in_pieces(chunk.0, chunk.1);
    for of_group in schedule.groups() {
        let scored = of_group.len();
        for chunk in schedule.chunks(of_group, (0, 1)) {
            let block = PairBlock {
                first_a: chunk.rows.start,
                images_a: chunk.rows.len(),
                first_b: chunk.columns.start,
                images_b: chunk.columns.len(),
                symmetric: true,
            };
            // Where a chunk starts does not matter for its cost, only how far its two runs are apart.
            let apart = (block.first_b - block.first_a).min(block.images_a);
            let alike = PairBlock { first_a: 0, first_b: apart, ..block };
            match shapes.iter_mut().find(|(known, _)| *known == alike) {
                Some((_, times)) => *times += layers,
                None => shapes.push((alike, layers)),
            }
        }
        let times = layers * degrees.len() as u64;
        let whole = (scored / MAX_LAUNCH_IMAGES) as u64;
        let rest = scored % MAX_LAUNCH_IMAGES;
        for (scored, launches) in [(MAX_LAUNCH_IMAGES, whole), (rest, u64::from(rest > 0))] {
            if launches > 0 {
                works.push(Work {
                    role: "lowest distances",
                    op: Op::IntervalMean { images, patches, scored, ranks },
                    times: times * launches,
                });
            }
        }
    }
    for (block, times) in shapes {
        works.push(Work { role: "gram", op: Op::Gram { block, patches, width }, times });
        let degrees = degrees.iter().copied().filter(|degree| *degree > 1).collect();
        works.push(Work { role: "pooling", op: Op::Pool { block, grid, degrees }, times });
    }
    works
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use musc::backend::cuda::driver::LaunchShape;
    use musc::backend::cuda::driver::sim::{Sim, SimOptions};
    use musc::backend::cuda::{Card, Cuda, Half};
    use musc::backend::{Backend, Extraction, HostFeatures, Pixels, References};
    use musc::model::{Vit, backbone};

    type Seen = Arc<Mutex<Vec<(String, LaunchShape, u64)>>>;

    fn watched() -> (Cuda, Seen) {
        let sim = Sim::new(SimOptions::default());
        let seen: Seen = Arc::default();
        let list = Arc::clone(&seen);
        sim.observe(Box::new(move |entry, shape, _, counters| {
            let flops = counters.total().total.mma_flops;
            list.lock().unwrap().push((entry.to_string(), shape, flops));
        }));
        (Cuda::with_cards(vec![Card::with_driver(Arc::new(sim), None)], Half::F16).unwrap(), seen)
    }

    /// The launches of a list and of a run, sorted.
    fn assert_same(works: &[Work], seen: &Seen) {
        let shared = 163 << 10;
        let mut expected: Vec<String> = Vec::new();
        for work in works {
            for _ in 0..work.times {
                expected.push(format!("{} {:?}", work.op.entry(), work.op.launch(shared)));
            }
        }
        let mut found: Vec<String> =
            seen.lock().unwrap().iter().map(|(e, shape, _)| format!("{e} {shape:?}")).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn list_of_the_scoring_is_what_the_runtime_launches() {
        let (cuda, seen) = watched();
        let (images, grid, width) = (9, 5, 128);
        let tokens = |seed: usize| {
            (0..images * grid * grid * width)
                .map(|at| ((at * 7 + seed) % 23) as f32 / 8.0)
                .collect()
        };
        let tokens = vec![tokens(1), tokens(2)];
        let features = HostFeatures::new(images, Grid::square(grid), width, vec![1, 3], tokens);
        let features = cuda.upload(features).unwrap();
        // Groups of 4, 4 and 1, in chunks of 4 by all.
        let scoring = MutualScoring::default().with_table_bytes(Some(4 * 3 * 9 * 25 * 4));
        cuda.patch_scores(&features, References::Others, &scoring, &()).unwrap();
        const TINY: Backbone = Backbone {
            name: "tiny",
            family: Family::Dinov2,
            width: 128,
            depth: 4,
            patch: 14,
            native_size: 70,
            class_dim: 128,
            default_layers: &[1, 3],
            pretrained: &[],
        };
        static BACKBONE: Backbone = TINY;
        let setting = Setting { backbone: &BACKBONE, image_size: 70, images, batch: 4, scoring };
        let works = super::scoring(&setting, 16 << 30).unwrap();
        assert_same(&works, &seen);
        // And the tensor work of its Gram blocks is what the tiles with a pair say.
        let counted: u64 = seen.lock().unwrap().iter().map(|(.., flops)| flops).sum();
        let by_tiles: u64 = works
            .iter()
            .filter(|work| matches!(work.op, Op::Gram { .. }))
            .map(|work| work.times * work.op.working_blocks(0) * 2 * 128 * 128 * width as u64)
            .sum();
        assert_eq!(counted, by_tiles);
    }

    #[test]
    #[cfg_attr(not(built_in), ignore = "a file that is in the repository only")]
    fn list_of_the_features_is_what_the_runtime_launches() {
        let (cuda, seen) = watched();
        let file =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/dinov2_tiny_weights.safetensors");
        let vit = Vit::open(std::path::Path::new(file)).unwrap();
        let architecture = &vit.architecture;
        let input = ImageSize::square(56);
        let normalisation = architecture.family.normalisation();
        let extraction =
            Extraction::new(vec![1, 3], input, Activation::Gelu, normalisation).with_batch_size(2);
        let model = cuda.load(&vit, &extraction).unwrap();
        let image = musc::image::RgbImage { width: 56, height: 56, data: vec![90; 56 * 56 * 3] };
        cuda.extract(&model, Pixels::Rgb(&vec![image; 5]), &()).unwrap();
        static BACKBONE: Backbone = Backbone {
            name: "tiny",
            family: Family::Dinov2,
            width: 128,
            depth: 4,
            patch: 14,
            native_size: 56,
            class_dim: 128,
            default_layers: &[1, 3],
            pretrained: &[],
        };
        assert_eq!((architecture.width, architecture.depth), (128, 4));
        let setting = Setting::new(&BACKBONE, 56, 5, Some(2)).unwrap();
        assert_same(&features(&setting), &seen);
    }

    #[test]
    fn bad_settings_are_refused() {
        let vit = backbone("ViT-L-14-336").unwrap();
        for (size, images, batch) in
            [(0, 9, 4), (500, 9, 4), (518, 1, 4), (518, 9, 0), (14 * 65, 9, 1)]
        {
            assert!(
                Setting::new(vit, size, images, Some(batch)).is_err(),
                "{size} {images} {batch}"
            );
        }
    }
}
