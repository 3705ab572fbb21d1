//! Scores a tensor of features with the library alone, without the programs' dependencies:
//!
//! ```text
//! cargo run --release --no-default-features --example score_features [FEATURES.safetensors]
//! ```
//!
//! The file holds `tokens.LAYER` `[N, L, C]`, as [`musc::backend::write_features`] writes them. Without a file it makes its own:
//! thirty images of one texture, three of which have one foreign patch.

use std::path::Path;
use std::time::Instant;

use musc::Grid;
use musc::backend::cpu::Cpu;
use musc::backend::read_features;
use musc::backend::{Backend, HostFeatures, References};
use musc::scoring::MutualScoring;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let features = match std::env::args().nth(1) {
        Some(path) => read_features(Path::new(&path), None)?,
        None => made_up(30, Grid::new(12, 20), 384, 2),
    };
    let cpu = Cpu::new(0)?;
    let features = cpu.upload(features)?;
    let started = Instant::now();
    let scores = cpu.patch_scores(&features, References::Others, &MutualScoring::default(), &())?;
    let seconds = started.elapsed().as_secs_f64();
    let mut images: Vec<(usize, f32)> = scores
        .mean()
        .chunks_exact(scores.patches())
        .map(|patches| patches.iter().copied().fold(0.0, f32::max))
        .enumerate()
        .collect();
    images.sort_by(|a, b| b.1.total_cmp(&a.1));
    println!("{}: {} images in {seconds:.3} s", cpu.description(), scores.images);
    for (image, score) in images.iter().take(5) {
        println!("image {image:3}: {score:.4}");
    }
    Ok(())
}

/// One texture with noise; images 3, 14 and 25 have a patch of another kind.
fn made_up(images: usize, grid: Grid, width: usize, layers: usize) -> HostFeatures {
    let patches = grid.patches();
    let mut state = 1u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut layer = || -> Vec<f32> {
        let texture: Vec<f32> = (0..patches * width).map(|_| noise()).collect();
        let mut tokens: Vec<f32> = (0..images).flat_map(|_| texture.clone()).collect();
        tokens.iter_mut().for_each(|value| *value += 0.5 * noise());
        for image in [3, 14, 25] {
            let at = (image * patches + patches / 2) * width;
            tokens[at..at + width].iter_mut().for_each(|value| *value = noise());
        }
        tokens
    };
    let tokens = (0..layers).map(|_| layer()).collect();
    HostFeatures::new(images, grid, width, (0..layers).collect(), tokens)
}
