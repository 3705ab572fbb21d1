//! What these tests share: simulated cards, goldens, comparisons.

use std::sync::Arc;

use musc::Grid;
use musc::backend::HostFeatures;
use musc::backend::cuda::driver::card::CudaCard;
use musc::backend::cuda::driver::sim::{Sim, SimOptions};
use musc::backend::cuda::{Card, Cuda, Half};
use safetensors::SafeTensors;

/// The cards that `MUSC_TEST_DEVICE` names (`cuda:0`, or several: `cuda:0,cuda:1`); none: the simulator.
fn real_cards() -> Vec<usize> {
    let Ok(named) = std::env::var("MUSC_TEST_DEVICE") else { return Vec::new() };
    let number = |name: &str| name.trim().strip_prefix("cuda:").and_then(|n| n.parse().ok());
    let cards: Option<Vec<usize>> = named.split(',').map(number).collect();
    cards.unwrap_or_else(|| panic!("MUSC_TEST_DEVICE={named}: expected cuda:0, or cuda:0,cuda:1"))
}

/// A card: a simulated one; or a real one where one is named and the options ask for nothing that it has not. Streams run
/// as late there as they like.
pub fn card(options: SimOptions, limit: Option<u64>) -> Arc<Card> {
    let usual = SimOptions { late_streams: options.late_streams, ..SimOptions::default() };
    let alike = (&options.label, options.compute_capability, options.memory_bytes)
        == (&usual.label, usual.compute_capability, usual.memory_bytes)
        && options.cuda_version == usual.cuda_version;
    match real_cards().first() {
        Some(&number) if alike => {
            Card::with_driver(Arc::new(CudaCard::open(number).unwrap()), limit)
        }
        _ => Card::with_driver(Arc::new(Sim::new(options)), limit),
    }
}

/// Several cards in one backend; `None` where real ones are named, but not so many.
pub fn cards(count: usize, late_streams: u64, limit: Option<u64>) -> Option<Vec<Arc<Card>>> {
    let real = real_cards();
    if real.is_empty() {
        let sim = |number: usize| {
            let label = if count == 1 { "sim".into() } else { format!("sim:{number}") };
            card(SimOptions { label, late_streams, ..SimOptions::default() }, limit)
        };
        return Some((0..count).map(sim).collect());
    }
    let open =
        |&number: &usize| Card::with_driver(Arc::new(CudaCard::open(number).unwrap()), limit);
    (count <= real.len()).then(|| real[..count].iter().map(open).collect())
}

/// A backend on one simulated card of this compute capability.
pub fn sim(compute_capability: u32, half: Half) -> Cuda {
    let options = SimOptions { compute_capability, ..SimOptions::default() };
    Cuda::with_cards(vec![card(options, None)], half).unwrap()
}

/// A file of the repository.
pub fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A tensor of f32 as numbers.
pub fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let (values, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
    values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// ‖got − expected‖ / ‖expected‖.
pub fn relative_l2(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square = |value: f64| value * value;
    let error: f64 = got.iter().zip(expected).map(|(&a, &b)| square(a as f64 - b as f64)).sum();
    let size: f64 = expected.iter().map(|&b| square(b as f64)).sum();
    (error / size).sqrt()
}

/// The largest |got − expected| among the values that `counts` says count; NaN where any value is no number.
pub fn worst(got: &[f32], expected: &[f32], counts: impl Fn(f32) -> bool) -> f32 {
    assert_eq!(got.len(), expected.len());
    let error = |(&got, &expected): (&f32, &f32)| {
        if !got.is_finite() || !expected.is_finite() {
            f32::NAN
        } else if counts(expected) {
            (got - expected).abs()
        } else {
            0.0
        }
    };
    let larger = |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) };
    got.iter().zip(expected).map(error).fold(0.0, larger)
}

#[test]
fn a_nan_is_the_worst_wherever_it_stands() {
    let all = |_| true;
    assert_eq!(worst(&[1.0, 2.0], &[1.5, 2.0], all), 0.5);
    assert!(worst(&[f32::NAN, 2.0], &[1.5, 2.0], all).is_nan());
    assert!(worst(&[1.0, 2.0], &[f32::NAN, 2.0], all).is_nan());
    assert!(worst(&[f32::NAN, 2.0], &[0.0, 2.0], |value| value > 0.05).is_nan());
}

/// Tokens with a strong common part and outlier channels, as real ones have, in numbers that f16 holds.
pub fn random_features(images: usize, grid: Grid, width: usize, layers: usize) -> HostFeatures {
    let mut features = crate::random_features::random_features(images, grid, width, layers);
    for value in features.tokens.iter_mut().flatten() {
        *value = Half::F16.value(Half::F16.bits(*value));
    }
    features
}
