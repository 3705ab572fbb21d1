//! What a memory access costs: sectors of global memory, wavefronts of shared memory.

use super::warp::lanes;
use crate::ir::*;

/// Sectors touched and the fewest that would hold the bytes.
pub(crate) fn sectors(addresses: &L64, mask: u32, bytes: u32) -> (u64, u64) {
    if mask == 0 {
        return (0, 0);
    }
    // Aligned accesses of at most 16 bytes lie in one sector each. Addresses that do not fall
    // are counted in one pass; others are sorted first.
    let (mut last, mut rising) = (0, true);
    let (mut count, mut unique, mut sector, mut previous) = (0u64, 0u64, u64::MAX, u64::MAX);
    for l in lanes(mask) {
        let a = addresses[l];
        rising &= a >= last;
        last = a;
        count += u64::from(a / 32 != sector);
        sector = a / 32;
        unique += u64::from(a != previous);
        previous = a;
    }
    if !rising {
        let mut sorted = [u64::MAX; W];
        let mut n = 0;
        for l in lanes(mask) {
            sorted[n] = addresses[l];
            n += 1;
        }
        let sorted = &mut sorted[..n];
        sorted.sort_unstable();
        unique = 1 + sorted.windows(2).filter(|w| w[0] != w[1]).count() as u64;
        count = 1 + sorted.windows(2).filter(|w| w[0] / 32 != w[1] / 32).count() as u64;
    }
    (count, (unique * u64::from(bytes)).div_ceil(32))
}

/// Wavefronts of a shared access and what they would be without conflicts. The lanes of one
/// pass: all 32 for up to 4 bytes, 16 for 8 bytes, 8 for 16 bytes. In a pass, each bank gives
/// one word (to as many lanes as ask for it) a wavefront.
pub(crate) fn wavefronts(addresses: &L64, mask: u32, bytes: u32) -> (u64, u64) {
    let lanes_a_pass = match bytes {
        16 => 8,
        8 => 16,
        _ => 32,
    };
    let (mut total, mut ideal) = (0, 0);
    for first in (0..W).step_by(lanes_a_pass) {
        let part = mask & (((1u64 << lanes_a_pass) - 1) << first) as u32;
        if part == 0 {
            continue;
        }
        ideal += 1;
        total += if bytes == 16 { pass16(addresses, part) } else { pass(addresses, part, bytes) };
    }
    (total, ideal)
}

/// One pass of 16-byte accesses: eight groups of four banks.
pub(crate) fn pass16(addresses: &L64, part: u32) -> u64 {
    let mut seen = [[0u64; 8]; 8];
    let mut count = [0usize; 8];
    for l in lanes(part) {
        let unit = addresses[l] / 16;
        let g = (unit % 8) as usize;
        let n = count[g];
        if n < 8 && !seen[g][..n].contains(&unit) {
            seen[g][n] = unit;
            count[g] += 1;
        }
    }
    count.iter().copied().max().unwrap_or(0) as u64
}

fn pass(addresses: &L64, part: u32, bytes: u32) -> u64 {
    let words = bytes.div_ceil(4) as u64;
    let mut list = [0u64; 32];
    let mut n = 0;
    let mut rising = true;
    for l in lanes(part) {
        for i in 0..words {
            let w = addresses[l] / 4 + i;
            if n > 0 && list[n - 1] == w {
                continue;
            }
            rising &= n == 0 || w == list[n - 1] + 1;
            list[n] = w;
            n += 1;
        }
    }
    // Consecutive words lie in different banks.
    if rising {
        return 1;
    }
    let list = &mut list[..n];
    list.sort_unstable();
    let mut banks = [0u64; 32];
    let mut last = u64::MAX;
    for &w in list.iter() {
        if w != last {
            banks[(w % 32) as usize] += 1;
        }
        last = w;
    }
    banks.iter().copied().max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(f: impl Fn(u64) -> u64) -> L64 {
        std::array::from_fn(|i| f(i as u64))
    }

    #[test]
    fn sectors_of_common_shapes() {
        assert_eq!(sectors(&by(|i| 4 * i), u32::MAX, 4), (4, 4));
        assert_eq!(sectors(&by(|i| 4 * i + 16), u32::MAX, 4), (5, 4));
        assert_eq!(sectors(&by(|i| 16 * i), u32::MAX, 16), (16, 16));
        assert_eq!(sectors(&by(|i| 128 * i), u32::MAX, 4), (32, 4));
        assert_eq!(sectors(&by(|_| 64), u32::MAX, 4), (1, 1));
        assert_eq!(sectors(&by(|i| 4 * (31 - i)), u32::MAX, 4), (4, 4));
        assert_eq!(sectors(&by(|i| 4 * i), 0, 4), (0, 0));
    }

    #[test]
    fn wavefronts_of_common_shapes() {
        assert_eq!(wavefronts(&by(|i| 4 * i), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&by(|_| 8), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&by(|i| 8 * i), u32::MAX, 4), (2, 1));
        assert_eq!(wavefronts(&by(|i| 128 * i), u32::MAX, 4), (32, 1));
        assert_eq!(wavefronts(&by(|i| 132 * i), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&by(|i| 8 * i), u32::MAX, 8), (2, 2));
        assert_eq!(wavefronts(&by(|i| 16 * i), u32::MAX, 16), (4, 4));
        assert_eq!(wavefronts(&by(|i| 128 * i), u32::MAX, 16), (32, 4));
        assert_eq!(wavefronts(&by(|i| 2 * i), u32::MAX, 2), (1, 1));
    }
}
