//! What must not change a bit: batches, groups, blocks from the host, several cards, the order in which streams run.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use musc::backend::cpu::Cpu;
use musc::backend::cuda::driver::sim::SimOptions;
use musc::backend::cuda::plan::{BackboneSizes, ScoringSizes, total};
use musc::backend::cuda::{Cuda, Half};
use musc::backend::{Backend, Extraction, FeatureSet, HostFeatures, Monitor, Pixels};
use musc::image::{Normalisation, RgbImage};
use musc::model::{Activation, Vit};
use musc::scoring::{MutualScoring, PatchScores};

use crate::support::*;

#[derive(Default)]
struct Counter(AtomicU64);

impl Monitor for Counter {
    fn advance(&self, steps: u64) {
        self.0.fetch_add(steps, Ordering::SeqCst);
    }
    fn stopped(&self) -> bool {
        false
    }
}

/// Streams that run late: none, each of the first four alone, every second one, all.
const LATE: [u64; 7] = [0, 1, 2, 4, 8, 0b1010_1010_1010, u64::MAX];

fn backend(late_streams: u64, limit: Option<u64>, cards: usize) -> Cuda {
    let cards = (0..cards)
        .map(|number| {
            let label = format!("sim:{number}");
            card(SimOptions { label, late_streams, ..SimOptions::default() }, limit)
        })
        .collect();
    Cuda::with_cards(cards, Half::F16).unwrap()
}

fn images(count: u32, size: usize) -> Vec<RgbImage> {
    (0..count)
        .map(|image| {
            let bytes = (0..size * size * 3)
                .map(|at| ((at as u32 + 977 * image).wrapping_mul(2_654_435_761) >> 21) as u8);
            RgbImage::new(size, size, bytes.collect()).unwrap()
        })
        .collect()
}

fn extracted(
    cuda: &Cuda,
    images: &[RgbImage],
    batch_size: usize,
) -> (Vec<Vec<f32>>, Vec<f32>, bool) {
    let vit = Vit::open(Path::new(&data("clip_tiny_weights.safetensors"))).unwrap();
    let extraction = Extraction {
        layers: vec![1, 3],
        image_size: images[0].width,
        activation: Activation::Gelu,
        normalisation: Normalisation::CLIP,
        batch_size,
    };
    let model = cuda.load(&vit, &extraction).unwrap();
    let counted = Counter::default();
    let features = cuda.extract(&model, Pixels::Rgb(images), &counted).unwrap();
    assert_eq!(counted.0.load(Ordering::SeqCst), images.len() as u64);
    let tokens = (0..2).map(|layer| features.patch_tokens(layer).unwrap()).collect();
    (tokens, features.class_tokens().unwrap(), features.on_card())
}

/// Room for the weights of the tiny backbone (1.8 MB) and a batch, not for a Gram block (1.6 MB) beside them.
const LITTLE: u64 = 3_000_000;

#[test]
fn tokens_do_not_depend_on_batches_streams_or_cards() {
    let images = images(7, 98);
    let (tokens, class, on_card) = extracted(&backend(0, None, 1), &images, 7);
    assert!(on_card);
    for late in LATE {
        for batch in [0, 1, 2, 3] {
            let (others, other_class, _) = extracted(&backend(late, None, 1), &images, batch);
            assert!(others == tokens && other_class == class, "batches of {batch}, late {late:b}");
        }
        let (others, other_class, on_card) = extracted(&backend(late, None, 2), &images, 2);
        assert!(!on_card);
        assert!(others == tokens && other_class == class, "two cards, late {late:b}");
    }
    let (others, other_class, on_card) = extracted(&backend(2, Some(LITTLE), 1), &images, 1);
    assert!(!on_card, "tokens go to the host when they and the scoring do not fit");
    assert!(others == tokens && other_class == class, "tokens on the host");
}

fn scored(cuda: &Cuda, features: &HostFeatures, scoring: &MutualScoring) -> PatchScores {
    let uploaded = cuda.upload(features.clone()).unwrap();
    let counted = Counter::default();
    let scores = cuda.mutual_scores(&uploaded, scoring, &counted).unwrap();
    let steps = cuda.scoring_steps(&uploaded, scoring).unwrap();
    assert_eq!(counted.0.load(Ordering::SeqCst), steps);
    assert!(scores.by_degree_layer.iter().all(|score| score.is_finite()));
    scores
}

