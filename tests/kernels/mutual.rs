//! `lnamd`, `patch_distance`, and `gemm_gram` + `gram_pool`: from tokens to the largest cosines, against f64.

use musc::backend::cuda::launch::gram_pool::Shape;
use musc::backend::cuda::launch::lnamd::norms_launch;

use crate::params::{GemmParams, GramPoolParams, LnamdParams, PatchDistanceParams};
use crate::support::*;

/// Tokens of N images with a mean and a few strong channels, and what lnamd makes of them in f64.
struct Images {
    half: Half,
    n: usize,
    grid: usize,
    width: usize,
    bits: Vec<u16>,
    tokens: Vec<f64>,
}

impl Images {
    fn new(half: Half, n: usize, grid: usize, width: usize) -> Self {
        let mut random = Random((n * grid + width) as u64);
        let raw: Vec<f32> = (0..n * grid * grid * width)
            .map(|i| random.uniform() * if i % width == 3 { 20.0 } else { 1.0 } + 0.2)
            .collect();
        let (bits, tokens) = half.round(&raw);
        Images { half, n, grid, width, bits, tokens }
    }
    fn patches(&self) -> usize {
        self.grid * self.grid
    }
    fn token(&self, image: usize, p: usize) -> &[f64] {
        &self.tokens[(image * self.patches() + p) * self.width..][..self.width]
    }
    fn row_sum(&self, image: usize, p: usize) -> f64 {
        self.token(image, p).iter().sum()
    }
    fn mean(&self, image: usize) -> f64 {
        (0..self.patches()).map(|p| self.row_sum(image, p)).sum::<f64>()
            / (self.patches() * self.width) as f64
    }
    /// Sum over the window of degree r around p of (token - mean), zero outside the grid.
    fn pooled(&self, image: usize, r: usize) -> Vec<Vec<f64>> {
        let mean = self.mean(image);
        (0..self.patches())
            .map(|p| {
                let mut sum = vec![0.0; self.width];
                for q in window(self.grid, p, r) {
                    for (s, v) in sum.iter_mut().zip(self.token(image, q)) {
                        *s += v - mean;
                    }
                }
                sum
            })
            .collect()
    }
}

