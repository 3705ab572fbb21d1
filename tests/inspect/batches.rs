//! Frames and files, order, progress and stopping.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use musc::inspect::{Batch, Rescoring};
use musc::report::write_image;
use musc::scoring::rscin::Similarity;
use musc::{Error, ImageSize, Progress, Stage};

use crate::support::{Watcher, builder, exact, frame, frames};

#[test]
fn frames_in_memory_score_as_the_same_images_in_files() {
    let folder = tempfile::tempdir().expect("folder");
    for seed in 0..9 {
        write_image(&folder.path().join(format!("{seed}.png")), &frame(seed, 60, 52)).expect("png");
    }
    let inspector = builder().build().expect("inspector");
    let of_files = inspector.inspect(&Batch::folder(folder.path()).expect("batch"), &()).unwrap();
    let of_frames = inspector.inspect(&frames(9, 60, 52), &()).unwrap();
    assert_eq!(of_files.scores(), of_frames.scores());
    assert_eq!(of_files.raw_scores(), of_frames.raw_scores());
    assert_eq!(of_files.class_token(3), of_frames.class_token(3));
    assert_eq!(of_files.len(), 9);
    assert!(of_files.samples()[4].path.ends_with("4.png"));
    // The image with the square stands out, and the map has its peak where the raw score says.
    let raw = of_frames.raw_scores();
    assert!((0..9).filter(|&at| at != 6).all(|at| raw[at] < raw[6]), "{raw:?}");
    let size = ImageSize::new(30, 70);
    let mut map = vec![f32::NAN; size.pixels()];
    of_frames.map(6, size, &mut map).expect("map");
    assert!(map.iter().all(|value| (0.0..=2.0).contains(value)));
    let (scores, grid) = of_frames.patch_scores(6);
    assert_eq!((scores.len(), grid.patches()), (16, 16));
}

#[test]
fn scores_follow_the_order_of_the_batch() {
    let inspector = exact().build().expect("inspector");
    let forward = inspector.inspect(&frames(8, 56, 56), &()).unwrap();
    let backward = (0..8).rev().map(|seed| frame(seed, 56, 56)).collect();
    let backward = inspector.inspect(&Batch::images(backward).unwrap(), &()).unwrap();
    let mut turned = backward.raw_scores().to_vec();
    turned.reverse();
    for (one, other) in forward.raw_scores().iter().zip(turned) {
        // The lower image of a pair is the rows of its product: the two orders differ in rounding alone.
        let error = (one - other).abs();
        assert!(error <= 1e-5, "{one} {other}");
    }
}

#[test]
fn every_stage_is_begun_and_ended_and_its_seconds_are_kept() {
    let watcher = Watcher::default();
    let inspection = builder().build().unwrap().inspect(&frames(6, 56, 56), &watcher).unwrap();
    let stages = watcher.stages.lock().unwrap().clone();
    let pairs = 6 * 5 / 2 * 2;
    let expected =
        [(Stage::Reading, 6), (Stage::Features, 6), (Stage::Scoring, pairs), (Stage::Rescoring, 6)];
    assert_eq!(stages, expected);
    assert_eq!(watcher.done.into_inner(), 6 + 6 + pairs + 6);
    assert_eq!(watcher.ended.into_inner(), 4);
    let timed: Vec<Stage> = inspection.seconds().iter().map(|(stage, _)| *stage).collect();
    assert_eq!(timed, expected.map(|(stage, _)| stage));
}

#[test]
fn work_stops_in_any_stage() {
    let inspector = builder().build().unwrap();
    for stage in [Stage::Reading, Stage::Features, Stage::Scoring] {
        let watcher = Watcher { stop_at: Some(stage), ..Watcher::default() };
        let done = inspector.inspect(&frames(6, 56, 56), &watcher);
        assert!(matches!(done, Err(Error::Interrupted)), "{stage}: {done:?}");
    }
}

#[test]
fn bad_files_stop_the_work_or_are_left_out() {
    let folder = tempfile::tempdir().expect("folder");
    for seed in 0..5 {
        write_image(&folder.path().join(format!("{seed}.png")), &frame(seed, 60, 52)).expect("png");
    }
    std::fs::write(folder.path().join("2.png"), b"no image").expect("write");
    std::fs::write(folder.path().join("Thumbs.db"), b"whatever").expect("write");
    let inspector = builder().build().unwrap();
    let batch = Batch::folder(folder.path()).unwrap();
    assert_eq!(batch.ignored().len(), 1, "a file that is no image by its name is passed over");
    match inspector.inspect(&batch, &()) {
        Err(Error::BadImages { bad }) => assert!(bad.len() == 1 && bad[0].0.ends_with("2.png")),
        other => panic!("{other:?}"),
    }
    let inspection = inspector.inspect(&batch.skip_bad(true), &()).unwrap();
    assert_eq!(inspection.kept(), [0, 1, 3, 4]);
    assert!(inspection.skipped()[0].0.ends_with("2.png"));
    assert_eq!(inspection.len(), 4);
}

/// Nine frames as files.
fn files(folder: &std::path::Path) -> Batch {
    for seed in 0..9 {
        write_image(&folder.join(format!("{seed}.png")), &frame(seed, 60, 52)).expect("png");
    }
    Batch::folder(folder).expect("batch")
}

