//! The method as the paper writes it, in f64 and without any shortcut: what the tests compare with.
//!
//! Tokens are normalised, pooled and divided by their norm first; every patch is then compared with every patch
//! of every other image. Slow on purpose.

/// Tokens of one feature layer: N images of a grid of H×H tokens of width C.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// `[N, H·H, C]`.
    pub tokens: &'a [f32],
    /// N.
    pub images: usize,
    /// H.
    pub grid: usize,
    /// C.
    pub width: usize,
}

/// LNAMD of one layer: `[N, H·H, C]` unit vectors (all zeros where the pooled token is zero).
pub fn lnamd(layer: &Layer<'_>, degree: usize) -> Vec<f64> {
    let Layer { tokens, images, grid, width } = *layer;
    let size = grid * grid * width;
    let half = (degree / 2) as isize;
    let mut out = Vec::with_capacity(images * size);
    for image in tokens.chunks_exact(size) {
        let mean = image.iter().map(|&v| v as f64).sum::<f64>() / size as f64;
        let variance = image.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / size as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        for patch in 0..grid * grid {
            let (y, x) = ((patch / grid) as isize, (patch % grid) as isize);
            let mut pooled = vec![0.0f64; width];
            for dy in -half..=half {
                for dx in -half..=half {
                    let (y, x) = (y + dy, x + dx);
                    let inside = 0..grid as isize;
                    if !inside.contains(&y) || !inside.contains(&x) {
                        continue;
                    }
                    let token = &image[(y as usize * grid + x as usize) * width..][..width];
                    for (sum, &value) in pooled.iter_mut().zip(token) {
                        *sum += (value as f64 - mean) * scale / (degree * degree) as f64;
                    }
                }
            }
            let norm = pooled.iter().map(|v| v * v).sum::<f64>().sqrt();
            out.extend(pooled.iter().map(|v| if norm > 0.0 { v / norm } else { 0.0 }));
        }
    }
    out
}

/// MSM of one layer and degree: the score of each patch, `[N, H·H]`, from unit vectors `[N, H·H, C]`: the mean of
/// the distances to the other images whose ranks lie in `ranks`.
pub fn msm(unit: &[f64], layer: &Layer<'_>, (first, last): (usize, usize)) -> Vec<f64> {
    let (patches, width) = (layer.grid * layer.grid, layer.width);
    let image = |index: usize| &unit[index * patches * width..][..patches * width];
    let mut scores = Vec::with_capacity(layer.images * patches);
    for i in 0..layer.images {
        for p in image(i).chunks_exact(width) {
            let mut distances: Vec<f64> = (0..layer.images)
                .filter(|&j| j != i)
                .map(|j| {
                    image(j)
                        .chunks_exact(width)
                        .map(|q| p.iter().zip(q).map(|(a, b)| (a - b).powi(2)).sum::<f64>())
                        .fold(f64::INFINITY, f64::min)
                        .sqrt()
                })
                .collect();
            distances.sort_by(f64::total_cmp);
            let chosen = &distances[first..last];
            scores.push(chosen.iter().sum::<f64>() / chosen.len() as f64);
        }
    }
    scores
}
