//! OK or NG, image by image, and where.

use std::path::PathBuf;

use rayon::prelude::*;

use super::Inspection;
use super::pictures::common_range;
use crate::defects::{Region, mebin, mebin_size, regions};
use crate::image::{Canvas, Rectangle};
use crate::progress::go_on;
use crate::report::{InspectedImage, quantise, write_grey_png};
use crate::scoring::decision::DecisionRule;
use crate::{Error, ImageSize, Progress, Result};

impl Inspection {
    /// Height and width of an image's file, or of the frame that it came as.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are not so many images.
    pub fn image_size(&self, image: usize) -> Result<ImageSize> {
        let sides = self.file_sizes.get(image).ok_or_else(|| self.no_image(image))?;
        Ok(ImageSize::new(sides.1 as usize, sides.0 as usize))
    }

    /// The part of an image's map, at the size of [`Self::map_size`], that the image covers: all of it, unless images are padded.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are not so many images.
    pub fn picture(&self, image: usize) -> Result<Rectangle> {
        let (size, original) = (self.map_size(), self.image_size(image)?);
        // Joined maps are of the image alone.
        if self.cut().is_some_and(|cut| cut.tiles() > 1) {
            return Ok(Rectangle::whole(size));
        }
        Ok(Canvas::new(size).with_fit(self.fit).place(original))
    }

    /// The regions of an image's map, at the size of [`Self::map_size`], that are above a threshold, worst first, in pixels of the
    /// original image. The raw score is the largest value of that map: so there is a region exactly when the raw score is above
    /// the threshold. Takes 13 bytes a pixel of the map.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are not so many images, and for a threshold that is NaN.
    pub fn regions(&self, image: usize, threshold: f64) -> Result<Vec<Region>> {
        let (original, picture) = (self.image_size(image)?, self.picture(image)?);
        let size = self.map_size();
        let mut map = vec![0f32; size.pixels()];
        self.map(image, size, &mut map)?;
        // What is not looked at is above nothing.
        for (value, _) in
            map.iter_mut().zip(self.inside(image, size)?).filter(|(_, inside)| !inside)
        {
            *value = f32::NAN;
        }
        regions(&map, size, picture, original, threshold)
    }

    /// A threshold for each image by a decision rule: an image is defective when its raw score is above its own. They are equal
    /// for all rules but [`DecisionRule::Mebin`], which reads all maps, on rayon's current pool.
    ///
    /// # Errors
    /// As [`threshold`](crate::scoring::decision::threshold), and [`mebin`](crate::defects::mebin).
    pub fn thresholds(&self, rule: DecisionRule) -> Result<Vec<f64>> {
        if rule != DecisionRule::Mebin {
            return Ok(vec![self.threshold(rule)?; self.len()]);
        }
        let size = mebin_size(self.map_size());
        mebin(&self.raw_scores, size, |image, map| self.map(image, size, map))
    }

    /// Every image with its decision and its regions, by [`Self::thresholds`] or others, one an image; on rayon's current pool.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another number of thresholds than images, and as [`Self::regions`].
    pub fn inspected(&self, thresholds: &[f64]) -> Result<Vec<InspectedImage>> {
        if thresholds.len() != self.len() {
            let expected = format!("{}, one an image", self.len());
            return Err(Error::invalid("thresholds", thresholds.len(), expected));
        }
        let one = |at: usize| {
            let (sample, raw, threshold) = (&self.samples[at], self.raw_scores[at], thresholds[at]);
            let regions = match f64::from(raw) > threshold {
                true => self.regions(at, threshold)?,
                false => Vec::new(),
            };
            let (path, size) = (sample.path.clone(), self.image_size(at)?);
            let image = InspectedImage::new(
                path,
                &self.name,
                size,
                self.scores[at],
                raw,
                threshold,
                regions,
            );
            Ok(image)
        };
        (0..self.len()).into_par_iter().map(one).collect()
    }

    /// Writes each image's map as a grey PNG of 8 bits, the part that is picture, at the size of [`Self::map_size`]: 0 is the least
    /// value of all maps, 255 the greatest. On rayon's current pool.
    ///
    /// # Errors
    /// Another number of paths than images; a file that cannot be written; an interruption.
    pub fn write_grey_maps(&self, paths: &[PathBuf], progress: &dyn Progress) -> Result<()> {
        if paths.len() != self.len() {
            let expected = format!("{}, one an image", self.len());
            return Err(Error::invalid("paths of pictures", paths.len(), expected));
        }
        let range = common_range(self)?;
        (0..self.len()).into_par_iter().try_for_each(|at| {
            go_on(progress)?;
            let size = self.map_size();
            let mut map = vec![0f32; size.pixels()];
            self.map(at, size, &mut map)?;
            let picture = self.picture(at)?;
            let mut values = Vec::with_capacity(picture.size.pixels());
            for y in picture.top..picture.top + picture.size.height {
                let row = &map[y * size.width + picture.left..][..picture.size.width];
                values.extend(row.iter().map(|&value| quantise(value, range)));
            }
            write_grey_png(&paths[at], &values, picture.size)
        })
    }

