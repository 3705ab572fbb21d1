//! Regions of interest and tiles of runs.

use std::path::Path;

use musc::image::RgbImage;
use musc::report::write_image;

use crate::support::{TINY, files, json, musc, mvtec, pictures, stderr, tensors};

/// A mask of `width`x52 that is white in its first `white` columns.
fn mask(path: &Path, width: usize, white: usize) {
    let level = |at: usize| if at % width < white { 255u8 } else { 0 };
    let data = (0..width * 52).flat_map(|at| [level(at); 3]).collect();
    write_image(path, &RgbImage { width, height: 52, data }).expect("write mask");
}

fn scores(folder: &Path, output: &str, options: &[&str]) -> String {
    let more = ["--output-dir", output, "--quiet", "--save-maps"];
    musc(folder).args(TINY).args(options).args(more).assert().success();
    std::fs::read_to_string(folder.join(output).join("folder/photos/scores.csv")).expect("scores")
}

#[test]
fn a_mask_leaves_out_what_is_black() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 6, false);
    let plain = scores(here, "plain", &["photos"]);
    mask(&here.join("white.png"), 60, 60);
    assert_eq!(scores(here, "white", &["photos", "--roi", "white.png"]), plain);
    assert_eq!(scores(here, "zero", &["photos", "--ignore-border", "0"]), plain);
    mask(&here.join("half.png"), 60, 30);
    let half = scores(here, "half", &["photos", "--roi", "half.png", "--overlays"]);
    assert_ne!(half, plain);
    let root = here.join("half/folder/photos");
    let run = json(&root.join("run.json"));
    assert_eq!((&run["roi"], &run["ignore_border"]), (&"half.png".into(), &0.into()));
    let maps = tensors(&root.join("anomaly_maps.safetensors"));
    for (at, &value) in maps["anomaly_map"].1.iter().enumerate() {
        assert_eq!(value == 0.0, at % 56 >= 28, "pixel {at}");
    }
    // A mask for each image, by name, and a border on top.
    for at in 0..6 {
        mask(&here.join(format!("masks/{at:03}.png")), 60, 30);
    }
    assert_eq!(scores(here, "each", &["photos", "--roi", "masks"]), half);
    let border = scores(here, "border", &["photos", "--roi", "masks", "--ignore-border", "8"]);
    assert_ne!(border, half);
    let run = json(&here.join("border/folder/photos/run.json"));
    assert_eq!((&run["roi"], &run["ignore_border"]), (&"masks".into(), &8.into()));
}

#[test]
fn classes_of_a_data_set_have_masks_in_folders_of_their_own() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    mvtec(&here.join("data"), &["bottle", "cable"]);
    for (kind, count) in [("good", 7), ("broken", 4)] {
        for at in 0..count {
            mask(&here.join(format!("masks/bottle/{kind}/{at:03}.png")), 60, 30);
            mask(&here.join(format!("masks/cable/{kind}/{at:03}.png")), 60, 45);
        }
    }
    let options =
        ["--dataset_name", "mvtec_ad", "--data_path", "data", "--class_name", "bottle", "cable"];
    let auroc = |more: &[&str]| {
        let paper = ["--paper", "--overwrite"];
        musc(here).args(TINY).args(options).args(paper).args(more).assert().success();
        let metrics =
            json(&here.join("output/mvtec_ad/dinov2_tiny_weights/imagesize56/metrics.json"));
        ["bottle", "cable"]
            .map(|class| metrics["classes"][class]["pixel_auroc"].as_f64().expect("a figure"))
    };
    // The square's columns 20 to 36: both classes have a part of it inside.
    let (plain, masked) = (auroc(&[]), auroc(&["--roi", "masks"]));
    assert!(plain[0] != masked[0] && plain[1] != masked[1], "{plain:?} {masked:?}");
    std::fs::remove_file(here.join("masks/cable/good/003.png")).expect("remove");
    let options = [&options[..], &["--roi", "masks", "--overwrite"]].concat();
    let said = stderr(&musc(here).args(TINY).args(options).assert().code(2));
    assert!(said.contains("cable/test/good/003.png"), "{said}");
}

