//! From pixels to the rows that the patch convolution multiplies.

use super::input::Image;
use crate::Grid;
use crate::image::Normalisation;

/// Writes the patches of one image as rows `[L, 3·P·P]`, each in the order (channel, y, x) of the convolution's
/// weights. The image is `grid` patches of P×P pixels.
pub fn patch_rows(
    image: &Image<'_>,
    normalisation: &Normalisation,
    grid: Grid,
    patch: usize,
    rows: &mut [f32],
) {
    let (width_pixels, pixels) = (grid.columns * patch, grid.patches() * patch * patch);
    let width = 3 * patch * patch;
    assert!(rows.len() == grid.patches() * width, "patch rows");
    match image {
        Image::Normalised(planes) => {
            assert!(planes.len() == 3 * pixels, "planes of an image");
            for (at, row) in rows.chunks_exact_mut(width).enumerate() {
                let (top, left) = (at / grid.columns * patch, at % grid.columns * patch);
                for (line, out) in row.chunks_exact_mut(patch).enumerate() {
                    let (channel, y) = (line / patch, line % patch);
                    let from = channel * pixels + (top + y) * width_pixels + left;
                    out.copy_from_slice(&planes[from..from + patch]);
                }
            }
        }
        Image::Rgb(image) => {
            assert!(image.data.len() == 3 * pixels, "pixels of an image");
            let tables = value_tables(normalisation);
            for (at, row) in rows.chunks_exact_mut(width).enumerate() {
                let (top, left) = (at / grid.columns * patch, at % grid.columns * patch);
                for (line, out) in row.chunks_exact_mut(patch).enumerate() {
                    let (channel, y) = (line / patch, line % patch);
                    let from = ((top + y) * width_pixels + left) * 3;
                    let pixels = image.data[from..from + 3 * patch].chunks_exact(3);
                    for (value, pixel) in out.iter_mut().zip(pixels) {
                        *value = tables[channel][usize::from(pixel[channel])];
                    }
                }
            }
        }
    }
}

/// (pixel/255 − mean)/std for the 256 values of each channel.
fn value_tables(normalisation: &Normalisation) -> [[f32; 256]; 3] {
    std::array::from_fn(|channel| {
        std::array::from_fn(|value| {
            (value as f32 / 255.0 - normalisation.mean[channel]) / normalisation.std[channel]
        })
    })
}
