//! `attention` against softmax(Q K^T / 8) V in f64 on the same rounded inputs.

use crate::params::AttentionParams;
use crate::support::*;

const HEAD: usize = 64;

#[test]
fn any_number_of_tokens() {
    for (target, half) in SHIPPED {
        for (images, tokens, heads) in
            [(1, 1, 1), (2, 17, 2), (1, 63, 1), (1, 64, 1), (2, 65, 1), (1, 130, 2), (1, 197, 1)]
        {
            check(target, half, images, tokens, heads, 1.0);
        }
    }
}

#[test]
fn peaked_scores() {
    // Scores of +-200: most probabilities vanish, the running maximum moves from tile to tile.
    for (target, half) in SHIPPED {
        check(target, half, 1, 150, 1, 8.0);
    }
}

fn check(target: u32, half: Half, images: usize, tokens: usize, heads: usize, scale: f32) {
    let width = heads * HEAD;
    let (bits, qkv) = half.round(&Random(tokens as u64).vec(images * tokens * 3 * width, scale));
    let mut device = Device::new(target);
    let params = AttentionParams {
        qkv: device.upload(&bits),
        out: device.alloc::<u16>(images * tokens * width),
        images: images as u32,
        tokens: tokens as u32,
        heads: heads as u32,
        scale_log2: std::f32::consts::LOG2_E / 8.0,
    };
    let grid = [tokens.div_ceil(128) as u32, heads as u32, images as u32];
    device.launch("attention", &format!("attention_flash_{}", half.name()), grid, 128, 0, &params);
    let actual = half.values(&device.download::<u16>(params.out, images * tokens * width));

    let mut expected = vec![0.0; actual.len()];
    let mut bound = vec![0.0; actual.len()];
    for image in 0..images {
        let row = |part: usize, t: usize, h: usize| {
            &qkv[(image * tokens + t) * 3 * width + part * width + h * HEAD..][..HEAD]
        };
        for h in 0..heads {
            for t in 0..tokens {
                let q = row(0, t, h);
                let dot = |k: &[f64]| q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / 8.0;
                let scores: Vec<f64> = (0..tokens).map(|s| dot(row(1, s, h))).collect();
                // Error of a score: 64 products in f32, then the subtraction of the maximum scaled by log2(e).
                let error = (0..tokens)
                    .map(|s| {
                        q.iter().zip(row(1, s, h)).map(|(a, b)| (a * b).abs()).sum::<f64>() / 8.0
                    })
                    .fold(0.0, f64::max)
                    * 2.0
                    * 66.0
                    * U32;
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for c in 0..HEAD {
                    let at = (image * tokens + t) * width + h * HEAD + c;
                    let magnitude: f64 =
                        (0..tokens).map(|s| weights[s] * row(2, s, h)[c].abs()).sum::<f64>() / sum;
                    expected[at] =
                        (0..tokens).map(|s| weights[s] * row(2, s, h)[c]).sum::<f64>() / sum;
                    // Each weight is rounded once to the format (not so in the sum) and off by the error of its score;
                    // a weight may underflow in f16 (below 2^-25, absolutely). Then one rounding of the result.
                    let underflow = tokens as f64 * 2f64.powi(-25) * f64::from(scale);
                    bound[at] = (half.u() + 2.0 * error + (tokens as f64 + 20.0) * 2.0 * U32)
                        * magnitude
                        + half.u() * expected[at].abs() * 1.01
                        + underflow;
                }
            }
        }
    }
    assert_within(
        &format!("attention {half:?} {target} {images}x{tokens}x{heads}"),
        &actual,
        &expected,
        |i| bound[i],
    );
}
