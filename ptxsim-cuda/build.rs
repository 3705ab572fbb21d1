//! How the library is linked on Linux: under the driver's own name, so that whoever asks the loader for `libcuda.so.1`
//! later gets it; and never unloaded, since programs look whether a driver is there by opening and closing it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
