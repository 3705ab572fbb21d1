//! Changes to files, blind and with some knowledge of the format.

use std::time::{Duration, Instant, SystemTime};

/// The rounds of a target: so many, or for as long as `MUSC_FUZZ_SECONDS` says; each with a seed of its own, the first that of
/// `MUSC_FUZZ_SEED`, or of the clock where the time is given, else 1.
pub struct Rounds {
    in_suite: u64,
    time: Option<Duration>,
    pub seed: u64,
    pub start: Instant,
    /// Rounds begun.
    pub runs: u64,
}

impl Rounds {
    pub fn new(in_suite: u64) -> Self {
        let read = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let time = read("MUSC_FUZZ_SECONDS").map(Duration::from_secs);
        let clock = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed = read("MUSC_FUZZ_SEED").unwrap_or(if time.is_some() { clock } else { 1 });
        Self { in_suite, time, seed, start: Instant::now(), runs: 0 }
    }
}

impl Iterator for Rounds {
    /// The round's seed.
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let goes_on = match self.time {
            Some(time) => self.start.elapsed() < time,
            None => self.runs < self.in_suite,
        };
        goes_on.then(|| {
            self.runs += 1;
            self.seed.wrapping_add(self.runs - 1)
        })
    }
}

/// A generator of known numbers (Marsaglia's xorshift).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Numbers at the edges of what integers hold.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Changes some bytes of a part: flips, edges, pieces of the format, pieces of the file itself, cuts.
pub fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers, pieces: &[&[u8]]) {
    // Half of the files are changed in one place: those come furthest.
    let places = if numbers.below(2) == 0 { 1 } else { 1 + numbers.below(4) };
    for _ in 0..places {
        let at = numbers.below(bytes.len() + 1).min(bytes.len());
        let until = (at + numbers.below(16)).min(bytes.len());
        match numbers.below(8) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            2 if at < bytes.len() => bytes[at] = numbers.next() as u8,
            3 => {
                let edge = EDGES[numbers.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][numbers.below(4)];
                for (to, from) in bytes.iter_mut().skip(at).zip(&edge[..width]) {
                    *to = *from;
                }
            }
            4 | 5 => {
                let piece = numbers.pick(pieces);
                bytes.splice(at..until, piece.iter().copied());
            }
            6 => {
                // A piece of the file, once or many times.
                let from = numbers.below(bytes.len() + 1).min(bytes.len());
                let end = (from + numbers.below(64)).min(bytes.len());
                let piece = bytes[from..end].repeat(1 + numbers.below(3).pow(4));
                bytes.splice(at..until, piece);
            }
            7 if numbers.below(8) == 0 => bytes.truncate(at),
            _ => drop(bytes.drain(at..until)),
        }
    }
}
