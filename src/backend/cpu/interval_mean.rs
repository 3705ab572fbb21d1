//! The mean of an interval of the sorted distances, from the best cosines.

use super::aligned::LANES;

/// The mean distance over the ranks `[first, last)` of the distances sorted upwards, where a distance is
/// √(2 − 2·cosine). Reorders `cosines`.
///
/// # Panics
/// When the ranks are empty or reach past the cosines.
pub fn interval_mean(cosines: &mut [f32], first: usize, last: usize) -> f32 {
    assert!(first < last && last <= cosines.len(), "ranks {first}..{last} of {}", cosines.len());
    // The smallest distances are the largest cosines.
    let downwards = |a: &f32, b: &f32| b.total_cmp(a);
    if last < cosines.len() {
        cosines.select_nth_unstable_by(last - 1, downwards);
    }
    let mut chosen = &mut cosines[..last];
    if first > 0 {
        chosen.select_nth_unstable_by(first - 1, downwards);
        chosen = &mut chosen[first..];
    }
    // Sorted, so that the sum does not depend on the order in which the images came.
    chosen.sort_unstable_by(downwards);
    let sum: f64 = chosen.iter().map(|&cosine| (2.0 - 2.0 * cosine as f64).max(0.0).sqrt()).sum();
    (sum / chosen.len() as f64) as f32
}

/// The same of many patches at a time, each a lane: the bits of [`interval_mean`].
///
/// What is sorted are whole rows of lanes, by a network that compares the same places whatever the values are (merge exchange:
/// Batcher 1968; Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M), less what no wanted rank depends on.
pub struct IntervalMeans {
    count: usize,
    first: usize,
    last: usize,
    /// The larger goes to the first place of a pair.
    exchanges: Vec<(u32, u32)>,
}

impl IntervalMeans {
    /// The most cosines of a patch: beyond, the network grows faster than a selection.
    pub const MOST: usize = 256;

    /// Over the ranks `[first, last)` of `count` cosines, at most `MOST`.
    ///
    /// # Panics
    /// As [`interval_mean`].
    pub fn new(count: usize, first: usize, last: usize) -> Self {
        assert!(first < last && last <= count, "ranks {first}..{last} of {count}");
        assert!(count <= Self::MOST, "{count} cosines");
        let mut exchanges = Vec::new();
        let half = count.next_power_of_two() / 2;
        let mut pass = half;
        while pass > 0 {
            let (mut span, mut remainder, mut distance) = (half, 0, pass);
            loop {
                let places = (0..count - distance).filter(|at| at & pass == remainder);
                exchanges.extend(places.map(|at| (at as u32, (at + distance) as u32)));
                if span == pass {
                    break;
                }
                (distance, remainder, span) = (span - pass, pass, span / 2);
            }
            pass /= 2;
        }
        // From the end: what leads to no wanted rank goes.
        let mut wanted = vec![false; count];
        wanted[first..last].fill(true);
        let mut kept = exchanges.len();
        for at in (0..exchanges.len()).rev() {
            let (a, b) = (exchanges[at].0 as usize, exchanges[at].1 as usize);
            if wanted[a] || wanted[b] {
                (wanted[a], wanted[b]) = (true, true);
                kept -= 1;
                exchanges.swap(kept, at);
            }
        }
        exchanges.drain(..kept);
        IntervalMeans { count, first, last, exchanges }
    }

    /// The mean distance of each lane, from as many cosines of it. Reorders them.
    ///
    /// # Panics
    /// When there are more or fewer.
    pub fn of(&self, cosines: &mut [[f32; LANES]]) -> [f32; LANES] {
        assert!(cosines.len() == self.count, "{} of {} cosines", cosines.len(), self.count);
        for &(a, b) in &self.exchanges {
            let (one, other) = (cosines[a as usize], cosines[b as usize]);
            for lane in 0..LANES {
                let larger = one[lane] > other[lane];
                cosines[a as usize][lane] = if larger { one[lane] } else { other[lane] };
                cosines[b as usize][lane] = if larger { other[lane] } else { one[lane] };
            }
        }
        let mut sums = [0.0f64; LANES];
        for line in &cosines[self.first..self.last] {
            for (sum, &cosine) in sums.iter_mut().zip(line) {
                *sum += (2.0 - 2.0 * f64::from(cosine)).max(0.0).sqrt();
            }
        }
        sums.map(|sum| (sum / (self.last - self.first) as f64) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_a_full_sort() {
        for count in [1usize, 2, 3, 16, 17, 59, 101] {
            let cosines: Vec<f32> = (0..count)
                .map(|at| ((at * 37 % 101) as f32 / 51.0 - 1.0).clamp(-1.0, 1.0))
                .collect();
            let mut distances: Vec<f64> =
                cosines.iter().map(|&c| (2.0 - 2.0 * c as f64).max(0.0).sqrt()).collect();
            distances.sort_by(f64::total_cmp);
            for first in [0, count / 3, count - 1] {
                for last in [first + 1, (first + count).div_ceil(2), count] {
                    if last <= first || last > count {
                        continue;
                    }
                    let chosen = &distances[first..last];
                    let expected = chosen.iter().sum::<f64>() / chosen.len() as f64;
                    let got = interval_mean(&mut cosines.clone(), first, last);
                    // One rounding to f32 of a value below 2.
                    assert!((got as f64 - expected).abs() <= 2.0 * f32::EPSILON as f64);
                }
            }
        }
    }

    #[test]
    fn lanes_are_the_bits_of_one_patch() {
        let mut state = 1u32;
        for count in (1..70).chain([127, 128, 129, 200, IntervalMeans::MOST]) {
            let mut lines = vec![[0.0f32; LANES]; count];
            for value in lines.as_flattened_mut() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Coarse, so that equal ones come; some past one, some of nothing.
                *value = (state >> 25) as f32 / 60.0 - 1.0;
                if state >> 27 == 9 {
                    *value = f32::NEG_INFINITY;
                }
            }
            for first in [0, count / 3, count - 1] {
                for last in [first + 1, (first + count).div_ceil(2), count] {
                    if last <= first || last > count {
                        continue;
                    }
                    let found = IntervalMeans::new(count, first, last).of(&mut lines.clone());
                    for lane in 0..LANES {
                        let mut cosines: Vec<f32> = lines.iter().map(|line| line[lane]).collect();
                        let expected = interval_mean(&mut cosines, first, last);
                        let what = format!("lane {lane}, ranks {first}..{last} of {count}");
                        assert_eq!(found[lane].to_bits(), expected.to_bits(), "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn cosines_past_one_are_distance_zero() {
        assert_eq!(interval_mean(&mut [1.000_000_1, 1.0], 0, 2), 0.0);
    }
}
