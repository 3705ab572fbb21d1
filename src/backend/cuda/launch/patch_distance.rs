//! `kernels/patch_distance.cu`: fused k-NN patch distance, the path for the single degree 1: nothing of the Gram block
//! is stored.

use super::gemm::{K_STEP, MAX_STRIDE, THREADS, tiles};
use super::pairs::check_width;
use super::{Call, Half, Keys, PairBlock, PatchDistanceParams, Side};
use crate::Result;
use crate::backend::cuda::buffer::View;
use crate::backend::cuda::stream::Stream;

/// The largest cosines of each patch of two runs of images with the other's images, for the pairs that count.
///
/// # Shapes
/// `tokens_a` `[images_a, L, width]`, `tokens_b` `[images_b, L, width]`, C channels and zeros; `a` and `b` the sets of A
/// and B with the norms of one degree, the same one twice where the block is symmetric; the keys are of one degree.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn max(
    stream: &Stream,
    half: Half,
    (tokens_a, tokens_b): (View<'_, u16>, View<'_, u16>),
    (a, b): (&Side<'_>, &Side<'_>),
    block: PairBlock,
    (patches, width, channels): (usize, usize, usize),
    keys: &mut Keys<'_>,
) -> Result<()> {
    let call = Call::of_half(stream, "patch_distance", "max", half);
    check_width(&call, (width, channels), K_STEP, MAX_STRIDE - K_STEP)?;
    let sets = (a.images, b.images);
    block.check(&call, sets)?;
    let key_count = keys.check(&call, 1, patches, sets)?;
    let (m, n) = (block.images_a * patches, block.images_b * patches);
    let params = PatchDistanceParams {
        tokens_a: call.input_wide("tokens_a", tokens_a, m * width)?,
        tokens_b: call.input_wide("tokens_b", tokens_b, n * width)?,
        row_sum_a: call.input("row sums of a", a.row_sum, a.images * patches)?,
        mean_a: call.input("means of a", a.mean, a.images)?,
        inv_norm_a: call.input("norms of a", a.inv_norm, a.images * patches)?,
        row_sum_b: call.input("row sums of b", b.row_sum, b.images * patches)?,
        mean_b: call.input("means of b", b.mean, b.images)?,
        inv_norm_b: call.input("norms of b", b.inv_norm, b.images * patches)?,
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
        symmetric: u32::from(block.symmetric),
        reserved: 0,
    };
    call.count("rows of a", m)?;
    call.count("rows of b", n)?;
    let blocks = call.count("tiles", tiles(m, n))?;
    // SAFETY: tokens, statistics and keys were checked against their shapes, and all images lie
    // within their sets.
    unsafe { call.launch([blocks, 1, 1], THREADS, 0, &params) }
}
