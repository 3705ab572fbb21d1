//! `report.html`: one page to look through a run, to move its threshold and to review its images. It opens from a mail,
//! without a network, and asks for nothing.
//!
//! Plain data in, a file out: a [`ReportPage`] of [`ReportImage`]s, whose pictures a [`ReportPictures`] makes, written by
//! [`write_report`]. What the page does is in `docs/report.md`.
//!
//! Everything is in the page: its style and its script, of which a Content-Security-Policy lets exactly these two run, by
//! their hashes, and, up to [`INLINE_IMAGES`] images, the pictures. Above that they lie in a folder beside it and are loaded
//! as they come into view.

mod page;
mod pictures;

use std::path::{Path, PathBuf};

pub use self::pictures::{ReportPicture, ReportPictures};
use crate::atomic::write_file;
use crate::metrics::{ClassMetrics, ImageCurves};
use crate::{Error, ImageSize, Result};

/// Up to so many images their pictures are inside the page, which then stays below 20 MB.
pub const INLINE_IMAGES: usize = 200;
/// Images on a page, at most: those with the highest scores. All of them count in the histograms and the figures.
pub const PAGE_IMAGES: usize = 5000;

/// What a page shows.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct ReportPage {
    /// The title.
    pub title: String,
    /// What made the page, a line at its end.
    pub made_by: String,
    /// The classes, in the order in which they are shown.
    pub classes: Vec<ReportClass>,
    /// The images, in any order: the page sorts them, the highest score first.
    pub images: Vec<ReportImage>,
    /// Settings, a name and a value each.
    pub settings: Vec<(String, String)>,
    /// Sentences that a reader should know.
    pub notes: Vec<String>,
}

impl ReportPage {
    /// A page without images.
    pub fn new(title: impl Into<String>) -> Self {
        ReportPage { title: title.into(), ..ReportPage::default() }
    }
}

/// A class of images: those that were scored together and share a threshold and a scale of colours.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReportClass {
    /// Its name, as its images have it.
    pub name: String,
    /// The threshold of its raw scores: an image above it is NG. Nothing where each image has its own.
    pub threshold: Option<f64>,
    /// The rule that the threshold comes from, in a word or two.
    pub rule: String,
    /// The map values at which the heat maps' colours begin and end.
    pub scale: (f32, f32),
    /// Its figures, where labels are known.
    pub figures: Option<ClassMetrics>,
    /// The curves of its scores, where both labels are known.
    pub curves: Option<ImageCurves>,
    /// The curves of its raw scores.
    pub raw_curves: Option<ImageCurves>,
}

impl ReportClass {
    /// A class without figures.
    pub fn new(
        name: impl Into<String>,
        threshold: Option<f64>,
        rule: impl Into<String>,
        scale: (f32, f32),
    ) -> Self {
        ReportClass {
            name: name.into(),
            threshold,
            rule: rule.into(),
            scale,
            figures: None,
            curves: None,
            raw_curves: None,
        }
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReportImage {
    /// Its path as the run was given it: what a review names it by.
    pub path: PathBuf,
    /// Its class.
    pub class: String,
    /// Defective or normal, if known.
    pub label: Option<bool>,
    /// The score by which images are ranked.
    pub score: f64,
    /// The score that is held against the threshold.
    pub raw_score: f32,
    /// The image is NG when its raw score is above this.
    pub threshold: f64,
    /// Outlines of its defects: polygons of (x, y), as shares 0..=1 of the picture's width and height.
    pub regions: Vec<Vec<[f32; 2]>>,
    /// Width and height of the image file.
    pub file_size: (u32, u32),
    /// Height and width of the picture in the page, which has the file's proportions.
    pub shown: ImageSize,
    /// The picture.
    pub picture: ReportPicture,
    /// Its heat map, of any size: it is stretched over the picture.
    pub heat: ReportPicture,
}

impl ReportImage {
    /// An image without a label, outlines or pictures; its threshold is the raw score, so that it is OK.
    pub fn new(
        path: impl Into<PathBuf>,
        class: impl Into<String>,
        score: f64,
        raw_score: f32,
    ) -> Self {
        ReportImage {
            path: path.into(),
            class: class.into(),
            label: None,
            score,
            raw_score,
            threshold: f64::from(raw_score),
            regions: Vec::new(),
            file_size: (1, 1),
            shown: ImageSize::square(1),
            picture: ReportPicture::default(),
            heat: ReportPicture::default(),
        }
    }

    /// Whether the image is defective (NG) by its threshold.
    pub fn is_defective(&self) -> bool {
        f64::from(self.raw_score) > self.threshold
    }
}

/// Writes the page.
///
/// # Errors
/// [`Error::Invalid`] without images, for a score or threshold that is not a number, for an image of a class that the page has
/// not, or a class without images; [`Error::Io`] with the path.
pub fn write_report(path: &Path, page: &ReportPage) -> Result<()> {
    let markup = page::document(page)?;
    write_file(path, |writer| writer.write_all(markup.as_bytes()))
}

fn check(page: &ReportPage) -> Result<()> {
    if page.images.is_empty() {
        return Err(Error::invalid("images of a report", 0, "at least 1"));
    }
    for image in &page.images {
        if !page.classes.iter().any(|class| class.name == image.class) {
            let found = format!("`{}` of {}", image.class, image.path.display());
            return Err(Error::invalid("class of an image of a report", found, "a class of it"));
        }
        if !(image.score.is_finite() && image.raw_score.is_finite() && image.threshold.is_finite())
        {
            let found = format!(
                "{}, raw {} and threshold {} of {}",
                image.score,
                image.raw_score,
                image.threshold,
                image.path.display()
            );
            return Err(Error::invalid("score of an image of a report", found, "finite numbers"));
        }
    }
    for class in &page.classes {
        if !page.images.iter().any(|image| image.class == class.name) {
            let found = format!("`{}` without one", class.name);
            return Err(Error::invalid("images of a class of a report", found, "at least 1"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
