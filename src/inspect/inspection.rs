//! What comes out of a batch.

use std::fmt;
use std::path::PathBuf;

use super::maps::{Maps, Scores};
use crate::dataset::Sample;
use crate::image::{Cut, Fit};
use crate::metrics::{ImageCurves, image_curves};
use crate::progress::Stage;
use crate::scoring::decision::{DecisionRule, threshold};
use crate::tensor_file::printable;
use crate::{Grid, ImageSize, Result};

/// What a batch came to, in the batch's order.
#[derive(Debug, Clone)]
pub struct Inspection {
    pub(super) name: String,
    /// Which images of the batch were scored, rising.
    pub(super) kept: Vec<usize>,
    pub(super) samples: Vec<Sample>,
    /// Width and height of each image's file.
    pub(super) file_sizes: Vec<(u32, u32)>,
    /// How images of other proportions are laid on the input.
    pub(super) fit: Fit,
    pub(super) input: ImageSize,
    pub(super) maps: Maps,
    pub(super) patch_scores: Vec<f32>,
    /// `[N, L]`, or empty where no patch is left out.
    pub(super) left_out: Vec<bool>,
    /// The patch scores before they were rounded, where figures are to equal the authors' to the digit.
    pub(super) exact_scores: Option<Vec<f64>>,
    pub(super) raw_scores: Vec<f32>,
    pub(super) scores: Vec<f64>,
    pub(super) class_tokens: Vec<f32>,
    pub(super) class_width: usize,
    pub(super) k: Vec<usize>,
    pub(super) subsets: usize,
    pub(super) skipped: Vec<(PathBuf, String)>,
    pub(super) notes: Vec<Note>,
    pub(super) seconds: Vec<(Stage, f64)>,
}

impl Inspection {
    /// The batch's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of images that were scored.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether no image was scored.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The images that were scored.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Their places in the batch, rising; all of them, unless some could not be read and were to be skipped.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// Files that could not be read, with why; empty unless they were to be skipped.
    pub fn skipped(&self) -> &[(PathBuf, String)] {
        &self.skipped
    }

    /// Scores after RsCIN, one an image; the raw scores where there was no re-scoring.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Raw scores: the largest value of each image's anomaly map.
    pub fn raw_scores(&self) -> &[f32] {
        &self.raw_scores
    }

    /// The threshold of a decision rule: an image is defective when its raw score is above it. The rule sees the raw scores
    /// and the samples' labels. A rule with a threshold for each image is refused: [`Self::thresholds`] has those.
    ///
    /// # Errors
    /// As [`threshold`].
    pub fn threshold(&self, rule: DecisionRule) -> Result<f64> {
        let labels: Vec<Option<bool>> = self.samples.iter().map(|sample| sample.label).collect();
        threshold(rule, &self.raw_scores, &labels)
    }

    /// The curves of the scores and of the raw scores against the labels, over the images whose label is known; nothing where
    /// one of the labels is missing.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a score that is not finite.
    pub fn curves(&self) -> Result<(Option<ImageCurves>, Option<ImageCurves>)> {
        let known: Vec<(usize, bool)> = self
            .samples
            .iter()
            .enumerate()
            .filter_map(|(at, sample)| Some((at, sample.label?)))
            .collect();
        let labels: Vec<bool> = known.iter().map(|(_, defective)| *defective).collect();
        let scores: Vec<f64> = known.iter().map(|(at, _)| self.scores[*at]).collect();
        let raw: Vec<f64> = known.iter().map(|(at, _)| f64::from(self.raw_scores[*at])).collect();
        Ok((image_curves(&labels, &scores)?, image_curves(&labels, &raw)?))
    }

    /// The patch scores of an image, `[L]`, and their grid. Of images that were cut into R·C tiles, those of each tile one
    /// behind the other, row by row, `[R·C, L]`, and the grid of one.
    ///
    /// # Panics
    /// When there are not so many images.
    pub fn patch_scores(&self, image: usize) -> (&[f32], Grid) {
        let patches = self.maps.patches();
        (&self.patch_scores[image * patches..][..patches], self.maps.grid)
    }

