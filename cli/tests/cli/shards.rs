//! One job by many processes: shards in any order and number, killed ones, stores that do not fit, and the merge.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use assert_cmd::assert::Assert;

use crate::support::{TINY, files, json, musc, mvtec, picture, pictures, stderr, stdout};

const PLAIN: [&str; 4] = ["--vis", "False", "--report", "False"];

/// A share of a job, or the whole.
fn inspect(folder: &Path, words: &[&str], shard: &str) -> Assert {
    let store = ["--shard", shard, "--store", "store"];
    musc(folder).arg("inspect").args(words).args(TINY).args(PLAIN).args(store).assert()
}

fn merge(folder: &Path, words: &[&str]) -> Assert {
    musc(folder).args(["merge", "store"]).args(words).assert()
}

fn bytes(folder: &Path, output: &str, name: &str) -> Vec<u8> {
    let root = folder.join(output);
    let found = files(&root).into_iter().find(|path| path.ends_with(name));
    std::fs::read(root.join(found.expect(name))).expect("read")
}

/// What one process makes, for comparing.
fn whole(folder: &Path, words: &[&str]) {
    let output = ["--output-dir", "whole"];
    musc(folder).args(words).args(TINY).args(PLAIN).args(output).assert().success();
}

fn is_the_whole(folder: &Path, output: &str) {
    for name in ["scores.csv", "defects.json"] {
        assert!(bytes(folder, output, name) == bytes(folder, "whole", name), "{output} {name}");
    }
}

#[test]
fn any_number_of_shards_in_any_order_makes_the_same_files() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 37, false);
    picture(&here.join("photos/sub/x,\"y.png"), 5, true);
    let words = ["photos", "--references", "6"];
    whole(here, &words);
    for (count, order) in
        [(1, vec![0]), (2, vec![1, 0]), (3, vec![2, 0, 1]), (7, vec![3, 6, 0, 5, 1, 2, 4])]
    {
        for (turn, shard) in order.iter().enumerate() {
            let told = stderr(&merge(here, &[]).code(if turn == 0 { 2 } else { 3 }));
            match turn {
                0 => assert!(told.contains("store"), "{told}"),
                _ => assert!(told.contains("parts are missing: "), "{told}"),
            }
            inspect(here, &words, &format!("{shard}/{count}")).success();
        }
        let output = format!("by {count}");
        merge(here, &["--output-dir", &output]).success();
        is_the_whole(here, &output);
        std::fs::remove_dir_all(here.join("store")).expect("remove");
    }
    // Without a shard it is the run itself.
    let plain = ["inspect", "photos", "--references", "6", "--output-dir", "plain"];
    musc(here).args(plain).args(TINY).args(PLAIN).assert().success();
    is_the_whole(here, "plain");
}

#[test]
fn a_merge_takes_the_shards_settings_and_its_own_output() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos/good"), 9, false);
    pictures(&here.join("photos/broken"), 3, true);
    let words = [
        "photos",
        "--references",
        "4",
        "--labels",
        "from-folders",
        "--decide",
        "f1",
        "--fail-on-ng",
    ];
    musc(here).args(words).args(TINY).args(["--output-dir", "whole"]).args(PLAIN).assert().code(4);
    for shard in ["0/2", "1/2"] {
        inspect(here, &words, shard).success();
    }
    // From another folder, and more written than the shards were asked for.
    let away = tempfile::tempdir().expect("folder");
    let store = here.join("store").display().to_string();
    let done = musc(away.path())
        .args(["merge", &store, "--output-dir", "here", "--report", "True", "--json"])
        .assert()
        .code(4);
    assert!(stderr(&done).contains("paths count from"));
    let document: serde_json::Value = serde_json::from_str(&stdout(&done)).expect("json");
    assert_eq!(
        document["metrics"]["rows"].as_array().map(Vec::len).is_some(),
        document["metrics"]["rows"].is_array()
    );
    for name in ["scores.csv", "metrics.json"] {
        assert!(bytes(away.path(), "here", name) == bytes(here, "whole", name), "{name}");
    }
    assert!(!bytes(away.path(), "here", "report.html").is_empty());
    let run = files(&away.path().join("here")).into_iter().find(|path| path.ends_with("run.json"));
    let run = json(&away.path().join("here").join(run.expect("run.json")));
    let notes = run["notes"].to_string();
    assert!(notes.contains("merged of 3 parts") && notes.contains("--shard 0/2"), "{notes}");
    assert_eq!(run["images"]["photos"], 12);
}