/// Patches within the r x r window around p.
fn window(grid: usize, p: usize, r: usize) -> Vec<usize> {
    let (y, x, k) = ((p / grid) as isize, (p % grid) as isize, (r / 2) as isize);
    let mut inside = vec![];
    for v in y - k..=y + k {
        for u in x - k..=x + k {
            if v >= 0 && u >= 0 && v < grid as isize && u < grid as isize {
                inside.push(v as usize * grid + u as usize);
            }
        }
    }
    inside
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Runs the three launches of lnamd.
fn lnamd(device: &mut Device, images: &Images, degrees: &[u32]) -> LnamdParams {
    let rows = images.n * images.patches();
    let mut degree = [0; 4];
    degree[..degrees.len()].copy_from_slice(degrees);
    let params = LnamdParams {
        tokens: device.upload(&images.bits),
        row_sum: device.alloc::<f32>(rows),
        mean: device.alloc::<f32>(images.n),
        inv_norm: device.alloc::<f32>(degrees.len() * rows),
        images: images.n as u32,
        grid: images.grid as u32,
        width: images.width as u32,
        degrees: degrees.len() as u32,
        degree,
        norm_images: images.n as u32,
        channels: images.width as u32,
    };
    let name = images.half.name();
    device.launch(
        "lnamd",
        &format!("lnamd_sums_{name}"),
        [rows.div_ceil(4) as u32, 1, 1],
        128,
        0,
        &params,
    );
    device.launch("lnamd", "lnamd_mean_f32", [images.n as u32, 1, 1], 256, 0, &params);
    let (threads, shared) = norms_launch(images.grid, images.width, degrees.len());
    let grid = [images.grid as u32, images.n as u32, 1];
    device.launch("lnamd", &format!("lnamd_norms_{name}"), grid, threads, shared, &params);
    params
}

#[test]
fn sums_means_and_norms() {
    for (target, half) in SHIPPED {
        for (n, grid, width) in [(2, 4, 128), (1, 1, 384), (3, 7, 768), (1, 5, 896), (1, 9, 1024)] {
            let images = Images::new(half, n, grid, width);
            let degrees = [1, 3, 5, 7];
            let mut device = Device::new(target);
            let params = lnamd(&mut device, &images, &degrees);
            let rows = n * images.patches();
            let what = format!("{half:?} {target} {n}x{grid}x{width}");
            let magnitude = images.tokens.iter().fold(0.0f64, |m, v| m.max(v.abs()));

            let sums: Vec<f64> = (0..rows)
                .map(|i| images.row_sum(i / images.patches(), i % images.patches()))
                .collect();
            let actual = widen(&device.download::<f32>(params.row_sum, rows));
            // A lane adds width / 32 numbers, then 5 levels of lanes.
            let sum_bound = (width / 32 + 5) as f64 * U32 * magnitude * width as f64;
            assert_within(&format!("row sums {what}"), &actual, &sums, |_| sum_bound);

            let means: Vec<f64> = (0..n).map(|i| images.mean(i)).collect();
            let actual = widen(&device.download::<f32>(params.mean, n));
            let mean_bound = 2.0 * sum_bound / width as f64 + 16.0 * U32 * magnitude;
            assert_within(&format!("means {what}"), &actual, &means, |_| mean_bound);

            let mut norms = vec![];
            for r in degrees {
                for i in 0..n {
                    norms.extend(images.pooled(i, r as usize).iter().map(|v| 1.0 / norm(v)));
                }
            }
            let actual = widen(&device.download::<f32>(params.inv_norm, degrees.len() * rows));
            // A pooled value is off by r^2 times (the mean's error + 50 roundoffs of a token), a norm by sqrt(C) of that.
            assert_within(&format!("inverse norms {what}"), &actual, &norms, |i| {
                let r = f64::from(degrees[i / rows]);
                let off = r * r * (mean_bound + 50.0 * U32 * magnitude) * (width as f64).sqrt();
                norms[i] * (off * norms[i] + 50.0 * U32)
            });
        }
    }
}

/// Largest cosines in f64 with the bound of an f32 computation: expected, bound, both [degrees, N, N, L]. -inf for i = j;
/// NaN, not compared, for patches that are no multiple of `step`.
fn largest_cosines(images: &Images, degrees: &[u32], step: usize) -> (Vec<f64>, Vec<f64>) {
    let (n, l) = (images.n, images.patches());
    let mut expected = vec![f64::NEG_INFINITY; degrees.len() * n * n * l];
    let mut bound = vec![0.0f64; expected.len()];
    for (d, &r) in degrees.iter().enumerate() {
        let r = r as usize;
        let pooled: Vec<Vec<Vec<f64>>> = (0..n).map(|i| images.pooled(i, r)).collect();
        // Norms of the windows' tokens, added up: no product of a window pair is larger.
        let reach: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                (0..l)
                    .map(|p| {
                        window(images.grid, p, r).iter().map(|&q| norm(images.token(i, q))).sum()
                    })
                    .collect()
            })
            .collect();
        for i in 0..n {
            for j in 0..n {
                if i == j {
                    continue;
                }
                for p in 0..l {
                    let at = ((d * n + i) * n + j) * l + p;
                    if p % step != 0 {
                        expected[at] = f64::NAN;
                        continue;
                    }
                    for q in 0..l {
                        let (a, b) = (&pooled[i][p], &pooled[j][q]);
                        let scale = 1.0 / (norm(a) * norm(b));
                        let cosine = a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() * scale;
                        expected[at] = expected[at].max(cosine);
                        // C products in f32 (tensor cores may truncate), the correction, and the window sums of at
                        // most 4 * 7 additions: relative to the magnitude of what is added.
                        let terms = images.width as f64 * 2.0
                            + 3.0 * (images.width as f64 / 32.0 + 25.0)
                            + 30.0;
                        bound[at] = bound[at].max(terms * U32 * reach[i][p] * reach[j][q] * scale);
                    }
                }
            }
        }
    }
    (expected, bound)
}

