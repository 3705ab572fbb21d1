//! Banks made, joined and asked; images against known ones.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{TINY, WEIGHTS, json, musc, picture, pictures, stderr, stdout};

const BANK: &str = "part.bank.safetensors";

/// Eight sound pictures in `good`, three new ones in `new`, of which 001 is defective, and a bank of the sound ones.
fn part() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("good"), 8, false);
    for at in 0..3 {
        picture(&folder.path().join(format!("new/{at:03}.png")), 8 + at, at == 1);
    }
    musc(folder.path())
        .args(["bank", "build", "good", "--output", BANK])
        .args(TINY)
        .assert()
        .success();
    folder
}

/// The lines of JSON that a prediction printed.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn predict(folder: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    let arguments = ["predict", "--bank", BANK, "--weights", WEIGHTS];
    musc(folder).args(arguments).args(more).assert()
}

/// An answer but for the time it took.
fn timeless(mut answer: Value) -> Value {
    answer.as_object_mut().expect("object").remove("seconds").expect("seconds");
    answer
}

#[test]
fn an_image_is_answered_alike_however_it_is_asked() {
    let folder = part();
    let folder = folder.path();
    let together = predict(folder, &["new", "--json"]).success();
    let together: Vec<Value> = lines(&stdout(&together)).into_iter().map(timeless).collect();
    let decisions: Vec<&Value> = together.iter().map(|answer| &answer["decision"]).collect();
    assert_eq!(decisions, ["OK", "NG", "OK"]);
    assert_eq!(together[1]["path"], "new/001.png");
    // Where it is: regions of the defective one, which lie in the picture of 60 x 52 pixels.
    let regions = together[1]["regions"].as_array().expect("regions");
    let corner = |at: &Value| (at["box"][0].as_f64().unwrap(), at["box"][1].as_f64().unwrap());
    assert!(!regions.is_empty() && regions.iter().all(|at| corner(at) < (60.0, 52.0)));
    assert_eq!(together[0]["regions"], serde_json::json!([]));
    for answer in &together {
        let alone = predict(folder, &[answer["path"].as_str().unwrap(), "--json"]).success();
        assert_eq!(timeless(lines(&stdout(&alone)).remove(0)), *answer);
    }
    let asked = musc(folder)
        .args(["predict", "--bank", BANK, "--weights", WEIGHTS, "-"])
        .write_stdin("new/000.png\nnew/001.png\r\n\nnew/002.png")
        .assert()
        .success();
    let asked: Vec<Value> = lines(&stdout(&asked)).into_iter().map(timeless).collect();
    assert_eq!(asked, together);
    let text = stdout(&predict(folder, &["new"]).success());
    assert!(
        text.starts_with("OK  ") && text.contains("\nNG  ") && text.lines().count() == 3,
        "{text}"
    );
    predict(folder, &["new", "--fail-on-ng"]).code(4);
    predict(folder, &["new/000.png", "--fail-on-ng"]).code(0);
    // A threshold of one's own.
    let text = stdout(&predict(folder, &["new", "--decide", "0.0"]).success());
    assert_eq!(text.matches("NG").count(), 3, "{text}");
}

#[test]
fn what_cannot_be_answered_is_said_and_the_rest_is_answered() {
    let folder = part();
    let folder = folder.path();
    std::fs::write(folder.join("broken.png"), b"no picture").expect("write");
    let asked = musc(folder)
        .args(["predict", "--bank", BANK, "--weights", WEIGHTS, "-"])
        .write_stdin("absent.png\nbroken.png\n.\nnew/001.png\n\u{1b}[2J\"\n")
        .assert()
        .code(2);
    let answers = lines(&stdout(&asked));
    assert_eq!(answers.len(), 5, "{answers:?}");
    for (answer, word) in answers.iter().zip(["No such file", "image", "not a file"]) {
        assert!(answer["error"].as_str().expect("error").contains(word), "{answer}");
    }
    assert_eq!(answers[3]["decision"], "NG");
    assert_eq!(answers[4]["path"], "\u{1b}[2J\"");
    assert!(!stdout(&asked).contains('\u{1b}') && stderr(&asked).contains("4 that could not"));
}

