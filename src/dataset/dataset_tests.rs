use std::fs;

use super::*;

/// An empty file, with its folders: listing opens no image.
fn touch(root: &Path, name: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, b"").unwrap();
}

fn names(words: &[&str]) -> ClassSelection {
    ClassSelection::Names(words.iter().map(|&word| word.to_owned()).collect())
}

fn mvtec(root: &Path, class: &str) {
    for name in ["good/001.png", "good/000.png", "crack/000.png", "crack/001.PNG", "bent/010.png"] {
        touch(root, &format!("{class}/test/{name}"));
    }
    for name in ["crack/000_mask.png", "crack/001_mask.png", "bent/010_mask.png"] {
        touch(root, &format!("{class}/ground_truth/{name}"));
    }
}

fn kinds_and_files(category: &Category) -> Vec<String> {
    let file = |sample: &Sample| layout::file_name(&sample.path);
    category.samples.iter().map(|sample| format!("{}/{}", sample.kind, file(sample))).collect()
}

fn message(result: Result<Vec<Category>>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn mvtec_ad_is_sorted_and_paired_by_name() {
    let root = tempfile::tempdir().unwrap();
    mvtec(root.path(), "grid");
    touch(root.path(), "grid/test/good/.DS_Store");
    touch(root.path(), "grid/test/good/Thumbs.db");
    touch(root.path(), "grid/train/good/000.png");
    let categories = load(DatasetKind::MvtecAd, root.path(), &names(&["grid"])).unwrap();
    let [grid] = categories.as_slice() else { panic!("one class, got {categories:?}") };
    assert_eq!(
        kinds_and_files(grid),
        ["bent/010.png", "crack/000.png", "crack/001.PNG", "good/000.png", "good/001.png"]
    );
    assert_eq!(grid.samples[0].label, Some(true));
    let mask = root.path().join("grid/ground_truth/crack/001_mask.png");
    assert_eq!(grid.samples[2].mask, Mask::File(mask));
    assert_eq!((grid.samples[3].label, &grid.samples[3].mask), (Some(false), &Mask::Normal));
    assert_eq!((grid.mask_rule, &grid.rscin_k), (MaskRule::FullOnly, &vec![1, 2, 3]));
    assert_eq!(grid.ignored, [root.path().join("grid/test/good/Thumbs.db")]);
    assert!(grid.samples.iter().all(|sample| sample.class == "grid"));
}

#[test]
fn all_classes_come_in_the_authors_order() {
    let root = tempfile::tempdir().unwrap();
    for class in DatasetKind::MvtecAd.classes() {
        mvtec(root.path(), class);
    }
    let all = ClassSelection::from_words(&["ALL"]);
    let categories = load(DatasetKind::MvtecAd, root.path(), &all).unwrap();
    let found: Vec<&str> = categories.iter().map(|category| category.name.as_str()).collect();
    assert_eq!(found, DatasetKind::MvtecAd.classes());
    assert!(DatasetKind::ALL.iter().all(|kind| kind.classes().is_sorted()));
    // Named classes come as named, each once.
    let some = load(DatasetKind::MvtecAd, root.path(), &names(&["wood", "cable", "wood"])).unwrap();
    assert_eq!((some[0].name.as_str(), some[1].name.as_str(), some.len()), ("wood", "cable", 2));
    fs::remove_dir_all(root.path().join("pill")).unwrap();
    let text = message(load(DatasetKind::MvtecAd, root.path(), &all));
    assert!(text.contains("no folder CLASS/test for 1 of 15 classes (pill)"), "{text}");
}

#[test]
fn unknown_classes_and_roots_are_named() {
    let root = tempfile::tempdir().unwrap();
    mvtec(root.path(), "grid");
    let text = message(load(DatasetKind::MvtecAd, root.path(), &names(&["gird"])));
    assert!(text.contains("`gird`") && text.contains("bottle, cable"), "{text}");
    let text = message(load(DatasetKind::MvtecAd, root.path(), &names(&[])));
    assert!(text.contains("class: found none"), "{text}");
    let text = message(load(DatasetKind::Btad, &root.path().join("no"), &ClassSelection::All));
    assert!(text.contains("no such folder, expected the data set btad"), "{text}");
    touch(root.path(), "file");
    let text = message(load(DatasetKind::Btad, &root.path().join("file"), &ClassSelection::All));
    assert!(text.contains("is a file"), "{text}");
    assert!(DatasetKind::from_name("mvtec").unwrap_err().to_string().contains("mvtec_ad, visa"));
    assert_eq!(DatasetKind::from_name("btad").unwrap(), DatasetKind::Btad);
    // A class of one's own, in the known layout, is taken.
    mvtec(root.path(), "gearbox");
    let own = load(DatasetKind::MvtecAd, root.path(), &names(&["gearbox"])).unwrap();
    assert_eq!(own[0].samples.len(), 5);
}

#[test]
fn missing_and_spare_masks_are_named() {
    let root = tempfile::tempdir().unwrap();
    let grid = || load(DatasetKind::MvtecAd, root.path(), &names(&["grid"]));
    mvtec(root.path(), "grid");
    touch(root.path(), "grid/ground_truth/crack/009_mask.png");
    let text = message(grid());
    assert!(text.contains("1 masks have no image in") && text.contains("009_mask.png"), "{text}");
    fs::remove_file(root.path().join("grid/ground_truth/crack/009_mask.png")).unwrap();
    fs::remove_file(root.path().join("grid/ground_truth/crack/000_mask.png")).unwrap();
    let text = message(grid());
    assert!(text.contains("no mask for 1 images (000.png)"), "{text}");
    fs::remove_dir_all(root.path().join("grid/ground_truth/bent")).unwrap();
    let text = message(grid());
    assert!(text.contains("bent") && text.contains("no such folder, expected the masks"), "{text}");
    fs::remove_dir_all(root.path().join("grid/test")).unwrap();
    fs::create_dir_all(root.path().join("grid/test/good")).unwrap();
    assert!(message(grid()).contains("no images"));
}

#[test]
fn btad_pairs_images_and_masks_of_different_formats() {
    let root = tempfile::tempdir().unwrap();
    for name in ["test/ok/0001.bmp", "test/ko/0000.bmp", "ground_truth/ko/0000.png"] {
        touch(root.path(), &format!("01/{name}"));
    }
    let categories = load(DatasetKind::Btad, root.path(), &names(&["01"])).unwrap();
    assert_eq!(kinds_and_files(&categories[0]), ["ko/0000.bmp", "ok/0001.bmp"]);
    let labels: Vec<Option<bool>> = categories[0].samples.iter().map(|s| s.label).collect();
    assert_eq!(labels, [Some(true), Some(false)]);
    let mask = root.path().join("01/ground_truth/ko/0000.png");
    assert_eq!(categories[0].samples[0].mask, Mask::File(mask));
}

#[test]
fn long_lists_are_cut() {
    assert_eq!(first_few([1, 2].iter()), "1, 2");
    assert_eq!(first_few((1..=5).collect::<Vec<i32>>().iter()), "1, 2, 3, 4, 5");
    assert_eq!(first_few((1..=7).collect::<Vec<i32>>().iter()), "1, 2, 3, 4, 5 and 2 more");
}
