//! `kernels/lnamd.cu`: row sums, image means and inverse norms of the pooled tokens.

use super::pairs::{check_grid, check_width};
use super::{Call, Half, LnamdParams, degree_fields, layer_norm};
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;
use crate::{Grid, Result};

/// Threads of a block of `sums`.
pub const SUMS_THREADS: u32 = 128;
/// Rows a block of `sums` works on.
pub const SUMS_ROWS: usize = 4;
/// Threads of a block of `mean`.
pub const MEAN_THREADS: u32 = 256;
/// Channels a thread of `norms` owns.
pub const NORMS_CHANNELS: usize = 4;

/// What the width of a token must be a multiple of: whole warps of [`NORMS_CHANNELS`].
pub const WIDTH_STEP: usize = 128;

/// Threads and dynamic shared bytes of a block of `norms`, for rows of so many columns.
pub fn norms_launch(columns: usize, width: usize, degrees: usize) -> (u32, u32) {
    let partial_sums = columns * degrees * (width / WIDTH_STEP);
    ((width / NORMS_CHANNELS) as u32, (partial_sums * size_of::<f32>()) as u32)
}

/// Where the three launches write: the first N images of each part.
#[derive(Debug)]
pub struct Statistics<'a> {
    /// `[N, L]`, the sum over the channels of each token.
    pub row_sum: ViewMut<'a, f32>,
    /// `[N]`, the mean over an image.
    pub mean: ViewMut<'a, f32>,
    /// `[degrees, norm_images, L]`, 1/‖pooled token‖.
    pub inv_norm: ViewMut<'a, f32>,
    /// Images from one degree to the next in `inv_norm`, at least N.
    pub norm_images: usize,
}

/// Row sums, means and inverse norms of N images.
///
/// # Shapes
/// `tokens` `[N, L, width]`, C channels and zeros; width a multiple of [`WIDTH_STEP`], at most
/// [`layer_norm::MAX_WIDTH`]; L at most [`MAX_PATCHES`](super::MAX_PATCHES).
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit, or degrees out of range.
pub fn statistics(
    stream: &Stream,
    half: Half,
    tokens: View<'_, u16>,
    (images, grid): (usize, Grid),
    (width, channels): (usize, usize),
    degrees: &[usize],
    out: &Statistics<'_>,
) -> Result<()> {
    let sums = Call::of_half(stream, "lnamd", "sums", half);
    let mean = Call::new(stream, "lnamd", "mean_f32");
    let norms = Call::of_half(stream, "lnamd", "norms", half);
    check_width(&norms, (width, channels), WIDTH_STEP, layer_norm::MAX_WIDTH)?;
    let patches = check_grid(&norms, grid)?;
    norms.require(images <= 0xffff, "images N", images, "at most 65535")?;
    norms.require(
        out.norm_images >= images,
        "images of inv_norm",
        out.norm_images,
        &format!("at least {images}"),
    )?;
    let (count, degree) = degree_fields(&norms, degrees)?;
    let norm_values = ((degrees.len() - 1) * out.norm_images + images) * patches;
    let params = LnamdParams {
        tokens: sums.input_wide("tokens", tokens, images * patches * width)?,
        row_sum: sums.output("row_sum", &out.row_sum, images * patches)?,
        mean: mean.output("mean", &out.mean, images)?,
        inv_norm: norms.output("inv_norm", &out.inv_norm, norm_values)?,
        images: images as u32,
        rows: grid.rows as u32,
        columns: grid.columns as u32,
        width: width as u32,
        degrees: count,
        degree,
        norm_images: norms.count("images of inv_norm", out.norm_images)?,
        channels: channels as u32,
        reserved: 0,
    };
    let blocks = sums.count("blocks", (images * patches).div_ceil(SUMS_ROWS))?;
    // SAFETY: tokens and the three outputs were checked against [N, L, width], [N, L], [N] and [degrees, norm_images, L];
    // the launches are the header's, in its order.
    unsafe { sums.launch([blocks, 1, 1], SUMS_THREADS, 0, &params)? };
    // SAFETY: as above.
    unsafe { mean.launch([images as u32, 1, 1], MEAN_THREADS, 0, &params)? };
    let (threads, shared) = norms_launch(grid.columns, width, degrees.len());
    // SAFETY: as above.
    unsafe { norms.launch([grid.rows as u32, images as u32, 1], threads, shared, &params) }
}
