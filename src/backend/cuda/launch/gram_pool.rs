//! `kernels/gram_pool.cu`: 4-D box sums of Gram blocks for every degree, scaled, row and column maxima.

use super::gemm::PairBlock;
use super::{Call, GRAM_STRIDE, GramPoolParams, degree_fields};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;

/// Columns of the grid of image i that a block works on.
pub const COLUMNS: usize = 4;
/// The most producers of a block.
pub const MAX_PRODUCERS: usize = 544;
/// The most threads of a block for the degrees 1, 3 and 5.
pub const MAX_THREADS_135: usize = 768;
/// The most threads of a block for other degrees.
pub const MAX_THREADS_ANY: usize = 512;
/// Floats from one plane of shared memory to the next.
pub const PLANE: usize = MAX_PRODUCERS + 8;
/// The side of the largest grid.
pub const MAX_GRID: usize = 64;

/// How a block is shaped: entry, strip, threads, shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The entry's variant.
    pub variant: &'static str,
    /// Rows of the grid of image j that a block scores.
    pub strip_rows: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: usize,
}

impl Shape {
    /// The shape with so many strip rows, if it is one.
    pub fn with_strip(grid: usize, degrees: &[usize], strip_rows: usize) -> Option<Shape> {
        let count = degrees.len();
        let largest = degrees.iter().copied().max()?;
        let (variant, max_radius, limit) = match degrees {
            [1, 3, 5] => ("135_f32", 2, MAX_THREADS_135),
            _ if largest <= 5 => ("to5_f32", 2, MAX_THREADS_ANY),
            _ => ("to7_f32", 3, MAX_THREADS_ANY),
        };
        if strip_rows == 0 || (degrees == [1, 3, 5] && !strip_rows.is_multiple_of(4)) {
            return None;
        }
        let width = (grid + max_radius).next_multiple_of(4);
        let producers = ((strip_rows + 2 * max_radius) * width).next_multiple_of(32);
        let groups = grid.div_ceil(4).next_multiple_of(2);
        let consumers = count * (4 * groups * strip_rows.div_ceil(4)).next_multiple_of(32);
        let floats = 2 * count * 4 * PLANE + count * strip_rows * width + count * grid * 4;
        (producers <= MAX_PRODUCERS && producers + consumers <= limit).then_some(Shape {
            variant,
            strip_rows,
            threads: producers + consumers,
            shared_bytes: floats * size_of::<f32>(),
        })
    }

    /// The shape with the largest strips: the halo rows are the fewest then. Strips of a multiple of 4 rows, as the
    /// consumers take them, or of fewer than 4 where no more fit. `None` when even the smallest strip does not: too many
    /// degrees for one launch, or degree 7 on a grid above 61.
    pub fn best(grid: usize, degrees: &[usize], shared_bytes: u32) -> Option<Shape> {
        let fours = (1..=MAX_GRID / 4).rev().map(|fours| 4 * fours);
        fours
            .filter(|strip| *strip < grid + 4)
            .chain([3, 2, 1])
            .filter_map(|strip| Shape::with_strip(grid, degrees, strip))
            .find(|shape| shape.shared_bytes <= shared_bytes as usize)
    }
}

/// Where the largest cosines go: rows of keys for a run of images.
pub struct Keys<'a> {
    /// `[degrees, kept, N, L]`, zeroed before the first launch.
    pub keys: ViewMut<'a, u32>,
    /// N.
    pub images: usize,
    /// The first image with a row.
    pub first_kept: usize,
    /// Images with a row.
    pub kept: usize,
}

impl Keys<'_> {
    /// Checks the run of images and gives the number of keys.
    pub(super) fn check(&self, call: &Call<'_>, degrees: usize, patches: usize) -> Result<usize> {
        call.require(
            self.first_kept + self.kept <= self.images,
            "kept images",
            format!("{} from {} on", self.kept, self.first_kept),
            &format!("within the {} images", self.images),
        )?;
        let rows = degrees * self.kept * self.images;
        call.require(rows < 1 << 32, "rows of keys", rows, "below 2^32")?;
        Ok(rows * patches)
    }
}

