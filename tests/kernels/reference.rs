//! The mutual scores in f64: sets of images, their pooled tokens, the largest cosines, and how far f32 may be off.

use musc::Grid;

use crate::support::*;

/// Tokens of N images with a mean and a few strong channels.
pub struct Images {
    pub half: Half,
    pub n: usize,
    pub grid: Grid,
    /// From one token to the next, a multiple of 128.
    pub width: usize,
    /// C; zeros from there on.
    pub channels: usize,
    pub bits: Vec<u16>,
    tokens: Vec<f64>,
    /// Whether the inverse norm of patch image·L + p is made NaN.
    pub left_out: Vec<bool>,
}

impl Images {
    pub fn new(half: Half, n: usize, grid: Grid, width: usize) -> Self {
        Images::seeded(half, n, grid, width, 0)
    }

    pub fn seeded(half: Half, n: usize, grid: Grid, width: usize, seed: u64) -> Self {
        let mut random = Random(seed + (n * grid.rows + grid.columns + width) as u64);
        let raw: Vec<f32> = (0..n * grid.patches() * width)
            .map(|i| random.uniform() * if i % width == 3 { 20.0 } else { 1.0 } + 0.2)
            .collect();
        let (bits, tokens) = half.round(&raw);
        Images {
            half,
            n,
            grid,
            width,
            channels: width,
            bits,
            tokens,
            left_out: vec![false; n * grid.patches()],
        }
    }

    /// Tokens of fewer channels, padded with zeros.
    pub fn with_channels(mut self, channels: usize) -> Self {
        self.channels = channels;
        for (at, (bits, value)) in self.bits.iter_mut().zip(&mut self.tokens).enumerate() {
            if at % self.width >= channels {
                (*bits, *value) = (0, 0.0);
            }
        }
        self
    }

    /// Leaves out the patches whose number among all, or its neighbour's, is a multiple of `every`.
    pub fn leaving_out(mut self, every: usize) -> Self {
        for (at, left_out) in self.left_out.iter_mut().enumerate() {
            *left_out |= at % every < 2;
        }
        self
    }

    /// Leaves out all of an image.
    pub fn leaving_out_image(mut self, image: usize) -> Self {
        let patches = self.patches();
        self.left_out[image * patches..(image + 1) * patches].fill(true);
        self
    }

    /// Makes an image a copy of one of another set.
    pub fn copy(&mut self, image: usize, of: &Images, number: usize) {
        let values = self.patches() * self.width;
        let (to, from) =
            (image * values..(image + 1) * values, number * values..(number + 1) * values);
        self.bits[to.clone()].copy_from_slice(&of.bits[from.clone()]);
        self.tokens[to].copy_from_slice(&of.tokens[from]);
    }

    pub fn patches(&self) -> usize {
        self.grid.patches()
    }

    pub fn image_bytes(&self) -> u64 {
        (self.patches() * self.width * 2) as u64
    }

    pub fn token(&self, image: usize, p: usize) -> &[f64] {
        &self.tokens[(image * self.patches() + p) * self.width..][..self.width]
    }

    /// The largest magnitude of a number in a token.
    pub fn magnitude(&self) -> f64 {
        self.tokens.iter().fold(0.0f64, |m, v| m.max(v.abs()))
    }

    pub fn row_sum(&self, image: usize, p: usize) -> f64 {
        self.token(image, p).iter().sum()
    }

    pub fn mean(&self, image: usize) -> f64 {
        (0..self.patches()).map(|p| self.row_sum(image, p)).sum::<f64>()
            / (self.patches() * self.channels) as f64
    }

    /// Sum over the window of degree r around p of (token - mean), zero outside the grid.
    pub fn pooled(&self, image: usize, r: usize) -> Vec<Vec<f64>> {
        let mean = self.mean(image);
        (0..self.patches())
            .map(|p| {
                let mut sum = vec![0.0; self.width];
                for q in near(self.grid, p, r / 2) {
                    for (s, v) in sum[..self.channels].iter_mut().zip(self.token(image, q)) {
                        *s += v - mean;
                    }
                }
                sum
            })
            .collect()
    }

    /// The pooled tokens of norm 1; and what the norms of the tokens of each window add up to, over the norm of its pooled
    /// token: no number that is added up for a cosine is larger than the product of two such reaches.
    fn unit_tokens(&self, image: usize, r: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
        let norms: Vec<f64> = (0..self.patches()).map(|p| norm(self.token(image, p))).collect();
        let unit = |(p, sum): (usize, Vec<f64>)| {
            let scale = 1.0 / norm(&sum);
            let reach: f64 = near(self.grid, p, r / 2).into_iter().map(|q| norms[q]).sum();
            (sum.into_iter().map(|v| v * scale).collect(), reach * scale)
        };
        self.pooled(image, r).into_iter().enumerate().map(unit).unzip()
    }

    fn is_left_out(&self, image: usize, p: usize) -> bool {
        self.left_out[image * self.patches() + p]
    }
}

