//! The images of `report.html`, made of an inspection.

use rayon::prelude::*;

use super::{Batch, Inspection, Inspector};
use crate::image::Resize;
use crate::progress::{Stage, go_on};
use crate::report::html::{PAGE_IMAGES, ReportClass, ReportImage, ReportPictures};
use crate::report::{InspectedImage, ranks};
use crate::{Error, ImageSize, Progress, Result};

impl Inspection {
    /// The map values between which the page's heat maps have their colours: the lower quartile of the raw scores and the
    /// largest one. What stays below the first is found in three quarters of all images, and is left clear.
    pub fn heat_scale(&self) -> (f32, f32) {
        let mut sorted = self.raw_scores.clone();
        sorted.sort_by(f32::total_cmp);
        let low = sorted.get(sorted.len() / 4).copied().unwrap_or_default();
        (low, sorted.last().copied().unwrap_or_default())
    }

    /// The map of an image over its picture alone, `[height, width]` without the canvas around it, and its size.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are not so many images.
    pub fn picture_map(&self, image: usize) -> Result<(Vec<f32>, ImageSize)> {
        let place = self.picture(image)?;
        let size = self.map_size();
        let mut map = vec![0f32; size.pixels()];
        self.map(image, size, &mut map)?;
        if place.size == size {
            return Ok((map, size));
        }
        let rows = map.chunks_exact(size.width).skip(place.top).take(place.size.height);
        let inside = rows.flat_map(|row| &row[place.left..][..place.size.width]).copied().collect();
        Ok((inside, place.size))
    }
}

impl Inspector {
    /// The class of a batch for a report: its name, its scale of colours, its curves where labels are known. `threshold` is the
    /// one that all images share, nothing where each has its own; `rule` is where it comes from, in a word.
    ///
    /// # Errors
    /// A score that is not finite.
    pub fn report_class(
        &self,
        inspection: &Inspection,
        threshold: Option<f64>,
        rule: impl Into<String>,
    ) -> Result<ReportClass> {
        let mut class =
            ReportClass::new(inspection.name(), threshold, rule, inspection.heat_scale());
        (class.curves, class.raw_curves) = inspection.curves()?;
        Ok(class)
    }

    /// The images of a batch for a report, their pictures made by `pictures`; `inspected` has the
    /// decision and the regions of each ([`Inspection::inspected`]), and `first` is the
    /// number of the first one on the page, by which the files of different batches are told apart. Of more than
    /// [`PAGE_IMAGES`] the pictures of those with the highest scores.
    ///
    /// # Errors
    /// Another number of decisions than images; an image that cannot be read any more; a file that cannot be written; an
    /// interruption.
    pub fn report_images(
        &self,
        batch: &Batch,
        inspection: &mut Inspection,
        inspected: &[InspectedImage],
        (pictures, first): (&ReportPictures, usize),
        progress: &dyn Progress,
    ) -> Result<Vec<ReportImage>> {
        let count = inspection.len();
        if inspected.len() != count {
            let expected = format!("{count}, one an image");
            return Err(Error::invalid("decisions of a report", inspected.len(), expected));
        }
        let laps = super::laps::Laps::new(progress);
        laps.begin(Stage::Pictures, count as u64);
        let filter = self.backbone().filter();
        let rank = ranks(inspection.scores());
        let seen: &Inspection = inspection;
        let scale = seen.heat_scale();
        let images: Vec<ReportImage> = self.on_pool(|| {
            (0..count)
                .into_par_iter()
                .map(|at| {
                    go_on(&laps)?;
                    let mut image = report_image(seen, at, &inspected[at]);
                    if rank[at] <= PAGE_IMAGES {
                        let resize = Resize::new(image.shown, filter);
                        let picture = batch.image(seen.kept[at], &resize)?;
                        let (map, size) = seen.picture_map(at)?;
                        (image.picture, image.heat) =
                            pictures.make(first + at, &picture, &map, size, scale)?;
                    }
                    laps.advance(1);
                    Ok(image)
                })
                .collect::<Result<_>>()
        })?;
        laps.end();
        inspection.seconds.extend(laps.seconds());
        Ok(images)
    }
}

/// What is known of an image without its pixels.
fn report_image(inspection: &Inspection, at: usize, seen: &InspectedImage) -> ReportImage {
    let sample = &inspection.samples[at];
    let (score, raw_score) = (inspection.scores[at], inspection.raw_scores[at]);
    let mut image = ReportImage::new(&sample.path, inspection.name(), score, raw_score);
    image.label = sample.label;
    image.threshold = seen.threshold;
    image.file_size = inspection.file_sizes.get(at).copied().unwrap_or((1, 1));
    image.shown = ReportPictures::size_of(image.file_size);
    // Outlines as shares of the picture.
    let (width, height) = (seen.size.width as f64, seen.size.height as f64);
    let share = |[x, y]: [f64; 2]| [(x / width) as f32, (y / height) as f32];
    let outlines = seen.regions.iter().map(|region| region.polygon.iter());
    image.regions = outlines.map(|polygon| polygon.map(|&at| share(at)).collect()).collect();
    image
}
