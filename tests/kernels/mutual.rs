//! `lnamd`, `patch_distance`, and `gemm_gram` or `gemm_gram_max` + `gram_pool`: from tokens to the largest cosines, against f64.

use musc::Grid;
use musc::backend::cuda::launch::gram_pool::Shape;
use musc::backend::cuda::launch::lnamd::norms_launch;

use crate::params::{
    GRAM_STRIDE, GemmParams, GramPoolParams, IntervalMeanParams, LnamdParams, PatchDistanceParams,
};
use crate::reference::*;
use crate::support::*;

/// Where the tokens of a set lie, and what lnamd made of them.
#[derive(Clone, Copy)]
pub struct Prepared {
    pub tokens: u64,
    pub row_sum: u64,
    pub mean: u64,
    pub inv_norm: u64,
}

/// Runs the three launches of lnamd. The norms of patches that are left out are NaN afterwards.
pub fn lnamd(device: &mut Device, images: &Images, degrees: &[u32]) -> Prepared {
    let rows = images.n * images.patches();
    let mut degree = [0; 4];
    degree[..degrees.len()].copy_from_slice(degrees);
    let params = LnamdParams {
        tokens: device.upload(&images.bits),
        row_sum: device.alloc::<f32>(rows),
        mean: device.alloc::<f32>(images.n),
        inv_norm: device.alloc::<f32>(degrees.len() * rows),
        images: images.n as u32,
        rows: images.grid.rows as u32,
        columns: images.grid.columns as u32,
        width: images.width as u32,
        degrees: degrees.len() as u32,
        degree,
        norm_images: images.n as u32,
        channels: images.channels as u32,
        reserved: 0,
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
    let (threads, shared) = norms_launch(images.grid.columns, images.width, degrees.len());
    let grid = [images.grid.rows as u32, images.n as u32, 1];
    device.launch("lnamd", &format!("lnamd_norms_{name}"), grid, threads, shared, &params);
    let mut inv_norm = params.inv_norm;
    if images.left_out.contains(&true) {
        let mut norms = device.download::<f32>(inv_norm, degrees.len() * rows);
        for of_degree in norms.chunks_exact_mut(rows) {
            for (norm, _) in of_degree.iter_mut().zip(&images.left_out).filter(|(_, out)| **out) {
                *norm = f32::NAN;
            }
        }
        inv_norm = device.upload(&norms);
    }
    Prepared { tokens: params.tokens, row_sum: params.row_sum, mean: params.mean, inv_norm }
}

#[test]
fn sums_means_and_norms() {
    let square = Grid::square;
    for (target, half) in SHIPPED {
        for (n, grid, width, channels) in [
            (2, square(4), 128, 128),
            (1, square(1), 384, 384),
            (3, square(7), 768, 768),
            (1, square(5), 896, 896),
            (1, square(9), 1024, 1024),
            (2, Grid::new(1, 17), 128, 100),
            (1, Grid::new(37, 16), 128, 128),
            (2, Grid::new(64, 5), 256, 192),
            (2, Grid::new(4, 128), 128, 128),
        ] {
            let images = Images::new(half, n, grid, width).with_channels(channels);
            let degrees = [1, 3, 5, 7];
            let mut device = Device::new(target);
            let prepared = lnamd(&mut device, &images, &degrees);
            let rows = n * images.patches();
            let what = format!("{half:?} {target} {n}x{grid}x{width}");
            let magnitude = images.magnitude();

            let sums: Vec<f64> = (0..rows)
                .map(|i| images.row_sum(i / images.patches(), i % images.patches()))
                .collect();
            let actual = widen(&device.download::<f32>(prepared.row_sum, rows));
            // A lane adds width / 32 numbers, then 5 levels of lanes.
            let sum_bound = (width / 32 + 5) as f64 * U32 * magnitude * width as f64;
            assert_within(&format!("row sums {what}"), &actual, &sums, |_| sum_bound);

            let means: Vec<f64> = (0..n).map(|i| images.mean(i)).collect();
            let actual = widen(&device.download::<f32>(prepared.mean, n));
            let mean_bound = 2.0 * sum_bound / channels as f64 + 16.0 * U32 * magnitude;
            assert_within(&format!("means {what}"), &actual, &means, |_| mean_bound);

            let mut norms = vec![];
            for r in degrees {
                for i in 0..n {
                    norms.extend(images.pooled(i, r as usize).iter().map(|v| 1.0 / norm(v)));
                }
            }
            let actual = widen(&device.download::<f32>(prepared.inv_norm, degrees.len() * rows));
            // A pooled value is off by r^2 times (the mean's error + 50 roundoffs of a token), a norm by sqrt(C) of that.
            assert_within(&format!("inverse norms {what}"), &actual, &norms, |i| {
                let r = f64::from(degrees[i / rows]);
                let off = r * r * (mean_bound + 50.0 * U32 * magnitude) * (width as f64).sqrt();
                norms[i] * (off * norms[i] + 50.0 * U32)
            });
        }
    }
}

/// Runs of images as the runtime deals them out: (first a, images a, first b, images b).
pub type Blocks = &'static [[u32; 4]];

/// Which pairs a test runs.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Images of A's set, and of B's where it is another.
    pub images: (usize, Option<usize>),
    pub blocks: Blocks,
    /// The first image with a row of keys, and how many have one.
    pub kept: (usize, usize),
}

