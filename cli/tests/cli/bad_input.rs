//! Bad input: each a message that names the thing, an exit code other than 0, and nothing half-written.

use std::path::Path;

use crate::support::{
    TINY, WEIGHTS, data, files, json, mask, musc, mvtec, picture, pictures, stderr,
};

/// Runs with tiny weights and more options, expects this exit code, returns what was said.
fn fails(folder: &Path, code: i32, options: &[&str]) -> String {
    let run = musc(folder).args(TINY).args(options).assert().code(code);
    let said = stderr(&run);
    assert!(said.contains("error: "), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// No result, whole or in part, lies in the output folder.
fn nothing_written(folder: &Path) {
    assert_eq!(files(&folder.join("output")), Vec::<String>::new());
}

/// Eight good pictures in `photos`, and files that are none.
fn photos_with_bad_files(folder: &Path) {
    let photos = folder.join("photos");
    pictures(&photos, 8, false);
    let whole = std::fs::read(photos.join("000.png")).expect("read");
    std::fs::write(photos.join("cut.png"), &whole[..whole.len() / 2]).expect("write");
    std::fs::write(photos.join("empty.png"), b"").expect("write");
    std::fs::write(photos.join("text.jpg"), b"this is no picture").expect("write");
    std::fs::write(photos.join("notes.txt"), b"nor is this").expect("write");
}

#[test]
fn bad_images_are_all_named_before_any_work() {
    let folder = tempfile::tempdir().expect("folder");
    photos_with_bad_files(folder.path());
    let said = fails(folder.path(), 2, &["photos"]);
    for name in ["3 files", "cut.png", "empty.png", "text.jpg"] {
        assert!(said.contains(name), "{name} in {said}");
    }
    assert!(!said.contains("features:"), "{said}");
    nothing_written(folder.path());
}

#[test]
fn bad_images_of_a_later_class_stop_the_run_before_the_first() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle", "cable"]);
    std::fs::write(folder.path().join("data/cable/test/good/003.png"), b"").expect("write");
    let options =
        ["--dataset_name", "mvtec_ad", "--data_path", "data", "--class_name", "bottle", "cable"];
    let said = fails(folder.path(), 2, &options);
    assert!(said.contains("cable/test/good/003.png") && !said.contains("features:"), "{said}");
    nothing_written(folder.path());
}

#[test]
fn bad_images_are_left_out_when_asked() {
    let folder = tempfile::tempdir().expect("folder");
    photos_with_bad_files(folder.path());
    musc(folder.path()).arg("photos").args(TINY).arg("--skip-bad").assert().success();
    let root = folder.path().join("output/folder/photos");
    let record = json(&root.join("run.json"));
    let skipped = &record["skipped"];
    assert_eq!(skipped.as_array().expect("list").len(), 3);
    assert!(record["ignored"][0].as_str().expect("path").ends_with("notes.txt"), "{record}");
    assert!(skipped[0]["path"].as_str().expect("path").ends_with("cut.png"), "{skipped}");
    assert_eq!(
        std::fs::read_to_string(root.join("scores.csv")).expect("read").lines().count(),
        1 + 8
    );
}

#[test]
fn one_image_cannot_be_scored() {
    let folder = tempfile::tempdir().expect("folder");
    picture(&folder.path().join("photos/a.png"), 1, false);
    assert!(fails(folder.path(), 2, &["photos"]).contains("at least 2"));
    nothing_written(folder.path());
    assert!(fails(folder.path(), 2, &["nowhere"]).contains("nowhere"));
    std::fs::create_dir(folder.path().join("bare")).expect("folder");
    assert!(fails(folder.path(), 2, &["bare"]).contains("bare"));
}

#[test]
fn options_out_of_range_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 3, false);
    let tiny_weights = ["photos", "--weights", WEIGHTS];
    for (code, options, named) in [
        (2, &["--img_resize", "57"][..], "multiple of the patch size 14, such as 56 or 70"),
        (2, &["--img_resize", "56", "--feature_layers", "1", "4"], "--feature_layers: found 4"),
        (2, &["--img_resize", "56", "--r_list", "1", "2"], "--r_list: found 2"),
        (2, &["--img_resize", "56", "--r_list", "9"], "--r_list: found 9"),
        (2, &["--img_resize", "0"], "--img_resize"),
        (2, &["--r_list", "x"], "--r-list"),
        (2, &["--vis", "perhaps"], "--vis"),
        (2, &["--no-such-option"], "--no-such-option"),
        (2, &["--device", "gpu"], "--device"),
        (1, &["--device", "cuda:4095"], "cuda:4095"),
        (1, &["--device", "sim", "--max-vram", "1M"], "need"),
        (2, &["--max-vram", "lots"], "--max-vram"),
        (2, &["--backbone_name", "resnet50"], "resnet50"),
        (2, &["--backbone_name", "dinov2_vitb14"], "not the weights of dinov2_vitb14"),
        (2, &["--img_resize", "56", "--divide_num", "3"], "at least 2"),
    ] {
        let run = musc(folder.path()).args(tiny_weights).args(options).assert().code(code);
        let said = stderr(&run);
        assert!(said.contains(named), "{options:?}: {said}");
        nothing_written(folder.path());
    }
    let none = musc(folder.path()).assert().code(2);
    assert!(stderr(&none).contains("PATH"), "{}", stderr(&none));
}

