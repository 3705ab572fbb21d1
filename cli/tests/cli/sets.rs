//! Small trees in the layouts of the three data sets, against what the authors' program made of the same files.
//!
//! `tests/data/sets` is the work of `tools/make_fixtures.py`; `expected/` in it holds the heat maps of the authors' program
//! and, in `results.json`, the names of all its files and the cells of its `results.xlsx`, from a run with the built-in
//! weights in f32 on a CPU (DINOv2-S/14, 112 px). Theirs reads the VisA tree through the `meta.json` that their script
//! makes of the table here.

use std::path::{Path, PathBuf};

use musc::image::decode;
use serde_json::{Value, json};

use crate::support::{Cell, TINY, data, files, json, musc, mvtec, sheet_cells, stdout};

const TREE: &str = "dinov2_vits14/imagesize112";
/// How far each figure of a row may be off, in percent. Patch scores differ by up to 2e-6 between the two programs, and
/// only by that can the order of two pixels change: at worst as if all defective pixels moved by 4e-6 against the normal ones.
/// The scores' density is below 20 a unit, so that at most 8e-5 of the pairs (AUROC) or of the pixels above a threshold
/// (F1, AP, AUPRO, which weigh a pixel up to twice) change sides. Image scores are far apart: their figures are equal.
const FIGURES: [f64; 7] = [8e-3, 1.6e-2, 1.6e-2, 1.6e-2, 1e-9, 1e-9, 1e-9];

/// Runs a data set with these options beside the usual ones; the folder of its results.
fn run(folder: &Path, set: &str, classes: &[&str], options: &[&str]) -> PathBuf {
    musc(folder)
        .args(["--dataset_name", set, "--class_name"])
        .args(classes)
        .arg("--data_path")
        .arg(data("sets").join(set))
        .args(["--backbone_name", "dinov2_vits14", "--pretrained", "openai", "--device", "cpu"])
        .args(["--feature_layers", "2", "5", "8", "11", "--r_list", "1", "3", "5"])
        .args(["--img_resize", "112", "--batch_size", "4", "--divide_num", "1", "--quiet"])
        .args(["--output_dir", "./output", "--vis", "True", "--save_excel", "True"])
        .args(options)
        .assert()
        .success();
    folder.join("output").join(set).join(TREE)
}

/// Compares the files, the cells and the pictures of a run with the authors'.
fn compare(set: &str, classes: &[&str], root: &Path) {
    let expected = &json(&data("sets/expected/results.json"))[set];
    let theirs: Vec<String> = serde_json::from_value(expected["files"].clone()).expect("files");
    let mut all = theirs.clone();
    all.extend(["defects.json", "metrics.json", "run.json", "scores.csv"].map(String::from));
    all.extend(classes.iter().map(|class| format!("{class}/sheet.png")));
    all.sort();
    assert_eq!(files(root), all, "{set}");

    let (sheet, cells) = sheet_cells(&root.join("results.xlsx"));
    assert_eq!(sheet, "MuSc_results");
    let rows = expected["cells"].as_array().expect("rows");
    assert_eq!(cells.len(), rows.len(), "{set}");
    let mut worst = [0.0f64; 7];
    for (cells, row) in cells.iter().zip(rows) {
        let row = row.as_array().expect("row");
        assert_eq!(cells.len(), row.len(), "{set}");
        for (column, (cell, theirs)) in cells.iter().zip(row).enumerate() {
            match (cell, theirs) {
                (Cell::Empty, Value::Null) => (),
                (Cell::Text(text), Value::String(name)) => assert_eq!(text, name),
                (Cell::Number(figure), theirs) => {
                    let off = (figure - theirs.as_f64().expect("number")).abs();
                    worst[column - 1] = worst[column - 1].max(off);
                    let bound = FIGURES[column - 1];
                    assert!(off <= bound, "{set} {:?}: {figure}, theirs {theirs}", row[0]);
                }
                other => panic!("{set}: {other:?}"),
            }
        }
    }

    let (mut pixels, mut different) = (0, 0);
    for name in theirs.iter().filter(|name| *name != "results.xlsx") {
        let ours = decode(&root.join(name)).expect("ours").image;
        let theirs = decode(&data("sets/expected").join(set).join(name)).expect("theirs").image;
        assert_eq!((ours.width, ours.height), (theirs.width, theirs.height), "{set} {name}");
        let largest = ours.data.iter().zip(&theirs.data).map(|(a, b)| a.abs_diff(*b)).max();
        // One level of the colour scale is 4 in a channel; JPEG spreads it over a block.
        let bound = if name.ends_with("JPG") { 8 } else { 4 };
        assert!(largest <= Some(bound), "{set} {name}: {largest:?}");
        let pairs = ours.data.chunks(3).zip(theirs.data.chunks(3));
        different += pairs.filter(|(a, b)| a != b).count();
        pixels += ours.width * ours.height;
    }
    println!("{set}: figures {worst:?}, {different} of {pixels} pixels differ");
    assert!(different * 50 < pixels, "{set}: {different} of {pixels} pixels differ");
}