#[test]
fn files_are_read_by_the_threads_that_work_on_them() {
    let folder = tempfile::tempdir().expect("folder");
    let batch = files(folder.path());
    let of_frames = builder().threads(1).build().unwrap().inspect(&frames(9, 60, 52), &()).unwrap();
    for threads in [1, 2, 5, 9, 20] {
        let watcher = Watcher::default();
        let inspector = builder().threads(threads).build().unwrap();
        let of_files = inspector.inspect(&batch, &watcher).unwrap();
        for image in 0..9 {
            assert_eq!(of_files.patch_scores(image).0, of_frames.patch_scores(image).0);
            assert_eq!(of_files.class_token(image), of_frames.class_token(image));
            assert_eq!(of_files.image_size(image).unwrap(), ImageSize::new(52, 60));
        }
        assert_eq!(of_files.scores(), of_frames.scores(), "{threads}");
        let stages = watcher.stages.lock().unwrap().clone();
        assert_eq!(stages[0], (Stage::Features, 9), "no stage of reading before");
        assert_eq!(watcher.ended.into_inner(), stages.len() as u64);
        let expected: u64 = stages.iter().map(|(_, steps)| steps).sum();
        assert_eq!(watcher.done.into_inner(), expected);
    }
}

#[test]
fn bad_files_among_good_ones_are_all_named_in_order_by_any_number_of_threads() {
    let folder = tempfile::tempdir().expect("folder");
    let batch = files(folder.path());
    for bad in ["1.png", "4.png", "8.png"] {
        std::fs::write(folder.path().join(bad), b"no image").expect("write");
    }
    for threads in [1, 2, 16] {
        let inspector = builder().threads(threads).build().unwrap();
        match inspector.inspect(&batch, &()) {
            Err(Error::BadImages { bad }) => {
                let names: Vec<_> = bad.iter().map(|(path, _)| path.file_name().unwrap()).collect();
                assert_eq!(names, ["1.png", "4.png", "8.png"], "{threads}");
                assert!(
                    bad.iter().all(|(_, reason)| reason.starts_with("the name (.png) says PNG"))
                );
            }
            other => panic!("{other:?}"),
        }
        // Where they are skipped, all files are read first.
        let watcher = Watcher::default();
        let inspection = inspector.inspect(&batch.clone().skip_bad(true), &watcher).unwrap();
        assert_eq!(inspection.kept(), [0, 2, 3, 5, 6, 7]);
        let first = watcher.stages.lock().unwrap()[0];
        assert_eq!(first, (Stage::Reading, 9));
    }
}

#[test]
fn files_are_read_no_further_when_the_work_is_stopped() {
    /// Stops when so many images are done.
    struct After(AtomicU64);
    impl Progress for After {
        fn advance(&self, steps: u64) {
            let _ = self.0.fetch_update(SeqCst, SeqCst, |left| Some(left.saturating_sub(steps)));
        }
        fn stopped(&self) -> bool {
            self.0.load(SeqCst) == 0
        }
    }
    let folder = tempfile::tempdir().expect("folder");
    let batch = files(folder.path());
    // It would be told of, if it were come to.
    std::fs::write(folder.path().join("8.png"), b"no image").expect("write");
    for threads in [1, 3] {
        let inspector = builder().threads(threads).build().unwrap();
        for images in [0, 1, 4] {
            let done = inspector.inspect(&batch, &After(AtomicU64::new(images)));
            assert!(matches!(done, Err(Error::Interrupted)), "{threads} {images}: {done:?}");
        }
    }
}

#[test]
fn without_rescoring_scores_are_the_raw_ones() {
    let inspector = builder().rescoring(None).build().unwrap();
    let inspection = inspector.inspect(&frames(5, 56, 56), &()).unwrap();
    let raw: Vec<f64> = inspection.raw_scores().iter().map(|&score| f64::from(score)).collect();
    assert_eq!(inspection.scores(), raw);
    assert!(inspection.rscin_k().is_empty());
}

#[test]
fn settings_that_cannot_be_are_named() {
    let said = |builder: musc::inspect::InspectorBuilder| builder.build().unwrap_err().to_string();
    assert!(said(builder().size(57)).contains("56 or 70"));
    assert!(said(builder().layers([9])).contains("feature layers"));
    assert!(said(builder().degrees([2])).contains("aggregation degree"));
    let rescoring = Rescoring::default().with_k(Some(vec![0])).with_similarity(Similarity::Dot);
    assert!(said(builder().rescoring(Some(rescoring))).contains("RsCIN k"));
    let few = builder().build().unwrap().inspect(&frames(1, 56, 56), &()).unwrap_err().to_string();
    assert!(few.contains("at least 1"), "{few}");
    let wide = builder().degrees([9]).build().unwrap().inspect(&frames(3, 56, 56), &());
    assert!(wide.unwrap_err().to_string().contains("1 to 7"));
}

#[test]
fn an_inspector_goes_to_other_threads() {
    fn is_sync<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    let inspector = builder().build().unwrap();
    is_sync(&inspector);
    is_sync(&frames(2, 4, 4));
    let scores = std::thread::scope(|scope| {
        let work = || inspector.inspect(&frames(4, 56, 56), &()).map(|done| done.scores().to_vec());
        let (one, other) = (scope.spawn(work), scope.spawn(work));
        (one.join().unwrap().unwrap(), other.join().unwrap().unwrap())
    });
    assert_eq!(scores.0, scores.1);
}
