//! Puts the default weights into the library where they lie in the repository (`cfg(built_in)`), as `cli/build.rs` does, and gives
//! the shared library its name and its version.

use std::env;
use std::path::PathBuf;

/// The number in `libmusc.so.N`: [`MUSC_ABI_VERSION`](src/lib.rs), which a test compares.
const ABI_VERSION: u32 = 1;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(built_in)");
    println!("cargo::rustc-env=MUSC_SONAME_VERSION={ABI_VERSION}");
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let weights = root.join("../../weights/dinov2_vits14.safetensors");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", weights.display());
    if weights.is_file() {
        println!("cargo::rustc-cfg=built_in");
    }
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmusc.so.{ABI_VERSION}");
        // Threads end after the last handle is freed, not before: the code they run has to stay when a host unloads it.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
