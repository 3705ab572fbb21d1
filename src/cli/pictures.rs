//! The pictures of a category: heat maps, overlays, the contact sheet, and the maps as numbers.
//!
//! Maps are made from the patch scores each time they are needed, so that a thread holds one of S×S at a time.

use rayon::prelude::*;

use super::category::Scored;
use super::config::Config;
use super::interrupt;
use super::layout::{CategoryFiles, scale};
use super::progress::Voice;
use crate::Result;
use crate::backend::Monitor;
use crate::dataset::Category;
use crate::report::{
    HeatMapScale, MapWriter, SheetCell, contact_sheet, heat_map, overlay, ranks, value_range,
    wants_heat_map, write_image,
};

/// Images on a contact sheet, at most: those with the highest scores.
pub const SHEET_IMAGES: usize = 240;
/// Side of a small picture on the sheet.
const THUMB: usize = 112;
/// Images in a row of the sheet.
const SHEET_COLUMNS: usize = 5;

/// Writes what the settings ask for; returns the seconds it took.
pub fn write(
    config: &Config,
    category: &Category,
    scored: &Scored,
    files: &CategoryFiles,
    voice: Voice,
) -> Result<f64> {
    let size = config.backbone.image_size;
    let count = scored.samples.len();
    let stage = voice.stage("pictures", count as u64, "images");
    let range = common_range(scored, size)?;
    let scale = scale(config, range);
    let rank = ranks(&scored.scores);
    let cells: Vec<Option<SheetCell>> = (0..count)
        .into_par_iter()
        .map(|at| {
            interrupt::check()?;
            let mut map = vec![0f32; size * size];
            scored.map(at, size, &mut map)?;
            let sample = &scored.samples[at];
            if config.output.vis && wants_heat_map(scale, sample.label, &sample.kind) {
                write_image(&files.heat_maps[at], &heat_map(&map, size, scale)?)?;
            }
            if config.output.overlays {
                let (low, high) = match scale {
                    HeatMapScale::Single => value_range(&map),
                    HeatMapScale::Whole(range) => range,
                };
                // The contour is where the colours pass the middle of their scale.
                let middle = low + (high - low) / 2.0;
                let picture = overlay(&scored.images[at], &map, size, (low, high), Some(middle))?;
                write_image(&files.overlays[at], &picture)?;
            }
            stage.advance(1);
            if !config.output.vis || rank[at] > SHEET_IMAGES {
                return Ok(None);
            }
            let name = sample.path.file_name().unwrap_or_default().to_string_lossy();
            let name = if sample.kind.is_empty() {
                name.into_owned()
            } else {
                format!("{}/{name}", sample.kind)
            };
            let image = &scored.images[at];
            SheetCell::new(image, &map, size, THUMB, name, sample.label, scored.scores[at])
                .map(Some)
        })
        .collect::<Result<_>>()?;
    let cells: Vec<SheetCell> = cells.into_iter().flatten().collect();
    if !cells.is_empty() {
        write_image(&files.sheet, &contact_sheet(&cells, SHEET_COLUMNS, range)?)?;
    }
    if config.output.save_maps {
        write_maps(category, scored, files, size)?;
    }
    Ok(stage.finish())
}

/// The smallest and largest value of all maps.
fn common_range(scored: &Scored, size: usize) -> Result<(f32, f32)> {
    (0..scored.samples.len())
        .into_par_iter()
        .map(|at| {
            let mut map = vec![0f32; size * size];
            scored.map(at, size, &mut map)?;
            Ok(value_range(&map))
        })
        .try_reduce(
            || (f32::INFINITY, f32::NEG_INFINITY),
            |one, other| Ok((one.0.min(other.0), one.1.max(other.1))),
        )
}

fn write_maps(
    category: &Category,
    scored: &Scored,
    files: &CategoryFiles,
    size: usize,
) -> Result<()> {
    let images: Vec<String> =
        scored.samples.iter().map(|sample| sample.path.display().to_string()).collect();
    let names = serde_json::json!(images).to_string();
    let metadata = [("class", category.name.clone()), ("images", names)];
    let mut writer = MapWriter::create(&files.maps, scored.samples.len(), size, &metadata)?;
    let mut map = vec![0f32; size * size];
    for at in 0..scored.samples.len() {
        interrupt::check()?;
        scored.map(at, size, &mut map)?;
        writer.push(&map)?;
    }
    writer.finish()
}