/// One set, every pair in one block; one set in blocks, of which some rows are kept; queries against other images.
pub const RUNS: [Run; 3] = [
    Run { images: (3, None), blocks: &[[0, 3, 0, 3]], kept: (0, 3) },
    Run { images: (3, None), blocks: &[[0, 1, 1, 2], [1, 1, 2, 1]], kept: (1, 1) },
    Run {
        images: (3, Some(4)),
        blocks: &[[0, 2, 0, 3], [0, 2, 3, 1], [2, 1, 0, 1], [2, 1, 1, 3]],
        kept: (1, 2),
    },
];

impl Run {
    pub fn symmetric(&self) -> bool {
        self.images.1.is_none()
    }

    /// The sets of A and B with some patches left out, and an image of B where it is another set; else B's is not used.
    pub fn sets(&self, half: Half, grid: Grid, width: usize) -> (Images, Images) {
        let (n, m) = self.images;
        let a = Images::new(half, n, grid, width).leaving_out(7);
        let b = Images::seeded(half, m.unwrap_or(1), grid, width, 1 << 32).leaving_out(5);
        (a, if m.is_some() { b.leaving_out_image(1) } else { b })
    }

    /// Those of the keys `[degrees, N of a, N of b, L]` that are kept.
    pub fn of_kept(&self, expected: Vec<Expected>, degrees: usize) -> Vec<Expected> {
        let row = expected.len() / degrees / self.images.0;
        let rows = expected.chunks_exact(row).enumerate();
        let (first, kept) = self.kept;
        rows.filter(|(at, _)| (first..first + kept).contains(&(at % self.images.0)))
            .flat_map(|(_, row)| row.to_vec())
            .collect()
    }
}

/// Grids that are not square, one of them wider than the 64 columns that a block of gram_pool takes whole.
pub const GRIDS: [Grid; 4] =
    [Grid::new(1, 17), Grid::new(37, 16), Grid::new(64, 5), Grid::new(4, 128)];

fn patch_distance(target: u32, run: &Run, (a, b): (&Images, &Images), step: usize) {
    let mut device = Device::new(target);
    let symmetric = run.symmetric();
    let side_a = lnamd(&mut device, a, &[1]);
    let side_b = if symmetric { side_a } else { lnamd(&mut device, b, &[1]) };
    let b = if symmetric { a } else { b };
    let against = Against { a, b, symmetric, radius: None, step };
    let expected = run.of_kept(against.largest_cosines(&[1]), 1);
    let keys = fused_keys(&mut device, run, (a, b), (side_a, side_b));
    let what = format!("patch distance {:?} {target} {} {run:?}", a.half, a.grid);
    check_keys(&what, &keys, &expected);
}

