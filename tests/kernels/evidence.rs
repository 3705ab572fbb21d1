//! What the kernels cost, counted by the simulator: tensor work, bank conflicts and sectors of the main loops.

use ptxsim::{Class, Counters, Loop};

use musc::Grid;

use crate::mutual::pool_shape;
use crate::params::{
    AttentionParams, GRAM_STRIDE, GemmParams, GramPoolParams, PatchDistanceParams,
};
use crate::support::*;

/// The loop with the tensor work, or the most work.
fn main_loop(counters: &Counters) -> Loop {
    counters.main_loop().expect("a kernel of tiles has a loop")
}

/// No pass through shared memory beyond those an access of its width takes.
fn assert_no_conflicts(what: &str, part: &Loop) {
    let total = &part.summary.total;
    assert_eq!(
        total.bank_conflicts(),
        0,
        "{what}: bank conflicts in lines {:?}\n{}",
        part.lines,
        part.summary
    );
}

fn report(what: &str, counters: &Counters) {
    let part = main_loop(counters);
    println!(
        "{what}: lines {:?}, {} iterations of a warp\n{}",
        part.lines, part.iterations, part.summary
    );
    println!(
        "others per mma {:?}, sectors {:?}",
        part.summary.others_per_mma(),
        part.summary.sector_efficiency()
    );
    println!("whole launch\n{}", counters.total());
}

#[test]
fn gemm_main_loop() {
    let (m, n, k) = (256usize, 256usize, 512usize);
    for (target, half) in SHIPPED {
        let mut device = Device::new(target);
        let (a, _) = half.round(&Random(1).vec(m * k, 1.0));
        let (b, _) = half.round(&Random(2).vec(n * k, 1.0));
        let params = GemmParams {
            a: device.upload(&a),
            b: device.upload(&b),
            out: device.alloc::<f32>(m * n),
            bias: device.upload(&vec![0.0f32; n]),
            addend: device.upload(&vec![0.0f32; m * n]),
            m: m as u32,
            n: n as u32,
            k: k as u32,
            lda: k as u32,
            ldb: k as u32,
            ldo: n as u32,
            row_sum_a: device.upload(&vec![0.0f32; 512]),
            mean_a: device.upload(&[0.0f32; 2]),
            row_sum_b: device.upload(&vec![0.0f32; 512]),
            mean_b: device.upload(&[0.0f32; 2]),
            rows_per_image: 256,
            channels: k as u32,
            first_image_b: 1,
            symmetric: 1,
            ..GemmParams::default()
        };
        for variant in ["bias", "bias_residual", "gram"] {
            let counters = device.launch(
                "gemm",
                &format!("gemm_{variant}_{}", half.name()),
                [4, 1, 1],
                128,
                0,
                &params,
            );
            let what = format!("gemm_{variant} {half:?} {target}");
            report(&what, &counters);
            let part = main_loop(&counters);
            assert_no_conflicts(&what, &part);
            assert_eq!(part.summary.sector_efficiency(), Some(1.0), "{what}");
            // 16x8x16 products fed by one ldmatrix each four of them.
            let products = part.summary.class(Class::Mma).mma_flops / (2 * 16 * 8 * 16);
            assert_eq!(products, 4 * part.summary.class(Class::LdMatrix).warps, "{what}");
            // Whole tiles: what is issued is what is useful.
            assert_eq!(counters.total().total.mma_flops, (2 * m * n * k) as u64, "{what}");
            let stores = counters.total().class(Class::StoreGlobal);
            assert_eq!(stores.sectors, stores.sectors_needed, "{what}: whole sectors are stored");
            // In PTX, where each address is its own addition; ptxas folds most into the accesses (1.1 in SASS of sm_86).
            assert!(part.summary.others_per_mma().is_some_and(|o| o < 1.75), "{what}");
        }
    }
}

#[test]
fn attention_main_loop() {
    for (target, half) in SHIPPED {
        let (tokens, heads) = (346usize, 2usize);
        let mut device = Device::new(target);
        let (qkv, _) = half.round(&Random(1).vec(tokens * 3 * heads * 64, 1.0));
        let params = AttentionParams {
            qkv: device.upload(&qkv),
            out: device.alloc::<u16>(tokens * heads * 64),
            images: 1,
            tokens: tokens as u32,
            heads: heads as u32,
            scale_log2: 0.18,
        };
        let entry = format!("attention_flash_{}", half.name());
        let counters = device.launch("attention", &entry, [3, heads as u32, 1], 128, 0, &params);
        let what = format!("attention {half:?} {target}");
        report(&what, &counters);
        let part = main_loop(&counters);
        assert_no_conflicts(&what, &part);
        assert_eq!(part.summary.sector_efficiency(), Some(1.0), "{what}");
        let products = part.summary.class(Class::Mma).mma_flops / (2 * 16 * 8 * 16);
        assert_eq!(products, 4 * part.summary.class(Class::LdMatrix).warps, "{what}");
        // 346 queries are 11 warps of 32, 346 keys 22 groups of 16.
        let issued = counters.total().total.mma_flops;
        assert_eq!(issued, (heads * 2 * 2 * 352 * 352 * 64) as u64, "{what}");
    }
}

