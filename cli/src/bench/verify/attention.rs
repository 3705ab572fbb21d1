//! `attention`: softmax(Q·Kᵀ/8)·V.

use rayon::prelude::*;

use super::judge::Want;
use super::memory::{Lab, Outcome};
use super::numbers::{Random, TINY, U32, dot, round, roundoff, sum_error};
use super::{Class, Trial};
use musc::Result;
use musc::backend::cuda::launch::Half;
use musc::backend::cuda::launch::attention::{self, HEAD};

#[derive(Debug, Clone, Copy)]
struct Case {
    images: usize,
    tokens: usize,
    heads: usize,
    /// Size of queries, keys and values.
    scale: f32,
    /// Of the queries, one in so many is worked out.
    step: usize,
}

/// Equal keys: every weight is 1 and the output the mean of the values, which come in pairs around an integer.
fn equal_keys(case: Case) -> Vec<f32> {
    let Case { images, tokens, heads, .. } = case;
    let width = heads * HEAD;
    let mut random = Random(tokens as u64);
    let (keys, middle) = (random.integers(width, 3), random.integers(width, 50));
    let mut qkv = Vec::with_capacity(images * tokens * 3 * width);
    for _ in 0..images {
        let offset: Vec<f32> = random.integers(tokens.div_ceil(2) * width, 60);
        for t in 0..tokens {
            qkv.extend(random.integers(width, 3));
            qkv.extend(&keys);
            let (pair, sign) = if 2 * t + 1 == tokens {
                (0, 0.0)
            } else if 2 * t < tokens {
                (t, 1.0)
            } else {
                (tokens - 1 - t, -1.0)
            };
            qkv.extend((0..width).map(|c| middle[c] + sign * offset[pair * width + c]));
        }
    }
    qkv
}

fn flash(lab: &Lab<'_>, half: Half, case: Case, class: Class) -> Result<Vec<Outcome>> {
    let Case { images, tokens, heads, scale, step } = case;
    let width = heads * HEAD;
    let raw = match class {
        Class::Exact => equal_keys(case),
        Class::Rounding => Random(tokens as u64).vec(images * tokens * 3 * width, scale),
    };
    let (bits, qkv) = round(half, &raw);
    let row = |image: usize, part: usize, t: usize, h: usize| {
        &qkv[(image * tokens + t) * 3 * width + part * width + h * HEAD..][..HEAD]
    };
    let of_query = |(image, t, h): (usize, usize, usize)| -> Vec<Want> {
        if t % step != 0 {
            return vec![Want::Written; HEAD];
        }
        if class == Class::Exact {
            let mean =
                |c: usize| (0..tokens).map(|s| row(image, 2, s, h)[c]).sum::<f64>() / tokens as f64;
            return (0..HEAD).map(|c| Want::Near(mean(c), 0.0)).collect();
        }
        let products: Vec<(f64, f64)> =
            (0..tokens).map(|s| dot(row(image, 0, t, h), row(image, 1, s, h))).collect();
        // A score: 64 products, then the largest taken off and the scale put on.
        let off = products.iter().map(|p| sum_error(HEAD, p.1 / 8.0) + 4.0 * U32 * p.1 / 8.0);
        let off = off.fold(0.0, f64::max);
        let top = products.iter().map(|p| p.0 / 8.0).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = products.iter().map(|p| (p.0 / 8.0 - top).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut found = [(0.0, 0.0, 0.0f64); HEAD];
        for (s, weight) in weights.iter().enumerate() {
            for (found, v) in found.iter_mut().zip(row(image, 2, s, h)) {
                found.0 += weight * v;
                found.1 += weight * v.abs();
                found.2 = found.2.max(v.abs());
            }
        }
        let want = |(value, magnitude, largest): (f64, f64, f64)| {
            let (expected, magnitude) = (value / sum, magnitude / sum);
            // Each weight is rounded once to the format (not so in the sum), is off by the error of its score, and in f16
            // may be less than the format has; then the product and the running rescaling, and one rounding.
            let before = (roundoff(half) + 2.0 * off + 20.0 * 2.0 * U32) * magnitude
                + sum_error(tokens, magnitude)
                + tokens as f64 * TINY * largest / sum;
            Want::Near(expected, before + roundoff(half) * (expected.abs() + before) + TINY)
        };
        found.into_iter().map(want).collect()
    };
    let queries = (0..images * tokens * heads).into_par_iter();
    let rows: Vec<Vec<Want>> = queries
        .map(|at| of_query((at / heads / tokens, at / heads % tokens, at % heads)))
        .collect();
    let wants = rows.concat();
    let entry = format!("attention_flash_{}", half.name());
    lab.judge(|pass| {
        let qkv = pass.input("qkv", &bits)?;
        let mut out = pass.output::<u16>("out", wants.len())?;
        attention::flash(pass.stream, half, qkv.view()?, out.view_mut()?, images, tokens, heads)?;
        pass.want(&entry, &out, |bits| f64::from(half.value(bits)), &wants)?;
        pass.unchanged(&qkv)
    })
}

/// The trials of `attention`.
pub fn trials(half: Half, quick: bool) -> Vec<Trial> {
    let case = |images, tokens, heads, scale| Case { images, tokens, heads, scale, step: 1 };
    let mut cases = vec![
        case(1, 1, 1, 1.0),
        case(1, 63, 2, 1.0),
        case(1, 64, 1, 1.0),
        case(2, 65, 1, 1.0),
        // Scores of ±200: most weights vanish, the running maximum moves from tile to tile.
        case(1, 150, 1, 8.0),
    ];
    if !quick {
        cases.extend([
            Case { images: 2, tokens: 1370, heads: 3, scale: 1.0, step: 7 },
            Case { images: 1, tokens: 8192, heads: 1, scale: 2.0, step: 61 },
        ]);
    }
    let entry = format!("attention_flash_{}", half.name());
    let mut trials = Vec::new();
    for case in cases {
        for class in [Class::Exact, Class::Rounding] {
            // Values of any size are means of pairs only as integers.
            if class == Class::Exact && case.scale > 2.0 {
                continue;
            }
            let Case { images, tokens, heads, scale, .. } = case;
            let what =
                if class == Class::Exact { "equal keys".into() } else { format!("size {scale}") };
            let shape = format!("{images}x{heads}x{tokens}x64, {what}");
            trials.push(Trial::new("attention", &entry, shape, class, move |lab| {
                flash(lab, half, case, class)
            }));
        }
    }
    trials
}
