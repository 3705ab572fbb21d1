//! `gemm`: the products of the backbone, and the Gram block.

use rayon::prelude::*;

use super::judge::Want;
use super::memory::{Lab, Outcome};
use super::numbers::{Random, TINY, U32, dot, gelu, quick_gelu, round, roundoff, sum_error};
use super::{Class, Trial};
use musc::Result;
use musc::backend::cuda::launch::gemm::{self, Operands, TILE};
use musc::backend::cuda::launch::{GRAM_STRIDE, Half, Keys, Matrix, PairBlock, Side, value_of_key};
use musc::model::Activation;

/// Columns beyond a row's numbers: strides are wider than the rows.
const PAD: usize = 8;
/// m, n, k on the simulator, and on a card beside them.
const QUICK: [(usize, usize, usize); 3] = [(1, 8, 32), (127, 136, 64), (129, 40, 1024)];
const FULL: [(usize, usize, usize); 4] =
    [(1, 128, 1024), (127, 1024, 608), (129, 136, 4096), (1370, 264, 1024)];

/// A product: both operands, the sums in f64 and the sums of magnitudes.
struct Product {
    a: Vec<u16>,
    b: Vec<u16>,
    sums: Vec<(f64, f64)>,
}

fn product(half: Half, (m, n, k): (usize, usize, usize), class: Class, seed: u64) -> Product {
    let mut random = Random(seed);
    let stride = k + PAD;
    let (a, b) = match class {
        Class::Exact => (random.integers(m * stride, 2), random.integers(n * stride, 2)),
        // Weights are small: outputs of the size of the tokens.
        Class::Rounding => {
            (random.tokens(m, stride), random.vec(n * stride, 2.0 / (k as f32).sqrt()))
        }
    };
    Product::new(half, &a, &b, (m, n, k), stride)
}

impl Product {
    fn new(
        half: Half,
        a: &[f32],
        b: &[f32],
        (m, n, k): (usize, usize, usize),
        stride: usize,
    ) -> Product {
        let ((a, x), (b, y)) = (round(half, a), round(half, b));
        let sums = (0..m * n)
            .into_par_iter()
            .map(|at| dot(&x[at / n * stride..][..k], &y[at % n * stride..][..k]))
            .collect();
        Product { a, b, sums }
    }
}

/// What is added to a product.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Bias(Option<Activation>),
    Residual { scaled: bool },
    Embed,
}

impl Kind {
    fn entry(self, half: Half) -> String {
        let variant = match self {
            Kind::Bias(None) => "bias",
            Kind::Bias(Some(Activation::Gelu)) => "bias_gelu",
            Kind::Bias(Some(_)) => "bias_quick_gelu",
            Kind::Residual { .. } => "bias_residual",
            Kind::Embed => "embed",
        };
        format!("gemm_{variant}_{}", half.name())
    }
}

/// Patches of an image of which the rows of `embed` are two.
fn images_of(m: usize) -> (usize, usize) {
    if m > 1 { (2, m / 2) } else { (1, 1) }
}

