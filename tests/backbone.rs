//! The CPU backend's vision transformer against the goldens of the three families.

use musc::backend::cpu::Cpu;
use musc::backend::{Backend, Extraction, Pixels};
use musc::image::Normalisation;
use musc::model::{Activation, Vit};
use safetensors::SafeTensors;

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn relative_l2(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square = |value: f64| value * value;
    let error: f64 = got.iter().zip(expected).map(|(&a, &b)| square(a as f64 - b as f64)).sum();
    let size: f64 = expected.iter().map(|&b| square(b as f64)).sum();
    (error / size).sqrt()
}

/// Both sizes of one family: at the native grid and with resized positions.
fn golden(family: &str, patch: usize, activation: Option<Activation>) {
    let bytes = std::fs::read(data(&format!("{family}_tiny.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let weights = data(&format!("{family}_tiny_weights.safetensors"));
    let vit = Vit::open(std::path::Path::new(&weights)).unwrap();
    for (kind, grid) in [("native", 4), ("resized", 7)] {
        for threads in [1, 2, 5] {
            let pixels = floats(&file, &format!("{kind}.pixels"));
            let extraction = Extraction {
                layers: vec![3, 1],
                image_size: grid * patch,
                activation: activation.unwrap_or(Activation::Gelu),
                normalisation: Normalisation::IMAGENET,
                batch_size: 4,
            };
            let cpu = Cpu::new(threads).unwrap();
            let model = cpu.load(&vit, &extraction).unwrap();
            let got = cpu.extract(&model, Pixels::Normalised(&pixels), &()).unwrap();
            assert_eq!((got.images, got.patches, got.width), (2, grid * grid, 128));
            let prefix = match activation {
                Some(Activation::Gelu) => format!("{kind}.gelu"),
                Some(Activation::QuickGelu) => format!("{kind}.quick_gelu"),
                None => kind.to_string(),
            };
            for (name, got) in [
                ("layer3", &got.tokens[0]),
                ("layer1", &got.tokens[1]),
                ("class_token", &got.class_tokens),
            ] {
                let error = relative_l2(got, &floats(&file, &format!("{prefix}.{name}")));
                println!("{family} {prefix} {name}: {error:.1e}");
                assert!(error < 1e-4, "{family} {prefix} {name}: {error:e}");
            }
        }
    }
}

#[test]
fn golden_clip_gelu() {
    golden("clip", 14, Some(Activation::Gelu));
}

#[test]
fn golden_clip_quick_gelu() {
    golden("clip", 14, Some(Activation::QuickGelu));
}

#[test]
fn golden_dino() {
    golden("dino", 16, None);
}

#[test]
fn golden_dinov2() {
    golden("dinov2", 14, None);
}