/// The keys of a run, by patch_distance.
fn fused_keys(
    device: &mut Device,
    run: &Run,
    (a, b): (&Images, &Images),
    (side_a, side_b): (Prepared, Prepared),
) -> Vec<u32> {
    let symmetric = run.symmetric();
    let count = run.kept.1 * b.n * a.patches();
    let keys = device.upload(&vec![0u32; count]);
    let l = a.patches() as u32;
    for block in run.blocks {
        let [first_a, images_a, first_b, images_b] = *block;
        let params = PatchDistanceParams {
            tokens_a: side_a.tokens + u64::from(first_a) * a.image_bytes(),
            tokens_b: side_b.tokens + u64::from(first_b) * a.image_bytes(),
            row_sum_a: side_a.row_sum,
            mean_a: side_a.mean,
            inv_norm_a: side_a.inv_norm,
            row_sum_b: side_b.row_sum,
            mean_b: side_b.mean,
            inv_norm_b: side_b.inv_norm,
            keys,
            images: b.n as u32,
            rows_per_image: l,
            width: a.width as u32,
            first_image_a: first_a,
            images_a,
            first_image_b: first_b,
            images_b,
            first_kept: run.kept.0 as u32,
            kept: run.kept.1 as u32,
            channels: a.channels as u32,
            symmetric: u32::from(symmetric),
            reserved: 0,
        };
        let tiles = (images_a * l).div_ceil(128) * (images_b * l).div_ceil(128);
        let entry = format!("patch_distance_max_{}", a.half.name());
        device.launch("patch_distance", &entry, [tiles, 1, 1], 128, 0, &params);
    }
    device.download::<u32>(keys, count)
}

#[test]
fn patch_distance_in_blocks() {
    let all: [(usize, usize, usize, usize, Blocks); 4] = [
        (2, 1, 128, 128, &[[0, 2, 0, 2]]),
        (5, 7, 128, 96, &[[0, 5, 0, 5]]),
        (3, 12, 384, 384, &[[0, 1, 1, 2], [1, 1, 2, 1]]),
        (4, 10, 256, 256, &[[0, 2, 0, 2], [0, 2, 2, 2], [2, 2, 2, 2]]),
    ];
    for (target, half) in SHIPPED {
        for (n, side, width, channels, blocks) in all {
            let images = Images::new(half, n, Grid::square(side), width).with_channels(channels);
            let run = Run { images: (n, None), blocks, kept: (0, n) };
            patch_distance(target, &run, (&images, &images), 1);
        }
    }
}

#[test]
fn patch_distance_of_rectangles_and_of_two_sets() {
    for (target, half) in SHIPPED {
        for grid in GRIDS {
            for run in &RUNS {
                let (a, b) = run.sets(half, grid, 128);
                patch_distance(target, run, (&a, &b), 1 + grid.patches() / 100);
            }
        }
    }
}

/// A product and a pooling for each block, of one set or two.
struct PoolCase<'a> {
    target: u32,
    degrees: &'a [u32],
    /// Rows and columns of a strip; without, what the launcher takes on a card of that age.
    strip: Option<(usize, usize)>,
    step: usize,
}

/// How gram_pool is launched, with a strip or as the launcher has it.
pub fn pool_shape(grid: Grid, degrees: &[u32], strip: Option<(usize, usize)>) -> Shape {
    let degrees: Vec<usize> = degrees.iter().map(|&degree| degree as usize).collect();
    match strip {
        Some(strip) => Shape::with_strip(grid, &degrees, strip).expect("a shape"),
        None => Shape::best(grid, &degrees, 64 << 10).expect("a shape"),
    }
}

