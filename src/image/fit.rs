//! How an image is laid on the backbone's input: stretched over all of it, or inside it with its own proportions.

use super::tiles::{Tile, crop};
use super::{Filter, RgbImage, resize};
use crate::ImageSize;

/// The colour around a picture that is laid on a larger canvas: the mean of ImageNet, (0.485, 0.456, 0.406) of 255. The mean
/// of CLIP's images is within one level of it. After normalisation it is about 0.
pub const PAD_COLOUR: [u8; 3] = [124, 116, 104];

/// How an image of other proportions is laid on its canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Fit {
    /// Both sides on their own: the image covers all of the canvas, its proportions are not kept.
    #[default]
    Stretch,
    /// Scaled to the largest size of its own proportions that fits, in the middle; the rest is [`PAD_COLOUR`].
    Pad,
}

/// A part of an image, in pixels from its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rectangle {
    /// Rows above it.
    pub top: usize,
    /// Pixels left of it.
    pub left: usize,
    /// Its height and width.
    pub size: ImageSize,
}

impl Rectangle {
    /// All of an image of this size.
    pub const fn whole(size: ImageSize) -> Self {
        Rectangle { top: 0, left: 0, size }
    }
}

/// The size an image is brought to, and how it is laid on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Canvas {
    /// Height and width in pixels.
    pub size: ImageSize,
    /// How images of other proportions are laid on it.
    pub fit: Fit,
}

impl Canvas {
    /// A canvas of this size that every image is stretched over.
    pub const fn new(size: ImageSize) -> Self {
        Canvas { size, fit: Fit::Stretch }
    }

    /// With images laid on it like this.
    pub const fn with_fit(mut self, fit: Fit) -> Self {
        self.fit = fit;
        self
    }

    /// Where an image of a size comes to lie. With [`Fit::Pad`] the side that touches the canvas has its length, the other is
    /// rounded to the nearest pixel, at least 1; an odd pixel of padding goes below or to the right.
    pub fn place(&self, image: ImageSize) -> Rectangle {
        let size = self.size;
        if self.fit == Fit::Stretch || image.pixels() == 0 {
            return Rectangle::whole(size);
        }
        // Height of the image over the canvas's against the widths', without a division.
        let tall = product(image.height, size.width) >= product(image.width, size.height);
        let inside = if tall {
            let width = scaled(image.width, size.height, image.height);
            ImageSize::new(size.height, width.min(size.width))
        } else {
            let height = scaled(image.height, size.width, image.width);
            ImageSize::new(height.min(size.height), size.width)
        };
        Rectangle {
            top: (size.height - inside.height) / 2,
            left: (size.width - inside.width) / 2,
            size: inside,
        }
    }

    /// A mask's bytes of the size `from`, brought to the canvas by `scale`; 0 where there is no picture.
    #[cfg(feature = "files")]
    pub(super) fn lay_mask(
        &self,
        mask: &[u8],
        from: ImageSize,
        scale: impl Fn(&[u8], ImageSize, ImageSize) -> Vec<u8>,
    ) -> Vec<u8> {
        let place = self.place(from);
        let values = scale(mask, from, place.size);
        if place.size == self.size {
            return values;
        }
        let mut whole = vec![0; self.size.pixels()];
        paste(&values, place, self.size.width, 1, &mut whole);
        whole
    }
}

/// Stretched over this size.
impl From<ImageSize> for Canvas {
    fn from(size: ImageSize) -> Self {
        Canvas::new(size)
    }
}

impl From<&Resize> for Canvas {
    fn from(resize: &Resize) -> Self {
        resize.canvas()
    }
}

/// How images become the backbone's input.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Resize {
    /// Height and width that come out.
    pub size: ImageSize,
    /// The resampling filter.
    pub filter: Filter,
    /// How images of other proportions are laid on it.
    pub fit: Fit,
    /// The tile that is cut out of each image before; `None` for all of it.
    pub tile: Option<Tile>,
}

impl Resize {
    /// To this size with this filter, both sides on their own.
    pub const fn new(size: ImageSize, filter: Filter) -> Self {
        Resize { size, filter, fit: Fit::Stretch, tile: None }
    }

    /// With images laid on it like this.
    pub const fn with_fit(mut self, fit: Fit) -> Self {
        self.fit = fit;
        self
    }

    /// Of this tile of each image.
    pub const fn with_tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// What images are laid on.
    pub const fn canvas(&self) -> Canvas {
        Canvas { size: self.size, fit: self.fit }
    }

    /// The part of an image of this size that is resized: a tile, or all of it.
    pub fn part(&self, image: ImageSize) -> Rectangle {
        self.tile.map_or(Rectangle::whole(image), |tile| tile.rectangle(image))
    }

