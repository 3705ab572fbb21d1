//! Puts the default weights into the extension module (`cfg(built_in)`) where they lie beside it in the repository. Without
//! `weights/dinov2_vits14.safetensors`, as in a source package, it is built without them and says how weights are got.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(built_in)");
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let weights = root.join("../../weights/dinov2_vits14.safetensors");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", weights.display());
    if weights.is_file() {
        println!("cargo::rustc-cfg=built_in");
    }
}
