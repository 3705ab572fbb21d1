//! `layer_norm` and `patch_embed`.

use musc::{Grid, ImageSize};

use crate::params::{LayerNormParams, PatchEmbedParams};
use crate::support::*;

/// Normalised rows in f64, and how far f32 may be off before the store.
fn normalised(
    rows: &[f32],
    width: usize,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut bound) = (vec![], vec![]);
    for row in rows.chunks_exact(width) {
        let x = widen(row);
        let mean = x.iter().sum::<f64>() / width as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        let largest = x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (c, v) in x.iter().enumerate() {
            let y = (v - mean) * scale;
            out.push(y * f64::from(gamma[c]) + f64::from(beta[c]));
            // Sums of at most 8 + 2 + 5 levels: 15 roundoffs of the largest value for the mean, as many relative ones
            // for the variance (half of them after the root), and a handful for the rest.
            let error = 16.0 * U32 * largest * scale + 16.0 * U32 * y.abs();
            bound.push(
                error * f64::from(gamma[c]).abs() + 4.0 * U32 * f64::from(beta[c]).abs() + 1e-12,
            );
        }
    }
    (out, bound)
}

#[test]
fn layer_norm_of_every_width() {
    for (target, half) in SHIPPED {
        for (rows, width) in [(1, 128), (5, 384), (9, 768), (3, 896), (7, 1024)] {
            let mut random = Random(width as u64);
            // A mean far from zero shows cancellation.
            let x: Vec<f32> = random.vec(rows * width, 2.0).iter().map(|v| v + 30.0).collect();
            let (gamma, beta) = (random.vec(width, 2.0), random.vec(width, 1.0));
            let (expected, error) = normalised(&x, width, &gamma, &beta, 1e-5);
            let mut device = Device::new(target);
            let mut params = LayerNormParams {
                input: device.upload(&x),
                out: device.alloc::<u16>(rows * width),
                gamma: device.upload(&gamma),
                beta: device.upload(&beta),
                rows: rows as u32,
                width: width as u32,
                out_rows_per_image: rows as u32,
                in_rows_per_image: 0,
                in_first_row: 0,
                eps: 1e-5,
            };
            let grid = [rows.div_ceil(4) as u32, 1, 1];
            device.launch(
                "layer_norm",
                &format!("layer_norm_store_{}", half.name()),
                grid,
                128,
                0,
                &params,
            );
            let actual = half.values(&device.download::<u16>(params.out, rows * width));
            assert_within(&format!("store {half:?} {target} {width}"), &actual, &expected, |i| {
                error[i] + half.u() * (expected[i].abs() + error[i])
            });
            // In place, in f32.
            params.out = params.input;
            device.launch("layer_norm", "layer_norm_stream_f32", grid, 128, 0, &params);
            let actual = widen(&device.download::<f32>(params.out, rows * width));
            assert_within(&format!("stream {target} {width}"), &actual, &expected, |i| {
                error[i] + U32 * expected[i].abs()
            });
        }
    }
}

#[test]
fn rows_without_the_class_token() {
    let (images, tokens, width) = (3usize, 10usize, 128usize);
    for (target, half) in SHIPPED {
        let x = Random(2).vec(images * tokens * width, 3.0);
        for (first, rows_per_image) in [(1usize, tokens - 1), (0, 1)] {
            let rows = images * rows_per_image;
            let mut device = Device::new(target);
            let params = LayerNormParams {
                input: device.upload(&x),
                out: device.alloc::<u16>(rows * width),
                rows: rows as u32,
                width: width as u32,
                out_rows_per_image: rows_per_image as u32,
                in_rows_per_image: tokens as u32,
                in_first_row: first as u32,
                ..LayerNormParams::default()
            };
            let grid = [rows.div_ceil(4) as u32, 1, 1];
            device.launch(
                "layer_norm",
                &format!("layer_norm_round_{}", half.name()),
                grid,
                128,
                0,
                &params,
            );
            let actual = device.download::<u16>(params.out, rows * width);
            let expected: Vec<u16> = (0..images)
                .flat_map(|i| x[(i * tokens + first) * width..][..rows_per_image * width].iter())
                .map(|&v| half.bits(v))
                .collect();
            assert_eq!(actual, expected, "{half:?} {target}: rows {first} on");
        }
    }
}

#[test]
fn patches_in_the_order_of_the_convolution() {
    for (target, half) in SHIPPED {
        for (images, grid, patch) in [
            (2usize, Grid::square(3), 14usize),
            (1, Grid::square(9), 8),
            (1, Grid::square(2), 32),
            (1, Grid::square(1), 16),
            (2, Grid::new(1, 17), 14),
            (1, Grid::new(37, 16), 8),
            (1, Grid::new(64, 5), 8),
            (1, Grid::new(4, 128), 8),
        ] {
            let size = ImageSize::new(grid.rows * patch, grid.columns * patch);
            let k_padded = (3 * patch * patch).next_multiple_of(32);
            let mut random = Random(patch as u64);
            let pixels: Vec<u8> =
                (0..images * size.pixels() * 3).map(|_| random.bits() as u8).collect();
            let (scale, shift) = ([0.0146f32, 0.015, 0.0142], [-1.79f32, -1.75, -1.48]);
            let width = 128;
            let class_row = random.vec(width, 1.0);
            let (patches, rows) = (grid.patches(), images * grid.patches());
            let mut device = Device::new(target);
            let params = PatchEmbedParams {
                pixels: device.upload(&pixels),
                rows: device.alloc::<u16>(rows * k_padded),
                class_row: device.upload(&class_row),
                stream: device.upload(&vec![777.0f32; images * (patches + 1) * width]),
                images: images as u32,
                grid_rows: grid.rows as u32,
                grid_columns: grid.columns as u32,
                patch: patch as u32,
                k_padded: k_padded as u32,
                width: width as u32,
                scale,
                shift,
            };
            let blocks = [grid.columns.div_ceil(8) as u32, grid.rows as u32, images as u32];
            device.launch(
                "patch_embed",
                &format!("patch_embed_rows_{}", half.name()),
                blocks,
                256,
                0,
                &params,
            );
            let actual = half.values(&device.download::<u16>(params.rows, rows * k_padded));
            let mut expected = vec![0.0; actual.len()];
            for row in 0..rows {
                let (image, py, px) =
                    (row / patches, row % patches / grid.columns, row % grid.columns);
                for k in 0..3 * patch * patch {
                    let (c, y, x) = (k / (patch * patch), k / patch % patch, k % patch);
                    let line = image * size.height + py * patch + y;
                    let at = (line * size.width + px * patch + x) * 3 + c;
                    expected[row * k_padded + k] =
                        f64::from(pixels[at]) * f64::from(scale[c]) + f64::from(shift[c]);
                }
            }
            assert_within(
                &format!("rows {half:?} {target} {grid}x{patch}"),
                &actual,
                &expected,
                |i| {
                    if i % k_padded >= 3 * patch * patch {
                        0.0
                    } else {
                        (half.u() + U32) * expected[i].abs() + 2.0 * U32
                    }
                },
            );
            device.launch(
                "patch_embed",
                "patch_embed_class_f32",
                [images as u32, 1, 1],
                256,
                0,
                &params,
            );
            let stream = device.download::<f32>(params.stream, images * (patches + 1) * width);
            for (i, token) in stream.chunks_exact(width).enumerate() {
                let class = i % (patches + 1) == 0;
                assert!(
                    if class { token == class_row } else { token.iter().all(|&v| v == 777.0) },
                    "token {i}"
                );
            }
        }
    }
}
