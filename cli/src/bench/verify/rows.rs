//! `layer_norm`, `patch_embed` and `interval_mean`: what works row by row.

use super::judge::Want;
use super::memory::{Lab, Outcome};
use super::numbers::{Random, TINY, U32, roundoff};
use super::{Class, Trial};
use musc::backend::cuda::launch::layer_norm::{self, Norm, Rows};
use musc::backend::cuda::launch::{Half, interval_mean, patch_embed};
use musc::image::Normalisation;
use musc::{Grid, ImageSize, Result};

/// What `layer_norm` writes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Out {
    Store,
    Stream,
    Round,
}

/// Rows of the residual stream, and rows that are taken of it.
fn picked(rows: Rows) -> (usize, Vec<usize>) {
    match rows {
        Rows::All(rows) => (rows, (0..rows).collect()),
        Rows::Patches { images, patches } => (
            images * (patches + 1),
            (0..images * patches)
                .map(|at| at / patches * (patches + 1) + 1 + at % patches)
                .collect(),
        ),
        Rows::Class { images, patches } => {
            (images * (patches + 1), (0..images).map(|image| image * (patches + 1)).collect())
        }
    }
}

fn norm(lab: &Lab<'_>, half: Half, out: Out, rows: Rows, width: usize) -> Result<Vec<Outcome>> {
    const EPS: f32 = 1e-5;
    let (all, picked) = picked(rows);
    let mut random = Random(width as u64 + all as u64);
    // A mean far from zero shows cancellation.
    let x: Vec<f32> = random.tokens(all, width).iter().map(|v| v + 30.0).collect();
    let (gamma, beta) = (random.vec(width, 2.0), random.vec(width, 1.0));
    let mut wants = Vec::with_capacity(picked.len() * width);
    for &row in &picked {
        let values = &x[row * width..][..width];
        if out == Out::Round {
            wants.extend(
                values.iter().map(|&v| Want::Near(f64::from(half.value(half.bits(v))), 0.0)),
            );
            continue;
        }
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let mean = wide.iter().sum::<f64>() / width as f64;
        let variance = wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
        let largest = wide.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (c, v) in wide.iter().enumerate() {
            let (y, g, b) = ((v - mean) * scale, f64::from(gamma[c]), f64::from(beta[c]));
            // Sums of at most 8 + 2 + 5 levels: 15 roundoffs of the largest value for the mean, as many relative ones for
            // the variance (half of them after the root), and a handful for the rest.
            let off = 16.0 * U32 * (largest * scale + y.abs()) * g.abs() + 4.0 * U32 * b.abs();
            let expected = y * g + b;
            wants.push(match out {
                Out::Stream => Want::Near(expected, off + U32 * expected.abs()),
                _ => Want::Near(expected, off + roundoff(half) * (expected.abs() + off) + TINY),
            });
        }
    }
    let name = half.name();
    lab.judge(|pass| {
        let input = pass.input("input", &x)?;
        let (gamma, beta) = (pass.input("gamma", &gamma)?, pass.input("beta", &beta)?);
        let scale = Norm { gamma: gamma.view()?, beta: beta.view()?, eps: EPS };
        match out {
            Out::Stream => {
                let mut out = pass.output::<f32>("out", wants.len())?;
                layer_norm::stream(
                    pass.stream,
                    input.view()?,
                    rows,
                    width,
                    scale,
                    out.view_mut()?,
                )?;
                pass.want("layer_norm_stream_f32", &out, f64::from, &wants)?;
                if let Rows::All(rows) = rows {
                    let mut values = pass.in_place("values", &x)?;
                    layer_norm::stream_in_place(
                        pass.stream,
                        rows,
                        width,
                        scale,
                        values.view_mut()?,
                    )?;
                    pass.want("layer_norm_stream_f32", &values, f64::from, &wants)?;
                }
            }
            Out::Store | Out::Round => {
                let store = out == Out::Store;
                let mut out = pass.output::<u16>("out", wants.len())?;
                let norm = store.then_some(scale);
                layer_norm::store(
                    pass.stream,
                    half,
                    input.view()?,
                    rows,
                    width,
                    norm,
                    out.view_mut()?,
                )?;
                let entry = format!("layer_norm_{}_{name}", if store { "store" } else { "round" });
                pass.want(&entry, &out, |bits| f64::from(half.value(bits)), &wants)?;
            }
        }
        [&input, &gamma, &beta].into_iter().try_for_each(|input| pass.unchanged(input))
    })
}

