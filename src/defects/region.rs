//! Connected regions of a map above a threshold.

use super::contour::{outline, simplified};
use crate::image::Rectangle;
use crate::metrics::regions::regions as connected;
use crate::{Error, ImageSize, Result};

/// A part of an image whose map is above the threshold, in one piece (8 neighbours).
///
/// But for [`Self::outline`], in pixels of the original image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Region {
    /// The outer outline: x and y of at least 3 corners, clockwise (y down), from the upper left corner of its first pixel;
    /// the last one is joined to the first. Within half a pixel of the map of the true outline. Holes are not drawn.
    pub polygon: Vec<[f64; 2]>,
    /// The same outline in pixels of the map, as it came out of the backbone's input, padding included.
    pub outline: Vec<[f64; 2]>,
    /// The smallest box with sides along the image's around the region; the polygon's is the same.
    pub bounds: Bounds,
    /// Pixels of the region, holes not counted, above 0: the map's pixels times what one is in the original image.
    pub area: f64,
    /// The largest value of the map in the region and the middle of the pixel that has it: the first one in reading order.
    pub peak: Peak,
    /// The mean of the map over the region.
    pub mean: f64,
}

/// A box in an image.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Bounds {
    /// Its left side.
    pub x: f64,
    /// Its upper side.
    pub y: f64,
    /// From left to right.
    pub width: f64,
    /// From top to bottom.
    pub height: f64,
}

/// The largest value of a region.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Peak {
    /// Its place.
    pub x: f64,
    /// Its place.
    pub y: f64,
    /// The value of the map.
    pub value: f32,
}

impl Region {
    /// The area inside the polygon, above 0: the region's with its holes, as far as the polygon follows the outline.
    pub fn polygon_area(&self) -> f64 {
        let next = self.polygon.iter().cycle().skip(1);
        let crossed = self.polygon.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]);
        crossed.sum::<f64>().abs() / 2.0
    }
}

/// The regions of a map that are above a threshold, the one with the largest value first; of equal ones the larger, then the
/// higher.
///
/// `map` is `[size.height, size.width]`, row by row. `picture` is the part of it that the image covers, and `original` the
/// size of that image; values of the padding around it count at the nearest pixel of the picture, so that a map has a region
/// exactly when its largest value is above the threshold, and every region lies in the image. NaN is not above anything.
///
/// # Errors
/// [`Error::Invalid`] for a map of another length, of more pixels than 32 bits count, a picture without pixels or beyond the
/// map, an original without pixels, and for a threshold that is NaN.
pub fn regions(
    map: &[f32],
    size: ImageSize,
    picture: Rectangle,
    original: ImageSize,
    threshold: f64,
) -> Result<Vec<Region>> {
    check(map, size, picture, original, threshold)?;
    let (width, height) = (picture.size.width, picture.size.height);
    let values = within(map, size, picture);
    let mask: Vec<u8> =
        values.iter().map(|&value| u8::from(f64::from(value) > threshold)).collect();
    let found = connected(&mask, width);
    let mut region_of = vec![0u32; values.len()];
    for (number, pixels) in found.iter().enumerate() {
        for &pixel in pixels {
            region_of[pixel as usize] = number as u32 + 1;
        }
    }
    let scale = [original.width as f64 / width as f64, original.height as f64 / height as f64];
    let mut regions: Vec<Region> = found
        .iter()
        .enumerate()
        .map(|(number, pixels)| {
            let inside = |x: i64, y: i64| {
                let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return false };
                x < width && y < height && region_of[y * width + x] == number as u32 + 1
            };
            region(pixels, &values, width, inside, picture, scale)
        })
        .collect();
    regions.sort_by(|a, b| {
        let by_place = || a.bounds.y.total_cmp(&b.bounds.y).then(a.bounds.x.total_cmp(&b.bounds.x));
        b.peak.value.total_cmp(&a.peak.value).then(b.area.total_cmp(&a.area)).then_with(by_place)
    });
    Ok(regions)
}

