//! Which images to score, and what is known of them: data sets, folders, globs, lists.
//!
//! Owns the layout of data sets on disk and the order of their images; knows nothing of models or scores. Pixels
//! are handed to [`crate::image`].

mod btad;
mod divide;
mod folder;
mod labels;
mod layout;
mod list;
mod load;
mod mvtec_ad;
mod subsets;
mod visa;

use std::path::{Path, PathBuf};

pub use crate::image::MaskRule;
use crate::{Error, Result};
pub use divide::{PythonRandom, divide};
pub use folder::{FolderOptions, collect};
pub use labels::labels_of;
pub use load::{Loaded, check_pixels, load_masks, load_pixels, resize_images};
pub(crate) use load::{load_pixels_beside, load_pixels_on_demand};
pub use subsets::subsets;

/// One image to score.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// The image file.
    pub path: PathBuf,
    /// Name of its category, such as `bottle`.
    pub class: String,
    /// The folder type: `good`, `scratch`; in a plain folder the path of sub-folders, with `/` between, or empty.
    pub kind: String,
    /// True when it is known to be defective, false when known to be normal.
    pub label: Option<bool>,
    /// Which of its pixels are defective.
    pub mask: Mask,
}

impl Sample {
    /// An image file with what is known of it.
    pub fn new(
        path: impl Into<PathBuf>,
        class: impl Into<String>,
        kind: impl Into<String>,
        label: Option<bool>,
        mask: Mask,
    ) -> Self {
        Sample { path: path.into(), class: class.into(), kind: kind.into(), label, mask }
    }
}

/// The folder that all paths are below, as far as their own parts say; empty where they share none.
pub(crate) fn shared_folder<'a>(paths: impl IntoIterator<Item = &'a Path>) -> PathBuf {
    let parents = paths.into_iter().map(|path| path.parent().unwrap_or(Path::new("")));
    let shared = parents.map(Path::to_path_buf).reduce(|shared, parent| {
        let both = shared.components().zip(parent.components());
        both.take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
    });
    shared.unwrap_or_default()
}

/// What is known of an image's defective pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mask {
    /// Nothing: pixel metrics leave the image out.
    Unknown,
    /// No pixel is defective.
    Normal,
    /// The mask file to read, see [`crate::image::load_mask`].
    File(PathBuf),
}

/// The images that are scored together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Category {
    /// Its name: the class, or the folder's name.
    pub name: String,
    /// Its images, in the order of their scores. Never empty.
    pub samples: Vec<Sample>,
    /// How its masks are cut after the resize.
    pub mask_rule: MaskRule,
    /// The neighbourhood sizes of RsCIN that the authors use for this data set.
    pub rscin_k: Vec<usize>,
    /// Files that lie among the images and are left out because their extension is not an image's, such as tables and notes:
    /// nothing is wrong with them. Hidden files are not counted.
    pub ignored: Vec<PathBuf>,
    /// Files that were given more than once, and are scored once.
    pub duplicates: Vec<PathBuf>,
}

impl Category {
    /// Images that are scored together, with masks of any value above 0, RsCIN's usual neighbourhood sizes 1, 2 and 3, and no
    /// other files.
    pub fn new(name: impl Into<String>, samples: Vec<Sample>) -> Self {
        Category {
            name: name.into(),
            samples,
            // Tolerant of masks that hold 1 for defective, and of thin defects.
            mask_rule: MaskRule::AnyPositive,
            rscin_k: vec![1, 2, 3],
            ignored: Vec::new(),
            duplicates: Vec::new(),
        }
    }

    /// With masks cut by this rule.
    pub fn with_mask_rule(mut self, rule: MaskRule) -> Self {
        self.mask_rule = rule;
        self
    }

    /// With these neighbourhood sizes for RsCIN.
    pub fn with_rscin_k(mut self, k: impl Into<Vec<usize>>) -> Self {
        self.rscin_k = k.into();
        self
    }
}

/// The data sets whose layout is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DatasetKind {
    /// MVTec AD, `DATA/CLASS/test/TYPE/*`, masks in `DATA/CLASS/ground_truth/TYPE/*_mask.png`.
    MvtecAd,
    /// VisA, by `DATA/meta.json` or `DATA/split_csv/1cls.csv`.
    Visa,
    /// BTAD, `DATA/CLASS/test/{ok,ko}/*`, masks in `DATA/CLASS/ground_truth/ko/*`.
    Btad,
}

impl DatasetKind {
    /// All of them.
    pub const ALL: [DatasetKind; 3] = [DatasetKind::MvtecAd, DatasetKind::Visa, DatasetKind::Btad];

