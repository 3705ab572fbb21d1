//! What the kernels of pairs of images share: whose tokens meet, what is known of them, and where their maxima go.

use super::{Call, MAX_PATCHES, MAX_SIDE};
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::{Grid, Result};

/// What [`statistics`](super::lnamd::statistics) made of one set of N images.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// `[N, L]`, the sum over the channels of each token.
    pub row_sum: View<'a, f32>,
    /// `[N]`, the mean over an image.
    pub mean: View<'a, f32>,
    /// `[degrees, N, L]`, 1/‖pooled token‖, for the degrees of the launch. A patch that is left out has NaN: nobody's
    /// maximum takes it in, and its own key may be anything.
    pub inv_norm: View<'a, f32>,
    /// N.
    pub images: usize,
}

/// Two runs of images, each image of A against each of B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairBlock {
    /// First image of A, among those of its set.
    pub first_a: usize,
    /// Images of A.
    pub images_a: usize,
    /// First image of B, among those of its set.
    pub first_b: usize,
    /// Images of B.
    pub images_b: usize,
    /// A and B are runs of one set, and an image does not meet itself. Kernels of whole grids then take the pairs i < j
    /// alone, each for both images. Otherwise A are queries and B references of another set: every pair counts, for the
    /// query alone.
    pub symmetric: bool,
}

impl PairBlock {
    /// Pairs of images, those that do not count too.
    pub fn pairs(&self) -> usize {
        self.images_a.saturating_mul(self.images_b)
    }

    /// That both runs lie within their sets.
    pub(super) fn check(&self, call: &Call<'_>, (in_a, in_b): (usize, usize)) -> Result<()> {
        call.require(
            !self.symmetric || in_a == in_b,
            "images of the two sides of one set",
            format!("{in_a} and {in_b}"),
            "the same number",
        )?;
        let runs =
            [("a", self.first_a, self.images_a, in_a), ("b", self.first_b, self.images_b, in_b)];
        for (side, first, images, all) in runs {
            call.require(
                first.checked_add(images).is_some_and(|last| last <= all),
                &format!("images of {side}"),
                format!("{images} from {first} on"),
                &format!("within the {all} images of the set"),
            )?;
        }
        Ok(())
    }
}

/// Where the largest cosines go: rows of keys for a run of images of A's set.
#[derive(Debug)]
pub struct Keys<'a> {
    /// `[degrees, kept, N, L]`, zeroed before the first launch. A key that stays 0 says that nothing was compared.
    pub keys: ViewMut<'a, u32>,
    /// N, the images of B's set.
    pub images: usize,
    /// The first image of A's set with a row.
    pub first_kept: usize,
    /// Images with a row.
    pub kept: usize,
}

impl Keys<'_> {
    /// Checks the run of images, of the `in_a` of A's set, and gives the number of keys.
    pub(super) fn check(
        &self,
        call: &Call<'_>,
        degrees: usize,
        patches: usize,
        (in_a, in_b): (usize, usize),
    ) -> Result<usize> {
        call.require(
            self.images == in_b,
            "images in a row of keys",
            self.images,
            &format!("{in_b}, those of b"),
        )?;
        call.require(
            self.first_kept.checked_add(self.kept).is_some_and(|last| last <= in_a),
            "kept images",
            format!("{} from {} on", self.kept, self.first_kept),
            &format!("within the {in_a} images"),
        )?;
        let rows = degrees.saturating_mul(self.kept).saturating_mul(self.images);
        call.require(rows < 1 << 32, "rows of keys", rows, "below 2^32")?;
        Ok(rows.saturating_mul(patches))
    }
}

/// A grid whose tokens can be scored, and its patches.
pub(super) fn check_grid(call: &Call<'_>, grid: Grid) -> Result<usize> {
    let patches = grid.patches();
    let sides = 1..=MAX_SIDE;
    call.require(
        sides.contains(&grid.rows) && sides.contains(&grid.columns) && patches <= MAX_PATCHES,
        "grid of patches",
        grid,
        &format!("sides of 1 to {MAX_SIDE} and at most {MAX_PATCHES} patches"),
    )?;
    Ok(patches)
}

/// The width of a token, C channels and zeros.
pub(super) fn check_width(
    call: &Call<'_>,
    (width, channels): (usize, usize),
    step: usize,
    most: usize,
) -> Result<()> {
    call.require(
        width > 0 && width.is_multiple_of(step) && width <= most,
        "width",
        width,
        &format!("a multiple of {step}, up to {most}"),
    )?;
    call.require(channels <= width, "channels C", channels, &format!("at most the width, {width}"))
}
