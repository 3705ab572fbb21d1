//! A block of the transformer with products in f32.

use super::attention::{self, attention};
use super::elementwise::{add_bias, add_bias_activate, layer_norm};
use super::panels::Panels;
use super::vit::{Block, Linear, Setting};
use crate::gemm::{Shape, Store};

/// What a block writes on its way.
pub struct Workspace {
    normed: Vec<f32>,
    qkv: Vec<f32>,
    by_head: Vec<f32>,
    /// The patches as rows, then the MLP's hidden layer.
    wide: Vec<f32>,
    row_values: usize,
    attention: Vec<attention::Scratch>,
}

impl Workspace {
    /// For one image.
    pub fn new(of: Setting) -> Self {
        let room = |width: usize| vec![0.0; of.tokens * width];
        Workspace {
            normed: room(of.width),
            qkv: room(3 * of.width),
            by_head: room(of.width),
            wide: vec![0.0; (of.tokens * of.mlp_width).max(of.row_values)],
            row_values: of.row_values,
            attention: (0..of.threads.min(of.heads))
                .map(|_| attention::Scratch::new(of.arch))
                .collect(),
        }
    }

    /// Room for the patches as rows; it is the blocks' own afterwards.
    pub fn rows(&mut self) -> &mut [f32] {
        &mut self.wide[..self.row_values]
    }
}

impl Linear<Panels> {
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

/// The block on the tokens `x` `[1 + L, D]`.
pub fn run(block: &Block<Linear<Panels>>, x: &mut [f32], memory: &mut Workspace, of: Setting) {
    let Workspace { normed, qkv, by_head, wide, attention: scratch, .. } = memory;
    let hidden = &mut wide[..of.tokens * of.mlp_width];
    let (arch, threads) = (of.arch, of.threads);
    normed.copy_from_slice(x);
    layer_norm(arch, normed, &block.norm1);
    block.qkv.product(normed, qkv, Store::Overwrite, threads);
    add_bias(arch, qkv, &block.qkv.bias);
    attention(qkv, of.tokens, of.heads, by_head, normed, scratch);
    block.out.product(normed, x, Store::Add, threads);
    add_bias(arch, x, &block.out.bias);
    normed.copy_from_slice(x);
    layer_norm(arch, normed, &block.norm2);
    block.fc1.product(normed, hidden, Store::Overwrite, threads);
    add_bias_activate(arch, hidden, &block.fc1.bias, of.activation);
    block.fc2.product(hidden, x, Store::Add, threads);
    add_bias(arch, x, &block.fc2.bias);
}
