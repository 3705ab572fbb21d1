//! The program's side: `musc-run weights` with a cache of its own, and runs that find what is in it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

use crate::server::{COMMIT, Conduct, Server, files};
use crate::support::pictures;

/// The built-in weights are those of dinov2_vits14; their published name is in the table.
fn whole_weights() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../weights/dinov2_vits14.safetensors");
    std::fs::read(path).expect("the default weights")
}

fn musc(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("musc-run").expect("the program is built");
    command.current_dir(folder).env("HF_HUB_CACHE", folder.join("cache"));
    command.env("CUDA_VISIBLE_DEVICES", "");
    for name in [
        "HF_HOME",
        "HF_TOKEN",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "SSL_CERT_FILE",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}

fn said(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Puts a file into the cache as if it had been loaded.
fn put(folder: &Path, repository: &str, file: &str, content: &[u8]) -> PathBuf {
    let repository = repository.replace('/', "--");
    let path = folder.join(format!("cache/models--{repository}/snapshots/{COMMIT}/{file}"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn download_then_list_path_and_verify() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(Conduct::good(&whole_weights()));
    let run = |words: &[&str]| {
        let done =
            musc(folder.path()).env("HF_ENDPOINT", server.address()).args(words).assert().success();
        said(&done.get_output().stdout)
    };
    let path = run(&["weights", "download", "dinov2_vits14"]);
    let expected = "models--timm--vit_small_patch14_dinov2.lvd142m";
    assert!(path.contains(expected) && path.ends_with("/model.safetensors\n"), "{path}");
    let list: serde_json::Value =
        serde_json::from_str(&run(&["weights", "list", "--json"])).unwrap();
    let cached: Vec<_> = list["weights"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["cached"].is_string())
        .collect();
    assert_eq!(cached.len(), 1);
    assert_eq!(cached[0]["cached"], path.trim());
    assert!(run(&["weights", "list"]).lines().filter(|line| line.ends_with("yes")).count() == 1);
    let verified: serde_json::Value =
        serde_json::from_str(&run(&["weights", "verify", path.trim(), "--json"])).unwrap();
    assert_eq!(verified["fits"][0], "dinov2_vits14");
    assert_eq!(verified["scheme"], "E");
    assert_eq!(verified["parameters"], 22_056_192);
    // Offline, what is there is enough.
    server.requests();
    let offline = musc(folder.path())
        .env("HF_HUB_OFFLINE", "1")
        .args(["weights", "download", "dinov2_vits14", "--json"])
        .assert()
        .success();
    let document: serde_json::Value = serde_json::from_slice(&offline.get_output().stdout).unwrap();
    assert_eq!(document["path"], path.trim());
    assert!(server.requests().is_empty());
}

#[test]
fn weights_of_another_backbone_are_not_taken_for_this_one() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(Conduct::good(&whole_weights()));
    let run = musc(folder.path())
        .env("HF_ENDPOINT", server.address())
        .args(["weights", "download", "dinov2_vitb14"])
        .assert()
        .code(2);
    let said = said(&run.get_output().stderr);
    assert!(said.contains("not the weights of dinov2_vitb14"), "{said}");
}

#[test]
fn what_cannot_be_downloaded_is_an_error_without_a_file() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(Conduct { status: Some(404), ..Conduct::good(b"") });
    for (code, words, name, value, part) in [
        (
            1,
            &["weights", "download", "ViT-B-16"][..],
            "HF_ENDPOINT",
            server.address(),
            "HTTP status 404",
        ),
        (
            1,
            &["weights", "download", "ViT-B-16"],
            "HF_HUB_OFFLINE",
            "TRUE".into(),
            "HF_HUB_OFFLINE is set",
        ),
        (2, &["weights", "download", "ViT-B-16"], "HF_ENDPOINT", "nowhere".into(), "HF_ENDPOINT"),
        (2, &["weights", "download", "ViT-C"], "HF_ENDPOINT", server.address(), "ViT-L-14-336"),
        (
            2,
            &["weights", "download", "ViT-B-16", "--pretrained", "x"],
            "HF_ENDPOINT",
            server.address(),
            "laion400m_e31",
        ),
        (
            2,
            &["weights", "path", "dinov2_vitb14", "--pretrained", "openai"],
            "HF_ENDPOINT",
            server.address(),
            "only one set",
        ),
    ] {
        let run = musc(folder.path()).env(name, value).args(words).assert().code(code);
        let said = said(&run.get_output().stderr);
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_run_finds_cached_weights_and_says_how_to_get_missing_ones() {
    let folder = tempfile::tempdir().expect("folder");
    let words = ["photos", "--backbone_name", "ViT-B-32", "--pretrained", "laion400m_e31"];
    pictures(&folder.path().join("photos"), 2, false);
    let run = musc(folder.path()).args(words).assert().code(2);
    let message = said(&run.get_output().stderr);
    assert!(
        message.contains("musc-run weights download ViT-B-32 --pretrained laion400m_e31\n"),
        "{message}"
    );
    let place = "models--timm--vit_base_patch32_clip_224.laion400m_e31/snapshots/*/open_clip_model.safetensors";
    assert!(message.contains(place), "{message}");
    // The file is found and opened: it is one of another backbone, and that is what is said.
    let repository = "timm/vit_base_patch32_clip_224.laion400m_e31";
    let path = put(folder.path(), repository, "open_clip_model.safetensors", &whole_weights());
    let run = musc(folder.path()).args(words).assert().code(2);
    let message = said(&run.get_output().stderr);
    assert!(
        message.contains(&path.display().to_string())
            && message.contains("not the weights of ViT-B-32"),
        "{message}"
    );
    let found = musc(folder.path())
        .args(["weights", "path", "ViT-B-32", "--pretrained", "laion400m_e31", "--json"])
        .assert()
        .success();
    let document: serde_json::Value = serde_json::from_slice(&found.get_output().stdout).unwrap();
    assert_eq!(document["path"], path.display().to_string());
    assert_eq!(document["origin"], repository);
    // A file in the working folder comes first.
    std::fs::create_dir(folder.path().join("weights")).unwrap();
    std::fs::write(folder.path().join("weights/ViT-B-32.safetensors"), b"mine").unwrap();
    let found = musc(folder.path())
        .args(["weights", "path", "ViT-B-32", "--pretrained", "laion400m_e31"])
        .assert()
        .success();
    assert_eq!(said(&found.get_output().stdout), "weights/ViT-B-32.safetensors\n");
}
