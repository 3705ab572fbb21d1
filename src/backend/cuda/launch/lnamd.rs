//! `kernels/lnamd.cu`: row sums, image means and inverse norms of the pooled tokens.

use super::{Call, Half, LnamdParams, degree_fields};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;

/// Threads of a block of `sums`.
pub const SUMS_THREADS: u32 = 128;
/// Rows a block of `sums` works on.
pub const SUMS_ROWS: usize = 4;
/// Threads of a block of `mean`.
pub const MEAN_THREADS: u32 = 256;
/// Channels a thread of `norms` owns.
pub const NORMS_CHANNELS: usize = 4;

/// Threads and dynamic shared bytes of a block of `norms`.
pub fn norms_launch(grid: usize, width: usize, degrees: usize) -> (u32, u32) {
    ((width / NORMS_CHANNELS) as u32, (grid * degrees * (width / 128) * size_of::<f32>()) as u32)
}

/// Where the three launches write: the first N images of each part.
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
/// `tokens` `[N, L, width]`, C channels and zeros; width a multiple of 128, at most 1024.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit, or degrees out of range.
pub fn statistics(
    stream: &Stream,
    half: Half,
    tokens: View<'_, u16>,
    (images, grid): (usize, usize),
    (width, channels): (usize, usize),
    degrees: &[usize],
    out: &Statistics<'_>,
) -> Result<()> {
    let sums = Call::of_half(stream, "lnamd", "sums", half);
    let mean = Call::new(stream, "lnamd", "mean_f32");
    let norms = Call::of_half(stream, "lnamd", "norms", half);
    norms.require(
        width % 128 == 0 && (128..=1024).contains(&width),
        "width",
        width,
        "a multiple of 128 up to 1024",
    )?;
    norms.require(
        channels <= width,
        "channels C",
        channels,
        &format!("at most the width, {width}"),
    )?;
    norms.require((1..=64).contains(&grid), "grid G", grid, "1 to 64")?;
    norms.require(images <= 0xffff, "images N", images, "at most 65535")?;
    norms.require(
        out.norm_images >= images,
        "images of inv_norm",
        out.norm_images,
        &format!("at least {images}"),
    )?;
    let patches = grid * grid;
    let (count, degree) = degree_fields(&norms, degrees)?;
    let norm_values = ((degrees.len() - 1) * out.norm_images + images) * patches;
    let params = LnamdParams {
        tokens: sums.input_wide("tokens", tokens, images * patches * width)?,
        row_sum: sums.output("row_sum", &out.row_sum, images * patches)?,
        mean: mean.output("mean", &out.mean, images)?,
        inv_norm: norms.output("inv_norm", &out.inv_norm, norm_values)?,
        images: images as u32,
        grid: grid as u32,
        width: width as u32,
        degrees: count,
        degree,
        norm_images: norms.count("images of inv_norm", out.norm_images)?,
        channels: channels as u32,
    };
    let blocks = sums.count("blocks", (images * patches).div_ceil(SUMS_ROWS))?;
    // SAFETY: tokens and the three outputs were checked against [N, L, width], [N, L], [N] and [degrees, norm_images, L];
    // the launches are the header's, in its order.
    unsafe { sums.launch([blocks, 1, 1], SUMS_THREADS, 0, &params)? };
    // SAFETY: as above.
    unsafe { mean.launch([images as u32, 1, 1], MEAN_THREADS, 0, &params)? };
    let (threads, shared) = norms_launch(grid, width, degrees.len());
    // SAFETY: as above.
    unsafe { norms.launch([grid as u32, images as u32, 1], threads, shared, &params) }
}
