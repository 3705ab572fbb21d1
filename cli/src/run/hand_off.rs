//! What other programs take over: the regions of a run, for `defects.json` and the exports.

use std::path::{Path, PathBuf};

use musc::inspect::Inspection;
use musc::report::InspectedImage;
use musc::report::export::{ExportFormat, write_export};
use musc::{Progress, Result};

use super::layout;

/// All images of a run with their regions.
#[derive(Default)]
pub struct HandOff {
    /// In the order of `scores.csv`.
    pub images: Vec<InspectedImage>,
    /// Their grey maps, where an export shows them.
    grey_maps: Vec<PathBuf>,
}

impl HandOff {
    /// Takes in the images of an inspection, and writes their grey maps where an export wants them.
    pub fn add(
        &mut self,
        exports: &[ExportFormat],
        inspection: &Inspection,
        inspected: Vec<InspectedImage>,
        grey_maps: &[PathBuf],
        progress: &dyn Progress,
    ) -> Result<()> {
        self.images.extend(inspected);
        if exports.contains(&ExportFormat::FiftyOne) {
            inspection.write_grey_maps(grey_maps, progress)?;
            self.grey_maps.extend_from_slice(grey_maps);
        }
        Ok(())
    }

    /// Writes the exports into a folder; what was written, each with its name.
    pub fn write(
        &self,
        exports: &[ExportFormat],
        folder: &Path,
        model: &str,
    ) -> Result<Vec<(String, PathBuf)>> {
        let mut files = Vec::new();
        for &format in exports {
            let maps = (format == ExportFormat::FiftyOne).then_some(self.grey_maps.as_slice());
            let written = write_export(folder, format, &self.images, model, maps)?;
            files.extend(written.into_iter().map(|path| (format.to_string(), path)));
        }
        Ok(files)
    }
}

/// The files of the exports that are not asked for: those of an earlier run tell of other scores.
pub fn others(exports: &[ExportFormat]) -> impl Iterator<Item = PathBuf> {
    let other = ExportFormat::ALL.iter().filter(|format| !exports.contains(format));
    other.flat_map(|format| planned(std::slice::from_ref(format)))
}

/// The files of exports, relative to the folder of the run.
pub fn planned(exports: &[ExportFormat]) -> impl Iterator<Item = PathBuf> {
    let files = exports.iter().flat_map(|format| format.files());
    files.map(|file| Path::new(layout::EXPORT).join(file))
}