fn check_keys(what: &str, keys: &[u32], expected: &[f64], bound: &[f64]) -> f64 {
    let (mut found, mut wanted, mut limit) = (vec![], vec![], vec![]);
    for (i, &key) in keys.iter().enumerate() {
        if expected[i].is_nan() {
            assert_ne!(key, 0, "{what}: entry {i} was not written");
        } else if expected[i] == f64::NEG_INFINITY {
            assert_eq!(key, 0, "{what}: entry {i} of an image with itself was written");
        } else {
            found.push(f64::from(of_key(key)));
            wanted.push(expected[i]);
            limit.push(bound[i]);
        }
    }
    let worst = found.iter().zip(&wanted).map(|(f, w)| (f - w).abs()).fold(0.0, f64::max);
    println!("{what}: cosines off by at most {worst:.2e}");
    assert_within(what, &found, &wanted, |i| limit[i])
}

pub use musc::backend::cuda::launch::GRAM_STRIDE;

/// Runs of images as the runtime deals them out: (first a, images a, first b, images b).
type Blocks = &'static [[u32; 4]];

#[test]
fn patch_distance_in_blocks() {
    let all: [(usize, usize, usize, Blocks); 4] = [
        (2, 1, 128, &[[0, 2, 0, 2]]),
        (5, 7, 128, &[[0, 5, 0, 5]]),
        (3, 12, 384, &[[0, 1, 1, 2], [1, 1, 2, 1]]),
        (4, 10, 256, &[[0, 2, 0, 2], [0, 2, 2, 2], [2, 2, 2, 2]]),
    ];
    for (target, half) in SHIPPED {
        for (n, grid, width, blocks) in all {
            let images = Images::new(half, n, grid, width);
            let mut device = Device::new(target);
            let prepared = lnamd(&mut device, &images, &[1]);
            let (expected, bound) = largest_cosines(&images, &[1], 1);
            let keys = device.upload(&vec![0u32; expected.len()]);
            let image_bytes = (images.patches() * width * 2) as u64;
            for b in blocks {
                let params = PatchDistanceParams {
                    tokens_a: prepared.tokens + u64::from(b[0]) * image_bytes,
                    tokens_b: prepared.tokens + u64::from(b[2]) * image_bytes,
                    row_sum: prepared.row_sum,
                    mean: prepared.mean,
                    inv_norm: prepared.inv_norm,
                    keys,
                    images: n as u32,
                    rows_per_image: images.patches() as u32,
                    width: images.width as u32,
                    first_image_a: b[0],
                    images_a: b[1],
                    first_image_b: b[2],
                    images_b: b[3],
                    first_kept: 0,
                    kept: n as u32,
                    channels: images.width as u32,
                };
                let l = images.patches() as u32;
                let tiles = (b[1] * l).div_ceil(128) * (b[3] * l).div_ceil(128);
                let entry = format!("patch_distance_max_{}", half.name());
                device.launch("patch_distance", &entry, [tiles, 1, 1], 128, 0, &params);
            }
            let keys = device.download::<u32>(keys, expected.len());
            check_keys(
                &format!("patch distance {half:?} {target} {n}x{grid}"),
                &keys,
                &expected,
                &bound,
            );
        }
    }
}

/// Launch of gram_pool: entry, threads, dynamic shared bytes, as the launcher has it.
pub fn pool_launch(grid: u32, degrees: &[u32], strip_rows: u32) -> (String, u32, u32) {
    let degrees: Vec<usize> = degrees.iter().map(|&degree| degree as usize).collect();
    let shape = Shape::with_strip(grid as usize, &degrees, strip_rows as usize).expect("a shape");
    let entry = format!("gram_pool_{}", shape.variant);
    (entry, shape.threads as u32, shape.shared_bytes as u32)
}