/// A pair of images of the size of ViT-L-14 at 518 px: the product, the pooling, and the fused path.
#[test]
fn a_pair_of_37_by_37() {
    let (grid, width, degrees) = (37usize, 64usize, [3u32, 5]);
    let l = grid * grid;
    for target in TARGETS {
        let mut device = Device::new(target);
        let (tokens, _) = Half::F16.round(&Random(9).vec(2 * l * width, 1.0));
        let tokens = device.upload(&tokens);
        let row_sum = device.upload(&vec![0.0f32; 2 * l]);
        let mean = device.upload(&[0.0f32; 2]);
        let inv_norm = device.upload(&vec![1.0f32; 2 * 2 * l]);
        let keys = device.upload(&vec![0u32; 2 * 4 * l]);
        let gram = device.alloc::<f32>(l * GRAM_STRIDE);
        let product = GemmParams {
            a: tokens,
            b: tokens + (l * width * 2) as u64,
            out: gram,
            m: l as u32,
            n: l as u32,
            k: width as u32,
            lda: width as u32,
            ldb: width as u32,
            ldo: GRAM_STRIDE as u32,
            row_sum_a: row_sum,
            mean_a: mean,
            row_sum_b: row_sum,
            mean_b: mean,
            rows_per_image: l as u32,
            channels: width as u32,
            first_image_b: 1,
            symmetric: 1,
            inv_norm_a: inv_norm,
            inv_norm_b: inv_norm,
            keys,
            images: 2,
            kept: 2,
            ..GemmParams::default()
        };
        let counters = device.launch("gemm", "gemm_gram_max_f16", [121, 1, 1], 128, 0, &product);
        let useful = (2 * l * l * width) as f64;
        let share = useful / counters.total().total.mma_flops as f64;
        println!("gram of a pair: useful share {share:.4}");
        assert!(share > 0.94, "a lone pair pads both sides: 1369 / 1408 squared");

        let mut degree = [0; 4];
        degree[..2].copy_from_slice(&degrees);
        let pool = GramPoolParams {
            gram,
            inv_norm_a: inv_norm,
            inv_norm_b: inv_norm,
            keys,
            set_images_a: 2,
            images: 2,
            rows: grid as u32,
            columns: grid as u32,
            first_image_a: 0,
            images_a: 1,
            first_image_b: 1,
            images_b: 1,
            strip_rows: 8,
            strip_columns: grid as u32,
            degrees: 2,
            degree,
            first_kept: 0,
            kept: 2,
            symmetric: 1,
        };
        let shape = pool_shape(Grid::square(grid), &degrees, None);
        assert_eq!(shape.strip_rows, 8);
        let entry = format!("gram_pool_{}", shape.variant);
        let (threads, shared) = (shape.threads as u32, shape.shared_bytes as u32);
        let counters = device.launch("gram_pool", &entry, [10, 5, 1], threads, shared, &pool);
        println!("{entry}: {threads} threads, {shared} bytes shared\n{}", counters.total());
        for part in counters.loops() {
            println!("loop {:?} {} iterations\n{}", part.lines, part.iterations, part.summary);
        }
        let lanes = counters.total().total.warps as f64 * 32.0 / (l * l) as f64;
        println!("lane instructions an element: {lanes:.1}");
        for part in counters.loops().iter().filter(|p| p.summary.total.wavefronts > 0) {
            assert_no_conflicts(&format!("gram_pool {target}"), part);
        }

        let fused = PatchDistanceParams {
            tokens_a: tokens,
            tokens_b: tokens,
            row_sum_a: row_sum,
            mean_a: mean,
            inv_norm_a: inv_norm,
            row_sum_b: row_sum,
            mean_b: mean,
            inv_norm_b: inv_norm,
            keys,
            images: 2,
            rows_per_image: l as u32,
            width: width as u32,
            first_image_a: 0,
            images_a: 2,
            first_image_b: 0,
            images_b: 2,
            first_kept: 0,
            kept: 2,
            channels: width as u32,
            symmetric: 1,
            reserved: 0,
        };
        let tiles = (2 * l as u32).div_ceil(128).pow(2);
        let counters = device.launch(
            "patch_distance",
            "patch_distance_max_f16",
            [tiles, 1, 1],
            128,
            0,
            &fused,
        );
        let part = main_loop(&counters);
        report(&format!("patch_distance {target}"), &counters);
        assert_no_conflicts("patch_distance", &part);
    }
}
