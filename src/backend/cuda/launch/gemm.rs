//! `kernels/gemm.cu`: out = epilogue(A·Bᵀ), every product of the backbone and the Gram blocks of the mutual scores.

use super::{Call, GRAM_STRIDE, GemmParams, Half, Keys, Matrix, PairBlock, Side};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;
use crate::model::Activation;

/// Threads of a block.
pub const THREADS: u32 = 128;
/// Rows of A and rows of B a block multiplies.
pub const TILE: usize = 128;
/// What the length of the sums must be a multiple of.
pub const K_STEP: usize = 32;

/// What the stride of a row must stay below: the offsets within a tile are bytes in 32 bits.
pub const MAX_STRIDE: usize = 1 << 24;

/// Blocks for an output of m×n.
pub fn tiles(m: usize, n: usize) -> usize {
    m.div_ceil(TILE) * n.div_ceil(TILE)
}

/// The operands of a product: A `[m, k]` and B `[n, k]`.
#[derive(Debug, Clone, Copy)]
pub struct Operands<'a> {
    /// The 16-bit format of both.
    pub half: Half,
    /// The left operand, m rows.
    pub a: Matrix<'a>,
    /// The right operand, n rows.
    pub b: Matrix<'a>,
    /// Length of the sums, a multiple of 32.
    pub k: usize,
}

impl Operands<'_> {
    /// What every epilogue has in common, checked.
    fn params(&self, call: &Call<'_>) -> Result<GemmParams> {
        let (a, b, k) = (&self.a, &self.b, self.k);
        let expected = format!("a multiple of {K_STEP} above 0");
        call.require(k > 0 && k.is_multiple_of(K_STEP), "k", k, &expected)?;
        for (what, matrix) in [("stride of a", a), ("stride of b", b)] {
            let stride = matrix.stride;
            call.require(
                stride.is_multiple_of(8) && stride >= k && stride < MAX_STRIDE,
                what,
                stride,
                &format!("a multiple of 8 from {k} on, below {MAX_STRIDE}"),
            )?;
        }
        let length =
            |m: &super::Matrix<'_>| m.rows.saturating_sub(1) * m.stride + k * m.rows.min(1);
        Ok(GemmParams {
            a: call.input_wide("a", a.values, length(a))?,
            b: call.input_wide("b", b.values, length(b))?,
            m: call.count("rows of a", a.rows)?,
            n: call.count("rows of b", b.rows)?,
            k: call.count("k", k)?,
            lda: call.count("stride of a", a.stride)?,
            ldb: call.count("stride of b", b.stride)?,
            ..GemmParams::default()
        })
    }

    /// Whole rows of the output, n wide without gaps.
    fn columns(&self, call: &Call<'_>, multiple: usize) -> Result<u32> {
        let n = self.b.rows;
        call.require(n.is_multiple_of(multiple), "n", n, &format!("a multiple of {multiple}"))?;
        call.count("n", n)
    }
}

fn launch(call: &Call<'_>, params: &GemmParams) -> Result<()> {
    let blocks = call.count("tiles", tiles(params.m as usize, params.n as usize))?;
    // SAFETY: every launcher below has checked the operands' lengths in `params` and those of its epilogue's arguments.
    unsafe { call.launch([blocks, 1, 1], THREADS, 0, params) }
}

/// out = activation(A·Bᵀ + bias), rounded to the format.
///
/// # Shapes
/// `bias` `[n]`, `out` `[m, n]`; n a multiple of 8.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn bias(
    stream: &Stream,
    operands: &Operands<'_>,
    bias: View<'_, f32>,
    activation: Option<Activation>,
    out: ViewMut<'_, u16>,
) -> Result<()> {
    let variant = match activation {
        None => "bias",
        Some(Activation::Gelu) => "bias_gelu",
        Some(Activation::QuickGelu) => "bias_quick_gelu",
    };
    let call = Call::of_half(stream, "gemm", variant, operands.half);
    let (m, n) = (operands.a.rows, operands.b.rows);
    let params = GemmParams {
        bias: call.input_wide("bias", bias, n)?,
        out: call.output_wide("out", &out, m * n)?,
        ldo: operands.columns(&call, 8)?,
        ..operands.params(&call)?
    };
    launch(&call, &params)
}

/// residual += layer_scale · (A·Bᵀ + bias), in place, in f32.
///
/// # Shapes
/// `bias` and `layer_scale` `[n]`, `residual` `[m, n]`; n a multiple of 8.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn bias_residual(
    stream: &Stream,
    operands: &Operands<'_>,
    bias: View<'_, f32>,
    layer_scale: Option<View<'_, f32>>,
    residual: ViewMut<'_, f32>,
) -> Result<()> {
    let call = Call::of_half(stream, "gemm", "bias_residual", operands.half);
    let (m, n) = (operands.a.rows, operands.b.rows);
    let out = call.output_wide("residual", &residual, m * n)?;
    let params = GemmParams {
        bias: call.input_wide("bias", bias, n)?,
        layer_scale: layer_scale.map_or(Ok(0), |scale| call.input_wide("layer_scale", scale, n))?,
        addend: out,
        out,
        ldo: operands.columns(&call, 8)?,
        ..operands.params(&call)?
    };
    launch(&call, &params)
}