    fn no_image(&self, image: usize) -> Error {
        Error::invalid("image", image, format!("below {}", self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grid;
    use crate::dataset::{Mask, Sample};
    use crate::image::Fit;
    use crate::inspect::maps::Maps;
    use crate::scoring::upsample::upsample_max;

    /// An inspection of a wide image, a square one and a tall one, on a square canvas.
    fn inspection(fit: Fit, patch_scores: Vec<f32>) -> Inspection {
        let (input, grid) = (ImageSize::square(24), Grid::square(4));
        let file_sizes = vec![(48, 24), (30, 30), (20, 40)];
        let raw_scores: Vec<f32> = patch_scores
            .chunks_exact(16)
            .map(|scores| upsample_max(scores, grid, input).unwrap())
            .collect();
        Inspection {
            name: "parts".into(),
            kept: vec![0, 1, 2],
            samples: (0..3)
                .map(|at| Sample::new(at.to_string(), "", "", None, Mask::Unknown))
                .collect(),
            file_sizes,
            fit,
            input,
            maps: Maps::whole(grid, input),
            patch_scores,
            left_out: Vec::new(),
            exact_scores: None,
            scores: raw_scores.iter().map(|&score| f64::from(score)).collect(),
            raw_scores,
            class_tokens: vec![0.0; 3],
            class_width: 1,
            k: Vec::new(),
            subsets: 1,
            skipped: Vec::new(),
            notes: Vec::new(),
            seconds: Vec::new(),
        }
    }

    /// Background, and one patch of each image at row 1, column 2 with a value of its own.
    fn one_patch(values: [f32; 3]) -> Vec<f32> {
        let mut scores = vec![0.125; 48];
        for (image, value) in values.into_iter().enumerate() {
            scores[image * 16 + 6] = value;
        }
        scores
    }

    #[test]
    fn an_image_has_regions_exactly_when_it_is_defective() {
        for fit in [Fit::Stretch, Fit::Pad] {
            let found = inspection(fit, one_patch([0.5, 0.25, 0.75]));
            for rule in ["shortest-half", "share:0.3", "0.4", "mebin"] {
                let thresholds = found.thresholds(rule.parse().unwrap()).unwrap();
                for (image, &threshold) in thresholds.iter().enumerate() {
                    let defective = f64::from(found.raw_scores()[image]) > threshold;
                    let regions = found.regions(image, threshold).unwrap();
                    assert_eq!(defective, !regions.is_empty(), "{fit:?} {rule} {image}");
                    let size = found.image_size(image).unwrap();
                    for [x, y] in regions.iter().flat_map(|region| &region.polygon) {
                        assert!((0.0..=size.width as f64).contains(x), "{x} of {size}");
                        assert!((0.0..=size.height as f64).contains(y), "{y} of {size}");
                    }
                }
            }
            // One region in each of the loud ones; the quietest is never defective by MEBin.
            let raw: Vec<f64> = found.raw_scores().iter().map(|&raw| f64::from(raw)).collect();
            let thresholds = found.thresholds(DecisionRule::Mebin).unwrap();
            assert_eq!(thresholds[1], raw[2]);
            assert!((raw[1]..raw[0]).contains(&thresholds[0]), "{thresholds:?}");
            assert!((raw[1]..raw[2]).contains(&thresholds[2]), "{thresholds:?}");
        }
    }

    #[test]
    fn places_are_those_of_the_original_image() {
        // The patch's middle is at column 2/3, row 1/3 of a map of corners on corners: pixel (15.33, 7.67) of 24.
        let stretched = inspection(Fit::Stretch, one_patch([0.5; 3]));
        let middle = |found: &Inspection, image: usize| {
            let regions = found.regions(image, 0.45).unwrap();
            assert_eq!(regions.len(), 1);
            let bounds = regions[0].bounds;
            (bounds.x + bounds.width / 2.0, bounds.y + bounds.height / 2.0)
        };
        // Within a pixel of the map: 2 by 1 of the image.
        let (x, y) = middle(&stretched, 0);
        assert!((x - 15.83 * 2.0).abs() <= 2.0 && (y - 8.17).abs() <= 1.0, "{x} {y}");
        // Padded, the wide image is the middle 12 of 24 rows, and a pixel of the map is 2 by 2 of it: row 8.17 of the map is row
        // 2.17 of the picture.
        let padded = inspection(Fit::Pad, one_patch([0.5; 3]));
        assert_eq!(
            padded.picture(0).unwrap(),
            Rectangle { top: 6, left: 0, size: ImageSize::new(12, 24) }
        );
        let (x, y) = middle(&padded, 0);
        assert!((x - 15.83 * 2.0).abs() <= 2.0 && (y - 2.17 * 2.0).abs() <= 2.0, "{x} {y}");
        // The tall one is the middle 12 columns, and a pixel of the map 40/24 of it.
        let (x, y) = middle(&padded, 2);
        assert!(
            (x - 9.83 * 20.0 / 12.0).abs() <= 1.7 && (y - 8.17 * 40.0 / 24.0).abs() <= 1.7,
            "{x} {y}"
        );
        let outline = &padded.regions(2, 0.45).unwrap()[0].outline;
        assert!(outline.iter().all(|[x, _]| (6.0..=18.0).contains(x)), "{outline:?}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let found = inspection(Fit::Stretch, one_patch([0.5; 3]));
        let said = found.regions(3, 0.0).unwrap_err().to_string();
        assert!(said.contains("image: found 3, expected below 3"), "{said}");
        assert!(found.regions(0, f64::NAN).is_err());
        let said = found.threshold(DecisionRule::Mebin).unwrap_err().to_string();
        assert!(said.contains("found mebin"), "{said}");
    }
}
