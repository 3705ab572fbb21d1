//! Where each file of a run goes.
//!
//! A data set has the authors' tree: `OUTPUT/DATASET/BACKBONE/imagesizeS/CLASS/TYPE/IMAGE` for heat maps and
//! `results.xlsx` beside the classes. A plain folder has `OUTPUT/folder/NAME/maps/…`, the demo `OUTPUT/demo/maps/…`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use musc::Result;
use musc::dataset::Sample;
use musc::inspect::{Batch, InputSize, PictureFiles};
use musc::report::export::ExportFormat;
use musc::report::{HeatMapScale, heat_map_path, wants_heat_map};

use super::config::{Config, Source};

/// Settings, versions, timings.
pub const RUN: &str = "run.json";
/// A line an image.
pub const SCORES: &str = "scores.csv";
/// The regions of NG images.
pub const DEFECTS: &str = "defects.json";
/// The folder of what is written for other programs.
pub const EXPORT: &str = "export";
/// The figures.
pub const METRICS: &str = "metrics.json";
/// The figures as the authors write them.
pub const RESULTS: &str = "results.xlsx";
/// The page to look through the images.
pub const REPORT: &str = "report.html";
/// The plots of a category.
const PLOTS: [&str; 3] = ["scores.svg", "roc.svg", "pr.svg"];
/// The contact sheet of a category.
const SHEET: &str = "sheet.png";
/// The anomaly maps of a category.
const MAPS: &str = "anomaly_maps.safetensors";

/// The folder of a run.
pub fn root(config: &Config, backbone: &str) -> PathBuf {
    let output = &config.output.dir;
    match &config.source {
        Source::Dataset { kind, .. } => {
            let size = format!("imagesize{}", size_name(config.input));
            output.join(kind.name()).join(backbone).join(size)
        }
        Source::Paths { paths, .. } => output.join("folder").join(folder_name(paths)),
        Source::Demo => output.join("demo"),
    }
}

/// The name that a plain folder's results go by: the folder's own, or `images` for anything else.
fn folder_name(paths: &[String]) -> String {
    let name =
        match paths {
            [one] => Path::new(one).canonicalize().ok().filter(|whole| whole.is_dir()).and_then(
                |whole| whole.file_name().map(|name| name.to_string_lossy().into_owned()),
            ),
            _ => None,
        };
    name.unwrap_or_else(|| "images".into())
}

/// The files of one category.
pub struct CategoryFiles {
    /// The heat map of each sample, where it gets one.
    pub heat_maps: Vec<PathBuf>,
    /// The overlay of each sample.
    pub overlays: Vec<PathBuf>,
    /// The grey map of each sample, for an export that shows it.
    pub grey_maps: Vec<PathBuf>,
    /// The contact sheet.
    pub sheet: PathBuf,
    /// The anomaly maps as numbers.
    pub maps: PathBuf,
    /// The histogram of the raw scores.
    pub scores: PathBuf,
    /// The ROC curve.
    pub roc: PathBuf,
    /// The precision-recall curve.
    pub pr: PathBuf,
}

impl CategoryFiles {
    /// Names the files of these samples, which may be fewer than the category has.
    pub fn new(root: &Path, config: &Config, batch: &Batch, samples: &[Sample]) -> Result<Self> {
        let of_dataset = matches!(config.source, Source::Dataset { .. });
        let (folder, heat, overlay) = if of_dataset {
            let folder = root.join(batch.name());
            (folder.clone(), folder, root.join("overlays").join(batch.name()))
        } else {
            (root.to_path_buf(), root.join("maps"), root.join("overlays"))
        };
        let [scores, roc, pr] = PLOTS.map(|name| folder.join(name));
        Ok(CategoryFiles {
            scores,
            roc,
            pr,
            heat_maps: distinct(&heat, samples)?,
            overlays: distinct(&overlay, samples)?,
            grey_maps: grey_maps(root, of_dataset, batch, samples)?,
            sheet: folder.join(SHEET),
            maps: folder.join(MAPS),
        })
    }

