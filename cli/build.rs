//! Puts into the programs what lies beside them in the repository and not in their package: the default weights and the
//! sample images (`cfg(built_in)`), and the commit.
//!
//! Without `weights/dinov2_vits14.safetensors` and `assets/textile/`, as in a package from a registry, the programs are built
//! without both and say how weights are got.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(built_in)");
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default().join("..");
    let weights = root.join("weights/dinov2_vits14.safetensors");
    let images = root.join("assets/textile");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", weights.display());
    println!("cargo::rerun-if-changed={}", images.display());
    if weights.is_file() && images.is_dir() {
        println!("cargo::rustc-cfg=built_in");
    }
    println!("cargo::rustc-env=MUSC_COMMIT={}", commit(&root).unwrap_or_else(|| "release".into()));
}

/// The commit of the repository that holds this package, or nothing outside one.
fn commit(root: &Path) -> Option<String> {
    // A package from a registry may lie inside somebody else's repository.
    if !root.join("kernels/common/params.h").is_file() {
        return None;
    }
    let git = |args: &[&str]| {
        let run = Command::new("git").current_dir(root).args(args).output().ok()?;
        run.status.success().then(|| String::from_utf8_lossy(&run.stdout).trim().to_string())
    };
    let head = git(&["rev-parse", "--git-path", "HEAD"])?;
    println!("cargo::rerun-if-changed={}", root.join(head).display());
    if let Some(branch) = git(&["symbolic-ref", "-q", "HEAD"])
        && let Some(file) = git(&["rev-parse", "--git-path", &branch])
    {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
    git(&["rev-parse", "--short=10", "HEAD"]).filter(|commit| !commit.is_empty())
}