    /// The patches of an image that are left out, `[L]` or, with tiles, `[R·C, L]`: padding, or outside the region that is
    /// looked at. Their score is 0, and no map or other number has it in. Empty where none is.
    ///
    /// # Panics
    /// When there are not so many images.
    pub fn left_out(&self, image: usize) -> &[bool] {
        if self.left_out.is_empty() {
            return &[];
        }
        let patches = self.maps.patches();
        &self.left_out[image * patches..][..patches]
    }

    /// Whether each pixel of a map of this size lies in a patch that is not left out, `[height, width]`; empty where all do.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a size without pixels.
    ///
    /// # Panics
    /// When there are not so many images.
    pub fn inside(&self, image: usize, size: ImageSize) -> Result<Vec<bool>> {
        let left_out = self.left_out(image);
        if !left_out.contains(&true) {
            return Ok(Vec::new());
        }
        self.maps.inside(left_out, self.sides(image), size)
    }

    /// The anomaly map of an image at any size, `[height, width]`, into `map`. Pixels in patches that are left out are 0, and
    /// those patches lower no pixel beside them, see [`upsample_within`](crate::scoring::upsample::upsample_within). Tiles'
    /// maps are joined by weights that rise linearly over each overlap and sum to 1.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the length of `map` does not fit the size.
    ///
    /// # Panics
    /// When there are not so many images.
    pub fn map(&self, image: usize, size: ImageSize, map: &mut [f32]) -> Result<()> {
        let (scores, _) = self.patch_scores(image);
        self.maps.map(self.of_image(image, scores), size, map)
    }

    /// Patch scores of an image with what its map needs beside them.
    pub(super) fn of_image<'a, T>(&'a self, image: usize, scores: &'a [T]) -> Scores<'a, T> {
        Scores { scores, left_out: self.left_out(image), sides: self.sides(image) }
    }

    /// Width and height of an image; known of all that were cut.
    fn sides(&self, image: usize) -> (u32, u32) {
        self.file_sizes.get(image).copied().unwrap_or((1, 1))
    }

    /// The size of the maps that raw scores are the largest values of, and that figures and pictures are made of: the input's,
    /// or, with tiles, one of the first image's proportions at which no tile is larger than its input, 2048 pixels at most.
    pub fn map_size(&self) -> ImageSize {
        self.maps.size
    }

    /// The tiles that images were cut into, if they were.
    pub fn cut(&self) -> Option<Cut> {
        self.maps.cut
    }

    /// The class token of an image, `[E]`.
    ///
    /// # Panics
    /// When there are not so many images.
    pub fn class_token(&self, image: usize) -> &[f32] {
        &self.class_tokens[image * self.class_width..][..self.class_width]
    }

    /// The size at which the images, or their tiles, went through the backbone.
    pub fn input(&self) -> ImageSize {
        self.input
    }

    /// The grid of patches, of an image or a tile.
    pub fn grid(&self) -> Grid {
        self.maps.grid
    }

    /// The neighbourhood sizes that RsCIN took; empty where there was no re-scoring.
    pub fn rscin_k(&self) -> &[usize] {
        &self.k
    }

    /// The subsets that were scored on their own; 1 where all images were scored against each other.
    pub fn subsets(&self) -> usize {
        self.subsets
    }

    /// What is worth saying to a person.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Seconds of each stage.
    pub fn seconds(&self) -> &[(Stage, f64)] {
        &self.seconds
    }
}

/// Pairs of images that a note names.
const SHOWN_PAIRS: usize = 3;

