//! Frames, an inspector, and a watcher for the tests of the job.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use musc::backend::device::{Device, Precision};
use musc::image::RgbImage;
use musc::inspect::{Batch, Inspector, InspectorBuilder, Weights};
use musc::{Progress, Stage};

/// Tiny random DINOv2 weights: 4 blocks, width 128, patch 14, native size 56.
pub const WEIGHTS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dinov2_tiny_weights.safetensors");

/// An inspector in the making with these weights, on the CPU with two threads.
pub fn builder() -> InspectorBuilder {
    Inspector::builder()
        .weights(Weights::File(WEIGHTS.into()))
        .layers([1, 3])
        .size(56)
        .device(Device::Cpu)
        .threads(2)
}

/// The same in f32, for numbers that are held against others to a few of its roundings.
pub fn exact() -> InspectorBuilder {
    builder().precision(Precision::F32)
}

/// A woven pattern with some variation by `seed`; every seventh has a bright square.
pub fn frame(seed: usize, width: usize, height: usize) -> RgbImage {
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let weave = 90 + 40 * ((x / 4 + y / 4) % 2) + (x * 7 + y * 13 + seed * 29) % 11;
            let hit = seed % 7 == 6 && (20..36).contains(&x) && (16..32).contains(&y);
            let value = if hit { 250 } else { weave };
            data.extend([value as u8, (value / 2) as u8, 60]);
        }
    }
    RgbImage::new(width, height, data).expect("a frame")
}

/// A batch of `count` frames.
pub fn frames(count: usize, width: usize, height: usize) -> Batch {
    Batch::images((0..count).map(|seed| frame(seed, width, height)).collect()).expect("frames")
}

/// Takes down the stages, and stops when it is told to.
#[derive(Default)]
pub struct Watcher {
    pub stages: Mutex<Vec<(Stage, u64)>>,
    pub done: AtomicU64,
    pub ended: AtomicU64,
    pub stop_at: Option<Stage>,
    pub stopping: AtomicBool,
}

impl Progress for Watcher {
    fn begin(&self, stage: Stage, steps: u64) {
        if self.stop_at == Some(stage) {
            self.stopping.store(true, Ordering::SeqCst);
        }
        self.stages.lock().expect("stages").push((stage, steps));
    }
    fn advance(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::SeqCst);
    }
    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
    fn stopped(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}
