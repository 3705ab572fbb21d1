//! `kernels/patch_embed.cu`: 8-bit pixels to normalised patch rows; and the class rows of the residual stream.

use super::{Call, Half, PatchEmbedParams};
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;
use crate::image::Normalisation;
use crate::{Grid, ImageSize, Result};

/// Threads of a block.
pub const THREADS: u32 = 256;
/// Neighbouring patches a block works on.
pub const PATCHES: usize = 8;
/// The largest side of a patch.
pub const MAX_PATCH: usize = 32;

/// Length of a patch row: 3·P·P rounded up to what a product's sums need.
pub fn row_width(patch: usize) -> usize {
    (3 * patch * patch).next_multiple_of(super::gemm::K_STEP)
}

/// Patch rows in the order of the convolution's weights, k = (c·P + y)·P + x, zero from 3·P·P on.
///
/// # Shapes
/// `pixels` `[N, H·P, W·P, 3]`; `rows` `[N·L, row_width(P)]`.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn rows(
    stream: &Stream,
    half: Half,
    pixels: View<'_, u8>,
    normalisation: &Normalisation,
    (images, grid, patch): (usize, Grid, usize),
    out: ViewMut<'_, u16>,
) -> Result<()> {
    let call = Call::of_half(stream, "patch_embed", "rows", half);
    call.require(
        (1..=MAX_PATCH).contains(&patch),
        "patch size P",
        patch,
        &format!("1 to {MAX_PATCH}"),
    )?;
    let sides = 1..=0xffff;
    call.require(
        sides.contains(&grid.rows) && sides.contains(&grid.columns),
        "grid of patches",
        grid,
        "sides of 1 to 65535",
    )?;
    call.require(images <= 0xffff, "images N", images, "at most 65535")?;
    let size = ImageSize::new(grid.rows * patch, grid.columns * patch);
    let k_padded = row_width(patch);
    let scale = normalisation.std.map(|std| 1.0 / (255.0 * std));
    let mut shift = [0.0; 3];
    for ((shift, mean), std) in shift.iter_mut().zip(normalisation.mean).zip(normalisation.std) {
        *shift = -mean / std;
    }
    let params = PatchEmbedParams {
        pixels: call.input("pixels", pixels, images * size.pixels() * 3)?,
        rows: call.output_wide("rows", &out, images * grid.patches() * k_padded)?,
        images: images as u32,
        grid_rows: grid.rows as u32,
        grid_columns: grid.columns as u32,
        patch: patch as u32,
        k_padded: k_padded as u32,
        scale,
        shift,
        ..PatchEmbedParams::default()
    };
    let blocks = [grid.columns.div_ceil(PATCHES) as u32, grid.rows as u32, images as u32];
    // SAFETY: pixels and rows were checked against [N, H·P, W·P, 3] and [N·L, k_padded]; the launch is the header's.
    unsafe { call.launch(blocks, THREADS, 0, &params) }
}

/// Writes the class row of every image of the residual stream.
///
/// # Shapes
/// `class_row` `[C]`: class token and its position embedding; `stream_out` `[N, T, C]`; C a multiple of 4.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit.
pub fn class(
    stream: &Stream,
    class_row: View<'_, f32>,
    (images, grid, width): (usize, Grid, usize),
    stream_out: ViewMut<'_, f32>,
) -> Result<()> {
    let call = Call::new(stream, "patch_embed", "class_f32");
    call.require(width % 4 == 0, "width C", width, "a multiple of 4")?;
    let params = PatchEmbedParams {
        class_row: call.input_wide("class_row", class_row, width)?,
        stream: call.output_wide(
            "stream_out",
            &stream_out,
            images * (grid.patches() + 1) * width,
        )?,
        images: call.count("images N", images)?,
        grid_rows: call.count("rows of the grid", grid.rows)?,
        grid_columns: call.count("columns of the grid", grid.columns)?,
        width: call.count("width C", width)?,
        ..PatchEmbedParams::default()
    };
    // SAFETY: class row and stream were checked against [C] and [N, T, C]; the launch is the header's.
    unsafe { call.launch([params.images, 1, 1], THREADS, 0, &params) }
}