#[test]
fn a_bank_says_what_is_in_it_and_grows() {
    let folder = part();
    let folder = folder.path();
    let info = stdout(&musc(folder).args(["bank", "info", BANK, "--json"]).assert().success());
    let info: Value = serde_json::from_str(&info).expect("json");
    assert_eq!((&info["references"], &info["input"]), (&8.into(), &"56x56".into()));
    assert_eq!(info["names"][7], "good/007.png");
    assert_eq!(info["features"], "f32");
    let text = stdout(&musc(folder).args(["bank", "info", BANK]).assert().success());
    assert!(text.contains("references      8\n") && text.contains("good/00"), "{text}");
    let there = musc(folder).args(["bank", "build", "good", "--output", BANK]).args(TINY).assert();
    assert!(stderr(&there.code(2)).contains("--overwrite"));

    musc(folder)
        .args(["bank", "add", BANK, "new/000.png", "good/001.png", "--output", "more.safetensors"])
        .args(["--weights", WEIGHTS])
        .assert()
        .success();
    musc(folder)
        .args(["bank", "build", "new/000.png", "new/002.png", "--output", "new.safetensors"])
        .args(TINY)
        .assert()
        .success();
    musc(folder)
        .args(["bank", "merge", BANK, "new.safetensors", "--output", "all.safetensors"])
        .args(["--weights", WEIGHTS])
        .assert()
        .success();
    let count = |name: &str| {
        let info = musc(folder).args(["bank", "info", name, "--json"]).assert().success();
        let info: Value = serde_json::from_str(&stdout(&info)).expect("json");
        info["references"].as_u64().expect("number")
    };
    assert_eq!((count("more.safetensors"), count("all.safetensors")), (9, 10));
}

#[test]
fn a_sliding_bank_is_kept_at_the_end() {
    let folder = part();
    let folder = folder.path();
    // Between the defective one and the rest.
    let raw = lines(&stdout(&predict(folder, &["new/001.png", "--json"]).success()));
    let rule = (0.75 * raw[0]["raw_score"].as_f64().expect("number")).to_string();
    let arguments = ["new", "--keep", "3", "--decide", &rule, "--bank-out", "now.safetensors"];
    predict(folder, &arguments).success();
    let info = musc(folder).args(["bank", "info", "now.safetensors", "--json"]).assert().success();
    let info: Value = serde_json::from_str(&stdout(&info)).expect("json");
    let names = serde_json::json!(["good/007.png", "new/000.png", "new/002.png"]);
    assert_eq!((&info["names"], &info["decision"]), (&names, &rule.as_str().into()));
    assert!(stderr(&predict(folder, &arguments).code(2)).contains("--bank-out"));
    assert!(stderr(&predict(folder, &["new", "--keep", "1"]).code(2)).contains("--keep"));
}

#[test]
fn images_are_compared_with_known_ones() {
    let folder = part();
    let folder = folder.path();
    let run = |references: &str, output: &str| {
        musc(folder)
            .args(["new", "--references", references, "--output-dir", output, "--vis", "False"])
            .args(TINY)
            .assert()
            .success();
        let root = folder.join(output).join("folder/new");
        (std::fs::read_to_string(root.join("scores.csv")).unwrap(), json(&root.join("run.json")))
    };
    let (of_folder, record) = run("good", "a");
    let (of_bank, _) = run(BANK, "b");
    assert_eq!(of_folder, of_bank);
    assert_eq!(record["references"]["images"], 8);
    // The same scores, decisions and threshold as `predict` gives.
    let answers = lines(&stdout(&predict(folder, &["new", "--json"]).success()));
    for (line, answer) in of_folder.lines().skip(1).zip(&answers) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[0], answer["path"]);
        // The reader of JSON may be off by the last bit.
        let (one, other) = (cells[3].parse::<f64>().unwrap(), answer["score"].as_f64().unwrap());
        assert!((one - other).abs() <= 2.0 * f64::EPSILON * one, "{one} {other}");
        assert_eq!(cells[6], answer["decision"]);
    }
    // With each other besides: a file more to be compared with changes the scores.
    let (with_each_other, record) = run("all+good", "c");
    assert_eq!(with_each_other.lines().count(), 4);
    assert_ne!(with_each_other, of_folder);
    assert_eq!(record["references"]["each_other"], true);
    // The page says whom they were compared with.
    let page = |output: &str| {
        std::fs::read_to_string(folder.join(output).join("folder/new/report.html")).expect("page")
    };
    assert!(page("a").contains("8 images of good<") && page("c").contains("8 images of good and"));
    // One new image needs no others.
    musc(folder)
        .args(["new/001.png", "--references", "good", "--output-dir", "d", "--fail-on-ng"])
        .args(TINY)
        .assert()
        .code(4);
    for (references, word) in [("absent", "absent"), ("all+", "all+PATH"), ("--x", "PATH")] {
        let told = musc(folder)
            .args(["new", &format!("--references={references}")])
            .args(TINY)
            .assert()
            .failure();
        assert!(stderr(&told).contains(word), "{}", stderr(&told));
    }
}