fn epilogue(
    lab: &Lab<'_>,
    half: Half,
    kind: Kind,
    (m, n, k): (usize, usize, usize),
    class: Class,
) -> Result<Vec<Outcome>> {
    let (images, patches) = images_of(m);
    let m = if kind == Kind::Embed { images * patches } else { m };
    let case = product(half, (m, n, k), class, (m * n + k) as u64);
    let mut random = Random(3);
    let (bias, scale, before, positions) = match class {
        Class::Exact => (
            random.integers(n, 3),
            // Powers of two.
            (0..n).map(|at| [0.5, 1.0, -2.0][at % 3]).collect(),
            random.integers(m * n, 50),
            random.integers((1 + patches) * n, 3),
        ),
        Class::Rounding => (
            random.vec(n, 1.0),
            random.vec(n, 0.5),
            random.vec(m * n, 4.0),
            random.vec((1 + patches) * n, 1.0),
        ),
    };
    // Expected, and what f32 may be off before a store as a half.
    let number = |at: usize| -> (f64, f64) {
        let (sum, magnitude) = case.sums[at];
        let column = at % n;
        let off = sum_error(k + 1, magnitude + f64::from(bias[column]).abs());
        let x = sum + f64::from(bias[column]);
        match kind {
            Kind::Bias(None) => (x, off),
            // Both activations have a slope below 1.13; the formula of the kernel's error function is off by 1.5e-7, half
            // of it times x; fast exponential and reciprocal by 2 roundoffs each.
            Kind::Bias(Some(activation)) => {
                let y = if activation == Activation::Gelu { gelu(x) } else { quick_gelu(x) };
                (y, 1.13 * off + 8.0 * U32 * x.abs() + 1e-7)
            }
            Kind::Residual { scaled } => {
                let scale = if scaled { f64::from(scale[column]) } else { 1.0 };
                let y = f64::from(before[at]) + scale * x;
                (y, scale.abs() * off + 2.0 * U32 * (y.abs() + (scale * x).abs()))
            }
            Kind::Embed => {
                let position = f64::from(positions[(1 + at / n % patches) * n + column]);
                (sum + position, sum_error(k + 1, magnitude + position.abs()))
            }
        }
    };
    let halved = matches!(kind, Kind::Bias(_));
    let wants: Vec<Want> = (0..m * n)
        .map(|at| {
            let (y, off) = number(at);
            match (class, halved) {
                (Class::Exact, true) => Want::Near(f64::from(half.value(half.bits(y as f32))), 0.0),
                (Class::Exact, false) => Want::Near(y, 0.0),
                (Class::Rounding, true) => {
                    Want::Near(y, off + roundoff(half) * (y.abs() + off) + TINY)
                }
                (Class::Rounding, false) => Want::Near(y, off),
            }
        })
        .collect();
    let wants = if kind == Kind::Embed {
        // A class row in front of each image, which is not the kernel's.
        wants
            .chunks_exact(patches * n)
            .flat_map(|rows| vec![Want::Untouched; n].into_iter().chain(rows.iter().copied()))
            .collect()
    } else {
        wants
    };
    let entry = kind.entry(half);
    lab.judge(|pass| {
        let (a, b) = (pass.input("a", &case.a)?, pass.input("b", &case.b)?);
        let (bias, scale) = (pass.input("bias", &bias)?, pass.input("layer_scale", &scale)?);
        let positions = pass.input("positions", &positions)?;
        let matrix = |values, rows| Matrix { values, rows, stride: k + PAD };
        let operands = Operands { half, a: matrix(a.view()?, m), b: matrix(b.view()?, n), k };
        match kind {
            Kind::Bias(activation) => {
                let mut out = pass.output::<u16>("out", m * n)?;
                gemm::bias(pass.stream, &operands, bias.view()?, activation, out.view_mut()?)?;
                pass.want(&entry, &out, |bits| f64::from(half.value(bits)), &wants)?;
            }
            Kind::Residual { scaled } => {
                let mut out = pass.in_place("residual", &before)?;
                let scale = if scaled { Some(scale.view()?) } else { None };
                gemm::bias_residual(pass.stream, &operands, bias.view()?, scale, out.view_mut()?)?;
                pass.want(&entry, &out, f64::from, &wants)?;
            }
            Kind::Embed => {
                let mut out = pass.output::<f32>("stream", wants.len())?;
                let positions = positions.view()?;
                gemm::embed(pass.stream, &operands, positions, patches, out.view_mut()?)?;
                pass.want(&entry, &out, f64::from, &wants)?;
            }
        }
        for input in [&a, &b] {
            pass.unchanged(input)?;
        }
        [&bias, &scale, &positions].into_iter().try_for_each(|input| pass.unchanged(input))
    })
}

/// A Gram block: which pairs, tokens an image, and their width.
#[derive(Debug, Clone, Copy)]
pub struct GramCase {
    /// Images of A and of B.
    pub block: PairBlock,
    /// Tokens of an image.
    pub patches: usize,
    /// Their width.
    pub width: usize,
}

impl GramCase {
    fn sets(&self) -> usize {
        (self.block.first_a + self.block.images_a).max(self.block.first_b + self.block.images_b)
    }
}