fn check(
    map: &[f32],
    size: ImageSize,
    picture: Rectangle,
    original: ImageSize,
    threshold: f64,
) -> Result<()> {
    if size.height.checked_mul(size.width) != Some(map.len()) || u32::try_from(map.len()).is_err() {
        return Err(Error::invalid("anomaly map", map.len(), format!("{size} values, below 2^32")));
    }
    let fits = |start: usize, length: usize, side: usize| {
        length > 0 && start.checked_add(length).is_some_and(|end| end <= side)
    };
    if !fits(picture.top, picture.size.height, size.height)
        || !fits(picture.left, picture.size.width, size.width)
    {
        let found = format!("{} at row {}, column {}", picture.size, picture.top, picture.left);
        return Err(Error::invalid("picture on the map", found, format!("a part of {size}")));
    }
    if original.height == 0 || original.width == 0 {
        return Err(Error::invalid("size of the image", original, "at least 1 pixel a side"));
    }
    if threshold.is_nan() {
        return Err(Error::invalid("threshold of the regions", threshold, "a number"));
    }
    Ok(())
}

/// The map's values on the picture; its border has the largest of the padding's values to which it is nearest.
fn within(map: &[f32], size: ImageSize, picture: Rectangle) -> Vec<f32> {
    let (width, height) = (picture.size.width, picture.size.height);
    let mut values = vec![f32::NAN; width * height];
    for (y, row) in map.chunks_exact(size.width).enumerate() {
        let line = y.saturating_sub(picture.top).min(height - 1) * width;
        for (x, &value) in row.iter().enumerate() {
            let kept = &mut values[line + x.saturating_sub(picture.left).min(width - 1)];
            // Takes the other where one is NaN.
            *kept = kept.max(value);
        }
    }
    values
}

