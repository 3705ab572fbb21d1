//! The validated settings of a run: command line over YAML over defaults, each checked as far as it can be
//! without opening an image or a weight file.

use std::path::{Path, PathBuf};

use super::args::{
    ActivationArg, DatasetArg, DemoArgs, LabelsArg, PrecisionArg, RunArgs, SimilarityArg,
    VisTypeArg,
};
use super::device::Request;
use super::yaml::Yaml;
use crate::backend::cuda::{CudaOptions, Half};
use crate::dataset::{ClassSelection, DatasetKind};
use crate::scoring::MutualScoring;
use crate::scoring::rscin::Similarity;
use crate::{Error, Result};

/// Side of the input of the authors' program.
pub const DEFAULT_IMAGE_SIZE: usize = 518;
/// Backbone of the authors' program.
const DATASET_BACKBONE: &str = "ViT-L-14-336";
/// The weights' training set, where none is named.
pub const DEFAULT_PRETRAINED: &str = "openai";

/// Words that are taken for sub-commands only in front.
const SUB_COMMANDS: [&str; 6] = ["demo", "extract", "score", "rscin", "metrics", "weights"];

/// Where the images come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A published data set.
    Dataset {
        /// Which.
        kind: DatasetKind,
        /// Its root folder.
        root: PathBuf,
        /// The categories wanted.
        classes: ClassSelection,
    },
    /// Plain images.
    Paths {
        /// Folders, files, patterns, lists.
        paths: Vec<String>,
        /// Labels from the names of sub-folders.
        labels_from_folders: bool,
    },
    /// The sample images inside the program.
    Demo,
}

/// The backbone, its weights and its input.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneConfig {
    /// Its name; none means: whatever the weights are.
    pub name: Option<String>,
    /// The weights' training set.
    pub pretrained: String,
    /// The weights' file.
    pub weights: Option<PathBuf>,
    /// The MLPs' activation.
    pub activation: ActivationArg,
    /// Side S of the input.
    pub image_size: usize,
    /// Feature layers; none means the backbone's own.
    pub layers: Option<Vec<usize>>,
    /// Images that go through together; 0 leaves it to the device.
    pub batch_size: usize,
    /// Feature layers of DINO as the authors' program indexes them.
    pub paper: bool,
}

/// What is written, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputConfig {
    /// The root of all results.
    pub dir: PathBuf,
    /// Heat maps.
    pub vis: bool,
    /// Their colour range.
    pub vis_type: VisTypeArg,
    /// results.xlsx.
    pub save_excel: bool,
    /// Anomaly maps as numbers.
    pub save_maps: bool,
    /// Heat maps over the images.
    pub overlays: bool,
    /// Replace an earlier run.
    pub overwrite: bool,
}

/// Device, threads, and what is said.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineConfig {
    /// The device as asked for.
    pub device: Request,
    /// Its words.
    pub device_text: String,
    /// How cards are used.
    pub cuda: CudaOptions,
    /// CPU threads; none means one a core.
    pub threads: Option<usize>,
    /// No progress.
    pub quiet: bool,
    /// One JSON document in place of a table.
    pub json: bool,
}

/// Everything a run needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The images.
    pub source: Source,
    /// Go on without unreadable files.
    pub skip_bad: bool,
    /// Subsets a category.
    pub divide: usize,
    /// Backbone and input.
    pub backbone: BackboneConfig,
    /// Mutual scoring.
    pub scoring: MutualScoring,
    /// RsCIN's neighbourhoods; none means those of the data set.
    pub rscin_k: Option<Vec<usize>>,
    /// RsCIN's comparison.
    pub similarity: Similarity,
    /// Figures with every quirk of the authors' program; what it stands for is in `docs/fidelity.md`.
    pub paper: bool,
    /// Results.
    pub output: OutputConfig,
    /// Machine.
    pub machine: MachineConfig,
    /// Sentences to say before the run and to keep in run.json.
    pub notes: Vec<String>,
}

impl Config {
    /// Settings of the main form, with its YAML file read if one is named.
    pub fn from_run(args: RunArgs) -> Result<Self> {
        let yaml = match &args.method.config {
            Some(path) => Yaml::read(path)?,
            None => Yaml::default(),
        };
        Self::merge(args, yaml)
    }

    /// Settings of the demonstration.
    pub fn from_demo(args: DemoArgs) -> Result<Self> {
        Ok(Config {
            source: Source::Demo,
            skip_bad: false,
            divide: 1,
            backbone: BackboneConfig {
                name: None,
                pretrained: DEFAULT_PRETRAINED.into(),
                weights: None,
                activation: ActivationArg::Official,
                image_size: at_least_one("--img-resize", args.img_resize)?,
                layers: None,
                batch_size: 0,
                paper: false,
            },
            scoring: MutualScoring::default(),
            rscin_k: None,
            similarity: Similarity::Cosine,
            paper: false,
            output: OutputConfig {
                dir: args.output_dir.unwrap_or_else(|| "output".into()),
                vis: true,
                vis_type: VisTypeArg::WholeNorm,
                save_excel: false,
                save_maps: args.save_maps,
                overlays: true,
                overwrite: args.overwrite,
            },
            machine: MachineConfig::new(args.machine, None)?,
            notes: Vec::new(),
        })
    }

