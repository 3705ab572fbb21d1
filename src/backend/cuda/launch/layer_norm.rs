//! `kernels/layer_norm.cu`: rows of the residual stream, normalised or only rounded.

use super::{Call, Half, LayerNormParams};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;

/// Threads of a block.
pub const THREADS: u32 = 128;
/// Rows a block works on.
pub const ROWS: usize = 4;
/// The widest row.
pub const MAX_WIDTH: usize = 1024;
/// What a row's width must be a multiple of.
pub const WIDTH_STEP: usize = 128;

/// The rows of a residual stream `[N, T, C]` that a launch takes, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// So many rows, from the first on.
    All(usize),
    /// The patch tokens of whole images, without their class tokens.
    Patches {
        /// N.
        images: usize,
        /// L.
        patches: usize,
    },
    /// The class tokens.
    Class {
        /// N.
        images: usize,
        /// L.
        patches: usize,
    },
}

impl Rows {
    /// Rows written, and rows of the stream.
    fn counts(self) -> (usize, usize) {
        match self {
            Rows::All(rows) => (rows, rows),
            Rows::Patches { images, patches } => (images * patches, images * (patches + 1)),
            Rows::Class { images, patches } => (images, images * (patches + 1)),
        }
    }

    /// `out_rows_per_image`, `in_rows_per_image`, `in_first_row`.
    fn fields(self) -> [usize; 3] {
        match self {
            // A stretch of all rows: at least 1, as the kernel divides by it.
            Rows::All(rows) => [rows.max(1), 0, 0],
            Rows::Patches { patches, .. } => [patches.max(1), patches + 1, 1],
            Rows::Class { patches, .. } => [1, patches + 1, 0],
        }
    }
}

/// Scale and offset of a LayerNorm, `[C]` each, and what is added to the variance.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Scale.
    pub gamma: View<'a, f32>,
    /// Offset.
    pub beta: View<'a, f32>,
    /// Epsilon.
    pub eps: f32,
}

fn params(
    call: &Call<'_>,
    input: View<'_, f32>,
    rows: Rows,
    width: usize,
    norm: Option<Norm<'_>>,
) -> Result<LayerNormParams> {
    call.require(
        width.is_multiple_of(WIDTH_STEP) && (WIDTH_STEP..=MAX_WIDTH).contains(&width),
        "width C",
        width,
        "a multiple of 128 up to 1024",
    )?;
    let (out_rows, in_rows) = rows.counts();
    let [out_rows_per_image, in_rows_per_image, in_first_row] = rows.fields();
    let (gamma, beta, eps) = match norm {
        Some(norm) => (
            call.input_wide("gamma", norm.gamma, width)?,
            call.input_wide("beta", norm.beta, width)?,
            norm.eps,
        ),
        None => (0, 0, 0.0),
    };
    Ok(LayerNormParams {
        input: call.input_wide("input", input, in_rows * width)?,
        out: 0,
        gamma,
        beta,
        rows: call.count("rows", out_rows)?,
        width: width as u32,
        out_rows_per_image: call.count("rows an image", out_rows_per_image)?,
        in_rows_per_image: call.count("rows an image", in_rows_per_image)?,
        in_first_row: in_first_row as u32,
        eps,
    })
}

fn launch(call: &Call<'_>, params: &LayerNormParams) -> Result<()> {
    let blocks = (params.rows as usize).div_ceil(ROWS) as u32;
    // SAFETY: `params` checked the input's rows and the norm, each launcher its output; the launch is the header's.
    unsafe { call.launch([blocks, 1, 1], THREADS, 0, params) }
}

/// Normalised rows in the 16-bit format; without a norm the rows are only rounded.
///
/// # Shapes
/// `input` f32, as [`Rows`] says; `out` `[rows, C]`.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn store(
    stream: &Stream,
    half: Half,
    input: View<'_, f32>,
    rows: Rows,
    width: usize,
    norm: Option<Norm<'_>>,
    out: ViewMut<'_, u16>,
) -> Result<()> {
    let variant = if norm.is_some() { "store" } else { "round" };
    let call = Call::of_half(stream, "layer_norm", variant, half);
    let mut params = params(&call, input, rows, width, norm)?;
    params.out = call.output_wide("out", &out, rows.counts().0 * width)?;
    launch(&call, &params)
}

/// Normalised rows in f32.
///
/// # Shapes
/// As [`store`].
///
/// # Errors
/// As [`store`].
pub fn stream(
    stream: &Stream,
    input: View<'_, f32>,
    rows: Rows,
    width: usize,
    norm: Norm<'_>,
    out: ViewMut<'_, f32>,
) -> Result<()> {
    let call = Call::new(stream, "layer_norm", "stream_f32");
    let mut params = params(&call, input, rows, width, Some(norm))?;
    params.out = call.output_wide("out", &out, rows.counts().0 * width)?;
    launch(&call, &params)
}

/// Normalised rows in f32, in place.
///
/// # Shapes
/// `rows` `[rows, C]`.
///
/// # Errors
/// As [`store`].
pub fn stream_in_place(
    stream: &Stream,
    rows: usize,
    width: usize,
    norm: Norm<'_>,
    values: ViewMut<'_, f32>,
) -> Result<()> {
    let call = Call::new(stream, "layer_norm", "stream_f32");
    let mut params = params(&call, values.as_view(), Rows::All(rows), width, Some(norm))?;
    params.out = call.output_wide("values", &values, rows * width)?;
    launch(&call, &params)
}
