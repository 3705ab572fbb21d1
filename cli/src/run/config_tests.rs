use clap::Parser;

use musc::dataset::ClassSelection;

use super::*;
use crate::args::{Cli, normalise};

fn config(line: &str, yaml: Yaml) -> Result<Config> {
    let words = line.split_whitespace().map(Into::into);
    let words = normalise(std::iter::once("musc-run".into()).chain(words));
    Config::merge(Cli::try_parse_from(words).unwrap().run, yaml)
}

#[test]
fn data_set_takes_the_authors_defaults() {
    let config = config("--dataset_name mvtec_ad --data_path d", Yaml::default()).unwrap();
    let backbone = &config.backbone;
    assert_eq!(backbone.name.as_deref(), Some("ViT-L-14-336"));
    assert_eq!(backbone.batch_size, 0);
    assert_eq!(config.input, InputSize::Exactly(ImageSize::square(518)));
    assert_eq!(config.subsets, Subsets::All);
    assert_eq!(backbone.pretrained, "openai");
    assert_eq!(config.scoring.degrees, [1, 3, 5]);
    assert_eq!(config.rscin_k, None);
    assert!(!config.output.vis && !config.output.save_excel);
    assert!(config.output.by_each_map);
    let expected = Source::Dataset {
        kind: DatasetKind::MvtecAd,
        root: "d".into(),
        classes: ClassSelection::All,
    };
    assert_eq!(config.source, expected);
}

#[test]
fn classes_and_neighbours_are_taken_as_named() {
    let line = "--dataset_name visa --data_path d --class_name pcb1 pcb2 --rscin-k 4 9";
    let config = config(line, Yaml::default()).unwrap();
    assert_eq!(config.rscin_k, Some(vec![4, 9]));
    let classes = ClassSelection::Names(vec!["pcb1".into(), "pcb2".into()]);
    assert_eq!(
        config.source,
        Source::Dataset { kind: DatasetKind::Visa, root: "d".into(), classes }
    );
}

#[test]
fn folder_takes_the_built_in_backbone_and_draws() {
    let config = config("photos", Yaml::default()).unwrap();
    assert_eq!(config.backbone.name.as_deref(), Some(BUILT_IN_BACKBONE));
    assert!(config.output.vis);
    assert!(!config.output.by_each_map);
    assert_eq!(config.subsets, Subsets::Auto);
}

#[test]
fn command_line_wins_over_yaml_wins_over_defaults() {
    let yaml = || Yaml {
        dataset_name: Some(DatasetArg::Btad),
        data_path: Some("from_yaml".into()),
        class_name: Some(vec!["all".into()]),
        img_resize: Some(224),
        r_list: Some(vec![3]),
        vis: Some(true),
        device: Some("0".into()),
        batch_size: Some(9),
        ..Yaml::default()
    };
    let merged = config("--img_resize 336 --vis False --device cpu", yaml()).unwrap();
    assert_eq!(merged.input, InputSize::Exactly(ImageSize::square(336)));
    assert!(!merged.output.vis);
    assert_eq!(merged.machine.device, Device::Cpu);
    assert_eq!(merged.scoring.degrees, [3]);
    assert_eq!(merged.backbone.batch_size, 9);
    let expected = Source::Dataset {
        kind: DatasetKind::Btad,
        root: "from_yaml".into(),
        classes: ClassSelection::All,
    };
    assert_eq!(merged.source, expected);
    assert_eq!(config("", yaml()).unwrap().machine.device, Device::Prefer(0));
}

#[test]
fn sizes_and_references_are_read() {
    let of = |line: &str| config(line, Yaml::default()).unwrap();
    let wide = InputSize::Exactly(ImageSize::new(448, 672));
    assert_eq!(of("photos --img-size 448x672").input, wide);
    let kept = InputSize::KeepAspect { longest: 672, pad: true };
    assert_eq!(of("photos --keep_aspect 672 --pad").input, kept);
    assert_eq!(of("photos --references all").subsets, Subsets::All);
    assert_eq!(of("photos --references 64 --seed 3").subsets, Subsets::References(64));
    assert_eq!(of("photos --divide_num 3").subsets, Subsets::Divide(3));
    assert_eq!(of("photos --match 2").scoring.radius, Some(2));
    assert_eq!(of("photos --match anywhere").scoring.radius, None);
    for line in [
        "photos --img_resize 56 --img-size 56x70",
        "photos --pad",
        "photos --img-size 448",
        "photos --match here",
        "photos --references 3 --divide_num 2",
    ] {
        let words = line.split_whitespace().map(Into::into);
        let words = normalise(std::iter::once("musc-run".into()).chain(words));
        assert!(Cli::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn paper_is_one_switch_and_options_beside_it_win() {
    let plain = config("photos", Yaml::default()).unwrap();
    assert!(!plain.paper);
    assert_eq!(plain.similarity, Similarity::Cosine);
    let paper = config("photos --paper", Yaml::default()).unwrap();
    assert!(paper.paper);
    assert_eq!(paper.subsets, Subsets::All);
    assert_eq!(paper.similarity, Similarity::Dot);
    let line = "photos --paper --rscin_similarity cosine";
    assert_eq!(config(line, Yaml::default()).unwrap().similarity, Similarity::Cosine);
}

#[test]
fn settings_that_cannot_be_are_named() {
    for (line, named) in [
        ("", "PATH"),
        ("--dataset_name visa", "--data_path"),
        ("--data_path d", "--dataset_name"),
        ("photos --data_path d", "--data_path"),
        ("--threads 2 demo", "musc-run demo"),
        ("photos --r_list 1 2", "--r_list"),
        ("photos --references 1", "--references"),
        ("photos --keep-aspect 0", "--keep-aspect"),
        ("photos --img_resize 0", "--img_resize"),
        ("photos --batch-size 0", "--batch_size"),
        ("photos --divide_num 0", "--divide_num"),
        ("photos --threads 0", "--threads"),
        ("photos --device gpu", "--device"),
        ("--dataset_name visa --data_path d --labels from-folders", "--labels"),
    ] {
        let error = config(line, Yaml::default()).unwrap_err();
        let message = crate::shell::options::in_options(error).to_string();
        assert!(message.contains(named), "{line}: {message}");
    }
}
