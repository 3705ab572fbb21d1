//! What other programs take over: defects.json, the exports, and thresholds by each image's own map.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use crate::support::{TINY, files, json, musc, mvtec, picture, pictures, stderr, stdout, tensors};

/// Eight good pictures and an odd one of 60 x 52 pixels, in two folders.
fn photos(folder: &Path) {
    pictures(&folder.join("photos/good"), 8, false);
    picture(&folder.join("photos/broken/odd <1>.png"), 3, true);
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().expect("array")
}

/// Path, raw score, decision and threshold of each row of scores.csv.
fn rows(root: &Path) -> Vec<(String, f64, String, f64)> {
    let text = std::fs::read_to_string(root.join("scores.csv")).expect("scores");
    text.lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |at: usize| cells[at].parse::<f64>().expect("number");
            (cells[0].to_string(), number(4), cells[6].to_string(), number(7))
        })
        .collect()
}

/// Whether each pixel's middle is inside a polygon, by the crossings to its left.
fn inside(polygon: &[Value], x: f64, y: f64) -> bool {
    let point = |at: usize| {
        let point = array(&polygon[at % polygon.len()]);
        (point[0].as_f64().expect("x"), point[1].as_f64().expect("y"))
    };
    let mut crossings = 0;
    for at in 0..polygon.len() {
        let ((ax, ay), (bx, by)) = (point(at), point(at + 1));
        if (ay > y) != (by > y) && ax + (y - ay) / (by - ay) * (bx - ax) < x {
            crossings += 1;
        }
    }
    crossings % 2 == 1
}

#[test]
fn defects_are_the_regions_of_ng_images_in_their_own_pixels() {
    let folder = tempfile::tempdir().expect("folder");
    photos(folder.path());
    musc(folder.path())
        .args(["photos", "--vis", "False", "--save-maps", "--decide", "share:0.34"])
        .args(TINY)
        .assert()
        .success();
    let root = folder.path().join("output/folder/photos");
    let document = json(&root.join("defects.json"));
    assert_eq!(document["version"], 1);
    let rows = rows(&root);
    let ng: Vec<&str> = rows.iter().filter(|row| row.2 == "NG").map(|row| row.0.as_str()).collect();
    assert_eq!(ng.len(), 3);
    let images = array(&document["images"]);
    let named: Vec<&str> = images.iter().map(|i| i["path"].as_str().expect("path")).collect();
    assert_eq!(named, ng);
    let maps = tensors(&root.join("anomaly_maps.safetensors"));
    let maps = &maps["anomaly_map"].1;
    for image in images {
        let path = image["path"].as_str().expect("path");
        let at = rows.iter().position(|row| row.0 == path).expect("row");
        assert_eq!((&image["width"], &image["height"]), (&60.into(), &52.into()));
        assert_eq!(image["threshold"].as_f64(), Some(rows[at].3));
        assert_eq!(image["raw_score"].as_f64(), Some(rows[at].1));
        let regions = array(&image["regions"]);
        assert!(!regions.is_empty());
        assert_eq!(regions[0]["peak"]["value"].as_f64(), Some(rows[at].1), "worst first");
        // Every pixel of the map above the threshold is inside a polygon, and no other, but for those along the outlines, which
        // are within half a pixel of the true ones.
        let map = &maps[at * 56 * 56..][..56 * 56];
        let (mut above, mut wrong, mut edge) = (0, 0, 0);
        for (pixel, &value) in map.iter().enumerate() {
            let (x, y) = ((pixel % 56) as f64 + 0.5, (pixel / 56) as f64 + 0.5);
            let (x, y) = (x * 60.0 / 56.0, y * 52.0 / 56.0);
            let within = regions.iter().any(|r| inside(array(&r["polygon"]), x, y));
            let is_above = f64::from(value) > rows[at].3;
            let near = [1usize, 56].iter().any(|step| {
                let neighbours = [pixel.checked_sub(*step), Some(pixel + step)];
                neighbours.into_iter().flatten().any(|other| {
                    map.get(other).is_some_and(|&v| (f64::from(v) > rows[at].3) != is_above)
                })
            });
            above += usize::from(is_above);
            edge += usize::from(near);
            wrong += usize::from(within != is_above && !near);
        }
        assert!(above > 0 && edge < 56 * 56, "{path}");
        assert_eq!(wrong, 0, "{path}: of {above} above, {edge} along edges");
        let area: f64 = regions.iter().map(|r| r["area"].as_f64().expect("area")).sum();
        let expected = above as f64 * 60.0 / 56.0 * 52.0 / 56.0;
        assert!((area - expected).abs() < 1e-3 * expected, "{area} {expected}");
    }
}

