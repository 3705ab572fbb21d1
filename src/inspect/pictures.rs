//! The pictures of a batch: heat maps, overlays, the contact sheet, and the maps as numbers.
//!
//! Maps are made from the patch scores each time they are needed, and an image is read again where its pixels are shown, so
//! that a thread holds one of each at a time.

use std::path::PathBuf;

use rayon::prelude::*;

use super::{Batch, Inspection, Inspector};
use crate::image::Resize;
use crate::progress::{Stage, go_on};
use crate::report::{
    HeatMapScale, MapWriter, SheetCell, contact_sheet, heat_map, overlay, ranks, value_range,
    wants_heat_map, write_image,
};
use crate::{Error, ImageSize, Progress, Result};

/// Images on a contact sheet, at most: those with the highest scores.
pub const SHEET_IMAGES: usize = 240;
/// Side of a small picture on the sheet.
const THUMB: usize = 112;
/// Images in a row of the sheet.
const SHEET_COLUMNS: usize = 5;

/// Which pictures are written, and where. Each is written aside and renamed when it is whole.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct PictureFiles {
    /// A heat map an image; `None` writes none. Which images get one depends on [`Self::by_each_map`].
    pub heat_maps: Option<Vec<PathBuf>>,
    /// Colours by each map's own range, and, where labels are known, of defective images only; else by the range of all
    /// maps, of all images.
    pub by_each_map: bool,
    /// The heat map over the image, with a contour.
    pub overlays: Option<Vec<PathBuf>>,
    /// The contact sheet, worst first.
    pub sheet: Option<PathBuf>,
    /// Thresholds, one an image, by which the contact sheet says OK or NG; `None` says nothing.
    pub thresholds: Option<Vec<f64>>,
    /// All maps as f32 tensor `anomaly_map` `[N, height, width]`.
    pub maps: Option<PathBuf>,
}

impl PictureFiles {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.heat_maps.is_none()
            && self.overlays.is_none()
            && self.sheet.is_none()
            && self.maps.is_none()
    }
}

impl Inspector {
    /// Writes pictures of an inspection of a batch.
    ///
    /// # Errors
    /// Another number of paths than images; an image that cannot be read any more; a file that cannot be written; an
    /// interruption.
    pub fn write_pictures(
        &self,
        batch: &Batch,
        inspection: &mut Inspection,
        files: &PictureFiles,
        progress: &dyn Progress,
    ) -> Result<()> {
        let count = inspection.len();
        for paths in [&files.heat_maps, &files.overlays].into_iter().flatten() {
            if paths.len() != count {
                let expected = format!("{count}, one an image");
                return Err(Error::invalid("paths of pictures", paths.len(), expected));
            }
        }
        if let Some(thresholds) = &files.thresholds
            && thresholds.len() != count
        {
            let expected = format!("{count}, one an image");
            return Err(Error::invalid("thresholds of pictures", thresholds.len(), expected));
        }
        let laps = super::laps::Laps::new(progress);
        let resize = self.resize(inspection);
        laps.begin(Stage::Pictures, count as u64);
        self.on_pool(|| write(batch, inspection, files, &resize, &laps))?;
        laps.end();
        inspection.seconds.extend(laps.seconds());
        Ok(())
    }
}

