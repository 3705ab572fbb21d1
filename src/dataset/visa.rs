//! VisA (Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation",
//! ECCV 2022): the one-class split, from the data set's own table or from the `meta.json` that the authors' script
//! makes of it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{Category, ClassSelection, DatasetKind, Mask, Sample, first_few, selected_names};
use crate::{Error, Result};

/// The classes, sorted by name.
pub(super) const CLASSES: [&str; 12] = [
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
];

/// One test image as a table names it: paths relative to the root.
struct Row {
    image: String,
    mask: String,
    defective: bool,
}

/// Test images by class, in the table's order.
type Rows = BTreeMap<String, Vec<Row>>;

pub(super) fn load(root: &Path, classes: &ClassSelection) -> Result<Vec<Category>> {
    let meta = root.join("meta.json");
    let table = root.join("split_csv").join("1cls.csv");
    // meta.json first: where a user has made or edited one, the authors' program would read it.
    let (source, mut rows) = if meta.is_file() {
        let rows = read_meta(&meta)?;
        (meta, rows)
    } else if table.is_file() {
        let rows = read_table(&table)?;
        (table, rows)
    } else {
        return Err(Error::Dataset {
            path: root.to_path_buf(),
            reason: String::from("neither meta.json nor split_csv/1cls.csv is there"),
        });
    };
    let names = selected_names(DatasetKind::Visa, classes, |name| rows.contains_key(name))?;
    let mut categories = Vec::with_capacity(names.len());
    for name in &names {
        let samples = rows
            .remove(name)
            .unwrap_or_default()
            .into_iter()
            .map(|row| sample(root, &source, name, row))
            .collect::<Result<Vec<Sample>>>()?;
        if samples.is_empty() {
            return Err(Error::Dataset {
                path: source,
                reason: format!("no test image of class {name}"),
            });
        }
        categories.push(DatasetKind::Visa.category(name, samples, Vec::new()));
    }
    check_files(root, &source, &categories)?;
    Ok(categories)
}

fn sample(root: &Path, source: &Path, class: &str, row: Row) -> Result<Sample> {
    let mask = match (row.defective, row.mask.is_empty()) {
        (false, _) => Mask::Normal,
        (true, false) => Mask::File(root.join(&row.mask)),
        (true, true) => {
            return Err(Error::Dataset {
                path: source.to_path_buf(),
                reason: format!("no mask for the defective image {}", row.image),
            });
        }
    };
    let path = root.join(&row.image);
    let kind = path.parent().map(super::layout::file_name).unwrap_or_default();
    Ok(Sample::new(path, class, kind, Some(row.defective), mask))
}

/// All missing files at once, images and masks.
fn check_files(root: &Path, source: &Path, categories: &[Category]) -> Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for sample in categories.iter().flat_map(|category| &category.samples) {
        if !sample.path.is_file() {
            missing.push(&sample.path);
        }
        if let Mask::File(mask) = &sample.mask
            && !mask.is_file()
        {
            missing.push(mask);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Dataset {
        path: root.to_path_buf(),
        reason: format!(
            "{} files that {} names are missing ({})",
            missing.len(),
            super::layout::file_name(source),
            first_few(missing.iter().map(|path| path.display()))
        ),
    })
}

#[derive(Deserialize)]
struct TableRow {
    object: String,
    split: String,
    label: String,
    image: String,
    #[serde(default)]
    mask: Option<String>,
}

fn read_table(path: &Path) -> Result<Rows> {
    let refuse = |reason: String| Error::Dataset { path: path.to_path_buf(), reason };
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
    let headers = reader.headers().map_err(|error| refuse(error.to_string()))?.clone();
    for column in ["object", "split", "label", "image", "mask"] {
        if !headers.iter().any(|header| header == column) {
            return Err(refuse(format!(
                "no column `{column}`, found `{}`, expected object,split,label,image,mask",
                headers.iter().collect::<Vec<&str>>().join(",")
            )));
        }
    }
    let mut rows = Rows::new();
    for (index, row) in reader.deserialize().enumerate() {
        let line = index + 2;
        let row: TableRow = row.map_err(|error| refuse(format!("line {line}: {error}")))?;
        if row.split != "test" {
            continue;
        }
        let defective = match row.label.as_str() {
            "normal" => false,
            "anomaly" => true,
            other => {
                return Err(refuse(format!(
                    "line {line}: label `{other}`, expected normal or anomaly"
                )));
            }
        };
        let mask = row.mask.unwrap_or_default();
        rows.entry(row.object).or_default().push(Row { image: row.image, mask, defective });
    }
    Ok(rows)
}

#[derive(Deserialize)]
struct Meta {
    test: BTreeMap<String, Vec<MetaRow>>,
}

#[derive(Deserialize)]
struct MetaRow {
    img_path: String,
    #[serde(default)]
    mask_path: Option<String>,
    #[serde(default)]
    anomaly: Option<i64>,
}

fn read_meta(path: &Path) -> Result<Rows> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|error| Error::Dataset {
        path: path.to_path_buf(),
        reason: format!("not the expected test split by class: {error}"),
    })?;
    let row = |row: MetaRow| Row {
        // Without the field, the folder's name tells, as in the authors' program.
        defective: row.anomaly.map_or(!row.img_path.contains("Normal"), |value| value != 0),
        image: row.img_path,
        mask: row.mask_path.unwrap_or_default(),
    };
    Ok(meta
        .test
        .into_iter()
        .map(|(class, rows)| (class, rows.into_iter().map(row).collect()))
        .collect())
}

#[cfg(test)]
#[path = "visa_tests.rs"]
mod tests;