/// The keys of a run, by gemm_gram and gram_pool.
fn pooled_keys(
    device: &mut Device,
    case: &PoolCase<'_>,
    run: &Run,
    (a, b): (&Images, &Images),
    (side_a, side_b): (Prepared, Prepared),
) -> (u64, usize) {
    let (l, degrees) = (a.patches() as u32, case.degrees);
    let symmetric = u32::from(run.symmetric());
    let count = degrees.len() * run.kept.1 * b.n * a.patches();
    let keys = device.upload(&vec![0u32; count]);
    for block in run.blocks {
        let [first_a, images_a, first_b, images_b] = *block;
        let (m, columns) = (images_a * l, images_b * l);
        let gram = device.alloc::<f32>(m as usize * GRAM_STRIDE);
        // Degree 1 is the product's own.
        let first = usize::from(degrees[0] == 1);
        let product = GemmParams {
            inv_norm_a: side_a.inv_norm,
            inv_norm_b: side_b.inv_norm,
            keys,
            images: b.n as u32,
            first_kept: run.kept.0 as u32,
            kept: run.kept.1 as u32,
            a: side_a.tokens + u64::from(first_a) * a.image_bytes(),
            b: side_b.tokens + u64::from(first_b) * a.image_bytes(),
            out: gram,
            m,
            n: columns,
            k: a.width as u32,
            lda: a.width as u32,
            ldb: a.width as u32,
            ldo: GRAM_STRIDE as u32,
            row_sum_a: side_a.row_sum,
            mean_a: side_a.mean,
            row_sum_b: side_b.row_sum,
            mean_b: side_b.mean,
            rows_per_image: l,
            channels: a.channels as u32,
            first_image_a: first_a,
            first_image_b: first_b,
            symmetric,
            ..GemmParams::default()
        };
        let tiles = m.div_ceil(128) * columns.div_ceil(128);
        let variant = if first == 1 { "gram_max" } else { "gram" };
        let entry = format!("gemm_{variant}_{}", a.half.name());
        device.launch("gemm", &entry, [tiles, 1, 1], 128, 0, &product);
        let pooled = &degrees[first..];
        if pooled.is_empty() {
            continue;
        }
        let shape = pool_shape(a.grid, pooled, case.strip);
        let mut degree = [0; 4];
        degree[..pooled.len()].copy_from_slice(pooled);
        let of_degrees = |images: usize| (4 * first * images * a.patches()) as u64;
        let pool = GramPoolParams {
            gram,
            inv_norm_a: side_a.inv_norm + of_degrees(a.n),
            inv_norm_b: side_b.inv_norm + of_degrees(b.n),
            keys: keys + of_degrees(run.kept.1 * b.n),
            set_images_a: a.n as u32,
            images: b.n as u32,
            rows: a.grid.rows as u32,
            columns: a.grid.columns as u32,
            first_image_a: first_a,
            images_a,
            first_image_b: first_b,
            images_b,
            strip_rows: shape.strip_rows as u32,
            strip_columns: shape.strip_columns as u32,
            degrees: pooled.len() as u32,
            degree,
            first_kept: run.kept.0 as u32,
            kept: run.kept.1 as u32,
            symmetric,
        };
        let blocks = shape.blocks(a.grid, (images_a * images_b) as usize).map(|b| b as u32);
        let entry = format!("gram_pool_{}", shape.variant);
        let (threads, shared) = (shape.threads as u32, shape.shared_bytes as u32);
        device.launch("gram_pool", &entry, blocks, threads, shared, &pool);
    }
    (keys, count)
}

fn pooled_gram(case: &PoolCase<'_>, run: &Run, (a, b): (&Images, &Images)) {
    let &PoolCase { target, degrees, step, .. } = case;
    let mut device = Device::new(target);
    let symmetric = run.symmetric();
    let side_a = lnamd(&mut device, a, degrees);
    let side_b = if symmetric { side_a } else { lnamd(&mut device, b, degrees) };
    let b = if symmetric { a } else { b };
    let (keys, count) = pooled_keys(&mut device, case, run, (a, b), (side_a, side_b));
    let keys = device.download::<u32>(keys, count);
    let against = Against { a, b, symmetric, radius: None, step };
    let expected = run.of_kept(against.largest_cosines(degrees), degrees.len());
    let what = format!("gram pool {:?} {target} {} {degrees:?} {run:?}", a.half, a.grid);
    check_keys(&what, &keys, &expected);
}

