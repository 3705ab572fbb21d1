//! What the tests of the program share: the program, small data sets made on the spot, and looks at results.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use musc::image::RgbImage;
use musc::report::write_image;

/// Tiny random DINOv2 weights: 4 blocks, width 128, patch 14, native size 56.
pub const WEIGHTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/dinov2_tiny_weights.safetensors");
/// Options that make a run with these weights.
pub const TINY: [&str; 6] = ["--weights", WEIGHTS, "--img_resize", "56", "--feature_layers", "1,3"];

/// The program, in a working folder of its own, with no weights but those that a test brings and no card: what the
/// tests expect holds for the CPU, and on the simulator where they ask for it.
pub fn musc(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("musc-run").expect("the program is built");
    command
        .current_dir(folder)
        .env("HF_HUB_CACHE", folder.join("no-cache"))
        .env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// What a finished command said on stderr.
pub fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

/// What it said on stdout.
pub fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

/// A woven pattern with some variation by `seed`, and a bright square when defective.
pub fn picture(path: &Path, seed: usize, defective: bool) {
    let (width, height) = (60, 52);
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let weave = 90 + 40 * ((x / 4 + y / 4) % 2) + (x * 7 + y * 13 + seed * 29) % 11;
            let hit = defective && (20..36).contains(&x) && (16..32).contains(&y);
            let value = if hit { 250 } else { weave };
            data.extend([value as u8, (value / 2) as u8, 60]);
        }
    }
    write_image(path, &RgbImage { width, height, data }).expect("write picture");
}

/// The mask of [`picture`]'s square, at `width` x `height`.
pub fn mask(path: &Path, width: usize, height: usize) {
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let hit = (20..36).contains(&x) && (16..32).contains(&y);
            data.extend([if hit { 255u8 } else { 0 }; 3]);
        }
    }
    write_image(path, &RgbImage { width, height, data }).expect("write mask");
}

/// `count` pictures `000.png`, … in a folder.
pub fn pictures(folder: &Path, count: usize, defective: bool) {
    for at in 0..count {
        picture(
            &folder.join(format!("{at:03}.png")),
            at + if defective { 100 } else { 0 },
            defective,
        );
    }
}

/// A data set in MVTec AD's layout: each class has 7 good and 4 broken images.
pub fn mvtec(root: &Path, classes: &[&str]) {
    for class in classes {
        pictures(&root.join(class).join("test/good"), 7, false);
        pictures(&root.join(class).join("test/broken"), 4, true);
        for at in 0..4 {
            mask(&root.join(class).join(format!("ground_truth/broken/{at:03}_mask.png")), 60, 52);
        }
    }
}

/// All files below a folder, relative, sorted; `None` for the content of those that no test compares.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(here) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&here) else { continue };
        for entry in entries {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => left.push(path),
                false => {
                    found.push(path.strip_prefix(folder).expect("below").display().to_string())
                }
            }
        }
    }
    found.sort();
    found
}

/// The JSON in a file.
pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).expect("read")).expect("json")
}

/// The f32 tensors of a file, by name, with their shapes.
pub fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).expect("read");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    file.tensors()
        .into_iter()
        .filter(|(_, view)| view.dtype() == safetensors::Dtype::F32)
        .map(|(name, view)| {
            let values =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            (name, (view.shape().to_vec(), values.collect()))
        })
        .collect()
}

/// Writes f32 tensors.
pub fn write_tensors(path: &Path, tensors: &[(&str, &[usize], &[f32])]) {
    let listed: Vec<_> = tensors
        .iter()
        .map(|(name, shape, data)| musc::tensor_file::Tensor::f32(name, shape, data))
        .collect();
    musc::tensor_file::write_tensors(path, &listed, &[]).expect("write tensors");
}

/// A cell of a workbook.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Empty,
    Text(String),
    Number(f64),
}

/// The name of a workbook's first sheet and its cells, row by row from A1, all rows of one length.
pub fn sheet_cells(path: &Path) -> (String, Vec<Vec<Cell>>) {
    let file = std::fs::File::open(path).expect("open");
    let mut archive = zip::ZipArchive::new(file).expect("a zip archive");
    let mut part = |name: &str| {
        let mut text = String::new();
        archive.by_name(name).expect(name).read_to_string(&mut text).expect("text");
        text
    };
    let (book, strings, sheet) =
        (part("xl/workbook.xml"), part("xl/sharedStrings.xml"), part("xl/worksheets/sheet1.xml"));
    let between = |text: &str, from: &str, to: &str| -> Option<String> {
        let (_, rest) = text.split_once(from)?;
        Some(rest.split_once(to)?.0.to_owned())
    };
    let strings: Vec<String> = strings
        .split("<si>")
        .skip(1)
        .map(|item| between(item, "<t>", "</t>").expect("plain text"))
        .collect();
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for text in sheet.split("<c ").skip(1) {
        let place = between(text, "r=\"", "\"").expect("a place");
        let column = usize::from(place.as_bytes()[0] - b'A');
        let row: usize = place[1..].parse().expect("a row");
        let value = between(text, "<v>", "</v>").expect("a value");
        let head = text.split_once('>').expect("a tag").0;
        let cell = if head.contains("t=\"s\"") {
            Cell::Text(strings[value.parse::<usize>().expect("an index")].clone())
        } else {
            Cell::Number(value.parse().expect("a number"))
        };
        rows.resize_with(rows.len().max(row), Vec::new);
        let cells = &mut rows[row - 1];
        cells.resize(cells.len().max(column + 1), Cell::Empty);
        cells[column] = cell;
    }
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    rows.iter_mut().for_each(|row| row.resize(width, Cell::Empty));
    (between(&book, "<sheet name=\"", "\"").expect("a sheet"), rows)
}
