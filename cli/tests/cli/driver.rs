//! The program on a card, as far as there is one without a card: the driver API on the simulator (`ptxsim-cuda`), found under
//! NVIDIA's name.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::stand_in::stand_in;
use crate::support::*;

/// A run of the pictures in `photos` on a device, into the folder `out`.
fn run(folder: &Path, driver: &TempDir, device: &str, out: &str) -> assert_cmd::Command {
    let mut command = musc(folder);
    command
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env("LD_LIBRARY_PATH", driver.path())
        .env("PTXSIM_CUDA_DEVICES", "2")
        .env("PTXSIM_CUDA_LEAKS", "fail")
        .args(["photos", "--device", device, "--output-dir", out])
        .args(TINY);
    command
}

/// Every file of a result by its place in the folder, but those that tell times and the device: `run.json` and the report.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("list").map(|entry| entry.expect("entry")) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if !["run.json", "report.html"].iter().any(|name| entry.file_name() == *name) {
                let place = path.strip_prefix(root).expect("inside").to_path_buf();
                found.insert(place, std::fs::read(&path).expect("read"));
            }
        }
    }
    found
}

fn photos(count: usize) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    std::fs::create_dir(folder.path().join("photos")).expect("a folder");
    pictures(&folder.path().join("photos"), count, false);
    picture(&folder.path().join("photos/defective.png"), 200, true);
    folder
}

#[test]
fn cards_give_what_the_simulator_gives_byte_for_byte() {
    let (folder, driver) = (photos(4), stand_in());
    run(folder.path(), &driver, "sim", "sim").assert().success();
    let expected = files(&folder.path().join("sim"));
    let names: Vec<&PathBuf> = expected.keys().collect();
    assert!(names.len() > 5 && names.iter().any(|name| name.ends_with("scores.csv")), "{names:?}");
    for (device, pools) in [("cuda:0", "0"), ("cuda:0", "1"), ("cuda:0,1", "0"), ("auto", "1")] {
        let out = format!("{}-{pools}", device.replace([':', ','], "-"));
        let mut command = run(folder.path(), &driver, device, &out);
        let done = command.env("PTXSIM_CUDA_POOLS", pools).assert().success();
        assert!(files(&folder.path().join(&out)) == expected, "{device}: {}", stderr(&done));
        let root = folder.path().join(&out).join("folder/photos");
        let record = std::fs::read_to_string(root.join("run.json")).expect("run.json");
        assert!(record.contains("cuda:0 (ptxsim"), "{device}: {record}");
    }
}

/// A call of the driver that fails ends the run with a sentence, an exit code and no half result; the run after it is whole.
#[test]
fn a_failing_call_leaves_nothing_half_done() {
    let (folder, driver) = (photos(2), stand_in());
    let done = run(folder.path(), &driver, "cuda:0", "whole")
        .env("PTXSIM_CUDA_LOG", "calls")
        .assert()
        .success();
    let calls = stderr(&done).lines().filter(|line| line.starts_with("ptxsim-cuda: cu")).count();
    assert!(calls > 200, "{calls}");
    let expected = files(&folder.path().join("whole"));
    let (steps, mut failed) = (10, 0);
    for step in 0..steps {
        let number = 1 + step * (calls - 1) / steps;
        let out = format!("fail-{number}");
        let done = run(folder.path(), &driver, "cuda:0", &out)
            .env("PTXSIM_CUDA_FAIL", number.to_string())
            // An error ends the program while its weights are still being hashed, and the card's memory with the process.
            .env("PTXSIM_CUDA_LEAKS", "list")
            .assert();
        let found = |out: &str| {
            let root = folder.path().join(out);
            if root.exists() { files(&root) } else { BTreeMap::new() }
        };
        if done.get_output().status.success() {
            assert!(found(&out) == expected, "call {number}");
            continue;
        }
        failed += 1;
        let (code, said) = (done.get_output().status.code(), stderr(&done));
        assert!(
            code == Some(1) && said.contains("CUDA_ERROR_UNKNOWN"),
            "{number}: {code:?} {said}"
        );
        // What there is, is whole: no file that the run did not finish.
        for (place, bytes) in found(&out) {
            assert_eq!(expected.get(&place), Some(&bytes), "call {number}: {}", place.display());
        }
        run(folder.path(), &driver, "cuda:0", &out).arg("--overwrite").assert().success();
        assert!(found(&out) == expected, "after call {number}");
    }
    assert!(failed > steps / 2, "{failed} of {steps}");
}

#[test]
fn devices_that_are_not_there() {
    let (folder, driver) = (photos(2), stand_in());
    let none = ("PTXSIM_CUDA_DEVICES", "0");
    let done = run(folder.path(), &driver, "cuda:0", "a").env(none.0, none.1).assert().code(1);
    assert!(stderr(&done).contains("CUDA_ERROR_NO_DEVICE"), "{}", stderr(&done));
    let done = run(folder.path(), &driver, "cuda:7", "b").assert().code(1);
    assert!(stderr(&done).contains("no such card: found 2"), "{}", stderr(&done));
    // Only `auto` falls back, and says so.
    let done = run(folder.path(), &driver, "auto", "c").env(none.0, none.1).assert().success();
    assert!(stderr(&done).contains("device: cpu, since"), "{}", stderr(&done));
}

/// The verifier and the doctor on a card: registers as loaded, the card's name, and what helps where there is none.
#[test]
fn a_card_verifies_and_the_doctor_knows_it() {
    let (folder, driver) = (photos(0), stand_in());
    let program = |name: &str| {
        let mut command = assert_cmd::Command::cargo_bin(name).expect("the program is built");
        command
            .current_dir(folder.path())
            .env("LD_LIBRARY_PATH", driver.path())
            .env("PTXSIM_CUDA_LEAKS", "fail");
        command
    };
    let done = program("musc-bench")
        .args(["verify", "--device", "cuda:0", "--quick", "--kernels-only", "--json"])
        .assert()
        .success();
    let said: serde_json::Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    assert_eq!(
        (&said["verdict"], &said["device"]["label"]),
        (&"verified".into(), &"cuda:0".into())
    );
    let kernels = said["kernels"].as_array().expect("a list");
    assert!(kernels.len() > 30, "{}", kernels.len());
    for kernel in kernels {
        assert_eq!(kernel["verdict"], "verified", "{kernel}");
        assert!(kernel["registers"].as_u64().is_some_and(|count| count > 0), "{kernel}");
    }
    let done =
        program("musc-run").args(["doctor", "--device", "cuda:0", "--json"]).assert().success();
    let said: serde_json::Value = serde_json::from_str(&stdout(&done)).expect("JSON");
    assert_eq!(said["device"]["works"], true);
    assert!(said["cards"].to_string().contains("ptxsim sm_80"), "{}", said["cards"]);
    let none = ("PTXSIM_CUDA_DEVICES", "0");
    let done = program("musc-run")
        .env(none.0, none.1)
        .args(["doctor", "--device", "cuda:0"])
        .assert()
        .code(1);
    assert!(stdout(&done).contains("does not work"), "{}", stdout(&done));
}