#[test]
fn pooled_gram_of_every_degree() {
    let all: [(usize, usize, &[u32], usize, Blocks); 6] = [
        (2, 1, &[1, 3, 5], 4, &[[0, 1, 1, 1]]),
        (3, 4, &[1, 3, 5], 4, &[[0, 3, 0, 3]]),
        (2, 7, &[1, 3, 5], 4, &[[0, 1, 1, 1]]),
        (3, 9, &[3], 4, &[[0, 1, 1, 2], [1, 1, 2, 1]]),
        (2, 10, &[1, 5], 3, &[[0, 2, 0, 2]]),
        (2, 11, &[1, 3, 5, 7], 5, &[[0, 1, 1, 1]]),
    ];
    for (target, half) in SHIPPED {
        for (n, side, degrees, strip_rows, blocks) in all {
            // A block of compute capability 7.5 has 64 KiB: three degrees a launch.
            let degrees =
                if target == 75 { &degrees[degrees.len().saturating_sub(3)..] } else { degrees };
            let images = Images::new(half, n, Grid::square(side), 128);
            let run = Run { images: (n, None), blocks, kept: (0, n) };
            let case = PoolCase { target, degrees, strip: Some((strip_rows, side)), step: 1 };
            pooled_gram(&case, &run, (&images, &images));
        }
    }
}

#[test]
fn degree_1_is_the_same_bits_stored_or_fused_and_however_the_pairs_are_cut() {
    for (target, half) in SHIPPED {
        let images = Images::new(half, 3, Grid::new(5, 11), 128).leaving_out(7);
        let all = Run { images: (3, None), blocks: &[[0, 3, 0, 3]], kept: (0, 3) };
        let cut = Run { blocks: &[[0, 1, 1, 2], [1, 1, 2, 1]], ..all };
        let case = PoolCase { target, degrees: &[1], strip: None, step: 1 };
        let mut device = Device::new(target);
        let side = lnamd(&mut device, &images, &[1]);
        let (sets, sides) = ((&images, &images), (side, side));
        let fused = fused_keys(&mut device, &all, sets, sides);
        assert_eq!(fused_keys(&mut device, &cut, sets, sides), fused, "{half:?} {target}");
        for run in [all, cut] {
            let (keys, count) = pooled_keys(&mut device, &case, &run, sets, sides);
            assert_eq!(device.download::<u32>(keys, count), fused, "{half:?} {target} {run:?}");
        }
    }
}

#[test]
fn pooled_gram_of_large_grids() {
    // As at 518 px with patches of 14, and at 512 px with patches of 8. The f64 side takes one patch in many.
    for (side, strip_rows, step) in [(37, 8, 7), (64, 4, 61)] {
        let images = Images::new(Half::F16, 2, Grid::square(side), 128);
        let run = Run { images: (2, None), blocks: &[[0, 1, 1, 1]], kept: (0, 2) };
        let strip = Some((strip_rows, side));
        let case = PoolCase { target: 80, degrees: &[1, 3, 5], strip, step };
        pooled_gram(&case, &run, (&images, &images));
    }
}

#[test]
fn pooled_gram_of_rectangles_and_of_two_sets() {
    for (target, half) in SHIPPED {
        for grid in GRIDS {
            let step = 1 + grid.patches() / 60;
            let all: [(_, &[u32]); 4] =
                [(0, &[1, 3, 5]), (1, &[1, 3, 5]), (2, &[1, 3, 5]), (1, &[7])];
            for (run, degrees) in all {
                let (a, b) = RUNS[run].sets(half, grid, 128);
                let case = PoolCase { target, degrees, strip: None, step };
                pooled_gram(&case, &RUNS[run], (&a, &b));
            }
        }
    }
}

#[test]
fn pooled_gram_in_parts_of_a_row() {
    // Strips of few columns: each has neighbours on its left, its right, or both.
    for (degrees, strip, grid) in [
        (&[1, 3, 5][..], (4, 5), Grid::new(7, 11)),
        (&[1, 3, 5], (8, 1), Grid::new(9, 3)),
        (&[1, 5], (3, 4), Grid::new(5, 12)),
        (&[3], (1, 7), Grid::new(2, 13)),
        (&[1, 3, 7], (5, 6), Grid::new(11, 8)),
        (&[7], (2, 2), Grid::new(4, 9)),
    ] {
        for run in &RUNS {
            let (a, b) = run.sets(Half::F16, grid, 128);
            let case = PoolCase { target: 80, degrees, strip: Some(strip), step: 1 };
            pooled_gram(&case, run, (&a, &b));
        }
    }
}

