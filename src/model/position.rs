//! The position embedding at another grid than it was trained for, as PyTorch's bicubic upsampling gives it.
//!
//! Math: cubic convolution with a = -0.75 (Keys 1981) in both directions, borders repeated, no antialiasing.
//! The source coordinate of output i is (i + 1/2)·step - 1/2, on each axis by its own side. CLIP resizes by size:
//! step = G / H for G stored and H wanted. DINO and DINOv2 resize by a scale factor of (H + 0.1) / G: step = G / (H + 0.1),
//! so that every position is a little off; the weights' users all do that, so it is part of the model.

use super::tensor::Tensor;
use super::vit::Vit;
use crate::Grid;

/// Keys' parameter, as PyTorch has it. (Pillow's is -0.5.)
const A: f64 = -0.75;

/// What the patch products are added to: the position embedding for a grid of patches, with the class token in its first
/// row and the bias of the patch convolution in the others.
///
/// # Shapes
/// The result is `[1 + H·W, D]`: the class token's row, then the patches row by row.
pub fn token_embedding(vit: &Vit, grid: Grid) -> Vec<f32> {
    let width = vit.architecture.width;
    let mut embedding = position_embedding(vit, grid);
    let after_class = width.min(embedding.len());
    let (class_row, patch_rows) = embedding.split_at_mut(after_class);
    let add = |row: &mut [f32], more: &[f32]| {
        row.iter_mut().zip(more).for_each(|(value, more)| *value += more);
    };
    add(class_row, &vit.class_token.to_f32());
    if let Some(bias) = vit.patch_bias.as_ref().map(Tensor::to_f32) {
        patch_rows.chunks_exact_mut(width).for_each(|row| add(row, &bias));
    }
    embedding
}

/// The position embedding for a grid of patches: the stored values where the grid is the
/// stored one, else resized.
///
/// # Shapes
/// The result is `[1 + H·W, D]`: the class token's row, then the patches row by row.
pub fn position_embedding(vit: &Vit, grid: Grid) -> Vec<f32> {
    let stored = vit.position_embedding.to_f32();
    let sizes = &vit.architecture;
    if grid == Grid::square(sizes.native_grid) {
        return stored;
    }
    let (class_row, patches) = stored.split_at(sizes.width.min(stored.len()));
    let offset = sizes.family.position_offset();
    let step = |side: usize| sizes.native_grid as f64 / (side as f64 + offset);
    let mut embedding = Vec::with_capacity((1 + grid.patches()) * sizes.width);
    embedding.extend_from_slice(class_row);
    let steps = (step(grid.rows), step(grid.columns));
    resize(patches, sizes.native_grid, sizes.width, grid, steps, &mut embedding);
    embedding
}

/// Appends `[H, W, width]`, resized from `source` `[side, side, width]`: first along each row, then
/// along the columns.
fn resize(
    source: &[f32],
    side: usize,
    width: usize,
    grid: Grid,
    (step_y, step_x): (f64, f64),
    output: &mut Vec<f32>,
) {
    let taps = |count: usize, step: f64| {
        (0..count).map(|index| Taps::at(index, step, side)).collect::<Vec<_>>()
    };
    let along_rows = taps(grid.columns, step_x);
    let mut rows = Vec::with_capacity(side * grid.columns * width);
    for row in source.chunks_exact(side * width) {
        for taps in &along_rows {
            taps.mix(row, width, &mut rows);
        }
    }
    for taps in taps(grid.rows, step_y) {
        taps.mix(&rows, grid.columns * width, output);
    }
}

/// Four source indices and their weights.
struct Taps {
    indices: [usize; 4],
    weights: [f32; 4],
}

impl Taps {
    /// Those of output `index`, among `side` source positions.
    fn at(index: usize, step: f64, side: usize) -> Self {
        let coordinate = (index as f64 + 0.5) * step - 0.5;
        let first = coordinate.floor();
        let past = coordinate - first;
        let last = side as f64 - 1.0;
        Self {
            indices: [-1.0, 0.0, 1.0, 2.0].map(|tap| (first + tap).clamp(0.0, last) as usize),
            weights: [1.0 + past, past, 1.0 - past, 2.0 - past].map(|x| cubic(x) as f32),
        }
    }

    /// Appends the weighted sum of four runs of `length` values of `source`.
    fn mix(&self, source: &[f32], length: usize, output: &mut Vec<f32>) {
        let [a, b, c, d] = self.indices.map(|index| &source[index * length..(index + 1) * length]);
        let [wa, wb, wc, wd] = self.weights;
        let runs = a.iter().zip(b).zip(c).zip(d);
        output.extend(runs.map(|(((a, b), c), d)| wa * a + wb * b + wc * c + wd * d));
    }
}

