//! `musc-bench`: the fields of its documents, and its refusals.

use assert_cmd::Command;
use serde_json::Value;

fn bench(arguments: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("musc-bench").expect("the program is built").args(arguments).assert()
}

fn document(arguments: &[&str]) -> Value {
    let done = bench(arguments).success();
    serde_json::from_slice(&done.get_output().stdout).expect("one JSON document")
}

#[test]
fn kernels_document_has_its_fields() {
    let said = document(&[
        "kernels",
        "--only",
        "layer_norm",
        "--json",
        "--model",
        "ViT-L-14-336",
        "--batch-size",
        "4",
    ]);
    let model = &said["models"][0];
    assert_eq!(model["model"], "ViT-L-14-336");
    assert_eq!(model["times"], "modelled");
    let kernels = model["kernels"].as_array().expect("a list");
    assert!(
        kernels.iter().all(|k| k["kernel"].as_str().is_some_and(|k| k.starts_with("layer_norm_")))
    );
    let store =
        kernels.iter().find(|k| k["kernel"] == "layer_norm_store_f16").expect("it is there");
    assert_eq!(store["shape"], "5480x1024");
    assert_eq!(store["sector_efficiency"], 1.0);
    let cards = store["cards"].as_array().expect("a list");
    let names: Vec<_> = cards.iter().map(|card| card["card"].as_str().expect("a name")).collect();
    assert_eq!(names, ["RTX-3090", "RTX-4090", "A100", "H100"]);
    for card in cards {
        assert!(card["modelled_us"].as_f64().is_some_and(|us| us > 3.0), "{card}");
        assert_eq!(card["spilled_bytes"], 0);
        for field in
            ["registers", "static_shared_bytes", "blocks_per_multiprocessor", "quantisation"]
        {
            assert!(card[field].is_number(), "{field}");
        }
        assert!(card["binding"].is_string() && card["limits_us"]["DRAM"].is_number(), "{card}");
    }
}

#[test]
fn run_stays_within_its_budget_of_work_and_memory() {
    let said = document(&["e2e", "--json"]);
    assert_eq!((said["times"].as_str(), said["images"].as_u64()), (Some("modelled"), Some(200)));
    let flops = &said["tflop_per_image"];
    let number = |name: &str| flops[name].as_f64().expect("a number");
    assert!(number("scoring_issued") <= 1.65, "{flops}");
    assert!(number("scoring_useful") / number("scoring_issued") >= 0.95, "{flops}");
    assert!(number("features_useful") / number("features_issued") >= 0.95, "{flops}");
    assert!(said["memory"]["bytes"].as_u64().is_some_and(|bytes| bytes <= 4_500_000_000));
    for card in said["cards"].as_array().expect("a list") {
        let parts = card["by_kernel"].as_array().expect("a list");
        let sum: f64 = parts.iter().filter_map(|part| part["ms_per_image"].as_f64()).sum();
        let total = card["ms_per_image"].as_f64().expect("a number");
        assert!((sum - total).abs() < 1e-9 * total, "{card}");
        assert!(card["binding_kernel"].is_string() && card["binding_limit"].is_string());
    }
}

#[test]
fn stages_are_timed_and_checked() {
    let said =
        document(&["stages", "--images", "2", "--img-resize", "56", "--repeats", "1", "--json"]);
    assert_eq!(said["times"], "measured");
    assert_eq!(said["features"], "f32");
    assert!(said["instructions"].is_string(), "{said}");
    let exact = ["--precision", "f32", "--images", "2", "--img-resize", "56", "--repeats", "1"];
    let exact = bench(&[&["stages"][..], &exact].concat()).success();
    let exact = String::from_utf8_lossy(&exact.get_output().stdout).into_owned();
    assert!(exact.contains("; features f32, scoring f32 ("), "{exact}");
    for stage in said["stages"].as_array().expect("a list") {
        assert!(stage["median_ms_per_image"].as_f64().is_some_and(|ms| ms > 0.0), "{stage}");
        assert!(stage["gflop_per_image"].as_f64().is_some_and(|gflop| gflop > 0.0), "{stage}");
    }
}

