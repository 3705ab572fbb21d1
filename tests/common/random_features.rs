//! Made-up tokens for tests of scoring.

use musc::Grid;
use musc::backend::HostFeatures;

/// Tokens with a strong common part and outlier channels, as real ones have.
pub fn random_features(images: usize, grid: Grid, width: usize, layers: usize) -> HostFeatures {
    let mut state = 12_345u64 + (images * grid.rows * width) as u64;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let patches = grid.patches();
    let tokens = (0..layers)
        .map(|_| {
            let common: Vec<f32> = (0..patches * width).map(|_| 2.0 * uniform()).collect();
            (0..images * patches * width)
                .map(|at| {
                    let outlier = if at % width == width / 2 { 8.0 } else { 0.3 };
                    common[at % (patches * width)] + uniform() + outlier
                })
                .collect()
        })
        .collect();
    HostFeatures::new(images, grid, width, (0..layers).collect(), tokens)
}