#[test]
fn exports_are_files_that_importers_take() {
    let folder = tempfile::tempdir().expect("folder");
    photos(folder.path());
    let run = |extra: &[&str]| {
        let words = ["photos", "--vis", "False", "--export", "coco,labelstudio"];
        musc(folder.path())
            .args(words)
            .args(["--export", "fiftyone"])
            .args(TINY)
            .args(extra)
            .assert()
    };
    let first = run(&[]).success();
    let root = folder.path().join("output/folder/photos");
    let mut expected: Vec<String> =
        ["defects.json", "export/coco.json", "export/fiftyone/metadata.json"]
            .map(String::from)
            .into();
    let maps = "export/fiftyone/fields/anomaly_map";
    expected.extend((0..8).map(|at| format!("{maps}/good/{at:03}.png.png")));
    expected.push(format!("{maps}/broken/odd <1>.png.png"));
    expected.extend(
        ["export/fiftyone/samples.json", "export/labelstudio.json", "export/labelstudio.xml"]
            .map(String::from),
    );
    expected.extend(["report.html", "run.json", "scores.csv", "scores.svg"].map(String::from));
    expected.sort();
    assert_eq!(files(&root), expected);
    assert!(stdout(&first).contains("export/coco.json"), "{}", stdout(&first));

    let defects = json(&root.join("defects.json"));
    let regions: usize =
        array(&defects["images"]).iter().map(|image| array(&image["regions"]).len()).sum();
    assert!(regions > 0);
    let coco = json(&root.join("export/coco.json"));
    let names: HashSet<&str> =
        array(&coco["images"]).iter().map(|i| i["file_name"].as_str().expect("name")).collect();
    assert_eq!(names.len(), 9);
    assert!(names.contains("broken/odd <1>.png") && names.contains("good/000.png"), "{names:?}");
    assert_eq!(array(&coco["annotations"]).len(), regions);
    let base = Path::new(coco["info"]["folder"].as_str().expect("folder")).to_path_buf();
    assert!(names.iter().all(|name| base.join(name).is_file()), "{base:?}");

    let tasks = json(&root.join("export/labelstudio.json"));
    assert_eq!(array(&tasks).len(), 9);
    let address = &tasks[0]["data"]["image"];
    assert_eq!(address, "/data/local-files/?d=photos/broken/odd%20%3C1%3E.png", "worst first");
    let samples = json(&root.join("export/fiftyone/samples.json"));
    for sample in array(&samples["samples"]) {
        assert!(Path::new(sample["filepath"].as_str().expect("path")).is_file());
        let map = sample["anomaly_map"]["map_path"].as_str().expect("map");
        assert!(root.join("export/fiftyone").join(map).is_file(), "{map}");
    }
    // Nothing of an earlier run is replaced unasked, exports included.
    std::fs::remove_file(root.join("scores.csv")).expect("remove");
    for file in ["run.json", "defects.json"] {
        std::fs::remove_file(root.join(file)).expect("remove");
    }
    let refused = stderr(&run(&[]).code(2));
    assert!(refused.contains("coco.json") && refused.contains("--overwrite"), "{refused}");
    run(&["--overwrite"]).success();
    // A run that replaces this one and exports less leaves nothing that tells of other scores.
    let words = ["photos", "--vis", "False", "--export", "labelstudio", "--overwrite"];
    musc(folder.path()).args(words).args(TINY).assert().success();
    for (file, there) in
        [("coco.json", false), ("fiftyone/samples.json", false), ("labelstudio.json", true)]
    {
        assert_eq!(root.join("export").join(file).exists(), there, "{file}");
    }
}

