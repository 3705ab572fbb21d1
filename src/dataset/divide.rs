//! `divide_num`: the subsets the authors' program scores one at a time, image for image.
//!
//! Their program shuffles the images of each defect type (the folder an image lies in, types in the order of their
//! first image) with Python's `random` after `random.seed(42)`, and deals each type out to the subsets in turn. The
//! generator runs on from type to type. Python's seeding and shuffling are remade here, so that the subsets hold the
//! same images in the same order.

use super::Sample;
use crate::{Error, Result};

/// Seed of the authors' program.
const SEED: u32 = 42;

/// Deals `samples` out to `divide_num` subsets; each is a list of indices into `samples`.
///
/// One subset is all images in their own order: the authors' program does not shuffle then.
///
/// # Errors
/// [`Error::Invalid`] when `divide_num` is 0 or so large that a subset would stay empty.
pub fn divide(samples: &[Sample], divide_num: usize) -> Result<Vec<Vec<usize>>> {
    if divide_num == 0 {
        return Err(Error::invalid("divide_num", 0, "1 or more"));
    }
    if divide_num == 1 {
        return Ok(vec![(0..samples.len()).collect()]);
    }
    let mut kinds: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        match kinds.iter_mut().find(|(kind, _)| *kind == sample.kind) {
            Some((_, indices)) => indices.push(index),
            None => kinds.push((&sample.kind, vec![index])),
        }
    }
    // A subset gets an image of a type only when the type has that many: the largest type decides.
    let largest = kinds.iter().map(|(_, indices)| indices.len()).max().unwrap_or(0);
    if divide_num > largest {
        return Err(Error::invalid(
            "divide_num",
            divide_num,
            format!(
                "at most {largest}, the images of the most frequent type: no subset may be empty"
            ),
        ));
    }
    let mut random = PythonRandom::new(SEED);
    let mut subsets = vec![Vec::new(); divide_num];
    for (_, mut indices) in kinds {
        random.shuffle(&mut indices);
        for (turn, index) in indices.into_iter().enumerate() {
            subsets[turn % divide_num].push(index);
        }
    }
    Ok(subsets)
}

/// Words of the generator's state.
const WORDS: usize = 624;
/// Distance of the words that are mixed.
const MIDDLE: usize = 397;

/// Python's `random.Random`: the Mersenne Twister MT19937 (Matsumoto and Nishimura, "Mersenne Twister: A
/// 623-Dimensionally Equidistributed Uniform Pseudo-Random Number Generator", 1998), with Python's seeding from an
/// integer and its way to integers below a bound.
#[derive(Debug, Clone)]
pub struct PythonRandom {
    state: [u32; WORDS],
    /// The next word to hand out; `WORDS` when all are spent.
    next: usize,
}

impl PythonRandom {
    /// The generator after `random.seed(seed)`.
    pub fn new(seed: u32) -> Self {
        // Seeding from an array of words, of which a seed below 2^32 has one.
        let mut state = seeded(19_650_218);
        let mut index = 1;
        for _ in 0..WORDS {
            state[index] = (state[index] ^ mixed(state[index - 1], 1_664_525)).wrapping_add(seed);
            index = advance(&mut state, index);
        }
        for _ in 0..WORDS - 1 {
            state[index] =
                (state[index] ^ mixed(state[index - 1], 1_566_083_941)).wrapping_sub(index as u32);
            index = advance(&mut state, index);
        }
        state[0] = 0x8000_0000;
        PythonRandom { state, next: WORDS }
    }

    /// The next 32 random bits.
    fn next_word(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn refill(&mut self) {
        for index in 0..WORDS {
            let joined =
                (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % WORDS] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + MIDDLE) % WORDS] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }

    /// An integer below `bound`, which must be 1 or more: as many bits as the bound has, drawn until they are below.
    fn below(&mut self, bound: u32) -> u32 {
        let shift = bound.leading_zeros();
        loop {
            // A bound of 0 would have no bits to draw; `min` keeps the shift in range.
            let value = self.next_word() >> shift.min(31);
            if value < bound.max(1) {
                return value;
            }
        }
    }

    /// `random.shuffle(values)`: from the last down, each is swapped with one at or before it.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for index in (1..values.len()).rev() {
            // A list of 2^32 images does not exist; the cast cannot cut.
            let other = self.below(index as u32 + 1) as usize;
            values.swap(index, other);
        }
    }
}

fn seeded(seed: u32) -> [u32; WORDS] {
    let mut state = [seed; WORDS];
    for index in 1..WORDS {
        state[index] = mixed(state[index - 1], 1_812_433_253).wrapping_add(index as u32);
    }
    state
}

fn mixed(word: u32, factor: u32) -> u32 {
    (word ^ (word >> 30)).wrapping_mul(factor)
}

/// The index after `index`; past the end the last word becomes the first, and the next is 1.
fn advance(state: &mut [u32; WORDS], index: usize) -> usize {
    if index + 1 == WORDS {
        state[0] = state[WORDS - 1];
        1
    } else {
        index + 1
    }
}

#[cfg(test)]
#[path = "divide_tests.rs"]
mod tests;
