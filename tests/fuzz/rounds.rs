//! The rounds that every target goes through.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use musc::Error;

use crate::memory::peak;
use crate::mutate::Numbers;

/// Mutations in the suite; some seconds.
const IN_SUITE: u64 = 10_000;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).expect(name)
}

/// Runs a target on mutated files, for a number of rounds or the time that the environment says. `target` returns true for
/// a file that is accepted, and its peak must not pass `factor` times the file's size and a constant.
pub fn fuzz(
    name: &str,
    seeds: &[Vec<u8>],
    factor: usize,
    constant: usize,
    mut change: impl FnMut(&mut Vec<u8>, &mut Numbers),
    mut target: impl FnMut(&[u8]) -> bool,
) {
    let seconds = std::env::var("MUSC_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = seconds.map(Duration::from_secs);
    let of_clock = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    let seed = std::env::var("MUSC_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(if time.is_some() { of_clock } else { 1 });
    let start = Instant::now();
    let (mut runs, mut accepted, mut worst) = (0u64, 0u64, 0.0f64);
    for seed_file in seeds {
        // Whatever is lazily made on first use is made now.
        target(seed_file);
    }
    while time.map_or(runs < IN_SUITE, |time| start.elapsed() < time) {
        let case = seed.wrapping_add(runs);
        let mut numbers = Numbers::new(case);
        let mut bytes = seeds[numbers.below(seeds.len())].clone();
        change(&mut bytes, &mut numbers);
        let (taken, most) = peak(|| target(&bytes));
        let limit = factor * bytes.len() + constant;
        assert!(
            most <= limit,
            "{name}: MUSC_FUZZ_SEED={case}: {most} bytes taken for a file of {}, expected at most {limit}",
            bytes.len()
        );
        worst = worst.max(most as f64 / limit as f64);
        accepted += u64::from(taken);
        runs += 1;
    }
    println!(
        "{name}: {runs} files from seed {seed}, {accepted} accepted, {:.0} a second, most memory {:.2} of its bound",
        runs as f64 / start.elapsed().as_secs_f64(),
        worst
    );
    assert!(accepted > 0 && accepted < runs, "{name}: {accepted} of {runs} accepted");
}

/// A refusal must be about the file.
pub fn refused(reason: Error) -> bool {
    let said = reason.to_string();
    assert!(said.contains("fuzzed"), "{said}");
    assert!(said.len() < 1 << 20, "a message of {} bytes", said.len());
    false
}
