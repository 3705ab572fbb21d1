//! Whole runs on small data sets with tiny weights.

use std::path::Path;

use crate::support::{
    TINY, data, files, json, musc, mvtec, picture, pictures, stderr, stdout, tensors,
};

const ROOT: &str = "output/mvtec_ad/dinov2_tiny_weights/imagesize56";

#[test]
fn data_set_run_leaves_the_authors_tree() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle", "cable"]);
    let run = musc(folder.path())
        .args([
            "--dataset_name",
            "mvtec_ad",
            "--data_path",
            "data",
            "--class_name",
            "bottle",
            "cable",
        ])
        .args(TINY)
        .args(["--vis", "True", "--save_excel", "True", "--device", "4095"])
        .assert()
        .success();
    assert!(
        stderr(&run).contains("device 4095") && stderr(&run).contains("CPU"),
        "{}",
        stderr(&run)
    );
    for word in ["bottle", "cable", "mean"] {
        assert!(stdout(&run).contains(word), "{}", stdout(&run));
    }
    let root = folder.path().join(ROOT);
    let mut expected = vec![];
    for class in ["bottle", "cable"] {
        // Colours by each map's own range: defective images only, as the authors do.
        expected.extend((0..4).map(|at| format!("{class}/broken/{at:03}.png")));
        expected.push(format!("{class}/sheet.png"));
    }
    expected.extend(["defects.json", "metrics.json", "results.xlsx"].map(String::from));
    expected.extend(["run.json", "scores.csv"].map(String::from));
    expected.sort();
    assert_eq!(files(&root), expected);

    let scores = std::fs::read_to_string(root.join("scores.csv")).expect("scores");
    let lines: Vec<&str> = scores.lines().collect();
    assert_eq!(lines[0], "path,class,label,score,raw_score,rank,decision,threshold");
    assert_eq!(lines.len(), 1 + 2 * 11);
    assert!(lines[1].starts_with("data/bottle/test/broken/000.png,bottle,1,"), "{}", lines[1]);
    assert!(lines[22].starts_with("data/cable/test/good/006.png,cable,0,"), "{}", lines[22]);

    let metrics = json(&root.join("metrics.json"));
    let golden = json(&data("metrics.json"));
    for key in
        golden.as_object().expect("object").keys().map(String::as_str).chain(["image_auroc_raw"])
    {
        let mean = metrics["mean"][key].as_f64().expect(key);
        let parts: f64 = ["bottle", "cable"]
            .iter()
            .map(|class| metrics["classes"][class][key].as_f64().expect(key))
            .sum();
        assert!((mean - parts / 2.0).abs() < 1e-12 && (0.0..=1.0).contains(&mean), "{key}: {mean}");
    }

    let run = json(&root.join("run.json"));
    assert_eq!(run["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(run["backbone"]["feature_layers"], serde_json::json!([1, 3]));
    assert_eq!(run["backbone"]["activation"], "gelu");
    assert_eq!(run["backbone"]["weights_sha256"].as_str().expect("hash").len(), 64);
    assert_eq!(run["rscin"]["k"]["bottle"], serde_json::json!([1, 2, 3]));
    assert_eq!(run["images"]["cable"], 11);
    assert!(run["seconds"]["scoring"].as_f64().expect("seconds") >= 0.0);
    assert!(run["seconds_total"].as_f64().expect("seconds") > 0.0);
}

/// `scores.csv` and the rest of a run of one class, with these options.
fn scores_of(folder: &Path, output: &str, options: &[&str]) -> String {
    musc(folder).args(options).args(["--output-dir", output, "--quiet"]).assert().success();
    let root = folder.join(output).join("mvtec_ad/dinov2_tiny_weights/imagesize56");
    std::fs::read_to_string(root.join("scores.csv")).expect("scores")
}

#[test]
fn both_spellings_and_the_yaml_file_give_the_same_run() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle"]);
    let weights = ["--weights", TINY[1]];
    let theirs = [
        &weights[..],
        &[
            "--data_path",
            "data",
            "--dataset_name",
            "mvtec_ad",
            "--class_name",
            "bottle",
            "--img_resize",
            "56",
        ],
        &[
            "--feature_layers",
            "1",
            "3",
            "--r_list",
            "1",
            "3",
            "--batch_size",
            "2",
            "--divide_num",
            "1",
        ],
    ]
    .concat();
    let ours: Vec<String> = theirs
        .iter()
        .map(|word| if word.starts_with("--") { word.replace('_', "-") } else { word.to_string() })
        .collect();
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let scores = scores_of(folder.path(), "a", &theirs);
    assert_eq!(scores, scores_of(folder.path(), "b", &ours));

    let yaml = "datasets:\n  dataset_name: mvtec_ad\n  data_path: data\n  class_name: bottle\n  img_resize: 56\n\
                models:\n  batch_size: 2\n  feature_layers: [1, 3]\n  r_list: [1, 3]\ndevice: 0\n";
    std::fs::write(folder.path().join("c.yaml"), yaml).expect("write");
    let from_yaml = [&weights[..], &["--config", "c.yaml"]].concat();
    assert_eq!(scores, scores_of(folder.path(), "c", &from_yaml));
    let overruled = [&from_yaml[..], &["--r_list", "5"]].concat();
    assert_ne!(scores, scores_of(folder.path(), "d", &overruled));
    let run = json(&folder.path().join("d/mvtec_ad/dinov2_tiny_weights/imagesize56/run.json"));
    assert_eq!(run["scoring"]["r_list"], serde_json::json!([5]));
    assert_eq!(run["device"]["asked_for"], "0");
}

