//! Where the images of a run come from, and whom each is compared with.

use std::path::{Path, PathBuf};

use musc::dataset::{ClassSelection, DatasetKind};
use musc::inspect::Subsets;
use musc::{Error, Result};

use super::super::yaml::Yaml;
use super::at_least_one;
use crate::args::{DatasetArgs, LabelsArg, ReferencesArg};

/// Words that are taken for sub-commands only in front.
const SUB_COMMANDS: [&str; 10] = [
    "demo", "inspect", "merge", "bank", "predict", "extract", "score", "rscin", "metrics",
    "weights",
];

/// Images that others are compared with, and are not scored themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownImages {
    /// A folder, a file, a pattern, a list, or a bank.
    pub path: String,
    /// The images are compared with each other as well.
    pub each_other: bool,
}

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
        /// A table of labels.
        labels_table: Option<PathBuf>,
    },
    /// The sample images inside the program.
    Demo,
}

/// Where the images come from.
pub(super) fn source(paths: Vec<String>, images: &DatasetArgs, yaml: &mut Yaml) -> Result<Source> {
    let (labels_from_folders, labels_table) = match &images.labels {
        None => (false, None),
        Some(LabelsArg::FromFolders) => (true, None),
        Some(LabelsArg::Table(table)) => (false, Some(table.clone())),
    };
    if paths.is_empty() {
        return data_set(images, yaml, images.labels.is_some());
    }
    for (name, given) in [
        ("--dataset_name", images.dataset_name.is_some()),
        ("--data_path", images.data_path.is_some()),
        ("--class_name", images.class_name.is_some()),
    ] {
        if given {
            let found = format!("it beside PATH `{}`", paths[0]);
            return Err(Error::invalid(name, found, "either a PATH or a data set"));
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
    Ok(Source::Paths { paths, labels_from_folders, labels_table })
}

fn data_set(images: &DatasetArgs, yaml: &mut Yaml, labels: bool) -> Result<Source> {
    let kind = images.dataset_name.or(yaml.dataset_name);
    let root = images.data_path.clone().or(yaml.data_path.take());
    let (kind, root) = match (kind, root) {
        (Some(kind), Some(root)) => (kind, root),
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
            return Err(Error::invalid("--data_path", "nothing", "the data set's root folder"));
        }
    };
    if labels {
        let expected = "a PATH; data sets bring their labels";
        return Err(Error::invalid("--labels", "a data set", expected));
    }
    let words = images.class_name.clone().or(yaml.class_name.take());
    let words = words.unwrap_or_else(|| vec!["ALL".into()]);
    Ok(Source::Dataset { kind: kind.into(), root, classes: ClassSelection::from_words(&words) })
}

/// Whom each image is compared with; `all` where nobody says and all is usual.
pub(super) fn subsets(
    references: Option<&ReferencesArg>,
    divide: Option<usize>,
    all: bool,
) -> Result<Subsets> {
    match (references, divide) {
        (Some(ReferencesArg::All), _) => Ok(Subsets::All),
        (Some(&ReferencesArg::About(references)), _) if references < 2 => {
            Err(Error::invalid("--references", references, "all, or at least 2"))
        }
        (Some(&ReferencesArg::About(references)), _) => Ok(Subsets::References(references)),
        // Known images take the place of subsets.
        (Some(ReferencesArg::Images { .. }), _) => Ok(Subsets::All),
        (None, Some(parts)) => Ok(Subsets::Divide(at_least_one("--divide_num", parts)?)),
        (None, None) => Ok(if all { Subsets::All } else { Subsets::Auto }),
    }
}
