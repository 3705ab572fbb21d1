//! Regions for other programs: COCO for whatever reads it (CVAT, pycocotools), tasks for Label Studio, samples for FiftyOne.
//!
//! Polygons are those of [`InspectedImage::regions`], all images are listed, also those without a region. `docs/exports.md` says
//! how each is read in.

mod coco;
mod fiftyone;
mod label_studio;
mod names;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use self::coco::coco;
pub use self::fiftyone::{FiftyOneFolder, fiftyone};
pub use self::label_studio::{LABEL_STUDIO_CONFIG, label_studio};
pub use self::names::ImageNames;
use super::inspected::InspectedImage;
use super::run_json::write_compact_json;
use crate::atomic::write_file;
use crate::{Error, Result};

/// What regions are called where a program asks for a name.
pub(super) const LABEL: &str = "defect";

/// A program or format that regions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExportFormat {
    /// `coco.json`, with polygons.
    Coco,
    /// `labelstudio.json`, tasks with predictions, and `labelstudio.xml`, the labelling configuration for them.
    LabelStudio,
    /// `fiftyone/`, a data set of the type `FiftyOneDataset`.
    FiftyOne,
}

impl ExportFormat {
    /// All of them.
    pub const ALL: [ExportFormat; 3] =
        [ExportFormat::Coco, ExportFormat::LabelStudio, ExportFormat::FiftyOne];

    /// Its name: `coco`, `labelstudio` or `fiftyone`.
    pub const fn name(self) -> &'static str {
        match self {
            ExportFormat::Coco => "coco",
            ExportFormat::LabelStudio => "labelstudio",
            ExportFormat::FiftyOne => "fiftyone",
        }
    }

    /// The files that it is written to, within the folder of exports; the heat maps of FiftyOne come beside them.
    pub const fn files(self) -> &'static [&'static str] {
        match self {
            ExportFormat::Coco => &["coco.json"],
            ExportFormat::LabelStudio => &["labelstudio.json", "labelstudio.xml"],
            ExportFormat::FiftyOne => &["fiftyone/metadata.json", "fiftyone/samples.json"],
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for ExportFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|format| format.name() == text);
        known.ok_or_else(|| Error::invalid("export", text, "coco, labelstudio or fiftyone"))
    }
}

/// Writes an export into a folder, each file whole or not at all; the paths of its files.
///
/// `model` says what made the regions, such as a program with its version and a backbone. `heat_maps` are grey pictures of the
/// maps, one an image, for FiftyOne to show; it does without. Where they lie in `fiftyone/fields/anomaly_map` of the folder, they
/// are found wherever the folder is taken.
///
/// # Errors
/// [`Error::Invalid`] for another number of heat maps than images; [`Error::Io`] with the path.
pub fn write_export(
    folder: &Path,
    format: ExportFormat,
    images: &[InspectedImage],
    model: &str,
    heat_maps: Option<&[PathBuf]>,
) -> Result<Vec<PathBuf>> {
    let names = ImageNames::of(images);
    let paths: Vec<PathBuf> = format.files().iter().map(|file| folder.join(file)).collect();
    match format {
        ExportFormat::Coco => write_compact_json(&paths[0], &coco(images, &names, model))?,
        ExportFormat::LabelStudio => {
            write_compact_json(&paths[0], &label_studio(images, &names, model))?;
            write_file(&paths[1], |writer| writer.write_all(LABEL_STUDIO_CONFIG.as_bytes()))?;
        }
        ExportFormat::FiftyOne => {
            let inside = folder.join("fiftyone");
            let relative = |map: &PathBuf| match map.strip_prefix(&inside) {
                Ok(inside) => inside.to_path_buf(),
                Err(_) => std::path::absolute(map).unwrap_or_else(|_| map.clone()),
            };
            let maps = heat_maps.map(|maps| maps.iter().map(relative).collect::<Vec<PathBuf>>());
            let made = fiftyone(images, &names, model, maps.as_deref())?;
            write_compact_json(&paths[0], &made.metadata)?;
            write_compact_json(&paths[1], &made.samples)?;
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::super::inspected::samples::image;
    use super::*;

    #[test]
    fn formats_read_as_they_are_written() {
        for format in ExportFormat::ALL {
            assert_eq!(format.to_string().parse::<ExportFormat>().unwrap(), format);
        }
        let said = "cvat".parse::<ExportFormat>().unwrap_err().to_string();
        assert_eq!(said, "export: found cvat, expected coco, labelstudio or fiftyone");
    }

    #[test]
    fn files_are_where_they_are_said_to_be() {
        let folder = tempfile::tempdir().expect("folder");
        let images = [image("/data/a.png", "a", 0.9), image("/data/b.png", "a", 0.25)];
        for format in ExportFormat::ALL {
            let written = write_export(folder.path(), format, &images, "musc", None).unwrap();
            assert_eq!(written.len(), format.files().len());
            assert!(written.iter().all(|path| path.is_file()), "{written:?}");
        }
        let fiftyone = folder.path().join("fiftyone");
        let maps = [fiftyone.join("fields/anomaly_map/a.png"), PathBuf::from("/maps/b.png")];
        write_export(folder.path(), ExportFormat::FiftyOne, &images, "musc", Some(&maps)).unwrap();
        let text = std::fs::read_to_string(fiftyone.join("samples.json")).expect("read");
        for path in ["\"fields/anomaly_map/a.png\"", "\"/maps/b.png\""] {
            assert!(text.contains(path), "{text}");
        }
        let few = [PathBuf::from("/maps/a.png")];
        let said = write_export(folder.path(), ExportFormat::FiftyOne, &images, "musc", Some(&few));
        assert!(said.unwrap_err().to_string().contains("heat maps: found 1, expected 2"));
    }
}
