//! The images of a page, made of an inspection.

use std::collections::{HashMap, HashSet};

use musc::image::{RgbImage, decode};
use musc::inspect::{Batch, InputSize};
use musc::report::html::ReportPictures;

use crate::support::{builder, frame, frames};

#[test]
fn a_page_has_every_image_with_its_scores() {
    let inspector = builder().build().unwrap();
    let batch = frames(8, 60, 52);
    let mut inspection = inspector.inspect(&batch, &()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let pictures = ReportPictures::new(&path, 201);
    let thresholds: Vec<f64> = (0..8).map(f64::from).collect();
    let inspected = inspection.inspected(&thresholds).unwrap();
    let made = inspector
        .report_images(&batch, &mut inspection, &inspected, (&pictures, 100), &())
        .unwrap();
    assert_eq!(made.len(), 8);
    for (at, image) in made.iter().enumerate() {
        assert_eq!(
            (image.score, image.raw_score),
            (inspection.scores()[at], inspection.raw_scores()[at])
        );
        assert_eq!((image.threshold, image.file_size), (at as f64, (60, 52)));
        assert_eq!(image.path, inspection.samples()[at].path);
    }
    // Numbered from where the page's other batches end.
    assert!(folder.path().join("report_files/000107.jpg").is_file());
    assert!(!folder.path().join("report_files/000108.jpg").exists());
    let said = inspector
        .report_images(&batch, &mut inspection, &inspected[1..], (&pictures, 0), &())
        .unwrap_err()
        .to_string();
    assert!(said.contains('7') && said.contains('8'), "{said}");
    let mut sorted = inspection.raw_scores().to_vec();
    sorted.sort_by(f32::total_cmp);
    assert_eq!(inspection.heat_scale(), (sorted[2], sorted[7]));
    assert_eq!(inspection.curves().unwrap(), (None, None));
}

/// Letterboxed, the heat map of a tall image covers the image and not the canvas beside it: where the defect is, it is hot.
#[test]
fn the_heat_map_of_a_padded_image_covers_its_picture() {
    let input = InputSize::KeepAspect { longest: 84, pad: true };
    let inspector = builder().input(input).build().unwrap();
    let mut images: Vec<RgbImage> = (0..7).map(|seed| frame(seed % 6, 120, 60)).collect();
    images.push(frame(13, 60, 120));
    let batch = Batch::images(images).unwrap();
    let mut inspection = inspector.inspect(&batch, &()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pictures = ReportPictures::new(&folder.path().join("report.html"), 201);
    let inspected = inspection.inspected(&[0.0; 8]).unwrap();
    let made =
        inspector.report_images(&batch, &mut inspection, &inspected, (&pictures, 0), &()).unwrap();
    assert_eq!((made[7].shown.width, made[7].shown.height), (60, 120));
    let heat = decode(&folder.path().join("report_files/000007.png")).unwrap().image;
    // On the canvas of 42 rows and 84 columns it is 21 columns wide, from the 31st on; the heat map is of that very size.
    assert_eq!((heat.width, heat.height), (21, 42));
    let mut map = vec![0f32; 42 * 84];
    inspection.map(7, inspection.input(), &mut map).unwrap();
    let (low, high) = inspection.heat_scale();
    // Each of the 48 steps of the scale has one colour, if the pixels are those of the picture.
    let mut colours = HashMap::new();
    for (at, pixel) in heat.data.chunks_exact(3).enumerate() {
        let value = map[at / 21 * 84 + 31 + at % 21];
        let step = (((value - low) / (high - low)).clamp(0.0, 1.0) * 48.0).round() as u32;
        let colour = colours.entry(step).or_insert(pixel);
        assert_eq!(*colour, pixel, "pixel {at}, step {step}");
    }
    let different: HashSet<&[u8]> = colours.values().copied().collect();
    assert_eq!(different.len(), colours.len());
    assert!(different.len() > 2, "{} colours tell little", different.len());
}