#[test]
fn argument_lists_of_the_authors_script_are_understood() {
    let folder = tempfile::tempdir().expect("folder");
    for (name, path, classes) in [
        ("mvtec_ad", "./data/mvtec_anomaly_detection/", ["bottle", "grid"]),
        ("visa", "./data/visa/", ["candle", "pcb1"]),
        ("btad", "./data/btad/", ["01", "03"]),
    ] {
        let run = |path: &str, classes: &str| {
            let line = format!(
                "--device 0 --data_path {path} --dataset_name {name} --class_name {classes} --backbone_name \
                 ViT-L-14-336 --pretrained openai --feature_layers 5 11 17 23 --img_resize 518 --divide_num 1 \
                 --r_list 1 3 5 --batch_size 4 --output_dir ./output --vis True --save_excel True"
            );
            let run = musc(folder.path()).args(line.split_whitespace()).assert().code(2);
            assert_eq!(files(folder.path()), Vec::<String>::new());
            stderr(&run)
        };
        // Every word is taken; what is missing is the data set, and where that is there only the weights, and the
        // message says what to do.
        let said = run(path, "ALL");
        let expected = format!("no such folder, expected the data set {name}");
        assert!(said.contains(path) && said.contains(&expected), "{said}");
        let said = run(&data("sets").join(name).display().to_string(), &classes.join(" "));
        assert!(
            said.contains("ViT-L-14-336.openai.safetensors") && said.contains("--weights"),
            "{said}"
        );
    }
}

