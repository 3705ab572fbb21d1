//! From pixels to the rows that the patch convolution multiplies.

use crate::backend::input::Image;
use crate::image::Normalisation;

/// Writes the patches of one image as rows `[H·H, 3·P·P]`, each in the order (channel, y, x) of the convolution's
/// weights. S = H·P.
pub fn patch_rows(
    image: Image<'_>,
    normalisation: &Normalisation,
    grid: usize,
    patch: usize,
    rows: &mut [f32],
) {
    let size = grid * patch;
    let width = 3 * patch * patch;
    assert!(rows.len() == grid * grid * width, "patch rows");
    match image {
        Image::Normalised(planes) => {
            assert!(planes.len() == 3 * size * size, "planes of an image");
            for (at, row) in rows.chunks_exact_mut(width).enumerate() {
                let (top, left) = (at / grid * patch, at % grid * patch);
                for (line, out) in row.chunks_exact_mut(patch).enumerate() {
                    let (channel, y) = (line / patch, line % patch);
                    let from = (channel * size + top + y) * size + left;
                    out.copy_from_slice(&planes[from..from + patch]);
                }
            }
        }
        Image::Rgb(image) => {
            assert!(image.data.len() == 3 * size * size, "pixels of an image");
            let tables = value_tables(normalisation);
            for (at, row) in rows.chunks_exact_mut(width).enumerate() {
                let (top, left) = (at / grid * patch, at % grid * patch);
                for (line, out) in row.chunks_exact_mut(patch).enumerate() {
                    let (channel, y) = (line / patch, line % patch);
                    let from = ((top + y) * size + left) * 3;
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