    /// The image at the new size, and which part of it is picture; all of it, but for [`Fit::Pad`].
    ///
    /// # Panics
    /// When `image.data` does not hold `height * width * 3` bytes.
    pub fn apply(&self, image: &RgbImage) -> (RgbImage, Rectangle) {
        let cut = self.tile.map(|_| crop(image, self.part(image.size())));
        let image = cut.as_ref().unwrap_or(image);
        let place = self.canvas().place(image.size());
        let picture = resize(image, place.size, self.filter);
        if place.size == self.size {
            return (picture, place);
        }
        let ImageSize { height, width } = self.size;
        let mut data = PAD_COLOUR.repeat(self.size.pixels());
        paste(&picture.data, place, width, 3, &mut data);
        (RgbImage { width, height, data }, place)
    }
}

/// Copies rows of `channels` bytes a pixel to their place on a canvas `width` pixels wide.
fn paste(source: &[u8], place: Rectangle, width: usize, channels: usize, out: &mut [u8]) {
    let row = place.size.width * channels;
    if row == 0 {
        return;
    }
    for (line, values) in source.chunks_exact(row).enumerate() {
        let start = ((place.top + line) * width + place.left) * channels;
        out[start..start + row].copy_from_slice(values);
    }
}

fn product(one: usize, other: usize) -> u128 {
    one as u128 * other as u128
}

/// `side · to / from` to the nearest pixel, at least 1.
fn scaled(side: usize, to: usize, from: usize) -> usize {
    let nearest = (product(side, to) * 2 + from as u128) / (from as u128 * 2);
    usize::try_from(nearest).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "files")]
    use crate::image::resize_gray;

    fn grey(size: ImageSize, level: u8) -> RgbImage {
        RgbImage::new(size.width, size.height, vec![level; size.pixels() * 3]).unwrap()
    }

    #[test]
    fn a_stretched_image_covers_everything() {
        let to = ImageSize::new(28, 42);
        let image = grey(ImageSize::new(7, 3), 9);
        let (out, place) = Resize::new(to, Filter::Bicubic).apply(&image);
        assert_eq!(place, Rectangle::whole(to));
        assert_eq!(out, resize(&image, to, Filter::Bicubic));
    }

    #[test]
    fn a_padded_image_keeps_its_proportions_and_lies_in_the_middle() {
        let canvas = Canvas::new(ImageSize::new(20, 30)).with_fit(Fit::Pad);
        for (image, top, left, size) in [
            ((20, 30), 0, 0, (20, 30)),
            ((2, 3), 0, 0, (20, 30)),
            ((5, 5), 0, 5, (20, 20)),
            ((10, 30), 5, 0, (10, 30)),
            ((30, 10), 0, 11, (20, 7)),
            ((1, 1000), 9, 0, (1, 30)),
            ((1000, 1), 0, 14, (20, 1)),
            // 30 · 3/7 is 12.86 rows: 13, and of 7 left over 3 go above.
            ((3, 7), 3, 0, (13, 30)),
        ] {
            let place = canvas.place(ImageSize::new(image.0, image.1));
            let size = ImageSize::new(size.0, size.1);
            assert_eq!(place, Rectangle { top, left, size }, "{image:?}");
        }
        // Sides whose products do not fit 64 bits.
        let wide = canvas.place(ImageSize::new(1 << 62, 1 << 62));
        assert_eq!(wide.size, ImageSize::square(20));
    }

    #[test]
    fn padding_has_the_mean_colour() {
        let image = grey(ImageSize::new(10, 30), 200);
        let resize = Resize::new(ImageSize::new(20, 30), Filter::Bilinear).with_fit(Fit::Pad);
        let (out, place) = resize.apply(&image);
        assert_eq!((out.width, out.height, place.top), (30, 20, 5));
        for (at, pixel) in out.data.chunks_exact(3).enumerate() {
            let inside = (5..15).contains(&(at / 30));
            assert_eq!(pixel, if inside { [200; 3] } else { PAD_COLOUR }, "pixel {at}");
        }
    }

    #[cfg(feature = "files")]
    #[test]
    fn a_mask_lies_where_its_image_does() {
        let canvas = Canvas::new(ImageSize::new(4, 6)).with_fit(Fit::Pad);
        let mask = canvas.lay_mask(&[255; 8], ImageSize::new(4, 2), resize_gray);
        for (at, &value) in mask.iter().enumerate() {
            assert_eq!(value > 0, (2..4).contains(&(at % 6)), "pixel {at}");
        }
        let stretched = Canvas::from(ImageSize::new(4, 6));
        assert_eq!(stretched.lay_mask(&[7; 8], ImageSize::new(4, 2), resize_gray), [7; 24]);
    }
}
