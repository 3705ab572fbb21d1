//! `gemm` against f64 products of the same rounded operands.

use crate::params::GemmParams;
use crate::support::*;

/// Operands, their exact products and the sums of the products' magnitudes.
struct Case {
    a: Vec<u16>,
    b: Vec<u16>,
    product: Vec<f64>,
    magnitude: Vec<f64>,
}

/// Row strides are wider than the rows, to see that they are used.
const PAD: usize = 8;

fn case(half: Half, m: usize, n: usize, k: usize, seed: u64) -> Case {
    let mut random = Random(seed);
    let (a, av) = half.round(&random.vec(m * (k + PAD), 1.0));
    let (b, bv) = half.round(&random.vec(n * (k + PAD), 1.0));
    let mut product = vec![0.0; m * n];
    let mut magnitude = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            let x = &av[i * (k + PAD)..][..k];
            let y = &bv[j * (k + PAD)..][..k];
            product[i * n + j] = x.iter().zip(y).map(|(p, q)| p * q).sum();
            magnitude[i * n + j] = x.iter().zip(y).map(|(p, q)| (p * q).abs()).sum();
        }
    }
    Case { a, b, product, magnitude }
}

fn blocks(m: usize, n: usize) -> [u32; 3] {
    [(m.div_ceil(128) * n.div_ceil(128)) as u32, 1, 1]
}

/// Error of a sum of k products in f32, whatever the order: tensor cores may truncate, hence twice the roundoff.
fn sum_error(k: usize, magnitude: f64) -> f64 {
    k as f64 * 2.0 * U32 * magnitude
}

/// The error function: its series near zero, the continued fraction of its complement further out.
fn erf(z: f64) -> f64 {
    let root_pi = std::f64::consts::PI.sqrt();
    if z.abs() < 2.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..60 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * 2.0 / root_pi;
    }
    let a = z.abs();
    let tail = (1..200).rev().fold(a, |t, n| a + f64::from(n) / 2.0 / t);
    z.signum() * (1.0 - (-a * a).exp() / (root_pi * tail))
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / 2f64.sqrt()))
}

#[test]
fn half_epilogues() {
    for (target, half) in SHIPPED {
        for (variant, m, n, k) in [
            ("bias", 1, 8, 32),
            ("bias", 127, 128, 64),
            ("bias_gelu", 129, 136, 96),
            ("bias_quick_gelu", 257, 40, 160),
            ("bias", 130, 264, 608),
        ] {
            let case = case(half, m, n, k, 7 + m as u64);
            let bias = Random(3).vec(n, 1.0);
            let mut device = Device::new(target);
            let mut params = params(&mut device, &case, m, n, k, n);
            params.bias = device.upload(&bias);
            let out = device.alloc::<u16>(m * n);
            params.out = out;
            device.launch(
                "gemm",
                &format!("gemm_{variant}_{}", half.name()),
                blocks(m, n),
                128,
                0,
                &params,
            );
            let actual = half.values(&device.download::<u16>(out, m * n));
            let sums: Vec<f64> =
                (0..m * n).map(|i| case.product[i] + f64::from(bias[i % n])).collect();
            let expected: Vec<f64> = sums
                .iter()
                .map(|&x| match variant {
                    "bias_gelu" => gelu(x),
                    "bias_quick_gelu" => x / (1.0 + (-1.702 * x).exp()),
                    _ => x,
                })
                .collect();
            // Both activations have a slope below 1.13; the formula for erfc is off by 1.5e-7, 2.5 roundoffs of f32, the
            // fast exponential by 4.
            assert_within(
                &format!("{variant} {half:?} {target} {m}x{n}x{k}"),
                &actual,
                &expected,
                |i| {
                    half.u() * expected[i].abs()
                        + 1.13 * sum_error(k + 1, case.magnitude[i] + 1.0)
                        + 8.0 * U32 * sums[i].abs()
                        + 1e-7
                },
            );
        }
    }
}

fn params(
    device: &mut Device,
    case: &Case,
    m: usize,
    n: usize,
    k: usize,
    ldo: usize,
) -> GemmParams {
    GemmParams {
        a: device.upload(&case.a),
        b: device.upload(&case.b),
        m: m as u32,
        n: n as u32,
        k: k as u32,
        lda: (k + PAD) as u32,
        ldb: (k + PAD) as u32,
        ldo: ldo as u32,
        ..GemmParams::default()
    }
}

#[test]
fn residual_in_place() {
    for (target, half) in SHIPPED {
        for (scaled, m, n, k) in [(true, 131, 132, 64), (false, 64, 384, 32)] {
            let case = case(half, m, n, k, 11);
            let mut random = Random(5);
            let (bias, scale, stream) =
                (random.vec(n, 1.0), random.vec(n, 0.5), random.vec(m * n, 4.0));
            let mut device = Device::new(target);
            let mut params = params(&mut device, &case, m, n, k, n);
            params.bias = device.upload(&bias);
            params.layer_scale = if scaled { device.upload(&scale) } else { 0 };
            params.out = device.upload(&stream);
            params.addend = params.out;
            let entry = format!("gemm_bias_residual_{}", half.name());
            device.launch("gemm", &entry, blocks(m, n), 128, 0, &params);
            let actual = widen(&device.download::<f32>(params.out, m * n));
            let factor = |i: usize| if scaled { f64::from(scale[i % n]) } else { 1.0 };
            let expected: Vec<f64> = (0..m * n)
                .map(|i| {
                    f64::from(stream[i]) + factor(i) * (case.product[i] + f64::from(bias[i % n]))
                })
                .collect();
            assert_within(&format!("residual {half:?} {target}"), &actual, &expected, |i| {
                factor(i).abs() * sum_error(k + 1, case.magnitude[i] + 1.0)
                    + 2.0 * U32 * expected[i].abs()
                    + 1e-9
            });
        }
    }
}

