//! The outer outline of a connected region along the edges of its pixels, and the same with fewer points.

/// How far the outline with fewer points may be from the true one, in pixels.
const TOLERANCE: f64 = 0.5;
/// Points past the best line's end that are tried for a longer one.
const PATIENCE: usize = 16;

/// A corner of pixels: column and row.
type Corner = (i64, i64);
/// A point of the outline with fewer points, x and y.
type Point = [f64; 2];

/// The outer outline of a region of 8 neighbours: the corners at which it turns, clockwise (y down), from the upper left
/// corner of its first pixel; not closed by a repeated point. A corner at which two pixels of the region touch is passed
/// twice; holes are not drawn.
///
/// `inside` says of a column and a row whether that pixel is the region's, also outside the map; `first` is its first pixel
/// in reading order.
pub(super) fn outline(first: Corner, inside: impl Fn(i64, i64) -> bool) -> Vec<Corner> {
    // The region lies to the right of the way: along the upper edge of the first pixel, above and left of which there is none.
    let start = (first, (1i64, 0i64));
    let (mut at, mut way) = start;
    let mut corners = vec![at];
    loop {
        at = (at.0 + way.0, at.1 + way.1);
        // The pixels ahead, left and right of the way: a corner's own pixel is the one below and right of it.
        let (left, right) = match way {
            (1, 0) => ((at.0, at.1 - 1), at),
            (0, 1) => (at, (at.0 - 1, at.1)),
            (-1, 0) => ((at.0 - 1, at.1), (at.0 - 1, at.1 - 1)),
            _ => ((at.0 - 1, at.1 - 1), (at.0, at.1 - 1)),
        };
        // Left first: pixels that touch by a corner are of one region.
        let next = if inside(left.0, left.1) {
            (way.1, -way.0)
        } else if inside(right.0, right.1) {
            way
        } else {
            (-way.1, way.0)
        };
        if (at, next) == start {
            return corners;
        }
        if next != way {
            corners.push(at);
        }
        way = next;
    }
}

/// The outline with fewer points: none of it is further than half a pixel from the true one, nor the other way. Points are
/// corners, or middles of steps one pixel high or wide, as a slanting side has them. The outermost corners of all four sides
/// stay, so its box is the same, and there are at least 3: the first corner is none of those furthest right and furthest down,
/// and these two are not one, since the way goes down along a right side.
pub(super) fn simplified(corners: &[Corner]) -> Vec<Point> {
    let count = corners.len();
    let first_of = |key: &dyn Fn(&Corner) -> i64| {
        (0..count).min_by_key(|&at| (key(&corners[at]), at)).unwrap_or_default()
    };
    let anchors = [
        first_of(&|corner| corner.0),
        first_of(&|corner| corner.1),
        first_of(&|corner| -corner.0),
        first_of(&|corner| -corner.1),
    ];
    let mut points: Vec<Point> = Vec::with_capacity(2 * count);
    let mut ends = Vec::new();
    for at in 0..count {
        if anchors.contains(&at) {
            ends.push(points.len());
        }
        points.push([corners[at].0 as f64, corners[at].1 as f64]);
        points.extend(middle_of_step(corners, at));
    }
    let mut few = Vec::new();
    for (at, &from) in ends.iter().enumerate() {
        // The last one's part goes round to the first.
        let to = ends.get(at + 1).map_or(ends[0] + points.len(), |&next| next);
        let mut from = from;
        while from < to {
            few.push((from % points.len(), points[from % points.len()]));
            from = furthest(&points, from, to);
        }
    }
    few.sort_by_key(|(at, _)| *at);
    few.into_iter().map(|(_, point)| point).collect()
}

/// The middle of the side behind a corner, where that is one pixel long and the outline turns one way before and the other
/// behind it.
fn middle_of_step(corners: &[Corner], at: usize) -> Option<Point> {
    let corner = |at: usize| corners[at % corners.len()];
    let side = |at: usize| {
        let (a, b) = (corner(at), corner(at + 1));
        (b.0 - a.0, b.1 - a.1)
    };
    let turn = |one: Corner, other: Corner| (one.0 * other.1 - one.1 * other.0).signum();
    let (before, step, behind) = (side(at + corners.len() - 1), side(at), side(at + 1));
    let is_step = step.0.abs() + step.1.abs() == 1 && turn(before, step) == -turn(step, behind);
    let (x, y) = corner(at);
    is_step.then(|| [x as f64 + step.0 as f64 / 2.0, y as f64 + step.1 as f64 / 2.0])
}

/// The furthest point up to `to` to which a straight line leaves none between it and `from` out by more than the tolerance.
fn furthest(points: &[Point], from: usize, to: usize) -> usize {
    let point = |at: usize| points[at % points.len()];
    let mut best = from + 1;
    for end in from + 2..=to {
        // A line may fail on its way and fit a little later, but not much later.
        if end > best + PATIENCE {
            break;
        }
        let (a, b) = (point(from), point(end));
        if (from + 1..end).all(|between| distance(point(between), a, b) <= TOLERANCE) {
            best = end;
        }
    }
    best
}