fn write(
    batch: &Batch,
    inspection: &Inspection,
    files: &PictureFiles,
    resize: &Resize,
    progress: &dyn Progress,
) -> Result<()> {
    let size = inspection.map_size();
    let range = common_range(inspection)?;
    let scale = if files.by_each_map { HeatMapScale::Single } else { HeatMapScale::Whole(range) };
    let rank = ranks(inspection.scores());
    let one = |at: usize| -> Result<Option<SheetCell>> {
        go_on(progress)?;
        let mut map = vec![0f32; size.pixels()];
        inspection.map(at, size, &mut map)?;
        // Where patches are left out, their zeros are no part of a map's own range.
        let (low, high) =
            if files.by_each_map { range_of(inspection, at, size, &map)? } else { range };
        let sample = &inspection.samples()[at];
        if let Some(heat_maps) = &files.heat_maps
            && wants_heat_map(scale, sample.label, &sample.kind)
        {
            write_image(&heat_maps[at], &heat_map(&map, size, HeatMapScale::Whole((low, high)))?)?;
        }
        let on_sheet = files.sheet.is_some() && rank[at] <= SHEET_IMAGES;
        let mut cell = None;
        if on_sheet || files.overlays.is_some() {
            let image = batch.image(inspection.kept()[at], resize)?;
            if let Some(overlays) = &files.overlays {
                // The contour is where the colours pass the middle of their scale.
                let middle = low + (high - low) / 2.0;
                let picture = overlay(&image, &map, size, (low, high), Some(middle))?;
                write_image(&overlays[at], &picture)?;
            }
            if on_sheet {
                let name = sample.path.file_name().unwrap_or_default().to_string_lossy();
                let name = if sample.kind.is_empty() {
                    name.into_owned()
                } else {
                    format!("{}/{name}", sample.kind)
                };
                let score = inspection.scores()[at];
                let made = SheetCell::new(&image, &map, size, THUMB, name, sample.label, score)?;
                let raw = f64::from(inspection.raw_scores()[at]);
                let decision = files.thresholds.as_ref().map(|thresholds| raw > thresholds[at]);
                cell = Some(made.with_decision(decision));
            }
        }
        progress.advance(1);
        Ok(cell)
    };
    let cells: Vec<Option<SheetCell>> =
        (0..inspection.len()).into_par_iter().map(one).collect::<Result<_>>()?;
    let cells: Vec<SheetCell> = cells.into_iter().flatten().collect();
    if let Some(sheet) = &files.sheet
        && !cells.is_empty()
    {
        write_image(sheet, &contact_sheet(&cells, SHEET_COLUMNS, range)?)?;
    }
    if let Some(maps) = &files.maps {
        write_maps(inspection, maps, progress)?;
    }
    Ok(())
}

/// The smallest and largest value of a map, but for pixels that are not looked at.
fn range_of(
    inspection: &Inspection,
    at: usize,
    size: ImageSize,
    map: &[f32],
) -> Result<(f32, f32)> {
    let inside = inspection.inside(at, size)?;
    if inside.is_empty() {
        return Ok(value_range(map));
    }
    let kept: Vec<f32> =
        map.iter().zip(inside).filter(|(_, inside)| *inside).map(|(&value, _)| value).collect();
    Ok(value_range(&kept))
}

/// The smallest and largest value of all maps, but for pixels that are not looked at.
pub(super) fn common_range(inspection: &Inspection) -> Result<(f32, f32)> {
    let size = inspection.map_size();
    (0..inspection.len())
        .into_par_iter()
        .map(|at| {
            let mut map = vec![0f32; size.pixels()];
            inspection.map(at, size, &mut map)?;
            range_of(inspection, at, size, &map)
        })
        .try_reduce(
            || (f32::INFINITY, f32::NEG_INFINITY),
            |one, other| Ok((one.0.min(other.0), one.1.max(other.1))),
        )
}

fn write_maps(
    inspection: &Inspection,
    path: &std::path::Path,
    progress: &dyn Progress,
) -> Result<()> {
    let size = inspection.map_size();
    let images: Vec<String> =
        inspection.samples().iter().map(|sample| sample.path.display().to_string()).collect();
    let metadata = [
        ("class", inspection.name().to_string()),
        ("images", serde_json::json!(images).to_string()),
    ];
    let mut writer = MapWriter::create(path, inspection.len(), size, &metadata)?;
    let mut map = vec![0f32; size.pixels()];
    for at in 0..inspection.len() {
        go_on(progress)?;
        inspection.map(at, size, &mut map)?;
        writer.push(&map)?;
    }
    writer.finish()
}
