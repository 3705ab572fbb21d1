//! Where the tiles of an image lie.

use std::ops::Range;

use super::{Rectangle, RgbImage};
use crate::{Error, ImageSize, Result};

/// The most tiles that an image is cut into.
const MOST_TILES: usize = 4096;

/// Into how many tiles images are cut, and how far neighbours overlap.
///
/// Along a side of S pixels n tiles of one length T lie from end to end, T the smallest whole number of at least
/// S / (n − (n − 1)·overlap), and tile i starts at i·(S − T)/(n − 1), rounded to the nearest pixel (a half goes up).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    rows: usize,
    columns: usize,
    overlap: f64,
}

impl Cut {
    /// Rows and columns of tiles, neighbours overlapping by this share of a tile's side.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no row or column, more than 4096 tiles, or a share outside 0 to 0.5.
    pub fn new(rows: usize, columns: usize, overlap: f64) -> Result<Self> {
        if !(1..=MOST_TILES).contains(&rows.saturating_mul(columns)) {
            return Err(Error::invalid(
                "tiles",
                format!("{rows}x{columns}"),
                format!("rows x columns, 1 to {MOST_TILES} tiles, such as 3x4"),
            ));
        }
        if !(0.0..=0.5).contains(&overlap) {
            return Err(Error::invalid("overlap of tiles", overlap, "a share of 0 to 0.5"));
        }
        Ok(Cut { rows, columns, overlap })
    }

    /// Rows of tiles.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of tiles.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The share of a tile's side by which neighbours overlap.
    pub fn overlap(&self) -> f64 {
        self.overlap
    }

    /// Number of tiles of an image.
    pub fn tiles(&self) -> usize {
        self.rows * self.columns
    }

    /// Height and width of every tile of an image of this size.
    pub fn tile_size(&self, image: ImageSize) -> ImageSize {
        ImageSize::new(
            length(image.height, self.rows, self.overlap),
            length(image.width, self.columns, self.overlap),
        )
    }

    /// The rows of pixels of each row of tiles, and the columns of each column.
    pub fn ranges(&self, image: ImageSize) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
        let along = |side: usize, count: usize| -> Vec<Range<usize>> {
            let length = length(side, count, self.overlap);
            let (free, gaps) = (side.saturating_sub(length), count.max(2) - 1);
            (0..count)
                .map(|at| (2 * at * free + gaps) / (2 * gaps))
                .map(|start| start..(start + length).min(side))
                .collect()
        };
        (along(image.height, self.rows), along(image.width, self.columns))
    }
}

/// The length of a tile of `count` along a side.
fn length(side: usize, count: usize, overlap: f64) -> usize {
    let tiles = count as f64 - (count as f64 - 1.0) * overlap;
    // What is a whole number but for the rounding of the share stays one.
    let length = (side as f64 / tiles * (1.0 - 1e-12)).ceil();
    (length as usize).clamp(1, side.max(1))
}

/// One tile of a cut, counted from the top left, row by row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tile {
    cut: Cut,
    index: usize,
}

impl Tile {
    /// The tile of this number.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are not so many.
    pub fn new(cut: Cut, index: usize) -> Result<Self> {
        if index >= cut.tiles() {
            return Err(Error::invalid("tile", index, format!("below {}", cut.tiles())));
        }
        Ok(Tile { cut, index })
    }

    /// Where it lies in an image of this size.
    pub fn rectangle(&self, image: ImageSize) -> Rectangle {
        let (rows, columns) = self.cut.ranges(image);
        let row = &rows[self.index / self.cut.columns];
        let column = &columns[self.index % self.cut.columns];
        let size = ImageSize::new(row.len(), column.len());
        Rectangle { top: row.start, left: column.start, size }
    }
}

