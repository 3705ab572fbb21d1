//! MEBin, "main element binarisation" (AnomalyNCD, arXiv 2410.14379): a threshold for each map, at the end of the longest
//! stretch of thresholds over which the map keeps its number of regions.
//!
//! Here as anomalib 2.6 has it, which MuSc's users know. The largest values m of the maps span the range from their least, s,
//! to their greatest, S; R = S − s. A map's values become u = 255·(a − s)/R, 0 below s. For t = 255, 251, … 3 the regions (8
//! neighbours) of u > t are counted, after an erosion by a square of 6 pixels that reaches 3 up and left and 2 down and right;
//! what lies beyond the border does not erode. A stretch of at least 4 thresholds with one count other than 0 is stable. The count
//! with the longest stable stretch wins, of equal ones the count that was stable first, and of its longest stretches the first.
//! With t its last threshold, the map's threshold is s + t/255·R; without a stable stretch it is S, which no map is above.
//! Where all m are equal, s is the least value of all maps.
//!
//! The authors' program differs: its maps are of 8 bits, its threshold in the map is cut to a whole number, of equal stretches it
//! takes the last, and it erodes the final mask too, which neither anomalib nor this does. anomalib sees a batch of its loader
//! at a time, this all maps of a run at once. Both leave the label of an image to another threshold; here an image is
//! defective when its map has a value above its own. The map with the least m is never: u is nowhere above 0 there.

use rayon::prelude::*;

use crate::{Error, ImageSize, Result};

/// The longest side of a map that MEBin looks at: counting needs no more.
pub const MEBIN_SIDE: usize = 512;
/// From a threshold to the next.
const STEP: usize = 4;
/// Thresholds: 255, 251, … 3.
const STEPS: usize = 64;
/// Thresholds of a stable stretch, at least.
const STABLE: usize = 4;
/// The square that erodes: so many pixels before and behind a pixel, on either axis.
const ERODES: (usize, usize) = (3, 2);

/// The size at which MEBin looks at maps of a size: that size, or its proportions with [`MEBIN_SIDE`] as the longer side.
pub fn mebin_size(size: ImageSize) -> ImageSize {
    let longest = size.height.max(size.width);
    if longest <= MEBIN_SIDE {
        return size;
    }
    let scaled = |side: usize| {
        let nearest =
            (side as u128 * MEBIN_SIDE as u128 * 2 + longest as u128) / (longest as u128 * 2);
        (nearest as usize).max(1)
    };
    ImageSize::new(scaled(size.height), scaled(size.width))
}

/// The threshold of each map, see the module: a map is of a defective image when it has a value above its own.
///
/// `peaks` are the largest values of the maps. `map` writes one of them, `[size.height, size.width]`, and is called from
/// rayon's current pool, once a map, or twice where all peaks are equal. A map may be a smaller picture of the one whose largest
/// value the peak is. Takes 13 bytes a pixel and thread.
///
/// # Errors
/// [`Error::Invalid`] for no maps, a peak that is not finite, a side of 0 or above [`MEBIN_SIDE`]; what `map` says.
pub fn mebin(
    peaks: &[f32],
    size: ImageSize,
    map: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
) -> Result<Vec<f64>> {
    let sides = 1..=MEBIN_SIDE;
    if !sides.contains(&size.height) || !sides.contains(&size.width) {
        let expected = format!("1 to {MEBIN_SIDE} pixels a side");
        return Err(Error::invalid("size of the maps for MEBin", size, expected));
    }
    if peaks.is_empty() {
        return Err(Error::invalid("maps to decide by", 0, "at least 1"));
    }
    if let Some(at) = peaks.iter().position(|peak| !peak.is_finite()) {
        let found = format!("{} of image {at}", peaks[at]);
        return Err(Error::invalid("largest values to decide by", found, "finite numbers"));
    }
    let read = |at: usize| -> Result<Vec<f32>> {
        let mut values = vec![0f32; size.pixels()];
        map(at, &mut values)?;
        Ok(values)
    };
    let highest = peaks.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lowest = peaks.iter().copied().fold(f32::INFINITY, f32::min);
    if lowest == highest {
        let least = |at: usize| Ok(read(at)?.into_iter().fold(f32::INFINITY, f32::min));
        lowest = (0..peaks.len())
            .into_par_iter()
            .map(least)
            .try_reduce(|| f32::INFINITY, |one, other| Ok(one.min(other)))?;
    }
    let (lowest, highest) = (f64::from(lowest), f64::from(highest));
    let range = highest - lowest;
    if range <= 0.0 {
        return Ok(vec![highest; peaks.len()]);
    }
    (0..peaks.len())
        .into_par_iter()
        .map(|at| {
            let levels = levels(&read(at)?, lowest, range);
            Ok(match stable_end(&region_counts(&eroded(levels, size), size)) {
                Some(end) => lowest + (255 - STEP * end) as f64 / 255.0 * range,
                None => highest,
            })
        })
        .collect()
}