    fn merge(args: RunArgs, yaml: Yaml) -> Result<Self> {
        let RunArgs { paths, images, method, output, machine } = args;
        let mut notes: Vec<String> = yaml
            .unknown
            .iter()
            .map(|key| format!("config: `{key}` means nothing here and is ignored"))
            .collect();

        let from_folders = images.labels == Some(LabelsArg::FromFolders);
        let source = if paths.is_empty() {
            let kind = images.dataset_name.or(yaml.dataset_name);
            let root = images.data_path.or(yaml.data_path);
            match (kind, root) {
                (Some(kind), Some(root)) => {
                    let words =
                        images.class_name.or(yaml.class_name).unwrap_or_else(|| vec!["ALL".into()]);
                    let classes = ClassSelection::from_words(&words);
                    if from_folders {
                        return Err(Error::invalid(
                            "--labels",
                            "a data set",
                            "a PATH; data sets bring their labels",
                        ));
                    }
                    Source::Dataset { kind: kind.into(), root, classes }
                }
                (None, None) => {
                    return Err(Error::invalid(
                        "PATH",
                        "nothing",
                        "a folder of images, or --dataset_name with --data_path, or `musc-run demo`; see --help",
                    ));
                }
                (None, Some(root)) => {
                    return Err(Error::invalid(
                        "--dataset_name",
                        format!("nothing, beside --data_path {}", root.display()),
                        "mvtec_ad, visa or btad (a plain folder goes without an option: musc-run FOLDER)",
                    ));
                }
                (Some(_), None) => {
                    return Err(Error::invalid(
                        "--data_path",
                        "nothing",
                        "the data set's root folder",
                    ));
                }
            }
        } else {
            for (name, given) in [
                ("--dataset_name", images.dataset_name.is_some()),
                ("--data_path", images.data_path.is_some()),
                ("--class_name", images.class_name.is_some()),
            ] {
                if given {
                    return Err(Error::invalid(
                        name,
                        format!("it beside PATH `{}`", paths[0]),
                        "either a PATH or a data set",
                    ));
                }
            }
            if let [word] = &paths[..]
                && SUB_COMMANDS.contains(&word.as_str())
                && !Path::new(word).exists()
            {
                return Err(Error::invalid(
                    "PATH",
                    format!("`{word}` behind options"),
                    format!("a sub-command in front of its options: musc-run {word} …"),
                ));
            }
            Source::Paths { paths, labels_from_folders: from_folders }
        };
        let of_dataset = matches!(source, Source::Dataset { .. });

        let name = method.backbone_name.or(yaml.backbone_name);
        let name = match (name, &method.weights) {
            (None, None) if of_dataset => Some(DATASET_BACKBONE.to_string()),
            (name, _) => name,
        };
        let scoring = scoring(method.r_list.or(yaml.r_list), method.max_table_memory)?;
        let size = method.img_resize.or(yaml.img_resize).unwrap_or(DEFAULT_IMAGE_SIZE);
        let batch = batch_size(method.batch_size.or(yaml.batch_size))?;
        let divide = images.divide_num.or(yaml.divide_num).unwrap_or(1);
        let whole = if of_dataset { VisTypeArg::SingleNorm } else { VisTypeArg::WholeNorm };
        if !of_dataset && method.config.is_some() {
            notes.push(String::from("config: its data set is not used, because a PATH is given"));
        }
        Ok(Config {
            source,
            skip_bad: images.skip_bad,
            divide: at_least_one("--divide_num", divide)?,
            backbone: BackboneConfig {
                name,
                pretrained: method
                    .pretrained
                    .or(yaml.pretrained)
                    .unwrap_or_else(|| DEFAULT_PRETRAINED.into()),
                weights: method.weights,
                activation: method.activation.unwrap_or(ActivationArg::Official),
                image_size: at_least_one("--img_resize", size)?,
                layers: method.feature_layers.or(yaml.feature_layers),
                batch_size: batch,
                paper: method.paper,
            },
            scoring,
            rscin_k: method.rscin_k.map(|k| neighbours("--rscin_k", k)).transpose()?,
            similarity: method
                .rscin_similarity
                .unwrap_or(if method.paper { SimilarityArg::Dot } else { SimilarityArg::Cosine })
                .into(),
            paper: method.paper,
            output: OutputConfig {
                dir: output.output_dir.or(yaml.output_dir).unwrap_or_else(|| "output".into()),
                vis: output.vis.or(yaml.vis).unwrap_or(!of_dataset),
                vis_type: output.vis_type.or(yaml.vis_type).unwrap_or(whole),
                save_excel: output.save_excel.or(yaml.save_excel).unwrap_or(false),
                save_maps: output.save_maps,
                overlays: output.overlays,
                overwrite: output.overwrite,
            },
            machine: MachineConfig::new(machine, yaml.device)?,
            notes,
        })
    }
}

