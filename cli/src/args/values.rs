//! Values that options take, from text.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::ShardArg;
use musc::backend::device::Precision;
use musc::report::export::ExportFormat;
use musc::scoring::decision::DecisionRule;
use musc::{Grid, ImageSize};

/// Whom an image is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferencesArg {
    All,
    About(usize),
    /// Images of this folder, list or bank, and the others too where `each_other`.
    Images {
        path: String,
        each_other: bool,
    },
}

/// Where labels of a plain folder come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelsArg {
    /// Sub-folders good, normal and ok are label 0, the others 1.
    FromFolders,
    /// A table.
    Table(PathBuf),
}

/// `from-folders`, or the name of a table.
pub fn parse_labels(text: &str) -> Result<LabelsArg, String> {
    let is_table =
        |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
    match text {
        "from-folders" | "from_folders" => Ok(LabelsArg::FromFolders),
        path if is_table(Path::new(path)) => Ok(LabelsArg::Table(path.into())),
        _ => Err(String::from("expected from-folders, or a table whose name ends in .csv")),
    }
}

/// The number formats, as the library spells them.
pub fn precisions() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name))
        .try_map(|name| name.parse::<Precision>())
}

/// A decision rule, as the library spells it.
pub fn parse_decision(text: &str) -> Result<DecisionRule, String> {
    text.parse().map_err(|error: musc::Error| error.to_string())
}

/// A format to export, as the library spells it.
pub fn parse_export(text: &str) -> Result<ExportFormat, String> {
    text.parse().map_err(|error: musc::Error| error.to_string())
}

/// `all`, a number, PATH, or `all+PATH`. A folder whose name is a number is reached by `./200`.
pub fn parse_references(text: &str) -> Result<ReferencesArg, String> {
    if text == "all" {
        return Ok(ReferencesArg::All);
    }
    if let Ok(images) = text.parse() {
        return Ok(ReferencesArg::About(images));
    }
    let (path, each_other) = match text.strip_prefix("all+") {
        Some(path) => (path, true),
        None => (text, false),
    };
    if path.is_empty() || path.starts_with('-') {
        return Err(String::from("expected `all`, a number of images, a PATH, or all+PATH"));
    }
    Ok(ReferencesArg::Images { path: path.to_string(), each_other })
}

/// Where a patch finds its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchArg {
    Anywhere,
    Within(usize),
}

impl MatchArg {
    /// As the library has it.
    pub fn radius(self) -> Option<usize> {
        match self {
            MatchArg::Anywhere => None,
            MatchArg::Within(radius) => Some(radius),
        }
    }
}

/// `anywhere`, or a number of patches.
pub fn parse_match(text: &str) -> Result<MatchArg, String> {
    match text {
        "anywhere" => Ok(MatchArg::Anywhere),
        _ => text
            .parse()
            .map(MatchArg::Within)
            .map_err(|_| String::from("expected `anywhere` or a number of patches")),
    }
}

pub fn parse_image_size(text: &str) -> Result<ImageSize, String> {
    let expected = || String::from("expected height x width in pixels, such as 448x672");
    if !text.contains(['x', 'X']) {
        return Err(expected());
    }
    text.parse().map_err(|_| expected())
}

pub fn parse_grid(text: &str) -> Result<Grid, String> {
    text.parse().map_err(|_| String::from("expected rows x columns of patches, such as 32x48"))
}

/// A number of bytes: digits, then nothing, K, M or G (powers of 1024), `B` or `iB` after it allowed.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let expected = || String::from("expected a number of bytes such as 1000000, 512M or 2G");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: usize = text[..digits].parse().map_err(|_| expected())?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(expected()),
    };
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(expected)
}

/// A time in seconds, not negative.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err(String::from("expected a number of seconds from 0 to 86400")),
    }
}

/// Rows x columns of tiles.
pub fn parse_tiles(text: &str) -> Result<(usize, usize), String> {
    let grid: Grid =
        text.parse().map_err(|_| String::from("expected rows x columns of tiles, such as 3x4"))?;
    Ok((grid.rows, grid.columns))
}

/// A share of 0 to 0.5.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=0.5).contains(share));
    share.ok_or_else(|| String::from("expected a share of 0 to 0.5, such as 0.1"))
}

/// A share of a job: I/N, or auto.
pub fn parse_shard(text: &str) -> Result<ShardArg, String> {
    if text == "auto" {
        return Ok(ShardArg::Auto);
    }
    let parsed = text.split_once('/').and_then(|(index, count)| {
        Some((index.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
    });
    match parsed {
        Some((index, count)) if index < count => Ok(ShardArg::Of { index, count }),
        Some((index, count)) => {
            Err(format!("shard {index} of {count}: expected I/N with I from 0 to N - 1"))
        }
        None => Err("expected I/N, such as 0/4, or auto".into()),
    }
}
