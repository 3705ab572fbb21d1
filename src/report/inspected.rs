//! An image with its decision and its regions: what `defects.json` and the exports are made of.

use std::path::PathBuf;

use crate::ImageSize;
use crate::defects::Region;

/// An image that was decided on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InspectedImage {
    /// Its path as the run was given it.
    pub path: PathBuf,
    /// Its class (category).
    pub class: String,
    /// Height and width of the original image.
    pub size: ImageSize,
    /// The score after RsCIN.
    pub score: f64,
    /// The largest value of its map.
    pub raw_score: f32,
    /// What the raw score was held against.
    pub threshold: f64,
    /// The regions of its map above the threshold, worst first; none where it is OK.
    pub regions: Vec<Region>,
}

impl InspectedImage {
    /// An image with a raw score and the regions of its map above a threshold.
    pub fn new(
        path: impl Into<PathBuf>,
        class: impl Into<String>,
        size: ImageSize,
        score: f64,
        raw_score: f32,
        threshold: f64,
        regions: Vec<Region>,
    ) -> Self {
        let (path, class) = (path.into(), class.into());
        InspectedImage { path, class, size, score, raw_score, threshold, regions }
    }

    /// Whether it is defective (NG): its raw score is above the threshold.
    pub fn is_defective(&self) -> bool {
        f64::from(self.raw_score) > self.threshold
    }

    /// The decision in a word.
    pub fn decision(&self) -> &'static str {
        if self.is_defective() { "NG" } else { "OK" }
    }
}

/// A number as the shortest text that gives its nearest f32: places in an image need no more, and files are half as long.
/// Places that were apart stay so: a pixel of the map is more than a 2^24th of the image.
pub(super) fn short(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

/// Left, top, width and height of some points in [`short`] numbers: nothing of a short polygon lies outside its short box.
pub(super) fn short_box(points: &[[f64; 2]]) -> [f64; 4] {
    let side = |axis: usize| {
        let along = points.iter().map(|point| short(point[axis]));
        along.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(value), most.max(value))
        })
    };
    let ((left, right), (top, bottom)) = (side(0), side(1));
    [left, top, short(right - left), short(bottom - top)]
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::defects::regions;
    use crate::image::Rectangle;

    /// An image of 30 x 20 pixels whose map, half as large, has two regions or, below 0.5, none.
    pub fn image(path: &str, class: &str, loudest: f32) -> InspectedImage {
        let size = ImageSize::new(10, 15);
        let mut map = vec![0.125f32; 150];
        for y in 2..6 {
            for x in 3..8 {
                map[y * 15 + x] = 0.5 * loudest;
            }
        }
        map[3 * 15 + 4] = loudest;
        map[9 * 15 + 14] = 0.75 * loudest;
        let original = ImageSize::new(20, 30);
        let found = regions(&map, size, Rectangle::whole(size), original, 0.3).expect("regions");
        InspectedImage::new(path, class, original, f64::from(loudest) / 2.0, loudest, 0.3, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_are_short_and_near() {
        assert_eq!(short(1024.0 / 224.0 * 3.0).to_string(), "13.714286");
        assert_eq!(short(7.0), 7.0);
        assert_eq!(short_box(&[[1.5, 2.0], [4.0, 2.5], [3.0, 9.0]]), [1.5, 2.0, 2.5, 7.0]);
        assert!(samples::image("a", "b", 0.9).is_defective());
        assert_eq!(samples::image("a", "b", 0.25).decision(), "OK");
    }
}
