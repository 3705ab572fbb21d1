//! The CPU backend's unsafe parts under AddressSanitizer: every instruction set and format that the machine has, on sizes that no
//! tile and no vector fits. Operands are allocated at their very size, so that a read past one is a read past its allocation.
//! Compiled and run by `check.sh`.

use std::path::Path;

use musc::backend::cpu::{Cpu, CpuOptions, Format, Instructions};
use musc::backend::{Backend, Extraction, HostFeatures, Pixels, References};
use musc::image::Normalisation;
use musc::model::{Activation, Vit};
use musc::scoring::MutualScoring;
use musc::{Grid, ImageSize};

fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn features(images: usize, grid: Grid, width: usize, seed: u64) -> HostFeatures {
    let tokens = values(images * grid.patches() * width, seed);
    HostFeatures::new(images, grid, width, vec![0], vec![tokens])
}

/// The largest difference; a NaN is none.
fn apart(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).fold(0.0, |most, (a, b)| {
        let apart = (a - b).abs();
        assert!(apart.is_finite(), "{a} and {b}");
        most.max(apart)
    })
}

fn main() {
    let mut kinds: Vec<Cpu> = Vec::new();
    let mut lacking = Vec::new();
    for each in Instructions::ALL {
        if !each.available() {
            lacking.push(each);
            continue;
        }
        let options = CpuOptions::default().with_threads(3).with_instructions(each);
        kinds.push(Cpu::open(options).expect("its instructions"));
        if each == Instructions::Avx512Bf16 {
            let options = options.with_formats(Format::Bf16, Format::Bf16);
            kinds.push(Cpu::open(options).expect("its instructions"));
        }
    }
    println!("not on this machine, not run: {} {lacking:?}", lacking.len());
    let exact = Cpu::new(1).expect("a processor");
    let mut runs = 0;
    for (rows, columns) in [(1, 1), (1, 17), (7, 7), (16, 3), (5, 13), (16, 16), (3, 37)] {
        let grid = Grid::new(rows, columns);
        for width in [1, 2, 19, 64] {
            let set = features(4, grid, width, 7);
            let queries = features(3, grid, width, 8);
            let degrees: Vec<usize> =
                [1, 3, 5].into_iter().filter(|degree| *degree < 2 * rows.max(columns)).collect();
            let scoring = MutualScoring::default().with_degrees(degrees);
            for references in [References::Others, References::Set(&set)] {
                let scores = |cpu: &Cpu| {
                    cpu.patch_scores(&queries, references, &scoring, &()).expect("sizes fit").mean()
                };
                let expected = scores(&exact);
                for cpu in &kinds {
                    // Of width 1 and 2 tokens are of few directions: a distance there is a rounding or all of 2.
                    let apart = apart(&scores(cpu), &expected);
                    let bound = if cpu.scoring_format() == Format::F32 { 2e-3 } else { 0.2 };
                    assert!(width < 3 || apart < bound, "{grid} {width} {}: {apart}", cpu.description());
                    runs += 1;
                }
            }
        }
    }
    let vit = Vit::open(Path::new("tests/data/dinov2_tiny_weights.safetensors")).expect("weights");
    for (height, width) in [(14, 14), (14, 42), (56, 56), (98, 70)] {
        let input = ImageSize::new(height, width);
        let pixels = values(3 * 3 * height * width, 9);
        let extraction = Extraction::new(vec![1, 3], input, Activation::Gelu, Normalisation::IMAGENET);
        let tokens = |cpu: &Cpu| {
            let model = cpu.load(&vit, &extraction).expect("a size that fits");
            let made = cpu.extract(&model, Pixels::Normalised(&pixels), &()).expect("pixels fit");
            made.tokens.concat()
        };
        let expected = tokens(&exact);
        for cpu in &kinds {
            let apart = apart(&tokens(cpu), &expected);
            assert!(apart < 0.2, "{input} {}: {apart}", cpu.description());
            runs += 1;
        }
    }
    println!("{runs} runs, nothing read or written out of bounds");
}
