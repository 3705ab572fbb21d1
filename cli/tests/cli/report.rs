//! `report.html`, its plots, and the review that comes back.

use crate::support::{TINY, json, musc, mvtec, picture, pictures, stderr, stdout};

#[test]
fn a_folder_gets_a_page_with_every_image_inside() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 9, false);
    let hostile = "<script>\"&'.png";
    picture(&folder.path().join("photos").join(hostile), 3, true);
    let run = |extra: &[&str]| {
        musc(folder.path()).args(["photos", "--device", "cpu"]).args(TINY).args(extra).assert()
    };
    let first = run(&[]).success();
    assert!(stdout(&first).contains("output/folder/photos/report.html"), "{}", stdout(&first));
    let root = folder.path().join("output/folder/photos");
    let page = std::fs::read_to_string(root.join("report.html")).expect("page");
    assert_eq!(page.matches("<article").count(), 10);
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), 10);
    assert_eq!(page.matches("<script").count(), 1);
    // Ranked first, and by its whole name.
    let article = page.split("<article").nth(1).expect("article");
    let path = "data-path=\"&quot;photos/&lt;script&gt;\\&quot;&amp;'.png&quot;\"";
    assert!(article.contains(path), "{}", &article[..400.min(article.len())]);
    assert!(root.join("scores.svg").is_file());
    assert!(!root.join("roc.svg").exists() && !root.join("report_files").exists());
    // It is one of the files that another run would replace.
    for name in ["run.json", "scores.csv", "sheet.png", "scores.svg", "defects.json"] {
        std::fs::remove_file(root.join(name)).expect("remove");
    }
    std::fs::remove_dir_all(root.join("maps")).expect("remove");
    let refused = run(&[]).code(2);
    assert!(stderr(&refused).contains("report.html"), "{}", stderr(&refused));
    // Without it, a page of other scores does not stay.
    run(&["--overwrite", "--report", "False"]).success();
    assert!(!root.join("report.html").exists());
    assert_eq!(json(&root.join("run.json"))["output"]["report"], false);
}

#[test]
fn a_review_comes_back_as_labels() {
    let folder = tempfile::tempdir().expect("folder");
    pictures(&folder.path().join("photos"), 8, false);
    picture(&folder.path().join("photos/=odd.png"), 3, true);
    picture(&folder.path().join("photos/more.png"), 4, true);
    let table = folder.path().join("review.csv");
    let run = |text: &str| {
        std::fs::write(&table, text).expect("write");
        musc(folder.path())
            .args(["photos", "--labels", "review.csv", "--overwrite", "--device", "cpu"])
            .args(TINY)
            .assert()
    };
    let rows = "path,label,review\n'photos/=odd.png,1,NG\nphotos/more.png,1,NG\nphotos/000.png,0,OK\nphotos/001.png,0,OK\n\
                photos/002.png,,unsure\nphotos/003.png,,\n";
    let done = run(&rows.replace("'photos", "photos")).success();
    assert!(stderr(&done).contains("of the 4 of 10 images"), "{}", stderr(&done));
    let root = folder.path().join("output/folder/photos");
    assert_eq!(json(&root.join("metrics.json"))["mean"]["image_auroc"], 1.0);
    assert_eq!(json(&root.join("run.json"))["source"]["labels"], "review.csv");
    let scores = std::fs::read_to_string(root.join("scores.csv")).expect("scores");
    assert!(scores.contains("photos/=odd.png,photos,1,"), "{scores}");
    assert!(scores.contains("photos/001.png,photos,0,"), "{scores}");
    assert!(scores.contains("photos/002.png,photos,,"), "{scores}");
    let page = std::fs::read_to_string(root.join("report.html")).expect("page");
    assert!(page.contains("Figures against the labels") && page.contains("curve-plot"));
    assert!(root.join("roc.svg").is_file() && root.join("pr.svg").is_file());
    // The curves of labels that are gone go too.
    run("path,review\nphotos/000.png,unsure\n").success();
    for name in ["roc.svg", "pr.svg", "metrics.json"] {
        assert!(!root.join(name).exists(), "{name}");
    }
    for (text, words) in [
        ("path,review\nphotos/000.png,OK\nother.png,NG\n", ["line 3", "`other.png`"]),
        ("path,review\nphotos/000.png,OK\n./photos/000.png,NG\n", ["line 3", "line 2"]),
        ("path,review\nphotos/000.png,fine\n", ["line 2", "`fine`"]),
        ("image,review\n", ["`image,review`", "`path`"]),
    ] {
        let said = stderr(&run(text).code(2));
        for word in words.iter().chain(&["review.csv"]) {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
    let said =
        stderr(&musc(folder.path()).args(["photos", "--labels", "folders"]).assert().code(2));
    assert!(said.contains("from-folders") && said.contains(".csv"), "{said}");
}

#[test]
fn a_data_set_gets_a_page_where_one_is_asked_for() {
    let folder = tempfile::tempdir().expect("folder");
    mvtec(&folder.path().join("data"), &["bottle", "cable"]);
    musc(folder.path())
        .args([
            "--dataset_name",
            "mvtec_ad",
            "--data_path",
            "data",
            "--device",
            "cpu",
            "--report",
            "True",
        ])
        .args(["--class_name", "bottle", "cable"])
        .args(TINY)
        .assert()
        .success();
    let root = folder.path().join("output/mvtec_ad/dinov2_tiny_weights/imagesize56");
    let page = std::fs::read_to_string(root.join("report.html")).expect("page");
    assert_eq!(page.matches("<article").count(), 22);
    assert_eq!(page.matches("<figure class=\"histogram\"").count(), 2);
    for class in ["bottle", "cable"] {
        for plot in ["scores.svg", "roc.svg", "pr.svg"] {
            assert!(root.join(class).join(plot).is_file(), "{class}/{plot}");
        }
    }
}