#[test]
fn wrong_usage_is_told() {
    for (arguments, named) in [
        (&["kernels", "--model", "resnet50"][..], "ViT-L-14-336"),
        (&["kernels", "--only", "softmax"], "layer_norm"),
        (&["e2e", "--img-resize", "500"], "multiple"),
        (&["e2e", "--images", "1"], "at least 2"),
        (&["e2e", "--card", "voodoo"], "RTX-3090"),
        (&["e2e", "--gram-block", "0x9"], "AxB"),
        (&["e2e", "--device", "cpu"], "cuda:0"),
        (&["verify", "--device", "cpu"], "cuda:0"),
        (&["verify", "--only", "softmax"], "local_distance"),
        (&["verify", "--quick", "--full"], "cannot be used with"),
        (&["stages", "--repeats", "0"], "at least 1"),
        (&["stages", "--precision", "f16"], "--precision: found f16, expected f32, bf16 or auto"),
        (&["stages", "--precision", "f64"], "[possible values: auto, f32, f16, bf16]"),
    ] {
        let done = bench(arguments).code(2);
        let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(said.contains("error:") && said.contains(named), "{arguments:?}: {said}");
    }
}

#[test]
fn card_that_is_not_there_is_an_error() {
    // No machine has this many cards; one without a driver says that.
    for command in ["kernels", "e2e", "verify"] {
        let done = bench(&[command, "--device", "cuda:4096"]).code(1);
        let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(said.contains("cuda:4096"), "{said}");
        assert!(done.get_output().stdout.is_empty());
    }
}

#[test]
fn kernels_verify_on_the_simulator() {
    let said = document(&["verify", "--json", "--only", "patch_embed"]);
    assert_eq!(
        (said["kind"].as_str(), said["verdict"].as_str()),
        (Some("verify"), Some("verified"))
    );
    assert_eq!(
        (said["shapes"].as_str(), said["device"]["label"].as_str()),
        (Some("quick"), Some("sim"))
    );
    let kernels = said["kernels"].as_array().expect("a list");
    let names: Vec<_> =
        kernels.iter().map(|kernel| kernel["kernel"].as_str().expect("a name")).collect();
    assert_eq!(names, ["patch_embed_class_f32", "patch_embed_rows_bf16", "patch_embed_rows_f16"]);
    for kernel in kernels {
        assert_eq!(kernel["verdict"], "verified");
        // The simulator does not say what a driver would make of them.
        assert!(
            kernel["registers"].is_null() && kernel["registers_by_ptxas"].is_number(),
            "{kernel}"
        );
        for output in kernel["outputs"].as_array().expect("a list") {
            assert!(output["compared"].as_u64().is_some_and(|count| count > 0), "{output}");
            let (error, bound) = (output["max_abs"].as_f64(), output["max_abs_bound"].as_f64());
            assert!(error <= bound && error.is_some(), "{output}");
        }
    }
    let defects = said["seeded_defects"].as_array().expect("a list");
    assert!(
        !defects.is_empty() && defects.iter().all(|defect| defect["caught"] == true),
        "{defects:?}"
    );
    // Nothing of the user's in what is sent to others.
    let text = said.to_string();
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")) && !text.contains("/home/"), "{text}");
}

/// All of it, as text: every kernel, the repeats, images to scores.
#[test]
fn everything_verifies_on_the_simulator() {
    let done = bench(&["verify", "--device", "sim"]).success();
    let said = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    for part in [
        "`gram_pool_to7_f32`",
        "`local_distance_max_bf16`",
        "one k-step of 64 dropped",
        "beside another kernel: equal",
        "compute-sanitizer --tool racecheck",
        "0 differ, 0 not run",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("UNNOTICED") && !said.contains("NOT verified"), "{said}");
}