#[test]
fn plain_folder_is_scored_and_drawn_without_labels() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 8, false);
    picture(&folder.path().join("photos/odd.png"), 3, true);
    std::fs::write(folder.path().join("photos/notes.txt"), b"hello").expect("write");
    let run = |extra: &[&str]| {
        musc(folder.path()).arg("photos").args(TINY).arg("--skip-bad").args(extra).assert()
    };
    let first = run(&[]).success();
    let said = stderr(&first);
    assert!(said.contains("9 images are few") && said.contains("notes.txt"), "{said}");
    let root = folder.path().join("output/folder/photos");
    let mut expected = vec![String::from("defects.json")];
    expected.extend((0..8).map(|at| format!("maps/{at:03}.png")));
    expected.extend(
        ["maps/odd.png", "report.html", "run.json", "scores.csv", "scores.svg", "sheet.png"]
            .map(String::from),
    );
    assert_eq!(files(&root), expected);
    let scores = std::fs::read_to_string(root.join("scores.csv")).expect("scores");
    // Rank 1 is the odd one out.
    let odd = scores.lines().find(|line| line.contains("odd.png")).expect("row");
    assert!(odd.starts_with("photos/odd.png,photos,,") && odd.contains(",1,NG,"), "{odd}");
    assert!(stdout(&first).lines().nth(1).expect("line").contains("odd.png"), "{}", stdout(&first));

    let before = std::fs::read(root.join("run.json")).expect("read");
    let refused = run(&[]).code(2);
    assert!(stderr(&refused).contains("--overwrite"), "{}", stderr(&refused));
    assert_eq!(std::fs::read(root.join("run.json")).expect("read"), before);
    run(&["--overwrite", "--save-maps", "--overlays"]).success();
    assert_ne!(std::fs::read(root.join("run.json")).expect("read"), before);
    let maps = tensors(&root.join("anomaly_maps.safetensors"));
    assert_eq!(maps["anomaly_map"].0, [9, 56, 56]);
    assert!(root.join("overlays/odd.png").is_file());
    // The raw score is the map's maximum, to the bit.
    let raw: Vec<f32> = scores
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(4).expect("cell").parse().expect("number"))
        .collect();
    let largest: Vec<f32> = maps["anomaly_map"]
        .1
        .chunks(56 * 56)
        .map(|map| map.iter().copied().fold(f32::MIN, f32::max))
        .collect();
    assert_eq!(raw, largest);
}

#[test]
fn labels_from_folders_bring_figures_and_json_prints_them() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("sorted/good"), 7, false);
    pictures(&folder.path().join("sorted/torn"), 4, true);
    let run = musc(folder.path())
        .args(["sorted", "--labels", "from-folders", "--json", "--quiet", "--device", "cpu"])
        .args(TINY)
        .assert()
        .success();
    // No progress; the pictures are made to be alike, and that is worth a note.
    let said = stderr(&run);
    assert!(said.lines().count() == 1 && said.contains("nearly the same"), "{said}");
    let told: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("one JSON document");
    assert_eq!(told["metrics"], json(&folder.path().join("output/folder/sorted/metrics.json")));
    assert!(
        told["metrics"]["mean"]["image_auroc"].as_f64().expect("figure") > 0.9,
        "{}",
        told["metrics"]
    );
    assert!(told["metrics"]["mean"]["pixel_auroc"].is_null());
    assert_eq!(told["scores"].as_array().expect("scores").len(), 11);
    assert_eq!(told["scores"][0]["label"], 0);
    for file in told["files"].as_array().expect("files") {
        let path = folder.path().join(file["path"].as_str().expect("path"));
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn subsets_are_scored_on_their_own() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle"]);
    let options = [
        &["--dataset-name", "mvtec_ad", "--data-path", "data", "--class-name", "bottle"][..],
        &TINY,
    ]
    .concat();
    let whole = scores_of(folder.path(), "a", &options);
    let halves = scores_of(folder.path(), "b", &[&options[..], &["--divide-num", "2"]].concat());
    assert_ne!(whole, halves);
    let paths = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(',').next().unwrap_or_default().to_string()).collect()
    };
    assert_eq!(paths(&whole), paths(&halves));
}

#[test]
fn number_of_threads_and_table_memory_change_no_score() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle"]);
    let options = [
        &["--dataset-name", "mvtec_ad", "--data-path", "data", "--class-name", "bottle"][..],
        &TINY,
    ]
    .concat();
    let plain = scores_of(folder.path(), "a", &options);
    let single = scores_of(
        folder.path(),
        "b",
        &[&options[..], &["--threads", "1", "--max-table-memory", "10K"]].concat(),
    );
    assert_eq!(plain, single);
}