/// For each value the first step at whose threshold it is above it; [`STEPS`] where it is at none.
fn levels(values: &[f32], lowest: f64, range: f64) -> Vec<u8> {
    let level = |&value: &f32| {
        let value = f64::from(value);
        let scaled =
            if value < lowest { 0.0 } else { ((value - lowest) / range * 255.0).clamp(0.0, 255.0) };
        let above = |step: usize| scaled > (255 - STEP * step) as f64;
        // Next to the first such step, and then that step itself: the division may round. NaN is above nothing.
        let mut step = (((255.0 - scaled) / STEP as f64) as usize).min(STEPS);
        while step > 0 && above(step - 1) {
            step -= 1;
        }
        while step < STEPS && !above(step) {
            step += 1;
        }
        step as u8
    };
    values.iter().map(level).collect()
}

/// The latest level within the square around each pixel: a pixel stays while all of its square are above.
fn eroded(levels: Vec<u8>, size: ImageSize) -> Vec<u8> {
    let along = |from: &[u8], count: usize, stride: usize, start: usize, out: &mut [u8]| {
        for at in 0..count {
            let window = at.saturating_sub(ERODES.0)..(at + ERODES.1 + 1).min(count);
            let latest = window.map(|other| from[start + other * stride]).max();
            out[start + at * stride] = latest.unwrap_or_default();
        }
    };
    let mut rows = vec![0; levels.len()];
    for y in 0..size.height {
        along(&levels, size.width, 1, y * size.width, &mut rows);
    }
    let mut both = levels;
    for x in 0..size.width {
        along(&rows, size.height, size.width, x, &mut both);
    }
    both
}

/// How many regions there are at each step, of the pixels whose level is that step or an earlier one.
fn region_counts(levels: &[u8], size: ImageSize) -> [usize; STEPS] {
    const ABSENT: u32 = u32::MAX;
    // Pixels in the order in which they appear.
    let mut starts = [0usize; STEPS + 2];
    for &level in levels {
        starts[level as usize + 1] += 1;
    }
    for step in 0..=STEPS {
        starts[step + 1] += starts[step];
    }
    let mut order = vec![0u32; starts[STEPS]];
    let mut next = starts;
    for (pixel, &level) in levels.iter().enumerate() {
        if (level as usize) < STEPS {
            order[next[level as usize]] = pixel as u32;
            next[level as usize] += 1;
        }
    }
    let mut parents = vec![ABSENT; levels.len()];
    let mut counts = [0; STEPS];
    let mut regions = 0;
    for step in 0..STEPS {
        for &pixel in &order[starts[step]..starts[step + 1]] {
            parents[pixel as usize] = pixel;
            regions += 1;
            let (x, y) = (pixel as usize % size.width, pixel as usize / size.width);
            for row in y.saturating_sub(1)..(y + 2).min(size.height) {
                for column in x.saturating_sub(1)..(x + 2).min(size.width) {
                    let other = row * size.width + column;
                    if parents[other] != ABSENT {
                        let (one, other) =
                            (root(&mut parents, pixel), root(&mut parents, other as u32));
                        regions -= usize::from(one != other);
                        parents[one.max(other) as usize] = one.min(other);
                    }
                }
            }
        }
        counts[step] = regions;
    }
    counts
}

fn root(parents: &mut [u32], mut node: u32) -> u32 {
    while parents[node as usize] != node {
        parents[node as usize] = parents[parents[node as usize] as usize];
        node = parents[node as usize];
    }
    node
}

/// The last step of the stretch that wins; nothing where none is stable.
fn stable_end(counts: &[usize]) -> Option<usize> {
    // Each stable count, in the order in which they were first so: the longest of its stretches, and that one's last step.
    let mut stable: Vec<(usize, usize, usize)> = Vec::new();
    let mut behind = 0;
    for stretch in counts.chunk_by(|one, other| one == other) {
        behind += stretch.len();
        let (count, length) = (stretch[0], stretch.len());
        if count == 0 || length < STABLE {
            continue;
        }
        match stable.iter_mut().find(|known| known.0 == count) {
            Some(known) if length > known.1 => *known = (count, length, behind - 1),
            Some(_) => {}
            None => stable.push((count, length, behind - 1)),
        }
    }
    let mut best: Option<(usize, usize, usize)> = None;
    for known in stable {
        if best.is_none_or(|best| known.1 > best.1) {
            best = Some(known);
        }
    }
    best.map(|(_, _, end)| end)
}

#[cfg(test)]
#[path = "mebin_tests.rs"]
mod tests;
