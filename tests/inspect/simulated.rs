//! The same job on the simulated card.

use musc::backend::device::Device;
use musc::inspect::{InputSize, Subsets};
use musc::{ImageSize, Stage};

use crate::support::{Watcher, builder, frames};

/// A patch score on 16-bit tensor cores may be this far from f32's.
const BOUND: f32 = 5e-3;

#[test]
fn scores_are_those_of_the_cpu_within_sixteen_bits() {
    let input = InputSize::Exactly(ImageSize::new(28, 70));
    let on = |device: Device| {
        let inspector =
            builder().device(device).input(input).subsets(Subsets::References(4)).build().unwrap();
        inspector.inspect(&frames(10, 60, 52), &()).unwrap()
    };
    let (cpu, sim) = (on(Device::Cpu), on(Device::Sim));
    assert_eq!(cpu.subsets(), sim.subsets());
    for image in 0..10 {
        for (one, other) in cpu.patch_scores(image).0.iter().zip(sim.patch_scores(image).0) {
            let error = (one - other).abs();
            assert!(error <= BOUND, "image {image}: {one} {other}");
        }
    }
}

#[test]
fn files_are_read_beside_the_card() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let image = crate::support::frame(seed, 60, 52);
        musc::report::write_image(&folder.path().join(format!("{seed}.png")), &image).unwrap();
    }
    let inspector = builder().device(Device::Sim).threads(1).build().unwrap();
    let watcher = Watcher::default();
    let batch = musc::inspect::Batch::folder(folder.path()).unwrap();
    let of_files = inspector.inspect(&batch, &watcher).unwrap();
    let first = watcher.stages.lock().unwrap()[0];
    assert_eq!(first, (Stage::Features, 4), "no stage of reading before");
    let of_frames = inspector.inspect(&frames(4, 60, 52), &()).unwrap();
    assert_eq!(of_files.scores(), of_frames.scores());
    // A bad file is told of, and is no interruption.
    std::fs::write(folder.path().join("1.png"), b"no image").unwrap();
    let done = inspector.inspect(&batch, &());
    assert!(matches!(done, Err(musc::Error::BadImages { .. })), "{done:?}");
}
