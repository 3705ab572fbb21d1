//! The stage commands, against the goldens.

use std::path::Path;

use crate::support::{self, data, json, musc, pictures, stderr, stdout, tensors, write_tensors};

/// Largest difference of two tensors; NaN if either has one, so that no bound holds.
fn distance(one: &[f32], other: &[f32]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter()
        .zip(other)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, |most, next| if next > most || next.is_nan() { next } else { most })
}

#[test]
fn score_equals_the_golden() {
    let folder = tempfile::tempdir().expect("folder");
    let golden = tensors(&data("stages_small.safetensors"));
    let features = data("stages_small.safetensors");
    let run = musc(folder.path())
        .args(["score", "--features"])
        .arg(&features)
        .args([
            "--r_list",
            "1",
            "3",
            "5",
            "--img_resize",
            "98",
            "--output",
            "o.safetensors",
            "--json",
            "--precision",
            "f32",
        ])
        .assert()
        .success();
    let found = tensors(&folder.path().join("o.safetensors"));
    for name in ["patch_scores", "patch_scores_by_r_layer", "anomaly_map"] {
        let (shape, values) = &found[name];
        assert_eq!(*shape, golden[name].0, "{name}");
        // The bound of an f32 distance on the CPU, where no score is near 0 (a score below 0.05 would be worse).
        assert!(golden[name].1.iter().all(|&score| score > 0.05), "{name}");
        assert!(distance(values, &golden[name].1) < 2e-4, "{name}");
    }
    let (images, side) = (golden["anomaly_map"].0[0], 98 * 98);
    let largest: Vec<f32> = golden["anomaly_map"]
        .1
        .chunks(side)
        .map(|map| map.iter().copied().fold(f32::MIN, f32::max))
        .collect();
    assert_eq!(found["image_scores"].0, [images]);
    assert!(distance(&found["image_scores"].1, &largest) < 2e-4);
    let told: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("json");
    assert_eq!(told["tensors"]["patch_scores"], serde_json::json!(golden["patch_scores"].0));
}

#[test]
fn score_without_a_side_has_no_maps() {
    let folder = tempfile::tempdir().expect("folder");
    musc(folder.path())
        .args(["score", "--r-list", "1", "--output", "o.safetensors", "--features"])
        .arg(data("stages_small.safetensors"))
        .assert()
        .success();
    let found = tensors(&folder.path().join("o.safetensors"));
    assert!(!found.contains_key("anomaly_map"));
    let (shape, patches) = &found["patch_scores"];
    let largest: Vec<f32> =
        patches.chunks(shape[1]).map(|of| of.iter().copied().fold(f32::MIN, f32::max)).collect();
    assert_eq!(found["image_scores"].1, largest);
}

fn rscin(folder: &Path, k: &[&str], extra: &[&str]) -> Vec<f32> {
    let golden = data("rscin.safetensors");
    musc(folder)
        .arg("rscin")
        .arg("--scores")
        .arg(&golden)
        .arg("--class_tokens")
        .arg(&golden)
        .arg("--k")
        .args(k)
        .args(["--output", "o.safetensors", "--overwrite", "--similarity", "dot"])
        .args(extra)
        .assert()
        .success();
    tensors(&folder.join("o.safetensors"))["rescored"].1.clone()
}

#[test]
fn rscin_equals_the_golden() {
    let folder = tempfile::tempdir().expect("folder");
    let golden = tensors(&data("rscin.safetensors"));
    for (k, name) in [(&["1", "2", "3"][..], "k123"), (&["1", "8", "9"], "k189")] {
        assert!(distance(&rscin(folder.path(), k, &[]), &golden[name].1) < 1e-6, "{name}");
    }
    assert!(distance(&rscin(folder.path(), &["5"], &["--exact-k"]), &golden["k5"].1) < 1e-6);
    // Without --exact-k, 1 joins the 5.
    assert!(distance(&rscin(folder.path(), &["5"], &[]), &golden["k5"].1) > 1e-3);
    assert_eq!(rscin(folder.path(), &["5"], &[]), rscin(folder.path(), &["1", "5"], &[]));
}

#[test]
fn rscin_reads_and_writes_tables() {
    let folder = tempfile::tempdir().expect("folder");
    let golden = tensors(&data("rscin.safetensors"));
    let mut table = String::from("path,score,raw_score\n");
    for (at, score) in golden["scores"].1.iter().enumerate() {
        table.push_str(&format!("\"a, {at}.png\",-1,{score}\n"));
    }
    std::fs::write(folder.path().join("s.csv"), table).expect("write");
    let (shape, tokens) = &golden["class_tokens"];
    let rows: Vec<String> = tokens
        .chunks(shape[1])
        .map(|row| row.iter().map(f32::to_string).collect::<Vec<_>>().join(","))
        .collect();
    std::fs::write(folder.path().join("t.csv"), rows.join("\n")).expect("write");
    musc(folder.path())
        .args(["rscin", "--scores", "s.csv", "--class-tokens", "t.csv", "--k", "1", "2", "3"])
        .args(["--similarity", "dot", "--output", "o.csv"])
        .assert()
        .success();
    let text = std::fs::read_to_string(folder.path().join("o.csv")).expect("read");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "path,score,raw_score,rescored");
    assert_eq!(lines.len(), 1 + golden["scores"].1.len());
    assert!(lines[1].starts_with("\"a, 0.png\",-1,"), "{}", lines[1]);
    let rescored: Vec<f32> = lines[1..]
        .iter()
        .map(|line| line.rsplit(',').next().expect("cell").parse().expect("number"))
        .collect();
    assert!(distance(&rescored, &golden["k123"].1) < 1e-6);
}

