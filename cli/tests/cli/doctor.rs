//! `musc-run doctor`: what it says of a machine without a card, and its exit code.

use musc::backend::cpu::Instructions;

use crate::support::{json, musc, stderr, stdout};

#[test]
fn a_machine_without_a_card_runs_on_its_processor() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = musc(folder.path()).arg("doctor").assert().success();
    let said = stdout(&done);
    for part in ["musc", "processor", "memory", "cards", "weights", "`--device auto` works"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("`--precision auto`: features f32, scoring "), "{said}");
    // Lines line up.
    let told = said.lines().filter(|line| !line.starts_with(' '));
    assert!(told.into_iter().all(|line| line.chars().nth(11) == Some(' ')), "{said}");
    assert_eq!(stderr(&done), "");
}

#[test]
fn a_device_that_is_not_there_is_told_with_what_helps() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = musc(folder.path()).args(["doctor", "--device", "cuda:4096"]).assert().code(1);
    let said = stdout(&done);
    assert!(said.contains("`--device cuda:4096` does not work"), "{said}");
    assert!(said.contains("`--device cpu`"), "{said}");
    assert!(
        stderr(&done).contains("error: ") && stderr(&done).contains("cuda"),
        "{}",
        stderr(&done)
    );
}

#[test]
fn simulator_and_processor_work() {
    let folder = tempfile::tempdir().expect("a folder");
    for device in ["sim", "cpu"] {
        let done =
            musc(folder.path()).args(["doctor", "--device", device, "--json"]).assert().success();
        std::fs::write(folder.path().join("said.json"), stdout(&done)).expect("write");
        let said = json(&folder.path().join("said.json"));
        assert_eq!(said["kind"], "doctor");
        assert_eq!(
            (&said["device"]["asked"], &said["device"]["works"]),
            (&device.into(), &true.into())
        );
        let (auto, features) = (&said["processor"]["auto"], &said["processor"]["features"]);
        let bf16 = auto["instructions"] == "avx512-bf16";
        assert_eq!(auto["features"], "f32");
        assert_eq!(auto["scoring"], if bf16 { "bf16" } else { "f32" });
        let there = features.as_array().expect("features").contains(&"avx512bf16".into());
        assert_eq!(there, Instructions::Avx512Bf16.available());
        assert!(there || !bf16, "{said}");
        assert!(said["processor"]["threads"].as_u64().is_some_and(|threads| threads > 0));
        assert!(said["weights"].is_array() && said["cards"].is_array());
    }
    let done = musc(folder.path()).args(["doctor", "--device", "gpu"]).assert().code(2);
    assert!(stderr(&done).contains("--device"), "{}", stderr(&done));
}

/// A program of that name stands for NVIDIA's, as does a driver that hangs or is not there.
#[cfg(unix)]
#[test]
fn what_nvidia_smi_says_is_passed_on() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("nvidia-smi");
    let row = "0, A card, 470.82.01, Exclusive_Process, Enabled, [N/A], 4, 16, 300 MHz, 1410 MHz, 400 W, 97 %, 9 MiB, 81920 MiB";
    std::fs::write(&program, format!("#!/bin/sh\necho '{row}'\n")).expect("write");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .expect("permissions");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let done = musc(folder.path()).env("PATH", path).args(["doctor", "--json"]).assert().success();
    let said = stdout(&done);
    for part in ["470.82.01", "Exclusive_Process", "\"mig.mode.current\": \"Enabled\""] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("ecc.mode.current"), "{said}");
}
