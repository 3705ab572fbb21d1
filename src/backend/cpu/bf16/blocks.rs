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
            normed: room(of.width),
            qkv: room(3 * of.width),
            by_head: room(of.width),
            hidden: room(of.mlp_width.next_multiple_of(2)),
            attention: (0..of.threads.min(of.heads))
                .map(|_| attention::Scratch::new(of.arch, of.tokens))
                .collect(),
        }
    }
}

impl Linear<Panels> {
    /// `input` `[tokens, inputs]` times Wᵀ.
    fn product(&self, proof: Bf16, input: &[bf16], finish: impl Finish, of: Setting) {
        let Panels { values, depth, columns } = &self.weight;
        let shape = Shape::dense(of.tokens, *depth);
        product(proof, (input, shape), (values, *depth, *columns), finish, of.threads);
    }

    /// += into tokens.
    fn add<'a>(&'a self, x: &'a mut [f32]) -> Add<'a> {
        Add { to: Rows::new(x, self.bias.len()), bias: &self.bias }
    }

    /// Into operands of the next product, of which a row may end in a zero.
    fn put<'a>(&'a self, out: &'a mut [bf16], of: Setting) -> Biased<'a> {
        let stride = out.len() / of.tokens;
        Biased { to: Rows::new(out, stride), bias: &self.bias, activation: None }
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
    let Workspace { normed, qkv, by_head, hidden, attention: scratch } = memory;
    layer_norm_rounded(of.arch, x, &block.norm1, normed);
    block.qkv.product(proof, normed, block.qkv.put(qkv, of), of);
    attention(proof, qkv, (of.tokens, of.heads), by_head, normed, scratch);
    block.out.product(proof, normed, block.out.add(x), of);
    layer_norm_rounded(of.arch, x, &block.norm2, normed);
    let activated = Biased { activation: Some(of.activation), ..block.fc1.put(hidden, of) };
    block.fc1.product(proof, normed, activated, of);
    block.fc2.product(proof, hidden, block.fc2.add(x), of);
}
