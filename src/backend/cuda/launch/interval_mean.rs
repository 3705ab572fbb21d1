//! `kernels/interval_mean.cu`: the mean distance over an interval of the sorted images.

use super::{Call, IntervalMeanParams};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;
use std::ops::Range;

/// Threads of a block.
pub const THREADS: u32 = 256;
/// Patches a block works on.
pub const PATCHES: usize = 32;

/// score = mean of the distances at `ranks`, for each patch of a run of images.
///
/// # Shapes
/// `keys` `[images_a, N, L]`, the entries of an image with itself not read; `scores` `[images_a, L]`. `first_image` is
/// the number among N of the first.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit, or ranks beyond the N − 1 others.
pub fn keys(
    stream: &Stream,
    keys: View<'_, u32>,
    scores: ViewMut<'_, f32>,
    (images, patches): (usize, usize),
    (first_image, images_a): (usize, usize),
    ranks: Range<usize>,
) -> Result<()> {
    let call = Call::new(stream, "interval_mean", "keys_f32");
    call.require(images_a <= 0xffff, "images scored", images_a, "at most 65535")?;
    call.require(
        first_image + images_a <= images,
        "images scored",
        format!("{images_a} from {first_image} on"),
        &format!("within the {images} images"),
    )?;
    call.require(
        ranks.start < ranks.end && ranks.end < images,
        "ranks",
        format!("{ranks:?}"),
        &format!("not empty, within 0..{}", images.saturating_sub(1)),
    )?;
    let params = IntervalMeanParams {
        keys: call.input("keys", keys, images_a * images * patches)?,
        scores: call.output("scores", &scores, images_a * patches)?,
        images: call.count("images N", images)?,
        patches: call.count("patches L", patches)?,
        first_image: first_image as u32,
        images_a: images_a as u32,
        rank_low: ranks.start as u32,
        rank_high: ranks.end as u32,
        weight: 1.0,
        accumulate: 0,
    };
    let blocks = [patches.div_ceil(PATCHES) as u32, images_a as u32, 1];
    // SAFETY: keys and scores were checked against [images_a, N, L] and [images_a, L], ranks against N.
    unsafe { call.launch(blocks, THREADS, 0, &params) }
}
