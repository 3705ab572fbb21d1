//! From patch scores to the anomaly map: bilinear, corners aligned.
//!
//! The first and last patch sit on the first and last pixel. Positions are exact fractions and the sums run in f64,
//! so a map in f32 is the correctly rounded one of the exact map within one unit of the f64 sums.

use crate::{Error, Grid, ImageSize, Real, Result};

/// Where an output position falls on the grid: the cell before it, the one after, and the share of the latter.
struct Tap {
    before: usize,
    after: usize,
    share: f64,
}

/// The taps of `size` output positions over `grid` cells of one side. A single output position sits on the first cell, as in PyTorch.
fn taps(grid: usize, size: usize) -> Vec<Tap> {
    let last = size.saturating_sub(1).max(1);
    (0..size)
        .map(|position| {
            // position · (grid − 1) / (size − 1), split without rounding into its whole part and its rest.
            let scaled = if size > 1 { position * (grid - 1) } else { 0 };
            let before = scaled / last;
            Tap {
                before,
                after: (before + 1).min(grid - 1),
                share: (scaled % last) as f64 / last as f64,
            }
        })
        .collect()
}

fn check<T>(patch_scores: &[T], grid: Grid, size: ImageSize) -> Result<()> {
    if patch_scores.is_empty() || grid.rows.checked_mul(grid.columns) != Some(patch_scores.len()) {
        return Err(Error::invalid(
            "patch scores",
            format!("{} values", patch_scores.len()),
            format!("those of a grid of {grid}, at least 1"),
        ));
    }
    // The products that are formed: rows in between, and positions of either side.
    let fits = [
        size.height.checked_mul(size.width),
        size.width.checked_mul(grid.rows),
        size.width.checked_mul(grid.columns),
        size.height.checked_mul(grid.rows),
    ];
    if size.pixels() == 0 || fits.contains(&None) {
        return Err(Error::invalid("anomaly map size", size, "at least 1 pixel a side"));
    }
    Ok(())
}

/// Hands each finished output row to `use_row`, top to bottom. The one place where a pixel is computed.
fn for_each_row<T: Real>(
    patch_scores: &[T],
    grid: Grid,
    size: ImageSize,
    mut use_row: impl FnMut(usize, &[T]),
) {
    let columns = taps(grid.columns, size.width);
    let mut wide = vec![0.0f64; grid.rows * size.width];
    let lines = wide.chunks_exact_mut(size.width);
    for (line, scores) in lines.zip(patch_scores.chunks_exact(grid.columns)) {
        for (value, tap) in line.iter_mut().zip(&columns) {
            let (a, b): (f64, f64) = (scores[tap.before].into(), scores[tap.after].into());
            *value = a * (1.0 - tap.share) + b * tap.share;
        }
    }
    let mut row = vec![T::default(); size.width];
    for (y, tap) in taps(grid.rows, size.height).iter().enumerate() {
        let above = &wide[tap.before * size.width..][..size.width];
        let below = &wide[tap.after * size.width..][..size.width];
        for ((value, a), b) in row.iter_mut().zip(above).zip(below) {
            *value = T::from_f64(a * (1.0 - tap.share) + b * tap.share);
        }
        use_row(y, &row);
    }
}

/// The anomaly map of one image.
///
/// # Shapes
/// `patch_scores` `[H, W]` and `out` `[height, width]`, rows top to bottom. A side of one patch is constant along it; a side of
/// one pixel takes the first patch (as PyTorch's `interpolate(mode="bilinear", align_corners=True)`).
///
/// # Errors
/// [`Error::Invalid`] when a length does not fit or is 0.
pub fn upsample<T: Real>(
    patch_scores: &[T],
    grid: Grid,
    size: ImageSize,
    out: &mut [T],
) -> Result<()> {
    check(patch_scores, grid, size)?;
    if out.len() != size.pixels() {
        return Err(Error::invalid(
            "anomaly map",
            format!("room for {} values", out.len()),
            format!("{size} values"),
        ));
    }
    for_each_row(patch_scores, grid, size, |y, row| {
        out[y * size.width..][..size.width].copy_from_slice(row);
    });
    Ok(())
}

