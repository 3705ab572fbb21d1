//! What sums that are cut towards zero do where images are alike: a product of two equal tokens comes out too small, so
//! that a duplicate is not at distance 0.

use musc::Grid;
use musc::backend::cuda::driver::sim::{MmaSums, Sim, SimOptions};
use musc::backend::cuda::{Card, Cuda, Half};
use musc::backend::{Backend, FeatureSet, HostFeatures, References};
use musc::scoring::{MutualScoring, reference};

use crate::compare::Random;
use crate::support::*;

const MODES: [(&str, MmaSums); 3] =
    [("f32", MmaSums::F32), ("a100", MmaSums::A100), ("h100", MmaSums::H100)];

fn backend(mma_sums: MmaSums) -> Cuda {
    let options = SimOptions { mma_sums, ..SimOptions::default() };
    let sim = std::sync::Arc::new(Sim::new(options));
    Cuda::with_cards(vec![Card::with_driver(sim, None)], Half::F16).unwrap()
}

/// Images of one layer, in numbers that f16 holds.
fn features(grid: Grid, width: usize, images: &[&[f32]]) -> HostFeatures {
    let mut tokens: Vec<f32> = images.concat();
    for value in &mut tokens {
        *value = Half::F16.value(Half::F16.bits(*value));
    }
    HostFeatures::new(images.len(), grid, width, vec![0], vec![tokens])
}

fn scores(cuda: &Cuda, features: &HostFeatures, scoring: &MutualScoring) -> Vec<f32> {
    let uploaded = cuda.upload(features.clone()).unwrap();
    cuda.patch_scores(&uploaded, References::Others, scoring, &()).unwrap().by_degree_layer
}

/// Tokens with a mean, and two channels forty times as large as the others.
fn made_up(grid: Grid, width: usize, outlier: f32, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let token = |at: usize| {
        let strong = if at % width == 3 || at % width == width / 2 { outlier } else { 1.0 };
        (random.uniform() + 0.1) * strong
    };
    (0..grid.patches() * width).map(token).collect()
}

/// Of two equal images each patch finds itself. Its cosine is G / |x|^2 with |x|^2 in f32 and G cut: less than 1 by no more
/// than what `sum_error` of tests/kernels says, 11/8 roundoffs of f32 a product on an A100 (21/32 on an H100), relative to
/// |x|^2 where no mean is taken off, and by the roundoffs of the norm.
#[test]
fn duplicates_are_as_near_as_the_sums_allow() {
    let (grid, width) = (Grid::new(2, 3), 256);
    let image: Vec<f32> = made_up(grid, width, 40.0, 1).iter().map(|v| v.abs()).collect();
    // The same numbers with both signs: the mean of all is 0, so that nothing is taken off.
    let signed: Vec<f32> = image
        .iter()
        .enumerate()
        .map(|(at, v)| if at % 2 == 0 { *v } else { -image[at - 1] })
        .collect();
    let both = features(grid, width, &[&signed, &signed]);
    let scoring = MutualScoring::default().with_degrees([1]).with_interval(0.0, 1.0);
    let mut furthest = vec![];
    for (name, sums) in MODES {
        let distances = scores(&backend(sums), &both, &scoring);
        let u = 2f64.powi(-24);
        let a_product = match name {
            "a100" => 11.0 / 8.0,
            "h100" => 21.0 / 32.0,
            _ => 1.0,
        };
        let bound = (2.0 * u * (a_product * width as f64 + 50.0)).sqrt();
        let zeros = vec![0.0f32; distances.len()];
        assert_within(name, &distances, &zeros, |_| bound);
        let largest = distances.iter().copied().fold(0.0, f32::max);
        println!("{name}: {largest:.1e}, at most {bound:.1e}");
        furthest.push(largest);
    }
    // They are cut, and by blocks of 8 more than by blocks of 16.
    assert!(furthest[1] > furthest[2] && furthest[2] > furthest[0], "{furthest:?}");
}

/// Mean and largest of numbers.
fn told(v: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = v.clone().count() as f64;
    (v.clone().sum::<f64>() / n, v.fold(f64::NEG_INFINITY, f64::max))
}

