//! `kernels/patch_distance.cu`: fused k-NN patch distance, the path for the single degree 1: nothing of the Gram block
//! is stored.

use super::gemm::{PairBlock, THREADS, tiles};
use super::gram_pool::Keys;
use super::{Call, Half, PatchDistanceParams};
use crate::Result;
use crate::backend::cuda::buffer::View;
use crate::backend::cuda::stream::Stream;

/// What [`statistics`](super::lnamd::statistics) made of the tokens, for one degree.
#[derive(Debug, Clone, Copy)]
pub struct Prepared<'a> {
    /// `[N, L]`.
    pub row_sum: View<'a, f32>,
    /// `[N]`.
    pub mean: View<'a, f32>,
    /// `[N, L]`.
    pub inv_norm: View<'a, f32>,
}

/// The largest cosines of each patch of two runs of images with the other's images, for the pairs i < j.
///
/// # Shapes
/// `tokens_a` `[images_a, L, width]`, `tokens_b` `[images_b, L, width]`, C channels and zeros; the keys are of one degree.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn max(
    stream: &Stream,
    half: Half,
    (tokens_a, tokens_b): (View<'_, u16>, View<'_, u16>),
    prepared: &Prepared<'_>,
    block: PairBlock,
    (patches, width, channels): (usize, usize, usize),
    keys: &mut Keys<'_>,
) -> Result<()> {
    let call = Call::of_half(stream, "patch_distance", "max", half);
    call.require(width > 0 && width % 32 == 0, "width", width, "a multiple of 32 above 0")?;
    call.require(
        channels <= width,
        "channels C",
        channels,
        &format!("at most the width, {width}"),
    )?;
    let last = (block.first_a + block.images_a).max(block.first_b + block.images_b);
    call.require(last <= keys.images, "last image", last, &format!("at most {}", keys.images))?;
    let key_count = keys.check(&call, 1, patches)?;
    let (m, n) = (block.images_a * patches, block.images_b * patches);
    let params = PatchDistanceParams {
        tokens_a: call.input_wide("tokens_a", tokens_a, m * width)?,
        tokens_b: call.input_wide("tokens_b", tokens_b, n * width)?,
        row_sum: call.input("row_sum", prepared.row_sum, keys.images * patches)?,
        mean: call.input("mean", prepared.mean, keys.images)?,
        inv_norm: call.input("inv_norm", prepared.inv_norm, keys.images * patches)?,
        keys: call.output("keys", &keys.keys, key_count)?,
        images: call.count("images N", keys.images)?,
        rows_per_image: call.count("patches L", patches)?,
        width: call.count("width", width)?,
        first_image_a: block.first_a as u32,
        images_a: block.images_a as u32,
        first_image_b: block.first_b as u32,
        images_b: block.images_b as u32,
        first_kept: keys.first_kept as u32,
        kept: keys.kept as u32,
        channels: channels as u32,
    };
    call.count("rows of a", m)?;
    call.count("rows of b", n)?;
    let blocks = call.count("tiles", tiles(m, n))?;
    // SAFETY: tokens, statistics and keys were checked against their shapes, and all images lie within N.
    unsafe { call.launch([blocks, 1, 1], THREADS, 0, &params) }
}
