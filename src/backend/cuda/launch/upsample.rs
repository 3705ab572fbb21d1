//! `kernels/upsample.cu`: patch scores to anomaly maps, and the largest value of each.

use super::{Call, UpsampleParams};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;

/// Threads of a block.
pub const THREADS: u32 = 256;
/// Pixels a thread owns.
pub const PIXELS: usize = 4;

/// Bilinear maps with aligned corners, and their largest values as keys ([`super::value_of_key`]).
///
/// # Shapes
/// `scores` `[N, G, G]`; `maps` `[N, S, S]`; `max_keys` `[N]`, zeroed here first.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn map(
    stream: &Stream,
    scores: View<'_, f32>,
    (images, grid, side): (usize, usize, usize),
    maps: ViewMut<'_, f32>,
    max_keys: ViewMut<'_, u32>,
) -> Result<()> {
    let call = Call::new(stream, "upsample", "map_f32");
    call.require(grid > 0 && side > 0, "grid G and side S", format!("{grid}, {side}"), "above 0")?;
    call.require(
        side * (grid - 1) < 1 << 32 && side * side < 1 << 32,
        "side S",
        side,
        "below 65536, and S(G - 1) below 2^32",
    )?;
    call.require(images <= 0xffff, "images N", images, "at most 65535")?;
    let params = UpsampleParams {
        scores: call.input("scores", scores, images * grid * grid)?,
        maps: call.output("maps", &maps, images * side * side)?,
        max_keys: call.output("max_keys", &max_keys, images)?,
        images: images as u32,
        grid: grid as u32,
        side: side as u32,
        reserved: 0,
    };
    stream.zero(max_keys.part(0..images)?)?;
    let blocks = [(side * side).div_ceil(THREADS as usize * PIXELS) as u32, images as u32, 1];
    // SAFETY: scores, maps and keys were checked against their shapes; the launch is the header's.
    unsafe { call.launch(blocks, THREADS, 0, &params) }
}
