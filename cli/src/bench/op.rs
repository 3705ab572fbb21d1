//! A kernel launch of the pipeline by its shape: how it is launched, what it must compute and move, and the smaller
//! launch that stands for it on the simulator.

use musc::Grid;
use musc::backend::cuda::driver::LaunchShape;
use musc::backend::cuda::launch::gemm::{self, TILE};
use musc::backend::cuda::launch::gram_pool::{COLUMNS, Shape};
use musc::backend::cuda::launch::layer_norm::{self, Rows};
use musc::backend::cuda::launch::{PairBlock, attention, interval_mean, lnamd, patch_embed};

use super::resources::{RoleRows, Row};

/// Rows of tiles that a product's blocks walk before the next columns (`TILE_GROUP_M` of the kernel).
const TILE_GROUP: usize = 8;
/// Patches of an image where a sample of a Gram product runs: whole tiles.
const SAMPLE_PATCHES: usize = 2 * TILE;

/// What a product does with its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Epilogue {
    /// Bias.
    Bias,
    /// Bias and GELU.
    Gelu,
    /// Bias and QuickGELU.
    QuickGelu,
    /// Bias, added to the residual stream.
    Residual,
    /// Positions added, to the residual stream; so many patches an image.
    Embed(usize),
}

/// What `layer_norm` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// 16 bits, normalised.
    Store,
    /// 16 bits, as they are.
    Round,
    /// f32, normalised.
    Stream,
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Pixels to patch rows.
    PatchRows { images: usize, grid: usize, patch: usize },
    /// Class rows of the residual stream.
    ClassRows { images: usize, grid: usize, width: usize },
    /// A product of the backbone.
    Gemm { epilogue: Epilogue, m: usize, n: usize, k: usize },
    /// Rows, normalised.
    LayerNorm { norm: Norm, rows: Rows, width: usize },
    /// Attention.
    Attention { images: usize, tokens: usize, heads: usize },
    /// Row sums of tokens.
    Sums { images: usize, grid: usize, width: usize, degrees: Vec<usize> },
    /// Image means.
    Mean { images: usize, grid: usize, width: usize, degrees: Vec<usize> },
    /// Norms of the pooled tokens.
    Norms { images: usize, grid: usize, width: usize, degrees: Vec<usize> },
    /// The Gram block of a chunk, with the maxima of degree 1.
    Gram { block: PairBlock, patches: usize, width: usize },
    /// Its pooling for the other degrees.
    Pool { block: PairBlock, grid: usize, degrees: Vec<usize> },
    /// The path of the single degree 1.
    PatchDistance { block: PairBlock, patches: usize, width: usize },
    /// The mean of the lowest distances.
    IntervalMean { images: usize, patches: usize, scored: usize, ranks: (usize, usize) },
}

/// A lone pair of images.
const PAIR: PairBlock =
    PairBlock { first_a: 0, images_a: 1, first_b: 1, images_b: 1, symmetric: true };