fn patches(
    lab: &Lab<'_>,
    half: Half,
    images: usize,
    grid: Grid,
    patch: usize,
) -> Result<Vec<Outcome>> {
    let size = ImageSize::new(grid.rows * patch, grid.columns * patch);
    let mut random = Random(patch as u64);
    let pixels: Vec<u8> =
        (0..images * size.pixels() * 3).map(|_| (random.bits() & 255) as u8).collect();
    let padded = patch_embed::row_width(patch);
    let normalisation = Normalisation::CLIP;
    let mut wants = Vec::with_capacity(images * grid.patches() * padded);
    for row in 0..images * grid.patches() {
        let (image, at) = (row / grid.patches(), row % grid.patches());
        let (py, px) = (at / grid.columns, at % grid.columns);
        for k in 0..padded {
            let (c, y, x) = (k / (patch * patch), k / patch % patch, k % patch);
            if c >= 3 {
                wants.push(Want::Near(0.0, 0.0));
                continue;
            }
            let line = image * size.height + py * patch + y;
            let pixel = f64::from(pixels[(line * size.width + px * patch + x) * 3 + c]);
            let (mean, std) = (f64::from(normalisation.mean[c]), f64::from(normalisation.std[c]));
            let (scaled, shift) = (pixel / (255.0 * std), mean / std);
            let expected = scaled - shift;
            // Scale and shift are rounded three times each, the sum and the store once.
            let off = 4.0 * U32 * (scaled + shift);
            wants.push(Want::Near(expected, off + roundoff(half) * (expected.abs() + off) + TINY));
        }
    }
    let entry = format!("patch_embed_rows_{}", half.name());
    lab.judge(|pass| {
        let pixels = pass.input("pixels", &pixels)?;
        let mut out = pass.output::<u16>("rows", wants.len())?;
        let sizes = (images, grid, patch);
        patch_embed::rows(
            pass.stream,
            half,
            pixels.view()?,
            &normalisation,
            sizes,
            out.view_mut()?,
        )?;
        pass.want(&entry, &out, |bits| f64::from(half.value(bits)), &wants)?;
        pass.unchanged(&pixels)
    })
}

fn class_rows(lab: &Lab<'_>, images: usize, grid: Grid, width: usize) -> Result<Vec<Outcome>> {
    let row = Random(5).vec(width, 1.0);
    let tokens = grid.patches() + 1;
    let wants: Vec<Want> = (0..images * tokens * width)
        .map(|at| match at / width % tokens {
            0 => Want::Near(f64::from(row[at % width]), 0.0),
            _ => Want::Untouched,
        })
        .collect();
    lab.judge(|pass| {
        let row = pass.input("class_row", &row)?;
        let mut out = pass.output::<f32>("stream", wants.len())?;
        patch_embed::class(pass.stream, row.view()?, (images, grid, width), out.view_mut()?)?;
        pass.want("patch_embed_class_f32", &out, f64::from, &wants)?;
        pass.unchanged(&row)
    })
}