    /// The data set's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            DatasetKind::MvtecAd => "mvtec_ad",
            DatasetKind::Visa => "visa",
            DatasetKind::Btad => "btad",
        }
    }

    /// The data set of that name.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        let known = DatasetKind::ALL;
        known.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            Error::invalid("data set", format!("`{name}`"), known.map(DatasetKind::name).join(", "))
        })
    }

    /// Its classes, in the authors' order.
    pub fn classes(self) -> &'static [&'static str] {
        match self {
            DatasetKind::MvtecAd => &mvtec_ad::CLASSES,
            DatasetKind::Visa => &visa::CLASSES,
            DatasetKind::Btad => &btad::CLASSES,
        }
    }

    /// How its masks are cut after the resize.
    pub fn mask_rule(self) -> MaskRule {
        match self {
            DatasetKind::MvtecAd | DatasetKind::Btad => MaskRule::FullOnly,
            DatasetKind::Visa => MaskRule::AnyPositive,
        }
    }

    /// The neighbourhood sizes of RsCIN that the authors use.
    pub fn rscin_k(self) -> Vec<usize> {
        match self {
            DatasetKind::MvtecAd | DatasetKind::Btad => vec![1, 2, 3],
            DatasetKind::Visa => vec![1, 8, 9],
        }
    }

    fn category(self, name: &str, samples: Vec<Sample>, ignored: Vec<PathBuf>) -> Category {
        let category = Category::new(name, samples);
        Category {
            ignored,
            ..category.with_mask_rule(self.mask_rule()).with_rscin_k(self.rscin_k())
        }
    }
}

/// Which classes of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClassSelection {
    /// All that the data set is known for, in the authors' order.
    All,
    /// These, in this order.
    Names(Vec<String>),
}

impl ClassSelection {
    /// A selection from words: `ALL` (in any case) alone is all of them.
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Self {
        match words {
            [one] if one.as_ref().eq_ignore_ascii_case("all") => ClassSelection::All,
            words => {
                ClassSelection::Names(words.iter().map(|word| word.as_ref().to_owned()).collect())
            }
        }
    }
}

/// Lists the test images of the selected classes of the data set at `root`.
///
/// Order is the authors': classes as they list them; in MVTec AD and BTAD types sorted by name and files sorted
/// by name; in VisA the order of the table. No image is opened. A class outside the data set's list is taken when
/// its folder is there (MVTec AD, BTAD) or the table names it (VisA), so that data of one's own in a known layout
/// needs no conversion.
///
/// # Errors
/// [`Error::Dataset`] when the root, a class's folder, a mask or (VisA) an image is missing, a mask has no image,
/// or a table cannot be read; [`Error::Invalid`] for an unknown class, with the known ones, or none; [`Error::Io`] when
/// a folder cannot be listed.
pub fn load(kind: DatasetKind, root: &Path, classes: &ClassSelection) -> Result<Vec<Category>> {
    if !root.is_dir() {
        let reason = if root.exists() {
            format!("is a file, expected the folder of the data set {}", kind.name())
        } else {
            format!("no such folder, expected the data set {}", kind.name())
        };
        return Err(Error::Dataset { path: root.to_path_buf(), reason });
    }
    if matches!(classes, ClassSelection::Names(names) if names.is_empty()) {
        return Err(Error::invalid("class", "none", kind.classes().join(", ")));
    }
    match kind {
        DatasetKind::MvtecAd => layout::load(&mvtec_ad::LAYOUT, root, classes),
        DatasetKind::Btad => layout::load(&btad::LAYOUT, root, classes),
        DatasetKind::Visa => visa::load(root, classes),
    }
}

/// The names of a selection, each once, or an error for one that `is_known` refuses.
fn selected_names(
    kind: DatasetKind,
    classes: &ClassSelection,
    is_known: impl Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let names: Vec<String> = match classes {
        ClassSelection::All => kind.classes().iter().map(|&name| name.to_owned()).collect(),
        ClassSelection::Names(names) => names.clone(),
    };
    let mut selected: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !kind.classes().contains(&name.as_str()) && !is_known(&name) {
            return Err(Error::invalid(
                format!("class of {}", kind.name()),
                format!("`{name}`"),
                format!("ALL or one of {}", kind.classes().join(", ")),
            ));
        }
        if !selected.contains(&name) {
            selected.push(name);
        }
    }
    Ok(selected)
}

/// The first few of many names, and how many more there are.
fn first_few<T: std::fmt::Display>(names: impl ExactSizeIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let mut text =
        names.take(SHOWN).map(|name| name.to_string()).collect::<Vec<String>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
