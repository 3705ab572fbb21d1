//! The vision transformer on the CPU: one image a thread; threads left over work inside an image. Its blocks are `blocks_f32.rs`
//! or `bf16/blocks.rs`; what is before and after them is f32.

use std::fmt;
use std::sync::Mutex;

use pulp::Arch;
use rayon::prelude::*;

use super::attention::HEAD;
use super::elementwise::{LayerNorm, layer_norm};
use super::panels::Panels;
use super::{Format, bf16, blocks_f32};
use crate::backend::input::Image;
use crate::backend::patch_embed::patch_rows;
use crate::backend::{Extraction, HostFeatures, Pixels};
use crate::gemm::{Right, Shape, Store, gemm};
use crate::model::{self, Activation, Family, Vit, token_embedding};
use crate::progress::go_on;
use crate::simd::{Bf16, Way};
use crate::{Grid, Progress, Result, Stage};

/// A backbone ready for one extraction setting.
pub struct Model {
    arch: Arch,
    extraction: Extraction,
    family: Family,
    grid: Grid,
    patch: usize,
    width: usize,
    heads: usize,
    mlp_width: usize,
    class_width: usize,
    /// `[3·P·P, D]`, in f32: the pixels have eight bits, their weights need more.
    patch_weight: Panels,
    /// The embedding `[1 + L, D]` that the products are added to: class token and position, or convolution bias
    /// and position.
    embedding: Vec<f32>,
    pre_norm: Option<LayerNorm>,
    blocks: Blocks,
    final_norm: LayerNorm,
    /// `[D, E]`.
    projection: Option<Vec<f32>>,
}

/// A block's parameters, with products of one format.
pub(super) struct Block<L> {
    pub norm1: LayerNorm,
    /// The queries' rows carry the attention's 1/√64.
    pub qkv: L,
    /// The rows carry the LayerScale.
    pub out: L,
    pub norm2: LayerNorm,
    pub fc1: L,
    /// The rows carry the LayerScale.
    pub fc2: L,
}

/// A linear layer: weights in the order in which a product reads them, and the bias.
pub(super) struct Linear<W> {
    /// Wᵀ `[inputs, outputs]`.
    pub weight: W,
    pub bias: Vec<f32>,
}

impl<W> Linear<W> {
    /// `make` makes an operand of weights `[outputs, inputs]`, for so many outputs.
    fn new(
        linear: &model::Linear,
        row_scale: Option<&[f32]>,
        make: impl Fn(&[f32], usize) -> W,
    ) -> Self {
        let mut weight = linear.weight.to_f32();
        let mut bias = linear.bias.to_f32();
        if let Some(scale) = row_scale {
            let inputs = weight.len() / bias.len();
            for ((row, bias), &scale) in weight.chunks_exact_mut(inputs).zip(&mut bias).zip(scale) {
                row.iter_mut().for_each(|value| *value *= scale);
                *bias *= scale;
            }
        }
        Linear { weight: make(&weight, bias.len()), bias }
    }
}

/// All blocks of a backbone.
fn blocks<W: Send>(
    vit: &Vit,
    make: impl Fn(&[f32], usize) -> W + Copy + Sync,
) -> Vec<Block<Linear<W>>> {
    let architecture = &vit.architecture;
    let mut query_scale = vec![1.0; 3 * architecture.width];
    query_scale[..architecture.width].fill(1.0 / (HEAD as f32).sqrt());
    let norm = |norm: &model::LayerNorm| layer_norm_of(norm, architecture.layer_norm_eps);
    let scale = |scale: &Option<model::Tensor>| scale.as_ref().map(|s| s.to_f32());
    let each = |block: &model::Block| Block {
        norm1: norm(&block.norm1),
        qkv: Linear::new(&block.qkv, Some(&query_scale), make),
        out: Linear::new(&block.out, scale(&block.scale1).as_deref(), make),
        norm2: norm(&block.norm2),
        fc1: Linear::new(&block.fc1, None, make),
        fc2: Linear::new(&block.fc2, scale(&block.scale2).as_deref(), make),
    };
    vit.blocks.par_iter().map(each).collect()
}

fn layer_norm_of(norm: &model::LayerNorm, epsilon: f32) -> LayerNorm {
    LayerNorm { weight: norm.weight.to_f32(), bias: norm.bias.to_f32(), epsilon }
}

/// Blocks in one of the formats.
enum Blocks {
    F32(Vec<Block<Linear<Panels>>>),
    Bf16(Bf16, Vec<Block<Linear<bf16::panels::Panels>>>),
}

/// What blocks need to know of an image on its way.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub arch: Arch,
    /// 1 + L.
    pub tokens: usize,
    /// D.
    pub width: usize,
    pub heads: usize,
    pub mlp_width: usize,
    pub activation: Activation,
    /// Threads for one image.
    pub threads: usize,
    /// Values of the patches as rows, L·3·P·P.
    pub row_values: usize,
}