fn region(
    pixels: &[u32],
    values: &[f32],
    width: usize,
    inside: impl Fn(i64, i64) -> bool,
    picture: Rectangle,
    scale: [f64; 2],
) -> Region {
    let place = |pixel: u32| (pixel as usize % width, pixel as usize / width);
    let first = pixels.iter().copied().min().unwrap_or_default();
    let corner = (place(first).0 as i64, place(first).1 as i64);
    let corners = simplified(&outline(corner, inside));
    let mut peak = (first, f32::NEG_INFINITY);
    let mut sum = 0.0;
    for &pixel in pixels {
        let value = values[pixel as usize];
        sum += f64::from(value);
        if value > peak.1 || (value == peak.1 && pixel < peak.0) {
            peak = (pixel, value);
        }
    }
    let polygon: Vec<[f64; 2]> =
        corners.iter().map(|&[x, y]| [x * scale[0], y * scale[1]]).collect();
    let side = |axis: usize| {
        let along = polygon.iter().map(|point| point[axis]);
        along.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(value), most.max(value))
        })
    };
    let ((left, right), (top, bottom)) = (side(0), side(1));
    let (x, y) = place(peak.0);
    Region {
        outline: corners
            .iter()
            .map(|&[x, y]| [x + picture.left as f64, y + picture.top as f64])
            .collect(),
        polygon,
        bounds: Bounds { x: left, y: top, width: right - left, height: bottom - top },
        area: pixels.len() as f64 * scale[0] * scale[1],
        peak: Peak {
            x: (x as f64 + 0.5) * scale[0],
            y: (y as f64 + 0.5) * scale[1],
            value: peak.1,
        },
        mean: sum / pixels.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: [f32; 20] = [
        0.1, 0.9, 0.0, 0.0, 0.4, //
        0.1, 0.7, 0.0, 0.0, 0.5, //
        0.0, 0.0, 0.6, 0.0, 0.0, //
        0.0, 0.0, 0.0, 0.0, 0.9,
    ];
    const SIZE: ImageSize = ImageSize { height: 4, width: 5 };

    fn of(picture: Rectangle, original: (usize, usize), threshold: f64) -> Vec<Region> {
        regions(&MAP, SIZE, picture, ImageSize::new(original.0, original.1), threshold).unwrap()
    }

    #[test]
    fn regions_come_worst_first_in_pixels_of_the_image() {
        // Twice as high, ten times as wide.
        let found = of(Rectangle::whole(SIZE), (8, 50), 0.4f32.into());
        // The corner joins 0.6 to the column of 0.9 and 0.7; 0.4 is not above 0.4.
        assert_eq!(found.len(), 3);
        let [one, two, three] = &found[..] else { unreachable!() };
        assert_eq!((one.area, two.area, three.area), (60.0, 20.0, 20.0));
        assert_eq!(one.bounds, Bounds { x: 10.0, y: 0.0, width: 20.0, height: 6.0 });
        assert_eq!(one.peak, Peak { x: 15.0, y: 1.0, value: 0.9 });
        let mean = (f64::from(0.9f32) + f64::from(0.7f32) + f64::from(0.6f32)) / 3.0;
        assert!((one.mean - mean).abs() < 1e-15);
        assert_eq!(two.polygon, [[40.0, 6.0], [50.0, 6.0], [50.0, 8.0], [40.0, 8.0]]);
        assert_eq!(two.outline, [[4.0, 3.0], [5.0, 3.0], [5.0, 4.0], [4.0, 4.0]]);
        assert_eq!(two.polygon_area(), 20.0);
        assert_eq!(three.bounds, Bounds { x: 40.0, y: 2.0, width: 10.0, height: 2.0 });
        assert_eq!(three.peak.value, 0.5);
    }

    #[test]
    fn padding_counts_at_the_nearest_pixel_of_the_picture() {
        // The picture is columns 1 to 3, rows 1 and 2.
        let picture = Rectangle { top: 1, left: 1, size: ImageSize::new(2, 3) };
        let found = of(picture, (20, 30), 0.65);
        assert_eq!(found.len(), 2, "{found:?}");
        // 0.9 of row 0 counts at the pixel below it; 0.9 of the lower right corner at the picture's.
        assert_eq!(found[0].bounds, Bounds { x: 0.0, y: 0.0, width: 10.0, height: 10.0 });
        assert_eq!(found[0].outline[0], [1.0, 1.0]);
        assert_eq!(found[1].bounds, Bounds { x: 20.0, y: 10.0, width: 10.0, height: 10.0 });
        assert_eq!(found[1].peak, Peak { x: 25.0, y: 15.0, value: 0.9 });
    }

    #[test]
    fn there_is_a_region_exactly_when_the_largest_value_is_above() {
        let largest = f64::from(0.9f32);
        for picture in [
            Rectangle::whole(SIZE),
            Rectangle { top: 2, left: 0, size: ImageSize::new(1, 5) },
            Rectangle { top: 0, left: 2, size: ImageSize::new(4, 1) },
        ] {
            assert!(of(picture, (7, 3), largest).is_empty());
            assert!(!of(picture, (7, 3), largest.next_down()).is_empty());
            // Everything in one piece: all of the image.
            let all = of(picture, (7, 3), f64::NEG_INFINITY);
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].bounds, Bounds { x: 0.0, y: 0.0, width: 3.0, height: 7.0 });
            assert!((all[0].area - 21.0).abs() < 1e-12 && all[0].polygon.len() == 4);
        }
        let map = [f32::NAN, 1.0, f32::NAN, f32::NAN];
        let size = ImageSize::square(2);
        let found = regions(&map, size, Rectangle::whole(size), size, 0.0).unwrap();
        assert_eq!((found.len(), found[0].area), (1, 1.0));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let whole = Rectangle::whole(SIZE);
        let says = |map: &[f32], picture, original, threshold, part: &str| {
            let said = regions(map, SIZE, picture, original, threshold).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        };
        says(&MAP[1..], whole, SIZE, 0.0, "anomaly map: found 19");
        says(&MAP, whole, ImageSize::new(0, 3), 0.0, "size of the image");
        says(&MAP, whole, SIZE, f64::NAN, "threshold of the regions: found NaN");
        for (top, left, height, width) in
            [(1, 0, 4, 5), (0, 1, 4, 5), (0, 0, 0, 5), (usize::MAX, 0, 2, 1)]
        {
            let picture = Rectangle { top, left, size: ImageSize::new(height, width) };
            says(&MAP, picture, SIZE, 0.0, "picture on the map");
        }
    }
}
