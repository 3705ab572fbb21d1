//! LNAMD and MSM of the CPU backend: against the definition in f64, and against the goldens.

use musc::backend::cpu::Cpu;
use musc::backend::{Backend, HostFeatures, Monitor};
use musc::scoring::{MutualScoring, reference};
use safetensors::SafeTensors;

use self::random_features::random_features;

#[path = "common/random_features.rs"]
mod random_features;

/// The worst difference to the definition, as a difference of cosines: d = √(2 − 2c), so an error δ of the cosine is
/// δ/d of the distance, and √(2δ) at most where d is 0.
fn worst_difference(features: &HostFeatures, scoring: &MutualScoring) -> f64 {
    let grid = features.patches.isqrt();
    let scores = Cpu::new(2).unwrap().mutual_scores(features, scoring, &()).unwrap();
    let plane = features.images * features.patches;
    let mut worst = 0.0f64;
    for (r, &degree) in scoring.degrees.iter().enumerate() {
        for (l, tokens) in features.tokens.iter().enumerate() {
            let layer =
                reference::Layer { tokens, images: features.images, grid, width: features.width };
            let unit = reference::lnamd(&layer, degree);
            let expected = reference::msm(&unit, &layer, scoring.ranks(features.images));
            let got = &scores.by_degree_layer[(r * features.layers.len() + l) * plane..][..plane];
            for (at, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
                assert!(got.is_finite(), "degree {degree}, layer {l}, value {at}: {got}");
                worst = worst.max((got as f64 - expected).abs() * expected.max(1e-3));
            }
        }
    }
    worst
}

/// The pooled product equals pooling first, on awkward sizes. A cosine carries the rounding of a dot product and of
/// four box sums of up to 9 terms of f32: eight roundings of 1.2e-7 in a row.
#[test]
fn equals_the_definition_on_awkward_sizes() {
    for (images, grid, width, degrees) in [
        (2, 1, 2, vec![1]),
        (2, 1, 5, vec![1]),
        (2, 2, 3, vec![1, 3]),
        (3, 3, 7, vec![1, 3, 5]),
        (5, 4, 16, vec![5, 3, 1]),
        (4, 5, 17, vec![1, 3, 5, 7, 9]),
        (11, 7, 31, vec![3]),
        (9, 8, 33, vec![1, 3, 5]),
        (3, 16, 64, vec![1, 3, 5]),
        (2, 17, 24, vec![7, 1]),
    ] {
        let features = random_features(images, grid, width, 2);
        let scoring = MutualScoring { degrees, ..MutualScoring::default() };
        let worst = worst_difference(&features, &scoring);
        assert!(worst < 1e-6, "{images} images, grid {grid}, width {width}: {worst:e}");
    }
}

#[test]
fn other_intervals_are_means_of_those_ranks() {
    let features = random_features(8, 4, 12, 1);
    for interval in [(0.0, 1.0), (0.3, 0.7), (0.9, 1.0), (0.0, 0.01)] {
        let scoring = MutualScoring { interval, ..MutualScoring::default() };
        assert!(worst_difference(&features, &scoring) < 1e-6, "{interval:?}");
    }
}

#[test]
fn groups_and_threads_change_no_bit() {
    let features = random_features(13, 5, 20, 2);
    let whole = MutualScoring::default();
    let expected = Cpu::new(1).unwrap().mutual_scores(&features, &whole, &()).unwrap();
    for (threads, table_bytes) in [(2, 1 << 30), (3, 0), (2, 3 * 13 * 25 * 4 * 4)] {
        let scoring = MutualScoring { table_bytes: Some(table_bytes), ..whole.clone() };
        let counted = Counter::default();
        let scores =
            Cpu::new(threads).unwrap().mutual_scores(&features, &scoring, &counted).unwrap();
        assert!(scores == expected, "{threads} threads, table of {table_bytes} bytes");
        let group = scoring.group_images(13, 25, 0);
        let pairs = MutualScoring::pairs_in_groups(13, group);
        assert_eq!(counted.steps(), 2 * pairs, "table of {table_bytes} bytes");
    }
}

#[derive(Default)]
struct Counter(std::sync::atomic::AtomicU64);

impl Counter {
    fn steps(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Monitor for Counter {
    fn advance(&self, steps: u64) {
        self.0.fetch_add(steps, std::sync::atomic::Ordering::SeqCst);
    }
    fn stopped(&self) -> bool {
        false
    }
}

fn golden(name: &str) {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    let Ok(bytes) = std::fs::read(&path) else {
        assert!(!name.starts_with("tests/"), "{path} is part of the repository");
        eprintln!("{path} is not here: skipped, its small twin in tests/data is checked");
        return;
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap();
        tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    let mut layers: Vec<usize> =
        file.names().iter().filter_map(|name| name.strip_prefix("tokens.")?.parse().ok()).collect();
    layers.sort_unstable();
    let shape = file.tensor("tokens.0").unwrap().shape().to_vec();
    let features = HostFeatures {
        images: shape[0],
        patches: shape[1],
        width: shape[2],
        tokens: layers.iter().map(|layer| floats(&format!("tokens.{layer}"))).collect(),
        layers,
        class_width: 0,
        class_tokens: Vec::new(),
    };
    let scores =
        Cpu::new(2).unwrap().mutual_scores(&features, &MutualScoring::default(), &()).unwrap();
    for (what, got, expected) in [
        ("by degree and layer", &scores.by_degree_layer, floats("patch_scores_by_r_layer")),
        ("mean", &scores.mean(), floats("patch_scores")),
    ] {
        assert_eq!(got.len(), expected.len());
        let mut worst = 0.0f32;
        for (&got, &expected) in got.iter().zip(&expected) {
            if expected > 0.05 {
                worst = worst.max((got - expected).abs());
            }
        }
        println!("{name}, {what}: {worst:e}");
        assert!(worst < 2e-4, "{name}, {what}: {worst:e}");
    }
}

#[test]
fn golden_stages_small() {
    golden("tests/data/stages_small.safetensors");
}

#[test]
fn golden_stages() {
    golden("../shared/goldens/stages.safetensors");
}
