use super::*;

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|at| 0.1 + (at * 7919 % 1013) as f32 / 1013.0).collect()
}

fn joined(maps: &Maps, scores: &[f32], left_out: &[bool], sides: (u32, u32)) -> Vec<f32> {
    let mut map = vec![f32::NAN; maps.size.pixels()];
    maps.map(Scores { scores, left_out, sides }, maps.size, &mut map).unwrap();
    let largest = maps.largest(Scores { scores, left_out, sides }).unwrap();
    assert_eq!(largest, map.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    map
}

#[test]
fn one_tile_is_the_plain_map_to_the_last_bit() {
    let (grid, size) = (Grid::new(3, 4), ImageSize::new(42, 56));
    let scores = numbers(12);
    let one = Maps::of_tiles(grid, Cut::new(1, 1, 0.3).unwrap(), size, ImageSize::new(100, 300));
    assert_eq!((one.size, one.patches()), (size, 12));
    let plain = Maps::whole(grid, size);
    for marks in [vec![], (0..12).map(|at| at % 5 == 0).collect::<Vec<_>>()] {
        let expected = joined(&plain, &scores, &marks, (1, 1));
        assert_eq!(joined(&one, &scores, &[], (300, 100)) == expected, marks.is_empty());
        let found = joined(&one, &scores, &marks, (300, 100));
        for (a, b) in found.iter().zip(&expected) {
            // With marks a value is divided by its weight, which is 1.
            assert_eq!(a, b);
        }
    }
}

#[test]
fn an_overlap_fades_from_one_tile_to_the_next() {
    // 12 pixels in two tiles of 8: 0..8 and 4..12. Tiles of one patch are constant: 1 and 3.
    let cut = Cut::new(1, 2, 0.5).unwrap();
    let image = ImageSize::new(2, 12);
    assert_eq!(cut.ranges(image).1, [0..8, 4..12]);
    let maps = Maps { grid: Grid::square(1), cut: Some(cut), size: ImageSize::new(1, 12) };
    let found = joined(&maps, &[1.0, 3.0], &[], (12, 2));
    // Over the four shared pixels by eighths: 1/8, 3/8, 5/8, 7/8 of the way from 1 to 3.
    let expected = [1.0, 1.0, 1.0, 1.0, 1.25, 1.75, 2.25, 2.75, 3.0, 3.0, 3.0, 3.0];
    assert_eq!(found, expected);
    // The second tile left out: where it alone has pixels there is nothing.
    let found = joined(&maps, &[1.0, 3.0], &[false, true], (12, 2));
    assert_eq!(found, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let inside = maps.inside(&[false, true], (12, 2), maps.size).unwrap();
    assert_eq!(inside, [[true; 8].as_slice(), &[false; 4]].concat());
}

/// The bilinear map of one tile at one pixel, corners aligned, in f64 by the textbook.
fn textbook(scores: &[f32], (rows, columns): (usize, usize), at: (f64, f64)) -> f64 {
    let cell = |position: f64, count: usize| {
        let before = (position.floor() as usize).min(count - 1);
        (before, (before + 1).min(count - 1), position - before as f64)
    };
    let (top, bottom, down) = cell(at.0, rows);
    let (left, right, across) = cell(at.1, columns);
    let value = |y: usize, x: usize| f64::from(scores[y * columns + x]);
    value(top, left) * (1.0 - down) * (1.0 - across)
        + value(top, right) * (1.0 - down) * across
        + value(bottom, left) * down * (1.0 - across)
        + value(bottom, right) * down * across
}

#[test]
fn a_joined_map_is_the_weighted_mean_of_its_tiles() {
    let (grid, cut) = (Grid::new(3, 4), Cut::new(3, 2, 0.3).unwrap());
    let (image, size) = (ImageSize::new(90, 131), ImageSize::new(61, 83));
    let maps = Maps { grid, cut: Some(cut), size };
    let scores = numbers(maps.patches());
    let found = joined(&maps, &scores, &[], (131, 90));
    // 90 rows in three tiles of ⌈90/2.4⌉ = 38, free 52; 131 columns in two of ⌈131/1.7⌉ = 78, free 53.
    let (rows, columns) = ([(0, 38), (26, 64), (52, 90)], [(0, 78), (53, 131)]);
    let scaled = |(start, end): (usize, usize), from: usize, to: usize| {
        let near = |v: usize| (v as f64 * to as f64 / from as f64 + 0.5).floor();
        (near(start), near(end))
    };
    // The height of a trapezoid at a position's middle: it rises over what is shared with the tile before.
    let height = |all: &[(f64, f64)], tile: usize, position: usize| {
        let middle = position as f64 + 0.5;
        let (start, end) = all[tile];
        if middle < start || middle > end {
            return 0.0;
        }
        let rise = if tile == 0 { 1.0 } else { (middle - start) / (all[tile - 1].1 - start) };
        let fall = all.get(tile + 1).map_or(1.0, |next| (end - middle) / (end - next.0));
        f64::min(1.0, f64::min(rise, fall))
    };
    let rows: Vec<_> = rows.into_iter().map(|tile| scaled(tile, 90, 61)).collect();
    let columns: Vec<_> = columns.into_iter().map(|tile| scaled(tile, 131, 83)).collect();
    assert_eq!(cut.tile_size(image), ImageSize::new(38, 78));
    for (pixel, &value) in found.iter().enumerate() {
        let (y, x) = (pixel / 83, pixel % 83);
        let (mut sum, mut weights) = (0.0, 0.0);
        for tile in 0..6 {
            let ((top, bottom), (left, right)) = (rows[tile / 2], columns[tile % 2]);
            let weight = height(&rows, tile / 2, y) * height(&columns, tile % 2, x);
            if weight == 0.0 {
                continue;
            }
            let down = (y as f64 - top) * 2.0 / (bottom - top - 1.0);
            let across = (x as f64 - left) * 3.0 / (right - left - 1.0);
            let tile = &scores[tile * 12..][..12];
            sum += weight * textbook(tile, (3, 4), (down, across));
            weights += weight;
        }
        let expected = sum / weights;
        // Tiles' maps are f32 and so are their sums: 4 of each at most, of values below 1.1.
        let error = (f64::from(value) - expected).abs();
        assert!(error <= 8.0 * 1.1 * f64::from(f32::EPSILON), "{y} {x}: {value} {expected}");
    }
}

#[test]
fn weights_sum_to_one_at_any_size() {
    for (side, count, overlap, to) in [
        (100, 3, 0.5, 7),
        (100, 7, 0.5, 3),
        (4000, 8, 0.1, 2048),
        (5, 9, 0.4, 50),
        (97, 2, 0.0, 11),
    ] {
        let (rows, _) = Cut::new(count, 1, overlap).unwrap().ranges(ImageSize::new(side, 1));
        let mut sums = vec![0.0; to];
        for side in weighted(&rows, side, to) {
            assert_eq!(side.positions.len(), side.weights.len());
            for (position, weight) in side.positions.zip(side.weights) {
                assert!(weight > 0.0 && weight <= 1.0);
                sums[position] += weight;
            }
        }
        let off = sums.iter().map(|sum: &f64| (sum - 1.0).abs()).fold(0.0, f64::max);
        assert!(off <= 4.0 * f64::EPSILON, "{side} {count} {overlap} {to}: {sums:?}");
    }
}

#[test]
fn maps_have_the_image_s_proportions() {
    let grid = Grid::square(37);
    let size = |rows, columns, input, height, width| {
        let cut = Cut::new(rows, columns, 0.1).unwrap();
        let of = Maps::of_tiles(grid, cut, input, ImageSize::new(height, width));
        (of.size.height, of.size.width)
    };
    let input = ImageSize::square(518);
    // Tiles of 1072x1082 at 518: 518/1072 of the image.
    assert_eq!(size(3, 4, input, 3000, 4000), (1450, 1933));
    // No longer side above 2048.
    assert_eq!(size(6, 8, input, 3000, 4000), (1536, 2048));
    // Tiles of 28x32, ⌈52/1.9⌉ and ⌈60/1.9⌉: as high as their input, and 56/32 as wide.
    assert_eq!(size(2, 2, ImageSize::new(28, 56), 52, 60), (91, 105));
}

#[test]
fn lengths_that_do_not_fit_are_named() {
    let cut = Cut::new(1, 2, 0.1).unwrap();
    let maps = Maps { grid: Grid::square(1), cut: Some(cut), size: ImageSize::square(4) };
    let of = Scores { scores: &[1.0f32, 2.0], left_out: &[], sides: (8, 8) };
    let mut map = vec![0.0; 15];
    assert!(maps.map(of, ImageSize::square(4), &mut map).is_err());
    assert!(maps.map(of, ImageSize::new(0, 4), &mut map[..0]).is_err());
    let short = Scores { scores: &[1.0f32], ..of };
    assert!(maps.map(short, ImageSize::new(3, 5), &mut map).is_err());
}