#[test]
fn too_large_k_is_said_and_clamped() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 3, false);
    let run = musc(folder.path())
        .arg("photos")
        .args(TINY)
        .args(["--rscin-k", "1", "9"])
        .assert()
        .success();
    assert!(stderr(&run).contains("k = 9"), "{}", stderr(&run));
    let notes = json(&folder.path().join("output/folder/photos/run.json"))["notes"].to_string();
    assert!(notes.contains("k = 9"), "{notes}");
}

#[test]
fn data_sets_with_gaps_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("data");
    mvtec(&root, &["bottle"]);
    let options = ["--dataset_name", "mvtec_ad", "--data_path", "data", "--class_name"];
    let of = |class: &'static str| [&options[..], &[class]].concat();
    let unknown = fails(folder.path(), 2, &of("bottel"));
    assert!(unknown.contains("bottel") && unknown.contains("zipper"), "{unknown}");
    let truth = root.join("bottle/ground_truth/broken/002_mask.png");
    mask(&truth, 61, 52);
    let other_size = fails(folder.path(), 2, &of("bottle"));
    assert!(other_size.contains("002_mask.png") && other_size.contains("61x52"), "{other_size}");
    std::fs::remove_file(&truth).expect("remove");
    let missing = fails(folder.path(), 2, &of("bottle"));
    assert!(missing.contains("002"), "{missing}");
    let no_root = fails(folder.path(), 2, &["--dataset_name", "visa", "--data_path", "nowhere"]);
    assert!(no_root.contains("nowhere"), "{no_root}");
    nothing_written(folder.path());
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 3, false);
    let whole = std::fs::read(WEIGHTS).expect("read");
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("write");
    write("cut.safetensors", &whole[..whole.len() - 100]);
    let mut spoilt = whole.clone();
    let end = spoilt.len();
    spoilt[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    write("nan.safetensors", &spoilt);
    write("pickle.safetensors", b"PK\x03\x04 and more");
    std::fs::copy(data("rscin.safetensors"), folder.path().join("other.safetensors"))
        .expect("copy");
    for (file, named) in [
        ("cut", "cut short"),
        ("nan", "finite"),
        ("pickle", "PyTorch"),
        ("other", "other.safetensors"),
        ("absent", "absent.safetensors"),
    ] {
        let run = musc(folder.path())
            .args(["photos", "--img_resize", "56", "--weights", &format!("{file}.safetensors")])
            .assert()
            .code(2);
        let said = stderr(&run);
        assert!(said.contains(named), "{file}: {said}");
        nothing_written(folder.path());
    }
}

#[test]
fn output_that_is_no_folder_is_found_before_work() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 3, false);
    std::fs::write(folder.path().join("taken"), b"precious").expect("write");
    let said = fails(folder.path(), 2, &["photos", "--output-dir", "taken"]);
    assert!(said.contains("taken") && !said.contains("features:"), "{said}");
    assert_eq!(std::fs::read(folder.path().join("taken")).expect("read"), b"precious");
}

#[test]
fn yaml_mistakes_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 3, false);
    std::fs::write(folder.path().join("c.yaml"), "models:\n  r_list: [1, x]\n").expect("write");
    let said = fails(folder.path(), 2, &["photos", "--config", "c.yaml"]);
    assert!(said.contains("c.yaml") && said.contains("models.r_list"), "{said}");
    assert!(fails(folder.path(), 2, &["photos", "--config", "none.yaml"]).contains("none.yaml"));
}

/// A limit on the size of files stands for a full disk: the write fails half way.
#[cfg(unix)]
#[test]
fn a_write_that_fails_leaves_no_half_file() {
    let folder = tempfile::tempdir().expect("folder");
    let features = data("stages_small.safetensors");
    // The result has 290 KB; the limit is 64 blocks of at most 1024 bytes. The signal is ignored, so that the
    // write returns an error.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" score --features \"$1\" --r-list 1 3 5 --img-resize 98 --output o.safetensors";
    let output = std::process::Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", script, env!("CARGO_BIN_EXE_musc-run")])
        .arg(&features)
        .output()
        .expect("sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write o.safetensors"), "{said}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_sigterm_end_the_run_and_leave_no_file() {
    // A scheduler that stops a run may start it again; a person who does will not.
    ends_by("-INT", 130);
    ends_by("-TERM", 1);
}

#[cfg(unix)]
fn ends_by(signal: &str, code: i32) {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 40, false);
    // The built-in backbone at full size takes long enough to be interrupted.
    let mut child = Command::new(env!("CARGO_BIN_EXE_musc-run"))
        .current_dir(folder.path())
        .args(["photos", "--device", "cpu"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut said = BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    while !line.starts_with("features: ") {
        line.clear();
        assert!(said.read_line(&mut line).expect("read") > 0, "ended before it was interrupted");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("read");
    assert_eq!(child.wait().expect("wait").code(), Some(code), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
    nothing_written(folder.path());
}