/// The Gram block, and with `maxima` the largest cosines of degree 1 that are taken of it. Its row sums and means are of the
/// size that tokens have, so that the product decides.
pub fn gram(
    lab: &Lab<'_>,
    half: Half,
    case: GramCase,
    maxima: bool,
    class: Class,
) -> Result<Vec<Outcome>> {
    let GramCase { block, patches, width } = case;
    let (m, n) = (block.images_a * patches, block.images_b * patches);
    let sets = case.sets();
    let mut random = Random(17 + (m + width) as u64);
    let (a, b, row_sum, mean) = match class {
        Class::Exact => {
            let halves = (0..sets).map(|at| [0.5, -1.5, 1.0][at % 3]).collect();
            (
                random.integers(m * width, 3),
                random.integers(n * width, 3),
                random.integers(sets * patches, 20),
                halves,
            )
        }
        Class::Rounding => (
            random.tokens(m, width),
            random.tokens(n, width),
            random.vec(sets * patches, (width as f32).sqrt()).iter().map(|s| s + 0.2).collect(),
            random.vec(sets, 0.2),
        ),
    };
    // Powers of two, or of the size that norms have; some patches are left out.
    let inv_norm: Vec<f32> = (0..sets * patches)
        .map(|at| match class {
            _ if at % 11 == 3 => f32::NAN,
            Class::Exact => [0.5, 0.25, 1.0][at % 3],
            Class::Rounding => 0.02 + 0.01 * random.uniform(),
        })
        .collect();
    let product = Product::new(half, &a, &b, (m, n, width), width);
    let image = |first: usize, row: usize| first + row / patches;
    let worked = |row: usize, column: usize| {
        let (row, column) = (row / TILE * TILE, column / TILE * TILE);
        let last = (column + TILE).min(n) - 1;
        !block.symmetric || image(block.first_a, row) < image(block.first_b, last)
    };
    // An element, and how far off it may be; none of pairs that do not count.
    let element = |row: usize, column: usize| -> Option<(f64, f64)> {
        let (i, j) = (image(block.first_a, row), image(block.first_b, column));
        if block.symmetric && i >= j {
            return None;
        }
        let (sum, magnitude) = product.sums[row * n + column];
        let (m_i, m_j) = (f64::from(mean[i]), f64::from(mean[j]));
        let s_i = f64::from(row_sum[i * patches + row % patches]);
        let s_j = f64::from(row_sum[j * patches + column % patches]);
        let expected = sum - m_j * s_i - m_i * (s_j - width as f64 * m_j);
        let terms = (m_j * s_i).abs() + m_i.abs() * (s_j.abs() + width as f64 * m_j.abs());
        let off = sum_error(width, magnitude) + 8.0 * U32 * (terms + magnitude);
        Some((expected, if class == Class::Exact { 0.0 } else { off }))
    };
    let want = |at: usize| {
        let (row, column) = (at / GRAM_STRIDE, at % GRAM_STRIDE);
        if column >= n.next_multiple_of(4) || !worked(row, column.min(n - 1)) {
            return Want::Untouched;
        }
        // A tile is worked on whole, up to three columns past the last.
        let found = if column < n { element(row, column) } else { None };
        found.map_or(Want::Free, |(expected, off)| Want::Near(expected, off))
    };
    let wants: Vec<Want> = (0..m * GRAM_STRIDE).into_par_iter().map(want).collect();
    let keys = if maxima { largest(&case, &inv_norm, element) } else { Vec::new() };
    let variant = if maxima { "gram_max" } else { "gram" };
    let entry = format!("gemm_{variant}_{}", half.name());
    lab.judge(|pass| {
        let (a, b) = (pass.input("a", &product.a)?, pass.input("b", &product.b)?);
        let (row_sum, mean) = (pass.input("row_sum", &row_sum)?, pass.input("mean", &mean)?);
        let inv_norm = pass.input("inv_norm", &inv_norm)?;
        let mut out = pass.output::<f32>("gram", m * GRAM_STRIDE)?;
        let matrix = |values, rows| Matrix { values, rows, stride: width };
        let operands =
            Operands { half, a: matrix(a.view()?, m), b: matrix(b.view()?, n), k: width };
        let side = Side {
            row_sum: row_sum.view()?,
            mean: mean.view()?,
            inv_norm: inv_norm.view()?,
            images: sets,
        };
        let (sizes, sides) = ((patches, width), (&side, &side));
        if maxima {
            let mut found = pass.in_place("keys", &vec![0u32; keys.len()])?;
            let mut to = Keys { keys: found.view_mut()?, images: sets, first_kept: 0, kept: sets };
            gemm::gram_max(pass.stream, &operands, block, sizes, sides, out.view_mut()?, &mut to)?;
            pass.want(&entry, &found, |key| f64::from(value_of_key(key)), &keys)?;
        } else {
            gemm::gram(pass.stream, &operands, block, sizes, sides, out.view_mut()?)?;
        }
        pass.want(&entry, &out, f64::from, &wants)?;
        for input in [&a, &b] {
            pass.unchanged(input)?;
        }
        [&row_sum, &mean, &inv_norm].into_iter().try_for_each(|input| pass.unchanged(input))
    })
}