/// A part of an image.
pub(super) fn crop(image: &RgbImage, part: Rectangle) -> RgbImage {
    let ImageSize { height, width } = part.size;
    let mut data = Vec::with_capacity(height * width * 3);
    for line in image.data.chunks_exact((image.width * 3).max(1)).skip(part.top).take(height) {
        data.extend_from_slice(&line[part.left * 3..][..width * 3]);
    }
    RgbImage { width, height, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Filter, Resize, resize};

    #[test]
    fn tiles_cover_an_image_from_end_to_end() {
        // 4 tiles of T with 3 overlaps of T/10 on 4000 pixels: 4000 / 3.7 = 1081.08.
        let cut = Cut::new(3, 4, 0.1).unwrap();
        let (rows, columns) = cut.ranges(ImageSize::new(3000, 4000));
        assert_eq!(columns, [0..1082, 973..2055, 1945..3027, 2918..4000]);
        assert_eq!(rows, [0..1072, 964..2036, 1928..3000]);
        assert_eq!(cut.tile_size(ImageSize::new(3000, 4000)), ImageSize::new(1072, 1082));
        let (rows, columns) = Cut::new(1, 2, 0.0).unwrap().ranges(ImageSize::new(7, 10));
        assert_eq!((rows.len(), &rows[0]), (1, &(0..7)));
        assert_eq!(columns, [0..5, 5..10]);
        // 37 / 3.7 is 10, not 11.
        assert_eq!(Cut::new(4, 1, 0.1).unwrap().tile_size(ImageSize::square(37)).height, 10);
        for side in [1, 2, 3, 50, 97, 1000, 65_535] {
            for (count, overlap) in [(1, 0.5), (2, 0.0), (2, 0.5), (3, 0.17), (7, 0.5), (60, 0.3)] {
                let cut = Cut::new(count, 1, overlap).unwrap();
                let (rows, _) = cut.ranges(ImageSize::new(side, 1));
                assert_eq!((rows[0].start, rows[count - 1].end), (0, side), "{side} {count}");
                for pair in rows.windows(2) {
                    assert_eq!(pair[0].len(), pair[1].len());
                    assert!(pair[0].start <= pair[1].start && pair[1].start <= pair[0].end);
                }
            }
        }
    }

    #[test]
    fn a_tile_is_cut_from_the_image_before_it_is_resized() {
        let data: Vec<u8> = (0..9 * 12 * 3).map(|at| (at * 37 % 251) as u8).collect();
        let image = RgbImage::new(12, 9, data).unwrap();
        let cut = Cut::new(2, 3, 0.25).unwrap();
        let to = ImageSize::new(4, 6);
        for index in 0..6 {
            let tile = Tile::new(cut, index).unwrap();
            let part = tile.rectangle(image.size());
            assert_eq!(part.size, cut.tile_size(image.size()));
            let mut alone = Vec::new();
            for y in part.top..part.top + part.size.height {
                for x in part.left..part.left + part.size.width {
                    alone.extend_from_slice(&image.data[(y * 12 + x) * 3..][..3]);
                }
            }
            let alone = RgbImage::new(part.size.width, part.size.height, alone).unwrap();
            let whole = Resize::new(to, Filter::Bicubic).with_tile(tile);
            assert_eq!(whole.part(image.size()), part);
            assert_eq!(whole.apply(&image).0, resize(&alone, to, Filter::Bicubic), "tile {index}");
        }
        assert!(Tile::new(cut, 6).is_err());
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (rows, columns) in [(0, 3), (3, 0), (65, 64), (usize::MAX, 2)] {
            let said = Cut::new(rows, columns, 0.1).unwrap_err().to_string();
            assert!(
                said.contains("tiles") && said.contains(&format!("{rows}x{columns}")),
                "{said}"
            );
        }
        for overlap in [-0.1, 0.51, f64::NAN, f64::INFINITY] {
            let said = Cut::new(2, 2, overlap).unwrap_err().to_string();
            assert!(said.contains("overlap") && said.contains("0 to 0.5"), "{said}");
        }
    }
}
