use super::*;

fn map(scores: &[f32], marks: &[bool], grid: (usize, usize), size: (usize, usize)) -> Vec<f32> {
    let (grid, size) = (Grid::new(grid.0, grid.1), ImageSize::new(size.0, size.1));
    let mut out = vec![f32::NAN; size.pixels()];
    upsample_within(scores, marks, grid, size, &mut out).unwrap();
    let largest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let streamed = upsample_max_within(scores, marks, grid, size).unwrap();
    assert_eq!(largest.to_bits(), streamed.to_bits());
    out
}

#[test]
fn no_marks_change_no_bit() {
    let scores: Vec<f32> = (0..35).map(|i| (i * 7919 % 1013) as f32 / 1013.0).collect();
    let (grid, size) = (Grid::new(5, 7), ImageSize::new(53, 41));
    let mut plain = vec![0.0; size.pixels()];
    upsample(&scores, grid, size, &mut plain).unwrap();
    for marks in [vec![], vec![false; 35]] {
        assert_eq!(map(&scores, &marks, (5, 7), (53, 41)), plain);
    }
}

#[test]
fn an_edge_neither_lowers_what_is_inside_nor_bleeds_out() {
    // Two patches on 8 pixels: 4 pixels each. What the left one has reaches its 4 pixels whole and no other.
    for beside in [0.0, 9.0] {
        let found = map(&[0.5, beside], &[false, true], (1, 2), (1, 8));
        assert_eq!(found, [0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]);
    }
    // Three on 9: the middle pixel of each is 1, 4, 7; corners are aligned, so pixel x is at x/4 of the grid.
    let found = map(&[1.0, 3.0, 7.0], &[false, false, true], (1, 3), (1, 9));
    assert_eq!(found, [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn weights_of_what_is_left_are_those_of_the_plain_map() {
    // Against the mean of two plain maps: that of score times mark over that of the marks.
    let (grid, size) = (Grid::new(6, 5), ImageSize::new(48, 33));
    let marks: Vec<bool> = (0..30).map(|at| at * 11 % 7 < 3).collect();
    let scores: Vec<f64> = (0..30).map(|at| 0.1 + f64::from(at * 31 % 17)).collect();
    let weights: Vec<f64> = marks.iter().map(|&out| f64::from(u8::from(!out))).collect();
    let products: Vec<f64> = scores.iter().zip(&weights).map(|(a, b)| a * b).collect();
    let plain = |values: &[f64]| {
        let mut out = vec![0.0; size.pixels()];
        upsample(values, grid, size, &mut out).unwrap();
        out
    };
    let (sums, shares) = (plain(&products), plain(&weights));
    let mut found = vec![0.0; size.pixels()];
    upsample_within(&scores, &marks, grid, size, &mut found).unwrap();
    let within = inside(&marks, grid, size).unwrap();
    assert!(within.contains(&true) && within.contains(&false));
    for (at, &value) in found.iter().enumerate() {
        // 8 rows of pixels a patch; of 33 columns 6.6, and one that an edge cuts belongs to the patch of its middle.
        let column = (at % 33) as f64 + 0.5;
        assert_eq!(within[at], !marks[at / 33 / 8 * 5 + (column / 6.6) as usize], "{at}");
        let expected = if within[at] { sums[at] / shares[at] } else { 0.0 };
        // A dozen roundings of values below 20.
        assert!((value - expected).abs() <= 20.0 * 12.0 * f64::EPSILON, "{at}: {value} {expected}");
    }
}

#[test]
fn tiny_maps_and_single_patches_have_values() {
    assert_eq!(map(&[0.3, 0.4], &[true, false], (1, 2), (1, 1)), [0.4]);
    assert_eq!(map(&[0.3, 0.4], &[false, true], (1, 2), (1, 1)), [0.0]);
    assert_eq!(map(&[0.3, 0.4], &[false, true], (2, 1), (2, 2)), [0.3, 0.3, 0.0, 0.0]);
}

#[test]
fn marks_of_another_number_are_refused() {
    let mut out = [0.0; 4];
    let (grid, size) = (Grid::new(1, 2), ImageSize::square(2));
    let said = upsample_within(&[1.0, 2.0], &[true], grid, size, &mut out).unwrap_err();
    assert!(said.to_string().contains("found 1, expected 2"), "{said}");
    assert!(upsample_max_within(&[1.0, 2.0], &[true; 3], grid, size).is_err());
    assert!(inside(&[true], grid, size).is_err());
}