/// The largest cosines of a block's pairs, `[N, N, L]`.
fn largest(
    case: &GramCase,
    inv_norm: &[f32],
    element: impl Fn(usize, usize) -> Option<(f64, f64)>,
) -> Vec<Want> {
    let GramCase { block, patches, .. } = *case;
    let sets = case.sets();
    let mut best: Vec<Option<(f64, f64)>> = vec![None; sets * sets * patches];
    for row in 0..block.images_a * patches {
        for column in 0..block.images_b * patches {
            let Some((value, off)) = element(row, column) else { continue };
            let (i, j) = (block.first_a + row / patches, block.first_b + column / patches);
            let (p, q) = (row % patches, column % patches);
            let scale = f64::from(inv_norm[i * patches + p]) * f64::from(inv_norm[j * patches + q]);
            if scale.is_nan() {
                continue;
            }
            // Twice scaled; exact where the element is.
            let (cosine, off) = (value * scale, off * scale * 1.01);
            let off = if off == 0.0 { 0.0 } else { off + 4.0 * U32 * cosine.abs() };
            let mut merge = |at: usize| {
                let known = best[at].unwrap_or((f64::NEG_INFINITY, 0.0));
                best[at] = Some((known.0.max(cosine), known.1.max(off)));
            };
            merge((i * sets + j) * patches + p);
            if block.symmetric {
                merge((j * sets + i) * patches + q);
            }
        }
    }
    let want = |(at, best): (usize, Option<(f64, f64)>)| match best {
        _ if inv_norm[at / patches / sets * patches + at % patches].is_nan() => Want::Free,
        Some((cosine, off)) => Want::Near(cosine, off),
        None => Want::Untouched,
    };
    best.into_iter().enumerate().map(want).collect()
}

/// Blocks of images: tiles that hold several, pairs i >= j that count and that do not.
fn gram_cases(quick: bool) -> Vec<GramCase> {
    let block = |first_b: usize, symmetric: bool| PairBlock {
        first_a: 0,
        images_a: 3,
        first_b,
        images_b: 4,
        symmetric,
    };
    let mut cases = vec![
        GramCase { block: block(0, true), patches: 49, width: 128 },
        GramCase { block: block(1, false), patches: 49, width: 1024 },
        GramCase {
            block: PairBlock { first_a: 0, images_a: 1, first_b: 1, images_b: 1, symmetric: true },
            patches: 1,
            width: 32,
        },
    ];
    if !quick {
        cases.push(GramCase { block: block(1, true), patches: 256, width: 1024 });
        let pair = PairBlock { first_a: 0, images_a: 1, first_b: 1, images_b: 2, symmetric: true };
        cases.push(GramCase { block: pair, patches: 1369, width: 1024 });
    }
    cases
}

/// The trials of `gemm`.
pub fn trials(half: Half, quick: bool) -> Vec<Trial> {
    let kinds = [
        Kind::Bias(None),
        Kind::Bias(Some(Activation::Gelu)),
        Kind::Bias(Some(Activation::QuickGelu)),
        Kind::Residual { scaled: true },
        Kind::Residual { scaled: false },
        Kind::Embed,
    ];
    let shapes = QUICK.iter().chain(if quick { &[][..] } else { &FULL });
    let mut trials = Vec::new();
    for &shape in shapes {
        for kind in kinds {
            for class in [Class::Exact, Class::Rounding] {
                // An activation of an integer is none.
                if class == Class::Exact && matches!(kind, Kind::Bias(Some(_))) {
                    continue;
                }
                let (m, n, k) = shape;
                trials.push(Trial::new(
                    "gemm",
                    &kind.entry(half),
                    format!("{m}x{n}x{k}"),
                    class,
                    move |lab| epilogue(lab, half, kind, shape, class),
                ));
            }
        }
    }
    for case in gram_cases(quick) {
        for (maxima, class) in
            [false, true].into_iter().flat_map(|m| [(m, Class::Exact), (m, Class::Rounding)])
        {
            let GramCase { block, patches, width } = case;
            let shape = format!(
                "({}x{patches})x({}x{patches})x{width}, {}",
                block.images_a,
                block.images_b,
                if block.symmetric { "pairs i < j" } else { "two sets" }
            );
            let variant = if maxima { "gram_max" } else { "gram" };
            let entry = format!("gemm_{variant}_{}", half.name());
            trials.push(Trial::new("gemm", &entry, shape, class, move |lab| {
                gram(lab, half, case, maxima, class)
            }));
        }
    }
    trials
}
