use std::fs;

use super::*;

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn tree(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        write(root.path(), name, "");
    }
    root
}

fn input(root: &Path, name: &str) -> String {
    root.join(name).to_str().unwrap().to_owned()
}

fn plain(inputs: &[String]) -> Result<Category> {
    collect(inputs, &FolderOptions::default())
}

fn labelled(inputs: &[String]) -> Result<Category> {
    collect(inputs, &FolderOptions::default().with_labels_from_folders(true))
}

fn files(category: &Category) -> Vec<String> {
    category.samples.iter().map(|sample| file_name(&sample.path)).collect()
}

fn labels(category: &Category) -> Vec<Option<bool>> {
    category.samples.iter().map(|sample| sample.label).collect()
}

#[test]
fn a_folder_is_searched_to_its_last_sub_folder() {
    let root = tree(&[
        "b.png",
        "a.JPG",
        "sub/deep/c.tiff",
        "sub/d.bmp",
        "notes.md",
        "sub/e.gif",
        ".hidden.png",
        "__MACOSX/f.png",
        ".cache/g.png",
    ]);
    let category = plain(&[input(root.path(), "")]).unwrap();
    assert_eq!(files(&category), ["a.JPG", "b.png", "d.bmp", "c.tiff"]);
    let kinds: Vec<&str> = category.samples.iter().map(|sample| sample.kind.as_str()).collect();
    assert_eq!(kinds, ["", "", "sub", "sub/deep"]);
    assert_eq!(
        category.ignored.iter().map(|p| file_name(p)).collect::<Vec<_>>(),
        ["notes.md", "e.gif"]
    );
    assert_eq!(labels(&category), [None; 4]);
    assert!(category.samples.iter().all(|sample| sample.mask == Mask::Unknown));
    let name = file_name(root.path());
    assert!(category.name == name && category.samples.iter().all(|sample| sample.class == name));
}

#[test]
fn a_folder_s_other_files_are_left_out_and_named() {
    let root = tree(&[
        "a.png",
        "Thumbs.db",
        ".DS_Store",
        "labels.csv",
        "notes.txt",
        "sub/desktop.ini",
        "sub/b.jpg",
        "README",
    ]);
    let category = plain(&[input(root.path(), "")]).unwrap();
    assert_eq!(files(&category), ["a.png", "b.jpg"]);
    let left_out: Vec<String> = category.ignored.iter().map(|path| file_name(path)).collect();
    assert_eq!(left_out, ["README", "Thumbs.db", "labels.csv", "notes.txt", "desktop.ini"]);
    // A pattern says what it wants: one that finds no image is wrong.
    let text = plain(&[input(root.path(), "*.csv")]).unwrap_err().to_string();
    assert!(text.contains("*.csv: as a pattern it matches no image"), "{text}");
    let mixed = plain(&[input(root.path(), "*.png"), input(root.path(), "*.txt")]);
    assert!(mixed.unwrap_err().to_string().contains("*.txt"));
    // By its name alone a file is taken at its word: reading it says what it is.
    assert_eq!(plain(&[input(root.path(), "README")]).unwrap().samples.len(), 1);
}

#[test]
fn labels_come_from_folders_when_asked() {
    let root = tree(&["good/1.png", "Normal/cam1/2.png", "scratch/3.png", "bad/deep/4.png"]);
    let category = labelled(&[input(root.path(), "")]).unwrap();
    assert_eq!(files(&category), ["2.png", "4.png", "1.png", "3.png"]);
    assert_eq!(labels(&category), [Some(false), Some(true), Some(false), Some(true)]);
    assert_eq!(category.samples[0].mask, Mask::Normal);
    assert_eq!(category.samples[1].mask, Mask::Unknown);
    // The folder given is itself the one of good images.
    assert_eq!(labels(&labelled(&[input(root.path(), "good")]).unwrap()), [Some(false)]);
    write(root.path(), "loose.png", "");
    let error = labelled(&[input(root.path(), "")]).unwrap_err().to_string();
    assert!(error.contains("loose.png") && error.contains("no sub-folder"), "{error}");
}

#[test]
fn patterns_and_files_count_kinds_from_what_they_share() {
    let root = tree(&["good/1.png", "bad/2.png", "bad/notes.md", "3.png"]);
    let category = labelled(&[input(root.path(), "*/*")]).unwrap();
    assert_eq!(files(&category), ["2.png", "1.png"]);
    assert_eq!(labels(&category), [Some(true), Some(false)]);
    assert_eq!(category.ignored.len(), 1);
    let by_name = labelled(&[input(root.path(), "bad/2.png"), input(root.path(), "good/1.png")]);
    let by_name = by_name.unwrap();
    assert_eq!(by_name.name, "images");
    assert_eq!(by_name.samples[0].kind, "bad");
    assert_eq!(labels(&by_name), [Some(true), Some(false)]);
    assert_eq!(files(&plain(&[input(root.path(), "**/*.png")]).unwrap()).len(), 3);
}

