//! RsCIN: the image scores of a batch, smoothed over images whose class tokens are alike.
//!
//! With s the scores scaled to 0..1 and W the N×N similarity of the class tokens, each row of W keeps its k largest
//! entries (the image itself is normally one of them), is divided by its sum and multiplied by s. The result is
//! the mean over the values of k. W is made in blocks of rows, so memory grows with N, not with N².

use rayon::prelude::*;

use crate::gemm::{Right, Shape, Store, gemm};
use crate::{Error, Result};

/// Rows of W that one thread holds at a time: `ROWS * N * 8` bytes.
const ROWS: usize = 192;
/// How far from 1 the length of a normalised token can be in f16: each value, and the length it was divided by, is rounded by
/// up to 2⁻¹¹ of itself.
const UNIT_LENGTH_SLACK: f64 = 1.0 / 1024.0;

/// How two class tokens are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Similarity {
    /// Cosine: the tokens are divided by their length first.
    ///
    /// A batch whose tokens all have length 1 already, within what f16 can hold (2⁻¹⁰), is taken as it is: CLIP's tokens come
    /// normalised, and their cosines lie so close together that dividing the rounded tokens again would change which
    /// images count as the most similar.
    Cosine,
    /// The plain product of the tokens as given, which is what the authors' program takes for every backbone.
    Dot,
}

/// What RsCIN can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RscinOptions {
    /// The neighbourhood sizes, the image itself counted. A k above N counts as N; 0 is an error.
    pub k: Vec<usize>,
    /// How class tokens are compared.
    pub similarity: Similarity,
}

impl Default for RscinOptions {
    /// k = 1, 2, 3 by cosine: the default for every data set but VisA (1, 8, 9).
    fn default() -> Self {
        Self { k: vec![1, 2, 3], similarity: Similarity::Cosine }
    }
}

impl RscinOptions {
    /// With these neighbourhood sizes.
    pub fn with_k(mut self, k: impl Into<Vec<usize>>) -> Self {
        self.k = k.into();
        self
    }

    /// With class tokens compared like this.
    pub fn with_similarity(mut self, similarity: Similarity) -> Self {
        self.similarity = similarity;
        self
    }
}

/// Re-scores the N images of a batch.
///
/// # Shapes
/// `scores` `[N]`; `class_tokens` `[N, dim]`, rows contiguous; the result is `[N]`, in 0..1 when all similarities that
/// are kept are positive.
///
/// Scores that are all equal (N = 1 among them) come back unchanged: they cannot be scaled to 0..1.
///
/// # Ties
/// Of equal similarities the image with the lower index is kept first. The authors leave it to `torch.topk`, which
/// promises no order.
///
/// # Negative similarities
/// They can be among the k largest with either similarity, and are kept with their sign, as in the authors' program:
/// a row whose kept entries sum to a negative number is divided by that number like any other. A row that sums
/// to exactly 0 gives NaN there, which would spoil every figure that follows; here it is an error that names the image.
///
/// # Errors
/// [`Error::Invalid`] for no k at all or k = 0, lengths that do not fit, a value that is not finite, a class token of
/// length 0 under [`Similarity::Cosine`], a row that sums to 0.
pub fn rscin(
    scores: &[f64],
    class_tokens: &[f32],
    dim: usize,
    options: &RscinOptions,
) -> Result<Vec<f64>> {
    let count = scores.len();
    check(scores, class_tokens, dim, options)?;
    let low = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let high = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if count == 0 || low == high {
        return Ok(scores.to_vec());
    }
    let scaled: Vec<f64> = scores.iter().map(|score| (score - low) / (high - low)).collect();
    let tokens = tokens_as_f64(class_tokens, dim, options.similarity)?;
    let mut rescored = vec![0.0f64; count];
    rescored.par_chunks_mut(ROWS).enumerate().try_for_each(|(block, out)| {
        let first = block * ROWS;
        let similarity = similarity_rows(&tokens, dim, first, out.len())?;
        let mut order: Vec<usize> = Vec::with_capacity(count);
        for (row, (value, line)) in out.iter_mut().zip(similarity.chunks_exact(count)).enumerate() {
            *value = rescore_row(line, &scaled, &options.k, &mut order).ok_or_else(|| {
                Error::invalid(
                    format!("class token of image {}", first + row),
                    "largest similarities that sum to 0",
                    "a sum other than 0 to divide by (cosine similarity avoids this)",
                )
            })?;
        }
        Ok::<(), Error>(())
    })?;
    Ok(rescored)
}

