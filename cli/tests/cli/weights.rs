//! `musc-run weights` without a network, and class features that others pickled.

use std::path::PathBuf;

use crate::support::{WEIGHTS, data, files, musc, pictures, stderr, stdout, tensors};

fn pickled(name: &str) -> PathBuf {
    data("pickles").join(name)
}

#[test]
fn convert_makes_weights_that_verify_and_run() {
    let folder = tempfile::tempdir().expect("folder");
    let input = pickled("vit.pth");
    let run = musc(folder.path())
        .args(["weights", "convert"])
        .arg(&input)
        .arg("out/vit.safetensors")
        .assert()
        .success();
    let said = stdout(&run);
    assert!(said.contains("tensors       20\n") && said.contains("E, DINOv2"), "{said}");
    assert_eq!(files(folder.path()), ["out/vit.safetensors"]);
    let verified =
        musc(folder.path()).args(["weights", "verify", "out/vit.safetensors"]).assert().success();
    for line in [
        "file          out/vit.safetensors\n",
        "fits          no backbone known by name\n",
        "parameters    19272\n",
        "values        all finite\n",
        "width 64, depth 1, heads 1, patch 2, native size 2, MLP width 8",
        "sha256        ",
    ] {
        assert!(stdout(&verified).contains(line), "{line} in {}", stdout(&verified));
    }
    // What is there is not replaced unasked; what is asked for is told as a document.
    let again = |extra: &[&str]| {
        musc(folder.path())
            .args(["weights", "convert"])
            .arg(&input)
            .args(["out/vit.safetensors", "--json"])
            .args(extra)
            .assert()
    };
    assert!(stderr(&again(&[]).code(2)).contains("which exists"));
    let document: serde_json::Value =
        serde_json::from_str(&stdout(&again(&["--overwrite"]).success())).expect("json");
    assert_eq!((&document["tensors"], &document["key"]), (&20.into(), &"".into()));
    assert!(stdout(&verified).contains(document["sha256"].as_str().expect("hash")));
}