/// The memory of one image in flight.
struct Workspace {
    /// The tokens `[1 + L, D]`.
    x: Vec<f32>,
    of_blocks: OfBlocks,
}

/// What blocks write on their way.
enum OfBlocks {
    F32(blocks_f32::Workspace),
    Bf16(bf16::blocks::Workspace),
}

impl OfBlocks {
    /// Room for the patches as rows, before the first block.
    fn rows(&mut self) -> &mut [f32] {
        match self {
            OfBlocks::F32(workspace) => workspace.rows(),
            OfBlocks::Bf16(workspace) => workspace.rows(),
        }
    }
}

/// How images go to threads: one a thread, and those that are left over when all threads have had the same number share them.
struct Spread {
    /// The images before these have a thread each.
    alone: usize,
    /// Threads of an image behind them.
    threads: usize,
}

impl Spread {
    fn new(images: usize, threads: usize) -> Self {
        let over = images % threads;
        Spread { alone: images - over, threads: threads / over.max(1) }
    }

    /// The threads that image `at` may use.
    fn threads(&self, at: usize) -> usize {
        if at < self.alone { 1 } else { self.threads }
    }
}

/// What it is for; not its weights.
impl fmt::Debug for Model {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Model { family, grid, width, extraction, .. } = self;
        let blocks = self.depth();
        let format = match &self.blocks {
            Blocks::F32(_) => Format::F32,
            Blocks::Bf16(..) => Format::Bf16,
        };
        out.debug_struct("Model")
            .field("family", family)
            .field("grid", grid)
            .field("width", width)
            .field("blocks", &blocks)
            .field("format", &format)
            .field("extraction", extraction)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Converts the weights and folds in what is constant: the attention's scale, LayerScale, positions.
    pub(super) fn new(vit: &Vit, extraction: &Extraction, way: Way) -> Result<Self> {
        let architecture = &vit.architecture;
        let grid = extraction.grid(vit)?;
        let width = architecture.width;
        let row_width = 3 * architecture.patch * architecture.patch;
        let norm = |norm: &model::LayerNorm| layer_norm_of(norm, architecture.layer_norm_eps);
        let panels = |weights: &[f32], outputs: usize| {
            let inputs = weights.len() / outputs;
            Panels::of_transposed(weights, inputs, inputs)
        };
        let blocks = match way.bf16 {
            None => Blocks::F32(blocks(vit, panels)),
            Some(proof) => Blocks::Bf16(proof, blocks(vit, bf16::panels::Panels::of_weights)),
        };
        Ok(Model {
            arch: way.arch,
            extraction: extraction.clone(),
            family: architecture.family,
            grid,
            patch: architecture.patch,
            width,
            heads: architecture.heads,
            mlp_width: architecture.mlp_width,
            class_width: architecture.class_dim,
            patch_weight: Panels::of_transposed(&vit.patch_weight.to_f32(), row_width, row_width),
            embedding: token_embedding(vit, grid),
            pre_norm: vit.pre_norm.as_ref().map(norm),
            blocks,
            final_norm: norm(&vit.final_norm),
            projection: vit.projection.as_ref().map(|p| p.to_f32()),
        })
    }

    /// Tokens of all images, on the current thread pool.
    pub(super) fn extract(
        &self,
        pixels: Pixels<'_>,
        progress: &dyn Progress,
    ) -> Result<HostFeatures> {
        let images = pixels.images(self.extraction.input)?;
        let count = images.len();
        progress.begin(Stage::Features, count as u64);
        let patches = self.grid.patches();
        let layers = self.extraction.layers.len();
        let mut tokens = vec![vec![0.0f32; count * patches * self.width]; layers];
        let mut class_tokens = vec![0.0f32; count * self.class_width];
        let mut content = vec![0; count];
        // One row of slices an image: its tokens in each layer.
        let mut by_image: Vec<Vec<&mut [f32]>> =
            (0..count).map(|_| Vec::with_capacity(layers)).collect();
        for layer in &mut tokens {
            for (image, slice) in
                by_image.iter_mut().zip(layer.chunks_exact_mut(patches * self.width))
            {
                image.push(slice);
            }
        }
        let spread = Spread::new(count, rayon::current_num_threads());
        let spare: Mutex<Vec<Workspace>> = Mutex::new(Vec::new());
        let lock = || spare.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Bridged, so that images are taken in order, and the last ones last.
        by_image
            .into_iter()
            .zip(class_tokens.chunks_mut(self.class_width))
            .zip(&mut content)
            .enumerate()
            .par_bridge()
            .try_for_each(|(at, ((mut tokens, class_token), content))| {
                go_on(progress)?;
                // Where the source makes its images ready when they are asked for, each thread does so for its own.
                let image = images.get(at)?;
                *content = image.content();
                let threads = spread.threads(at);
                // One that serves more threads is made for them.
                let taken = lock().pop().filter(|_| threads == 1);
                let mut workspace = taken.unwrap_or_else(|| self.workspace(threads));
                self.one_image(&image, &mut tokens, class_token, &mut workspace, threads);
                if threads == 1 {
                    lock().push(workspace);
                }
                progress.advance(1);
                Ok(())
            })?;
        progress.end();
        let layers = self.extraction.layers.clone();
        Ok(HostFeatures::new(count, self.grid, self.width, layers, tokens)
            .with_class_tokens(self.class_width, class_tokens)
            .with_content(content))
    }