    /// All files that the settings ask for, of the samples this category came with.
    pub fn planned(&self, config: &Config, samples: &[Sample]) -> Vec<PathBuf> {
        let mut planned = Vec::new();
        // Which range a common scale has does not matter for who is drawn.
        let scale = if config.output.by_each_map {
            HeatMapScale::Single
        } else {
            HeatMapScale::Whole((0.0, 0.0))
        };
        for (at, sample) in samples.iter().enumerate() {
            if config.output.vis && wants_heat_map(scale, sample.label, &sample.kind) {
                planned.push(self.heat_maps[at].clone());
            }
            if config.output.overlays {
                planned.push(self.overlays[at].clone());
            }
            if config.output.export.contains(&ExportFormat::FiftyOne) {
                planned.push(self.grey_maps[at].clone());
            }
        }
        if config.output.vis {
            planned.push(self.sheet.clone());
        }
        if config.output.save_maps {
            planned.push(self.maps.clone());
        }
        if config.output.report {
            planned.push(self.scores.clone());
            if [true, false].iter().all(|is| samples.iter().any(|sample| sample.label == Some(*is)))
            {
                planned.extend([self.roc.clone(), self.pr.clone()]);
            }
        }
        planned
    }

    /// What of it the settings ask for.
    pub fn pictures(&self, config: &Config) -> PictureFiles {
        let output = &config.output;
        let mut files = PictureFiles::default();
        files.by_each_map = output.by_each_map;
        files.heat_maps = output.vis.then(|| self.heat_maps.clone());
        files.overlays = output.overlays.then(|| self.overlays.clone());
        files.sheet = output.vis.then(|| self.sheet.clone());
        files.maps = output.save_maps.then(|| self.maps.clone());
        files
    }
}

/// A size in a folder's name: the side of a square, as the authors have it, or both.
fn size_name(input: InputSize) -> String {
    match input {
        InputSize::Exactly(size) => {
            size.side().map_or_else(|| size.to_string(), |side| side.to_string())
        }
        InputSize::KeepAspect { longest, .. } => format!("{longest}aspect"),
        _ => "other".into(),
    }
}

/// A PNG a sample, whatever the sample's format is.
fn grey_maps(
    root: &Path,
    of_dataset: bool,
    batch: &Batch,
    samples: &[Sample],
) -> Result<Vec<PathBuf>> {
    let mut folder = root.join(EXPORT).join("fiftyone/fields/anomaly_map");
    if of_dataset {
        folder.push(batch.name());
    }
    let mut paths = distinct(&folder, samples)?;
    for path in &mut paths {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".png");
        path.set_file_name(name);
    }
    Ok(paths)
}

/// A path a sample. Images of one name in one type (from several inputs) are told apart by a number.
fn distinct(folder: &Path, samples: &[Sample]) -> Result<Vec<PathBuf>> {
    let mut taken = HashSet::new();
    let mut paths = Vec::with_capacity(samples.len());
    for sample in samples {
        let plain = heat_map_path(folder, "", &sample.kind, &sample.path)?;
        let mut path = plain.clone();
        let mut number = 2;
        while !taken.insert(path.clone()) {
            let name = plain.file_name().unwrap_or_default().to_string_lossy();
            path = plain.with_file_name(format!("{number}-{name}"));
            number += 1;
        }
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use musc::dataset::Mask;

    fn sample(path: &str, kind: &str) -> Sample {
        Sample::new(path, "c", kind, None, Mask::Unknown)
    }

    #[test]
    fn equal_names_are_told_apart() {
        let samples = [
            sample("a/x.png", ""),
            sample("b/x.png", ""),
            sample("c/x.png", "k"),
            sample("d/x.png", ""),
        ];
        let paths = distinct(Path::new("maps"), &samples).unwrap();
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(names, ["maps/x.png", "maps/2-x.png", "maps/k/x.png", "maps/3-x.png"]);
    }
}
