//! Multi-head attention of one image, a block of queries at a time.

use pulp::Arch;
use rayon::prelude::*;

use super::elementwise::softmax_numerators;
use crate::gemm::{Right, Shape, Store, gemm};

/// Width of a head in every backbone here.
pub const HEAD: usize = 64;

/// Scores of a block of queries against all keys: at most this many, so that they stay in the L2 cache.
const BLOCK_SCORES: usize = 48 * 1024;

/// A head's memory, and the vector instructions to use.
pub struct Scratch {
    arch: Arch,
    scores: Vec<f32>,
    scales: Vec<f32>,
}

impl Scratch {
    /// None yet: it grows to what a head takes.
    pub fn new(arch: Arch) -> Self {
        Scratch { arch, scores: Vec::new(), scales: Vec::new() }
    }
}

/// softmax(Q·Kᵀ)·V for each head: `qkv` `[T, 3·heads·64]` with q, k, v side by side and the queries already
/// scaled; `by_head` `[heads, T, 64]` is scratch, `out` `[T, heads·64]`. Heads go to `scratch.len()` threads.
pub fn attention(
    qkv: &[f32],
    tokens: usize,
    heads: usize,
    by_head: &mut [f32],
    out: &mut [f32],
    scratch: &mut [Scratch],
) {
    let width = heads * HEAD;
    assert!(qkv.len() == 3 * tokens * width && out.len() == tokens * width, "attention sizes");
    assert!(by_head.len() == tokens * width && !scratch.is_empty(), "attention scratch");
    over_heads((tokens, heads), by_head, out, scratch, |head, out, scratch| {
        one_head(qkv, tokens, width, head, out, scratch);
    });
}

/// Does each head, `one_head` of its number, its part `[T, 64]` of `by_head` and the memory of its thread, on `scratch.len()`
/// threads; then puts the parts side by side into `out` `[T, heads·64]`.
pub fn over_heads<T: Copy + Send, S: Send>(
    (tokens, heads): (usize, usize),
    by_head: &mut [T],
    out: &mut [T],
    scratch: &mut [S],
    one_head: impl Fn(usize, &mut [T], &mut S) + Sync,
) {
    let heads_a_thread = heads.div_ceil(scratch.len());
    let run = |first: usize, by_head: &mut [T], scratch: &mut S| {
        for (offset, part) in by_head.chunks_exact_mut(tokens * HEAD).enumerate() {
            one_head(first + offset, part, scratch);
        }
    };
    if let [scratch] = scratch {
        run(0, by_head, scratch);
    } else {
        by_head
            .par_chunks_mut(heads_a_thread * tokens * HEAD)
            .zip(scratch)
            .enumerate()
            .for_each(|(part, (by_head, scratch))| run(part * heads_a_thread, by_head, scratch));
    }
    for (head, values) in by_head.chunks_exact(tokens * HEAD).enumerate() {
        for (row, value) in out.chunks_exact_mut(heads * HEAD).zip(values.chunks_exact(HEAD)) {
            row[head * HEAD..][..HEAD].copy_from_slice(value);
        }
    }
}

fn one_head(
    qkv: &[f32],
    tokens: usize,
    width: usize,
    head: usize,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let block = (BLOCK_SCORES / tokens).clamp(1, tokens);
    scratch.scores.resize(block * tokens, 0.0);
    scratch.scales.resize(block, 0.0);
    let keys = &qkv[width + head * HEAD..];
    let values = &qkv[2 * width + head * HEAD..];
    let all = Shape::strided(tokens, HEAD, 3 * width);
    for first in (0..tokens).step_by(block) {
        let count = block.min(tokens - first);
        let queries = &qkv[first * 3 * width + head * HEAD..];
        let scores = &mut scratch.scores[..count * tokens];
        let scores_shape = Shape::dense(count, tokens);
        gemm(
            (queries, Shape::strided(count, HEAD, 3 * width)),
            (keys, all, Right::Transposed),
            (scores, scores_shape, Store::Overwrite),
            1,
        );
        softmax_numerators(scratch.arch, scores, tokens, &mut scratch.scales[..count]);
        let out = &mut out[first * HEAD..][..count * HEAD];
        gemm(
            (scores, scores_shape),
            (values, all, Right::Plain),
            (out, Shape::dense(count, HEAD), Store::Overwrite),
            1,
        );
        for (row, &scale) in out.chunks_exact_mut(HEAD).zip(&scratch.scales) {
            row.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::testable;

    #[test]
    fn equals_the_definition_on_awkward_sizes() {
        testable().into_iter().for_each(equals_the_definition_with);
    }

    fn equals_the_definition_with(arch: Arch) {
        for (tokens, heads, threads) in
            [(1, 1, 1), (2, 3, 2), (17, 2, 1), (257, 1, 3), (1025, 1, 1)]
        {
            let width = heads * HEAD;
            let qkv: Vec<f32> = (0..3 * tokens * width)
                .map(|at| (((at * 2_654_435_761usize) >> 7) % 2001) as f32 / 1000.0 - 1.0)
                .collect();
            let mut out = vec![0.0; tokens * width];
            let mut by_head = vec![0.0; tokens * width];
            let mut scratch: Vec<Scratch> = (0..threads).map(|_| Scratch::new(arch)).collect();
            attention(&qkv, tokens, heads, &mut by_head, &mut out, &mut scratch);
            let at = |token: usize, part: usize, channel: usize| {
                qkv[token * 3 * width + part * width + channel] as f64
            };
            for token in [0, tokens / 2, tokens - 1] {
                for head in 0..heads {
                    let channels = head * HEAD..(head + 1) * HEAD;
                    let scores: Vec<f64> = (0..tokens)
                        .map(|key| channels.clone().map(|c| at(token, 0, c) * at(key, 1, c)).sum())
                        .collect();
                    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                    for channel in channels {
                        let expected: f64 = (0..tokens)
                            .map(|key| (scores[key] - top).exp() / total * at(key, 2, channel))
                            .sum();
                        let got = out[token * width + channel] as f64;
                        // Scores up to 64 carry 64·eps of rounding into the exponential; values are below 1.
                        assert!((got - expected).abs() < 64.0 * 64.0 * f32::EPSILON as f64);
                    }
                }
            }
        }
    }
}