#[test]
fn k_above_the_number_of_images_is_clamped_aloud() {
    let folder = tempfile::tempdir().expect("folder");
    let golden = data("rscin.safetensors");
    let run = musc(folder.path())
        .args(["rscin", "--k", "1", "99", "--output", "o.safetensors", "--scores"])
        .arg(&golden)
        .arg("--class-tokens")
        .arg(&golden)
        .assert()
        .success();
    assert!(stderr(&run).contains("k = 99"), "{}", stderr(&run));
}

#[test]
fn metrics_equal_the_golden() {
    let folder = tempfile::tempdir().expect("folder");
    let run = musc(folder.path())
        .args(["metrics", "--input"])
        .arg(data("metrics.safetensors"))
        .assert()
        .success();
    let found: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("json");
    let golden = json(&data("metrics.json"));
    let golden = golden.as_object().expect("object");
    assert_eq!(found.as_object().expect("object").len(), golden.len());
    for (key, value) in golden {
        let difference = found[key].as_f64().expect(key) - value.as_f64().expect(key);
        assert!(difference.abs() < 1e-9, "{key}: {} and {value}", found[key]);
    }
}

#[test]
fn metrics_of_images_alone_leave_pixels_empty() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("m.safetensors");
    write_tensors(
        &path,
        &[("gt_image", &[3], &[0.0, 1.0, 0.0]), ("score_image", &[3], &[0.1, 0.7, 0.3])],
    );
    let run = musc(folder.path()).args(["metrics", "--input", "m.safetensors"]).assert().success();
    let found: serde_json::Value = serde_json::from_str(&stdout(&run)).expect("json");
    assert_eq!(found["image_auroc"], 1.0);
    assert!(found["pixel_auroc"].is_null());
}

type Found = std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The largest relative L2 of layers 1 and 3 and the class token, against the golden's `prefix`.
fn features_error(found: &Found, golden: &Found, prefix: &str) -> f64 {
    let mut worst = 0.0f64;
    for (name, part) in
        [("tokens.1", "layer1"), ("tokens.3", "layer3"), ("class_tokens", "class_token")]
    {
        let (shape, expected) = &golden[&format!("{prefix}.{part}")];
        assert_eq!(found[name].0, *shape, "{name}");
        let square =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let error = square(&mut found[name].1.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
        worst = worst.max(error / square(&mut expected.iter().map(|&v| f64::from(v))));
    }
    worst
}

#[test]
fn the_activation_follows_weights_and_size_or_the_option() {
    let folder = tempfile::tempdir().expect("folder");
    let golden = tensors(&data("clip_tiny.safetensors"));
    for (kind, options, activation) in [
        // QuickGELU where the authors' program loads OpenAI's network as it is: at its native size.
        ("native", &[][..], "quick_gelu"),
        ("native", &["--pretrained", "openai", "--activation", "official"], "quick_gelu"),
        ("native", &["--pretrained", "laion400m_e32"], "gelu"),
        ("native", &["--activation", "gelu"], "gelu"),
        ("resized", &[], "gelu"),
        ("resized", &["--activation", "quick_gelu"], "quick_gelu"),
    ] {
        let (shape, pixels) = &golden[&format!("{kind}.pixels")];
        write_tensors(&folder.path().join("p.safetensors"), &[("pixels", shape, pixels)]);
        musc(folder.path())
            .args(["extract", "--pixels", "p.safetensors", "--feature_layers", "1", "3"])
            .args(["--output", "f.safetensors", "--overwrite", "--threads", "2", "--weights"])
            .arg(data("clip_tiny_weights.safetensors"))
            .args(options)
            .assert()
            .success();
        let found = tensors(&folder.path().join("f.safetensors"));
        let other = if activation == "gelu" { "quick_gelu" } else { "gelu" };
        let error = features_error(&found, &golden, &format!("{kind}.{activation}"));
        assert!(error < 1e-4, "{kind} {options:?}: {error}");
        assert!(features_error(&found, &golden, &format!("{kind}.{other}")) > 1e-3);
    }
}

#[test]
fn every_stage_takes_a_number_of_threads() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 3, false);
    let run = |words: &[&str]| {
        let output = format!("{}.safetensors", words[0]);
        musc(folder.path())
            .args(words)
            .args(["--threads", "1", "--output", output.as_str()])
            .assert()
            .success();
    };
    run(&["extract", "photos", "--img-resize", "56"]);
    run(&["score", "--features", "extract.safetensors", "--r-list", "1"]);
    let (count, scores) = ([3], [0.1, 0.3, 0.2]);
    write_tensors(&folder.path().join("s.safetensors"), &[("scores", &count, &scores)]);
    run(&["rscin", "--scores", "s.safetensors", "--class-tokens", "extract.safetensors"]);
}