#[test]
fn demo_shows_figures_and_where_its_files_are() {
    let folder = tempfile::tempdir().expect("folder");
    // A quarter of the usual side keeps this short; the figures at full size have a test of their own.
    let run = musc(folder.path())
        .args(["demo", "--img-resize", "112", "--device", "cpu"])
        .assert()
        .success();
    let said = stdout(&run);
    for word in [
        "AUROC",
        "output/demo/report.html",
        "output/demo/scores.csv",
        "output/demo/sheet.png",
        "output/demo/maps",
    ] {
        assert!(said.contains(word), "{word} in {said}");
    }
    let root = folder.path().join("output/demo");
    let metrics = json(&root.join("metrics.json"));
    assert!(metrics["mean"]["image_auroc"].as_f64().expect("figure") > 0.5, "{metrics}");
    let found = files(&root);
    assert_eq!(found.iter().filter(|file| file.starts_with("images/")).count(), 30);
    assert_eq!(found.iter().filter(|file| file.starts_with("maps/")).count(), 30);
    assert_eq!(found.iter().filter(|file| file.starts_with("overlays/")).count(), 30);
}

/// The same folder on the simulator and on the processor: within the rounding of 16 bits, and said in run.json.
#[test]
fn simulated_card_scores_as_the_processor() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 5, false);
    picture(&folder.path().join("photos/zz.png"), 200, true);
    for device in ["cpu", "sim"] {
        musc(folder.path())
            .args(["photos", "--device", device, "--output-dir", device, "--max-vram", "1G"])
            .args(TINY)
            .assert()
            .success();
    }
    let raw_scores = |device: &str| -> Vec<f64> {
        let path = folder.path().join(device).join("folder/photos/scores.csv");
        let table = std::fs::read_to_string(path).expect("scores");
        let rows = table.lines().skip(1);
        rows.map(|row| row.split(',').nth(4).expect("raw").parse().expect("number")).collect()
    };
    let (cpu, sim) = (raw_scores("cpu"), raw_scores("sim"));
    assert_eq!((cpu.len(), sim.len()), (6, 6));
    for (a, b) in cpu.iter().zip(&sim) {
        assert!((a - b).abs() < 5e-3, "{cpu:?} {sim:?}");
    }
    let run = json(&folder.path().join("sim/folder/photos/run.json"));
    let used = run["device"]["used"].as_str().expect("device");
    assert!(used.contains("simulated card") && used.contains("f16"), "{used}");
    assert_eq!(run["device"]["max_vram"], 1u64 << 30);
    // A bad file is named before anything is written, also where files are read beside the work.
    std::fs::write(folder.path().join("photos/bad.png"), b"no image").expect("write");
    let bad = musc(folder.path())
        .args(["photos", "--device", "sim", "--output-dir", "again"])
        .args(TINY)
        .assert()
        .code(2);
    assert!(stderr(&bad).contains("bad.png"), "{}", stderr(&bad));
    assert!(files(&folder.path().join("again")).is_empty());
}

/// The columns of `scores.csv` from the raw score on.
fn decisions(csv: &Path) -> Vec<(f64, String, f64)> {
    let text = std::fs::read_to_string(csv).expect("scores");
    text.lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |at: usize| cells[at].parse::<f64>().expect("a number");
            // A raw score is written as the f32 that it is.
            let raw = cells[4].parse::<f32>().expect("a number").into();
            (raw, cells[6].to_string(), number(7))
        })
        .collect()
}