#[test]
fn classes_of_a_data_set_are_exported_together() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle", "cable"]);
    musc(folder.path())
        .args(["--dataset_name", "mvtec_ad", "--data_path", "data", "--export", "coco,fiftyone"])
        .args(["--class_name", "bottle", "cable"])
        .args(TINY)
        .assert()
        .success();
    let root = folder.path().join("output/mvtec_ad/dinov2_tiny_weights/imagesize56");
    let coco = json(&root.join("export/coco.json"));
    let names: HashSet<&str> =
        array(&coco["images"]).iter().map(|i| i["file_name"].as_str().expect("name")).collect();
    assert_eq!(names.len(), 22);
    assert!(names.contains("cable/test/broken/003.png"), "{names:?}");
    let maps = root.join("export/fiftyone/fields/anomaly_map");
    assert_eq!(files(&maps).len(), 22);
    assert!(maps.join("bottle/broken/000.png.png").is_file());
}

#[test]
fn mebin_gives_each_image_its_own_threshold() {
    let folder = tempfile::tempdir().expect("folder");
    photos(folder.path());
    let run = |extra: &[&str]| {
        let words = ["photos", "--vis", "False", "--overwrite", "--decide", "mebin"];
        musc(folder.path()).args(words).args(TINY).args(extra).assert()
    };
    let done = run(&["--fail-on-ng"]).code(4);
    let root = folder.path().join("output/folder/photos");
    let rows = rows(&root);
    let mut different = HashSet::new();
    let least = rows.iter().map(|row| row.1).fold(f64::INFINITY, f64::min);
    for (path, raw, decision, threshold) in &rows {
        assert_eq!(decision, if raw > threshold { "NG" } else { "OK" }, "{path}");
        assert!(*raw > least || decision == "OK", "the image with the least score is never NG");
        different.insert(threshold.to_string());
    }
    assert!(different.len() > 1, "{rows:?}");
    let ng = rows.iter().filter(|row| row.2 == "NG").count();
    let said = stdout(&done);
    let expected =
        format!("photos: {ng} of 9 NG, raw score above each image's own threshold (mebin)");
    assert!(said.contains(&expected), "{said}");
    let record = json(&root.join("run.json"));
    let decision = &record["decision"];
    assert_eq!((&decision["rule"], &decision["per_image"]), (&"mebin".into(), &true.into()));
    assert_eq!(decision["thresholds"]["photos"], Value::Null);
    assert!(decision["why"].as_str().expect("why").contains("a threshold of its own, because"));
    let defects = json(&root.join("defects.json"));
    assert_eq!(array(&defects["images"]).len(), ng);
}

#[test]
fn words_that_mean_nothing_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    photos(folder.path());
    for (words, named) in [
        (["--export", "cvat"], "expected coco, labelstudio or fiftyone"),
        (["--export", "coco,"], "expected coco, labelstudio or fiftyone"),
        (["--decide", "0,3"], "mebin or a number"),
        (["--decide", "mebin:4"], "mebin or a number"),
        (["--decide", "gap:0.5"], "at least 1"),
    ] {
        let run = musc(folder.path()).arg("photos").args(words).args(TINY).assert().code(2);
        let said = stderr(&run);
        assert!(said.contains(words[0]) && said.contains(named), "{said}");
    }
    assert!(!folder.path().join("output").exists());
}
