//! A block of the transformer with products of bf16; the tokens themselves (the residual stream) stay f32.

use half::bf16;

use super::attention::{self, attention};
use super::finish::{Add, Biased, Finish, Rows};
use super::panels::Panels;
use super::product::product;
use crate::backend::cpu::aligned::Aligned;
use crate::backend::cpu::elementwise::layer_norm_rounded;
use crate::backend::cpu::vit::{Block, Linear, Setting};
use crate::gemm::Shape;
use crate::simd::Bf16;

/// What a block writes on its way.
pub struct Workspace {
    /// The patches as rows.
    rows: Vec<f32>,
    normed: Aligned<bf16>,
    qkv: Aligned<bf16>,
    by_head: Aligned<bf16>,
    hidden: Aligned<bf16>,
    attention: Vec<attention::Scratch>,
}

impl Workspace {
    /// For one image.
    pub fn new(of: Setting) -> Self {
        let room = |width: usize| Aligned::zeros(of.tokens * width);
        Workspace {
            rows: vec![0.0; of.row_values],
            normed: room(of.width),
            qkv: room(3 * of.width),
            by_head: room(of.width),
            hidden: room(of.mlp_width.next_multiple_of(2)),
            attention: (0..of.threads.min(of.heads))
                .map(|_| attention::Scratch::new(of.arch, of.tokens))
                .collect(),
        }
    }

    /// Room for the patches as rows.
    pub fn rows(&mut self) -> &mut [f32] {
        &mut self.rows
    }
}

impl Linear<Panels> {
    /// `input` `[tokens, inputs]` times Wᵀ, to rows of `out`, which may end in a zero.
    fn product<T: Send>(
        &self,
        proof: Bf16,
        input: &[bf16],
        (out, finish): (&mut [T], impl Finish<T>),
        of: Setting,
    ) {
        let Panels { values, depth, columns } = &self.weight;
        let (shape, stride) = (Shape::dense(of.tokens, *depth), out.len() / of.tokens);
        let to = (Rows::new(out, stride), finish);
        product(proof, (input, shape), (values, *depth, *columns), to, of.threads);
    }
}

/// The block on the tokens `x` `[1 + L, D]`.
pub fn run(
    proof: Bf16,
    block: &Block<Linear<Panels>>,
    x: &mut [f32],
    memory: &mut Workspace,
    of: Setting,
) {
    let Workspace { normed, qkv, by_head, hidden, attention: scratch, .. } = memory;
    let Block { qkv: to_qkv, out, fc1, fc2, .. } = block;
    layer_norm_rounded(of.arch, x, &block.norm1, normed);
    to_qkv.product(proof, normed, (qkv, Biased(&to_qkv.bias, None)), of);
    attention(proof, qkv, (of.tokens, of.heads), by_head, normed, scratch);
    out.product(proof, normed, (x, Add(&out.bias)), of);
    layer_norm_rounded(of.arch, x, &block.norm2, normed);
    fc1.product(proof, normed, (hidden, Biased(&fc1.bias, Some(of.activation))), of);
    fc2.product(proof, hidden, (x, Add(&fc2.bias)), of);
}
