//! From the patch scores of an image, or of its tiles, to its map.

use std::ops::Range;

use crate::image::Cut;
use crate::scoring::upsample::{inside, upsample_max_within, upsample_within};
use crate::{Error, Grid, ImageSize, Real, Result};

/// The longest side of a map that is joined of tiles.
pub(super) const LONGEST_JOINED: usize = 2048;

/// How patch scores lie, and the size of the maps that raw scores, figures and pictures are made of.
#[derive(Debug, Clone)]
pub(super) struct Maps {
    /// Of an image; with tiles, of a tile.
    pub grid: Grid,
    /// The tiles, if images were cut.
    pub cut: Option<Cut>,
    /// Height and width of a map.
    pub size: ImageSize,
}

/// The patch scores of one image, or marks of its patches, and its width and height.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scores<'a, T> {
    pub scores: &'a [T],
    /// Empty where no patch is left out.
    pub left_out: &'a [bool],
    pub sides: (u32, u32),
}

impl Maps {
    /// Of images that were not cut.
    pub fn whole(grid: Grid, size: ImageSize) -> Self {
        Maps { grid, cut: None, size }
    }

    /// Of tiles of images of this size, each of which went through the backbone at `input`.
    ///
    /// A map has the image's proportions, and as many pixels as its tiles have of input, on the side where they have more; the
    /// longer side has [`LONGEST_JOINED`] at most. One tile is the whole image, whose map has the size of the input.
    pub fn of_tiles(grid: Grid, cut: Cut, input: ImageSize, image: ImageSize) -> Self {
        let (tile, longest) = (cut.tile_size(image), image.height.max(image.width));
        let scale = (input.height as f64 / tile.height as f64)
            .max(input.width as f64 / tile.width as f64)
            .min(LONGEST_JOINED as f64 / longest.max(1) as f64);
        let side = |side: usize| ((side as f64 * scale).round() as usize).max(1);
        let size = match cut.tiles() {
            1 => input,
            _ => ImageSize::new(side(image.height), side(image.width)),
        };
        Maps { grid, cut: Some(cut), size }
    }

    /// Patch scores of an image.
    pub fn patches(&self) -> usize {
        self.grid.patches() * self.cut.map_or(1, |cut| cut.tiles())
    }

    /// The map of an image at any size, into `out`.
    ///
    /// Tiles' maps are joined by weights that rise linearly over each overlap, and sum to 1 at every pixel.
    pub fn map<T: Real>(&self, of: Scores<'_, T>, size: ImageSize, out: &mut [T]) -> Result<()> {
        let Some(cut) = self.cut else {
            return upsample_within(of.scores, of.left_out, self.grid, size, out);
        };
        if out.len() != size.pixels() || size.pixels() == 0 {
            let found = format!("room for {} values", out.len());
            return Err(Error::invalid("anomaly map", found, format!("{size} values, at least 1")));
        }
        let marked = of.left_out.contains(&true);
        // Where patches are left out, the weights of what is left at each pixel.
        let mut shares = vec![T::default(); if marked { size.pixels() } else { 0 }];
        let mut map = Vec::new();
        out.fill(T::default());
        for tile in self.tiles(cut, of.sides, size) {
            let (rows, columns) = (&tile.rows, &tile.columns);
            let part = ImageSize::new(rows.positions.len(), columns.positions.len());
            let scores = self.of_tile(of.scores, tile.index);
            let left_out = self.of_tile(of.left_out, tile.index);
            map.clear();
            map.resize(part.pixels(), T::default());
            upsample_within(scores, left_out, self.grid, part, &mut map)?;
            let within = if marked { inside(left_out, self.grid, part)? } else { Vec::new() };
            for (line, y) in rows.positions.clone().enumerate() {
                let start = y * size.width + columns.positions.start;
                for (x, column) in columns.weights.iter().enumerate() {
                    let weight = rows.weights[line] * column;
                    let (from, to) = (line * part.width + x, start + x);
                    if within.get(from).is_none_or(|&inside| inside) {
                        out[to] = out[to] + T::from_f64(weight * map[from].into());
                        if marked {
                            shares[to] = shares[to] + T::from_f64(weight);
                        }
                    }
                }
            }
        }
        for (value, &share) in out.iter_mut().zip(&shares) {
            if share > T::default() {
                *value = *value / share;
            }
        }
        Ok(())
    }