/// Something about a batch that a person should hear of. Its text is a sentence without the batch's name.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// Images of 16 bits a channel were cut to 8.
    SixteenBits {
        /// How many.
        images: usize,
    },
    /// A k of RsCIN is more than there are images.
    LargeK {
        /// The k.
        k: usize,
        /// N.
        images: usize,
    },
    /// Labels are known for some of the images only.
    PartlyLabelled {
        /// So many.
        known: usize,
        /// Of so many.
        all: usize,
    },
    /// The images were scored in subsets because they are many, and nobody asked for it.
    ManyImages {
        /// N.
        images: usize,
        /// Subsets.
        subsets: usize,
        /// Images that each one saw, about.
        references: usize,
        /// How many times as many comparisons all against all would take.
        work: f64,
        /// Bytes that pixels and tokens would take then.
        bytes: u64,
    },
    /// A file of kept tokens was damaged; its image went through the backbone again.
    DamagedCache {
        /// The file and what is wrong with it.
        reason: String,
    },
    /// One of a bank and the images compared with it has its tokens in bf16.
    OtherFeatures {
        /// The formats of the bank's.
        bank: String,
        /// The format of the images'.
        images: &'static str,
    },
    /// Tokens could not be kept; nothing more is tried to.
    CacheNotWritten {
        /// The file and why.
        reason: String,
    },
    /// Images that are nearly the same as others: what is wrong with both is hard to find.
    NearDuplicates {
        /// The names of an image and of an earlier one that it is alike; each image once.
        pairs: Vec<(String, String)>,
    },
    /// Most images have their highest patch at one place: a defect that all have, or the fixture.
    SamePlace {
        /// Images that have it there.
        count: usize,
        /// N.
        images: usize,
        /// The patch's row.
        row: usize,
        /// The patch's column.
        column: usize,
        /// The grid that both are of.
        grid: Grid,
    },
    /// More references were asked for than there are other images.
    FewImages {
        /// What was asked for.
        asked: usize,
        /// N − 1.
        others: usize,
    },
    /// Subsets are so small that hard defects may be missed.
    SmallSubsets {
        /// Images that each one saw, about.
        references: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::SixteenBits { images } => {
                write!(out, "{images} images of 16 bits a channel were cut to 8")
            }
            Note::LargeK { k, images } => write!(
                out,
                "k = {k} of RsCIN is more than its {images} images and counts as {images}"
            ),
            Note::PartlyLabelled { known, all } => {
                write!(out, "figures are of the {known} of {all} images whose label is known")
            }
            Note::ManyImages { images, subsets, references, work, bytes } => write!(
                out,
                "{images} images are many: they are scored in {subsets} subsets, each image against about {references} \
                 others. Measured on 360 solar cells, 128 references cost 0.0001 of image AUROC (0.9978 for 0.9979). All \
                 against all would take {work:.1} times the comparisons and {:.1} GiB for pixels and tokens",
                *bytes as f64 / f64::from(1 << 30)
            ),
            Note::DamagedCache { reason } => {
                write!(out, "kept tokens are damaged and were made again: {reason}")
            }
            Note::OtherFeatures { bank, images } => write!(
                out,
                "the bank's features were made in {bank}, those of the images in {images}: bf16 has 8 bits, and what it rounds \
                 off is in every distance; with one precision for both it is not"
            ),
            Note::CacheNotWritten { reason } => {
                write!(out, "tokens cannot be kept, and no more of them are: {reason}")
            }
            Note::NearDuplicates { pairs } => {
                let shown: Vec<String> = pairs
                    .iter()
                    .take(SHOWN_PAIRS)
                    .map(|(one, other)| format!("{} and {}", printable(one), printable(other)))
                    .collect();
                let more = pairs.len().saturating_sub(SHOWN_PAIRS);
                let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
                write!(
                    out,
                    "{} images are nearly the same as another, so that a defect of both may be missed: {}{rest}",
                    pairs.len(),
                    shown.join(", ")
                )
            }
            Note::SamePlace { count, images, row, column, grid } => write!(
                out,
                "{count} of {images} images have their highest patch at one place (row {row}, column {column} of {grid}): a \
                 defect that most images have cannot be found by comparing them with each other"
            ),
            Note::FewImages { asked, others } => write!(
                out,
                "{asked} references were asked for and there are {others} other images: each image sees all of them"
            ),
            Note::SmallSubsets { references } => write!(
                out,
                "{references} references an image are few: below 64 a hard set of defects was ranked worse (image AUROC \
                 0.795 for 0.820 at 32)"
            ),
        }
    }
}