impl Op {
    /// The kernel file.
    pub fn stem(&self) -> &'static str {
        match self {
            Op::PatchRows { .. } | Op::ClassRows { .. } => "patch_embed",
            Op::Gemm { .. } | Op::Gram { .. } => "gemm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Attention { .. } => "attention",
            Op::Sums { .. } | Op::Mean { .. } | Op::Norms { .. } => "lnamd",
            Op::Pool { .. } => "gram_pool",
            Op::PatchDistance { .. } => "patch_distance",
            Op::IntervalMean { .. } => "interval_mean",
        }
    }

    /// The entry point, with f16 where there is a choice.
    pub fn entry(&self) -> String {
        let variant = match self {
            Op::PatchRows { .. } => "rows_f16",
            Op::ClassRows { .. } => "class_f32",
            Op::Gemm { epilogue, .. } => match epilogue {
                Epilogue::Bias => "bias_f16",
                Epilogue::Gelu => "bias_gelu_f16",
                Epilogue::QuickGelu => "bias_quick_gelu_f16",
                Epilogue::Residual => "bias_residual_f16",
                Epilogue::Embed(_) => "embed_f16",
            },
            Op::LayerNorm { norm: Norm::Store, .. } => "store_f16",
            Op::LayerNorm { norm: Norm::Round, .. } => "round_f16",
            Op::LayerNorm { norm: Norm::Stream, .. } => "stream_f32",
            Op::Attention { .. } => "flash_f16",
            Op::Sums { .. } => "sums_f16",
            Op::Mean { .. } => "mean_f32",
            Op::Norms { .. } => "norms_f16",
            Op::Gram { .. } => "gram_max_f16",
            Op::Pool { grid, degrees, .. } => Shape::best(Grid::square(*grid), degrees, u32::MAX)
                .map_or("35_f32", |shape| shape.variant),
            Op::PatchDistance { .. } => "max_f16",
            Op::IntervalMean { .. } => "keys_f32",
        };
        format!("{}_{variant}", self.stem())
    }

    /// The shape in words: `5480x3072x1024`.
    pub fn shape(&self) -> String {
        match self {
            Op::PatchRows { images, grid, patch } => {
                format!("{images}x{grid}x{grid}, patch {patch}")
            }
            Op::ClassRows { images, width, .. } => format!("{images}x{width}"),
            Op::Gemm { m, n, k, .. } => format!("{m}x{n}x{k}"),
            Op::LayerNorm { rows, width, .. } => format!("{}x{width}", count(*rows)),
            Op::Attention { images, tokens, heads } => format!("{images}x{heads}x{tokens}x64"),
            Op::Sums { images, grid, width, .. }
            | Op::Mean { images, grid, width, .. }
            | Op::Norms { images, grid, width, .. } => format!("{images}x{grid}x{grid}x{width}"),
            Op::Gram { block, patches, width } | Op::PatchDistance { block, patches, width } => {
                format!("({}x{patches})x({}x{patches})x{width}", block.images_a, block.images_b)
            }
            Op::Pool { block, grid, .. } => {
                format!("{}x{} images of {grid}x{grid}", block.images_a, block.images_b)
            }
            Op::IntervalMean { images, patches, scored, .. } => {
                format!("{scored}x{images}x{patches}")
            }
        }
    }

    /// How it is launched on a card with so much shared memory a block.
    pub fn launch(&self, shared_bytes: u32) -> LaunchShape {
        let shape = |grid: [usize; 3], threads: u32, shared_bytes: usize| LaunchShape {
            grid: grid.map(|side| side as u32),
            threads,
            shared_bytes: shared_bytes as u32,
        };
        match self {
            Op::PatchRows { images, grid, .. } => shape(
                [grid.div_ceil(patch_embed::PATCHES), *grid, *images],
                patch_embed::THREADS,
                0,
            ),
            Op::ClassRows { images, .. } => shape([*images, 1, 1], patch_embed::THREADS, 0),
            Op::Gemm { m, n, .. } => shape([gemm::tiles(*m, *n), 1, 1], gemm::THREADS, 0),
            Op::LayerNorm { rows, .. } => {
                shape([count(*rows).div_ceil(layer_norm::ROWS), 1, 1], layer_norm::THREADS, 0)
            }
            Op::Attention { images, tokens, heads } => {
                shape([tokens.div_ceil(attention::QUERIES), *heads, *images], attention::THREADS, 0)
            }
            Op::Sums { images, grid, .. } => shape(
                [(images * grid * grid).div_ceil(lnamd::SUMS_ROWS), 1, 1],
                lnamd::SUMS_THREADS,
                0,
            ),
            Op::Mean { images, .. } => shape([*images, 1, 1], lnamd::MEAN_THREADS, 0),
            Op::Norms { images, grid, width, degrees } => {
                let (threads, shared) = lnamd::norms_launch(*grid, *width, degrees.len());
                shape([*grid, *images, 1], threads, shared as usize)
            }
            Op::Gram { block, patches, .. } | Op::PatchDistance { block, patches, .. } => shape(
                [gemm::tiles(block.images_a * patches, block.images_b * patches), 1, 1],
                gemm::THREADS,
                0,
            ),
            Op::Pool { block, grid, degrees } => {
                let best = Shape::best(Grid::square(*grid), degrees, shared_bytes);
                let pairs = block.pairs();
                let (blocks, threads, bytes) = best.map_or(([0; 3], 0, 0), |best| {
                    (best.blocks(Grid::square(*grid), pairs), best.threads, best.shared_bytes)
                });
                shape(blocks, threads as u32, bytes)
            }
            Op::IntervalMean { patches, scored, .. } => shape(
                [patches.div_ceil(interval_mean::PATCHES), *scored, 1],
                interval_mean::THREADS,
                0,
            ),
        }
    }

    /// Blocks that do not return at once: for pairs of images, those with a pair i < j.
    pub fn working_blocks(&self, shared_bytes: u32) -> u64 {
        let [x, y, z] = self.launch(shared_bytes).grid.map(u64::from);
        match self {
            Op::Gram { block, patches, .. } | Op::PatchDistance { block, patches, .. } => {
                working_tiles(block, *patches)
            }
            Op::Pool { block, .. } => x * y * pairs(block),
            _ => x * y * z,
        }
    }

    /// Machine instructions of the rows of all working blocks of `gram_pool_35`, all and those of the f32 pipe.
    pub fn row_work(&self, shared_bytes: u32, rows: &RoleRows) -> Option<Row> {
        let Op::Pool { block, grid, degrees } = self else { return None };
        let shape = Shape::best(Grid::square(*grid), degrees, shared_bytes)?;
        if shape.variant != "35_f32" {
            return None;
        }
        let (radius, turn) = (2, 4);
        let turns = (grid + radius + 1).div_ceil(turn);
        let blocks = grid.div_ceil(COLUMNS);
        // Blocks whose four columns and their halo lie inside the grid.
        let inside = (0..blocks)
            .filter(|at| at * COLUMNS >= radius && at * COLUMNS + COLUMNS + radius <= *grid)
            .count();
        let warps = |threads: usize| (threads / 32) as f64;
        let (producers, consumers) =
            (warps(shape.producers), warps(shape.threads - shape.producers) / 2.0);
        let of = |kind: usize| {
            let walk = |[most, last]: [Row; 2]| {
                let whole = grid / turn;
                (whole as f64 * most[kind] + (turns - whole) as f64 * last[kind]) * turn as f64
            };
            let produced =
                inside as f64 * walk(rows.inside) + (blocks - inside) as f64 * walk(rows.edge);
            let consumed = (turns * turn * blocks) as f64
                * rows.consumers.iter().map(|row| row[kind]).sum::<f64>();
            let strips = shape.strips(Grid::square(*grid)) as f64;
            (producers * produced + consumers * consumed) * strips * pairs(block) as f64
        };
        Some([of(0), of(1)])
    }

    /// The units in which the work of this kind grows: blocks, tiles, pairs, or images times heads.
    fn units(&self) -> u64 {
        let units = match self {
            Op::PatchRows { images, .. }
            | Op::ClassRows { images, .. }
            | Op::Sums { images, .. }
            | Op::Mean { images, .. }
            | Op::Norms { images, .. } => *images,
            Op::Gemm { m, n, .. } => gemm::tiles(*m, *n),
            Op::LayerNorm { rows, .. } => count(*rows).div_ceil(layer_norm::ROWS),
            Op::Attention { images, heads, .. } => images * heads,
            Op::Gram { block, patches, .. } | Op::PatchDistance { block, patches, .. } => {
                return working_tiles(block, *patches);
            }
            Op::Pool { block, .. } => return pairs(block),
            Op::IntervalMean { scored, .. } => *scored,
        };
        units as u64
    }

    /// A smaller launch whose blocks do the same work, for the simulator.
    pub fn sample(&self) -> Op {
        match self.clone() {
            Op::PatchRows { grid, patch, .. } => Op::PatchRows { images: 1, grid, patch },
            Op::ClassRows { grid, width, .. } => Op::ClassRows { images: 1, grid, width },
            Op::Gemm { epilogue, k, .. } => {
                let epilogue = match epilogue {
                    Epilogue::Embed(_) => Epilogue::Embed(2 * TILE),
                    other => other,
                };
                Op::Gemm { epilogue, m: 2 * TILE, n: 2 * TILE, k }
            }
            Op::LayerNorm { norm, rows, width } => {
                let rows = match rows {
                    Rows::All(_) => Rows::All(64),
                    Rows::Patches { .. } => Rows::Patches { images: 1, patches: 64 },
                    Rows::Class { .. } => Rows::Class { images: 4, patches: 4 },
                };
                Op::LayerNorm { norm, rows, width }
            }
            Op::Attention { tokens, .. } => Op::Attention { images: 1, tokens, heads: 1 },
            Op::Sums { grid, width, degrees, .. } => Op::Sums { images: 1, grid, width, degrees },
            Op::Mean { grid, width, degrees, .. } => Op::Mean { images: 1, grid, width, degrees },
            Op::Norms { grid, width, degrees, .. } => Op::Norms { images: 1, grid, width, degrees },
            Op::Gram { width, .. } => Op::Gram { block: PAIR, patches: SAMPLE_PATCHES, width },
            Op::Pool { grid, degrees, .. } => Op::Pool { block: PAIR, grid, degrees },
            Op::PatchDistance { width, .. } => {
                Op::PatchDistance { block: PAIR, patches: SAMPLE_PATCHES, width }
            }
            Op::IntervalMean { images, patches, ranks, .. } => {
                Op::IntervalMean { images, patches, scored: 1, ranks }
            }
        }
    }

    /// By how much the counts of the sample are multiplied to become this launch's.
    pub fn scale(&self) -> f64 {
        self.units() as f64 / self.sample().units().max(1) as f64
    }

    /// Tensor operations that the result needs: 2·m·n·k without padding, pairs i < j only.
    pub fn useful_flops(&self) -> f64 {
        let product = |m: usize, n: usize, k: usize| 2.0 * m as f64 * n as f64 * k as f64;
        match self {
            Op::Gemm { m, n, k, .. } => product(*m, *n, *k),
            Op::Attention { images, tokens, heads } => {
                2.0 * product(*tokens, *tokens, attention::HEAD) * (images * heads) as f64
            }
            Op::Gram { block, patches, width } | Op::PatchDistance { block, patches, width } => {
                product(*patches, *patches, *width) * pairs(block) as f64
            }
            _ => 0.0,
        }
    }

    /// Bytes that come from or go to DRAM on a card with so much L2 (see [`super::model`]).
    pub fn dram_bytes(&self, l2_bytes: f64) -> f64 {
        let fits = |bytes: f64| bytes <= l2_bytes * super::model::L2_SHARE;
        let operands = |m: usize, n: usize, k: usize| {
            let (a, b) = ((2 * m * k) as f64, (2 * n * k) as f64);
            let reads = if fits(b) { 1 } else { m.div_ceil(TILE).div_ceil(TILE_GROUP) };
            a + b * reads as f64
        };
        let keys = |block: &PairBlock, patches: usize, degrees: usize| {
            // Read and written once, for both images of a pair.
            16.0 * (patches * degrees) as f64 * pairs(block) as f64
        };
        match self {
            Op::PatchRows { images, grid, patch } => {
                let (side, patches) = (grid * patch, grid * grid);
                (images * (3 * side * side + 2 * patches * patch_embed::row_width(*patch))) as f64
            }
            Op::ClassRows { images, width, .. } => (4 * width * (images + 1)) as f64,
            Op::Gemm { epilogue, m, n, k } => {
                let out = match epilogue {
                    Epilogue::Bias | Epilogue::Gelu | Epilogue::QuickGelu => 2 * m * n,
                    Epilogue::Residual => 8 * m * n,
                    Epilogue::Embed(patches) => 4 * m * n + 4 * (1 + patches) * n,
                };
                operands(*m, *n, *k) + out as f64
            }
            Op::LayerNorm { norm, rows, width } => {
                let bytes = if *norm == Norm::Stream { 8 } else { 6 };
                (count(*rows) * width * bytes) as f64
            }
            Op::Attention { images, tokens, heads } => {
                (images * tokens * heads * attention::HEAD * 8) as f64
            }
            Op::Sums { images, grid, width, .. } => (images * grid * grid * (2 * width + 4)) as f64,
            Op::Mean { images, grid, .. } => (images * grid * grid * 4) as f64,
            Op::Norms { images, grid, width, degrees } => {
                (images * grid * grid * (2 * width + 4 + 4 * degrees.len())) as f64
            }
            Op::Gram { block, patches, width } => {
                let out = gram_bytes(block, *patches);
                operands(block.images_a * patches, block.images_b * patches, *width)
                    + keys(block, *patches, 1)
                    + if fits(gram_span(block, *patches)) { 0.0 } else { out }
            }
            Op::Pool { block, grid, degrees } => {
                let patches = grid * grid;
                let read = gram_bytes(block, patches);
                keys(block, patches, degrees.len())
                    + if fits(gram_span(block, patches)) { 0.0 } else { read }
            }
            Op::PatchDistance { block, patches, width } => {
                operands(block.images_a * patches, block.images_b * patches, *width)
                    + keys(block, *patches, 1)
            }
            Op::IntervalMean { images, patches, scored, .. } => {
                (4 * scored * patches * (images + 1)) as f64
            }
        }
    }
}