#[test]
fn scores_do_not_depend_on_groups_blocks_streams_or_cards() {
    let (n, l) = (11, 49);
    let features = random_features(n, 7, 128, 2);
    for degrees in [vec![1, 3, 5], vec![1]] {
        let scoring = MutualScoring { degrees, ..MutualScoring::default() };
        let expected = scored(&backend(0, None, 1), &features, &scoring);
        let what = &scoring.degrees;
        for table_bytes in [0, 4 * scoring.degrees.len() * n * l * 4] {
            let grouped = MutualScoring { table_bytes: Some(table_bytes), ..scoring.clone() };
            let scores = scored(&backend(0, None, 1), &features, &grouped);
            assert!(scores == expected, "{what:?}, table of {table_bytes} bytes");
        }
        // A Gram block of an image takes 49 * 8192 * 4 bytes, a block of an image's tokens 49 * 128 * 2.
        let little = if what.len() == 1 { 260_000 } else { 1_700_000 };
        for late in [0, 1, 2, u64::MAX] {
            let scores = scored(&backend(late, None, 2), &features, &scoring);
            assert!(scores == expected, "{what:?}, two cards, late {late:b}");
            let cuda = backend(late, Some(little), 1);
            assert!(!cuda.upload(features.clone()).unwrap().on_card());
            let scores = scored(&cuda, &features, &scoring);
            assert!(scores == expected, "{what:?}, blocks from the host, late {late:b}");
        }
        let scores = scored(&backend(0, Some(little), 3), &features, &scoring);
        assert!(scores == expected, "{what:?}, three cards and blocks");
    }
}

/// More images than a Gram block has columns for, and more than it has rows for: against the CPU on the same rounded
/// tokens, whose own error is a hundredth of this.
#[test]
fn many_images_equal_the_cpu() {
    let features = random_features(11, 28, 128, 1);
    let scoring = MutualScoring::default();
    let scores = scored(&backend(0, None, 1), &features, &scoring);
    let expected = Cpu::new(2).unwrap().mutual_scores(&features, &scoring, &()).unwrap();
    let error = worst(&scores.by_degree_layer, &expected.by_degree_layer, |score| score > 0.05);
    assert!(error < 1e-4, "{error:e}");
}

#[test]
fn degrees_come_in_the_order_that_was_asked_for() {
    let features = random_features(3, 9, 128, 1);
    let all = MutualScoring { degrees: vec![1, 3, 5, 7], ..MutualScoring::default() };
    let ascending = scored(&backend(0, None, 1), &features, &all);
    let mixed = MutualScoring { degrees: vec![7, 1, 5, 1], ..MutualScoring::default() };
    let scores = scored(&backend(0, None, 1), &features, &mixed);
    let plane = 3 * 81;
    for (at, from) in [(0, 3), (1, 0), (2, 2), (3, 0)] {
        assert_eq!(
            scores.by_degree_layer[at * plane..][..plane],
            ascending.by_degree_layer[from * plane..][..plane]
        );
    }
}

/// The plan that decides what fits is what is then taken: to the byte for scoring, tokens on the card or on the host.
#[test]
fn scoring_takes_what_its_plan_says() {
    let features = random_features(6, 9, 128, 2);
    let tokens = 2 * 6 * 81 * 128 * 2;
    for (limit, table_bytes) in [(None, None), (None, Some(1)), (Some(2_900_000), None)] {
        let cuda = backend(0, limit, 1);
        let scoring = MutualScoring { table_bytes, ..MutualScoring::default() };
        let uploaded = cuda.upload(features.clone()).unwrap();
        let on_card = uploaded.on_card();
        assert_eq!(on_card, limit.is_none());
        let available = cuda.cards()[0].available_bytes().unwrap();
        let sizes =
            ScoringSizes { images: 6, patches: 81, width: 128, degrees: 3, fused: false, on_card };
        let plan = sizes.plan(&scoring, available).unwrap();
        cuda.mutual_scores(&uploaded, &scoring, &()).unwrap();
        let taken = cuda.cards()[0].peak_bytes() - if on_card { tokens } else { 0 };
        assert_eq!(taken, total(&plan.parts), "{plan:?}");
    }
}

/// The same for a batch of the backbone: what is taken beside weights and tokens is the workspace and the class tokens.
#[test]
fn extraction_takes_what_its_plan_says() {
    let images = images(5, 56);
    for batch in [1, 3] {
        let cuda = backend(0, None, 1);
        let vit = Vit::open(Path::new(&data("clip_tiny_weights.safetensors"))).unwrap();
        let extraction = Extraction {
            layers: vec![1, 3],
            image_size: 56,
            activation: Activation::Gelu,
            normalisation: Normalisation::CLIP,
            batch_size: batch,
        };
        let model = cuda.load(&vit, &extraction).unwrap();
        let weights = cuda.cards()[0].peak_bytes();
        let sizes = BackboneSizes { width: 128, depth: 4, mlp_width: 512, patch: 14, grid: 4 };
        // Norms outside the blocks are left out of the plan, LayerScale is counted for every backbone.
        let planned = sizes.weights();
        assert!(weights.abs_diff(planned) * 50 < planned, "{weights} bytes, planned {planned}");
        let features = cuda.extract(&model, Pixels::Rgb(&images), &()).unwrap();
        assert!(features.on_card());
        let (tokens, class) = (2 * 5 * 16 * 128 * 2, 5 * 128 * 4);
        let taken = cuda.cards()[0].peak_bytes() - weights - tokens - class;
        assert_eq!(taken, total(&sizes.workspace(batch, 0)));
    }
}
