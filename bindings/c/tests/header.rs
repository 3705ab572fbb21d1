//! `include/musc.h` is what cbindgen makes of the sources: `MUSC_WRITE_HEADER=1 cargo test -p musc-c --test header` writes it.

use std::path::Path;

/// The sources with items of the header, in its order.
const SOURCES: [&str; 10] = [
    "status",
    "handle",
    "progress",
    "options",
    "batch",
    "inspector",
    "inspection",
    "bank",
    "predictor",
    "scores",
];

const HEAD: &str = include_str!("../include/head.h.in");

#[test]
fn the_header_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config =
        cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    config.header = Some(HEAD.trim_end().to_string());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for name in SOURCES {
        builder = builder.with_src(root.join(format!("src/{name}.rs")));
    }
    let mut made = Vec::new();
    builder.generate().expect("the sources are understood").write(&mut made);
    let made = String::from_utf8(made).expect("UTF-8");
    let path = root.join("include/musc.h");
    if std::env::var_os("MUSC_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("the header is in the repository");
    let differs = made.lines().zip(kept.lines()).position(|(made, kept)| made != kept);
    assert!(
        made == kept,
        "include/musc.h differs from line {:?} on: MUSC_WRITE_HEADER=1 makes it anew",
        differs.map(|at| at + 1)
    );
}
