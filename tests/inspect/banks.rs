//! Banks: kept, read, joined, and compared with.

use std::path::Path;

use musc::backend::device::Device;
use musc::inspect::{Bank, Batch, Predictor, Weights};
use musc::scoring::decision::DecisionRule;
use musc::tensor_file::{Tensor, write_tensors};

use crate::support::{WEIGHTS, builder, exact, frame};

/// Frames by seed, named by it.
fn some(seeds: impl IntoIterator<Item = usize>) -> Batch {
    let seeds: Vec<usize> = seeds.into_iter().collect();
    let names: Vec<String> = seeds.iter().map(|seed| format!("part {seed}.png")).collect();
    let frames = seeds.iter().map(|&seed| frame(seed, 56, 56)).collect();
    Batch::images(frames).unwrap().with_names(names).unwrap()
}

fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

fn value(rule: f64) -> DecisionRule {
    DecisionRule::Value(rule)
}

#[test]
fn a_bank_that_was_read_scores_as_the_one_that_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.bank.safetensors");
    let inspector = builder().build().unwrap();
    let bank = inspector.bank(&some(0..6), DecisionRule::default(), &()).unwrap();
    bank.save(&path).unwrap();
    let read = Bank::open(&path).unwrap();
    assert_eq!(bank, read);
    assert_eq!(read.names()[2], "part 2.png");
    assert_eq!(read.formats(), ["f16", "f16"]);
    assert_eq!(read.settings().weights_sha256.len(), 64);
    assert_eq!(
        (read.thumbnails().size.height, read.thumbnails().pixels.len()),
        (96, 6 * 96 * 96 * 3)
    );
    // The inspector that the file describes, with nothing said but the weights and the device.
    let weights = Weights::File(WEIGHTS.into());
    let again = read.settings().builder().weights(weights).device(Device::Cpu).build().unwrap();
    assert_eq!(again.mutual_scoring(), inspector.mutual_scoring());
    assert_eq!(again.input(), inspector.input());
    assert!(again.references(&read).is_ok());
    let want =
        inspector.compare(&some([6, 8, 9]), &inspector.references(&bank).unwrap(), &()).unwrap();
    let references = inspector.references(&read).unwrap();
    let together = inspector.compare(&some([6, 8, 9]), &references, &()).unwrap();
    assert_eq!(bits(want.raw_scores()), bits(together.raw_scores()));
    for (at, seed) in [6, 8, 9].into_iter().enumerate() {
        let alone = inspector.compare(&some([seed]), &references, &()).unwrap();
        assert_eq!(alone.raw_scores()[0].to_bits(), together.raw_scores()[at].to_bits());
        assert_eq!(alone.scores()[0].to_bits(), together.scores()[at].to_bits());
        assert_eq!(alone.patch_scores(0), together.patch_scores(at));
    }
    assert!(f64::from(together.raw_scores()[0]) > read.threshold());
    assert!(f64::from(together.raw_scores()[1]) <= read.threshold());
}

#[test]
fn more_than_a_part_at_a_time_is_the_same() {
    // Parts have 64 images.
    let inspector = builder().build().unwrap();
    let references = inspector.learn(&some(0..4), &()).unwrap();
    let many = inspector.compare(&some(100..170), &references, &()).unwrap();
    assert_eq!((many.len(), many.kept().len()), (70, 70));
    for at in [0, 63, 64, 69] {
        let alone = inspector.compare(&some([100 + at]), &references, &()).unwrap();
        assert_eq!(alone.raw_scores()[0].to_bits(), many.raw_scores()[at].to_bits(), "{at}");
        assert_eq!(alone.class_token(0), many.class_token(at), "{at}");
    }
}

#[test]
fn banks_of_parts_joined_are_the_bank_of_all() {
    let inspector = builder().build().unwrap();
    let rule = DecisionRule::default();
    let all = inspector.bank(&some(0..6), rule, &()).unwrap();
    let bank = |seeds: std::ops::Range<usize>| inspector.bank(&some(seeds), rule, &()).unwrap();
    let merged = inspector.merge_banks(vec![bank(0..3), bank(2..4), bank(4..6)], &()).unwrap();
    assert_eq!(merged, all);
    assert_eq!(inspector.add_to_bank(bank(0..4), &some(2..6), &()).unwrap(), all);
    // The same picture twice is one reference.
    assert_eq!(inspector.bank(&some([1, 1, 2]), rule, &()).unwrap().len(), 2);
    let said = inspector.bank(&some([1, 1]), rule, &()).unwrap_err().to_string();
    assert!(said.contains("at least 1"), "{said}");
    let said = inspector.bank(&some(0..3), DecisionRule::F1, &()).unwrap_err().to_string();
    assert!(said.contains("labels"), "{said}");
    assert!(inspector.merge_banks(Vec::new(), &()).is_err());
}