#[test]
fn pooled_gram_of_every_degree() {
    let all: [(usize, usize, &[u32], u32, Blocks); 6] = [
        (2, 1, &[1, 3, 5], 4, &[[0, 1, 1, 1]]),
        (3, 4, &[1, 3, 5], 4, &[[0, 3, 0, 3]]),
        (2, 7, &[1, 3, 5], 4, &[[0, 1, 1, 1]]),
        (3, 9, &[3], 4, &[[0, 1, 1, 2], [1, 1, 2, 1]]),
        (2, 10, &[1, 5], 3, &[[0, 2, 0, 2]]),
        (2, 11, &[1, 3, 5, 7], 5, &[[0, 1, 1, 1]]),
    ];
    for (target, half) in SHIPPED {
        for (n, grid, degrees, strip_rows, blocks) in all {
            // A block of compute capability 7.5 has 64 KiB: three degrees a launch.
            let degrees =
                if target == 75 { &degrees[degrees.len().saturating_sub(3)..] } else { degrees };
            pooled_gram(&PoolCase { target, half, n, grid, strip_rows, step: 1 }, degrees, blocks);
        }
    }
}

#[test]
fn pooled_gram_of_large_grids() {
    // As at 518 px with patches of 14, and the largest: 512 px with patches of 8. The f64 side takes one patch in many.
    let case = |grid, strip_rows, step| PoolCase {
        target: 80,
        half: Half::F16,
        n: 2,
        grid,
        strip_rows,
        step,
    };
    pooled_gram(&case(37, 8, 7), &[1, 3, 5], &[[0, 1, 1, 1]]);
    pooled_gram(&case(64, 4, 61), &[1, 3, 5], &[[0, 1, 1, 1]]);
}

struct PoolCase {
    target: u32,
    half: Half,
    n: usize,
    grid: usize,
    strip_rows: u32,
    step: usize,
}

fn pooled_gram(case: &PoolCase, degrees: &[u32], blocks: Blocks) {
    let &PoolCase { target, half, n, grid, strip_rows, step } = case;
    let images = Images::new(half, n, grid, 128);
    let l = images.patches() as u32;
    let mut device = Device::new(target);
    let prepared = lnamd(&mut device, &images, degrees);
    let (expected, bound) = largest_cosines(&images, degrees, step);
    let keys = device.upload(&vec![0u32; expected.len()]);
    for b in blocks {
        let (m, columns) = (b[1] * l, b[3] * l);
        let gram = device.alloc::<f32>(m as usize * GRAM_STRIDE);
        let product = GemmParams {
            a: prepared.tokens + u64::from(b[0] * l * images.width as u32 * 2),
            b: prepared.tokens + u64::from(b[2] * l * images.width as u32 * 2),
            out: gram,
            m,
            n: columns,
            k: images.width as u32,
            lda: images.width as u32,
            ldb: images.width as u32,
            ldo: GRAM_STRIDE as u32,
            row_sum: prepared.row_sum,
            mean: prepared.mean,
            rows_per_image: l,
            channels: images.width as u32,
            first_image_a: b[0],
            first_image_b: b[2],
            ..GemmParams::default()
        };
        let tiles = m.div_ceil(128) * columns.div_ceil(128);
        device.launch(
            "gemm",
            &format!("gemm_gram_{}", half.name()),
            [tiles, 1, 1],
            128,
            0,
            &product,
        );
        let mut degree = [0; 4];
        degree[..degrees.len()].copy_from_slice(degrees);
        let pool = GramPoolParams {
            gram,
            inv_norm: prepared.inv_norm,
            keys,
            images: n as u32,
            grid: grid as u32,
            first_image_a: b[0],
            images_a: b[1],
            first_image_b: b[2],
            images_b: b[3],
            strip_rows,
            degrees: degrees.len() as u32,
            degree,
            first_kept: 0,
            kept: n as u32,
        };
        let (entry, threads, shared) = pool_launch(grid as u32, degrees, strip_rows);
        let blocks = [(grid as u32).div_ceil(4), (grid as u32).div_ceil(strip_rows), b[1] * b[3]];
        device.launch("gram_pool", &entry, blocks, threads, shared, &pool);
    }
    let keys = device.download::<u32>(keys, expected.len());
    check_keys(
        &format!("gram pool {half:?} {target} {n}x{grid} {degrees:?}"),
        &keys,
        &expected,
        &bound,
    );
}
