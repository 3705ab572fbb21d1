//! JET colours, and how a map value becomes one of the 256.

/// Red, green, blue.
pub type Colour = [u8; 3];

/// The colour of a grey level: OpenCV's `COLORMAP_JET`, all 256 entries.
///
/// Each channel is a trapezoid in the level with slope 4: with x = level/255, red is min(4x − 1.5, 4.5 − 4x), green
/// min(4x − 0.5, 3.5 − 4x), blue min(4x + 0.5, 2.5 − 4x), cut to 0..1. Times 255 these all end in one half, and
/// rounding the half to even gives the integers here. One entry of OpenCV's table is rounded down instead: the blue of 159.
pub fn jet(level: u8) -> Colour {
    let x = 4 * i32::from(level);
    let cut = |rising: i32, falling: i32| rising.min(falling).clamp(0, 255) as u8;
    let blue = if level == 159 { 1 } else { cut(x + 128, 638 - x) };
    [cut(x - 382, 1148 - x), cut(x - 128, 892 - x), blue]
}

/// The level of a value on a scale from `low` to `high`: (value − low) / (high − low) · 255, cut to an integer. Values
/// outside the scale (and NaN) take its ends (0); a scale of no extent gives 0.
pub fn quantise(value: f32, (low, high): (f32, f32)) -> u8 {
    let extent = f64::from(high) - f64::from(low);
    if extent > 0.0 {
        // The cast saturates, and cuts towards 0 as NumPy's `astype(uint8)` does on the authors' side.
        ((f64::from(value) - f64::from(low)) / extent * 255.0) as u8
    } else {
        0
    }
}

/// The smallest and largest value; (0, 0) without any. NaN is passed over.
pub fn value_range(values: &[f32]) -> (f32, f32) {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if low <= high { (low, high) } else { (0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jet_has_opencv_s_landmarks() {
        // Read off OpenCV 4's table; `jet_checksum` covers the entries between.
        for (level, colour) in [
            (0, [0, 0, 128]),
            (31, [0, 0, 252]),
            (32, [0, 0, 255]),
            (33, [0, 4, 255]),
            (95, [0, 252, 255]),
            (96, [2, 255, 254]),
            (127, [126, 255, 130]),
            (159, [254, 255, 1]),
            (160, [255, 252, 0]),
            (223, [255, 0, 0]),
            (224, [252, 0, 0]),
            (255, [128, 0, 0]),
        ] {
            assert_eq!(jet(level), colour, "level {level}");
        }
    }

    #[test]
    fn jet_checksum_of_all_entries() {
        let sum = (0..=255u8).flat_map(jet).fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // FNV-1a over R, G, B of levels 0 to 255 of OpenCV 4's table.
        assert_eq!(sum, JET_FNV1A);
    }

    const JET_FNV1A: u64 = 0xb9ca_a286_bcc1_eccc;

    #[test]
    fn levels_are_cut_not_rounded() {
        assert_eq!(quantise(0.0, (0.0, 1.0)), 0);
        assert_eq!(quantise(0.999, (0.0, 1.0)), 254);
        assert_eq!(quantise(1.0, (0.0, 1.0)), 255);
        assert_eq!(quantise(-3.0, (0.0, 1.0)), 0);
        assert_eq!(quantise(3.0, (0.0, 1.0)), 255);
        assert_eq!(quantise(f32::NAN, (0.0, 1.0)), 0);
        assert_eq!(quantise(0.7, (0.7, 0.7)), 0);
        assert_eq!(quantise(0.0, (f32::NAN, 0.0)), 0);
    }

    #[test]
    fn the_range_of_nothing_is_zero() {
        assert_eq!(value_range(&[]), (0.0, 0.0));
        assert_eq!(value_range(&[f32::NAN]), (0.0, 0.0));
        assert_eq!(value_range(&[2.0, -1.0, 0.5]), (-1.0, 2.0));
    }
}
