//! `kernels/gram_pool.cu`: 4-D box sums of Gram blocks for every degree from 3 on, scaled, row and column
//! maxima. Degree 1 has no sums: it is [`super::gemm::gram_max`]'s.

use super::pairs::check_grid;
use super::{Call, GRAM_STRIDE, GramPoolParams, Keys, MAX_SIDE, PairBlock, Side, degree_fields};
use crate::backend::cuda::buffer::View;
use crate::backend::cuda::stream::Stream;
use crate::{Grid, Result};

/// Columns of the grid of image i that a block works on.
pub const COLUMNS: usize = 4;
/// The most producers of a block.
pub const MAX_PRODUCERS: usize = 544;
/// The most threads of a block for the degrees 3 and 5.
pub const MAX_THREADS_35: usize = 672;
/// The most threads of a block for other degrees.
pub const MAX_THREADS_ANY: usize = 512;
/// Floats from one plane of shared memory to the next.
pub const PLANE: usize = MAX_PRODUCERS + 8;
/// Floats in front of the first plane.
pub const LEAD: usize = 4;

/// How a block is shaped: entry, strip, threads, shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The entry's variant.
    pub variant: &'static str,
    /// Rows of the grid of image j that a block scores.
    pub strip_rows: usize,
    /// Columns of the grid of image j that a block scores: all, or those of a part.
    pub strip_columns: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Of them producers.
    pub producers: usize,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: usize,
}

impl Shape {
    /// The shape whose blocks score strips of so many rows and columns, if it is one.
    pub fn with_strip(
        grid: Grid,
        degrees: &[usize],
        (strip_rows, strip_columns): (usize, usize),
    ) -> Option<Shape> {
        let count = degrees.len();
        let largest = degrees.iter().copied().max()?;
        let (variant, max_radius, limit) = match degrees {
            [3, 5] => ("35_f32", 2, MAX_THREADS_35),
            _ if largest <= 5 => ("to5_f32", 2, MAX_THREADS_ANY),
            _ => ("to7_f32", 3, MAX_THREADS_ANY),
        };
        if strip_rows == 0
            || strip_columns == 0
            || strip_columns > grid.columns
            || (degrees == [3, 5] && !strip_rows.is_multiple_of(4))
        {
            return None;
        }
        // A part of the columns has neighbours on its left, too; whole rows share the zeros between them.
        let halo = if strip_columns < grid.columns { 2 * max_radius } else { max_radius };
        let width = (strip_columns + halo).next_multiple_of(4);
        let producers = ((strip_rows + 2 * max_radius) * width).next_multiple_of(32);
        let groups = strip_columns.div_ceil(4).next_multiple_of(2);
        let consumers = count * (4 * groups * strip_rows.div_ceil(4)).next_multiple_of(32);
        let planes = LEAD + 2 * count * 4 * PLANE;
        let floats = planes + count * strip_rows * width + count * grid.rows * 4;
        (producers <= MAX_PRODUCERS && producers + consumers <= limit).then_some(Shape {
            variant,
            strip_rows,
            strip_columns,
            threads: producers + consumers,
            producers,
            shared_bytes: floats * size_of::<f32>(),
        })
    }

    /// The shape with the largest strips of so many columns: the halo rows are the fewest then. Strips of a multiple of 4
    /// rows, as the consumers take them, or of fewer than 4 where no more fit.
    fn of_columns(
        grid: Grid,
        degrees: &[usize],
        strip_columns: usize,
        shared_bytes: u32,
    ) -> Option<Shape> {
        let fours = (1..=MAX_SIDE / 4).rev().map(|fours| 4 * fours);
        fours
            .filter(|strip| *strip < grid.rows + 4)
            .chain([3, 2, 1])
            .filter_map(|strip| Shape::with_strip(grid, degrees, (strip, strip_columns)))
            .find(|shape| shape.shared_bytes <= shared_bytes as usize)
    }

    /// The shape that a launch for these degrees, from 3 on, takes: whole rows where they fit, else the equal parts of a row with the fewest threads in
    /// all. `None` when even the smallest strip does not fit: too many degrees for one launch.
    pub fn best(grid: Grid, degrees: &[usize], shared_bytes: u32) -> Option<Shape> {
        let of_columns = |columns| Shape::of_columns(grid, degrees, columns, shared_bytes);
        of_columns(grid.columns).or_else(|| {
            let parts = 2..=grid.columns.div_ceil(4);
            parts
                .filter_map(|parts| of_columns(grid.columns.div_ceil(parts)))
                .min_by_key(|shape| shape.strips(grid) * shape.threads)
        })
    }

    /// Strips of a grid.
    pub fn strips(&self, grid: Grid) -> usize {
        grid.rows.div_ceil(self.strip_rows) * grid.columns.div_ceil(self.strip_columns)
    }

    /// Blocks for so many pairs of images.
    pub fn blocks(&self, grid: Grid, pairs: usize) -> [usize; 3] {
        [grid.columns.div_ceil(COLUMNS), self.strips(grid), pairs]
    }
}