#[test]
fn embedding_skips_the_class_row() {
    let (images, patches, n, k) = (3, 49, 128, 192);
    let m = images * patches;
    for (target, half) in SHIPPED {
        let case = case(half, m, n, k, 13);
        let position = Random(1).vec((patches + 1) * n, 1.0);
        let stream = vec![777.0f32; images * (patches + 1) * n];
        let mut device = Device::new(target);
        let mut params = params(&mut device, &case, m, n, k, n);
        params.addend = device.upload(&position);
        params.out = device.upload(&stream);
        params.rows_per_image = patches as u32;
        device.launch(
            "gemm",
            &format!("gemm_embed_{}", half.name()),
            blocks(m, n),
            128,
            0,
            &params,
        );
        let actual = device.download::<f32>(params.out, stream.len());
        for image in 0..images {
            let rows = &actual[image * (patches + 1) * n..][..(patches + 1) * n];
            assert!(rows[..n].iter().all(|&v| v == 777.0), "the class row is not the kernel's");
            let at = |i: usize| image * patches * n + i;
            let expected: Vec<f64> = (0..patches * n)
                .map(|i| case.product[at(i)] + f64::from(position[n + i]))
                .collect();
            assert_within(
                &format!("embed {half:?} {target}"),
                &widen(&rows[n..]),
                &expected,
                |i| sum_error(k + 1, case.magnitude[at(i)] + 1.0),
            );
        }
    }
}

#[test]
fn gram_of_pairs_that_count() {
    // Three images of 49 patches against images 1 .. 5: tiles hold several images, one tile holds no pair.
    let (images_a, images_b, patches, k) = (3usize, 4usize, 49usize, 128usize);
    let (m, n, ldo) = (images_a * patches, images_b * patches, 200);
    for (target, half) in SHIPPED {
        let runs = [(0usize, true), (1, true), (0, false), (1, false)];
        for ((first_b, symmetric), maxima) in
            runs.into_iter().flat_map(|run| [(run, false), (run, true)])
        {
            let case = case(half, m, n, k, 17);
            let mut device = Device::new(target);
            let mut params = params(&mut device, &case, m, n, k, ldo);
            params.out = device.upload(&vec![777.0f32; m * ldo]);
            params.rows_per_image = patches as u32;
            params.channels = k as u32;
            params.first_image_b = first_b as u32;
            // Five images' means and row sums: any numbers, the correction is what they say.
            let mean = Random(19).vec(5, 0.5);
            let row_sum = Random(23).vec(5 * patches, 4.0);
            params.symmetric = u32::from(symmetric);
            params.mean_a = device.upload(&mean);
            params.row_sum_a = device.upload(&row_sum);
            // Of another set, other numbers.
            let (mean_b, row_sum_b) = if symmetric {
                (mean.clone(), row_sum.clone())
            } else {
                (Random(29).vec(5, 0.5), Random(31).vec(5 * patches, 4.0))
            };
            params.mean_b = device.upload(&mean_b);
            params.row_sum_b = device.upload(&row_sum_b);
            if maxima {
                // What is stored is the same with degree 1 beside it; its keys are mutual.rs's.
                params.inv_norm_a = device.upload(&vec![1.0f32; 5 * patches]);
                params.inv_norm_b = params.inv_norm_a;
                params.keys = device.upload(&vec![0u32; 5 * 5 * patches]);
                (params.images, params.kept) = (5, 5);
            }
            device.launch(
                "gemm",
                &format!("gemm_gram{}_{}", if maxima { "_max" } else { "" }, half.name()),
                blocks(m, n),
                128,
                0,
                &params,
            );
            let actual = device.download::<f32>(params.out, m * ldo);
            let (mut found, mut expected, mut bound) = (vec![], vec![], vec![]);
            for i in 0..m {
                for j in 0..n {
                    let (a, b) = (i / patches, first_b + j / patches);
                    if a < b || !symmetric {
                        let (mean_a, mean_b) = (f64::from(mean[a]), f64::from(mean_b[b]));
                        let (sum_a, sum_b) = (
                            f64::from(row_sum[i]),
                            f64::from(row_sum_b[b * patches + j % patches]),
                        );
                        let centred = sum_b - k as f64 * mean_b;
                        found.push(f64::from(actual[i * ldo + j]));
                        expected.push(case.product[i * n + j] - mean_b * sum_a - mean_a * centred);
                        let terms = (mean_b * sum_a).abs()
                            + mean_a.abs() * (sum_b.abs() + k as f64 * mean_b.abs());
                        bound.push(
                            sum_error(k, case.magnitude[i * n + j])
                                + 8.0 * U32 * (terms + case.magnitude[i * n + j]),
                        );
                    }
                }
                assert!(
                    actual[i * ldo + n..(i + 1) * ldo].iter().all(|&v| v == 777.0),
                    "written past column n"
                );
            }
            assert_within(
                &format!("gram {half:?} {target} symmetric {symmetric} maxima {maxima}"),
                &found,
                &expected,
                |i| bound[i],
            );
            if first_b == 0 && symmetric {
                // Rows from 128 on are image 2, columns below 128 images 0 to 2.
                assert!(
                    actual[128 * ldo..128 * ldo + 128].iter().all(|&v| v == 777.0),
                    "a tile without a pair ran"
                );
            }
        }
    }
}