/// The largest value of the map that [`upsample`] would write, to the bit, without storing the map: the image score.
/// NaN if the map has a NaN.
///
/// # Errors
/// As [`upsample`].
pub fn upsample_max<T: Real>(patch_scores: &[T], grid: Grid, size: ImageSize) -> Result<T> {
    check(patch_scores, grid, size)?;
    let mut largest = T::NEG_INFINITY;
    for_each_row(patch_scores, grid, size, |_, row| {
        largest = row.iter().fold(largest, |best, &value| {
            if value > best || value.into().is_nan() { value } else { best }
        });
    });
    Ok(largest)
}

/// Marks of the wrong length, refused before anything is computed with them.
fn check_marks<T>(patch_scores: &[T], left_out: &[bool]) -> Result<()> {
    if left_out.is_empty() || left_out.len() == patch_scores.len() {
        return Ok(());
    }
    let expected = format!("{}, or none", patch_scores.len());
    Err(Error::invalid("marks of patches left out", left_out.len(), expected))
}

/// The patch whose area a pixel lies in, for each position of one side.
fn owners(grid: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..size).map(move |position| ((2 * position + 1) * grid / (2 * size)).min(grid - 1))
}

/// Whether each pixel of a map, `[height, width]`, lies in a patch that is not left out: pixel (y, x) in patch
/// ⌊(y + ½)·H/height⌋, ⌊(x + ½)·W/width⌋.
///
/// # Errors
/// [`Error::Invalid`] for another number of marks `[L]` than the grid has patches, or a size without pixels.
pub fn inside(left_out: &[bool], grid: Grid, size: ImageSize) -> Result<Vec<bool>> {
    check(left_out, grid, size)?;
    let columns: Vec<usize> = owners(grid.columns, size.width).collect();
    Ok(owners(grid.rows, size.height)
        .flat_map(|y| columns.iter().map(move |x| !left_out[y * grid.columns + x]))
        .collect())
}

/// As [`upsample`], where some patches are left out (`left_out` `[L]`; empty for none): pixels of theirs are 0, as
/// [`inside`] says, and the others are the mean of the patches around them that are not left out, by the weights that
/// [`upsample`] has. So a region's edge neither lowers what is inside nor bleeds out of it.
///
/// # Errors
/// As [`upsample`], and for another number of marks.
pub fn upsample_within<T: Real>(
    patch_scores: &[T],
    left_out: &[bool],
    grid: Grid,
    size: ImageSize,
    out: &mut [T],
) -> Result<()> {
    check_marks(patch_scores, left_out)?;
    upsample(patch_scores, grid, size, out)?;
    if left_out.contains(&true) {
        mend_rows(patch_scores, left_out, grid, size, |y, row| {
            let line = &mut out[y * size.width..][..size.width];
            for (value, mended) in line.iter_mut().zip(row) {
                *value = mended.unwrap_or(*value);
            }
        });
    }
    Ok(())
}

/// The largest value of the map that [`upsample_within`] would write, to the bit.
///
/// # Errors
/// As [`upsample_within`].
pub fn upsample_max_within<T: Real>(
    patch_scores: &[T],
    left_out: &[bool],
    grid: Grid,
    size: ImageSize,
) -> Result<T> {
    check_marks(patch_scores, left_out)?;
    if !left_out.contains(&true) {
        return upsample_max(patch_scores, grid, size);
    }
    let mut map = vec![T::default(); size.pixels()];
    upsample_within(patch_scores, left_out, grid, size, &mut map)?;
    Ok(map.iter().fold(T::NEG_INFINITY, |best, &value| {
        if value > best || value.into().is_nan() { value } else { best }
    }))
}