#[test]
fn a_bank_that_does_not_fit_is_refused() {
    let folder = part();
    let folder = folder.path();
    // Of another size than the run's.
    let told = musc(folder)
        .args(["new", "--references", BANK, "--weights", WEIGHTS, "--img_resize", "84"])
        .args(["--feature_layers", "1,3"])
        .assert()
        .code(2);
    assert!(
        stderr(&told).contains("84x84") && stderr(&told).contains("56x56"),
        "{}",
        stderr(&told)
    );
    // Of other weights: one bit of them.
    let mut weights = std::fs::read(WEIGHTS).expect("weights");
    let last = weights.len() - 1;
    weights[last] ^= 1;
    std::fs::write(folder.join("other.safetensors"), weights).expect("write");
    let told = musc(folder)
        .args(["predict", "--bank", BANK, "--weights", "other.safetensors", "new"])
        .assert()
        .code(2);
    assert!(stderr(&told).contains("weights with SHA-256"), "{}", stderr(&told));
    let whole = std::fs::read(folder.join(BANK)).expect("bank");
    std::fs::write(folder.join(BANK), &whole[..whole.len() / 2]).expect("write");
    let told = stderr(&predict(folder, &["new"]).code(2));
    assert!(told.contains(BANK) && told.contains("cut short"), "{told}");
    let told = musc(folder).args(["bank", "info", WEIGHTS]).assert().code(2);
    assert!(stderr(&told).contains("no bank"), "{}", stderr(&told));
}

#[test]
fn a_bank_and_its_new_images_look_at_the_same_part() {
    let folder = part();
    let folder = folder.path();
    // The upper left quarter: the defect is outside, but for its corner.
    let mask: Vec<u8> = (0..52 * 60)
        .flat_map(|at| [if at / 60 < 14 && at % 60 < 15 { 255u8 } else { 0 }; 3])
        .collect();
    let mask = musc::image::RgbImage::new(60, 52, mask).expect("a mask");
    musc::report::write_image(&folder.join("mask.png"), &mask).expect("write");
    musc(folder)
        .args(["bank", "build", "good", "--output", "roi.safetensors", "--roi", "mask.png"])
        .args(TINY)
        .args(["--r-list", "1"])
        .assert()
        .success();
    let ask = |more: &[&str]| {
        let arguments =
            ["predict", "--bank", "roi.safetensors", "--weights", WEIGHTS, "new", "--json"];
        let told = musc(folder).args(arguments).args(more).assert().success();
        (lines(&stdout(&told)), stderr(&told))
    };
    let (inside, said) = ask(&["--roi", "mask.png"]);
    assert!(!said.contains("regions of its images"), "{said}");
    let (everywhere, said) = ask(&[]);
    assert!(said.contains("regions of its images"), "{said}");
    let raw = |answer: &Value| answer["raw_score"].as_f64().expect("number");
    // Outside the mask the defect is nothing.
    assert!(raw(&everywhere[1]) > 2.0 * raw(&inside[1]), "{everywhere:?} {inside:?}");
    let info = musc(folder).args(["bank", "info", "roi.safetensors"]).assert().success();
    assert!(stdout(&info).contains("looked_at       regions"), "{}", stdout(&info));
    // A mask that does not fit is the image's answer.
    let odd = musc::image::RgbImage::new(9, 9, vec![255; 243]).expect("a mask");
    musc::report::write_image(&folder.join("odd.png"), &odd).expect("write");
    let told = predict(folder, &["new/000.png", "--json", "--roi", "odd.png"]).code(2);
    assert!(
        stdout(&told).contains("9x9") && stdout(&told).contains("odd.png"),
        "{}",
        stdout(&told)
    );
}