/// Rows that are written.
pub fn count(rows: Rows) -> usize {
    match rows {
        Rows::All(rows) => rows,
        Rows::Patches { images, patches } => images * patches,
        Rows::Class { images, .. } => images,
    }
}

/// Pairs i < j of a chunk.
pub fn pairs(block: &PairBlock) -> u64 {
    let end = block.first_b + block.images_b;
    (block.first_a..block.first_a + block.images_a)
        .map(|i| end.saturating_sub(block.first_b.max(i + 1)) as u64)
        .sum()
}

/// Bytes of the Gram block that hold a pair i < j.
fn gram_bytes(block: &PairBlock, patches: usize) -> f64 {
    4.0 * (patches * patches) as f64 * pairs(block) as f64
}

/// Bytes of the Gram block that a chunk spans.
fn gram_span(block: &PairBlock, patches: usize) -> f64 {
    4.0 * (block.images_a * block.images_b * patches * patches) as f64
}

/// Tiles of a product of two runs of images with a pair i < j in them; the kernel's condition.
fn working_tiles(block: &PairBlock, patches: usize) -> u64 {
    let (m, n) = (block.images_a * patches, block.images_b * patches);
    (0..m.div_ceil(TILE))
        .map(|row| {
            let first = block.first_a + row * TILE / patches;
            (0..n.div_ceil(TILE))
                .filter(|column| {
                    let last = ((column + 1) * TILE).min(n) - 1;
                    first < block.first_b + last / patches
                })
                .count() as u64
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_and_pairs_of_a_chunk_as_worked_out_by_hand() {
        // Images 0, 1 against 1, 2 of 128 patches: tiles are pairs, and (1, 1) has nothing to do.
        let block = PairBlock { first_a: 0, images_a: 2, first_b: 1, images_b: 2, symmetric: true };
        assert_eq!((pairs(&block), working_tiles(&block, 128)), (3, 3));
        let op = Op::Gram { block, patches: 128, width: 64 };
        assert_eq!(op.useful_flops(), 3.0 * 2.0 * 128.0 * 128.0 * 64.0);
        // A lone pair of 1369 patches pads both sides.
        let op = Op::Gram { block: PAIR, patches: 1369, width: 1024 };
        assert_eq!(op.working_blocks(0), 121);
    }

    #[test]
    fn gram_block_stays_in_a_large_cache_only() {
        let op = Op::Pool { block: PAIR, grid: 37, degrees: vec![3, 5] };
        let gram = (4 * 1369 * 1369) as f64;
        assert!(op.dram_bytes(6e6) - op.dram_bytes(40e6) == gram);
    }

    #[test]
    fn rows_of_pooling_as_worked_out_by_hand() {
        // 37 rows: 9 whole turns and one more; 7 of 10 blocks inside; 15 and 3 warps, 5 strips, one pair.
        let rows = RoleRows {
            inside: [[50.0, 1.0], [60.0, 1.0]],
            edge: [[70.0, 1.0], [80.0, 1.0]],
            consumers: [[100.0, 1.0], [200.0, 1.0]],
        };
        let op = Op::Pool { block: PAIR, grid: 37, degrees: vec![3, 5] };
        let produced = 7 * 4 * (9 * 50 + 60) + 3 * 4 * (9 * 70 + 80);
        let all = f64::from(5 * (15 * produced + 3 * 10 * 40 * 300));
        let pipe = f64::from(5 * (15 * 10 * 40 + 3 * 10 * 40 * 2));
        assert_eq!(op.row_work(99 << 10, &rows), Some([all, pipe]));
        let other = Op::Pool { block: PAIR, grid: 37, degrees: vec![3, 7] };
        assert_eq!(other.row_work(99 << 10, &rows), None);
    }

    #[test]
    fn scales_are_exact_ratios() {
        let gemm = Op::Gemm { epilogue: Epilogue::Bias, m: 5480, n: 3072, k: 1024 };
        assert_eq!(gemm.scale(), 43.0 * 24.0 / 4.0);
        let attention = Op::Attention { images: 4, tokens: 1370, heads: 16 };
        assert_eq!(attention.scale(), 64.0);
        let norm = Op::LayerNorm { norm: Norm::Store, rows: Rows::All(5480), width: 1024 };
        assert_eq!(norm.scale(), 1370.0 / 16.0);
    }
}