/// The kernel at distance `x` of 0 to 2.
fn cubic(x: f64) -> f64 {
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tiny(name: &str) -> Vit {
        let file = format!("tests/data/{name}_tiny_weights.safetensors");
        Vit::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
    }

    /// The definition in f64, each value from its sixteen neighbours, with the kernel as Keys writes it.
    fn reference(stored: &[f32], side: usize, width: usize, grid: Grid, offset: f64) -> Vec<f64> {
        let kernel = |x: f64| {
            let (a, x) = (-0.75, x.abs());
            match x {
                _ if x <= 1.0 => (a + 2.0) * x.powi(3) - (a + 3.0) * x.powi(2) + 1.0,
                _ if x < 2.0 => a * x.powi(3) - 5.0 * a * x.powi(2) + 8.0 * a * x - 4.0 * a,
                _ => 0.0,
            }
        };
        let neighbours = |index: usize, count: usize| {
            let step = side as f64 / (count as f64 + offset);
            let coordinate = (index as f64 + 0.5) * step - 0.5;
            let first = coordinate.floor() as i64 - 1;
            (first..first + 4).map(move |source| {
                (source.clamp(0, side as i64 - 1) as usize, kernel(coordinate - source as f64))
            })
        };
        let mut values = Vec::new();
        for y in 0..grid.rows {
            for x in 0..grid.columns {
                for channel in 0..width {
                    let mut sum = 0.0;
                    for (source_y, weight_y) in neighbours(y, grid.rows) {
                        for (source_x, weight_x) in neighbours(x, grid.columns) {
                            let row = 1 + source_y * side + source_x;
                            sum += weight_y * weight_x * f64::from(stored[row * width + channel]);
                        }
                    }
                    values.push(sum);
                }
            }
        }
        values
    }

    #[test]
    #[cfg_attr(packaged, ignore = "a file that is in the repository only")]
    fn equal_to_the_definition_at_every_grid() {
        for (name, offset) in [("clip", 0.0), ("dino", 0.1), ("dinov2", 0.1)] {
            let vit = tiny(name);
            let (side, width) = (vit.architecture.native_grid, vit.architecture.width);
            let stored = vit.position_embedding.to_f32();
            let largest = stored.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
            // Two passes of four products; the magnitudes of four weights sum to at most 1.375 a pass. Each
            // weight, product and partial sum is rounded once: 5 roundings a term and pass.
            let bound =
                2.0 * 5.0 * f64::from(f32::EPSILON / 2.0) * 1.375 * 1.375 * f64::from(largest);
            let squares = [1, 2, 3, 5, 7, 8, 13, 37].map(Grid::square);
            let others = [(1, 17), (37, 16), (64, 5), (4, 3), (3, 4)];
            for grid in squares.into_iter().chain(others.map(|(h, w)| Grid::new(h, w))) {
                let found = position_embedding(&vit, grid);
                assert_eq!(found.len(), (1 + grid.patches()) * width);
                assert_eq!(found[..width], stored[..width], "class token's row");
                let expected = reference(&stored, side, width, grid, offset);
                for (a, b) in found[width..].iter().zip(&expected) {
                    let error = (f64::from(*a) - b).abs();
                    assert!(error <= bound, "{name} at {grid}: {error} of {bound}");
                }
            }
        }
    }

    #[test]
    #[cfg_attr(packaged, ignore = "a file that is in the repository only")]
    fn the_stored_grid_is_returned_as_it_is() {
        for name in ["clip", "dino", "dinov2"] {
            let vit = tiny(name);
            assert_eq!(position_embedding(&vit, Grid::square(4)), vit.position_embedding.to_f32());
        }
    }

    #[test]
    #[cfg_attr(packaged, ignore = "a file that is in the repository only")]
    fn class_token_and_bias_are_added_once() {
        for name in ["clip", "dino"] {
            let vit = tiny(name);
            let (width, grid) = (vit.architecture.width, Grid::new(3, 5));
            let bias = vit.patch_bias.as_ref().map_or(vec![0.0; width], Tensor::to_f32);
            let class_token = vit.class_token.to_f32();
            let positions = position_embedding(&vit, grid);
            for (at, value) in token_embedding(&vit, grid).into_iter().enumerate() {
                let added = if at < width { class_token[at] } else { bias[at % width] };
                assert_eq!(value, positions[at] + added, "{name}, value {at}");
            }
        }
    }

    #[test]
    #[cfg_attr(packaged, ignore = "a file that is in the repository only")]
    fn no_grid_leaves_the_class_token() {
        let vit = tiny("dino");
        assert_eq!(
            position_embedding(&vit, Grid::new(0, 0)),
            vit.position_embedding.to_f32()[..128]
        );
    }

    #[test]
    fn weights_of_the_taps() {
        // Half way between two positions, in the middle and past the border.
        let taps = Taps::at(0, 4.0, 8);
        assert_eq!(taps.indices, [0, 1, 2, 3]);
        assert_eq!(taps.weights, [-0.09375, 0.59375, 0.59375, -0.09375]);
        assert_eq!(Taps::at(0, 0.5, 3).indices, [0, 0, 0, 1]);
        assert_eq!(Taps::at(5, 0.5, 3).indices, [1, 2, 2, 2]);
        for index in 0..100 {
            let taps = Taps::at(index, 37.0 / 100.1, 37);
            let sum: f32 = taps.weights.iter().sum();
            let magnitude: f32 = taps.weights.iter().map(|weight| weight.abs()).sum();
            assert!((sum - 1.0).abs() <= 4.0 * f32::EPSILON, "{index}: {sum}");
            assert!(magnitude <= 1.375 + 4.0 * f32::EPSILON, "{index}: {magnitude}");
        }
    }
}
