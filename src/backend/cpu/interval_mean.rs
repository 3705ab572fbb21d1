//! The mean of an interval of the sorted distances, from the best cosines.

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
    fn cosines_past_one_are_distance_zero() {
        assert_eq!(interval_mean(&mut [1.000_000_1, 1.0], 0, 2), 0.0);
    }
}
