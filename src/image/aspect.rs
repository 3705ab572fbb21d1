//! One input size for images of one aspect, and the patches of images of another that are padding.

use std::collections::HashMap;

use super::{Canvas, Fit, Rectangle};
use crate::{Error, Grid, ImageSize, Result};

/// Patches that must be left on either side.
const FEWEST_PATCHES: usize = 2;
/// Images that a message names.
const SHOWN: usize = 3;

/// The input size of a batch whose proportions are kept: the longer side is `longest`, the other the nearest multiple of the
/// patch's side `patch` (a half goes up) of the size that most images have; among equals that of the first image.
///
/// `sizes` are the images' own, each with its name.
///
/// # Errors
/// [`Error::Invalid`] without images; when `longest` is no multiple of `patch`, with the next ones; when images come to
/// another size by the same rule, with the first few names and sizes; when a side gets fewer than two patches.
pub fn common_size(
    sizes: &[(String, ImageSize)],
    longest: usize,
    patch: usize,
) -> Result<ImageSize> {
    let (common, each) = most_frequent(sizes, longest, patch)?;
    let others: Vec<usize> = (0..sizes.len()).filter(|&at| each[at] != common).collect();
    if others.is_empty() {
        return Ok(common);
    }
    let shown = list(&others, |at| {
        let (name, size) = &sizes[at];
        format!("{name} ({size}, which would become {})", each[at])
    });
    Err(Error::invalid(
        "aspect of the images",
        format!("{} of {} images with another one: {shown}", others.len(), sizes.len()),
        format!("all to become {common}, as most do"),
    ))
}

/// As [`common_size`], for images that are laid on it with [`Fit::Pad`]: other proportions are no error.
///
/// # Errors
/// As [`common_size`], and when an image would cover fewer than two rows or columns of patches, with its name.
pub fn common_size_padded(
    sizes: &[(String, ImageSize)],
    longest: usize,
    patch: usize,
) -> Result<ImageSize> {
    let (common, _) = most_frequent(sizes, longest, patch)?;
    let canvas = Canvas::new(common).with_fit(Fit::Pad);
    let thin: Vec<usize> = (0..sizes.len())
        .filter(|&at| {
            let place = canvas.place(sizes[at].1);
            let grid = common.grid(patch);
            let rows = covered(place.top, place.size.height, grid.rows, patch);
            let columns = covered(place.left, place.size.width, grid.columns, patch);
            rows.min(columns) < FEWEST_PATCHES
        })
        .collect();
    if thin.is_empty() {
        return Ok(common);
    }
    let shown = list(&thin, |at| format!("{} ({})", sizes[at].0, sizes[at].1));
    Err(Error::invalid(
        "aspect of the images",
        format!("{} that would cover too little of {common}: {shown}", thin.len()),
        format!("at least {FEWEST_PATCHES} patches of {patch}x{patch} on either side"),
    ))
}

/// Which patches of a padded image are no part of it, `[L]`, row by row: those of which less than half of the area is picture.
///
/// `picture` is the rectangle that holds the picture, of an input of `grid` patches of side `patch`.
pub fn padding(picture: Rectangle, grid: Grid, patch: usize) -> Vec<bool> {
    let shared = |start: usize, length: usize, at: usize| {
        let (from, to) = (at * patch, (at + 1) * patch);
        to.min(start.saturating_add(length)).saturating_sub(from.max(start))
    };
    let mut left_out = Vec::with_capacity(grid.patches());
    for row in 0..grid.rows {
        let rows = shared(picture.top, picture.size.height, row);
        left_out.extend((0..grid.columns).map(|column| {
            let columns = shared(picture.left, picture.size.width, column);
            2 * rows * columns < patch * patch
        }));
    }
    left_out
}

/// Patches along a side of which at least half is covered.
fn covered(start: usize, length: usize, patches: usize, patch: usize) -> usize {
    (0..patches)
        .filter(|at| {
            let (from, to) = (at * patch, (at + 1) * patch);
            2 * to.min(start + length).saturating_sub(from.max(start)) >= patch
        })
        .count()
}