#[test]
fn categories_and_known_images_are_shared_out_too() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    mvtec(&here.join("mvtec"), &["bottle", "cable"]);
    let mut words = vec!["--dataset_name", "mvtec_ad", "--data_path", "mvtec", "--divide_num", "2"];
    words.extend(["--class_name", "bottle", "cable"]);
    whole(here, &words);
    for shard in ["2/3", "1/3", "0/3"] {
        inspect(here, &words, shard).success();
    }
    assert!(here.join("store/cable/part-00001-of-00002.safetensors").is_file());
    std::fs::remove_file(here.join("store/cable/part-00001-of-00002.safetensors")).expect("remove");
    let told = stderr(&merge(here, &[]).code(3));
    assert!(told.contains("store/cable: 1 of 2 parts are missing: 1;"), "{told}");
    inspect(here, &words, "1/2").success();
    merge(here, &["--output-dir", "merged"]).success();
    for name in ["scores.csv", "metrics.json"] {
        assert!(bytes(here, "merged", name) == bytes(here, "whole", name), "{name}");
    }
    // Of categories of one part each, every shard gets some.
    std::fs::remove_dir_all(here.join("store")).expect("remove");
    let words: Vec<&str> = words.iter().map(|&word| if word == "2" { "1" } else { word }).collect();
    for shard in ["0/2", "1/2"] {
        let done = stdout(&inspect(here, &words, shard).success());
        assert!(done.contains("1 parts made, 0 found"), "{done}");
    }

    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("good"), 8, false);
    pictures(&here.join("new"), 70, false);
    picture(&here.join("new/ng.png"), 3, true);
    let words = ["new", "--references", "good"];
    whole(here, &words);
    inspect(here, &words, "1/2").success();
    assert!(here.join("store/references.bank.safetensors").is_file());
    inspect(here, &words, "0/2").success();
    merge(here, &["--output-dir", "merged"]).success();
    is_the_whole(here, "merged");
    // Other known images are another job.
    picture(&here.join("other/1.png"), 3, false);
    picture(&here.join("other/2.png"), 4, false);
    let told = stderr(&inspect(here, &["new", "--references", "other"], "0/2").code(2));
    assert!(told.contains("other references"), "{told}");
    let told = stderr(&inspect(here, &["new", "--references", "all+good"], "0/2").code(2));
    assert!(told.contains("all+good"), "{told}");
}

#[test]
fn shards_of_another_job_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 12, false);
    let words = ["photos", "--references", "4"];
    inspect(here, &words, "0/2").success();
    let told =
        stderr(&inspect(here, &["photos", "--references", "4", "--r-list", "1"], "1/2").code(2));
    assert!(told.contains("aggregation degrees [1, 3, 5], this job [1]"), "{told}");
    picture(&here.join("photos/0055.png"), 3, false);
    let told = stderr(&inspect(here, &words, "1/2").code(2));
    assert!(told.contains("images whose first other one (path,bytes) is 006.png"), "{told}");
    std::fs::remove_file(here.join("photos/0055.png")).expect("remove");
    inspect(here, &words, "1/2").success();
    // An image that changed after the shards is no part of what they made.
    picture(&here.join("photos/003.png"), 103, true);
    let told = stderr(&merge(here, &[]).code(2));
    assert!(told.contains("003.png"), "{told}");
    // Half of the options, numbers that cannot be, a folder that is no store, words of another hand.
    for (options, named) in [
        (&["--shard", "2/2", "--store", "store"][..], "shard 2 of 2"),
        (&["--shard", "x", "--store", "store"], "I/N"),
        (&["--shard", "0/2"], "--store"),
        (&["--store", "store"], "--shard"),
        (&["--shard", "auto", "--store", "store"], "nothing that tells"),
    ] {
        let done = musc(here).args(["inspect", "photos"]).args(TINY).args(options).assert().code(2);
        assert!(stderr(&done).contains(named), "{}", stderr(&done));
    }
    let told = stderr(&musc(here).args(["merge", "photos"]).assert().code(2));
    assert!(told.contains("found no manifest"), "{told}");
    let path = here.join("store/manifest.json");
    let text = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, text.replace("\"inspect\"", "\"predict\"")).expect("write");
    let told = stderr(&merge(here, &[]).code(2));
    assert!(told.contains("arguments"), "{told}");
}