#[test]
fn a_bank_of_another_setting_is_refused() {
    let inspector = builder().build().unwrap();
    let bank = inspector.bank(&some(0..3), value(1.0), &()).unwrap();
    let other = builder().size(84).layers([3]).degrees([1, 3]).build().unwrap();
    let said = other.inspect_with(&some(4..6), &bank, &()).unwrap_err().to_string();
    for part in ["size 84x84", "size 56x56", "layers [3]", "layers [1, 3]", "degrees [1, 3]"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let said = other.references(&bank).unwrap_err().to_string();
    assert!(said.contains("layers [3]"), "{said}");
    let small = other.bank(&some(0..3), value(1.0), &()).unwrap();
    assert!(inspector.merge_banks(vec![bank.clone(), small], &()).is_err());
    assert!(other.add_to_bank(bank, &some(4..6), &()).is_err());
}

#[test]
fn scored_with_a_bank_is_scored_with_its_images() {
    let inspector = builder().build().unwrap();
    let bank = inspector.bank(&some(0..5), value(1.0), &()).unwrap();
    let union = inspector.inspect(&some([6, 8, 9, 0, 1, 2, 3, 4]), &()).unwrap();
    // Image 3 of the bank is in the batch too, and counts once.
    let with = inspector.inspect_with(&some([6, 8, 9, 3]), &bank, &()).unwrap();
    assert_eq!(with.len(), 4);
    for (at, of_union) in [0, 1, 2, 6].into_iter().enumerate() {
        let (one, other) = (with.raw_scores()[at], union.raw_scores()[of_union]);
        // Tokens of the bank are rounded to 11 bits: a distance of about 1 moves by no more than 2^-11.
        assert!((one - other).abs() <= 1.0 / 2048.0, "{at}: {one} {other}");
        let (one, other) = (with.scores()[at], union.scores()[of_union]);
        assert!((one - other).abs() <= 2.0 / 2048.0, "{at}: {one} {other}");
    }
}

#[test]
fn a_sliding_bank_keeps_the_last_accepted_images() {
    let inspector = exact().build().unwrap();
    let bank = inspector.bank(&some(0..4), DecisionRule::default(), &()).unwrap();
    // Between the one with the square and the rest, well away from both.
    let apart =
        inspector.compare(&some([6, 8]), &inspector.references(&bank).unwrap(), &()).unwrap();
    let threshold = f64::from(apart.raw_scores()[0] + apart.raw_scores()[1]) / 2.0;
    let bank = bank.with_rule(value(threshold)).unwrap();
    let mut sliding = Predictor::new(&inspector, bank).unwrap().keep(5).unwrap();
    // 6 has the square and is not accepted; 8 makes it five, 9 and 10 take the places of 0 and 1; 9 again changes nothing.
    let first = sliding.predict(&some([6, 8, 9, 10, 9]), &()).unwrap();
    let above: Vec<bool> =
        first.raw_scores().iter().map(|&raw| f64::from(raw) > threshold).collect();
    assert_eq!(above, [true, false, false, false, false]);
    let now = sliding.bank();
    assert_eq!(
        now.names(),
        ["part 2.png", "part 3.png", "part 8.png", "part 9.png", "part 10.png"]
    );
    assert_eq!((sliding.accepted(), sliding.threshold()), (3, threshold));
    assert_eq!(now.raw_scores()[3].to_bits(), first.raw_scores()[2].to_bits());
    // It scores as a bank of those images does.
    let fresh = inspector.bank(&some([2, 3, 8, 9, 10]), DecisionRule::default(), &()).unwrap();
    let fresh = inspector.references(&fresh).unwrap();
    let want = inspector.compare(&some([6, 11]), &fresh, &()).unwrap();
    let told = sliding.predict(&some([6]), &()).unwrap();
    assert!((told.raw_scores()[0] - want.raw_scores()[0]).abs() <= 1e-6);
    let kept =
        inspector.compare(&some([6, 11]), &inspector.references(&now).unwrap(), &()).unwrap();
    assert_eq!(bits(kept.raw_scores()), bits(want.raw_scores()));
    // A shorter one loses its first.
    let short = Predictor::new(&inspector, now).unwrap().keep(2).unwrap();
    assert_eq!(short.bank().names(), ["part 9.png", "part 10.png"]);
    assert!(short.keep(1).is_err());
}

/// A file of two references as a bank has them, with one thing changed.
struct Parts {
    format: &'static str,
    version: &'static str,
    grid: &'static str,
    names: &'static str,
    settings: Option<&'static str>,
    threshold: &'static str,
    rows: usize,
    token: f32,
    raw: f32,
    marks: Vec<u8>,
}

impl Default for Parts {
    fn default() -> Self {
        Parts {
            format: "musc-bank",
            version: "1",
            grid: "1x2",
            names: r#"["a","b"]"#,
            settings: None,
            threshold: "0.5",
            rows: 2,
            token: 0.5,
            raw: 0.25,
            marks: Vec::new(),
        }
    }
}

const SETTINGS: &str = r#"{"backbone":"b","weights_sha256":"0","pretrained":"","activation":"official","layers":[1],
    "blocks_read":[1],"input":"14x28","keep_aspect":null,"pad":false,"r_list":[1],"interval":[0.0,0.3],"radius":null,
    "rscin_k":[1,2],"rscin_similarity":"cosine","paper":false,"decision":"shortest-half"}"#;

