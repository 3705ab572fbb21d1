//! Sets of images in f64: pooled tokens, norms, largest cosines, and how far f32 may be off.

use rayon::prelude::*;

use super::judge::Want;
use super::numbers::{Random, U32, dot, norm, round, sum_error};
use musc::Grid;
use musc::backend::cuda::launch::Half;

/// Tokens of N images.
pub struct Images {
    /// Their format.
    pub half: Half,
    /// N.
    pub n: usize,
    /// H × W.
    pub grid: Grid,
    /// From one token to the next.
    pub width: usize,
    /// C; zeros from there on.
    pub channels: usize,
    /// As they lie on the card.
    pub bits: Vec<u16>,
    tokens: Vec<f64>,
    /// Patches whose inverse norm is made NaN.
    pub left_out: Vec<bool>,
}

/// What is known of a pooled token.
pub struct Pooled {
    /// It, at length 1.
    pub unit: Vec<f64>,
    /// The lengths of the tokens of a window over the length of the pooled token: no number that is added up for a cosine is
    /// larger than the product of two such reaches.
    reach: f64,
    /// 1/‖pooled token‖.
    pub inverse: f64,
    /// How far off that may be, over itself.
    pub off: f64,
    /// How far off each of its numbers may be, over its length, as a vector's length.
    pub off_token: f64,
}

impl Images {
    /// Tokens with a mean and outlier channels, of `channels` channels.
    pub fn new(
        half: Half,
        n: usize,
        grid: Grid,
        (width, channels): (usize, usize),
        seed: u64,
    ) -> Self {
        let rows = n * grid.patches();
        let mut random = Random(seed + (rows + width) as u64);
        let mut raw = random.tokens(rows, width);
        for (at, value) in raw.iter_mut().enumerate() {
            if at % width >= channels {
                *value = 0.0;
            }
        }
        Images::of(half, n, grid, (width, channels), &raw)
    }

    /// Small integers: everything that adds them up is exact.
    pub fn integers(half: Half, n: usize, grid: Grid, width: usize, seed: u64) -> Self {
        let raw = Random(seed).integers(n * grid.patches() * width, 3);
        Images::of(half, n, grid, (width, width), &raw)
    }

    fn of(
        half: Half,
        n: usize,
        grid: Grid,
        (width, channels): (usize, usize),
        raw: &[f32],
    ) -> Self {
        let (bits, tokens) = round(half, raw);
        let left_out = vec![false; n * grid.patches()];
        Images { half, n, grid, width, channels, bits, tokens, left_out }
    }

    /// Leaves out two of every `every` patches.
    pub fn leaving_out(mut self, every: usize) -> Self {
        for (at, left_out) in self.left_out.iter_mut().enumerate() {
            *left_out |= at % every < 2;
        }
        self
    }

    /// Makes an image the same as another of the set.
    pub fn copy(mut self, to: usize, from: usize) -> Self {
        let values = self.grid.patches() * self.width;
        self.bits.copy_within(from * values..(from + 1) * values, to * values);
        self.tokens.copy_within(from * values..(from + 1) * values, to * values);
        self
    }

    /// L.
    pub fn patches(&self) -> usize {
        self.grid.patches()
    }

    /// A token.
    pub fn token(&self, image: usize, p: usize) -> &[f64] {
        &self.tokens[(image * self.patches() + p) * self.width..][..self.width]
    }

    /// The sum of a token and of its magnitudes.
    pub fn row_sum(&self, image: usize, p: usize) -> (f64, f64) {
        self.token(image, p).iter().fold((0.0, 0.0), |(sum, size), v| (sum + v, size + v.abs()))
    }

    /// How far a row sum may be off: a lane adds width / 32 numbers, then five levels of lanes.
    pub fn row_sum_off(&self, magnitude: f64) -> f64 {
        (self.width as f64 / 32.0 + 6.0) * U32 * magnitude
    }

    /// The mean of an image, and how far it may be off: its row sums are, and a thread adds L / 256 of them before eight levels.
    pub fn mean(&self, image: usize) -> (f64, f64) {
        let sums = (0..self.patches()).map(|p| self.row_sum(image, p));
        let (sum, size) = sums.fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        let count = (self.patches() * self.channels) as f64;
        let levels = self.width as f64 / 32.0 + 6.0 + self.patches() as f64 / 256.0 + 12.0;
        (sum / count, levels * U32 * size / count + 2.0 * U32 * (sum / count).abs())
    }

