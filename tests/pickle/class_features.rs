//! Class features that NumPy pickled.

use std::path::Path;

use musc::model::pickle::{ClassFeatures, class_features_of_bytes, is_pickle, read_class_features};

use crate::support::data;

/// Numbers from 0 in eighths, three tokens of four: the fixtures' `half`.
fn half() -> ClassFeatures {
    let tokens = (0..12).map(|at| at as f32 / 8.0).collect();
    ClassFeatures { images: 3, width: 4, tokens }
}

fn refused(name: &str, category: Option<&str>) -> String {
    let reason = read_class_features(&data(name), category).expect_err(name).to_string();
    assert!(reason.contains(name), "{reason}");
    reason
}

#[test]
fn features_by_category_are_read_in_every_protocol() {
    for protocol in 2..=5 {
        let path = data(&format!("features_{protocol}.dat"));
        let read = |category| read_class_features(&path, Some(category)).expect("features");
        assert_eq!(read("bottle"), half(), "{protocol}");
        // f64, and the first index running fastest in the file.
        let tokens = (0..8).map(|at| at as f32 - 4.0).collect();
        assert_eq!(read("cable"), ClassFeatures { images: 2, width: 4, tokens }, "{protocol}");
        assert!(is_pickle(&std::fs::read(&path).expect("read")));
    }
}

#[test]
fn arrays_and_lists_of_them_are_read() {
    for name in ["array", "list", "rows", "rows_1", "big_endian"] {
        let read = read_class_features(&data(&format!("{name}.dat")), None).expect(name);
        assert_eq!(read, half(), "{name}");
    }
    let integers = read_class_features(&data("integers.dat"), None).expect("integers");
    assert_eq!(integers.tokens, (-6..6).map(|at| at as f32).collect::<Vec<_>>());
}

#[test]
fn what_is_something_else_is_refused() {
    for (name, category, part) in [
        ("features_4.dat", None, "name the one wanted of: bottle, cable"),
        ("features_4.dat", Some("grid"), "no category `grid`; there are bottle, cable"),
        ("array.dat", Some("bottle"), "expected a dict of arrays by category"),
        ("objects.dat", None, "type `O8`"),
        ("cube.dat", None, "shape [2, 2, 2], expected [N,E]"),
        ("nan.dat", None, "the value at [0, 1] is infinite or not a number"),
        ("ragged.dat", None, "arrays of 2 and 3 values"),
        ("vit.pth", None, "not a pickle"),
        ("legacy.pth", None, "expected an array"),
    ] {
        let message = refused(name, category);
        assert!(message.contains(part), "{part} in {message}");
    }
    let absent = read_class_features(Path::new("no/such.dat"), None).expect_err("absent");
    assert!(absent.to_string().contains("no/such.dat"));
}

#[test]
fn a_features_file_cut_anywhere_is_refused() {
    let whole = std::fs::read(data("features_4.dat")).expect("read");
    for size in 0..whole.len() {
        assert!(class_features_of_bytes("cut", &whole[..size], Some("bottle")).is_err(), "{size}");
    }
}
