use std::fs;

use super::super::{MaskRule, load};
use super::*;

const TABLE: &str = "object,split,label,image,mask\n\
    candle,train,normal,candle/Data/Images/Normal/0000.JPG,\n\
    candle,test,normal,candle/Data/Images/Normal/0005.JPG,\n\
    candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png\n\
    candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n\
    pcb1,test,normal,pcb1/Data/Images/Normal/0000.JPG,\n";

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn root_with_files() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in [
        "candle/Data/Images/Normal/0005.JPG",
        "candle/Data/Images/Anomaly/000.JPG",
        "candle/Data/Images/Anomaly/001.JPG",
        "candle/Data/Masks/Anomaly/000.png",
        "candle/Data/Masks/Anomaly/001.png",
        "pcb1/Data/Images/Normal/0000.JPG",
    ] {
        write(root.path(), name, "");
    }
    root
}

fn select(names: &[&str]) -> ClassSelection {
    ClassSelection::Names(names.iter().map(|&name| name.to_owned()).collect())
}

fn message(root: &Path, names: &[&str]) -> String {
    load(DatasetKind::Visa, root, &select(names)).unwrap_err().to_string()
}

#[test]
fn the_table_gives_the_test_split_in_its_order() {
    let root = root_with_files();
    write(root.path(), "split_csv/1cls.csv", TABLE);
    let categories = load(DatasetKind::Visa, root.path(), &select(&["pcb1", "candle"])).unwrap();
    assert_eq!(categories[0].name, "pcb1");
    let candle = &categories[1];
    assert_eq!((candle.mask_rule, &candle.rscin_k), (MaskRule::AnyPositive, &vec![1, 8, 9]));
    let found: Vec<(&str, Option<bool>, bool)> = candle
        .samples
        .iter()
        .map(|s| (s.kind.as_str(), s.label, matches!(s.mask, Mask::File(_))))
        .collect();
    assert_eq!(
        found,
        [
            ("Normal", Some(false), false),
            ("Anomaly", Some(true), true),
            ("Anomaly", Some(true), true)
        ]
    );
    assert!(candle.samples[1].path.ends_with("candle/Data/Images/Anomaly/001.JPG"));
    let mask = root.path().join("candle/Data/Masks/Anomaly/001.png");
    assert_eq!(candle.samples[1].mask, Mask::File(mask));
}

#[test]
fn meta_json_gives_the_same() {
    let root = root_with_files();
    write(root.path(), "split_csv/1cls.csv", TABLE);
    let from_table = load(DatasetKind::Visa, root.path(), &select(&["candle", "pcb1"])).unwrap();
    // The layout that the authors' script writes.
    let row = |image: &str, mask: &str, anomaly: u8| {
        serde_json::json!({ "img_path": image, "mask_path": mask, "cls_name": "candle",
            "specie_name": "", "anomaly": anomaly })
    };
    let meta = serde_json::json!({
        "train": { "candle": [], "pcb1": [] },
        "test": {
            "candle": [
                row("candle/Data/Images/Normal/0005.JPG", "", 0),
                row("candle/Data/Images/Anomaly/001.JPG", "candle/Data/Masks/Anomaly/001.png", 1),
                row("candle/Data/Images/Anomaly/000.JPG", "candle/Data/Masks/Anomaly/000.png", 1),
            ],
            "pcb1": [row("pcb1/Data/Images/Normal/0000.JPG", "", 0)],
        },
    });
    fs::remove_dir_all(root.path().join("split_csv")).unwrap();
    write(root.path(), "meta.json", &meta.to_string());
    let from_meta = load(DatasetKind::Visa, root.path(), &select(&["candle", "pcb1"])).unwrap();
    assert_eq!(from_meta, from_table);
}

#[test]
fn bad_tables_say_what_is_wrong() {
    let root = root_with_files();
    let text = message(root.path(), &["candle"]);
    assert!(text.contains("neither meta.json nor split_csv/1cls.csv"), "{text}");

    write(root.path(), "split_csv/1cls.csv", "object,split,image\ncandle,test,a.png\n");
    let text = message(root.path(), &["candle"]);
    assert!(text.contains("no column `label`") && text.contains("object,split,image"), "{text}");

    write(root.path(), "split_csv/1cls.csv", &TABLE.replace("test,normal", "test,fine"));
    let text = message(root.path(), &["candle"]);
    assert!(text.contains("line 3: label `fine`"), "{text}");

    write(root.path(), "split_csv/1cls.csv", &format!("{TABLE}candle,test\n"));
    assert!(message(root.path(), &["candle"]).contains("line 7"));

    write(root.path(), "split_csv/1cls.csv", TABLE);
    let text = message(root.path(), &["candles"]);
    assert!(text.contains("`candles`") && text.contains("candle, capsules"), "{text}");
    let text = message(root.path(), &["cashew"]);
    assert!(text.contains("no test image of class cashew"), "{text}");

    let unmasked = TABLE.replace("candle/Data/Masks/Anomaly/001.png", "");
    write(root.path(), "split_csv/1cls.csv", &unmasked);
    let text = message(root.path(), &["candle"]);
    assert!(text.contains("no mask for the defective image candle/Data"), "{text}");

    write(root.path(), "split_csv/1cls.csv", TABLE);
    fs::remove_file(root.path().join("candle/Data/Masks/Anomaly/001.png")).unwrap();
    fs::remove_file(root.path().join("candle/Data/Images/Normal/0005.JPG")).unwrap();
    let text = message(root.path(), &["candle"]);
    assert!(text.contains("2 files that 1cls.csv names are missing"), "{text}");
    assert!(text.contains("Masks/Anomaly/001.png"), "{text}");

    write(root.path(), "meta.json", "{\"train\": {}}");
    let text = message(root.path(), &["candle"]);
    assert!(text.contains("meta.json") && text.contains("missing field `test`"), "{text}");
}
