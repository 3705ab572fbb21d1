use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(normalise(words(&format!("musc-run {line}"))))
}

#[test]
fn definition_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn both_spellings_read_the_same() {
    let theirs = "--data_path d --dataset_name mvtec_ad --class_name bottle cable --device 0 --output_dir o \
        --vis True --vis_type whole_norm --save_excel False --r_list 1 3 --feature_layers 5 11 \
        --backbone_name ViT-B-16 --pretrained openai --img_resize 224 --batch_size 2 --divide_num 3 --config c.yaml";
    let ours: String = theirs
        .split(' ')
        .map(|word| if word.starts_with("--") { word.replace('_', "-") } else { word.to_string() })
        .collect::<Vec<_>>()
        .join(" ");
    assert_ne!(theirs, ours);
    let theirs = format!("{:?}", parse(theirs).unwrap().run);
    assert_eq!(theirs, format!("{:?}", parse(&ours).unwrap().run));
    for part in [
        "[1, 3]",
        "[5, 11]",
        "[\"bottle\", \"cable\"]",
        "Some(MvtecAd)",
        "vis: Some(true)",
        "save_excel: Some(false)",
    ] {
        assert!(theirs.contains(part), "{part} in {theirs}");
    }
}

#[test]
fn every_precision_is_read_by_its_name() {
    for precision in Precision::ALL {
        let cli = parse(&format!("photos --precision {precision}")).unwrap();
        assert_eq!(cli.run.machine.precision, Some(precision));
    }
    assert_eq!(parse("photos").unwrap().run.machine.precision, None);
    let said = parse("photos --precision half").unwrap_err().to_string();
    assert!(said.contains("possible values: auto, f32, f16, bf16"), "{said}");
}

#[test]
fn path_after_a_list_of_numbers_stays_a_path() {
    for line in [
        "--r_list 1 3 5 photos",
        "photos --r-list 1 3 5",
        "--r-list=1,3,5 photos",
        "--r_list 1,3 5 photos",
    ] {
        let run = parse(line).unwrap().run;
        assert_eq!(run.paths, ["photos"], "{line}");
        assert_eq!(run.method.r_list, Some(vec![1, 3, 5]), "{line}");
    }
}

#[test]
fn values_and_words_after_two_dashes_keep_their_underscores() {
    let run = parse("--output-dir=a_b -- --r_list 1").unwrap().run;
    assert_eq!(run.output.output_dir, Some(PathBuf::from("a_b")));
    assert_eq!(run.paths, ["--r_list", "1"]);
}

#[test]
fn folder_called_like_a_sub_command_is_reached_with_a_dot() {
    assert!(matches!(parse("demo").unwrap().command, Some(Command::Demo(_))));
    let run = parse("./demo").unwrap();
    assert!(run.command.is_none());
    assert_eq!(run.run.paths, ["./demo"]);
}

#[test]
fn bytes_take_units() {
    assert_eq!(parse_bytes("7"), Ok(7));
    assert_eq!(parse_bytes("512M"), Ok(512 << 20));
    assert_eq!(parse_bytes("2 GiB"), Ok(2 << 30));
    assert_eq!(parse_bytes("3kb"), Ok(3 << 10));
    for bad in ["", "0", "x", "5T", "-1", "99999999999999999999", "18446744073709551615G"] {
        assert!(parse_bytes(bad).is_err(), "{bad}");
    }
}