#[test]
fn the_environment_says_which_shard() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 12, false);
    let auto = |variables: &[(&str, &str)]| {
        let words =
            ["inspect", "photos", "--references", "4", "--shard", "auto", "--store", "store"];
        let mut program = musc(here);
        program.args(words).args(TINY).args(PLAIN);
        for (name, value) in variables {
            program.env(name, value);
        }
        program.assert()
    };
    let told = auto(&[
        ("SLURM_ARRAY_TASK_ID", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "2"),
        ("SLURM_ARRAY_TASK_MIN", "1"),
    ]);
    let told = stderr(&told.success());
    assert!(told.contains("shard 1 of 2, by SLURM_ARRAY_TASK_ID=2"), "{told}");
    auto(&[("JOB_COMPLETION_INDEX", "0"), ("MUSC_SHARDS", "2")]).success();
    merge(here, &[]).success();
    let told = stderr(&auto(&[("MUSC_SHARD", "0/2"), ("RANK", "1"), ("WORLD_SIZE", "2")]).code(2));
    assert!(told.contains("MUSC_SHARD=0/2") && told.contains("RANK=1"), "{told}");
}

#[test]
fn damaged_parts_are_made_again() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 15, false);
    let words = ["photos", "--references", "4"];
    whole(here, &words);
    inspect(here, &words, "0/1").success();
    let part = here.join("store/part-00001-of-00003.safetensors");
    let mut content = std::fs::read(&part).expect("read");
    *content.last_mut().expect("bytes") ^= 1;
    std::fs::write(&part, &content).expect("write");
    let told = stderr(&merge(here, &["--output-dir", "merged"]).code(2));
    assert!(told.contains("part-00001") && told.contains("not those that were written"), "{told}");
    let again = inspect(here, &words, "0/1").success();
    assert!(stderr(&again).contains("made again"), "{}", stderr(&again));
    assert!(stdout(&again).contains("1 parts made, 2 found"), "{}", stdout(&again));
    merge(here, &["--output-dir", "merged"]).success();
    is_the_whole(here, "merged");
}

/// A shard as a process of its own.
fn start(folder: &Path, words: &[&str], shard: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_musc-run"))
        .current_dir(folder)
        .env("CUDA_VISIBLE_DEVICES", "")
        .arg("inspect")
        .args(words)
        .args(TINY)
        .args(PLAIN)
        .args(["--shard", shard, "--store", "store"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn")
}

#[test]
fn shards_that_are_killed_go_on_where_they_were() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 90, false);
    let words = ["photos", "--references", "4"];
    whole(here, &words);
    // At whatever moment: nothing, some parts, an unfinished file, all of it.
    for wait in [15, 40, 70, 110, 160, 230] {
        let mut shards = [start(here, &words, "0/2"), start(here, &words, "1/2")];
        std::thread::sleep(Duration::from_millis(wait));
        for shard in &mut shards {
            // It may be done.
            let _ = shard.kill();
            shard.wait().expect("wait");
        }
    }
    for shard in ["0/2", "1/2"] {
        inspect(here, &words, shard).success();
    }
    merge(here, &["--output-dir", "merged"]).success();
    is_the_whole(here, "merged");
}

