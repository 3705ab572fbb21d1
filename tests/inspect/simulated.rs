//! The same job on the simulated card.

use musc::backend::device::{Device, Precision};
use musc::inspect::{Batch, InputSize, Predictor, Subsets};
use musc::scoring::decision::DecisionRule;
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

#[test]
fn a_bank_slides_and_tokens_are_kept_on_a_card_as_on_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let some = |seeds: &[usize]| {
        let frames = seeds.iter().map(|&seed| crate::support::frame(seed, 56, 56)).collect();
        Batch::images(frames).unwrap()
    };
    let input = InputSize::Exactly(ImageSize::square(28));
    let on = |device: Device| {
        let precision = if device == Device::Cpu { Precision::F32 } else { Precision::F16 };
        let inspector = builder()
            .device(device)
            .precision(precision)
            .input(input)
            .degrees([1, 3])
            .cache(folder.path(), 1 << 30)
            .build()
            .unwrap();
        let rule = DecisionRule::Value(10.0);
        let bank = inspector.bank(&some(&[0, 1, 2]), rule, &()).unwrap();
        // All are accepted: the places are written over, one after the other.
        let mut sliding = Predictor::new(&inspector, bank).unwrap().keep(3).unwrap();
        let slid = sliding.predict(&some(&[6, 8, 9, 10]), &()).unwrap();
        let now = inspector.references(&sliding.bank()).unwrap();
        let last = inspector.compare(&some(&[3]), &now, &()).unwrap();
        let told = sliding.predict(&some(&[3]), &()).unwrap();
        assert!((last.raw_scores()[0] - told.raw_scores()[0]).abs() <= 1e-6);
        let counts = inspector.cache_counts().unwrap();
        let scores: Vec<f32> = slid.raw_scores().iter().chain(last.raw_scores()).copied().collect();
        (scores, (counts.found, counts.made))
    };
    let (cpu, of_cpu) = on(Device::Cpu);
    let (sim, of_sim) = on(Device::Sim);
    for (one, other) in cpu.iter().zip(&sim) {
        assert!((one - other).abs() <= BOUND, "{cpu:?} {sim:?}");
    }
    // A card does not take the processor's tokens, and finds its own again.
    assert_eq!((of_cpu, of_sim), ((1, 8), (1, 8)));
    assert_eq!(on(Device::Sim), (sim, (9, 0)));
}