#[test]
fn bad_masks_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 4, false);
    let fails = |options: &[&str]| {
        let said = stderr(&musc(here).args(TINY).arg("photos").args(options).assert().code(2));
        assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
        assert!(!said.contains("features:"), "{said}");
        said
    };
    let has = |said: String, parts: &[&str]| {
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
    };
    mask(&here.join("wide.png"), 61, 30);
    has(fails(&["--roi", "wide.png"]), &["wide.png", "61x52", "photos/000.png", "60x52"]);
    mask(&here.join("black.png"), 60, 0);
    has(fails(&["--roi", "black.png"]), &["black.png", "0 of 60x52", "expected"]);
    std::fs::write(here.join("text.png"), "no image").expect("write");
    has(fails(&["--roi", "text.png"]), &["text.png"]);
    has(fails(&["--roi", "none.png"]), &["none.png"]);
    has(fails(&["--ignore-border", "26"]), &["26 pixels", "60x52", "photos/000.png"]);
    for at in [0, 1, 3] {
        mask(&here.join(format!("masks/{at:03}.png")), 60, 30);
    }
    has(fails(&["--roi", "masks"]), &["masks", "1 of 4", "photos/002.png"]);
    mask(&here.join("masks/002.png"), 60, 0);
    has(fails(&["--roi", "masks"]), &["masks/002.png", "black"]);
    assert!(files(&here.join("output")).iter().all(|name| !name.ends_with(".csv")));
}

#[test]
fn images_are_cut_into_tiles() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 5, false);
    pictures(&here.join("photos/ng"), 1, true);
    let plain = scores(here, "plain", &["photos"]);
    assert_eq!(scores(here, "one", &["photos", "--tiles", "1x1"]), plain);
    let options = ["photos", "--tiles", "2x2", "--tile_overlap", "0.2", "--overlays"];
    let tiled = scores(here, "tiled", &options);
    assert_ne!(tiled, plain);
    let root = here.join("tiled/folder/photos");
    let run = json(&root.join("run.json"));
    // Tiles of ⌈52/1.8⌉ = 29 by ⌈60/1.8⌉ = 34 at 56: 56/29 of 60x52.
    let expected = serde_json::json!({
        "rows": 2, "columns": 2, "overlap": 0.2, "match": "same", "maps": { "photos": "100x116" },
    });
    assert_eq!(run["tiles"], expected);
    let map = &tensors(&root.join("anomaly_maps.safetensors"))["anomaly_map"];
    assert_eq!(map.0, [6, 100, 116]);
    let overlay = musc::image::decode(&root.join("overlays/000.png")).expect("an overlay").image;
    assert_eq!((overlay.height, overlay.width), (100, 116));
    assert!(root.join("sheet.png").is_file());
    let any = ["photos", "--tiles", "2x2", "--match-tiles", "any", "--references", "3"];
    assert_ne!(scores(here, "any", &any), tiled);
    assert_eq!(json(&here.join("any/folder/photos/run.json"))["tiles"]["match"], "any");
    // A data set with the quirks of the authors' program, and a region beside the tiles.
    mvtec(&here.join("data"), &["bottle"]);
    mask(&here.join("half.png"), 60, 30);
    let set = ["--dataset_name", "mvtec_ad", "--data_path", "data", "--class_name", "bottle"];
    let more = ["--paper", "--tiles", "1x2", "--roi", "half.png"];
    musc(here).args(TINY).args(set).args(more).assert().success();
}

#[test]
fn bad_tiles_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 4, false);
    let fails = |code: i32, options: &[&str], parts: &[&str]| {
        let said = stderr(&musc(here).args(TINY).arg("photos").args(options).assert().code(code));
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("panicked") && !said.contains("features:"), "{said}");
    };
    // ⌈52/4.6⌉ = 12 rows of pixels are less than a patch of 14.
    fails(2, &["--tiles", "5x2"], &["--tiles", "5x2", "photos/000.png", "32x12", "14x14"]);
    fails(2, &["--tiles", "0x2"], &["--tiles", "rows x columns"]);
    fails(2, &["--tiles", "3"], &["--tiles", "rows x columns"]);
    fails(2, &["--tiles", "2x2", "--tile-overlap", "0.6"], &["--tile-overlap", "0 to 0.5"]);
    fails(2, &["--tile-overlap", "0.1"], &["--tiles"]);
    fails(2, &["--match-tiles", "any"], &["--tiles"]);
    assert_eq!(files(&here.join("output")), Vec::<String>::new());
}