/// The size that most images come to, and that of each.
fn most_frequent(
    sizes: &[(String, ImageSize)],
    longest: usize,
    patch: usize,
) -> Result<(ImageSize, Vec<ImageSize>)> {
    check_longest(longest, patch)?;
    let each: Vec<ImageSize> =
        sizes.iter().map(|(_, size)| size_of(*size, longest, patch)).collect();
    let mut counts: HashMap<ImageSize, usize> = HashMap::new();
    for size in &each {
        *counts.entry(*size).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    let Some(first) = each.iter().position(|size| counts.get(size) == Some(&most)) else {
        return Err(Error::invalid("sizes of the images", "none", "those of at least one image"));
    };
    let common = each[first];
    if common.height.min(common.width) / patch < FEWEST_PATCHES {
        let (name, size) = &sizes[first];
        return Err(Error::invalid(
            "aspect of the images",
            format!("{size} ({name}), which would become {common}"),
            format!(
                "one that leaves at least {FEWEST_PATCHES} patches of {patch}x{patch} on either side"
            ),
        ));
    }
    Ok((common, each))
}

fn check_longest(longest: usize, patch: usize) -> Result<()> {
    if patch == 0 {
        return Err(Error::invalid("side of a patch", 0, "at least 1 pixel"));
    }
    let fewest = FEWEST_PATCHES.saturating_mul(patch);
    if longest >= fewest && longest.is_multiple_of(patch) {
        return Ok(());
    }
    let below = longest / patch * patch;
    let near = if below < fewest {
        format!("such as {fewest}")
    } else {
        format!("such as {below} or {}", below.saturating_add(patch))
    };
    Err(Error::invalid(
        "longer side of the images",
        longest,
        format!("a multiple of the patch size {patch}, at least {fewest}, {near}"),
    ))
}

/// The longer side at `longest`, the other the nearest multiple of `patch`; at least one patch.
fn size_of(image: ImageSize, longest: usize, patch: usize) -> ImageSize {
    let (long, short) = (image.height.max(image.width), image.height.min(image.width));
    let (long, short, patch) = (long.max(1) as u128, short as u128, patch as u128);
    // short · longest / long pixels, in patches, to the nearest.
    let patches = (2 * short * longest as u128 + long * patch) / (2 * long * patch);
    let other = usize::try_from(patches.max(1) * patch).unwrap_or(usize::MAX);
    if image.height >= image.width {
        ImageSize::new(longest, other)
    } else {
        ImageSize::new(other, longest)
    }
}

/// The first few of some images, and how many more there are.
fn list(images: &[usize], text: impl Fn(usize) -> String) -> String {
    let mut shown: Vec<String> = images.iter().take(SHOWN).map(|&at| text(at)).collect();
    if images.len() > SHOWN {
        shown.push(format!("and {} more", images.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(sizes: &[(usize, usize)]) -> Vec<(String, ImageSize)> {
        sizes
            .iter()
            .enumerate()
            .map(|(at, &(height, width))| (format!("{at}.png"), ImageSize::new(height, width)))
            .collect()
    }

    #[test]
    fn the_longer_side_is_kept_and_the_other_rounded_to_patches() {
        for (image, longest, patch, expected) in [
            ((900, 900), 448, 14, (448, 448)),
            ((480, 640), 448, 14, (336, 448)),
            ((640, 480), 448, 14, (448, 336)),
            ((1000, 2000), 448, 14, (224, 448)),
            // 448 · 3/7 = 192: 13.7 patches of 14, 12 of 16.
            ((300, 700), 448, 14, (196, 448)),
            ((300, 700), 448, 16, (192, 448)),
            // 2.5 patches go up.
            ((5, 8), 56, 14, (42, 56)),
            ((usize::MAX, usize::MAX / 2), 448, 14, (448, 224)),
        ] {
            let size = common_size(&images(&[image, image]), longest, patch).unwrap();
            assert_eq!((size.height, size.width), expected, "{image:?} at {longest}");
        }
    }

    #[test]
    fn sizes_of_one_aspect_agree_and_others_are_named() {
        let mut sizes = vec![(480, 640), (481, 640), (960, 1280), (239, 320)];
        assert_eq!(common_size(&images(&sizes), 448, 14).unwrap(), ImageSize::new(336, 448));
        sizes.extend([(640, 480), (600, 600), (640, 481), (100, 400)]);
        let said = common_size(&images(&sizes), 448, 14).unwrap_err().to_string();
        assert!(said.contains("4 of 8 images"), "{said}");
        assert!(said.contains("4.png (640x480, which would become 448x336)"), "{said}");
        assert!(said.contains("6.png") && !said.contains("7.png"), "{said}");
        assert!(said.contains("and 1 more") && said.contains("become 336x448"), "{said}");
        assert_eq!(common_size_padded(&images(&sizes), 448, 14).unwrap(), ImageSize::new(336, 448));
    }

    #[test]
    fn among_equals_the_first_image_decides() {
        let sizes = images(&[(2, 1), (1, 2), (2, 1), (1, 2)]);
        assert_eq!(common_size_padded(&sizes, 56, 7).unwrap(), ImageSize::new(56, 28));
        let turned = images(&[(1, 2), (2, 1), (2, 1)]);
        assert_eq!(common_size_padded(&turned, 56, 7).unwrap(), ImageSize::new(56, 28));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let said = |sizes: &[(usize, usize)], longest, patch| {
            common_size(&images(sizes), longest, patch).unwrap_err().to_string()
        };
        let text = said(&[(4, 4)], 450, 14);
        assert!(text.contains("found 450") && text.contains("448 or 462"), "{text}");
        assert!(said(&[(4, 4)], 0, 14).contains("such as 28"));
        assert!(said(&[(4, 4)], 14, 14).contains("such as 28"));
        assert!(said(&[(4, 4)], 28, 0).contains("side of a patch"));
        assert!(said(&[], 28, 14).contains("found none"));
        // 448 · 20/448 = 20 pixels: one patch of 14.
        let text = said(&[(20, 448)], 448, 14);
        assert!(text.contains("0.png") && text.contains("at least 2 patches"), "{text}");
        assert!(common_size(&images(&[(21, 448)]), 448, 14).is_ok());
        let thin = images(&[(448, 448), (448, 448), (448, 448), (20, 448), (10, 448)]);
        let text = common_size_padded(&thin, 448, 14).unwrap_err().to_string();
        assert!(text.contains("4.png (10x448)") && !text.contains("3.png"), "{text}");
    }

    #[test]
    fn patches_with_less_than_half_a_picture_are_padding() {
        let grid = Grid::new(3, 2);
        let whole = Rectangle::whole(ImageSize::new(12, 8));
        assert_eq!(padding(whole, grid, 4), [false; 6]);
        // Two rows of pixels short above and below: exactly half, which counts.
        let half = Rectangle { top: 2, left: 0, size: ImageSize::new(8, 8) };
        assert_eq!(padding(half, grid, 4), [false; 6]);
        let less = Rectangle { top: 3, left: 0, size: ImageSize::new(7, 8) };
        assert_eq!(padding(less, grid, 4), [true, true, false, false, false, false]);
        // A corner: three quarters of either side are 9 of 16, one more pixel off is 6.
        let corner = Rectangle { top: 1, left: 1, size: ImageSize::new(11, 7) };
        assert!(!padding(corner, grid, 4)[0]);
        let corner = Rectangle { top: 1, left: 2, size: ImageSize::new(11, 6) };
        assert!(padding(corner, grid, 4)[0]);
        let wide = Rectangle { top: 4, left: 0, size: ImageSize::new(4, 8) };
        assert_eq!(padding(wide, grid, 4), [true, true, false, false, true, true]);
    }
}
