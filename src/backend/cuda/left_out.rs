//! Patches that are no part of their image: what stands in their place, and what the others no longer see.
//!
//! A left-out patch's token is the mean of its image's other tokens, so that nothing is left of it when the mean is
//! removed: it adds nothing to a pooled token, as if it lay outside the grid. Its inverse norm is NaN, so that no maximum
//! takes it in.

use std::ops::Range;

use super::features::{Features, Place};
use super::launch::{Half, value_of_key};
use crate::{Error, Grid, Result};

/// Leaves out the marked patches, besides those that are left out already.
pub(super) fn leave_out(features: &mut Features, mut marks: Vec<bool>) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let all = features.images * features.patches;
    if marks.len() != all {
        return Err(Error::invalid("marks of patches left out", marks.len(), all.to_string()));
    }
    for (mark, &before) in marks.iter_mut().zip(&features.left_out) {
        *mark |= before;
    }
    if let Some(image) =
        marks.chunks_exact(features.patches).position(|image| !image.contains(&false))
    {
        return Err(Error::invalid(
            format!("patches of image {image} that are left"),
            0,
            format!("at least 1 of {}", features.patches),
        ));
    }
    let (values, half) = (features.image_values(), features.half);
    let widths = (features.width, features.stride);
    let marked = marks.chunks_exact(features.patches).enumerate();
    let marked = marked.filter(|(_, marks)| marks.contains(&true));
    match &mut features.place {
        Place::Host(layers) => {
            for (image, marks) in marked {
                let tokens = image * values..(image + 1) * values;
                for layer in &mut *layers {
                    fill(half, &mut layer[tokens.clone()], widths, marks);
                }
            }
        }
        Place::Card(layers) => {
            let Some(first) = layers.first() else { return Ok(()) };
            let stream = first.card().stream()?;
            for (image, marks) in marked {
                let range = image * values..(image + 1) * values;
                for layer in &mut *layers {
                    let mut tokens = stream.download_new(layer.view().part(range.clone())?)?;
                    fill(half, &mut tokens, widths, marks);
                    stream.upload(layer.view_mut().part(range.clone())?, &tokens)?;
                }
            }
        }
    }
    features.left_out = if marks.contains(&true) { marks } else { Vec::new() };
    Ok(())
}

/// Puts the mean of an image's other tokens in the place of the marked ones.
fn fill(half: Half, tokens: &mut [u16], (width, stride): (usize, usize), marks: &[bool]) {
    let (mut sum, mut count) = (0.0f64, 0usize);
    for (token, _) in tokens.chunks_exact(stride).zip(marks).filter(|(_, left_out)| !**left_out) {
        sum += token[..width].iter().map(|&bits| f64::from(half.value(bits))).sum::<f64>();
        count += width;
    }
    let mean = half.bits((sum / count.max(1) as f64) as f32);
    for (token, _) in tokens.chunks_exact_mut(stride).zip(marks).filter(|(_, left_out)| **left_out)
    {
        token[..width].fill(mean);
    }
}

/// Where a radius and patches that are left out meet: `[M, L]`, whether nothing of a reference is left within the radius
/// of a place, so that a patch there does not see that reference.
pub(super) fn blind(left_out: &[bool], grid: Grid, radius: usize) -> Vec<bool> {
    let near = |at: usize, all: usize| -> Range<usize> {
        at.saturating_sub(radius)..all.min(at.saturating_add(radius).saturating_add(1))
    };
    let of_image = |marks: &[bool]| -> Vec<bool> {
        let place = |at: usize| (at / grid.columns, at % grid.columns);
        (0..marks.len())
            .map(|at| {
                let (y, x) = place(at);
                near(y, grid.rows)
                    .all(|y| near(x, grid.columns).all(|x| marks[y * grid.columns + x]))
            })
            .collect()
    };
    left_out.chunks_exact(grid.patches().max(1)).flat_map(of_image).collect()
}

/// The mean distance at these ranks over the images that were compared, as `kernels/interval_mean.cu` has it. The keys
/// of one patch; 0 where nothing was compared.
pub(super) fn interval_mean(keys: impl Iterator<Item = u32>, (low, high): (usize, usize)) -> f32 {
    let mut distances: Vec<f32> = keys
        .filter(|&key| key != 0)
        .map(|key| (2.0 - 2.0 * value_of_key(key)).max(0.0).sqrt())
        .collect();
    distances.sort_unstable_by(f32::total_cmp);
    let chosen = distances.get(low..high).unwrap_or_default();
    if chosen.is_empty() { f32::NAN } else { chosen.iter().sum::<f32>() / chosen.len() as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::launch::Half;

    #[test]
    fn the_mean_of_the_others_takes_a_place() {
        let bits = |values: &[f32]| values.iter().map(|&v| Half::F16.bits(v)).collect::<Vec<_>>();
        // Tokens of width 2, padded to 3.
        let mut tokens = bits(&[1.0, 2.0, 0.0, 9.0, 9.0, 0.0, 3.0, 6.0, 0.0]);
        fill(Half::F16, &mut tokens, (2, 3), &[false, true, false]);
        assert_eq!(tokens, bits(&[1.0, 2.0, 0.0, 3.0, 3.0, 0.0, 3.0, 6.0, 0.0]));
    }

    #[test]
    fn blind_where_all_of_a_window_is_left_out() {
        let marks = [true, true, false, true, true, true, true, true];
        let grid = Grid::new(2, 4);
        let expected = [true, false, false, false, true, false, false, false];
        assert_eq!(blind(&marks, grid, 1), expected);
        assert_eq!(blind(&marks, grid, 0), marks);
        assert_eq!(blind(&marks, grid, usize::MAX), [false; 8]);
    }

    #[test]
    fn keys_of_nothing_take_no_part() {
        let key = |cosine: f32| cosine.to_bits() | 0x8000_0000;
        let keys = [key(0.5), 0, key(1.0), key(0.875)];
        assert_eq!(interval_mean(keys.into_iter(), (0, 2)), 0.25);
        assert!(interval_mean(keys.into_iter(), (0, 4)).is_nan());
        assert!(interval_mean([0, 0].into_iter(), (0, 1)).is_nan());
    }
}