fn write(path: &Path, parts: &Parts) {
    let images = parts.rows;
    let halves = musc::tensor_file::Halves::round(&vec![parts.token; images * 2 * 3]);
    let (tokens, classes) = ([images, 2, 3], [images, 4]);
    let class_tokens = vec![1.0; images * 4];
    let (content, raw) = ((0..images as u64).collect::<Vec<_>>(), vec![parts.raw; images]);
    let thumbs = vec![9; images * 3];
    let mut tensors = vec![
        Tensor::halves("tokens.1", &tokens, &halves),
        Tensor::f32("class_tokens", &classes, &class_tokens),
        Tensor::u64("content", &classes[..1], &content),
        Tensor::f32("raw_scores", &classes[..1], &raw),
    ];
    let thumb_shape = [images, 1, 1, 3];
    tensors.push(Tensor::u8("thumbnails", &thumb_shape, &thumbs));
    if !parts.marks.is_empty() {
        tensors.push(Tensor::u8("left_out", &tokens[..2], &parts.marks));
    }
    let metadata = [
        ("format", parts.format.to_string()),
        ("version", parts.version.to_string()),
        ("grid", parts.grid.to_string()),
        ("names", parts.names.to_string()),
        ("settings", parts.settings.unwrap_or(SETTINGS).to_string()),
        ("threshold", parts.threshold.to_string()),
    ];
    write_tensors(path, &tensors, &metadata).unwrap();
}

#[test]
fn a_file_that_is_no_bank_is_refused_by_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.bank.safetensors");
    let said = |parts: Parts| {
        write(&path, &parts);
        Bank::open(&path).map(|bank| bank.len()).unwrap_err().to_string()
    };
    write(&path, &Parts::default());
    let bank = Bank::open(&path).unwrap();
    assert_eq!((bank.len(), bank.settings().features.len()), (2, 0));
    let formats = SETTINGS.replace("\"paper\"", "\"features\":[\"f32\",\"f8\"],\"paper\"");
    let formats: &'static str = Box::leak(formats.into_boxed_str());
    let similar = SETTINGS.replace("cosine", "taste");
    let similar: &'static str = Box::leak(similar.into_boxed_str());
    for (parts, named) in [
        (Parts { format: "musc-cache", ..Parts::default() }, "`musc-cache`, expected `musc-bank`"),
        (Parts { version: "2", ..Parts::default() }, "version 2, expected 1"),
        (Parts { grid: "2x2", ..Parts::default() }, "shape [2, 2, 3]"),
        (Parts { grid: "4294967296x4294967296", ..Parts::default() }, "grid"),
        (Parts { grid: "0x2", ..Parts::default() }, "grid"),
        (Parts { names: r#"["a"]"#, ..Parts::default() }, "[1, 2, any]"),
        (Parts { names: "7", ..Parts::default() }, "`names`"),
        (Parts { settings: Some("{}"), ..Parts::default() }, "`settings`"),
        (Parts { settings: Some(similar), ..Parts::default() }, "rscin_similarity `taste`"),
        (Parts { settings: Some(formats), ..Parts::default() }, "features in `f8`"),
        (Parts { threshold: "NaN", ..Parts::default() }, "`threshold`"),
        (Parts { token: f32::NAN, ..Parts::default() }, "NaN at position 0"),
        (Parts { raw: f32::INFINITY, ..Parts::default() }, "raw_scores"),
        (Parts { marks: vec![0, 1, 1, 1], ..Parts::default() }, "all patches of image 1"),
        (Parts { names: "[]", rows: 0, ..Parts::default() }, "at least one reference"),
    ] {
        let said = said(parts);
        assert!(said.contains(named), "{named} in {said}");
        assert!(said.contains("x.bank.safetensors"), "{said}");
    }
    write(&path, &Parts::default());
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(Bank::open(&path).is_err(), "{length}");
    }
    assert!(Bank::open(&folder.path().join("absent")).is_err());
}