/// From tokens to scores: references that are the query again are zeroed, and each query has ranks of its own.
#[test]
fn queries_against_references_of_which_some_are_the_query() {
    let (grid, degrees, step) = (Grid::new(5, 7), [1, 3, 5], 1);
    let run = Run { images: (3, Some(6)), blocks: &[[0, 3, 0, 4], [0, 3, 4, 2]], kept: (0, 3) };
    let again = [(1, 2), (1, 4)];
    for (target, half) in SHIPPED {
        let a = Images::new(half, 3, grid, 128);
        let mut b = Images::seeded(half, 6, grid, 128, 1 << 32);
        for (query, reference) in again {
            b.copy(reference, &a, query);
        }
        let mut device = Device::new(target);
        let side_a = lnamd(&mut device, &a, &degrees);
        let side_b = lnamd(&mut device, &b, &degrees);
        let case = PoolCase { target, degrees: &degrees, strip: None, step };
        let (keys, count) = pooled_keys(&mut device, &case, &run, (&a, &b), (side_a, side_b));
        let mut keys = device.download::<u32>(keys, count);
        let l = grid.patches();
        let row = |d: usize, i: usize, j: usize| ((d * a.n + i) * b.n + j) * l;
        // The lower half of what is left: three of six, and two of four.
        let compared =
            |i: usize| (0..b.n).filter(move |&j| !again.contains(&(i, j))).collect::<Vec<_>>();
        let ranks: Vec<u32> = (0..a.n).flat_map(|i| [0, compared(i).len() as u32 / 2]).collect();
        for d in 0..degrees.len() {
            for (i, j) in again {
                keys[row(d, i, j)..][..l].fill(0);
            }
        }
        let expected = Against { a: &a, b: &b, symmetric: false, radius: None, step }
            .largest_cosines(&degrees);
        for (d, degree) in degrees.into_iter().enumerate() {
            let params = IntervalMeanParams {
                keys: device.upload(&keys[row(d, 0, 0)..row(d + 1, 0, 0)]),
                scores: device.alloc::<f32>(a.n * l),
                ranks: device.upload(&ranks),
                images: b.n as u32,
                patches: l as u32,
                images_a: a.n as u32,
                weight: 1.0,
                ..IntervalMeanParams::default()
            };
            let blocks = [l.div_ceil(32) as u32, a.n as u32, 1];
            device.launch("interval_mean", "interval_mean_keys_f32", blocks, 256, 0, &params);
            let scores = widen(&device.download::<f32>(params.scores, a.n * l));
            let (mut wanted, mut limit) = (vec![], vec![]);
            for at in 0..a.n * l {
                let (i, p) = (at / l, at % l);
                let mut distances: Vec<(f64, f64)> = compared(i)
                    .into_iter()
                    .map(|j| match expected[row(d, i, j) + p] {
                        Expected::Cosine(cosine, bound) => {
                            let distance = (2.0 - 2.0 * cosine).sqrt();
                            // The slope of the root of 2 - 2 cos.
                            (distance, bound / distance)
                        }
                        other => panic!("{other:?}"),
                    })
                    .collect();
                distances.sort_by(|x, y| x.0.total_cmp(&y.0));
                let most = distances.iter().map(|d| d.1).fold(0.0, f64::max);
                let high = ranks[2 * i + 1] as usize;
                let mean = distances[..high].iter().map(|d| d.0).sum::<f64>() / high as f64;
                wanted.push(mean);
                limit.push(2.0 * most + 16.0 * U32 * mean);
            }
            let what = format!("scores {half:?} {target} degree {degree}");
            assert_within(&what, &scores, &wanted, |at| limit[at]);
        }
    }
}