#[test]
fn mvtec_ad_is_the_authors_to_the_letter() {
    let folder = tempfile::tempdir().expect("folder");
    let classes = ["bottle", "grid"];
    compare("mvtec_ad", &classes, &run(folder.path(), "mvtec_ad", &classes, &["--paper"]));
}

#[test]
fn btad_is_the_authors_to_the_letter() {
    let folder = tempfile::tempdir().expect("folder");
    let classes = ["01", "03"];
    compare("btad", &classes, &run(folder.path(), "btad", &classes, &["--paper"]));
}

#[test]
fn visa_is_the_authors_to_the_letter_from_a_yaml_file() {
    let folder = tempfile::tempdir().expect("folder");
    let classes = ["candle", "pcb1"];
    let yaml = format!(
        "datasets:\n  dataset_name: 'visa'  # choice ['mvtec_ad', 'visa']\n  data_path: {}\n  \
         class_name: [candle, pcb1]\n  img_resize: 112\n  divide_num: 1\nmodels:\n  \
         backbone_name: 'dinov2_vits14'\n  pretrained: 'openai'\n  batch_size: 4\n  \
         feature_layers: [2, 5, 8, 11]\n  r_list: [1, 3, 5]\ndevice: 0\ntesting:\n  \
         output_dir: 'results'\n  vis: True\n  vis_type: single_norm\n  save_excel: True\n",
        data("sets/visa").display()
    );
    std::fs::write(folder.path().join("musc.yaml"), yaml).expect("write");
    musc(folder.path()).args(["--config", "musc.yaml", "--paper"]).assert().success();
    let root = folder.path().join("results/visa").join(TREE);
    compare("visa", &classes, &root);
    let run = json(&root.join("run.json"));
    assert_eq!(run["paper"], true);
    assert_eq!(
        (&run["device"]["features"], &run["device"]["scoring"]),
        (&json!("f32"), &json!("f32"))
    );
    assert_eq!(
        run["rscin"],
        json!({ "k": { "candle": [1, 8, 9], "pcb1": [1, 8, 9] }, "similarity": "dot" })
    );
}

#[test]
fn without_paper_the_pixel_figures_stay_and_the_image_figures_are_by_cosine() {
    let folder = tempfile::tempdir().expect("folder");
    let root = run(folder.path(), "mvtec_ad", &["grid"], &["--precision", "f32"]);
    let found = json(&root.join("metrics.json"));
    let expected = &json(&data("sets/expected/results.json"))["mvtec_ad"]["cells"][2];
    assert_eq!(expected[0], "grid");
    // f32 maps: a rounding of 6e-8 moves less than the patch scores' difference does.
    for (key, column) in [("pixel_auroc", 1), ("pixel_f1max", 2), ("pixel_ap", 3)] {
        let off = found["classes"]["grid"][key].as_f64().expect(key) * 100.0
            - expected[column].as_f64().expect("number");
        assert!(off.abs() <= FIGURES[column - 1], "{key}: {off}");
    }
    // AUPRO's thresholds are rounded too, and more pixels go to the other side of one.
    let aupro = found["classes"]["grid"]["pixel_aupro"].as_f64().expect("aupro") * 100.0;
    assert!((aupro - expected[4].as_f64().expect("number")).abs() < 0.1, "{aupro}");
    let run = json(&root.join("run.json"));
    assert_eq!((&run["paper"], &run["rscin"]["similarity"]), (&json!(false), &json!("cosine")));
}

