//! What these tests share: simulated cards, goldens, comparisons.

use std::sync::Arc;

use musc::Grid;
use musc::backend::HostFeatures;
use musc::backend::cuda::driver::card::CudaCard;
use musc::backend::cuda::driver::sim::{Sim, SimOptions};
use musc::backend::cuda::{Card, Cuda, Half};

pub use crate::compare::{assert_within, floats, relative_l2};

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
        _ => {
            let options = SimOptions { mma_sums: crate::mma_sums::mma_sums(), ..options };
            Card::with_driver(Arc::new(Sim::new(options)), limit)
        }
    }
}

/// A simulated card, whatever device is named: one that may fail, which a real one does for good.
pub fn simulated(options: SimOptions) -> Arc<Card> {
    Card::with_driver(Arc::new(Sim::new(options)), None)
}

/// Streams that run late: none, each of the first four alone, every second one, all. A real card has its own ways.
pub fn late_streams() -> &'static [u64] {
    const LATE: [u64; 7] = [0, 1, 2, 4, 8, 0b1010_1010_1010, u64::MAX];
    if real_cards().is_empty() { &LATE } else { &LATE[..1] }
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

/// Fails unless scores are within `bound` where they are above 0.05, and numbers everywhere. Tells how far they are.
#[track_caller]
pub fn scores_within(what: &str, got: &[f32], expected: &[f32], bound: f64) {
    let of = |at: usize| if expected[at] > 0.05 { bound } else { f64::INFINITY };
    let worst = assert_within(what, got, expected, of);
    println!("{what}: {:.2e}, at most {bound:.0e}", worst * bound);
}

/// Tokens with a strong common part and outlier channels, as real ones have, in numbers that f16 holds.
pub fn random_features(images: usize, grid: Grid, width: usize, layers: usize) -> HostFeatures {
    let mut features = crate::random_features::random_features(images, grid, width, layers);
    for value in features.tokens.iter_mut().flatten() {
        *value = Half::F16.value(Half::F16.bits(*value));
    }
    features
}
