//! Multi-head attention of one image with operands of bf16: scores and softmax in f32, a block of queries at a time.

use half::bf16;
use pulp::Arch;

use super::finish::{Keep, Rows, Scaled};
use super::panels::{extent, fill_panel_of_rows, fill_panels};
use super::product::product;
use crate::backend::cpu::aligned::{Aligned, LANES};
use crate::backend::cpu::attention::{HEAD, over_heads};
use crate::backend::cpu::elementwise::softmax_numerators_rounded;
use crate::gemm::Shape;
use crate::simd::Bf16;

/// Scores of a block of queries against all keys: about as many, so that they stay in the L2 cache with their numerators.
const BLOCK_SCORES: usize = 48 * 1024;

/// A head's memory.
pub struct Scratch {
    arch: Arch,
    /// Queries of a block.
    block: usize,
    /// Kᵀ in panels.
    keys: Aligned<bf16>,
    /// V in a panel, rows side by side in pairs.
    values: Aligned<bf16>,
    /// `[block, stride]`, whole vectors a row.
    scores: Aligned,
    /// `[block, tokens, made even]`.
    numerators: Aligned<bf16>,
    scales: Vec<f32>,
}

impl Scratch {
    /// For a head of so many tokens.
    pub fn new(arch: Arch, tokens: usize) -> Self {
        let block = (BLOCK_SCORES / tokens).next_multiple_of(6).min(tokens);
        let even = tokens.next_multiple_of(2);
        Scratch {
            arch,
            block,
            keys: Aligned::zeros(extent(HEAD, tokens)),
            values: Aligned::zeros(extent(even, HEAD)),
            scores: Aligned::zeros(block * tokens.next_multiple_of(LANES)),
            numerators: Aligned::zeros(block * even),
            scales: vec![0.0; block],
        }
    }
}

/// softmax(Q·Kᵀ)·V for each head: `qkv` `[T, 3·heads·64]` with q, k, v side by side and the queries already
/// scaled; `by_head` `[heads, T, 64]` is scratch, `out` `[T, heads·64]`. Heads go to `scratch.len()` threads.
pub fn attention(
    proof: Bf16,
    qkv: &[bf16],
    (tokens, heads): (usize, usize),
    by_head: &mut [bf16],
    out: &mut [bf16],
    scratch: &mut [Scratch],
) {
    let width = heads * HEAD;
    assert!(qkv.len() == 3 * tokens * width && out.len() == tokens * width, "attention sizes");
    assert!(by_head.len() == tokens * width && !scratch.is_empty(), "attention scratch");
    over_heads((tokens, heads), by_head, out, scratch, |head, out, scratch| {
        one_head(proof, qkv, (tokens, width, head), out, scratch);
    });
}

fn one_head(
    proof: Bf16,
    qkv: &[bf16],
    (tokens, width, head): (usize, usize, usize),
    out: &mut [bf16],
    scratch: &mut Scratch,
) {
    let Scratch { arch, block, keys, values, scores, numerators, scales } = scratch;
    let (row, even, stride) =
        (3 * width, tokens.next_multiple_of(2), tokens.next_multiple_of(LANES));
    fill_panels(&qkv[width + head * HEAD..], row, HEAD, keys);
    fill_panel_of_rows(&qkv[2 * width + head * HEAD..], tokens, row, values);
    for first in (0..tokens).step_by(*block) {
        let count = (*block).min(tokens - first);
        let scores = &mut scores[..count * stride];
        let numerators = &mut numerators[..count * even];
        let scales = &mut scales[..count];
        product(
            proof,
            (&qkv[first * row + head * HEAD..], Shape::strided(count, HEAD, row)),
            (keys, HEAD, tokens),
            (Rows::new(scores, stride), Keep),
            1,
        );
        softmax_numerators_rounded(*arch, (scores, stride), tokens, (numerators, even), scales);
        product(
            proof,
            (numerators, Shape::dense(count, even)),
            (values, even, HEAD),
            (Rows::new(&mut out[first * HEAD..][..count * HEAD], HEAD), Scaled(scales)),
            1,
        );
    }
}
