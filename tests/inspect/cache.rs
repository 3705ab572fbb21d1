//! Tokens that are kept between runs.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use musc::inspect::{Batch, Inspection, Inspector, InspectorBuilder, Note};
use musc::{Progress, Stage};

use crate::support::{builder, frame};

const ROOM: u64 = 1 << 30;

/// Frames of which no two are the same.
fn frames(count: usize) -> Batch {
    some(0..count)
}

fn some(seeds: std::ops::Range<usize>) -> Batch {
    let one = |seed: usize| {
        let mut frame = frame(seed, 56, 56);
        frame.data[..2].copy_from_slice(&(seed as u16).to_le_bytes());
        frame
    };
    Batch::images(seeds.map(one).collect()).unwrap()
}

fn inspect(builder: InspectorBuilder, count: usize) -> (Inspector, Inspection) {
    let inspector = builder.build().unwrap();
    let inspection = inspector.inspect(&frames(count), &()).unwrap();
    (inspector, inspection)
}

/// All that comes out, to the bit.
fn bits(inspection: &Inspection) -> (Vec<u64>, Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let of = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    let images = 0..inspection.len();
    (
        inspection.scores().iter().map(|score| score.to_bits()).collect(),
        images.clone().map(|at| of(inspection.patch_scores(at).0)).collect(),
        images.map(|at| of(inspection.class_token(at))).collect(),
    )
}

fn counts(inspector: &Inspector) -> (u64, u64) {
    let counts = inspector.cache_counts().unwrap();
    (counts.found, counts.made)
}

/// The kept files, sorted.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|part| std::fs::read_dir(part.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_run_makes_no_tokens_and_no_other_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let cached = || builder().cache(folder.path(), ROOM);
    let (_, plain) = inspect(builder(), 20);
    let (first, made) = inspect(cached(), 20);
    assert_eq!(counts(&first), (0, 20));
    assert_eq!(bits(&made), bits(&plain));
    let (second, found) = inspect(cached(), 20);
    assert_eq!((counts(&second), bits(&found)), ((20, 0), bits(&plain)));
    // Other degrees and k: the same tokens; more images: the new ones.
    let (third, _) = inspect(cached().degrees([1]).rescoring(None), 20);
    assert_eq!(counts(&third), (20, 0));
    let (more, of_more) = inspect(cached(), 25);
    assert_eq!(counts(&more), (20, 5));
    assert_eq!(bits(&of_more), bits(&inspect(builder(), 25).1));
    // Another size, other layers: other tokens.
    for other in [cached().size(84), cached().layers([2, 3])] {
        assert_eq!(counts(&inspect(other, 20).0), (0, 20));
    }
    // Beside the others, and not in their place.
    assert_eq!(kept(folder.path()).len(), 25 + 20 + 20);
    assert!(inspect(builder(), 20).0.cache_counts().is_none());
}

#[test]
fn a_damaged_file_is_told_of_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let cached = || builder().cache(folder.path(), ROOM);
    let (_, plain) = inspect(cached(), 8);
    let files = kept(folder.path());
    assert_eq!(files.len(), 8);
    let whole = std::fs::read(&files[3]).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 9;
    flipped[last] ^= 1;
    let mut lying = whole.clone();
    let at = lying.windows(9).position(|part| part == b"\"content\"").unwrap();
    lying[at + 12] = if lying[at + 12] == b'1' { b'2' } else { b'1' };
    for (damaged, word) in [
        (flipped, "not those that were written"),
        (lying, "not those that were written"),
        (whole[..100].to_vec(), "cut short"),
        (Vec::new(), "too short"),
    ] {
        std::fs::write(&files[3], damaged).unwrap();
        let (inspector, again) = inspect(cached(), 8);
        assert_eq!(counts(&inspector), (7, 1));
        assert_eq!(bits(&again), bits(&plain));
        let said: Vec<String> = again.notes().iter().map(ToString::to_string).collect();
        let name = files[3].display().to_string();
        assert!(said.iter().any(|note| note.contains(&name) && note.contains(word)), "{said:?}");
        assert_eq!(std::fs::read(&files[3]).unwrap(), whole);
    }
}

