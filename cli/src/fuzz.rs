//! Damaged YAML files and tables of scores by the thousand: none ends the program. See `tests/fuzz` of the library.

use std::path::Path;

use crate::run::yaml::Yaml;
use crate::stages::rscin::{Table, read_rows};

#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;

use mutate::{Numbers, Rounds, mutate};

/// Mutations in the suite.
const IN_SUITE: u64 = 20_000;

/// Rounds of a target, by number or for the time that the environment says.
fn fuzz(name: &str, seeds: &[&str], pieces: &[&[u8]], mut target: impl FnMut(&[u8]) -> bool) {
    let mut rounds = Rounds::new(IN_SUITE);
    let mut accepted = 0u64;
    println!("{name}: from seed {}", rounds.seed);
    for case in rounds.by_ref() {
        let mut numbers = Numbers::new(case);
        let mut bytes = numbers.pick(seeds).as_bytes().to_vec();
        mutate(&mut bytes, &mut numbers, pieces);
        accepted += u64::from(target(&bytes));
    }
    let runs = rounds.runs;
    println!("{name}: {runs} files, {accepted} accepted");
    assert!(accepted > 0 && accepted < runs, "{name}: {accepted} of {runs} accepted");
}

/// What was refused names the file, in a message that one can read.
fn taken<T>(result: musc::Result<T>) -> bool {
    if let Err(reason) = &result {
        let said = reason.to_string();
        assert!(said.contains("fuzzed") && said.len() < 1 << 16, "{said}");
    }
    result.is_ok()
}

#[test]
fn yaml_files() {
    let seeds = [
        "datasets:\n  dataset_name: visa  # a comment\n  data_path: ./data/visa/\n  class_name: [candle, pcb1]\n  \
         img_resize: 518\n  divide_num: 2\nmodels:\n  backbone_name: 'ViT-L-14-336'\n  feature_layers: [5, 11]\n  \
         r_list: [1, 3]\ndevice: 0\ntesting:\n  vis: True\n  save_excel: False\n",
    ];
    let pieces: [&[u8]; 16] = [
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        b"{{{{{{{{{{{{{{{{",
        b"&a [*a, *a]",
        b"*a",
        b"<<: *a",
        b"!!binary ",
        b"? ",
        b"- - - - - - - - - - - - - - - -",
        b"---\n",
        b"\t",
        b"|\n",
        b"\"\\u0000\"",
        b".nan",
        b"-1",
        b"1e400",
        b": ",
    ];
    fuzz("YAML", &seeds, &pieces, |bytes| {
        taken(Yaml::parse(&String::from_utf8_lossy(bytes), "fuzzed"))
    });
}

#[test]
fn tables_of_scores() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("fuzzed.csv");
    let table = |path: &Path| Table::read(path).and_then(|table| table.scores());
    let scores = ["path,class,label,raw_score\na.png,x,,0.25\n\"b,b.png\",x,1,1e-3\n"];
    let rows = ["0.5,1,2\n-1,2e3,0\n"];
    let pieces: [&[u8]; 10] =
        [b",", b"\n", b"\r", b"\"", b"\"\"", b"\0", b"\xff", b"nan", b"1e999", b"raw_score"];
    fuzz("scores", &scores, &pieces, |bytes| {
        std::fs::write(&path, bytes).expect("write");
        taken(table(&path))
    });
    fuzz("rows", &rows, &pieces, |bytes| {
        std::fs::write(&path, bytes).expect("write");
        taken(read_rows(&path))
    });
}
