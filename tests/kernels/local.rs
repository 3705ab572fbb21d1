//! `local_distance`: pooled unit tokens, and the largest cosines of those near a patch's own place, against f64.

use musc::Grid;
use musc::backend::cuda::launch::local_distance::TILE_B;

use crate::mutual::{GRIDS, Prepared, RUNS, Run, lnamd};
use crate::params::LocalDistanceParams;
use crate::reference::*;
use crate::support::*;

/// Unit tokens of a degree; where they lie.
fn pool(device: &mut Device, images: &Images, prepared: &Prepared, degree: u32) -> u64 {
    let params = LocalDistanceParams {
        tokens: prepared.tokens,
        mean: prepared.mean,
        inv_norm: prepared.inv_norm,
        pooled: device.alloc::<u16>(images.bits.len()),
        rows: images.grid.rows as u32,
        columns: images.grid.columns as u32,
        width: images.width as u32,
        channels: images.channels as u32,
        degree,
        images_a: images.n as u32,
        ..LocalDistanceParams::default()
    };
    let entry = format!("local_distance_pool_{}", images.half.name());
    let grid = [images.grid.rows as u32, images.n as u32, 1];
    device.launch("local_distance", &entry, grid, images.width as u32 / 4, 0, &params);
    params.pooled
}

#[test]
fn pooled_tokens_are_unit_tokens() {
    for (target, half) in SHIPPED {
        for (n, grid, width, channels) in [
            (2, Grid::square(5), 128, 128),
            (1, Grid::square(1), 1024, 1000),
            (2, Grid::new(1, 17), 256, 192),
            (1, Grid::new(37, 16), 128, 128),
            (2, Grid::new(64, 5), 128, 100),
            (1, Grid::new(4, 128), 128, 128),
        ] {
            let images = Images::new(half, n, grid, width).with_channels(channels).leaving_out(11);
            for degree in [1, 3, 5, 7] {
                let mut device = Device::new(target);
                let prepared = lnamd(&mut device, &images, &[degree]);
                let pooled = pool(&mut device, &images, &prepared, degree);
                let bits = device.download::<u16>(pooled, images.bits.len());
                let actual = half.values(&bits);
                let what = format!("pooled {half:?} {target} {n}x{grid}x{width} degree {degree}");
                let mean_bound =
                    2.0 * (width / 32 + 5) as f64 * U32 * images.magnitude() * width as f64
                        / channels as f64
                        + 16.0 * U32 * images.magnitude();
                let r2 = f64::from(degree * degree);
                for image in 0..n {
                    for (p, sum) in images.pooled(image, degree as usize).iter().enumerate() {
                        let at = (image * images.patches() + p) * width;
                        let token = &actual[at..at + width];
                        assert!(token[channels..].iter().all(|&v| v == 0.0), "{what}: padding");
                        if images.left_out[at / width] {
                            assert!(token[..channels].iter().all(|v| v.is_nan()), "{what}: NaN");
                            continue;
                        }
                        let inv = 1.0 / norm(sum);
                        let unit: Vec<f64> = sum.iter().map(|v| v * inv).collect();
                        // A pooled value is off by r^2 times (the mean's error + 50 roundoffs of a token), as in lnamd,
                        // the inverse norm by sqrt(C) of that; then one rounding, of 2^-25 where an f16 is not normal.
                        let off = r2 * (mean_bound + 50.0 * U32 * images.magnitude());
                        let of_norm = inv * off * (width as f64).sqrt() + 50.0 * U32;
                        assert_within(&what, &token[..channels], &unit[..channels], |c| {
                            let before = off * inv + unit[c].abs() * of_norm;
                            (half.u() + U32) * (unit[c].abs() + before) + before + 2f64.powi(-25)
                        });
                    }
                }
            }
        }
    }
}

struct Case<'a> {
    target: u32,
    run: &'a Run,
    degree: u32,
    radius: usize,
    step: usize,
}

