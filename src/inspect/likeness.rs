//! What makes mutual scoring blind: images that are nearly the same, and a defect that is the same everywhere.
//!
//! A patch is scored by its nearest patches in the other images. Two pictures of one defective part find each other, and a
//! defect that most images have is normal. Neither can be told from scores; both leave traces that a person should hear of.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{Inspection, Note};
use crate::Grid;
use crate::dataset::Sample;

/// The cosine of two class tokens from which images count as nearly the same. Among 360 solar cells at 224 px, 60 of one kind and
/// 30 pieces of textile at 448 px, all different, the most alike have 0.9996; the same textile as PNG and as JPEG (quality 90) has 0.9999.
const ALIKE: f64 = 0.9998;
/// And how much nearer than is usual in the batch they must be, as a share of the median of 1 − cosine: backbones differ in how far
/// apart they see anything. The nearest different images of those sets have 0.0097, the same textile as PNG and JPEG 0.002 to 0.005.
const NEARER: f64 = 0.005;
/// The most images of which every pair is looked at; above it only equal tokens are found.
const MOST: usize = 4096;
/// Fewer images than this say nothing about places.
const FEWEST: usize = 10;

/// What is worth saying of images that were compared with each other.
pub(super) fn notes_of(inspection: &Inspection) -> Vec<Note> {
    let tokens = (&inspection.class_tokens[..], inspection.class_width);
    // Places count where an image has one grid: with tiles the nearest are looked at alone.
    let whole = inspection.maps.cut.is_none();
    let patch_scores = if whole { &inspection.patch_scores[..] } else { &[] };
    notes(&inspection.samples, tokens, patch_scores, inspection.maps.grid)
}

/// What is worth saying of images with these class tokens `[N, E]` and patch scores `[N, L]`.
fn notes(
    samples: &[Sample],
    (class_tokens, width): (&[f32], usize),
    patch_scores: &[f32],
    grid: Grid,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let alike = near_duplicates(class_tokens, width);
    if !alike.is_empty() {
        let name = |at: usize| samples.get(at).map(|sample| sample.path.display().to_string());
        let pairs = alike.iter().filter_map(|&(a, b)| Some((name(a)?, name(b)?))).collect();
        notes.push(Note::NearDuplicates { pairs });
    }
    notes.extend(same_place(patch_scores, grid));
    notes
}

/// For each image that is nearly the same as an earlier one, the first such and it.
fn near_duplicates(class_tokens: &[f32], width: usize) -> Vec<(usize, usize)> {
    if width == 0 {
        return Vec::new();
    }
    let tokens: Vec<&[f32]> = class_tokens.chunks_exact(width).collect();
    if tokens.len() > MOST {
        let mut first: HashMap<&[u8], usize> = HashMap::new();
        return tokens
            .iter()
            .enumerate()
            .filter_map(|(at, token)| {
                let earlier = *first.entry(bytemuck::cast_slice(token)).or_insert(at);
                (earlier < at).then_some((earlier, at))
            })
            .collect();
    }
    let unit: Vec<Vec<f32>> = tokens
        .iter()
        .map(|token| {
            let norm = token.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
            token.iter().map(|&v| (f64::from(v) / norm.max(f64::MIN_POSITIVE)) as f32).collect()
        })
        .collect();
    let cosine = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    // What is usual: each image and the one half the batch further.
    let count = unit.len();
    let mut apart: Vec<f64> = (0..count)
        .map(|at| 1.0 - cosine(&unit[at], &unit[(at + count.div_ceil(2)) % count]))
        .collect();
    apart.sort_by(f64::total_cmp);
    let usual = apart.get(count / 2).copied().unwrap_or_default();
    let alike = ALIKE.max(1.0 - NEARER * usual);
    (1..count)
        .into_par_iter()
        .filter_map(|at| {
            let earlier = (0..at).find(|&earlier| cosine(&unit[earlier], &unit[at]) >= alike)?;
            Some((earlier, at))
        })
        .collect()
}

/// The place where more than half of the images have their highest patch, give or take one row and column.
fn same_place(patch_scores: &[f32], grid: Grid) -> Option<Note> {
    let peaks: Vec<(usize, usize)> = patch_scores
        .chunks_exact(grid.patches().max(1))
        .map(|scores| {
            let highest = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let at = highest.map_or(0, |(at, _)| at);
            (at / grid.columns, at % grid.columns)
        })
        .collect();
    let images = peaks.len();
    // On a grid of few patches highest places coincide by chance.
    if images < FEWEST || grid.patches() < 64 {
        return None;
    }
    let near = |place: (usize, usize)| {
        peaks
            .iter()
            .filter(|peak| peak.0.abs_diff(place.0) <= 1 && peak.1.abs_diff(place.1) <= 1)
            .count()
    };
    let mut places = peaks.clone();
    places.sort_unstable();
    places.dedup();
    let (count, (row, column)) = places.into_iter().map(|place| (near(place), place)).max()?;
    (2 * count > images).then_some(Note::SamePlace { count, images, row, column, grid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Mask;

    #[test]
    fn pictures_of_one_part_are_named_once_each() {
        let samples: Vec<Sample> =
            (0..6).map(|at| Sample::new(format!("{at}"), "", "", None, Mask::Unknown)).collect();
        // 1 is 0 at another length, 4 is 2 but for a little; 3 is 0 turned by 2 degrees.
        let (sin, cos) = (2f32.to_radians().sin(), 2f32.to_radians().cos());
        let tokens = [1.0, 0.0, 3.0, 0.0, 0.0, 1.0, cos, sin, 0.01, 1.0, -1.0, 0.0];
        let Some(Note::NearDuplicates { pairs }) =
            notes(&samples, (&tokens, 2), &[], Grid::new(1, 1)).pop()
        else {
            panic!("a note");
        };
        let expected = [("0", "1"), ("2", "4")].map(|(a, b)| (a.to_string(), b.to_string()));
        assert_eq!(pairs, expected);
        assert!(near_duplicates(&[0.0; 4], 2).is_empty());
        // All within a degree of each other: nothing stands out.
        let narrow: Vec<f32> =
            (0..9).flat_map(|at| [1.0, (at as f32 / 9.0).to_radians()]).collect();
        assert!(near_duplicates(&narrow, 2).is_empty());
        let many: Vec<f32> = (0..2 * (MOST + 2)).map(|at| (at / 4) as f32).collect();
        assert_eq!(near_duplicates(&many, 2).len(), (MOST + 2) / 2);
    }

    #[test]
    fn a_place_that_most_images_have_in_common_is_told() {
        let grid = Grid::new(8, 9);
        let scores = |places: &[usize]| {
            let mut scores = vec![0.1; places.len() * 72];
            for (image, place) in places.iter().enumerate() {
                scores[image * 72 + place] = 0.9;
            }
            scores
        };
        // Row 2, column 3 is patch 21; 12 and 29 are beside it; 23 is not.
        let told = same_place(&scores(&[21, 21, 12, 29, 31, 20, 0, 71, 23, 40]), grid);
        let expected = Note::SamePlace { count: 6, images: 10, row: 2, column: 3, grid };
        assert_eq!(told, Some(expected));
        assert_eq!(same_place(&scores(&[21, 21, 12, 29, 31, 0, 5, 71, 23, 40]), grid), None);
        assert_eq!(same_place(&scores(&[21; 9]), grid), None);
    }
}
