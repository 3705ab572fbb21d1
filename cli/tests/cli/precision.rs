//! `--precision`: what is taken, what is refused, and what run.json says of it.

use std::path::Path;

use assert_cmd::assert::Assert;
use musc::backend::cpu::Instructions;
use serde_json::{Value, json};

use crate::support::{self, TINY, data, musc, pictures, stderr, stdout};

const PLAIN: [&str; 5] = ["--vis", "False", "--report", "False", "--overwrite"];

/// A run on 4 pictures with instructions of this name, or those that the processor has.
fn run(folder: &Path, options: &[&str], instructions: Option<Instructions>) -> Assert {
    let mut program = musc(folder);
    if let Some(instructions) = instructions {
        program.env("MUSC_CPU", instructions.name());
    }
    program.arg("photos").args(TINY).args(PLAIN).args(options).assert()
}

/// What run.json says of the device.
fn told(folder: &Path) -> Value {
    support::json(&folder.join("output/folder/photos/run.json"))["device"].clone()
}

/// The widest instructions of this processor that do not multiply bf16.
fn without_bf16() -> Instructions {
    let here = |each: &Instructions| each.available() && *each != Instructions::Avx512Bf16;
    Instructions::ALL.into_iter().rfind(here).expect("scalar ones")
}

fn photos() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 4, false);
    folder
}

#[test]
fn what_ran_is_told_where_bf16_is_not_multiplied() {
    let folder = photos();
    let here = folder.path();
    let instructions = without_bf16();
    for (options, precision) in
        [(&[][..], "auto"), (&["--precision", "auto"], "auto"), (&["--precision", "f32"], "f32")]
    {
        run(here, options, Some(instructions)).success();
        let told = told(here);
        assert_eq!(told["precision"], precision);
        assert_eq!((&told["features"], &told["scoring"]), (&json!("f32"), &json!("f32")));
        assert_eq!(told["instructions"], instructions.name());
        let used = told["used"].as_str().expect("text");
        assert!(used.starts_with("cpu, ") && used.ends_with(" threads, f32"), "{used}");
    }
    let refused =
        run(here, &["--precision", "bf16", "--device", "cpu"], Some(instructions)).code(1);
    let said = stderr(&refused);
    assert!(said.contains(&format!("found {instructions} instructions")), "{said}");
    assert!(said.contains("expected avx512-bf16 for products in bf16: f32 needs none"), "{said}");
}

#[test]
fn what_ran_is_told_where_bf16_is_multiplied() {
    if !Instructions::Avx512Bf16.available() {
        println!("not tested: this processor has no avx512-bf16");
        return;
    }
    let folder = photos();
    let here = folder.path();
    for (options, features, scoring) in [
        (&[][..], "f32", "bf16"),
        (&["--precision", "f32"], "f32", "f32"),
        (&["--precision", "bf16"], "bf16", "bf16"),
        (&["--paper"], "f32", "f32"),
        // What is given beside it wins.
        (&["--paper", "--precision", "auto"], "f32", "bf16"),
        (&["--paper", "--precision", "bf16"], "bf16", "bf16"),
    ] {
        run(here, options, Some(Instructions::Avx512Bf16)).success();
        let told = told(here);
        assert_eq!(
            (&told["features"], &told["scoring"]),
            (&json!(features), &json!(scoring)),
            "{options:?}"
        );
        assert_eq!(told["instructions"], "avx512-bf16");
    }
    let said = stdout(&musc(here).env("MUSC_CPU", "avx512-bf16").arg("doctor").assert().success());
    assert!(said.contains("features f32, scoring bf16, with avx512-bf16"), "{said}");
}

#[test]
fn a_format_that_the_device_lacks_is_refused_by_name() {
    let folder = photos();
    let here = folder.path();
    for (options, code, named) in [
        (
            &["--device", "cpu", "--precision", "f16"][..],
            2,
            "--precision: found f16, expected f32, bf16 or auto",
        ),
        (
            &["--device", "sim", "--precision", "f32"],
            2,
            "--precision: found f32, expected f16, bf16 or auto",
        ),
        (&["--device", "sim", "--precision", "f64"], 2, "[possible values: auto, f32, f16, bf16]"),
        // The card may come back: tried again.
        (&["--precision", "f16"], 1, "device `auto`: no card, since "),
        (&["--device", "0", "--precision", "f16"], 1, "found f16, expected f32, bf16 or auto"),
    ] {
        let said = stderr(&run(here, options, None).code(code));
        assert!(said.contains(named), "{options:?}: {said}");
    }
    assert!(!here.join("output").exists());
    // f32 is the processor's: `auto` needs no card for it.
    let done = run(here, &["--precision", "f32"], None).success();
    assert!(stderr(&done).contains("device: cpu, since "), "{}", stderr(&done));
    assert_eq!(told(here)["features"], "f32");
    let mut score = musc(here);
    score.args(["score", "--output", "o.safetensors", "--device", "cpu", "--features"]);
    let refused = score.arg(data("stages_small.safetensors")).args(["--precision", "f16"]).assert();
    assert!(stderr(&refused.code(2)).contains("--precision: found f16"));
}

#[test]
fn a_card_says_its_half_and_its_parts_are_merged_without_it() {
    let folder = photos();
    let here = folder.path();
    let shard = ["--shard", "0/1", "--store", "store", "--references", "2", "--device", "sim"];
    let inspect = |options: &[&str]| {
        let mut program = musc(here);
        program.args(["inspect", "photos"]).args(TINY).args(&PLAIN[..4]).args(shard);
        program.args(options).assert()
    };
    inspect(&["--precision", "f16"]).success();
    let said = stderr(&inspect(&["--precision", "bf16"]).code(2));
    for what in ["numbers", "numbers in scoring"] {
        let differs = format!("{what} f16, on a card, this job bf16, on a card");
        assert!(said.contains(&differs), "{said}");
    }
    // f16 is none of the processor's, which joins parts and multiplies nothing.
    musc(here).args(["merge", "store"]).assert().success();
    let merged = support::json(&here.join("output/folder/photos/run.json"));
    let notes = merged["notes"].to_string();
    assert!(notes.contains("(products in f16, on a card)"), "{notes}");
    assert_eq!(merged["device"]["precision"], "auto");
}