#[test]
fn extract_equals_the_golden_and_feeds_score() {
    let folder = tempfile::tempdir().expect("folder");
    let golden = tensors(&data("dinov2_tiny.safetensors"));
    let (shape, pixels) = &golden["resized.pixels"];
    write_tensors(&folder.path().join("p.safetensors"), &[("pixels", shape, pixels)]);
    musc(folder.path())
        .args([
            "extract",
            "--pixels",
            "p.safetensors",
            "--feature_layers",
            "1",
            "3",
            "--img_resize",
            "98",
        ])
        .args(["--weights", support::WEIGHTS, "--output", "f.safetensors"])
        .assert()
        .success();
    let found = tensors(&folder.path().join("f.safetensors"));
    assert!(features_error(&found, &golden, "resized") < 1e-4);
    musc(folder.path())
        .args([
            "score",
            "--features",
            "f.safetensors",
            "--r-list",
            "1",
            "--output",
            "s.safetensors",
        ])
        .assert()
        .success();
}

#[test]
fn extract_reads_images_in_order() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 3, false);
    musc(folder.path())
        .args([
            "extract",
            "photos",
            "--feature-layers",
            "3",
            "--img-resize",
            "56",
            "--output",
            "f.safetensors",
        ])
        .args(["--weights", support::WEIGHTS])
        .assert()
        .success();
    let all = tensors(&folder.path().join("f.safetensors"));
    assert_eq!(all["tokens.3"].0, [3, 16, 128]);
    assert_eq!(all["class_tokens"].0, [3, 128]);
    musc(folder.path())
        .args([
            "extract",
            "photos/001.png",
            "--feature-layers",
            "3",
            "--img-resize",
            "56",
            "--output",
            "g.safetensors",
        ])
        .args(["--weights", support::WEIGHTS])
        .assert()
        .success();
    let one = tensors(&folder.path().join("g.safetensors"));
    // One image alone or among others: the same arithmetic, up to the order of sums in a product of other size.
    let second = &all["tokens.3"].1[16 * 128..2 * 16 * 128];
    assert!(distance(second, &one["tokens.3"].1) < 1e-4);
    assert!(distance(&all["tokens.3"].1[..16 * 128], &one["tokens.3"].1) > 1e-2);
}

#[test]
fn wrong_files_are_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    std::fs::write(path.join("short.safetensors"), b"abc").expect("write");
    let whole = std::fs::read(data("stages_small.safetensors")).expect("read");
    std::fs::write(path.join("cut.safetensors"), &whole[..whole.len() - 9]).expect("write");
    write_tensors(&path.join("other.safetensors"), &[("x", &[2], &[0.0, 1.0])]);
    write_tensors(&path.join("flat.safetensors"), &[("tokens.0", &[2, 4], &[0.0; 8])]);
    write_tensors(&path.join("odd.safetensors"), &[("tokens.0", &[2, 3, 1], &[0.5; 6])]);
    write_tensors(&path.join("nan.safetensors"), &[("tokens.0", &[2, 4, 1], &[f32::NAN; 8])]);
    write_tensors(
        &path.join("one.safetensors"),
        &[("tokens.0", &[1, 4, 1], &[0.5, 1.0, 2.0, 0.0])],
    );
    for (file, named) in [
        ("absent", "absent"),
        ("short", "too short"),
        ("cut", "cut short"),
        ("other", "tokens."),
        ("flat", "[2, 4]"),
        ("odd", "square"),
        ("nan", "NaN"),
        ("one", "at least 2"),
    ] {
        let run = musc(path)
            .args([
                "score",
                "--features",
                &format!("{file}.safetensors"),
                "--output",
                "o.safetensors",
            ])
            .args(["--r-list", "1"])
            .assert()
            .code(2);
        let said = stderr(&run);
        assert!(said.contains(named), "{file}: {said}");
        assert!(!path.join("o.safetensors").exists(), "{file}");
    }
}

#[test]
fn a_result_is_not_replaced_unasked() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("o.safetensors"), b"precious").expect("write");
    let command = |extra: &[&str]| {
        musc(folder.path())
            .args(["score", "--r-list", "1", "--output", "o.safetensors", "--features"])
            .arg(data("stages_small.safetensors"))
            .args(extra)
            .assert()
    };
    let refused = command(&[]).code(2);
    assert!(stderr(&refused).contains("--overwrite"), "{}", stderr(&refused));
    assert_eq!(std::fs::read(folder.path().join("o.safetensors")).expect("read"), b"precious");
    command(&["--overwrite"]).success();
    assert!(tensors(&folder.path().join("o.safetensors")).contains_key("patch_scores"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_musc-run"))
        .args(["metrics", "--input"])
        .arg(data("metrics.safetensors"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
