//! `kernels/interval_mean.cu`: the mean distance over an interval of the sorted images.

use super::{Call, IntervalMeanParams};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;

/// Threads of a block.
pub const THREADS: u32 = 256;
/// Patches a block works on.
pub const PATCHES: usize = 32;

/// score = mean of the distances at the image's ranks, for each patch of a run of images. Images whose key is 0 were not
/// compared and do not take part. NaN where the ranks are empty, or reach beyond the images that were compared.
///
/// # Shapes
/// `keys` `[images_a, N, L]`; `scores` `[images_a, L]`; `ranks` `[images_a, 2]`: from and to, to excluded, counted from
/// the lowest distance.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn keys(
    stream: &Stream,
    keys: View<'_, u32>,
    scores: ViewMut<'_, f32>,
    (images, patches): (usize, usize),
    images_a: usize,
    ranks: View<'_, u32>,
) -> Result<()> {
    let call = Call::new(stream, "interval_mean", "keys_f32");
    call.require(images_a <= 0xffff, "images scored", images_a, "at most 65535")?;
    let params = IntervalMeanParams {
        keys: call.input("keys", keys, images_a * images * patches)?,
        scores: call.output("scores", &scores, images_a * patches)?,
        ranks: call.input("ranks", ranks, 2 * images_a)?,
        images: call.count("images N", images)?,
        patches: call.count("patches L", patches)?,
        images_a: images_a as u32,
        weight: 1.0,
        accumulate: 0,
        reserved: 0,
    };
    let blocks = [patches.div_ceil(PATCHES) as u32, images_a as u32, 1];
    // SAFETY: keys, scores and ranks were checked against [images_a, N, L], [images_a, L] and [images_a, 2]; any rank
    // leaves the kernel within them.
    unsafe { call.launch(blocks, THREADS, 0, &params) }
}