    /// Pooled tokens of an image for one degree.
    pub fn pooled(&self, image: usize, degree: usize) -> Vec<Pooled> {
        let (mean, mean_off) = self.mean(image);
        let lengths: Vec<f64> = (0..self.patches()).map(|p| norm(self.token(image, p))).collect();
        let of_patch = |p: usize| {
            let window = near(self.grid, p, degree / 2);
            let mut sum = vec![0.0; self.width];
            let mut size = vec![0.0; self.width];
            for &q in &window {
                let token = &self.token(image, q)[..self.channels];
                for ((sum, size), v) in sum.iter_mut().zip(&mut size).zip(token) {
                    *sum += v - mean;
                    *size += v.abs() + mean.abs();
                }
            }
            let inverse = 1.0 / norm(&sum);
            let reach = window.iter().map(|&q| lengths[q]).sum::<f64>() * inverse;
            // A number of a pooled token: the mean's error in each of the window, a rounding for each of the at most 2·7 + 2
            // additions it goes through.
            let off: Vec<f64> = size
                .iter()
                .map(|size| window.len() as f64 * mean_off + 16.0 * U32 * size)
                .collect();
            let off_token = norm(&off[..self.channels]) * inverse;
            // And the squares: 4 + 5 + 8 levels, a root and a reciprocal.
            let of_norm = 1.01 * off_token + 30.0 * U32;
            sum.iter_mut().for_each(|v| *v *= inverse);
            Pooled { unit: sum, reach, inverse, off: of_norm, off_token }
        };
        (0..self.patches()).into_par_iter().map(of_patch).collect()
    }
}

/// Patches at most `radius` rows and columns from p.
pub fn near(grid: Grid, p: usize, radius: usize) -> Vec<usize> {
    let (y, x) = (p / grid.columns, p % grid.columns);
    let mut inside = Vec::new();
    for v in y.saturating_sub(radius)..=(y + radius).min(grid.rows - 1) {
        for u in x.saturating_sub(radius)..=(x + radius).min(grid.columns - 1) {
            inside.push(v * grid.columns + u);
        }
    }
    inside
}

/// Whom a patch is compared with, and in which numbers.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    /// Images of A.
    pub a: &'a Images,
    /// Images of B, the same where `symmetric`.
    pub b: &'a Images,
    /// One set.
    pub symmetric: bool,
    /// Only patches so near count, and unit tokens are rounded to halves: how far a rounding is off.
    pub local: Option<(usize, f64)>,
    /// Of the patches of an image, one in so many is worked out.
    pub step: usize,
}

impl Against<'_> {
    /// The largest cosines, `[degrees, N of a, N of b, L]`, as keys are compared.
    pub fn wants(&self, degrees: &[usize]) -> Vec<Want> {
        let (a, b, l) = (self.a, self.b, self.a.patches());
        let mut wants = Vec::new();
        for &degree in degrees {
            let pooled_b: Vec<Vec<Pooled>> = (0..b.n).map(|j| b.pooled(j, degree)).collect();
            for i in 0..a.n {
                let pooled_a = a.pooled(i, degree);
                for (j, pooled_b) in pooled_b.iter().enumerate() {
                    let want = |p: usize| self.want((i, j), p, &pooled_a, pooled_b);
                    wants.par_extend((0..l).into_par_iter().map(want));
                }
            }
        }
        wants
    }

    fn places(&self, p: usize) -> Vec<usize> {
        match self.local {
            None => (0..self.a.patches()).collect(),
            Some((radius, _)) => near(self.a.grid, p, radius),
        }
    }

    fn want(&self, (i, j): (usize, usize), p: usize, x: &[Pooled], y: &[Pooled]) -> Want {
        let l = self.a.patches();
        if self.symmetric && i == j {
            return Want::Untouched;
        }
        if self.a.left_out[i * l + p] {
            return Want::Free;
        }
        let places = self.places(p).into_iter().filter(|&q| !self.b.left_out[j * l + q]);
        let places: Vec<usize> = places.collect();
        if places.is_empty() {
            return Want::Untouched;
        }
        if !p.is_multiple_of(self.step) {
            return Want::Written;
        }
        let (width, x) = (self.a.width, &x[p]);
        let (mut largest, mut widest) = (f64::NEG_INFINITY, 0.0f64);
        for q in places {
            let y = &y[q];
            let (cosine, magnitude) = dot(&x.unit, &y.unit);
            let bound = match self.local {
                // The product of the raw tokens, the correction by means and row sums, and window sums of at most 4·7
                // additions, all relative to what is added; then both norms.
                None => {
                    let sums = 3.0 * (width as f64 / 32.0 + 25.0) + 30.0;
                    let added = x.reach * y.reach;
                    sum_error(width, added) + sums * U32 * added + cosine.abs() * (x.off + y.off)
                }
                // Pooled tokens are off as vectors, then rounded to halves (below 2^-14 an f16 by 2^-25), and multiplied.
                Some((_, u)) => {
                    let off = x.off_token + x.off + y.off_token + y.off;
                    (2.0 * u + u * u) * magnitude
                        + 2.0 * super::numbers::TINY * (width as f64).sqrt()
                        + 1.01 * off
                        + sum_error(width, magnitude)
                }
            };
            largest = largest.max(cosine);
            widest = widest.max(bound);
        }
        Want::Near(largest, widest)
    }
}