/// Hands out, row by row, the pixels whose value is another than [`upsample`]'s because a patch around them is left out.
fn mend_rows<T: Real>(
    patch_scores: &[T],
    left_out: &[bool],
    grid: Grid,
    size: ImageSize,
    mut use_row: impl FnMut(usize, &[Option<T>]),
) {
    let columns = taps(grid.columns, size.width);
    let own_columns: Vec<usize> = owners(grid.columns, size.width).collect();
    let mut row = vec![None; size.width];
    let rows = taps(grid.rows, size.height);
    for (y, (tap, own_row)) in rows.iter().zip(owners(grid.rows, size.height)).enumerate() {
        for ((value, column), own_column) in row.iter_mut().zip(&columns).zip(&own_columns) {
            let corner = |row: usize, column: usize| row * grid.columns + column;
            let corners = [
                (corner(tap.before, column.before), (1.0 - tap.share) * (1.0 - column.share)),
                (corner(tap.before, column.after), (1.0 - tap.share) * column.share),
                (corner(tap.after, column.before), tap.share * (1.0 - column.share)),
                (corner(tap.after, column.after), tap.share * column.share),
            ];
            let own = corner(own_row, *own_column);
            *value = if left_out[own] {
                Some(T::default())
            } else if corners.iter().all(|(at, _)| !left_out[*at]) {
                None
            } else {
                let left = || corners.iter().filter(|(at, _)| !left_out[*at]);
                let weight: f64 = left().map(|(_, weight)| weight).sum();
                let sum: f64 = left().map(|(at, weight)| patch_scores[*at].into() * weight).sum();
                // A pixel of a tiny map may sit on a patch that is left out alone.
                Some(if weight > 0.0 { T::from_f64(sum / weight) } else { patch_scores[own] })
            };
        }
        use_row(y, &row);
    }
}

