//! Resampling of 8-bit pixels, equal to the bit to Pillow before 13.
//!
//! # Formula
//! One side at a time, `in` pixels to `out`: scale `s = in / out`, filter stretch `f = max(s, 1)`, output `x` has
//! its centre at `c = (x + 0.5) * s` and takes the input pixels `i` from `round(c - support * f)` to
//! `round(c + support * f)`, cut to the image, with weights `w((i - c + 0.5) / f)` divided by their sum.
//!
//! # Numerics
//! Weights are computed in f64 and rounded to integers of 22 fraction bits (half away from zero). A pass sums
//! `weight * pixel` in i32 from `1 << 21`, shifts right by 22 and clips to 0..=255. The sum cannot overflow: the
//! absolute weights of either filter sum to less than 1.5 (cubic lobes included), and 1.5 * 255 * 2^22 < 2^31.
//!
//! # Order
//! The horizontal pass runs first, over the rows the vertical pass reads. A side that already has its target
//! length is not touched. (Pillow 13 turned the order round, 12.3 for images more than 100 times as tall as wide:
//! github.com/python-pillow/Pillow pull requests 9549 and 9524. The published figures are from older versions.)

use std::ops::Range;

use pulp::Arch;

use super::{Filter, RgbImage};
use crate::{ImageSize, simd};

/// Fraction bits of a weight: 32 bits less 8 for the pixel and 2 for the sum and its sign.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half of the last place kept: the sum starts here, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Resizes both sides to those of `size`, each on its own: nothing is cropped, and the image's proportions are kept only if
/// `size` has them.
///
/// An image without pixels gives black.
///
/// # Panics
/// When `image.data` does not hold `height * width * 3` bytes.
pub fn resize(image: &RgbImage, size: ImageSize, filter: Filter) -> RgbImage {
    let data = resample::<3>(simd::arch(), &image.data, sides(image.size()), sides(size), filter);
    RgbImage { width: size.width, height: size.height, data }
}

/// Resizes one channel (a mask) of the size `from` to the size `to` with the triangle filter.
///
/// # Shapes
/// `data` `[from.height, from.width]`, a byte a pixel; the result `[to.height, to.width]`.
///
/// # Panics
/// When `data` does not hold `height * width` bytes.
pub fn resize_gray(data: &[u8], from: ImageSize, to: ImageSize) -> Vec<u8> {
    resample::<1>(simd::arch(), data, sides(from), sides(to), Filter::Bilinear)
}

/// (width, height).
fn sides(size: ImageSize) -> (usize, usize) {
    (size.width, size.height)
}

/// Both passes over pixels of `C` interleaved channels; sizes are (width, height).
fn resample<const C: usize>(
    arch: Arch,
    data: &[u8],
    from: (usize, usize),
    to: (usize, usize),
    filter: Filter,
) -> Vec<u8> {
    assert_eq!(data.len(), from.0 * from.1 * C, "bytes of a {}x{} image", from.0, from.1);
    if to.0 == 0 || to.1 == 0 || data.is_empty() {
        return vec![0; to.0 * to.1 * C];
    }
    let rows = (from.1 != to.1).then(|| Weights::new(from.1, to.1, filter));
    // The rows that the vertical pass reads; all of them when there is none.
    let needed = rows.as_ref().map_or(0..from.1, Weights::reach);
    let (wide, first_row) = if from.0 == to.0 {
        (None, 0)
    } else {
        let columns = Weights::new(from.0, to.0, filter);
        let source = &data[needed.start * from.0 * C..needed.end * from.0 * C];
        let mut out = vec![0; needed.len() * to.0 * C];
        arch.dispatch(
            #[inline(always)]
            || horizontal::<C>(source, from.0 * C, &columns, &mut out),
        );
        (Some(out), needed.start)
    };
    match (wide, rows) {
        (None, None) => data.to_vec(),
        (Some(wide), None) => wide,
        (wide, Some(rows)) => {
            let source = wide.as_deref().unwrap_or(data);
            let mut out = vec![0; to.0 * to.1 * C];
            arch.dispatch(
                #[inline(always)]
                || vertical(source, first_row, to.0 * C, &rows, &mut out),
            );
            out
        }
    }
}

/// The weights of one pass: for each output position the input it reads and 22-bit integer weights.
struct Weights {
    /// First input position of each output position, and how many follow.
    ranges: Vec<Range<usize>>,
    /// `taps` values a position, the unused ones at the end zero.
    values: Vec<i32>,
    /// Values a position.
    taps: usize,
}