    /// Whether each pixel of a map lies in a patch that is not left out, in one tile at least.
    pub fn inside(
        &self,
        left_out: &[bool],
        sides: (u32, u32),
        size: ImageSize,
    ) -> Result<Vec<bool>> {
        let Some(cut) = self.cut else { return inside(left_out, self.grid, size) };
        let mut all = vec![false; size.pixels()];
        for tile in self.tiles(cut, sides, size) {
            let (rows, columns) = (tile.rows.positions, tile.columns.positions);
            let part = ImageSize::new(rows.len(), columns.len());
            let within = inside(self.of_tile(left_out, tile.index), self.grid, part)?;
            for (y, line) in rows.zip(within.chunks_exact(part.width)) {
                for (all, within) in all[y * size.width + columns.start..].iter_mut().zip(line) {
                    *all |= within;
                }
            }
        }
        Ok(all)
    }

    /// The largest value of an image's map.
    pub fn largest<T: Real>(&self, of: Scores<'_, T>) -> Result<T> {
        if self.cut.is_none() {
            return upsample_max_within(of.scores, of.left_out, self.grid, self.size);
        }
        let mut map = vec![T::default(); self.size.pixels()];
        self.map(of, self.size, &mut map)?;
        Ok(map.iter().fold(T::NEG_INFINITY, |best, &value| {
            if value > best || value.into().is_nan() { value } else { best }
        }))
    }

    fn of_tile<'a, V>(&self, values: &'a [V], tile: usize) -> &'a [V] {
        let patches = self.grid.patches();
        values.get(tile * patches..(tile + 1) * patches).unwrap_or_default()
    }

    /// The tiles that have pixels in a map of this size.
    fn tiles(
        &self,
        cut: Cut,
        (width, height): (u32, u32),
        size: ImageSize,
    ) -> impl Iterator<Item = Part> {
        let image = ImageSize::new(height as usize, width as usize);
        let (rows, columns) = cut.ranges(image);
        let rows = weighted(&rows, image.height, size.height);
        let columns = weighted(&columns, image.width, size.width);
        let count = cut.columns();
        (0..cut.tiles())
            .map(move |index| Part {
                index,
                rows: rows[index / count].clone(),
                columns: columns[index % count].clone(),
            })
            .filter(|part| !part.rows.positions.is_empty() && !part.columns.positions.is_empty())
    }
}

/// A tile's part of a map.
struct Part {
    index: usize,
    rows: Side,
    columns: Side,
}

/// One side of it.
#[derive(Debug, Clone, PartialEq)]
struct Side {
    positions: Range<usize>,
    /// One a position; over all tiles they sum to 1.
    weights: Vec<f64>,
}

/// The tiles along a side of `from` pixels, on `to` map positions: a tile's ends go to the nearest position.
fn weighted(tiles: &[Range<usize>], from: usize, to: usize) -> Vec<Side> {
    let from = from.max(1);
    let nearest = |end: usize| (2 * end * to + from) / (2 * from);
    let ranges: Vec<Range<usize>> =
        tiles.iter().map(|tile| nearest(tile.start)..nearest(tile.end)).collect();
    let mut sums = vec![0.0; to];
    let mut sides: Vec<Side> = Vec::with_capacity(ranges.len());
    for (at, positions) in ranges.iter().enumerate() {
        // What is shared with the tile before, and with the one after.
        let before =
            at.checked_sub(1).map_or(0, |one| ranges[one].end.saturating_sub(positions.start));
        let after = ranges.get(at + 1).map_or(0, |one| positions.end.saturating_sub(one.start));
        let weights: Vec<f64> = positions
            .clone()
            .map(|position| {
                let rise = (position - positions.start) as f64 + 0.5;
                let fall = (positions.end - position) as f64 - 0.5;
                let ramp = |way: f64, over: usize| if over > 0 { way / over as f64 } else { 1.0 };
                ramp(rise, before).min(ramp(fall, after)).min(1.0)
            })
            .collect();
        for (position, weight) in positions.clone().zip(&weights) {
            sums[position] += weight;
        }
        sides.push(Side { positions: positions.clone(), weights });
    }
    for side in &mut sides {
        for (weight, position) in side.weights.iter_mut().zip(side.positions.clone()) {
            *weight /= sums[position];
        }
    }
    sides
}

#[cfg(test)]
#[path = "maps_tests.rs"]
mod tests;