#[cfg(test)]
#[path = "upsample_within_tests.rs"]
mod within_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn map(patch_scores: &[f32], grid: (usize, usize), size: (usize, usize)) -> Vec<f32> {
        let (grid, size) = (Grid::new(grid.0, grid.1), ImageSize::new(size.0, size.1));
        let mut out = vec![f32::NAN; size.pixels()];
        upsample(patch_scores, grid, size, &mut out).expect("upsample");
        let largest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let streamed = upsample_max(patch_scores, grid, size).expect("upsample_max");
        assert_eq!(largest.to_bits(), streamed.to_bits(), "grid {grid} size {size}");
        out
    }

    #[test]
    fn equals_the_golden() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/stages_small.safetensors");
        let bytes = std::fs::read(path).expect("the golden is in the repository");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let read = |name: &str| -> Vec<f32> {
            let tensor = file.tensor(name).expect("tensor");
            let values = tensor.data().chunks_exact(4);
            values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let (scores, expected) = (read("patch_scores"), read("anomaly_map"));
        for (image, (scores, expected)) in
            scores.chunks_exact(49).zip(expected.chunks_exact(98 * 98)).enumerate()
        {
            let largest = scores.iter().copied().fold(0.0, f32::max);
            for (at, (a, b)) in map(scores, (7, 7), (98, 98)).iter().zip(expected).enumerate() {
                // Ours is within half a unit in the last place of the exact value. The golden's maker interpolates in f32:
                // 6 roundings of values below `largest`, and a source position off by 6 units of f32 at most,
                // times the largest step between neighbours, which is below `largest`.
                let bound = 12.5 * f64::from(f32::EPSILON) * f64::from(largest);
                let error = (f64::from(*a) - f64::from(*b)).abs();
                assert!(error <= bound, "image {image} pixel {at}: {a} {b}, {}", error / bound);
            }
        }
    }

    #[test]
    fn edges_are_those_of_pytorch() {
        let four = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(map(&[0.3], (1, 1), (1, 1)), [0.3]);
        assert_eq!(map(&[0.3], (1, 1), (3, 2)), [0.3; 6]);
        assert_eq!(map(&four, (2, 2), (1, 1)), [1.0]);
        assert_eq!(map(&four, (2, 2), (2, 2)), four);
        let three = [1.0, 1.5, 2.0, 2.0, 2.5, 3.0, 3.0, 3.5, 4.0];
        assert_eq!(map(&four, (2, 2), (3, 3)), three);
        // Fewer pixels than patches: corners still meet corners.
        assert_eq!(map(&three, (3, 3), (2, 2)), four);
        // Each side by its own rule: one pixel high, as many wide as patches, and the other way.
        assert_eq!(map(&four, (2, 2), (1, 3)), [1.0, 1.5, 2.0]);
        assert_eq!(map(&four, (2, 2), (3, 1)), [1.0, 2.0, 3.0]);
        assert_eq!(map(&four, (1, 4), (2, 7)), [[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]; 2].concat());
        assert_eq!(map(&four, (4, 1), (4, 2)), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn the_streamed_maximum_is_that_of_the_map_on_prime_sizes() {
        for (grid, size) in [
            ((1, 1), (7, 5)),
            ((2, 2), (13, 13)),
            ((7, 7), (5, 5)),
            ((13, 13), (97, 97)),
            ((37, 37), (101, 101)),
            ((1, 17), (14, 238)),
            ((37, 16), (518, 224)),
            ((64, 5), (101, 3)),
        ] {
            let scores: Vec<f32> =
                (0..grid.0 * grid.1).map(|i| (i * 7919 % 1013) as f32 / 1013.0).collect();
            map(&scores, grid, size);
        }
    }

    #[test]
    fn a_turned_grid_gives_the_turned_map() {
        let (rows, columns, height, width) = (3, 5, 11, 17);
        let scores: Vec<f32> = (0..15).map(|i| (i * 7919 % 1013) as f32 / 1013.0).collect();
        let turned: Vec<f32> = (0..15).map(|at| scores[at % rows * columns + at / rows]).collect();
        let one = map(&scores, (rows, columns), (height, width));
        let other = map(&turned, (columns, rows), (width, height));
        for (at, value) in one.iter().enumerate() {
            let error = (value - other[at % width * height + at / width]).abs();
            // The sides are taken in another order: two roundings of f64, then one of f32 each.
            assert!(error <= f32::EPSILON, "pixel {at}: {error}");
        }
    }

    #[test]
    fn nan_reaches_the_maximum() {
        let largest =
            upsample_max(&[1.0, f32::NAN, 3.0, 4.0], Grid::square(2), ImageSize::square(3))
                .expect("upsample_max");
        assert!(largest.is_nan());
    }

    #[test]
    fn lengths_that_do_not_fit_are_named() {
        let mut out = [0.0; 4];
        for (scores, grid, size) in [
            (3, (2, 2), (2, 2)),
            (0, (0, 0), (2, 2)),
            (0, (0, 3), (2, 2)),
            (4, (2, 2), (0, 2)),
            (4, (2, 2), (2, 0)),
            (4, (2, 2), (3, 3)),
            (4, (2, 2), (4, 2)),
            (6, (2, 2), (2, 2)),
            (4, (2, 2), (usize::MAX, 2)),
            (4, (2, 2), (2, usize::MAX)),
            (4, (1 << 63, 1 << 3), (2, 2)),
        ] {
            let (grid, size) = (Grid::new(grid.0, grid.1), ImageSize::new(size.0, size.1));
            let found = upsample(&vec![0.0; scores], grid, size, &mut out);
            assert!(matches!(found, Err(Error::Invalid { .. })), "{scores} {grid} {size}");
            let fits = size == ImageSize::square(3) || size == ImageSize::new(4, 2);
            let found = upsample_max(&vec![0.0; scores], grid, size);
            assert_eq!(found.is_ok(), fits, "{scores} {grid} {size}");
        }
    }
}