#[test]
fn duplicates_are_scored_once_and_named() {
    let root = tree(&["a.png", "sub/b.png"]);
    let twice = input(root.path(), "sub/../a.png");
    let category =
        plain(&[input(root.path(), ""), twice.clone(), input(root.path(), "sub")]).unwrap();
    assert_eq!(files(&category), ["a.png", "b.png"]);
    assert_eq!(category.duplicates.len(), 2);
    assert!(category.duplicates.contains(&PathBuf::from(twice)));
}

#[test]
fn a_text_list_starts_at_its_folder() {
    let root = tree(&["images/good/a.png", "images/b.png"]);
    write(root.path(), "images/list.txt", "\u{feff}b.png\r\n\r\n  good/a.png\r\n");
    for name in [
        input(root.path(), "images/list.txt"),
        format!("@{}", input(root.path(), "images/list.txt")),
    ] {
        let category = plain(&[name]).unwrap();
        assert_eq!(files(&category), ["b.png", "a.png"]);
        assert_eq!(category.samples[1].kind, "good");
    }
}

#[test]
fn a_table_gives_labels_and_masks() {
    let root = tree(&["1.png", "2.png", "3.png", "4.png", "masks/2.png"]);
    let table = "path,label,mask\n1.png,0,\n2.png,anomaly,masks/2.png\n3.png,Good,\n4.png,,\n";
    write(root.path(), "list.csv", table);
    let category = plain(&[input(root.path(), "list.csv")]).unwrap();
    assert_eq!(labels(&category), [Some(false), Some(true), Some(false), None]);
    let masks: Vec<&Mask> = category.samples.iter().map(|sample| &sample.mask).collect();
    let mask = Mask::File(root.path().join("masks/2.png"));
    assert_eq!(masks, [&Mask::Normal, &mask, &Mask::Normal, &Mask::Unknown]);
    // Together with its folder, the labels stay.
    let both = plain(&[input(root.path(), ""), input(root.path(), "list.csv")]).unwrap();
    let labels: Vec<Option<bool>> = labels(&both).into_iter().take(4).collect();
    assert_eq!(labels, [Some(false), Some(true), Some(false), None]);
}

#[test]
fn bad_lists_say_what_is_wrong() {
    let root = tree(&["1.png", "2.png"]);
    let message = |text: &str, name: &str| {
        write(root.path(), name, text);
        plain(&[input(root.path(), name)]).unwrap_err().to_string()
    };
    assert!(
        message("file,label\n1.png,0\n", "a.csv").contains("no column `path`, found `file,label`")
    );
    assert!(
        message("path,label\n1.png,0\n2.png,maybe\n", "b.csv").contains("line 3: label `maybe`")
    );
    assert!(message("path,label\n,0\n", "c.csv").contains("line 2: no path"));
    assert!(
        message("path,label,mask\n1.png,1,m.png\n", "d.csv")
            .contains("1 files of the list are missing")
    );
    assert!(message("1.png\n3.png\n4.png\n", "e.txt").contains("2 files of the list are missing"));
    assert!(message("\n\n", "f.txt").contains("names no image"));
    assert!(message("path,label\n1.png,0\n1.png,1\n", "g.csv").contains("given twice"));
    assert!(message("path,label\n1.png,0,9,9\n", "h.csv").contains("h.csv"));
    fs::write(root.path().join("i.txt"), [b'a', 0xFF, 0xFE]).unwrap();
    let text = plain(&[input(root.path(), "i.txt")]).unwrap_err().to_string();
    assert!(text.contains("byte 1 is not UTF-8"), "{text}");
    let text = plain(&[format!("@{}", input(root.path(), "absent.txt"))]).unwrap_err().to_string();
    assert!(text.contains("cannot read") && text.contains("absent.txt"), "{text}");
}

#[test]
fn nothing_found_is_an_error() {
    let root = tree(&["notes.md"]);
    assert!(plain(&[]).unwrap_err().to_string().contains("found none"));
    let text = plain(&[input(root.path(), "")]).unwrap_err().to_string();
    assert!(
        text.contains("no images, and 1 other file; expected") && text.contains(".png, .jpg"),
        "{text}"
    );
    let text = plain(&[input(root.path(), "absent")]).unwrap_err().to_string();
    assert!(text.contains("absent: no such file or folder"), "{text}");
    let text = plain(&[input(root.path(), "*.png")]).unwrap_err().to_string();
    assert!(text.contains("matches no file"), "{text}");
    let text = plain(&[input(root.path(), "[.png")]).unwrap_err().to_string();
    assert!(text.contains("pattern"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_link_to_the_folder_above_ends() {
    let root = tree(&["sub/a.png"]);
    std::os::unix::fs::symlink(root.path(), root.path().join("sub/up")).unwrap();
    assert_eq!(files(&plain(&[input(root.path(), "")]).unwrap()), ["a.png"]);
}
