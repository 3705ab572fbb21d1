//! The rounds that every target goes through.

use std::path::PathBuf;
use std::time::Instant;

use musc::Error;

use crate::memory::peak;
use crate::mutate::{Numbers, Rounds};

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
    let mut rounds = Rounds::new(IN_SUITE);
    let (mut accepted, mut worst) = (0u64, 0.0f64);
    for seed_file in seeds {
        // Whatever is lazily made on first use is made now.
        target(seed_file);
    }
    // The making ready is none of the time.
    rounds.start = Instant::now();
    for case in rounds.by_ref() {
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
    }
    let Rounds { runs, seed, start, .. } = rounds;
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