#[test]
fn all_classes_must_be_there_and_a_list_is_taken_in_its_order() {
    let folder = tempfile::tempdir().expect("folder");
    let missing = musc(folder.path())
        .args(["--dataset_name", "btad", "--class_name", "ALL", "--data_path"])
        .arg(data("sets/btad"))
        .args(["--backbone_name", "dinov2_vits14", "--img_resize", "112"])
        .assert()
        .code(2);
    let said = crate::support::stderr(&missing);
    assert!(said.contains("no folder CLASS/test for 1 of 3 classes (02)"), "{said}");

    let root = run(folder.path(), "btad", &["03", "01"], &[]);
    let (_, cells) = sheet_cells(&root.join("results.xlsx"));
    let names: Vec<&Cell> = cells.iter().map(|row| &row[0]).collect();
    let text = |text: &str| Cell::Text(text.to_owned());
    assert_eq!(names, [&Cell::Empty, &text("03"), &text("01"), &text("mean")]);
    // The mean row is the mean of the rows above it.
    let figure = |row: usize, column: usize| match cells[row][column] {
        Cell::Number(figure) => figure,
        ref other => panic!("{other:?}"),
    };
    for column in 1..8 {
        let mean = (figure(1, column) + figure(2, column)) / 2.0;
        assert!((figure(3, column) - mean).abs() < 1e-12, "{column}");
    }
}

/// Figures of a class without a defective image: left out of the mean, or 0 in it as in the authors' program.
#[test]
fn a_class_without_defects_is_left_out_or_counts_as_zero() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle", "cable"]);
    let cable = folder.path().join("data/cable");
    std::fs::remove_dir_all(cable.join("test/broken")).expect("remove");
    std::fs::remove_dir_all(cable.join("ground_truth")).expect("remove");
    let run = |options: &[&str]| {
        let run = musc(folder.path())
            .args(["--dataset_name", "mvtec_ad", "--data_path", "data", "--overwrite"])
            .args(["--class_name", "bottle", "cable", "--save_excel", "True"])
            .args(TINY)
            .args(options)
            .assert()
            .success();
        let root = folder.path().join("output/mvtec_ad/dinov2_tiny_weights/imagesize56");
        (stdout(&run), sheet_cells(&root.join("results.xlsx")).1)
    };
    let (said, cells) = run(&[]);
    assert!(said.contains("n/a"), "{said}");
    assert_eq!(cells[2][1..], vec![Cell::Text("n/a".into()); 7]);
    assert_eq!(cells[3][1..], cells[1][1..]);

    let (said, cells) = run(&["--paper"]);
    assert!(!said.contains("n/a"), "{said}");
    assert_eq!(cells[2][1..], vec![Cell::Number(0.0); 7]);
    for column in 1..8 {
        let (Cell::Number(bottle), Cell::Number(mean)) = (&cells[1][column], &cells[3][column])
        else {
            panic!("{cells:?}")
        };
        assert!((mean - bottle / 2.0).abs() < 1e-12, "{column}");
    }
}

#[test]
fn paper_reads_the_blocks_of_dino_that_the_authors_read() {
    let folder = tempfile::tempdir().expect("folder");
    crate::support::pictures(&folder.path().join("photos"), 6, false);
    let run = |layers: &str, output: &str, options: &[&str]| {
        musc(folder.path())
            .args(["photos", "--feature_layers", layers, "--img_resize", "64", "--quiet"])
            .args(["--rscin_similarity", "cosine", "--vis", "False", "--output_dir", output])
            // As --paper takes it by itself.
            .args(["--precision", "f32"])
            .arg("--weights")
            .arg(data("dino_tiny_weights.safetensors"))
            .args(options)
            .assert()
            .success();
        let root = folder.path().join(output).join("folder/photos");
        (std::fs::read(root.join("scores.csv")).expect("scores"), json(&root.join("run.json")))
    };
    let (plain, record) = run("0,2", "a", &[]);
    assert_eq!(record["backbone"]["blocks_read"], json!([0, 2]));
    let (paper, record) = run("0,2", "b", &["--paper"]);
    assert_eq!(record["backbone"]["feature_layers"], json!([0, 2]));
    assert_eq!(record["backbone"]["blocks_read"], json!([1, 3]));
    let (shifted, _) = run("1,3", "c", &[]);
    assert_ne!(paper, plain);
    assert_eq!(paper, shifted);
}