/// Pools a Gram block for every degree and merges the maxima into the keys of the pairs that count.
///
/// # Shapes
/// `gram` `[images_a·L, GRAM_STRIDE]` from [`super::gemm::gram`] or [`super::gemm::gram_max`]; `a` and `b` the sets of A and B with the norms of
/// `degrees`, the same one twice where the block is symmetric.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit, degrees not ascending or too many at once.
pub fn pool(
    stream: &Stream,
    gram: View<'_, f32>,
    (a, b): (&Side<'_>, &Side<'_>),
    block: PairBlock,
    grid: Grid,
    degrees: &[usize],
    keys: &mut Keys<'_>,
) -> Result<()> {
    let shared = stream.card().info().shared_bytes_per_block;
    let call = Call::new(stream, "gram_pool", "35_f32");
    let patches = check_grid(&call, grid)?;
    call.require(
        degrees.is_sorted_by(|a, b| a < b),
        "aggregation degrees",
        format!("{degrees:?}"),
        "ascending, no two equal",
    )?;
    call.require(
        degrees.first() != Some(&1),
        "aggregation degrees",
        format!("{degrees:?}"),
        "3 or more: degree 1 is gemm_gram_max's",
    )?;
    let (count, degree) = degree_fields(&call, degrees)?;
    let Some(shape) = Shape::best(grid, degrees, shared) else {
        return call.refused(
            "aggregation degrees of a launch",
            format!("{degrees:?} on a grid of {grid}"),
            &format!("what fits {MAX_THREADS_ANY} threads and {shared} bytes of shared memory"),
        );
    };
    let call = Call::new(stream, "gram_pool", shape.variant);
    call.require(
        block.images_b.saturating_mul(patches) <= GRAM_STRIDE,
        "rows of b",
        block.images_b.saturating_mul(patches),
        &format!("at most {GRAM_STRIDE}, a row of the Gram block"),
    )?;
    let pairs = block.pairs();
    call.require(pairs <= 0xffff, "pairs of images", pairs, "at most 65535")?;
    let sets = (a.images, b.images);
    block.check(&call, sets)?;
    let key_count = keys.check(&call, degrees.len(), patches, sets)?;
    let norms = |images: usize| degrees.len() * images * patches;
    let params = GramPoolParams {
        gram: call.input("gram", gram, block.images_a * patches * GRAM_STRIDE)?,
        inv_norm_a: call.input("norms of a", a.inv_norm, norms(a.images))?,
        inv_norm_b: call.input("norms of b", b.inv_norm, norms(b.images))?,
        keys: call.output("keys", &keys.keys, key_count)?,
        set_images_a: call.count("images of the set of a", a.images)?,
        images: call.count("images N", keys.images)?,
        rows: grid.rows as u32,
        columns: grid.columns as u32,
        first_image_a: call.count("first image of a", block.first_a)?,
        images_a: block.images_a as u32,
        first_image_b: call.count("first image of b", block.first_b)?,
        images_b: block.images_b as u32,
        strip_rows: shape.strip_rows as u32,
        strip_columns: shape.strip_columns as u32,
        degrees: count,
        degree,
        first_kept: call.count("first kept image", keys.first_kept)?,
        kept: call.count("kept images", keys.kept)?,
        symmetric: u32::from(block.symmetric),
    };
    let blocks = shape.blocks(grid, pairs).map(|blocks| blocks as u32);
    // SAFETY: gram, norms and keys were checked against their shapes, all images lie within their sets, and `shape` is
    // made by the header's formulas within its limits.
    unsafe { call.launch(blocks, shape.threads as u32, shape.shared_bytes as u32, &params) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGREES: [&[usize]; 6] = [&[3, 5], &[3], &[5], &[7], &[3, 7], &[5, 7]];

    #[test]
    fn shapes_of_known_grids() {
        let shape = Shape::best(Grid::square(37), &[3, 5], 99 << 10).unwrap();
        assert_eq!((shape.strip_rows, shape.strip_columns), (8, 37));
        assert_eq!(
            (shape.threads, shape.shared_bytes),
            (MAX_THREADS_35, 39_088),
            "the header's example"
        );
        let wide = Shape::best(Grid::new(4, 128), &[3, 5], 99 << 10).unwrap();
        assert!(wide.strip_columns < 128, "{wide:?}");
        assert_eq!(wide.strips(Grid::new(4, 128)), 128usize.div_ceil(wide.strip_columns));
    }

    #[test]
    fn every_grid_has_a_shape() {
        for rows in 1..=MAX_SIDE {
            for columns in 1..=MAX_SIDE {
                let grid = Grid::new(rows, columns);
                if grid.patches() > GRAM_STRIDE {
                    continue;
                }
                for degrees in DEGREES {
                    let shape = Shape::best(grid, degrees, 64 << 10);
                    assert!(shape.is_some(), "{grid}, degrees {degrees:?}, a card of 7.5");
                }
            }
        }
    }
}