/// The figures of docs/fidelity.md: pairs of equal and of almost equal images, and what they do to scores.
#[cfg(feature = "files")]
#[test]
#[ignore = "a measurement: the figures of docs/fidelity.md"]
fn figures() {
    let (images, grid, width) = textile();
    let pair = MutualScoring::default().with_interval(0.0, 1.0);
    let usual = MutualScoring::default();
    let exact = |features: &HostFeatures, scoring: &MutualScoring, degree: usize| -> Vec<f64> {
        let layer = reference::Layer {
            tokens: &features.tokens[0],
            images: features.images,
            grid: features.grid,
            width: features.width,
            left_out: &[],
        };
        reference::patch_scores(&layer, None, degree, scoring)
    };
    let degrees = [1, 3, 5];
    let wide = made_up(grid, 1024, 40.0, 5);
    let plain = made_up(grid, 1024, 1.0, 6);
    for (what, image, width) in [
        ("DINOv2-S tokens, 384 channels", &images[0], width),
        ("made up, 1024 channels", &plain, 1024),
        ("made up, 1024 channels, two of them x 40", &wide, 1024),
    ] {
        let rms =
            (image.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / image.len() as f64).sqrt();
        for noise in [0.0, 1e-3, 1e-2, 1e-1] {
            let mut random = Random(9);
            let other: Vec<f32> =
                image.iter().map(|v| v + random.uniform() * (noise * rms) as f32 * 1.7).collect();
            let both = features(grid, width, &[image, &other]);
            for (at, degree) in degrees.into_iter().enumerate() {
                let plane = 2 * grid.patches();
                let want = exact(&both, &pair, degree);
                print!(
                    "{what}, noise {noise:.0e}, r = {degree}: f64 {:.2e}",
                    told(want.iter().copied()).0
                );
                for (name, sums) in MODES {
                    let got = &scores(&backend(sums), &both, &pair)[at * plane..][..plane];
                    let (mean, largest) = told(got.iter().map(|v| f64::from(*v)));
                    let off = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs());
                    print!(
                        " | {name} {mean:.2e}, at most {largest:.2e}, off by {:.1e}",
                        told(off).1
                    );
                }
                println!();
            }
        }
    }
    // Two of sixty, and all the same.
    let mut sixty: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    sixty[1] = sixty[0];
    let same = vec![images[0].as_slice(); 12];
    for (what, set) in [("two of sixty", sixty), ("all of twelve", same)] {
        let set = features(grid, width, &set);
        let got: Vec<Vec<f32>> =
            MODES.iter().map(|(_, sums)| scores(&backend(*sums), &set, &usual)).collect();
        let plane = set.images * grid.patches();
        for (at, degree) in degrees.into_iter().enumerate() {
            let want = exact(&set, &usual, degree);
            let split = 2 * grid.patches();
            print!(
                "{what}, r = {degree}: f64 {:.4} in the two",
                told(want[..split].iter().copied()).0
            );
            for ((name, _), got) in MODES.iter().zip(&got) {
                let got = &got[at * plane..][..plane];
                let off: Vec<f64> = got.iter().zip(&want).map(|(g, w)| f64::from(*g) - w).collect();
                let two = told(off[..split].iter().map(|v| v.abs()));
                let rest = told(off[split..].iter().map(|v| v.abs()));
                print!(
                    " | {name} off by {:.1e} ({:.1e}), others {:.1e} ({:.1e})",
                    two.0, two.1, rest.0, rest.1
                );
            }
            println!();
        }
    }
}

/// Tokens of the last layer of DINOv2-S: the 30 textile images at 84 px, and their mirror images.
#[cfg(feature = "files")]
fn textile() -> (Vec<Vec<f32>>, Grid, usize) {
    use musc::ImageSize;
    use musc::backend::cpu::Cpu;
    use musc::backend::{Extraction, Pixels};
    use musc::dataset::{FolderOptions, collect, load_pixels};
    use musc::image::{Resize, RgbImage};
    use musc::model::{Activation, Vit, backbone};

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let size = ImageSize::square(84);
    let backbone = backbone("dinov2_vits14").unwrap();
    let vit = Vit::open(&root.join("weights/dinov2_vits14.safetensors")).unwrap();
    let folder = root.join("assets/textile").display().to_string();
    let samples = collect(&[folder], &FolderOptions::default()).unwrap().samples;
    let resize = Resize::new(size, backbone.filter());
    let mut read = load_pixels(&samples, &resize, false, &()).unwrap().images;
    assert_eq!(read.len(), 30);
    let mirrored: Vec<RgbImage> = read
        .iter()
        .map(|image| {
            let rows = image.data.chunks_exact(3 * image.width);
            let bytes = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied());
            RgbImage::new(image.width, image.height, bytes.collect()).unwrap()
        })
        .collect();
    read.extend(mirrored);
    let layers = vec![*backbone.default_layers.last().unwrap()];
    let extraction = Extraction::new(layers, size, Activation::Gelu, backbone.normalisation());
    let cpu = Cpu::new(0).unwrap();
    let model = cpu.load(&vit, &extraction).unwrap();
    let features = cpu.extract(&model, Pixels::Rgb(&read), &()).unwrap();
    let image = features.patches() * features.width;
    let images = features.tokens[0].chunks_exact(image).map(<[f32]>::to_vec).collect();
    (images, features.grid, features.width)
}
