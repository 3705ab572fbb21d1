//! The real DINOv2-S weights on real images: the card's numbers against the CPU backend's in f32.
//!
//! The images are the textile samples of the demo, at 224 px. (The solar cells of the golden `elpv_mono60_224` may not be
//! kept here: their licence is non-commercial. `docs/fidelity.md` has the figures of that run.)
#![cfg(feature = "files")]

use std::path::Path;

use musc::ImageSize;
use musc::backend::cpu::Cpu;
use musc::backend::cuda::Half;
use musc::backend::{Backend, Extraction, FeatureSet, Pixels, References};
use musc::dataset::{FolderOptions, collect, load_pixels};
use musc::image::Resize;
use musc::model::{Activation, Vit, backbone};
use musc::scoring::MutualScoring;

use crate::support::*;

const SIZE: ImageSize = ImageSize::square(224);

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn dinov2_s_on_textile_images() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let backbone = backbone("dinov2_vits14").unwrap();
    let vit = Vit::open(&root.join("weights/dinov2_vits14.safetensors")).unwrap();
    let options = FolderOptions::default();
    let samples: Vec<_> = ["good", "defect"]
        .iter()
        .flat_map(|folder| {
            let folder = root.join("assets/textile").join(folder).display().to_string();
            collect(&[folder], &options).unwrap().samples.into_iter().take(3)
        })
        .collect();
    let layers = backbone.default_layers.to_vec();
    let extraction = Extraction::new(layers, SIZE, Activation::Gelu, backbone.normalisation())
        .with_batch_size(4);
    let resize = Resize::new(SIZE, backbone.filter());
    let read = load_pixels(&samples, &resize, false, &()).unwrap();
    let cpu = Cpu::new(0).unwrap();
    let model = cpu.load(&vit, &extraction).unwrap();
    let expected = cpu.extract(&model, Pixels::Rgb(&read.images), &()).unwrap();
    let (others, scoring) = (References::Others, MutualScoring::default());
    let expected_scores = cpu.patch_scores(&expected, References::Others, &scoring, &()).unwrap();

    let cuda = sim(80, Half::F16);
    let model = cuda.load(&vit, &extraction).unwrap();
    let features = cuda.extract(&model, Pixels::Rgb(&read.images), &()).unwrap();
    for (layer, expected) in expected.tokens.iter().enumerate() {
        let error = relative_l2("tokens", &features.patch_tokens(layer).unwrap(), expected);
        println!("layer {layer}: {error:.2e} relative L2");
        assert!(error < 2e-3, "layer {layer}: {error:e}");
    }
    let error = relative_l2("class", &features.class_tokens().unwrap(), &expected.class_tokens);
    println!("class tokens: {error:.2e} relative L2");
    assert!(error < 2e-3, "class tokens: {error:e}");

    let scores = cuda.patch_scores(&features, others, &scoring, &()).unwrap();
    scores_within("patch scores", &scores.mean(), &expected_scores.mean(), 5e-3);
}