impl Weights {
    fn new(from: usize, to: usize, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let taps = support.ceil() as usize * 2 + 1;
        // The inverse is what gets multiplied, as a division would round otherwise.
        let inverse = 1.0 / stretch;
        let mut ranges = Vec::with_capacity(to);
        let mut values = vec![0; taps * to];
        let mut exact = Vec::with_capacity(taps);
        for (position, row) in values.chunks_exact_mut(taps).enumerate() {
            let centre = (position as f64 + 0.5) * scale;
            // `as` cuts towards zero and takes negative values to 0, which is the image's edge.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            exact.clear();
            exact.extend(
                (start..end).map(|input| filter.weight((input as f64 - centre + 0.5) * inverse)),
            );
            let sum: f64 = exact.iter().sum();
            for (value, weight) in row.iter_mut().zip(&exact) {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                let scaled = weight * f64::from(1u32 << PRECISION_BITS);
                *value = (scaled + 0.5f64.copysign(scaled)) as i32;
            }
            ranges.push(start..end);
        }
        Weights { ranges, values, taps }
    }

    /// All input positions that any output position reads. Ranges move forward only.
    fn reach(&self) -> Range<usize> {
        match (self.ranges.first(), self.ranges.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }

    /// For each output position: where its input starts, and the weights from there.
    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.ranges
            .iter()
            .zip(self.values.chunks_exact(self.taps))
            .map(|(range, weights)| (range.start, &weights[..range.len()]))
    }
}

impl Filter {
    /// Half the filter's width at scale 1.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    /// The filter's height at `x`.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear if x < 1.0 => 1.0 - x,
            Filter::Bicubic if x < 1.0 => ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC,
            _ => 0.0,
        }
    }
}

/// The free parameter of the cubic filter.
const CUBIC: f64 = -0.5;

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Rows that the horizontal pass takes together: a weight is loaded once for all of them, and their sums do not
/// wait for one another.
const ROWS: usize = 4;

/// `source` has rows of `row` bytes, `out` rows of `C` bytes an output position.
#[inline(always)]
fn horizontal<const C: usize>(source: &[u8], row: usize, columns: &Weights, out: &mut [u8]) {
    let out_row = columns.ranges.len() * C;
    let mut blocks = source.chunks_exact(row * ROWS);
    let mut out_blocks = out.chunks_exact_mut(out_row * ROWS);
    for (block, out_block) in (&mut blocks).zip(&mut out_blocks) {
        horizontal_rows::<C, ROWS>(block, row, columns, out_block);
    }
    let rest = blocks.remainder().chunks_exact(row);
    for (line, out_line) in rest.zip(out_blocks.into_remainder().chunks_exact_mut(out_row)) {
        horizontal_rows::<C, 1>(line, row, columns, out_line);
    }
}

#[inline(always)]
fn horizontal_rows<const C: usize, const R: usize>(
    source: &[u8],
    row: usize,
    columns: &Weights,
    out: &mut [u8],
) {
    let out_row = columns.ranges.len() * C;
    for (position, (start, weights)) in columns.iter().enumerate() {
        let mut sums = [[HALF; C]; R];
        // One slice a row, of one length, so that the loop below needs no bounds check.
        let lines: [&[u8]; R] =
            std::array::from_fn(|line| &source[line * row + start * C..][..weights.len() * C]);
        for (tap, &weight) in weights.iter().enumerate() {
            for (sum, line) in sums.iter_mut().zip(lines) {
                let pixel = &line[tap * C..tap * C + C];
                for (sum, &value) in sum.iter_mut().zip(pixel) {
                    *sum += weight * i32::from(value);
                }
            }
        }
        for (line, sum) in sums.iter().enumerate() {
            let pixel = &mut out[line * out_row + position * C..][..C];
            for (value, &sum) in pixel.iter_mut().zip(sum) {
                *value = clip(sum);
            }
        }
    }
}

/// `source` starts at input row `first_row`; all rows have `row` bytes.
#[inline(always)]
fn vertical(source: &[u8], first_row: usize, row: usize, rows: &Weights, out: &mut [u8]) {
    let mut sums = vec![HALF; row];
    for ((start, weights), line) in rows.iter().zip(out.chunks_exact_mut(row)) {
        sums.fill(HALF);
        let input = &source[(start - first_row) * row..];
        for (&weight, values) in weights.iter().zip(input.chunks_exact(row)) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += weight * i32::from(value);
            }
        }
        for (value, &sum) in line.iter_mut().zip(&sums) {
            *value = clip(sum);
        }
    }
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