/// The patch rows of whole images to the residual stream behind their class rows, positions added.
///
/// # Shapes
/// A holds N·L rows; `positions` `[1 + L, n]`, row 0 not read, the bias of the patch convolution added to the others;
/// `stream_out` `[N, 1 + L, n]`, rows 1 to L of each image written; n a multiple of 8.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn embed(
    stream: &Stream,
    operands: &Operands<'_>,
    positions: View<'_, f32>,
    patches: usize,
    stream_out: ViewMut<'_, f32>,
) -> Result<()> {
    let call = Call::of_half(stream, "gemm", "embed", operands.half);
    let (m, n) = (operands.a.rows, operands.b.rows);
    call.require(
        patches > 0 && m % patches == 0,
        "rows of a",
        m,
        &format!("whole images of {patches} patches"),
    )?;
    let params = GemmParams {
        addend: call.input_wide("positions", positions, (1 + patches) * n)?,
        out: call.output_wide("stream_out", &stream_out, m / patches * (1 + patches) * n)?,
        ldo: operands.columns(&call, 8)?,
        rows_per_image: call.count("patches", patches)?,
        ..operands.params(&call)?
    };
    launch(&call, &params)
}

/// The Gram block of two runs of images: the products of their tokens less their images' means, for the pairs that count.
/// Of tiles without such a pair nothing is written.
///
/// # Shapes
/// A `[images_a·L, k]`, B `[images_b·L, k]`, C channels and zeros up to k; `a` and `b` the sets of A and B, the same one
/// twice where the block is symmetric; `out` `[images_a·L, GRAM_STRIDE]`; images_b·L at most `GRAM_STRIDE`.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn gram(
    stream: &Stream,
    operands: &Operands<'_>,
    block: PairBlock,
    (patches, channels): (usize, usize),
    (a, b): (&Side<'_>, &Side<'_>),
    out: ViewMut<'_, f32>,
) -> Result<()> {
    let call = Call::of_half(stream, "gemm", "gram", operands.half);
    let params = gram_params(&call, operands, block, (patches, channels), (a, b), &out)?;
    launch(&call, &params)
}

/// As [`gram`], and the largest cosines of degree 1 merged into the keys of the pairs that count: from the sums before they
/// are stored, so that they are the same bits however the pairs are cut.
///
/// # Shapes
/// As [`gram`]; `a` and `b` with the norms of degree 1 (in front, if of others, too); the keys are of one degree.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn gram_max(
    stream: &Stream,
    operands: &Operands<'_>,
    block: PairBlock,
    (patches, channels): (usize, usize),
    (a, b): (&Side<'_>, &Side<'_>),
    out: ViewMut<'_, f32>,
    keys: &mut Keys<'_>,
) -> Result<()> {
    let call = Call::of_half(stream, "gemm", "gram_max", operands.half);
    let params = gram_params(&call, operands, block, (patches, channels), (a, b), &out)?;
    let key_count = keys.check(&call, 1, patches, (a.images, b.images))?;
    let params = GemmParams {
        inv_norm_a: call.input("norms of a", a.inv_norm, a.images * patches)?,
        inv_norm_b: call.input("norms of b", b.inv_norm, b.images * patches)?,
        keys: call.output("keys", &keys.keys, key_count)?,
        images: call.count("images N", keys.images)?,
        first_kept: call.count("first kept image", keys.first_kept)?,
        kept: call.count("kept images", keys.kept)?,
        ..params
    };
    launch(&call, &params)
}

fn gram_params(
    call: &Call<'_>,
    operands: &Operands<'_>,
    block: PairBlock,
    (patches, channels): (usize, usize),
    (a, b): (&Side<'_>, &Side<'_>),
    out: &ViewMut<'_, f32>,
) -> Result<GemmParams> {
    block.check(call, (a.images, b.images))?;
    let (m, n) = (operands.a.rows, operands.b.rows);
    call.require(
        m == block.images_a * patches,
        "rows of a",
        m,
        &format!("{} images of {patches} patches", block.images_a),
    )?;
    call.require(
        n == block.images_b * patches,
        "rows of b",
        n,
        &format!("{} images of {patches} patches", block.images_b),
    )?;
    call.require(
        channels <= operands.k,
        "channels",
        channels,
        &format!("at most k, {}", operands.k),
    )?;
    let expected = format!("at most {GRAM_STRIDE}, a row of the Gram block");
    call.require(n <= GRAM_STRIDE, "rows of b", n, &expected)?;
    Ok(GemmParams {
        row_sum_a: call.input("row sums of a", a.row_sum, a.images * patches)?,
        mean_a: call.input("means of a", a.mean, a.images)?,
        row_sum_b: call.input("row sums of b", b.row_sum, b.images * patches)?,
        mean_b: call.input("means of b", b.mean, b.images)?,
        out: call.output_wide("out", out, m * GRAM_STRIDE)?,
        ldo: GRAM_STRIDE as u32,
        rows_per_image: call.count("patches", patches)?,
        channels: call.count("channels", channels)?,
        first_image_a: call.count("first image of a", block.first_a)?,
        first_image_b: call.count("first image of b", block.first_b)?,
        symmetric: u32::from(block.symmetric),
        ..operands.params(call)?
    })
}
