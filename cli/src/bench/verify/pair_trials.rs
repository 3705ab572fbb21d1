//! The trials of `lnamd`, `gram_pool`, `patch_distance` and `local_distance`: which shapes, which images meet.

use super::images::Images;
use super::pairs::{
    MEETINGS, Meeting, chain, distances, distances_exact, local, pool_entry, pool_exact, statistics,
};
use super::{Class, Trial};
use musc::Grid;
use musc::backend::cuda::launch::{GRAM_STRIDE, Half};

/// Degrees of a scoring: one for each variant of `gram_pool`, every degree, alone and in company. Degree 1 is the product's own.
const DEGREES: [&[usize]; 5] = [&[1, 3, 5], &[3, 5], &[5], &[1, 7], &[3, 7]];

/// Those that are pooled.
fn pooled(degrees: &'static [usize]) -> &'static [usize] {
    &degrees[usize::from(degrees.first() == Some(&1))..]
}

/// The trials of `lnamd`, `gram_pool`, `patch_distance` and `local_distance`.
pub fn trials(half: Half, quick: bool) -> Vec<Trial> {
    let mut trials = Vec::new();
    lnamd_trials(half, quick, &mut trials);
    pool_trials(half, quick, &mut trials);
    distance_trials(half, quick, &mut trials);
    local_trials(half, quick, &mut trials);
    trials
}

fn lnamd_trials(half: Half, quick: bool, trials: &mut Vec<Trial>) {
    let entry = format!("lnamd_norms_{}", half.name());
    // Sums and means are exact where they are of integers, and the mean's divisor is a power of two.
    for (n, side, width) in [(2, 2, 128), (1, 4, 1024)] {
        let shape = format!("{n}x{side}x{side}x{width}, integers");
        trials.push(Trial::new("lnamd", &entry, shape, Class::Exact, move |lab| {
            statistics(lab, &Images::integers(half, n, Grid::square(side), width, 1), Class::Exact)
        }));
    }
    let mut shapes = vec![
        (1, Grid::square(1), (384, 384)),
        (2, Grid::square(5), (128, 128)),
        (2, Grid::new(1, 17), (128, 100)),
        (1, Grid::new(9, 4), (1024, 1000)),
    ];
    if !quick {
        let sides = [2, 16, 37, 61, 64].map(|side| (1, Grid::square(side), (1024, 1024)));
        shapes.extend(sides);
        shapes.extend([(3, Grid::new(4, 128), (384, 384)), (2, Grid::square(90), (128, 128))]);
    }
    for (n, grid, widths) in shapes {
        let shape = format!("{n}x{grid}x{} of {}", widths.1, widths.0);
        trials.push(Trial::new("lnamd", &entry, shape, Class::Rounding, move |lab| {
            statistics(lab, &Images::new(half, n, grid, widths, 3), Class::Rounding)
        }));
    }
}

/// One patch in so many is worked out in f64.
fn step_of(grid: Grid) -> usize {
    1 + grid.patches() / 200
}

fn pool_shapes(quick: bool) -> Vec<(Grid, usize)> {
    let mut shapes = vec![(Grid::square(1), 128), (Grid::square(5), 128), (Grid::new(2, 9), 256)];
    if !quick {
        shapes.extend([2, 16, 37, 61, 64].map(|side| (Grid::square(side), 128)));
        shapes.extend([(Grid::square(37), 1024), (Grid::new(4, 128), 384)]);
    }
    shapes
}

fn pool_trials(half: Half, quick: bool, trials: &mut Vec<Trial>) {
    for (grid, width) in pool_shapes(quick) {
        for degrees in DEGREES {
            let few = usize::from(GRAM_STRIDE / grid.patches() < 3);
            for meeting in MEETINGS.into_iter().skip(few) {
                // What the scorings with degree 1 find in a block of all pairs, the others find too.
                if degrees.first() != Some(&1) && meeting.blocks.len() == 1 && !quick {
                    continue;
                }
                let entry = pool_entry(grid, pooled(degrees), u32::MAX);
                let shape = format!("{grid}x{width}, degrees {degrees:?}, {}", meeting.words());
                // Products of both formats come to the same pooling.
                if half == Half::F16 && width <= 128 {
                    trials.push(Trial::new(
                        "gram_pool",
                        &entry,
                        shape.clone(),
                        Class::Exact,
                        move |lab| pool_exact(lab, meeting, grid, pooled(degrees)),
                    ));
                }
                trials.push(Trial::new("gram_pool", &entry, shape, Class::Rounding, move |lab| {
                    let (a, b) = meeting.sets(half, grid, (width, width - 3));
                    chain(lab, meeting, (&a, &b), degrees, step_of(grid))
                }));
            }
        }
    }
}

fn distance_trials(half: Half, quick: bool, trials: &mut Vec<Trial>) {
    let entry = format!("patch_distance_max_{}", half.name());
    let exact: &[(usize, usize)] =
        if quick { &[(49, 64)] } else { &[(49, 64), (1, 32), (127, 1024), (129, 384)] };
    for &(patches, width) in exact {
        for meeting in MEETINGS {
            let shape = format!("{patches} patches x{width}, {}, integers", meeting.words());
            trials.push(Trial::new("patch_distance", &entry, shape, Class::Exact, move |lab| {
                distances_exact(lab, half, meeting, patches, width)
            }));
        }
    }
    let mut shapes = vec![(Grid::square(1), 128), (Grid::square(7), 128)];
    if !quick {
        shapes.extend([2, 16, 37, 61, 64].map(|side| (Grid::square(side), 1024)));
        shapes.push((Grid::new(4, 128), 384));
    }
    for (grid, width) in shapes {
        for meeting in MEETINGS {
            let shape = format!("{grid}x{width}, {}", meeting.words());
            trials.push(Trial::new("patch_distance", &entry, shape, Class::Rounding, move |lab| {
                let (a, b) = meeting.sets(half, grid, (width, width - 3));
                distances(lab, meeting, (&a, &b), step_of(grid))
            }));
        }
    }
    // The cosine of a patch with itself: where a bias of the sums shows most, as a distance that is not 0.
    let (grid, width) = if quick { (Grid::square(7), 256) } else { (Grid::square(16), 1024) };
    let shape = format!("{grid}x{width}, an image twice");
    trials.push(Trial::new("patch_distance", &entry, shape, Class::Rounding, move |lab| {
        let a = Images::new(half, 2, grid, (width, width), 5).copy(1, 0);
        let meeting = Meeting { images: (2, None), blocks: &[[0, 1, 1, 1]], kept: (0, 2) };
        distances(lab, meeting, (&a, &a), 1)
    }));
}

fn local_trials(half: Half, quick: bool, trials: &mut Vec<Trial>) {
    let entry = format!("local_distance_max_{}", half.name());
    let mut shapes = vec![
        (Grid::square(1), 1, 0, MEETINGS[0]),
        (Grid::square(5), 3, 1, MEETINGS[1]),
        (Grid::new(2, 9), 7, 40, MEETINGS[0]),
    ];
    if !quick {
        let of_side = |side: usize| {
            [(Grid::square(side), 5, 3, MEETINGS[1]), (Grid::square(side), 1, 1, MEETINGS[0])]
        };
        shapes.extend([16, 37, 64].into_iter().flat_map(of_side));
        // More images than a tile holds.
        let many = Meeting { images: (130, None), blocks: &[[0, 130, 0, 130]], kept: (0, 130) };
        shapes.push((Grid::new(1, 3), 1, 1, many));
    }
    for (grid, degree, radius, meeting) in shapes {
        let shape = format!("{grid}x128, degree {degree}, radius {radius}, {}", meeting.words());
        trials.push(Trial::new("local_distance", &entry, shape, Class::Rounding, move |lab| {
            let a = Images::new(half, meeting.images.0, grid, (128, 120), 9).leaving_out(11);
            local(lab, meeting, &a, degree, radius, step_of(grid))
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use musc::backend::cuda::launch::gram_pool::Shape;

    /// What is only run on a card is at least not refused there: the smallest shared memory is that of 7.5.
    #[test]
    fn every_pooling_has_a_shape() {
        for (grid, _) in pool_shapes(false) {
            for degrees in DEGREES {
                assert!(
                    Shape::best(grid, pooled(degrees), 64 << 10).is_some(),
                    "{grid} {degrees:?}"
                );
            }
        }
    }
}