/// A float as the key of the same order, as `key_of` in `kernels/common/reduce.cuh`.
pub fn key_of(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Scores of three images against N, each with one image that it was not compared with; the last has ranks beyond what was.
fn interval(
    lab: &Lab<'_>,
    images: usize,
    patches: usize,
    (low, high): (u32, u32),
    ties: bool,
) -> Result<Vec<Outcome>> {
    const SCORED: usize = 3;
    let mut random = Random((images * patches) as u64);
    let cosines: Vec<f32> =
        (0..SCORED * images * patches)
            .map(|_| {
                if ties { (random.bits() % 5) as f32 * 0.3 - 0.1 } else { random.uniform() * 1.001 }
            })
            .collect();
    let absent = |i: usize, j: usize| j == i % images;
    let keys: Vec<u32> = (0..cosines.len())
        .map(|at| {
            let (i, j) = (at / (images * patches), at / patches % images);
            if absent(i, j) { 0 } else { key_of(cosines[at]) }
        })
        .collect();
    let ranks = [low, high, low, high, low, images as u32];
    let mut wants = Vec::with_capacity(SCORED * patches);
    for at in 0..SCORED * patches {
        let (i, p) = (at / patches, at % patches);
        let (low, high) = (ranks[2 * i] as usize, ranks[2 * i + 1] as usize);
        let mut distances: Vec<f64> = (0..images)
            .filter(|&j| !absent(i, j))
            .map(|j| {
                (2.0 - 2.0 * f64::from(cosines[(i * images + j) * patches + p])).max(0.0).sqrt()
            })
            .collect();
        distances.sort_by(f64::total_cmp);
        wants.push(match distances.get(low..high) {
            Some(taken) if !taken.is_empty() => {
                // Every distance, at most 2, is good to 2 roundoffs (2 - 2 cos is exact to one); a sum of n adds n.
                let mean = taken.iter().sum::<f64>() / taken.len() as f64;
                Want::Near(mean, U32 * (2.0 * (taken.len() + 8) as f64 + 2.0))
            }
            _ => Want::NotANumber,
        });
    }
    lab.judge(|pass| {
        let (keys, ranks) = (pass.input("keys", &keys)?, pass.input("ranks", &ranks)?);
        let mut out = pass.output::<f32>("scores", wants.len())?;
        let (sizes, scored) = ((images, patches), SCORED);
        interval_mean::keys(
            pass.stream,
            keys.view()?,
            out.view_mut()?,
            sizes,
            scored,
            ranks.view()?,
        )?;
        pass.want("interval_mean_keys_f32", &out, f64::from, &wants)?;
        pass.unchanged(&keys)?;
        pass.unchanged(&ranks)
    })
}

fn norms(half: Half, quick: bool, trials: &mut Vec<Trial>) {
    let mut shapes = vec![(Rows::All(1), 128), (Rows::All(5), 384)];
    let (images, patches) = (3, 9);
    shapes.extend([
        (Rows::Patches { images, patches }, 128),
        (Rows::Class { images, patches }, 128),
        (Rows::All(3), 1024),
    ]);
    if !quick {
        shapes.extend([768, 896, 1024].map(|width| (Rows::All(1370), width)));
        let (images, patches) = (4, 1369);
        shapes.extend([
            (Rows::Patches { images, patches }, 1024),
            (Rows::Class { images, patches }, 1024),
        ]);
    }
    for (rows, width) in shapes {
        for out in [Out::Store, Out::Stream, Out::Round] {
            if out == Out::Stream && half != Half::F16 {
                continue;
            }
            let entry = match out {
                Out::Store => format!("layer_norm_store_{}", half.name()),
                Out::Stream => String::from("layer_norm_stream_f32"),
                Out::Round => format!("layer_norm_round_{}", half.name()),
            };
            let class = if out == Out::Round { Class::Exact } else { Class::Rounding };
            let shape = format!("{rows:?}x{width}").to_lowercase();
            trials.push(Trial::new("layer_norm", &entry, shape, class, move |lab| {
                norm(lab, half, out, rows, width)
            }));
        }
    }
}

/// The trials of `layer_norm`, `patch_embed` and `interval_mean`.
pub fn trials(half: Half, quick: bool) -> Vec<Trial> {
    let mut trials = Vec::new();
    norms(half, quick, &mut trials);
    let mut shapes =
        vec![(2, Grid::square(3), 14), (1, Grid::new(1, 9), 8), (1, Grid::square(1), 32)];
    if !quick {
        shapes.extend([
            (3, Grid::square(37), 14),
            (1, Grid::new(64, 5), 8),
            (2, Grid::new(4, 128), 16),
        ]);
    }
    let entry = format!("patch_embed_rows_{}", half.name());
    for (images, grid, patch) in shapes {
        let shape = format!("{images}x{grid}, patch {patch}");
        trials.push(Trial::new("patch_embed", &entry, shape, Class::Rounding, move |lab| {
            patches(lab, half, images, grid, patch)
        }));
    }
    if half != Half::F16 {
        return trials;
    }
    for (images, grid, width) in [(2, Grid::square(3), 128), (3, Grid::new(1, 5), 1024)] {
        let shape = format!("{images}x{grid}x{width}");
        trials.push(Trial::new(
            "patch_embed",
            "patch_embed_class_f32",
            shape,
            Class::Exact,
            move |lab| class_rows(lab, images, grid, width),
        ));
    }
    let mut shapes = vec![(3, 33, (0, 1)), (5, 49, (1, 4)), (34, 31, (0, 9))];
    if !quick {
        shapes.extend([(200, 1369, (0, 59)), (257, 1369, (20, 60)), (1025, 64, (900, 1024))]);
    }
    for (images, patches, ranks) in shapes {
        for ties in [false, true] {
            let shape = format!(
                "3x{images}x{patches}, ranks {ranks:?}{}",
                if ties { ", ties" } else { "" }
            );
            let entry = "interval_mean_keys_f32";
            trials.push(Trial::new("interval_mean", entry, shape, Class::Rounding, move |lab| {
                interval(lab, images, patches, ranks, ties)
            }));
        }
    }
    trials
}