#[test]
fn ok_and_ng_are_told_apart_by_the_rule_asked_for() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos/good"), 8, false);
    picture(&folder.path().join("photos/broken/odd.png"), 3, true);
    let run = |extra: &[&str]| {
        let words = ["photos", "--labels", "from-folders", "--vis", "False", "--overwrite"];
        musc(folder.path()).args(words).args(TINY).args(extra).assert()
    };
    let root = folder.path().join("output/folder/photos");
    for (rule, ng) in [
        (&[][..], 1),
        (&["--decide", "shortest-half"], 1),
        (&["--decide", "f1"], 1),
        (&["--decide", "share:0.34"], 3),
        (&["--decide", "quantile:0"], 8),
        (&["--decide", "-1"], 9),
        (&["--decide", "9"], 0),
    ] {
        let done = run(rule).success();
        let rows = decisions(&root.join("scores.csv"));
        assert_eq!(rows.len(), 9);
        for (raw, decision, threshold) in &rows {
            assert_eq!(decision, if raw > threshold { "NG" } else { "OK" }, "{rule:?}");
        }
        assert_eq!(rows.iter().filter(|row| row.1 == "NG").count(), ng, "{rule:?}");
        let said = stdout(&done);
        assert!(said.contains(&format!("photos: {ng} of 9 NG")), "{said}");
        let record = json(&root.join("run.json"));
        let name = rule.get(1).copied().unwrap_or("gap");
        assert_eq!(record["decision"]["rule"], name);
        assert_eq!(record["decision"]["thresholds"]["photos"], rows[0].2);
        // The same run for a machine: the code says whether there is an NG image, and all files are there.
        let code = if ng > 0 { 4 } else { 0 };
        run(&[rule, &["--fail-on-ng"]].concat()).code(code);
        assert_eq!(decisions(&root.join("scores.csv")), rows);
    }
    for (rule, named) in [("otsu", "shortest-half"), ("share:2", "from 0 to 1"), ("nan", "number")]
    {
        let said = stderr(&run(&["--decide", rule]).code(2));
        assert!(said.contains("--decide") && said.contains(named), "{said}");
    }
    // Labels are missed before any work.
    let unlabelled = ["photos", "--vis", "False", "--overwrite", "--decide", "f1"];
    let said = stderr(&musc(folder.path()).args(unlabelled).args(TINY).assert().code(2));
    assert!(said.contains("--decide f1: labels: found 0") && !said.contains("features"), "{said}");
}

#[test]
fn a_cache_spares_the_backbone_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 9, false);
    picture(&folder.path().join("photos/odd.png"), 3, true);
    let run = |output: &str, options: &[&str]| {
        musc(folder.path())
            .args(["photos", "--output-dir", output, "--device", "cpu"])
            .args(TINY)
            .args(options)
            .assert()
    };
    run("plain", &[]).success();
    run("first", &["--cache", "tokens"]).success();
    run("second", &["--cache", "tokens", "--cache-size", "1G"]).success();
    let scores = |output: &str| {
        std::fs::read(folder.path().join(output).join("folder/photos/scores.csv")).expect("scores")
    };
    assert!(scores("plain") == scores("first") && scores("plain") == scores("second"));
    let record = |output: &str| {
        json(&folder.path().join(output).join("folder/photos/run.json"))["cache"].clone()
    };
    assert!(record("plain").is_null());
    assert_eq!((&record("first")["found"], &record("first")["made"]), (&0.into(), &10.into()));
    assert_eq!((&record("second")["found"], &record("second")["made"]), (&10.into(), &0.into()));
    // Other degrees find the same tokens; a size without a folder is no use; a file is no folder.
    let other = run("other", &["--cache", "tokens", "--r_list", "1"]).success();
    assert!(stderr(&other).contains("tokens of 10 images found, of 0 made"), "{}", stderr(&other));
    assert!(stderr(&run("x", &["--cache-size", "1G"]).code(2)).contains("--cache"));
    let told = stderr(&run("x", &["--cache", "photos/odd.png"]).code(2));
    assert!(told.contains("photos/odd.png"), "{told}");
}