/// A program that is ended when the test is.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts watching `folder/in`; its stderr has been read up to the line that says it is ready.
fn watching(folder: &Path, more: &[&str]) -> Watching {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("musc-run"))
        .current_dir(folder)
        .env("CUDA_VISIBLE_DEVICES", "")
        .args(["predict", "--bank", BANK, "--weights", WEIGHTS, "--watch", "in", "--settle", "0.3"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut said = BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    while !line.contains("references, threshold") {
        line.clear();
        assert!(said.read_line(&mut line).expect("read") > 0, "it ended before it was ready");
    }
    // Somebody must go on reading.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    Watching(child)
}

#[test]
fn files_that_appear_are_answered_once_each() {
    let folder = part();
    let folder = folder.path();
    let inside = folder.join("in");
    picture(&inside.join("before.png"), 3, false);
    picture(&folder.join("source.png"), 40, true);
    let slow = std::fs::read(folder.join("source.png")).expect("read");
    let mut program = watching(folder, &[]);
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut answers = BufReader::new(program.0.stdout.take().expect("stdout")).lines();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = answers.next() {
            let _ = sender.send(line);
        }
    });
    for at in 0..12 {
        let name = inside.join(format!("{at:02}.png"));
        match at % 3 {
            // Written under another name, then renamed.
            0 => {
                picture(&folder.join("aside.png"), 50 + at, false);
                std::fs::rename(folder.join("aside.png"), &name).expect("rename");
            }
            // Written in pieces, slower than it takes to settle.
            1 if at == 4 => {
                let mut file = std::fs::File::create(&name).expect("create");
                for piece in slow.chunks(slow.len().div_ceil(3)) {
                    file.write_all(piece).expect("write");
                    file.flush().expect("flush");
                    std::thread::sleep(Duration::from_millis(600));
                }
            }
            _ => picture(&name, 50 + at, false),
        }
    }
    picture(&inside.join("deep/er/12.png"), 90, false);
    std::fs::write(inside.join("notes.txt"), b"no image").expect("write");
    let mut got = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while got.len() < 13 && Instant::now() < deadline {
        got.extend(receiver.recv_timeout(Duration::from_millis(200)));
    }
    // After the answer, a new name is no new image.
    std::fs::rename(inside.join("00.png"), inside.join("renamed.png")).expect("rename");
    got.extend(receiver.recv_timeout(Duration::from_millis(1500)));
    let mut names: Vec<String> = lines(&got.join("\n"))
        .iter()
        .map(|answer| {
            assert!(answer.get("error").is_none(), "{answer}");
            let slow = answer["path"] == "in/04.png";
            assert_eq!(answer["decision"] == "NG", slow, "{answer}");
            answer["path"].as_str().expect("path").to_string()
        })
        .collect();
    names.sort();
    let mut expected: Vec<String> = (0..12).map(|at| format!("in/{at:02}.png")).collect();
    expected.push("in/deep/er/12.png".into());
    assert_eq!(names, expected);
    // A folder that goes ends it with an error.
    std::fs::remove_dir_all(&inside).expect("remove");
    let ended = program.0.wait().expect("wait");
    assert_eq!(ended.code(), Some(2));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = part();
    let told = stderr(&predict(folder.path(), &["--watch", "nowhere"]).code(2));
    assert!(told.contains("--watch nowhere"), "{told}");
}
