//! `kernels/upsample.cu`: patch scores to anomaly maps, and the largest value of each.

use super::{Call, UpsampleParams};
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;
use crate::{Grid, ImageSize, Result};

/// Threads of a block.
pub const THREADS: u32 = 256;
/// Pixels a thread owns.
pub const PIXELS: usize = 4;

/// Bilinear maps with aligned corners, and their largest values as keys ([`super::value_of_key`]).
///
/// # Shapes
/// `scores` `[N, H, W]`; `maps` `[N, height, width]`; `max_keys` `[N]`, zeroed here first.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn map(
    stream: &Stream,
    scores: View<'_, f32>,
    (images, grid, size): (usize, Grid, ImageSize),
    maps: ViewMut<'_, f32>,
    max_keys: ViewMut<'_, u32>,
) -> Result<()> {
    let call = Call::new(stream, "upsample", "map_f32");
    for (what, patches, pixels) in
        [("height", grid.rows, size.height), ("width", grid.columns, size.width)]
    {
        call.require(
            patches > 0 && pixels > 0 && patches.saturating_mul(pixels) < 1 << 32,
            &format!("{what} of a map, and patches along it"),
            format!("{pixels}, {patches}"),
            "above 0, their product below 2^32",
        )?;
    }
    let (patches, pixels) = (grid.patches(), size.pixels());
    call.require(pixels < 1 << 31, "pixels of a map", pixels, "below 2^31")?;
    call.require(images <= 0xffff, "images N", images, "at most 65535")?;
    let params = UpsampleParams {
        scores: call.input("scores", scores, images.saturating_mul(patches))?,
        maps: call.output("maps", &maps, images.saturating_mul(pixels))?,
        max_keys: call.output("max_keys", &max_keys, images)?,
        images: images as u32,
        rows: grid.rows as u32,
        columns: grid.columns as u32,
        map_height: size.height as u32,
        map_width: size.width as u32,
        reserved: 0,
    };
    stream.zero(max_keys.part(0..images)?)?;
    let blocks = [pixels.div_ceil(THREADS as usize * PIXELS) as u32, images as u32, 1];
    // SAFETY: scores, maps and keys were checked against their shapes; the launch is the header's.
    unsafe { call.launch(blocks, THREADS, 0, &params) }
}
