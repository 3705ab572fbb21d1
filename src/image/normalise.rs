//! 8-bit pixels to the backbone's input.

use super::{Normalisation, RgbImage};
use crate::{Error, Result};

/// Writes `x = (pixel / 255 - mean) / std`, in f32, as three planes.
///
/// The operations and their order are those of the authors' program (divide by 255, subtract, divide), so the
/// values are equal to the last bit.
///
/// # Shapes
/// `image` is `[height, width, 3]`; `out` is `[3, height, width]`.
///
/// # Errors
/// [`Error::Invalid`] when `out` or the image's own data has another length than the image's sides say.
pub fn normalise(image: &RgbImage, normalisation: &Normalisation, out: &mut [f32]) -> Result<()> {
    let pixels = image.width * image.height;
    if image.data.len() != pixels * 3 {
        return Err(Error::invalid(
            "length of the image's data",
            image.data.len(),
            format!("{}", pixels * 3),
        ));
    }
    if out.len() != pixels * 3 {
        return Err(Error::invalid(
            format!("length of the planes of a {}x{} image", image.width, image.height),
            out.len(),
            format!("{}", pixels * 3),
        ));
    }
    if pixels == 0 {
        return Ok(());
    }
    for (channel, plane) in out.chunks_exact_mut(pixels).enumerate() {
        // A byte has 256 values: three divisions a pixel become one look-up.
        let table = table(normalisation.mean[channel], normalisation.std[channel]);
        for (value, pixel) in plane.iter_mut().zip(image.data.chunks_exact(3)) {
            *value = table[usize::from(pixel[channel])];
        }
    }
    Ok(())
}

fn table(mean: f32, std: f32) -> [f32; 256] {
    std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_hold_the_formula() {
        let data: Vec<u8> = (0..5 * 7 * 3).map(|index| (index * 37 % 256) as u8).collect();
        let image = RgbImage::new(7, 5, data.clone()).unwrap();
        for normalisation in [Normalisation::CLIP, Normalisation::IMAGENET] {
            let mut out = vec![0.0; 3 * 35];
            normalise(&image, &normalisation, &mut out).unwrap();
            for channel in 0..3 {
                for pixel in 0..35 {
                    let byte = f32::from(data[pixel * 3 + channel]);
                    let expected =
                        (byte / 255.0 - normalisation.mean[channel]) / normalisation.std[channel];
                    assert_eq!(out[channel * 35 + pixel].to_bits(), expected.to_bits());
                }
            }
        }
    }

    #[test]
    fn ends_of_the_range() {
        let image = RgbImage::new(2, 1, vec![0, 0, 0, 255, 255, 255]).unwrap();
        let mut out = [0.0; 6];
        normalise(&image, &Normalisation::IMAGENET, &mut out).unwrap();
        // Worked by hand: -0.485 / 0.229 and (1 - 0.485) / 0.229; f32 carries 7 digits.
        assert!((out[0] + 2.117_904).abs() < 1e-6, "{}", out[0]);
        assert!((out[1] - 2.248_908).abs() < 1e-6, "{}", out[1]);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let image = RgbImage::new(2, 2, vec![0; 12]).unwrap();
        let error = normalise(&image, &Normalisation::CLIP, &mut [0.0; 11]).unwrap_err();
        assert!(error.to_string().contains("found 11, expected 12"), "{error}");
        let torn = RgbImage { width: 2, height: 2, data: vec![0; 5] };
        assert!(normalise(&torn, &Normalisation::CLIP, &mut [0.0; 12]).is_err());
        let empty = RgbImage::new(0, 3, Vec::new()).unwrap();
        normalise(&empty, &Normalisation::CLIP, &mut []).unwrap();
        assert!(RgbImage::new(2, 2, vec![0; 11]).is_err());
        assert!(RgbImage::new(usize::MAX, 2, vec![0; 6]).is_err());
    }
}
