//! Tokens and patch scores against the goldens, within the tolerances of 16-bit tensor cores.

use std::path::Path;

use musc::backend::cuda::Half;
use musc::backend::{Backend, Extraction, FeatureSet, HostFeatures, Pixels, References};
use musc::image::{Normalisation, RgbImage};
use musc::model::{Activation, Vit};
use musc::scoring::{MutualScoring, reference};
use musc::{Grid, ImageSize};
use safetensors::SafeTensors;

use crate::stages::Stages;
use crate::support::*;

/// A file of goldens.
fn open(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A family's tokens at the sizes of a file, on both targets and in both formats. `grid` gives the grid of a size.
fn family(
    family: &str,
    (file, sizes): (&str, [&str; 2]),
    grid: impl Fn(&str) -> Grid,
    patch: usize,
    activation: Option<Activation>,
) {
    let bytes = open(&format!("{family}_{file}.safetensors"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let vit = Vit::open(Path::new(&data(&format!("{family}_tiny_weights.safetensors")))).unwrap();
    // The spec's tolerance of a layer: 2e-3 in f16, 1e-2 in bf16.
    for (capability, half, tolerance) in
        [(75, Half::F16, 2e-3), (80, Half::F16, 2e-3), (80, Half::Bf16, 1e-2)]
    {
        let cuda = sim(capability, half);
        for kind in sizes {
            let pixels = floats(&file, &format!("{kind}.pixels"));
            let grid = grid(kind);
            let input = ImageSize::new(grid.rows * patch, grid.columns * patch);
            let activation_of = activation.unwrap_or(Activation::Gelu);
            let extraction =
                Extraction::new(vec![3, 1], input, activation_of, Normalisation::IMAGENET)
                    .with_batch_size(4);
            let model = cuda.load(&vit, &extraction).unwrap();
            let features = cuda.extract(&model, Pixels::Normalised(&pixels), &()).unwrap();
            assert_eq!(features.grid(), grid);
            let name = match activation {
                Some(activation) => format!("{kind}.{}", activation.name()),
                None => kind.to_string(),
            };
            for (what, got) in [
                ("layer3", features.patch_tokens(0).unwrap()),
                ("layer1", features.patch_tokens(1).unwrap()),
                ("class_token", features.class_tokens().unwrap()),
            ] {
                let expected = floats(&file, &format!("{name}.{what}"));
                let what = format!("{family} {name} {what} {half:?} {capability}");
                let error = relative_l2(&what, &got, &expected);
                println!("{what}: {error:.2e}");
                assert!(error < tolerance, "{what}: {error:e}");
            }
        }
    }
}

/// Native grid and resized positions.
fn squares(name: &str, patch: usize, activation: Option<Activation>) {
    let grid = |kind: &str| Grid::square(if kind == "native" { 4 } else { 7 });
    family(name, ("tiny", ["native", "resized"]), grid, patch, activation);
}

/// Two grids that are not square.
fn wide(name: &str, patch: usize, activation: Option<Activation>) {
    let bytes = open(&format!("{name}_tiny_wide.safetensors"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let grid = |kind: &str| metadata[&format!("{kind}.grid")].parse().unwrap();
    family(name, ("tiny_wide", ["wide", "tall"]), grid, patch, activation);
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn clip() {
    for activation in [Activation::Gelu, Activation::QuickGelu] {
        squares("clip", 14, Some(activation));
        wide("clip", 14, Some(activation));
    }
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn dino() {
    squares("dino", 16, None);
    wide("dino", 16, None);
}

#[test]
fn dinov2() {
    squares("dinov2", 14, None);
    wide("dinov2", 14, None);
}

/// 8-bit pixels go through `patch_embed`; the same pixels normalised on the host do not. The tokens differ by no more
/// than the rounding of one step.
#[test]
fn pixels_in_8_bits_equal_normalised_ones() {
    let vit = Vit::open(Path::new(&data("dinov2_tiny_weights.safetensors"))).unwrap();
    let (height, width) = (42, 70);
    let images: Vec<RgbImage> = (0..3u32)
        .map(|image| {
            let bytes = (0..height * width * 3)
                .map(|at| ((at as u32).wrapping_mul(2_654_435_761) >> (13 + image)) as u8);
            RgbImage::new(width, height, bytes.collect()).unwrap()
        })
        .collect();
    let input = ImageSize::new(height, width);
    let extraction = Extraction::new(vec![3], input, Activation::Gelu, Normalisation::IMAGENET)
        .with_batch_size(2);
    let mut normalised = vec![0.0; 3 * 3 * height * width];
    for (image, planes) in images.iter().zip(normalised.chunks_exact_mut(3 * height * width)) {
        musc::image::normalise(image, &extraction.normalisation, planes).unwrap();
    }
    let cuda = sim(80, Half::F16);
    let model = cuda.load(&vit, &extraction).unwrap();
    let rgb = cuda.extract(&model, Pixels::Rgb(&images), &()).unwrap();
    let planes = cuda.extract(&model, Pixels::Normalised(&normalised), &()).unwrap();
    let error =
        relative_l2("tokens", &rgb.patch_tokens(0).unwrap(), &planes.patch_tokens(0).unwrap());
    assert!(error < 1e-3, "{error:e}");
}

/// Patch scores of the stages' tokens: within the spec's tolerance of the golden's (5e-3 where the score is above 0.05),
/// and within 1e-4 of the definition in f64 on the same rounded tokens.
fn stages(path: &str, halves: &[(u32, Half)]) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut layers: Vec<usize> =
        file.names().iter().filter_map(|name| name.strip_prefix("tokens.")?.parse().ok()).collect();
    layers.sort_unstable();
    let shape = file.tensor("tokens.0").unwrap().shape().to_vec();
    let tokens = layers.iter().map(|layer| floats(&file, &format!("tokens.{layer}"))).collect();
    let grid = Grid::of_square(shape[1]).unwrap();
    let features = HostFeatures::new(shape[0], grid, shape[2], layers, tokens);
    let scoring = MutualScoring::default();
    for &(capability, half) in halves {
        let cuda = sim(capability, half);
        let uploaded = cuda.upload(features.clone()).unwrap();
        let scores = cuda.patch_scores(&uploaded, References::Others, &scoring, &()).unwrap();
        let golden = floats(&file, "patch_scores");
        let what = format!("{path} {half:?} {capability}, from the golden");
        scores_within(&what, &scores.mean(), &golden, 5e-3);

        let plane = features.images * features.patches();
        for (layer, _) in features.layers.iter().enumerate() {
            let tokens = uploaded.patch_tokens(layer).unwrap();
            let layer_of = reference::Layer {
                tokens: &tokens,
                images: features.images,
                grid,
                width: features.width,
                left_out: &[],
            };
            for (at, &degree) in scoring.degrees.iter().enumerate() {
                let expected: Vec<f32> = reference::patch_scores(&layer_of, None, degree, &scoring)
                    .into_iter()
                    .map(|score| score as f32)
                    .collect();
                let got = &scores.by_degree_layer[(at * features.layers.len() + layer) * plane..]
                    [..plane];
                let what = format!("{path} layer {layer}, r = {degree}, from f64");
                scores_within(&what, got, &expected, 1e-4);
            }
        }
    }
}

const BOTH: [(u32, Half); 2] = [(75, Half::F16), (80, Half::F16)];
const ALL: [(u32, Half); 3] = [(75, Half::F16), (80, Half::F16), (80, Half::Bf16)];

#[test]
fn stages_small() {
    stages(&data("stages_small.safetensors"), &ALL);
}

/// The large golden, where `MUSC_GOLDENS` names the folder that has it.
#[test]
fn stages_whole() {
    match std::env::var("MUSC_GOLDENS") {
        Ok(folder) => stages(&format!("{folder}/stages.safetensors"), &BOTH),
        Err(_) => {
            eprintln!("MUSC_GOLDENS is not set: only the small golden of tests/data is compared")
        }
    }
}

/// Both kinds of references on grids that are not square, with and without a radius, another interval, patches left out.
/// The tokens are numbers that f16 and bf16 hold, so that only the cards' own rounding is seen: 1e-4, as above, through
/// Gram blocks. With a radius unit tokens are rounded, and with patches left out a mean is: in f16 the spec's tolerance of
/// a score, 5e-3. In bf16, of roundoff u = 2^-8, a cosine is off by 2u + u^2 at most, and a distance by the root of twice
/// that.
fn references(file: &str, prefix: &str, grid: Grid, halves: &[(u32, Half)]) {
    let bytes = open(file);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let stages = Stages::new(&file, prefix, grid);
    let (queries, references) = (stages.queries(), stages.references());
    let with_marks = file.tensor(&format!("{prefix}left_out")).is_ok();
    for &(capability, half) in halves {
        let cuda = sim(capability, half);
        let mut on_card = cuda.upload(queries.clone()).unwrap();
        let mut others = cuda.upload(references.clone()).unwrap();
        let cosine = |u: f64| 2.0 * u + u * u;
        let rounded = if half == Half::F16 { 5e-3 } else { (2.0 * cosine(2f64.powi(-8))).sqrt() };
        let usual = MutualScoring::default();
        let mut cases = vec![
            ("", usual.clone(), 1e-4),
            ("_radius1", usual.clone().with_radius(Some(1)), rounded),
            ("_radius2", usual.clone().with_radius(Some(2)), rounded),
            ("_interval", usual.clone().with_interval(0.25, 0.75), 1e-4),
        ];
        if with_marks {
            cases.push(("_left_out", usual, rounded));
        }
        for (name, scoring, tolerance) in cases {
            if name == "_left_out" {
                cuda.leave_out(&mut on_card, stages.marks("left_out")).unwrap();
                cuda.leave_out(&mut others, stages.marks("reference_left_out")).unwrap();
            }
            for (kind, against) in
                [("others", References::Others), ("set", References::Set(&others))]
            {
                let scores = cuda.patch_scores(&on_card, against, &scoring, &()).unwrap();
                assert_eq!(scores.grid, grid);
                let golden = stages.floats(&format!("{kind}{name}"));
                let what = format!("{prefix}{kind}{name} {half:?} {capability}");
                scores_within(&what, &scores.by_degree_layer, &golden, tolerance);
            }
        }
        // Where something is left out it has no score.
        if with_marks {
            let marks = stages.marks("left_out");
            let usual = MutualScoring::default();
            let scores = cuda.patch_scores(&on_card, References::Others, &usual, &()).unwrap();
            for plane in scores.by_degree_layer.chunks_exact(marks.len()) {
                let left_out = plane.iter().zip(&marks).filter(|(_, mark)| **mark);
                assert!(left_out.map(|(score, _)| *score).all(|score| score == 0.0));
            }
        }
    }
}

#[test]
fn references_on_a_wide_grid() {
    references("stages_wide.safetensors", "", Grid::new(5, 9), &ALL);
}

#[test]
fn references_on_awkward_grids() {
    let file = "stages_awkward.safetensors";
    references(file, "1x17.", Grid::new(1, 17), &BOTH);
    references(file, "16x3.", Grid::new(16, 3), &BOTH);
}