/// Pools a Gram block for every degree and merges the maxima into the keys of its pairs i < j.
///
/// # Shapes
/// `gram` `[images_a·L, GRAM_STRIDE]` from [`super::gemm::gram`]; `inv_norm` `[degrees, N, L]` from [`super::lnamd`].
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) for shapes that do not fit, degrees not ascending or too many at once.
pub fn pool(
    stream: &Stream,
    gram: View<'_, f32>,
    inv_norm: View<'_, f32>,
    block: PairBlock,
    grid: usize,
    degrees: &[usize],
    keys: &mut Keys<'_>,
) -> Result<()> {
    let shared = stream.card().info().shared_bytes_per_block;
    let call = Call::new(stream, "gram_pool", "135_f32");
    call.require((1..=MAX_GRID).contains(&grid), "grid G", grid, "1 to 64")?;
    call.require(
        degrees.is_sorted_by(|a, b| a < b),
        "aggregation degrees",
        format!("{degrees:?}"),
        "ascending, no two equal",
    )?;
    let (count, degree) = degree_fields(&call, degrees)?;
    let Some(shape) = Shape::best(grid, degrees, shared) else {
        return call.refused(
            "aggregation degrees of a launch",
            format!("{degrees:?} on a grid of {grid}"),
            &format!(
                "what fits {MAX_THREADS_ANY} threads and {shared} bytes of shared memory (degree 7: a grid up to 61)"
            ),
        );
    };
    let call = Call::new(stream, "gram_pool", shape.variant);
    let patches = grid * grid;
    call.require(
        block.images_b * patches <= GRAM_STRIDE,
        "rows of b",
        block.images_b * patches,
        "at most 8192, a row of the Gram block",
    )?;
    let pairs = block.images_a * block.images_b;
    call.require(pairs <= 0xffff, "pairs of images", pairs, "at most 65535")?;
    let last = (block.first_a + block.images_a).max(block.first_b + block.images_b);
    call.require(last <= keys.images, "last image", last, &format!("at most {}", keys.images))?;
    let key_count = keys.check(&call, degrees.len(), patches)?;
    let params = GramPoolParams {
        gram: call.input("gram", gram, block.images_a * patches * GRAM_STRIDE)?,
        inv_norm: call.input("inv_norm", inv_norm, degrees.len() * keys.images * patches)?,
        keys: call.output("keys", &keys.keys, key_count)?,
        images: call.count("images N", keys.images)?,
        grid: grid as u32,
        first_image_a: call.count("first image of a", block.first_a)?,
        images_a: block.images_a as u32,
        first_image_b: call.count("first image of b", block.first_b)?,
        images_b: block.images_b as u32,
        strip_rows: shape.strip_rows as u32,
        degrees: count,
        degree,
        first_kept: call.count("first kept image", keys.first_kept)?,
        kept: call.count("kept images", keys.kept)?,
    };
    let blocks =
        [grid.div_ceil(COLUMNS) as u32, grid.div_ceil(shape.strip_rows) as u32, pairs as u32];
    // SAFETY: gram, norms and keys were checked against their shapes, all images lie within N, and `shape` is made by
    // the header's formulas within its limits.
    unsafe { call.launch(blocks, shape.threads as u32, shape.shared_bytes as u32, &params) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_known_grids() {
        let shape = Shape::best(37, &[1, 3, 5], 99 << 10).unwrap();
        assert_eq!((shape.strip_rows, shape.shared_bytes), (8, 58_608), "the header's example");
        for grid in 1..=MAX_GRID {
            for degrees in [&[1, 3, 5][..], &[1], &[3], &[5], &[7], &[1, 3], &[3, 5], &[1, 5]] {
                let shape = Shape::best(grid, degrees, 64 << 10);
                let fits = grid <= 61 || !degrees.contains(&7);
                assert_eq!(
                    shape.is_some(),
                    fits,
                    "grid {grid}, degrees {degrees:?}, a card of 7.5"
                );
            }
        }
    }
}
