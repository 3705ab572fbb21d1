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
        (&["stages", "--repeats", "0"], "at least 1"),
    ] {
        let done = bench(arguments).code(2);
        let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(said.contains("error:") && said.contains(named), "{arguments:?}: {said}");
    }
}

#[test]
fn card_that_is_not_there_is_an_error() {
    // No machine has this many cards; one without a driver says that.
    for command in ["kernels", "e2e"] {
        let done = bench(&[command, "--device", "cuda:4096"]).code(1);
        let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(said.contains("cuda:4096"), "{said}");
        assert!(done.get_output().stdout.is_empty());
    }
}
