//! `kernels/local_distance.cu`: the radius: each patch against those near its own place, between pooled unit tokens.

use super::gemm::{MAX_STRIDE, THREADS, TILE};
use super::pairs::{check_grid, check_width};
use super::{Call, Half, Keys, LocalDistanceParams, PairBlock, Side, degree_fields, lnamd};
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::launch::layer_norm::MAX_WIDTH;
use crate::backend::cuda::stream::Stream;
use crate::{Grid, Result};

/// Channels a thread of `pool` owns.
pub const POOL_CHANNELS: usize = lnamd::NORMS_CHANNELS;
/// Images of B in a tile of `max`; of A it has [`TILE`].
pub const TILE_B: usize = 64;

/// How the tokens of images lie: `[images, L, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenShape {
    /// The 16-bit format.
    pub half: Half,
    /// H × W.
    pub grid: Grid,
    /// From one token to the next, a multiple of [`lnamd::WIDTH_STEP`].
    pub width: usize,
    /// C; zeros from there to `width`.
    pub channels: usize,
}

impl TokenShape {
    fn check(&self, call: &Call<'_>) -> Result<usize> {
        check_width(call, (self.width, self.channels), lnamd::WIDTH_STEP, MAX_WIDTH)?;
        check_grid(call, self.grid)
    }

    fn params(&self) -> LocalDistanceParams {
        LocalDistanceParams {
            rows: self.grid.rows as u32,
            columns: self.grid.columns as u32,
            width: self.width as u32,
            channels: self.channels as u32,
            ..LocalDistanceParams::default()
        }
    }
}

/// Unit tokens of one degree, rounded to halves: box_r(F − mean) / ‖·‖, zero outside the grid, zeros in the padding
/// channels. NaN where the norm is.
///
/// # Shapes
/// `tokens` and `out` `[N, L, width]`; `images` what [`lnamd::statistics`] made of exactly these N images, with the norms
/// of `degree` alone; its row sums are not read.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit, or a degree out of range.
pub fn pool(
    stream: &Stream,
    shape: &TokenShape,
    tokens: View<'_, u16>,
    images: &Side<'_>,
    degree: usize,
    out: ViewMut<'_, u16>,
) -> Result<()> {
    let call = Call::of_half(stream, "local_distance", "pool", shape.half);
    let patches = shape.check(&call)?;
    let (_, [degree, ..]) = degree_fields(&call, &[degree])?;
    let count = images.images;
    call.require(count <= 0xffff, "images N", count, "at most 65535")?;
    let values = count * patches * shape.width;
    let params = LocalDistanceParams {
        tokens: call.input_wide("tokens", tokens, values)?,
        mean: call.input("means", images.mean, count)?,
        inv_norm: call.input("norms", images.inv_norm, count * patches)?,
        pooled: call.output_wide("out", &out, values)?,
        degree,
        images_a: count as u32,
        ..shape.params()
    };
    let threads = (shape.width / POOL_CHANNELS) as u32;
    // SAFETY: tokens, means, norms and the output were checked against their shapes; the launch is the header's.
    unsafe { call.launch([shape.grid.rows as u32, count as u32, 1], threads, 0, &params) }
}

/// The largest cosine of each patch of the kept images of A with the patches of each image of B that are at most
/// `radius` rows and columns from its own place. Where the block is symmetric no image meets itself, and each image of A
/// gets its row: a pair is worked out once for each of its images.
///
/// # Shapes
/// `pooled_a` `[images_a, L, width]`, `pooled_b` `[images_b, L, width]` from [`pool`]; `set_images` the images of the sets
/// of A and B; the keys are of one degree.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn max(
    stream: &Stream,
    shape: &TokenShape,
    (pooled_a, pooled_b): (View<'_, u16>, View<'_, u16>),
    set_images: (usize, usize),
    block: PairBlock,
    radius: usize,
    keys: &mut Keys<'_>,
) -> Result<()> {
    let call = Call::of_half(stream, "local_distance", "max", shape.half);
    let patches = shape.check(&call)?;
    let image = patches * shape.width;
    call.require(image < MAX_STRIDE, "numbers of an image", image, &format!("below {MAX_STRIDE}"))?;
    block.check(&call, set_images)?;
    let key_count = keys.check(&call, 1, patches, set_images)?;
    let params = LocalDistanceParams {
        pooled_a: call.input_wide(
            "pooled tokens of a",
            pooled_a,
            block.images_a.saturating_mul(image),
        )?,
        pooled_b: call.input_wide(
            "pooled tokens of b",
            pooled_b,
            block.images_b.saturating_mul(image),
        )?,
        keys: call.output("keys", &keys.keys, key_count)?,
        images: call.count("images N", keys.images)?,
        radius: radius.min(shape.grid.longest()) as u32,
        first_image_a: call.count("first image of a", block.first_a)?,
        images_a: call.count("images of a", block.images_a)?,
        first_image_b: call.count("first image of b", block.first_b)?,
        images_b: call.count("images of b", block.images_b)?,
        first_kept: call.count("first kept image", keys.first_kept)?,
        kept: call.count("kept images", keys.kept)?,
        symmetric: u32::from(block.symmetric),
        ..shape.params()
    };
    let (tiles_a, tiles_b) = (block.images_a.div_ceil(TILE), block.images_b.div_ceil(TILE_B));
    let most = tiles_a.max(tiles_b);
    call.require(most <= 0xffff, "tiles of images", most, "at most 65535")?;
    // SAFETY: tokens and keys were checked against their shapes, and all images lie within their sets.
    unsafe { call.launch([patches as u32, tiles_a as u32, tiles_b as u32], THREADS, 0, &params) }
}