/// From a point to the stretch between two others.
fn distance(point: Point, a: Point, b: Point) -> f64 {
    let (along, to) = ([b[0] - a[0], b[1] - a[1]], [point[0] - a[0], point[1] - a[1]]);
    let length = along[0] * along[0] + along[1] * along[1];
    let share = if length == 0.0 {
        0.0
    } else {
        ((along[0] * to[0] + along[1] * to[1]) / length).clamp(0.0, 1.0)
    };
    (to[0] - share * along[0]).hypot(to[1] - share * along[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::regions::regions;

    /// The first region of a drawing of `#` and `.`.
    fn drawn(rows: &[&str]) -> Vec<Corner> {
        let width = rows[0].len();
        let mask: Vec<u8> = rows.concat().bytes().map(|byte| u8::from(byte == b'#')).collect();
        let found = regions(&mask, width);
        let pixels = found.iter().next().expect("a region");
        let first = (pixels[0] as i64 % width as i64, pixels[0] as i64 / width as i64);
        let inside = |x: i64, y: i64| {
            x >= 0
                && y >= 0
                && pixels.contains(&((y * width as i64 + x) as u32))
                && x < width as i64
        };
        outline(first, inside)
    }

    /// Twice the area inside, by the shoelace formula; clockwise (y down) is positive.
    fn twice_area(corners: &[Corner]) -> i64 {
        (0..corners.len())
            .map(|at| {
                let (a, b) = (corners[at], corners[(at + 1) % corners.len()]);
                a.0 * b.1 - b.0 * a.1
            })
            .sum()
    }

    #[test]
    fn outlines_go_along_edges_clockwise() {
        assert_eq!(drawn(&["....", ".#..", "...."]), [(1, 1), (2, 1), (2, 2), (1, 2)]);
        assert_eq!(drawn(&["##", "##"]), [(0, 0), (2, 0), (2, 2), (0, 2)]);
        assert_eq!(drawn(&["#.", "##"]), [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (0, 2)]);
        // Two pixels that touch by a corner are one region, whose outline passes the corner twice.
        let corners = [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (1, 2), (1, 1), (0, 1)];
        assert_eq!(drawn(&["#.", ".#"]), corners);
        let corners = [(1, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 1), (1, 1)];
        assert_eq!(drawn(&[".#", "#."]), corners);
        // The hole is not drawn, also where only corners close it.
        assert_eq!(twice_area(&drawn(&["###", "#.#", "###"])), 18);
        assert_eq!(twice_area(&drawn(&[".#.", "#.#", ".#."])), 10);
    }

    #[test]
    fn areas_inside_are_the_pixels() {
        let mut state = 5u32;
        for _ in 0..300 {
            let mut rows = vec![String::new(); 7];
            for row in &mut rows {
                for _ in 0..9 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    row.push(if state >> 30 == 0 { '#' } else { '.' });
                }
            }
            let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
            if !rows.concat().contains('#') {
                continue;
            }
            let corners = drawn(&rows);
            // What is inside: what the background around does not reach by sides.
            let mask: Vec<u8> = rows.concat().bytes().map(|byte| u8::from(byte == b'#')).collect();
            let pixels: Vec<u32> = regions(&mask, 9).iter().next().expect("one").to_vec();
            let region = |x: i64, y: i64| {
                (0..9).contains(&x) && (0..7).contains(&y) && pixels.contains(&((y * 9 + x) as u32))
            };
            let mut outside = vec![(-1i64, -1i64)];
            let mut seen = std::collections::HashSet::from([(-1i64, -1i64)]);
            while let Some((x, y)) = outside.pop() {
                for (x, y) in [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)] {
                    let near = (-1..=9).contains(&x) && (-1..=7).contains(&y);
                    if near && !region(x, y) && seen.insert((x, y)) {
                        outside.push((x, y));
                    }
                }
            }
            let inside = 11 * 9 - seen.len() as i64;
            assert_eq!(twice_area(&corners), 2 * inside, "{rows:#?}\n{corners:?}");
            let few = simplified(&corners);
            let whole: Vec<Point> =
                corners.iter().map(|corner| [corner.0 as f64, corner.1 as f64]).collect();
            assert!(few.len() >= 3 && few.len() <= corners.len());
            assert!(far(&whole, &few) <= TOLERANCE, "{rows:#?}\n{few:?}");
            assert!(far(&few, &whole) <= TOLERANCE, "{rows:#?}\n{few:?}");
            let keys: [fn(&Point) -> f64; 4] = [|c| c[0], |c| -c[0], |c| c[1], |c| -c[1]];
            for key in keys {
                let least = |points: &[Point]| points.iter().map(key).fold(f64::MAX, f64::min);
                assert_eq!(least(&few), least(&whole));
            }
        }
    }

    /// The largest distance of points to a closed line.
    fn far(from: &[Point], to: &[Point]) -> f64 {
        let nearest = |point: Point| {
            (0..to.len())
                .map(|at| distance(point, to[at], to[(at + 1) % to.len()]))
                .fold(f64::INFINITY, f64::min)
        };
        from.iter().map(|&point| nearest(point)).fold(0.0, f64::max)
    }

    #[test]
    fn slanting_sides_are_straight_and_corners_stay() {
        let square = [(0, 0), (8, 0), (8, 8), (0, 8)];
        assert_eq!(
            simplified(&square),
            square.map(|(x, y)| [f64::from(x as i32), f64::from(y as i32)])
        );
        let pixel = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        assert_eq!(simplified(&drawn(&["#"])), pixel);
        // From the middle of one step to that of the next the corners are off by half a step times the cosine.
        let slope = ["#...........", "#####.......", "#########...", "############"];
        let few = simplified(&drawn(&slope));
        assert!(few.len() <= 6, "{few:?}");
        // A disc of radius 40: most of its points go.
        let disc: Vec<String> = (0..81)
            .map(|y| (0..81).map(|x| if inside_disc(x, y) { '#' } else { '.' }).collect())
            .collect();
        let rows: Vec<&str> = disc.iter().map(String::as_str).collect();
        let (corners, few) = (drawn(&rows), simplified(&drawn(&rows)));
        assert!(
            corners.len() > 150 && few.len() * 2 < corners.len(),
            "{} of {}",
            few.len(),
            corners.len()
        );
    }

    fn inside_disc(x: i32, y: i32) -> bool {
        (x - 40).pow(2) + (y - 40).pow(2) <= 1600
    }
}