/// Patches at most `radius` rows and columns from p.
pub fn near(grid: Grid, p: usize, radius: usize) -> Vec<usize> {
    let (y, x) = (p / grid.columns, p % grid.columns);
    let mut inside = vec![];
    for v in y.saturating_sub(radius)..=(y + radius).min(grid.rows - 1) {
        for u in x.saturating_sub(radius)..=(x + radius).min(grid.columns - 1) {
            inside.push(v * grid.columns + u);
        }
    }
    inside
}

pub fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A product in four sums, which a processor adds up at once.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    for (x, y) in x.chunks_exact(4).zip(y.chunks_exact(4)) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum()
}

/// What a key must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// A cosine, and how far off it may be.
    Cosine(f64, f64),
    /// Written; the number is not compared.
    Written,
    /// 0: nothing to compare with.
    Unwritten,
    /// Of a patch that is left out.
    Anything,
}

/// Whom a patch is compared with, and in which numbers.
#[derive(Clone, Copy)]
pub struct Against<'a> {
    pub a: &'a Images,
    pub b: &'a Images,
    /// `a` and `b` are one set.
    pub symmetric: bool,
    /// Only patches so near count, and unit tokens are rounded to halves.
    pub radius: Option<usize>,
    /// Of the patches of an image, one in so many is worked out.
    pub step: usize,
}

impl Against<'_> {
    /// The largest cosines in f64, `[degrees, N of a, N of b, L]`.
    pub fn largest_cosines(&self, degrees: &[u32]) -> Vec<Expected> {
        let (a, b, l) = (self.a, self.b, self.a.patches());
        let mut expected = vec![];
        for &r in degrees {
            let r = r as usize;
            let pooled_b: Vec<_> = (0..b.n).map(|j| b.unit_tokens(j, r)).collect();
            for i in 0..a.n {
                let pooled_a = a.unit_tokens(i, r);
                for (j, pooled_b) in pooled_b.iter().enumerate() {
                    expected.extend((0..l).map(|p| {
                        if self.symmetric && i == j {
                            Expected::Unwritten
                        } else if a.is_left_out(i, p) {
                            Expected::Anything
                        } else if self.places(p).iter().all(|&q| b.is_left_out(j, q)) {
                            Expected::Unwritten
                        } else if p % self.step != 0 {
                            Expected::Written
                        } else {
                            self.largest(p, j, &pooled_a, pooled_b)
                        }
                    }));
                }
            }
        }
        expected
    }

    /// The patches that p is compared with.
    fn places(&self, p: usize) -> Vec<usize> {
        self.radius.map_or_else(|| (0..self.a.patches()).collect(), |rho| near(self.a.grid, p, rho))
    }

    fn largest(
        &self,
        p: usize,
        j: usize,
        (units_a, reach_a): &(Vec<Vec<f64>>, Vec<f64>),
        (units_b, reach_b): &(Vec<Vec<f64>>, Vec<f64>),
    ) -> Expected {
        let width = self.a.width as f64;
        let u = self.a.half.u();
        // C products, each at most 11/8 roundoffs where tensor cores cut (`sum_error` in gemm.rs has the counting), the
        // correction, and the window sums of at most 4 * 7 additions: relative to the magnitude of what is added.
        let terms = width * 2.0 + 3.0 * (width / 32.0 + 25.0) + 30.0;
        let mut found = Expected::Unwritten;
        for q in self.places(p) {
            if self.b.is_left_out(j, q) {
                continue;
            }
            let (x, y) = (&units_a[p], &units_b[q]);
            let cosine = dot(x, y);
            let mut bound = terms * U32 * reach_a[p] * reach_b[q];
            if self.radius.is_some() {
                let magnitude: f64 = x.iter().zip(y).map(|(x, y)| (x * y).abs()).sum();
                // Both factors of each product are rounded; below 2^-14 an f16 is off by 2^-25.
                bound += (2.0 * u + u * u) * magnitude + 2.0 * 2f64.powi(-25) * width.sqrt();
            }
            found = match found {
                Expected::Cosine(largest, widest) => {
                    Expected::Cosine(cosine.max(largest), bound.max(widest))
                }
                _ => Expected::Cosine(cosine, bound),
            };
        }
        found
    }
}

/// Compares keys with what they must be.
pub fn check_keys(what: &str, keys: &[u32], expected: &[Expected]) {
    assert_eq!(keys.len(), expected.len(), "{what}: lengths");
    let (mut found, mut wanted, mut limit) = (vec![], vec![], vec![]);
    for (i, (&key, expected)) in keys.iter().zip(expected).enumerate() {
        match *expected {
            Expected::Anything => {}
            Expected::Unwritten => assert_eq!(key, 0, "{what}: entry {i} was written"),
            Expected::Written => {
                assert_ne!(key, 0, "{what}: entry {i} was not written");
                assert!(!of_key(key).is_nan(), "{what}: entry {i} is NaN");
            }
            Expected::Cosine(cosine, bound) => {
                assert_ne!(key, 0, "{what}: entry {i} was not written");
                found.push(f64::from(of_key(key)));
                wanted.push(cosine);
                limit.push(bound);
            }
        }
    }
    let worst = largest_difference(what, &found, &wanted);
    println!("{what}: {} cosines off by at most {worst:.2e}", found.len());
    assert_within(what, &found, &wanted, |i| limit[i]);
}