#[test]
fn all_against_all_is_shared_out_by_blocks() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 21, false);
    picture(&here.join("photos/ng.png"), 3, true);
    let words = ["photos", "--references", "all", "--ignore-border", "2"];
    whole(here, &words);
    for count in [1, 2, 5] {
        let output = format!("by {count}");
        // Nobody has extracted: each makes its own tokens, and the last finds all.
        for shard in 0..count {
            let done = inspect(here, &words, &format!("{shard}/{count}"));
            if shard + 1 < count {
                let told = stderr(&done.code(3));
                assert!(told.contains("store/tokens: tokens of "), "{told}");
            } else {
                done.success();
            }
        }
        let told = stderr(&merge(here, &[]).code(if count == 1 { 0 } else { 3 }));
        assert_eq!(told.contains("parts are missing"), count > 1, "{told}");
        // Another number of shards does as well.
        for shard in ["1/2", "0/2"] {
            inspect(here, &words, shard).success();
        }
        merge(here, &["--output-dir", &output]).success();
        is_the_whole(here, &output);
        std::fs::remove_dir_all(here.join("store")).expect("remove");
        let _ = std::fs::remove_dir_all(here.join("output"));
    }
}

#[test]
fn tokens_are_extracted_first_and_read_by_all() {
    let folder = tempfile::tempdir().expect("folder");
    let here = folder.path();
    pictures(&here.join("photos"), 17, false);
    std::fs::write(here.join("photos/zz.png"), b"no image").expect("write");
    let words = ["photos", "--references", "all", "--skip-bad", "--max-table-memory", "1k"];
    whole(here, &words);
    let extract = |shard: &str| {
        let store = ["--skip-bad", "--shard", shard, "--store", "store"];
        musc(here).args(["extract", "photos"]).args(TINY).args(store).assert().success()
    };
    assert!(stdout(&extract("1/2")).contains("tokens of 4 blocks made, of 0 found"));
    assert!(stdout(&extract("0/2")).contains("9 blocks 0 are missing"));
    // Whole blocks are found; a damaged one is made again by its shard, and told of by the others.
    assert!(stdout(&extract("0/2")).contains("tokens of 0 blocks made, of 5 found"));
    let block = here.join("store/tokens/block-00002-of-00009.safetensors");
    let mut content = std::fs::read(&block).expect("read");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&block, &content).expect("write");
    let told = stderr(&inspect(here, &words, "1/2").code(2));
    assert!(told.contains("block-00002") && told.contains("not those that were written"), "{told}");
    let told = stderr(&inspect(here, &words, "0/2").success());
    assert!(told.contains("made again") && told.contains("zz.png"), "{told}");
    inspect(here, &words, "1/2").success();
    merge(here, &["--output-dir", "merged"]).success();
    is_the_whole(here, "merged");
    // Where every part is there, nobody asks for tokens.
    std::fs::rename(here.join("store/tokens"), here.join("tokens")).expect("rename");
    assert!(stdout(&inspect(here, &words, "0/2").success()).contains("0 parts made, 5 found"));
    std::fs::rename(here.join("tokens"), here.join("store/tokens")).expect("rename");
    // Tokens of another size are another store's; what is asked for twice over is refused.
    let store = ["--img_resize", "70", "--skip-bad", "--shard", "0/2", "--store", "store"];
    let mut program = musc(here);
    program.args(["extract", "photos"]).args(&TINY[..2]).args(&TINY[4..]).args(store);
    let told = stderr(&program.assert().code(2));
    assert!(told.contains("size 56x56, this job 70x70"), "{told}");
    let both = ["extract", "photos", "--output", "x", "--shard", "0/2", "--store", "store"];
    musc(here).args(both).assert().code(2);
}