impl MachineConfig {
    /// The machine options over a YAML file's device.
    pub fn new(args: super::args::MachineArgs, yaml_device: Option<String>) -> Result<Self> {
        let device_text = args.device.or(yaml_device).unwrap_or_else(|| "auto".into());
        if let Some(threads) = args.threads {
            at_least_one("--threads", threads)?;
        }
        Ok(MachineConfig {
            device: device_text.parse()?,
            device_text,
            cuda: CudaOptions {
                half: match args.precision {
                    Some(PrecisionArg::Bf16) => Half::Bf16,
                    Some(PrecisionArg::F16) | None => Half::F16,
                },
                memory_limit: args.max_vram.map(|bytes| bytes as u64),
            },
            threads: args.threads,
            quiet: args.quiet,
            json: args.json,
        })
    }
}

impl From<DatasetArg> for DatasetKind {
    fn from(arg: DatasetArg) -> Self {
        match arg {
            DatasetArg::MvtecAd => DatasetKind::MvtecAd,
            DatasetArg::Visa => DatasetKind::Visa,
            DatasetArg::Btad => DatasetKind::Btad,
        }
    }
}

impl From<SimilarityArg> for Similarity {
    fn from(arg: SimilarityArg) -> Self {
        match arg {
            SimilarityArg::Cosine => Similarity::Cosine,
            SimilarityArg::Dot => Similarity::Dot,
        }
    }
}

/// The scoring options; what depends on the images is checked when they are known.
pub fn scoring(degrees: Option<Vec<usize>>, table_bytes: Option<usize>) -> Result<MutualScoring> {
    let default = MutualScoring::default();
    let degrees = degrees.unwrap_or(default.degrees);
    if let Some(even) = degrees.iter().find(|degree| degree.is_multiple_of(2)) {
        return Err(Error::invalid("--r_list", even, "odd numbers: 1, 3, 5 and so on"));
    }
    if degrees.is_empty() {
        return Err(Error::invalid("--r_list", "nothing", "at least one odd number"));
    }
    Ok(MutualScoring { degrees, table_bytes, ..default })
}

/// Images of a batch; 0, which is left to the device, where none is asked for.
pub fn batch_size(asked: Option<usize>) -> Result<usize> {
    asked.map_or(Ok(0), |images| at_least_one("--batch_size", images))
}

/// RsCIN's neighbourhood sizes, none of them 0.
pub fn neighbours(option: &str, k: Vec<usize>) -> Result<Vec<usize>> {
    if k.is_empty() || k.contains(&0) {
        return Err(Error::invalid(option, "0", "whole numbers from 1; 1 is the image itself"));
    }
    Ok(k)
}

/// Refuses a zero.
pub fn at_least_one(option: &str, value: usize) -> Result<usize> {
    if value == 0 { Err(Error::invalid(option, value, "at least 1")) } else { Ok(value) }
}

/// Refuses a result file that is there already, unless it may be replaced.
pub fn may_write(path: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && path.exists() {
        return Err(Error::invalid(
            "--output",
            format!("{}, which exists", path.display()),
            "a new file, or --overwrite to replace it",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, normalise};

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
        assert_eq!((backbone.image_size, backbone.batch_size), (518, 0));
        assert_eq!(backbone.pretrained, "openai");
        assert_eq!(config.scoring.degrees, [1, 3, 5]);
        assert_eq!(config.rscin_k, None);
        assert!(!config.output.vis && !config.output.save_excel);
        assert_eq!(config.output.vis_type, VisTypeArg::SingleNorm);
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
        assert_eq!(config.backbone.name, None);
        assert!(config.output.vis);
        assert_eq!(config.output.vis_type, VisTypeArg::WholeNorm);
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
        assert_eq!(merged.backbone.image_size, 336);
        assert!(!merged.output.vis);
        assert_eq!(merged.machine.device, Request::Cpu);
        assert_eq!(merged.scoring.degrees, [3]);
        assert_eq!(merged.backbone.batch_size, 9);
        let expected = Source::Dataset {
            kind: DatasetKind::Btad,
            root: "from_yaml".into(),
            classes: ClassSelection::All,
        };
        assert_eq!(merged.source, expected);
        assert_eq!(config("", yaml()).unwrap().machine.device, Request::Number(0));
    }

    #[test]
    fn paper_is_one_switch_and_options_beside_it_win() {
        let plain = config("photos", Yaml::default()).unwrap();
        assert!(!plain.paper && !plain.backbone.paper);
        assert_eq!(plain.similarity, Similarity::Cosine);
        let paper = config("photos --paper", Yaml::default()).unwrap();
        assert!(paper.paper && paper.backbone.paper);
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
            ("photos --img_resize 0", "--img_resize"),
            ("photos --batch-size 0", "--batch_size"),
            ("photos --divide_num 0", "--divide_num"),
            ("photos --threads 0", "--threads"),
            ("photos --rscin-k 0", "--rscin_k"),
            ("photos --device gpu", "--device"),
            ("--dataset_name visa --data_path d --labels from-folders", "--labels"),
        ] {
            let message = config(line, Yaml::default()).unwrap_err().to_string();
            assert!(message.contains(named), "{line}: {message}");
        }
    }
}
