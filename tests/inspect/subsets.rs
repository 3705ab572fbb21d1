//! Many images: dealt into subsets, each on its own.

use musc::inspect::{Batch, Note, Subsets};
use musc::report::write_image;
use musc::{Error, ImageSize, Stage};

use crate::support::{Watcher, builder, exact, frame, frames};

fn named(count: usize) -> Batch {
    let names = (0..count).map(|at| format!("part/{at:03}.png"));
    frames(count, 56, 56).with_names(names).unwrap()
}

#[test]
fn every_image_is_scored_once_in_a_subset_of_the_size_asked_for() {
    let inspector = builder().subsets(Subsets::References(4)).build().unwrap();
    let watcher = Watcher::default();
    let inspection = inspector.inspect(&named(23), &watcher).unwrap();
    // Five subsets of 4 or 5.
    assert_eq!(inspection.subsets(), 5);
    let stages = watcher.stages.lock().unwrap();
    let sizes: Vec<u64> = stages
        .iter()
        .filter(|(stage, _)| *stage == Stage::Features)
        .map(|(_, images)| *images)
        .collect();
    assert_eq!(sizes.iter().sum::<u64>(), 23);
    assert!(sizes.iter().all(|size| (4..=5).contains(size)), "{sizes:?}");
    assert!(inspection.raw_scores().iter().all(|score| (0.0..=2.0).contains(score)));
    assert!(inspection.notes().contains(&Note::SmallSubsets { references: 4 }));
    assert!(inspection.kept().iter().copied().eq(0..23));
    // Frames have their sizes and their regions, in subsets too.
    for (image, &raw) in inspection.raw_scores().iter().enumerate() {
        assert_eq!(inspection.image_size(image).unwrap(), ImageSize::square(56));
        assert!(!inspection.regions(image, f64::from(raw) / 2.0).unwrap().is_empty());
        assert!(inspection.regions(image, f64::from(raw)).unwrap().is_empty());
    }
}

#[test]
fn the_same_subsets_come_out_in_any_order_and_others_from_another_seed() {
    let score_of = |order: Vec<usize>, seed: u64| {
        let images = order.iter().map(|&at| frame(at, 56, 56)).collect();
        let names = order.iter().map(|at| format!("part/{at:03}.png"));
        let batch = Batch::images(images).unwrap().with_names(names).unwrap();
        let inspector = exact().subsets(Subsets::References(5)).seed(seed).build().unwrap();
        let inspection = inspector.inspect(&batch, &()).unwrap();
        let mut scores = vec![0.0; order.len()];
        for (at, &image) in order.iter().enumerate() {
            scores[image] = inspection.raw_scores()[at];
        }
        scores
    };
    let forward = score_of((0..18).collect(), 1);
    let backward = score_of((0..18).rev().collect(), 1);
    for (one, other) in forward.iter().zip(&backward) {
        let error = (one - other).abs();
        assert!(error <= 1e-5, "{one} {other}");
    }
    assert_ne!(forward, score_of((0..18).collect(), 2));
}

#[test]
fn one_subset_is_all_against_all_to_the_last_bit() {
    let all = builder().subsets(Subsets::All).build().unwrap();
    let all = all.inspect(&named(12), &()).unwrap();
    for (asked, clamped) in [(11, false), (40, true)] {
        let inspector = builder().subsets(Subsets::References(asked)).build().unwrap();
        let one = inspector.inspect(&named(12), &()).unwrap();
        assert_eq!(one.scores(), all.scores());
        assert_eq!(one.subsets(), 1);
        let note = Note::FewImages { asked, others: 11 };
        assert_eq!(one.notes().contains(&note), clamped, "{:?}", one.notes());
    }
    let auto = builder().build().unwrap().inspect(&named(12), &()).unwrap();
    assert_eq!((auto.scores(), auto.subsets()), (all.scores(), 1));
}

#[test]
fn more_than_three_hundred_images_are_dealt_out_and_it_is_said() {
    let inspector = builder().build().unwrap();
    let inspection = inspector.inspect(&named(301), &()).unwrap();
    assert_eq!(inspection.subsets(), 2);
    let said = inspection.notes()[0].to_string();
    for part in ["301 images", "2 subsets", "about 200", "2.0 times", "GiB"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let all = builder().subsets(Subsets::All).build().unwrap();
    assert_eq!(all.inspect(&named(301), &()).unwrap().subsets(), 1);
}

#[test]
fn bad_files_are_known_before_any_subset_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..12 {
        write_image(&folder.path().join(format!("{seed:02}.png")), &frame(seed, 60, 52)).unwrap();
    }
    std::fs::write(folder.path().join("07.png"), b"no image").unwrap();
    let inspector = builder().subsets(Subsets::References(3)).build().unwrap();
    let batch = Batch::folder(folder.path()).unwrap();
    let watcher = Watcher::default();
    let done = inspector.inspect(&batch, &watcher);
    assert!(matches!(done, Err(Error::BadImages { .. })), "{done:?}");
    let stages = watcher.stages.lock().unwrap();
    assert!(stages.iter().all(|(stage, _)| *stage == Stage::Checking), "{stages:?}");
    let inspection = inspector.inspect(&batch.skip_bad(true), &()).unwrap();
    assert_eq!((inspection.len(), inspection.subsets()), (11, 3));
    assert!(!inspection.kept().contains(&7));
}

#[test]
fn impossible_numbers_of_references_are_refused() {
    let said = builder().subsets(Subsets::References(1)).build().unwrap_err().to_string();
    assert!(said.contains("references") && said.contains("at least 2"), "{said}");
}

#[test]
fn expected_bytes_grow_with_a_subset_and_not_with_the_batch() {
    let inspector = builder().subsets(Subsets::References(10)).build().unwrap();
    let size = ImageSize::square(56);
    let (few, many) = (inspector.expected_bytes(50, size), inspector.expected_bytes(250, size));
    // 16 patch scores and a class token of 128, 4 bytes each.
    assert_eq!(many - few, 200 * (16 + 128) * 4);
    // Pixels, and two layers of 16 tokens of 128, of 11 images.
    assert_eq!(few - 50 * (16 + 128) * 4, 11 * (56 * 56 * 3 + 2 * 16 * 128 * 4));
}
