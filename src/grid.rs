//! The two rectangles everything is laid out on: an image's pixels, and its patches.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// The patch grid of an image: H rows of W patch tokens, L = H·W of them, row by row from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// H.
    pub rows: usize,
    /// W.
    pub columns: usize,
}

impl Grid {
    /// A grid of `rows` × `columns` patches.
    pub const fn new(rows: usize, columns: usize) -> Self {
        Grid { rows, columns }
    }

    /// A grid with as many rows as columns.
    pub const fn square(side: usize) -> Self {
        Grid { rows: side, columns: side }
    }

    /// The square grid of so many patches, if there is one.
    pub fn of_square(patches: usize) -> Option<Self> {
        let side = patches.isqrt();
        (side > 0 && side.checked_mul(side) == Some(patches)).then_some(Grid::square(side))
    }

    /// L = H·W. Saturates: no grid of that many patches exists in memory.
    pub const fn patches(self) -> usize {
        self.rows.saturating_mul(self.columns)
    }

    /// The longer side.
    pub fn longest(self) -> usize {
        self.rows.max(self.columns)
    }
}

/// `HxW`.
impl fmt::Display for Grid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}x{}", self.rows, self.columns)
    }
}

/// From `HxW`, both sides at least 1.
impl FromStr for Grid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rows, columns) = parse_sides(text)
            .ok_or_else(|| Error::invalid("grid", format!("`{text}`"), EXPECTED_GRID))?;
        Ok(Grid { rows, columns })
    }
}

const EXPECTED_GRID: &str = "rows x columns of patches, such as 37x37";

/// The size of an image in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows of pixels.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
}

impl ImageSize {
    /// An image of `height` × `width` pixels.
    pub const fn new(height: usize, width: usize) -> Self {
        ImageSize { height, width }
    }

    /// An image with sides of one length.
    pub const fn square(side: usize) -> Self {
        ImageSize { height: side, width: side }
    }

    /// Number of pixels. Saturates.
    pub const fn pixels(self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// The side of a square image.
    pub fn side(self) -> Option<usize> {
        (self.height == self.width).then_some(self.height)
    }

    /// The whole patches of side `patch` that fit.
    pub fn grid(self, patch: usize) -> Grid {
        let patch = patch.max(1);
        Grid { rows: self.height / patch, columns: self.width / patch }
    }
}

/// `HxW`.
impl fmt::Display for ImageSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}x{}", self.height, self.width)
    }
}

/// From `HxW`, or from one number, the side of a square.
impl FromStr for ImageSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let square = text.parse().ok().filter(|&side: &usize| side > 0).map(|side| (side, side));
        let (height, width) = square.or_else(|| parse_sides(text)).ok_or_else(|| {
            Error::invalid(
                "image size",
                format!("`{text}`"),
                "height x width in pixels, such as 448x672, or one side of a square",
            )
        })?;
        Ok(ImageSize { height, width })
    }
}

/// Two numbers above 0 with an `x` between them.
fn parse_sides(text: &str) -> Option<(usize, usize)> {
    let (first, second) = text.split_once(['x', 'X'])?;
    let (first, second) = (first.parse().ok()?, second.parse().ok()?);
    (first > 0 && second > 0).then_some((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_written_as_they_are_read() {
        for grid in [Grid::new(1, 17), Grid::square(37), Grid::new(64, 5)] {
            assert_eq!(grid.to_string().parse::<Grid>().unwrap(), grid);
        }
        assert_eq!("448x672".parse::<ImageSize>().unwrap(), ImageSize::new(448, 672));
        assert_eq!("518".parse::<ImageSize>().unwrap(), ImageSize::square(518));
        for wrong in ["", "x", "3x", "x4", "0x4", "4x0", "3x4x5", "-1x2", "0"] {
            assert!(wrong.parse::<Grid>().is_err(), "{wrong}");
            assert!(wrong.parse::<ImageSize>().is_err(), "{wrong}");
        }
        let said = "7".parse::<Grid>().unwrap_err().to_string();
        assert!(said.contains("`7`") && said.contains("37x37"), "{said}");
    }

    #[test]
    fn squares_are_found_and_others_are_not() {
        assert_eq!(Grid::of_square(1369), Some(Grid::square(37)));
        assert_eq!(Grid::of_square(0), None);
        assert_eq!(Grid::of_square(17), None);
        assert_eq!(ImageSize::new(29, 43).grid(14), Grid::new(2, 3));
        assert_eq!(ImageSize::new(28, 42).side(), None);
    }
}
