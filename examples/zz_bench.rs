//! Scores a tensor of features with the library alone, without the programs' dependencies:
//!
//! ```text
//! cargo run --release --no-default-features --example score_features [FEATURES.safetensors]
//! ```
//!
//! The file holds `tokens.<layer>` `[N, L, C]`, as `musc-run extract` writes them. Without a file it makes its own:
//! thirty images of one texture, three of which have one foreign patch.

use std::time::Instant;

use musc::backend::cpu::Cpu;
use musc::backend::{Backend, HostFeatures};
use musc::scoring::MutualScoring;
use safetensors::{Dtype, SafeTensors};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let features = match std::env::args().nth(1) {
        Some(path) => read(&path)?,
        None => made_up(60, 16, 384, 4),
    };
    let cpu = Cpu::new(0)?;
    let features = cpu.upload(features)?;
    let started = Instant::now();
    let scores = cpu.mutual_scores(&features, &MutualScoring::default(), &())?;
    let seconds = started.elapsed().as_secs_f64();
    let mut images: Vec<(usize, f32)> = scores
        .mean()
        .chunks_exact(scores.patches)
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

fn read(path: &str) -> Result<HostFeatures, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut layers: Vec<usize> =
        file.names().iter().filter_map(|name| name.strip_prefix("tokens.")?.parse().ok()).collect();
    layers.sort_unstable();
    let mut features = HostFeatures {
        images: 0,
        patches: 0,
        width: 0,
        tokens: Vec::new(),
        layers,
        class_width: 0,
        class_tokens: Vec::new(),
    };
    for layer in &features.layers {
        let tensor = file.tensor(&format!("tokens.{layer}"))?;
        let (Dtype::F32, [images, patches, width]) = (tensor.dtype(), tensor.shape()) else {
            return Err(format!("tokens.{layer}: expected f32 [N, L, C]").into());
        };
        (features.images, features.patches, features.width) = (*images, *patches, *width);
        let (values, _) = tensor.data().as_chunks::<4>();
        features.tokens.push(values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect());
    }
    Ok(features)
}

/// One texture with noise; images 3, 14 and 25 have a patch of another kind.
fn made_up(images: usize, grid: usize, width: usize, layers: usize) -> HostFeatures {
    let patches = grid * grid;
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
    HostFeatures {
        images,
        patches,
        width,
        tokens: (0..layers).map(|_| layer()).collect(),
        layers: (0..layers).collect(),
        class_width: 0,
        class_tokens: Vec::new(),
    }
}
