//! Values that options take, from text.

use musc::report::export::ExportFormat;
use musc::scoring::decision::DecisionRule;
use musc::{Grid, ImageSize};

/// Whom an image is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferencesArg {
    All,
    About(usize),
}

/// A decision rule, as the library spells it.
pub fn parse_decision(text: &str) -> Result<DecisionRule, String> {
    text.parse().map_err(|error: musc::Error| error.to_string())
}

/// A format to export, as the library spells it.
pub fn parse_export(text: &str) -> Result<ExportFormat, String> {
    text.parse().map_err(|error: musc::Error| error.to_string())
}

/// `all`, or a number.
pub fn parse_references(text: &str) -> Result<ReferencesArg, String> {
    match text {
        "all" => Ok(ReferencesArg::All),
        _ => text
            .parse()
            .map(ReferencesArg::About)
            .map_err(|_| String::from("expected `all` or a number of images")),
    }
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
