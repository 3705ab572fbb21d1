//! The method as the paper writes it, in f64 and without any shortcut: what the tests compare with.
//!
//! Tokens are normalised, pooled and divided by their norm first; every patch is then compared with every patch
//! of every image that its own image sees. Slow on purpose.

use super::MutualScoring;
use crate::Grid;

/// Tokens of one feature layer: N images of a grid of H×W tokens of width C.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// `[N, L, C]`, L = H·W.
    pub tokens: &'a [f32],
    /// N.
    pub images: usize,
    /// H × W.
    pub grid: Grid,
    /// C.
    pub width: usize,
    /// `[N, L]`, or empty: patches that count as lying outside the grid. They are in no mean, zero in windows, compared with
    /// by nobody, and score 0.
    pub left_out: &'a [bool],
}

impl Layer<'_> {
    fn is_left_out(&self, image: usize, patch: usize) -> bool {
        self.left_out.get(image * self.grid.patches() + patch).is_some_and(|&out| out)
    }
}

/// LNAMD of one layer: `[N, L, C]` unit vectors (all zeros where the pooled token is zero).
pub fn lnamd(layer: &Layer<'_>, degree: usize) -> Vec<f64> {
    let Layer { tokens, images, grid, width, .. } = *layer;
    let patches = grid.patches();
    let size = patches * width;
    let half = (degree / 2) as isize;
    let (rows, columns) = (grid.rows as isize, grid.columns as isize);
    let mut out = Vec::with_capacity(images * size);
    for (index, image) in tokens.chunks_exact(size).enumerate() {
        let kept: Vec<f64> = (0..patches)
            .filter(|&patch| !layer.is_left_out(index, patch))
            .flat_map(|patch| &image[patch * width..][..width])
            .map(|&v| v as f64)
            .collect();
        let mean = kept.iter().sum::<f64>() / kept.len() as f64;
        let variance = kept.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / kept.len() as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        for y in 0..rows {
            for x in 0..columns {
                let mut pooled = vec![0.0f64; width];
                for (dy, dx) in (-half..=half).flat_map(|dy| (-half..=half).map(move |dx| (dy, dx)))
                {
                    let (y, x) = (y + dy, x + dx);
                    if !(0..rows).contains(&y) || !(0..columns).contains(&x) {
                        continue;
                    }
                    let patch = (y * columns + x) as usize;
                    if layer.is_left_out(index, patch) {
                        continue;
                    }
                    for (sum, &value) in pooled.iter_mut().zip(&image[patch * width..][..width]) {
                        *sum += (value as f64 - mean) * scale / (degree * degree) as f64;
                    }
                }
                let norm = pooled.iter().map(|v| v * v).sum::<f64>().sqrt();
                out.extend(pooled.iter().map(|v| if norm > 0.0 { v / norm } else { 0.0 }));
            }
        }
    }
    out
}