    fn setting(&self, threads: usize) -> Setting {
        let Model { arch, grid, width, heads, mlp_width, ref extraction, .. } = *self;
        let (tokens, activation) = (1 + grid.patches(), extraction.activation);
        let row_values = grid.patches() * 3 * self.patch * self.patch;
        Setting { arch, tokens, width, heads, mlp_width, activation, threads, row_values }
    }

    fn workspace(&self, threads: usize) -> Workspace {
        let setting = self.setting(threads);
        Workspace {
            x: vec![0.0; setting.tokens * self.width],
            of_blocks: match self.blocks {
                Blocks::F32(_) => OfBlocks::F32(blocks_f32::Workspace::new(setting)),
                Blocks::Bf16(..) => OfBlocks::Bf16(bf16::blocks::Workspace::new(setting)),
            },
        }
    }

    /// One block on the tokens `x` `[1 + L, D]`.
    fn block(&self, index: usize, x: &mut [f32], workspace: &mut OfBlocks, setting: Setting) {
        match (&self.blocks, workspace) {
            (Blocks::F32(blocks), OfBlocks::F32(workspace)) => {
                blocks_f32::run(&blocks[index], x, workspace, setting);
            }
            (Blocks::Bf16(proof, blocks), OfBlocks::Bf16(workspace)) => {
                bf16::blocks::run(*proof, &blocks[index], x, workspace, setting);
            }
            _ => unreachable!("a workspace is made for the blocks of its model"),
        }
    }

    fn depth(&self) -> usize {
        match &self.blocks {
            Blocks::F32(blocks) => blocks.len(),
            Blocks::Bf16(_, blocks) => blocks.len(),
        }
    }

    fn one_image(
        &self,
        image: &Image<'_>,
        tokens: &mut [&mut [f32]],
        class_token: &mut [f32],
        workspace: &mut Workspace,
        threads: usize,
    ) {
        let Workspace { x, of_blocks } = workspace;
        let (arch, grid, width) = (self.arch, self.grid, self.width);
        let (patches, row_width) = (grid.patches(), 3 * self.patch * self.patch);
        let rows = of_blocks.rows();
        patch_rows(image, &self.extraction.normalisation, grid, self.patch, rows);
        x.copy_from_slice(&self.embedding);
        self.patch_weight.product(
            (rows, Shape::dense(patches, row_width)),
            (&mut x[width..], Shape::dense(patches, width), Store::Add),
            threads,
        );
        if let Some(norm) = &self.pre_norm {
            layer_norm(arch, x, norm);
        }
        let setting = self.setting(threads);
        for index in 0..self.depth() {
            self.block(index, x, of_blocks, setting);
            for (&layer, out) in self.extraction.layers.iter().zip(tokens.iter_mut()) {
                if layer == index {
                    out.copy_from_slice(&x[width..]);
                    if self.family.norms_patch_tokens() {
                        layer_norm(arch, out, &self.final_norm);
                    }
                }
            }
        }
        let class = &mut x[..width];
        layer_norm(arch, class, &self.final_norm);
        match &self.projection {
            None => class_token.copy_from_slice(class),
            Some(projection) => {
                gemm(
                    (class, Shape::dense(1, width)),
                    (projection, Shape::dense(width, self.class_width), Right::Plain),
                    (class_token, Shape::dense(1, self.class_width), Store::Overwrite),
                    1,
                );
            }
        }
        if self.family.unit_class_tokens() {
            let norm = class_token.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
            if norm > 0.0 {
                class_token.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_is_left_out_of_the_last_images_and_none_is_asked_for_twice() {
        for (images, threads, expected) in [
            (0, 3, [].as_slice()),
            (1, 8, &[8]),
            (3, 2, &[1, 1, 2]),
            (4, 2, &[1, 1, 1, 1]),
            (5, 8, &[1, 1, 1, 1, 1]),
            (6, 4, &[1, 1, 1, 1, 2, 2]),
        ] {
            let spread = Spread::new(images, threads);
            let found: Vec<usize> = (0..images).map(|at| spread.threads(at)).collect();
            assert_eq!(found, expected, "{images} images, {threads} threads");
        }
    }
}