fn check(scores: &[f64], class_tokens: &[f32], dim: usize, options: &RscinOptions) -> Result<()> {
    if options.k.is_empty() || options.k.contains(&0) {
        let list: Vec<String> = options.k.iter().map(usize::to_string).collect();
        return Err(Error::invalid(
            "RsCIN k",
            format!("[{}]", list.join(" ")),
            "one or more sizes, each at least 1",
        ));
    }
    if dim == 0 || scores.len().checked_mul(dim) != Some(class_tokens.len()) {
        return Err(Error::invalid(
            "class tokens",
            format!("{} values", class_tokens.len()),
            format!("{} images x {dim} values, at least 1 each", scores.len()),
        ));
    }
    if let Some(image) = scores.iter().position(|score| !score.is_finite()) {
        return Err(Error::invalid(
            format!("score of image {image}"),
            scores[image],
            "a finite number",
        ));
    }
    if let Some(at) = class_tokens.iter().position(|value| !value.is_finite()) {
        return Err(Error::invalid(
            format!("class token of image {}", at / dim),
            class_tokens[at],
            "finite numbers",
        ));
    }
    Ok(())
}

/// The tokens in f64, of length 1 for the cosine. `[N, dim]`.
fn tokens_as_f64(class_tokens: &[f32], dim: usize, similarity: Similarity) -> Result<Vec<f64>> {
    let mut tokens: Vec<f64> = class_tokens.iter().map(|&value| f64::from(value)).collect();
    if similarity == Similarity::Dot {
        return Ok(tokens);
    }
    let lengths: Vec<f64> = tokens
        .chunks_exact(dim)
        .map(|token| token.iter().map(|value| value * value).sum::<f64>().sqrt())
        .collect();
    if let Some(image) = lengths.iter().position(|length| *length == 0.0) {
        return Err(Error::invalid(
            format!("class token of image {image}"),
            "all zeros",
            "a token of some length for the cosine",
        ));
    }
    if lengths.iter().all(|length| (length - 1.0).abs() <= UNIT_LENGTH_SLACK) {
        return Ok(tokens);
    }
    for (token, length) in tokens.chunks_exact_mut(dim).zip(lengths) {
        token.iter_mut().for_each(|value| *value /= length);
    }
    Ok(tokens)
}

/// Rows `first .. first + rows` of W = T·Tᵀ: `[rows, N]`.
fn similarity_rows(tokens: &[f64], dim: usize, first: usize, rows: usize) -> Result<Vec<f64>> {
    let count = tokens.len() / dim;
    let left = tokens
        .get(first * dim..(first + rows) * dim)
        .filter(|_| count * dim == tokens.len())
        .ok_or_else(|| Error::invalid("RsCIN rows", first + rows, format!("at most {count}")))?;
    let mut product = vec![0.0f64; rows * count];
    gemm(
        (left, Shape::dense(rows, dim)),
        (tokens, Shape::dense(count, dim), Right::Transposed),
        (&mut product, Shape::dense(rows, count), Store::Overwrite),
        1,
    );
    Ok(product)
}

