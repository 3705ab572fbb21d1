//! What these tests share: simulated cards, goldens, comparisons.

use std::sync::Arc;

use musc::backend::HostFeatures;
use musc::backend::cuda::driver::sim::{Sim, SimOptions};
use musc::backend::cuda::{Card, Cuda, Half};
use safetensors::SafeTensors;

/// A simulated card with a name of its own.
pub fn card(options: SimOptions, limit: Option<u64>) -> Arc<Card> {
    Card::with_driver(Arc::new(Sim::new(options)), limit)
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

/// The largest |got − expected| among the values that `counts` says count.
pub fn worst(got: &[f32], expected: &[f32], counts: impl Fn(f32) -> bool) -> f32 {
    assert_eq!(got.len(), expected.len());
    let pairs = got.iter().zip(expected).filter(|(_, e)| counts(**e));
    pairs.map(|(g, e)| (g - e).abs()).fold(0.0, |m, d| if d.is_nan() { f32::NAN } else { m.max(d) })
}

/// Tokens with a strong common part and outlier channels, as real ones have, in numbers that f16 holds.
pub fn random_features(images: usize, grid: usize, width: usize, layers: usize) -> HostFeatures {
    let mut features = crate::random_features::random_features(images, grid, width, layers);
    for value in features.tokens.iter_mut().flatten() {
        *value = Half::F16.value(Half::F16.bits(*value));
    }
    features
}
