//! Images that are not square.

use musc::inspect::{Batch, InputSize};
use musc::{Grid, ImageSize};

use crate::support::{builder, frame, frames};

#[test]
fn an_exact_size_stretches_and_has_its_own_grid() {
    let size = ImageSize::new(42, 98);
    let inspector = builder().input(InputSize::Exactly(size)).build().unwrap();
    let inspection = inspector.inspect(&frames(8, 60, 52), &()).unwrap();
    assert_eq!((inspection.input(), inspection.grid()), (size, Grid::new(3, 7)));
    let raw = inspection.raw_scores();
    assert!((0..8).filter(|&at| at != 6).all(|at| raw[at] < raw[6]), "{raw:?}");
}

#[test]
fn proportions_are_kept_where_they_are_common() {
    let keep = |pad| builder().input(InputSize::KeepAspect { longest: 84, pad }).build().unwrap();
    let inspection = keep(false).inspect(&frames(8, 120, 60), &()).unwrap();
    assert_eq!(inspection.input(), ImageSize::new(42, 84));
    let mut images: Vec<_> = (0..7).map(|seed| frame(seed, 120, 60)).collect();
    images.push(frame(7, 60, 120));
    let mixed = Batch::images(images).unwrap();
    let said = keep(false).inspect(&mixed, &()).unwrap_err().to_string();
    assert!(said.contains("image 7") && said.contains("120x60"), "{said}");
    let padded = keep(true).inspect(&mixed, &()).unwrap();
    assert_eq!(padded.input(), ImageSize::new(42, 84));
    // The tall one is 21 pixels wide on the canvas: what lies beside it is left out, with score 0.
    let (scores, grid) = padded.patch_scores(7);
    assert_eq!(grid, Grid::new(3, 6));
    assert!(scores.iter().filter(|&&score| score == 0.0).count() >= 9, "{scores:?}");
    assert!(scores.iter().any(|&score| score > 0.0), "{scores:?}");
    let picture = padded.picture(7).unwrap();
    assert_eq!((picture.left, picture.size), (31, ImageSize::new(42, 21)));
    let regions = padded.regions(7, f64::from(padded.raw_scores()[7]) * 0.9).unwrap();
    let polygons = regions.iter().flat_map(|region| &region.polygon);
    let right = polygons.map(|[x, _]| *x).fold(0.0, f64::max);
    assert!(right > 0.0 && right <= 60.0, "{right}");
    let (whole, _) = padded.patch_scores(0);
    assert!(whole.iter().all(|&score| score > 0.0), "{whole:?}");
}

#[test]
fn sides_that_cannot_be_are_named() {
    let said = |longest| {
        let input = InputSize::KeepAspect { longest, pad: false };
        let done = builder().input(input).build().unwrap().inspect(&frames(4, 400, 20), &());
        done.unwrap_err().to_string()
    };
    assert!(said(85).contains("84 or 98"), "{}", said(85));
    // 20:1 leaves one patch of height.
    let text = said(84);
    assert!(text.contains("patch"), "{text}");
}