/// The mean over k of the weighted scores of the k most similar images; `None` where the weights sum to 0.
/// `order` is scratch space.
fn rescore_row(
    similarity: &[f64],
    scaled: &[f64],
    k: &[usize],
    order: &mut Vec<usize>,
) -> Option<f64> {
    let count = similarity.len();
    let most = k.iter().copied().max()?.min(count);
    let by_similarity =
        |a: &usize, b: &usize| similarity[*b].total_cmp(&similarity[*a]).then(a.cmp(b));
    order.clear();
    order.extend(0..count);
    if most < count {
        order.select_nth_unstable_by(most - 1, by_similarity);
    }
    order[..most].sort_unstable_by(by_similarity);
    let mut total = 0.0;
    for &k in k {
        let (mut weights, mut sum) = (0.0, 0.0);
        for &other in &order[..k.min(count)] {
            weights += similarity[other];
            sum += similarity[other] * scaled[other];
        }
        if weights == 0.0 {
            return None;
        }
        total += sum / weights;
    }
    Some(total / k.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use safetensors::{Dtype, SafeTensors};

    fn golden(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("the golden is in the repository")
    }

    fn values(file: &SafeTensors<'_>, name: &str) -> (Vec<f32>, Vec<usize>) {
        let tensor = file.tensor(name).expect("tensor");
        let values = match tensor.dtype() {
            Dtype::F32 => tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::F16 => tensor
                .data()
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            other => panic!("{name}: {other:?}"),
        };
        (values, tensor.shape().to_vec())
    }

    fn compare(scores: &[f32], tokens: &[f32], dim: usize, k: &[usize], expected: &[f32]) {
        let scores: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
        for similarity in [Similarity::Cosine, Similarity::Dot] {
            let options = RscinOptions { k: k.to_vec(), similarity };
            let found = rscin(&scores, tokens, dim, &options).expect("rscin");
            let (worst, error) = found
                .iter()
                .zip(expected)
                .map(|(a, &b)| (a - f64::from(b)).abs())
                .enumerate()
                .fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best });
            assert!(error <= 1e-6, "{similarity:?} k {k:?} image {worst}: off by {error}");
        }
    }

    #[test]
    fn equals_the_golden_of_small_tokens() {
        let bytes = golden("rscin.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let (tokens, shape) = values(&file, "class_tokens");
        let (scores, _) = values(&file, "scores");
        for (name, k) in [("k123", vec![1, 2, 3]), ("k189", vec![1, 8, 9]), ("k5", vec![5])] {
            compare(&scores, &tokens, shape[1], &k, &values(&file, name).0);
        }
    }

    #[test]
    fn equals_the_golden_of_real_class_tokens() {
        let bytes = golden("rscin_clip.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        for (class, k) in [
            ("mvtec_ad.bottle", [1, 2, 3]),
            ("mvtec_ad.screw", [1, 2, 3]),
            ("visa.pcb4", [1, 8, 9]),
        ] {
            let (tokens, shape) = values(&file, &format!("{class}.class_tokens"));
            let (scores, _) = values(&file, &format!("{class}.scores"));
            let (expected, _) = values(&file, &format!("{class}.rescored"));
            compare(&scores, &tokens, shape[1], &k, &expected);
        }
    }

    /// The definition, with the whole of W.
    fn plain(scores: &[f64], tokens: &[f32], dim: usize, ks: &[usize]) -> Vec<f64> {
        let count = scores.len();
        let low = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let high = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let dot = |a: usize, b: usize| -> f64 {
            (0..dim).map(|c| f64::from(tokens[a * dim + c]) * f64::from(tokens[b * dim + c])).sum()
        };
        (0..count)
            .map(|i| {
                let mut row: Vec<(f64, usize)> = (0..count).map(|j| (dot(i, j), j)).collect();
                row.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                let of_k = |k: usize| {
                    let kept = &row[..k.min(count)];
                    let sum: f64 = kept.iter().map(|e| e.0).sum();
                    kept.iter().map(|e| e.0 / sum * (scores[e.1] - low) / (high - low)).sum::<f64>()
                };
                ks.iter().map(|&k| of_k(k)).sum::<f64>() / ks.len() as f64
            })
            .collect()
    }

    #[test]
    fn equals_the_definition_on_awkward_sizes() {
        let dim = 7;
        for count in [2, 3, 63, 64, 65, 131] {
            let tokens: Vec<f32> =
                (0..count * dim).map(|i| ((i * 7919 % 1009) as f32 / 1009.0) - 0.2).collect();
            let scores: Vec<f64> = (0..count).map(|i| (i * 37 % 101) as f64).collect();
            for k in [vec![1], vec![2, 9], vec![count], vec![1, count + 5]] {
                let options = RscinOptions { k: k.clone(), similarity: Similarity::Dot };
                let found = rscin(&scores, &tokens, dim, &options).expect("rscin");
                for (a, b) in found.iter().zip(plain(&scores, &tokens, dim, &k)) {
                    // Weights may have both signs: a row's condition is below 1e3 here, f64 rounding below 1e-13.
                    assert!((a - b).abs() < 1e-9, "N {count} k {k:?}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn the_cosine_does_not_depend_on_lengths() {
        let (count, dim) = (17, 5);
        let tokens: Vec<f32> =
            (0..count * dim).map(|i| (i * 31 % 97) as f32 / 97.0 - 0.3).collect();
        let scores: Vec<f64> = (0..count).map(|i| (i * 5 % 17) as f64).collect();
        // Scaled by powers of two, which f32 holds exactly.
        let scaled: Vec<f32> = tokens
            .iter()
            .enumerate()
            .map(|(at, value)| value * [0.25, 1.0, 8.0][at / dim % 3])
            .collect();
        let run = |tokens: &[f32], similarity| {
            rscin(&scores, tokens, dim, &RscinOptions { k: vec![3], similarity }).expect("rscin")
        };
        let cosine = run(&tokens, Similarity::Cosine);
        for (a, b) in cosine.iter().zip(run(&scaled, Similarity::Cosine)) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
        assert_ne!(run(&tokens, Similarity::Dot), run(&scaled, Similarity::Dot));
    }

    #[test]
    fn equal_scores_and_single_images_are_unchanged() {
        let options = RscinOptions::default();
        assert_eq!(rscin(&[], &[], 3, &options).expect("none"), Vec::<f64>::new());
        assert_eq!(rscin(&[0.7], &[1.0, 2.0], 2, &options).expect("one"), [0.7]);
        let tokens = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        assert_eq!(rscin(&[0.5; 3], &tokens, 2, &options).expect("equal"), [0.5; 3]);
    }

    #[test]
    fn of_equal_similarities_the_lower_index_is_kept() {
        // Four equal tokens: k = 2 keeps images 0 and 1 in every row.
        let options = RscinOptions { k: vec![2], similarity: Similarity::Dot };
        let found = rscin(&[0.0, 1.0, 3.0, 4.0], &[1.0; 4], 1, &options).expect("rscin");
        assert_eq!(found, [0.125; 4]);
    }

    #[test]
    fn bad_input_is_named() {
        let message = |scores: &[f64], tokens: &[f32], dim, k: &[usize], similarity| {
            rscin(scores, tokens, dim, &RscinOptions { k: k.to_vec(), similarity })
                .expect_err("must fail")
                .to_string()
        };
        let cosine = Similarity::Cosine;
        assert!(message(&[0.0, 1.0], &[1.0, 1.0], 1, &[1, 0], cosine).contains("[1 0]"));
        assert!(message(&[0.0, 1.0], &[1.0, 1.0], 1, &[], cosine).contains("RsCIN k"));
        assert!(message(&[0.0, 1.0], &[1.0; 3], 1, &[1], cosine).contains("3 values"));
        assert!(message(&[0.0, f64::NAN], &[1.0; 2], 1, &[1], cosine).contains("image 1"));
        assert!(message(&[0.0, 1.0], &[1.0, f32::NAN], 1, &[1], cosine).contains("image 1"));
        assert!(message(&[0.0, 1.0], &[1.0, 0.0], 1, &[1], cosine).contains("all zeros"));
        assert!(message(&[0.0, 1.0], &[1.0, 0.0], 1, &[1], Similarity::Dot).contains("sum to 0"));
    }

    #[test]
    fn a_negative_row_sum_divides_like_any_other() {
        // Image 0 = (1), image 1 = (-1), k = 2: row 0 is (1, -1), which sums to 0; with tokens 1 and -2 it is (1, -2).
        let options = RscinOptions { k: vec![2], similarity: Similarity::Dot };
        let found = rscin(&[0.0, 1.0], &[1.0, -2.0], 1, &options).expect("rscin");
        assert_eq!(found, [2.0, 2.0]);
    }
}