fn local(case: &Case<'_>, (a, b): (&Images, &Images)) {
    let &Case { target, run, degree, radius, step } = case;
    let mut device = Device::new(target);
    let symmetric = run.symmetric();
    let prepared = lnamd(&mut device, a, &[degree]);
    let pooled_a = pool(&mut device, a, &prepared, degree);
    let (b, pooled_b) = if symmetric {
        (a, pooled_a)
    } else {
        let prepared = lnamd(&mut device, b, &[degree]);
        (b, pool(&mut device, b, &prepared, degree))
    };
    let against = Against { a, b, symmetric, radius: Some(radius), step };
    let expected = run.of_kept(against.largest_cosines(&[degree]), 1);
    let keys = device.upload(&vec![0u32; expected.len()]);
    let l = a.patches() as u32;
    // Each image of A gets its row: blocks of pairs i < j come a second time, the other way round.
    let turned = run.blocks.iter().filter(|block| symmetric && block[0] != block[2]);
    let turned = turned
        .map(|&[first_a, images_a, first_b, images_b]| [first_b, images_b, first_a, images_a]);
    for [first_a, images_a, first_b, images_b] in run.blocks.iter().copied().chain(turned) {
        let params = LocalDistanceParams {
            pooled_a: pooled_a + u64::from(first_a) * a.image_bytes(),
            pooled_b: pooled_b + u64::from(first_b) * a.image_bytes(),
            keys,
            images: b.n as u32,
            rows: a.grid.rows as u32,
            columns: a.grid.columns as u32,
            width: a.width as u32,
            radius: radius as u32,
            first_image_a: first_a,
            images_a,
            first_image_b: first_b,
            images_b,
            first_kept: run.kept.0 as u32,
            kept: run.kept.1 as u32,
            symmetric: u32::from(symmetric),
            ..LocalDistanceParams::default()
        };
        let tiles = [l, images_a.div_ceil(128), images_b.div_ceil(TILE_B as u32)];
        let entry = format!("local_distance_max_{}", a.half.name());
        device.launch("local_distance", &entry, tiles, 128, 0, &params);
    }
    let keys = device.download::<u32>(keys, expected.len());
    let what = format!(
        "local distance {:?} {target} {} degree {degree} radius {radius} {run:?}",
        a.half, a.grid
    );
    check_keys(&what, &keys, &expected);
}

#[test]
fn local_distance_of_rectangles_and_of_two_sets() {
    for (target, half) in SHIPPED {
        // Large grids are slow to simulate: one run each.
        for (grid, degree, radius, runs) in [
            (GRIDS[0], 1, 0, &RUNS[..]),
            (GRIDS[0], 3, 40, &RUNS),
            (Grid::square(6), 1, 2, &RUNS),
            (Grid::new(3, 7), 5, 1, &RUNS),
            (GRIDS[1], 3, 1, &RUNS[..1]),
            (GRIDS[2], 5, 1, &RUNS[2..]),
            (GRIDS[3], 7, 3, &RUNS[..1]),
        ] {
            for run in runs {
                let (a, b) = run.sets(half, grid, 128);
                let (a, b) = (a.with_channels(100), b.with_channels(100));
                let step = 1 + grid.patches() / 100;
                local(&Case { target, run, degree, radius, step }, (&a, &b));
            }
        }
    }
}

#[test]
fn local_distance_of_more_images_than_a_tile_holds() {
    let runs = [
        Run { images: (130, None), blocks: &[[0, 130, 0, 130]], kept: (0, 130) },
        Run { images: (129, Some(66)), blocks: &[[0, 129, 0, 66]], kept: (100, 29) },
    ];
    for (target, half) in SHIPPED {
        for run in &runs {
            let (a, b) = run.sets(half, Grid::new(1, 3), 128);
            local(&Case { target, run, degree: 1, radius: 1, step: 1 }, (&a, &b));
        }
    }
}