#[test]
fn a_folder_that_cannot_be_written_costs_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let cached = || builder().cache(folder.path(), ROOM);
    inspect(cached(), 3);
    // Files where there should be folders, for every key but those that are there.
    for part in 0..256 {
        let path = folder.path().join(format!("{part:02x}"));
        if !path.exists() {
            std::fs::write(path, b"").unwrap();
        }
    }
    let (inspector, inspection) = inspect(cached(), 20);
    assert_eq!(counts(&inspector), (3, 17));
    assert_eq!(bits(&inspection), bits(&inspect(builder(), 20).1));
    let notes = inspection.notes().iter();
    let unwritten = notes.filter(|note| matches!(note, Note::CacheNotWritten { .. }));
    assert_eq!(unwritten.count(), 1, "{:?}", inspection.notes());
    let said = builder().cache(folder.path().join("00/deeper"), ROOM).build().unwrap_err();
    assert!(said.to_string().contains("00/deeper"), "{said}");
    assert!(builder().cache(folder.path(), 0).build().is_err());
}

#[test]
fn what_was_not_used_for_the_longest_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    inspect(builder().cache(folder.path(), ROOM), 10);
    let files = kept(folder.path());
    let size = std::fs::metadata(&files[0]).unwrap().len();
    // All of them are old; then the first four images are asked for, and two new ones with little room.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
    for file in &files {
        std::fs::File::options().append(true).open(file).unwrap().set_modified(old).unwrap();
    }
    let small = || builder().cache(folder.path(), 11 * size);
    assert_eq!(counts(&inspect(small(), 4).0), (4, 0));
    let new = 22;
    let inspector = small().build().unwrap();
    inspector.inspect(&some(new..new + 3), &()).unwrap();
    assert_eq!(counts(&inspector), (0, 3));
    // Those that were just asked for are still there, and so are the new ones.
    assert_eq!(counts(&inspect(small(), 4).0), (4, 0));
    inspector.inspect(&some(new..new + 3), &()).unwrap();
    assert_eq!(counts(&inspector), (3, 3));
    let left = kept(folder.path());
    let bytes: u64 = left.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    assert!(left.len() < 13 && bytes <= 11 * size, "{} files, {bytes} bytes", left.len());
    // What is left is less than a tenth below what there is room for.
    assert!(left.len() >= 9, "{} files", left.len());
    let room_for_one = builder().cache(folder.path(), size - 1);
    assert_eq!(inspect(room_for_one, 12).1.len(), 12);
    // An unfinished file of a killed run goes when it is old.
    let unfinished = left[0].with_file_name(".musc-x.part");
    std::fs::write(&unfinished, b"half").unwrap();
    inspect(small(), 2);
    assert!(unfinished.exists());
    let file = std::fs::File::options().append(true).open(&unfinished).unwrap();
    file.set_modified(old - std::time::Duration::from_secs(3600)).unwrap();
    inspect(small(), 2);
    assert!(!unfinished.exists());
}

/// Stops at the so many-th step of the features.
struct Stopping(Mutex<(bool, u64)>);

impl Progress for Stopping {
    fn begin(&self, stage: Stage, _: u64) {
        self.0.lock().unwrap().0 = stage == Stage::Features;
    }
    fn advance(&self, steps: u64) {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            state.1 = state.1.saturating_sub(steps);
        }
    }
    fn stopped(&self) -> bool {
        self.0.lock().unwrap().1 == 0
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_from_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let inspector = builder().cache(folder.path(), ROOM).build().unwrap();
    let batch = frames(40);
    let stopped = inspector.inspect(&batch, &Stopping(Mutex::new((false, 20))));
    assert!(matches!(stopped, Err(musc::Error::Interrupted)));
    // Sixteen go together.
    assert_eq!(kept(folder.path()).len(), 16);
    let again = builder().cache(folder.path(), ROOM).build().unwrap();
    let inspection = again.inspect(&batch, &()).unwrap();
    assert_eq!(counts(&again), (16, 24));
    assert_eq!(bits(&inspection), bits(&inspect(builder(), 40).1));
}
