//! The vision transformer on the CPU: f32, one image a thread; threads left over work inside an image.

use std::fmt;
use std::sync::Mutex;

use pulp::Arch;
use rayon::prelude::*;

use super::attention::{self, HEAD, attention};
use super::elementwise::{LayerNorm, add_bias, add_bias_activate, layer_norm};
use super::panels::Panels;
use crate::backend::input::Image;
use crate::backend::patch_embed::patch_rows;
use crate::backend::{Extraction, HostFeatures, Pixels};
use crate::gemm::{Right, Shape, Store, gemm};
use crate::model::{self, Family, Vit, token_embedding};
use crate::progress::go_on;
use crate::{Grid, Progress, Result, Stage};

/// A backbone in f32, ready for one extraction setting.
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
    /// `[3·P·P, D]`.
    patch_weight: Panels,
    /// The embedding `[1 + L, D]` that the products are added to: class token and position, or convolution bias
    /// and position.
    embedding: Vec<f32>,
    pre_norm: Option<LayerNorm>,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    /// `[D, E]`.
    projection: Option<Vec<f32>>,
}

struct Block {
    norm1: LayerNorm,
    /// The queries' rows carry the attention's 1/√64.
    qkv: Linear,
    /// The rows carry the LayerScale.
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    /// The rows carry the LayerScale.
    fc2: Linear,
}

struct Linear {
    /// Wᵀ `[inputs, outputs]`.
    weight: Panels,
    bias: Vec<f32>,
}

impl Linear {
    fn new(linear: &model::Linear, row_scale: Option<&[f32]>) -> Self {
        let mut weight = linear.weight.to_f32();
        let mut bias = linear.bias.to_f32();
        if let Some(scale) = row_scale {
            let inputs = weight.len() / bias.len();
            for ((row, bias), &scale) in weight.chunks_exact_mut(inputs).zip(&mut bias).zip(scale) {
                row.iter_mut().for_each(|value| *value *= scale);
                *bias *= scale;
            }
        }
        let inputs = weight.len() / bias.len();
        Linear { weight: Panels::of_transposed(&weight, inputs, inputs), bias }
    }

    /// `out` = or += `input`·Wᵀ, without the bias.
    fn product(&self, input: &[f32], out: &mut [f32], store: Store, threads: usize) {
        let outputs = self.bias.len();
        let rows = out.len() / outputs;
        let input_shape = Shape::dense(rows, input.len() / rows);
        self.weight.product(
            (input, input_shape),
            (out, Shape::dense(rows, outputs), store),
            threads,
        );
    }
}

/// The memory of one image in flight.
struct Workspace {
    /// The patches as rows; later the MLP's hidden layer.
    wide: Vec<f32>,
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    by_head: Vec<f32>,
    attention: Vec<attention::Scratch>,
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
        let blocks = self.blocks.len();
        out.debug_struct("Model")
            .field("family", family)
            .field("grid", grid)
            .field("width", width)
            .field("blocks", &blocks)
            .field("extraction", extraction)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Converts the weights and folds in what is constant: the attention's scale, LayerScale, positions.
    pub(super) fn new(vit: &Vit, extraction: &Extraction, arch: Arch) -> Result<Self> {
        let architecture = &vit.architecture;
        let grid = extraction.grid(vit)?;
        let width = architecture.width;
        let row_width = 3 * architecture.patch * architecture.patch;
        let norm = |norm: &model::LayerNorm| LayerNorm {
            weight: norm.weight.to_f32(),
            bias: norm.bias.to_f32(),
            epsilon: architecture.layer_norm_eps,
        };
        let mut query_scale = vec![1.0; 3 * width];
        query_scale[..width].fill(1.0 / (HEAD as f32).sqrt());
        let blocks = vit
            .blocks
            .par_iter()
            .map(|block| {
                let scale = |scale: &Option<model::Tensor>| scale.as_ref().map(|s| s.to_f32());
                Block {
                    norm1: norm(&block.norm1),
                    qkv: Linear::new(&block.qkv, Some(&query_scale)),
                    out: Linear::new(&block.out, scale(&block.scale1).as_deref()),
                    norm2: norm(&block.norm2),
                    fc1: Linear::new(&block.fc1, None),
                    fc2: Linear::new(&block.fc2, scale(&block.scale2).as_deref()),
                }
            })
            .collect();
        Ok(Model {
            arch,
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

    fn workspace(&self, threads: usize) -> Workspace {
        let tokens = 1 + self.grid.patches();
        let rows = self.grid.patches() * 3 * self.patch * self.patch;
        Workspace {
            wide: vec![0.0; (tokens * self.mlp_width).max(rows)],
            x: vec![0.0; tokens * self.width],
            normed: vec![0.0; tokens * self.width],
            qkv: vec![0.0; tokens * 3 * self.width],
            by_head: vec![0.0; tokens * self.width],
            attention: (0..threads.min(self.heads))
                .map(|_| attention::Scratch::new(self.arch))
                .collect(),
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
        let Workspace { wide, x, normed, qkv, by_head, attention: scratch } = workspace;
        let (arch, grid, width) = (self.arch, self.grid, self.width);
        let (patches, row_width) = (grid.patches(), 3 * self.patch * self.patch);
        let rows = &mut wide[..patches * row_width];
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
        let hidden = &mut wide[..(1 + patches) * self.mlp_width];
        for (index, block) in self.blocks.iter().enumerate() {
            normed.copy_from_slice(x);
            layer_norm(arch, normed, &block.norm1);
            block.qkv.product(normed, qkv, Store::Overwrite, threads);
            add_bias(arch, qkv, &block.qkv.bias);
            attention(qkv, 1 + patches, self.heads, by_head, normed, scratch);
            block.out.product(normed, x, Store::Add, threads);
            add_bias(arch, x, &block.out.bias);
            normed.copy_from_slice(x);
            layer_norm(arch, normed, &block.norm2);
            block.fc1.product(normed, hidden, Store::Overwrite, threads);
            add_bias_activate(arch, hidden, &block.fc1.bias, self.extraction.activation);
            block.fc2.product(hidden, x, Store::Add, threads);
            add_bias(arch, x, &block.fc2.bias);
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