#[test]
fn what_cannot_be_converted_leaves_no_file() {
    let folder = tempfile::tempdir().expect("folder");
    for (name, extra, part) in [
        ("module.pth", &[][..], "`torch.nn.modules.linear.Linear`"),
        ("script.pt", &[], "TorchScript"),
        ("legacy.pth", &[], "PyTorch before 1.6"),
        ("ambiguous.pth", &[], "--key"),
        ("checkpoint.pth", &[], "checkpoint.pth: no known naming"),
        ("vit.pth", &["--key", "model"], "no dict of tensors under the key `model`"),
        ("absent.pth", &[], "absent.pth"),
        ("array.dat", &[], "does not start as a zip archive"),
    ] {
        let run = musc(folder.path())
            .args(["weights", "convert"])
            .arg(pickled(name))
            .arg("o.safetensors")
            .args(extra)
            .assert()
            .code(2);
        let said = stderr(&run);
        assert!(said.contains(part) && said.contains(name), "{part} in {said}");
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn a_pytorch_file_as_weights_is_told_how_to_be_converted() {
    let folder = tempfile::tempdir().expect("folder");
    let path = pickled("vit.pth").display().to_string();
    pictures(&folder.path().join("photos"), 2, false);
    for words in [&["photos", "--weights", &path][..], &["weights", "verify", &path]] {
        let said = stderr(&musc(folder.path()).args(words).assert().code(2));
        assert!(
            said.contains(&format!("musc-run weights convert {path} OUT.safetensors")),
            "{said}"
        );
    }
}

#[test]
fn verify_refuses_what_a_run_would_refuse() {
    let folder = tempfile::tempdir().expect("folder");
    let run = |name: &str| musc(folder.path()).args(["weights", "verify", name]).assert();
    assert!(stdout(&run(WEIGHTS).success()).contains("width 128, depth 4"));
    let built_in = stdout(&run("dinov2_vits14").success());
    assert!(
        built_in.contains("file          built-in\n") && built_in.contains("22056192"),
        "{built_in}"
    );
    let mut spoilt = std::fs::read(WEIGHTS).expect("read");
    let end = spoilt.len();
    spoilt[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(folder.path().join("nan.safetensors"), &spoilt).expect("write");
    assert!(stderr(&run("nan.safetensors").code(2)).contains("infinite or not a number"));
    assert!(stderr(&run("absent.safetensors").code(2)).contains("absent.safetensors"));
    assert!(stderr(&musc(folder.path()).args(["weights"]).assert().code(2)).contains("verify"));
}

/// A pickle of protocol 4 as NumPy's users write it: a dict of f16 arrays by category.
fn class_features(categories: &[(&str, &[usize], &[u8])]) -> Vec<u8> {
    let mut pickle = b"\x80\x04}(".to_vec();
    let text = |pickle: &mut Vec<u8>, text: &str| {
        pickle.extend([0x8c, text.len() as u8]);
        pickle.extend(text.as_bytes());
    };
    let name = |pickle: &mut Vec<u8>, module: &str, name: &str| {
        text(pickle, module);
        text(pickle, name);
        pickle.push(0x93);
    };
    for (category, shape, bytes) in categories {
        text(&mut pickle, category);
        name(&mut pickle, "numpy.core.multiarray", "_reconstruct");
        name(&mut pickle, "numpy", "ndarray");
        pickle.extend(b"K\x00\x85C\x01b\x87R(K\x01");
        for &side in *shape {
            pickle.push(b'J');
            pickle.extend((side as i32).to_le_bytes());
        }
        pickle.push(0x86);
        name(&mut pickle, "numpy", "dtype");
        text(&mut pickle, "f2");
        pickle.extend(b"\x89\x88\x87R(K\x03");
        text(&mut pickle, "<");
        pickle.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B");
        pickle.extend((bytes.len() as u32).to_le_bytes());
        pickle.extend(*bytes);
        pickle.extend(b"tb");
    }
    pickle.extend(b"u.");
    pickle
}

/// The golden has real CLIP class tokens of the authors' files, and what their method makes of random scores.
#[test]
fn rscin_on_the_authors_class_features_equals_the_golden() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes = std::fs::read(data("rscin_clip.safetensors")).expect("read");
    let golden = safetensors::SafeTensors::deserialize(&bytes).expect("golden");
    let classes = ["mvtec_ad.bottle", "mvtec_ad.screw", "visa.pcb4"];
    let tokens: Vec<_> = classes
        .iter()
        .map(|class| (class, golden.tensor(&format!("{class}.class_tokens")).expect("tokens")))
        .collect();
    let listed: Vec<(&str, &[usize], &[u8])> =
        tokens.iter().map(|(class, view)| (**class, view.shape(), view.data())).collect();
    std::fs::write(folder.path().join("cls.dat"), class_features(&listed)).expect("write");
    let all = tensors(&data("rscin_clip.safetensors"));
    for class in classes {
        let scores: Vec<String> =
            all[&format!("{class}.scores")].1.iter().map(f32::to_string).collect();
        let table = format!("score\n{}\n", scores.join("\n"));
        std::fs::write(folder.path().join("s.csv"), table).expect("write");
        let k: &[&str] = if class.starts_with("visa") { &["8", "9"] } else { &["2", "3"] };
        musc(folder.path())
            .args([
                "rscin",
                "--scores",
                "s.csv",
                "--class-tokens",
                "cls.dat",
                "--class_name",
                class,
            ])
            .args(["--k"])
            .args(k)
            .args(["--similarity", "dot", "--output", "o.safetensors", "--overwrite"])
            .assert()
            .success();
        let found = &tensors(&folder.path().join("o.safetensors"))["rescored"].1;
        let expected = &all[&format!("{class}.rescored")].1;
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{class}: {found} {expected}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

#[test]
fn class_features_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("s.csv"), "score\n1\n2\n3\n").expect("write");
    let golden = data("rscin.safetensors").display().to_string();
    let features = pickled("features_4.dat").display().to_string();
    let objects = pickled("objects.dat").display().to_string();
    for (tokens, extra, part) in [
        (&features, &[][..], "name the one wanted of: bottle, cable"),
        (&features, &["--class-name", "screw"], "no category `screw`"),
        (&features, &["--class-name", "cable"], "expected 3, one a score"),
        (&objects, &[], "type `O8`"),
        (&golden, &["--class-name", "bottle"], "--class-name"),
    ] {
        let run = musc(folder.path())
            .args(["rscin", "--scores", "s.csv", "--output", "o.csv", "--class-tokens", tokens])
            .args(extra)
            .assert()
            .code(2);
        assert!(stderr(&run).contains(part), "{part} in {}", stderr(&run));
        assert!(!folder.path().join("o.csv").exists());
    }
    musc(folder.path())
        .args(["rscin", "--scores", "s.csv", "--output", "o.csv", "--class-tokens", &features])
        .args(["--class-name", "bottle", "--json"])
        .assert()
        .success();
    assert!(folder.path().join("o.csv").is_file());
}
