//! The memory of an inspection, counted, against the formulas of `inspect` and of the CPU backend.
#![cfg(feature = "files")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use musc::backend::device::{Device, Precision};
use musc::image::RgbImage;
use musc::inspect::{Batch, Inspector, Subsets, Weights};
use musc::report::write_image;
use musc::{ImageSize, Result};

/// Counts what is allocated, and the most there was at once.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::SeqCst) + bytes;
    PEAK.fetch_max(live, Ordering::SeqCst);
}

// SAFETY: every call is passed on to the system's allocator as it came; only counters are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            grow(layout.size());
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const THREADS: usize = 2;
const SIDE: usize = 112;
const SUBSET: usize = 16;
/// The tiny backbone: width, layers read, patch, MLP width.
const WIDTH: usize = 128;
const LAYERS: usize = 2;
const PATCHES: usize = (SIDE / 14) * (SIDE / 14);
const MLP: usize = 4 * WIDTH;
const DEGREES: usize = 3;
const F32: usize = size_of::<f32>();

fn put_images(folder: &Path, count: usize) {
    for seed in 0..count {
        let data = (0..SIDE * SIDE * 3).map(|at| ((at * 31 + seed * 131) % 251) as u8).collect();
        let image = RgbImage::new(SIDE, SIDE, data).expect("image");
        write_image(&folder.join(format!("{seed:03}.png")), &image).expect("png");
    }
}

/// The most bytes above what there was before.
fn peak_of(inspector: &Inspector, batch: &Batch) -> Result<usize> {
    let before = LIVE.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let inspection = inspector.inspect(batch, &())?;
    assert_eq!(inspection.len(), batch.len());
    Ok(PEAK.load(Ordering::SeqCst) - before)
}

#[test]
fn memory_is_what_the_formulas_say_and_does_not_grow_with_the_batch() {
    let folder = tempfile::tempdir().expect("folder");
    let (few, many) = (3 * SUBSET, 12 * SUBSET);
    put_images(folder.path(), many);
    let batch = |count: usize| {
        let files = (0..count).map(|seed| folder.path().join(format!("{seed:03}.png")));
        Batch::files(files).expect("batch")
    };
    let weights =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dinov2_tiny_weights.safetensors");
    let inspector = Inspector::builder()
        .weights(Weights::File(weights.into()))
        .layers([1, 3])
        .size(SIDE)
        .device(Device::Cpu)
        // The formulas below are those of f32.
        .precision(Precision::F32)
        .threads(THREADS)
        .subsets(Subsets::References(SUBSET - 1))
        .build()
        .expect("inspector");
    // Once, so that what threads and libraries keep for themselves is there before anything is counted.
    peak_of(&inspector, &batch(few)).expect("inspection");
    let peak_few = peak_of(&inspector, &batch(few)).expect("inspection");
    let peak_many = peak_of(&inspector, &batch(many)).expect("inspection");

    // The CPU backend's own while it scores: a centred copy of a layer and its panels, norms, table and results; a Gram
    // block and the windows of the degrees a thread (backend::cpu).
    let centred = 2 * SUBSET * PATCHES * WIDTH * F32 + DEGREES * SUBSET * PATCHES * F32;
    let table = DEGREES * SUBSET * SUBSET * PATCHES * F32;
    let results = (DEGREES * LAYERS + 2) * SUBSET * PATCHES * F32;
    let side = SIDE / 14;
    let pool = PATCHES * PATCHES + (1 + 3 + 5) * (side + 8) * PATCHES;
    let scoring = centred + table + results + THREADS * pool * F32;
    // While it extracts: an image in flight a thread.
    let extracting = THREADS * (6 * WIDTH + MLP) * (1 + PATCHES) * F32;
    let kept = |count: usize| count * (PATCHES + WIDTH) * F32;
    let input = ImageSize::square(SIDE);
    for (count, peak) in [(few, peak_few), (many, peak_many)] {
        let expected = inspector.expected_bytes(count, input) as usize + scoring.max(extracting);
        // Pixels are gone when scoring begins: the formula is an upper bound. Names and small things come on top.
        let names = count * 600 + (96 << 10);
        assert!(peak <= expected + names, "{count} images: {peak} of {expected} bytes");
        assert!(peak >= expected / 2, "{count} images: {peak} of {expected} bytes");
    }
    // Nothing but scores, class tokens and names grows with the batch; class tokens stand twice while RsCIN is done.
    let grown = peak_many.saturating_sub(peak_few);
    let allowed = kept(many) - kept(few) + (many - few) * 600;
    assert!(grown <= allowed, "{grown} of {allowed} bytes");
}