/// The distance of two unit vectors. A vector of zeros has cosine 0 with every other.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let zero = |vector: &[f64]| vector.iter().all(|&value| value == 0.0);
    if zero(a) || zero(b) {
        return std::f64::consts::SQRT_2;
    }
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// MSM of one layer and degree: the score of each patch of the queries, `[N, L]`: the mean of the distances to the nearest
/// patch of the references that its image sees, over `scoring`'s ranks and within its radius.
///
/// Each side is unit vectors `[images, L, C]` from [`lnamd`] and the layer they are of. `unseen` names for each query the
/// references that it does not see. A reference of which nothing lies within the radius is as far as can be: 2.
///
/// # Panics
/// When `unseen` has fewer lists than there are queries, or leaves one of them nothing to see.
pub fn msm(
    (queries, query_layer): (&[f64], &Layer<'_>),
    (references, reference_layer): (&[f64], &Layer<'_>),
    unseen: &[Vec<usize>],
    scoring: &MutualScoring,
) -> Vec<f64> {
    let Layer { images, grid, width, .. } = *query_layer;
    let patches = grid.patches();
    let near = |p: usize, q: usize| {
        let apart = (p / grid.columns)
            .abs_diff(q / grid.columns)
            .max((p % grid.columns).abs_diff(q % grid.columns));
        scoring.radius.is_none_or(|radius| apart <= radius)
    };
    let mut scores = Vec::with_capacity(images * patches);
    for i in 0..images {
        for p in 0..patches {
            if query_layer.is_left_out(i, p) {
                scores.push(0.0);
                continue;
            }
            let token = &queries[(i * patches + p) * width..][..width];
            let nearest = |j: usize| {
                (0..patches)
                    .filter(|&q| near(p, q) && !reference_layer.is_left_out(j, q))
                    .map(|q| distance(token, &references[(j * patches + q) * width..][..width]))
                    .fold(2.0, f64::min)
            };
            let seen = (0..reference_layer.images).filter(|j| !unseen[i].contains(j));
            let mut distances: Vec<f64> = seen.map(nearest).collect();
            distances.sort_by(f64::total_cmp);
            let (first, last) = scoring.ranks(distances.len());
            let chosen = &distances[first..last];
            scores.push(chosen.iter().sum::<f64>() / chosen.len() as f64);
        }
    }
    scores
}

/// [`lnamd`] and [`msm`] of one layer and degree: the score of each patch of the queries, `[N, L]`. Without references each
/// image is compared with every other of the queries; `unseen` is as in [`msm`], and not looked at then.
///
/// # Panics
/// As [`msm`].
pub fn patch_scores(
    queries: &Layer<'_>,
    references: Option<(&Layer<'_>, &[Vec<usize>])>,
    degree: usize,
    scoring: &MutualScoring,
) -> Vec<f64> {
    let unit = lnamd(queries, degree);
    match references {
        None => {
            let itself: Vec<Vec<usize>> = (0..queries.images).map(|image| vec![image]).collect();
            msm((&unit, queries), (&unit, queries), &itself, scoring)
        }
        Some((layer, unseen)) => {
            msm((&unit, queries), (&lnamd(layer, degree), layer), unseen, scoring)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two patches side by side, of width 2, worked out by hand.
    #[test]
    fn equal_to_what_a_hand_works_out() {
        let grid = Grid::new(1, 2);
        let layer = |tokens, left_out| Layer { tokens, images: 2, grid, width: 2, left_out };
        // Means 0. Unit vectors of image 0: (1, 0) and (-1, 0); of image 1: (0, 1) and (0, -1).
        let tokens = [3.0, 0.0, -3.0, 0.0, 0.0, 2.0, 0.0, -2.0];
        let plain = layer(&tokens, &[]);
        assert_eq!(lnamd(&plain, 1), [1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0]);
        // A window of three covers both: zeros, whose cosine with all is 0.
        assert_eq!(lnamd(&plain, 3), [0.0; 8]);
        let scoring = MutualScoring::default();
        for degree in [1, 3] {
            let scores = patch_scores(&plain, None, degree, &scoring);
            assert_eq!(scores, [std::f64::consts::SQRT_2; 4], "degree {degree}");
        }
        // Image 1 = image 0, its second patch left out: its first has mean 1.5 and is (1.5, -1.5).
        let tokens = [3.0, 0.0, -3.0, 0.0, 3.0, 0.0, -3.0, 0.0];
        let marks = [false, false, false, true];
        let out = layer(&tokens, &marks);
        let half = std::f64::consts::FRAC_1_SQRT_2;
        let unit = lnamd(&out, 1);
        assert!((unit[4] - half).abs() < 1e-12 && (unit[5] + half).abs() < 1e-12, "{unit:?}");
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let to = |cosine: f64| (2.0 - 2.0 * cosine).sqrt();
        let scores = patch_scores(&out, None, 1, &scoring);
        let expected = [to(half), to(-half), to(half), 0.0];
        assert!(scores.iter().zip(expected).all(|(a, b)| near(*a, b)), "{scores:?}");
        // With radius 0 the second patch of image 0 has nothing to compare with.
        let scores = patch_scores(&out, None, 1, &scoring.with_radius(Some(0)));
        let expected = [to(half), 2.0, to(half), 0.0];
        assert!(scores.iter().zip(expected).all(|(a, b)| near(*a, b)), "{scores:?}");
    }
}
