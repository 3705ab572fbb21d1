//! A contact sheet: every image beside its heat map on one page, the most anomalous first.

use super::colour::{Colour, jet};
use super::font::{ADVANCE, HEIGHT, draw_text, fill, shorten, text_width};
use super::heat_map::check_map;
use super::overlay::{blend, check_image};
use crate::image::{Canvas, Fit, RgbImage};
use crate::{Error, ImageSize, Result};

const PAPER: Colour = [255, 255, 255];
const INK: Colour = [36, 41, 47];
const FAINT: Colour = [110, 119, 129];
const FRAME: Colour = [208, 215, 222];
const DEFECTIVE: Colour = [207, 34, 46];
const NORMAL: Colour = [26, 127, 55];

/// Thumbnails from this side on get letters of double size.
const LARGE_THUMB: usize = 96;
/// Between an image and its heat map.
const PAIR_GAP: usize = 2;
/// Pages of more than this many bytes are refused.
const MAX_BYTES: usize = 1 << 31;

/// One image of the sheet, already reduced: a sheet of many images takes little memory.
#[derive(Debug, Clone)]
pub struct SheetCell {
    thumb: usize,
    image: RgbImage,
    map: Vec<f32>,
    name: String,
    label: Option<bool>,
    score: f64,
    decision: Option<bool>,
}

impl SheetCell {
    /// Reduces an image and its map to the image's own proportions inside a square of `thumb` pixels.
    ///
    /// # Shapes
    /// `image` of any size; `map` `[height, width]` of `size`, which is laid over the whole image.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a length does not fit, or for a thumb of 0.
    pub fn new(
        image: &RgbImage,
        map: &[f32],
        size: ImageSize,
        thumb: usize,
        name: impl Into<String>,
        label: Option<bool>,
        score: f64,
    ) -> Result<Self> {
        check_image(image)?;
        check_map(map, size)?;
        if thumb == 0 || thumb > 4096 {
            return Err(Error::invalid("thumbnail size", thumb, "1 to 4096 pixels"));
        }
        let pixels: Vec<f32> = image.data.iter().map(|&byte| f32::from(byte)).collect();
        let inside = Canvas::new(ImageSize::square(thumb)).with_fit(Fit::Pad);
        let to = inside.place(image.size()).size;
        let data = reduce::<3>(&pixels, image.size(), to);
        let data = data.into_iter().map(|value| value.round() as u8).collect();
        Ok(Self {
            thumb,
            image: RgbImage { width: to.width, height: to.height, data },
            map: reduce::<1>(map, size, to),
            name: name.into(),
            label,
            score,
            decision: None,
        })
    }

    /// Decided: defective (NG), normal (OK), or not at all.
    #[must_use]
    pub fn with_decision(mut self, defective: Option<bool>) -> Self {
        self.decision = defective;
        self
    }
}

/// Lays the cells out in rows of `columns`, sorted by score, highest first; under each its rank, name, score and, if known, its
/// decision (OK or NG) and its label. The heat maps share the colour scale `range`, which is drawn below with its figures.
///
/// # Errors
/// [`Error::Invalid`] without cells or columns, when the cells' thumbnails differ in size, or for a page above 2 GiB.
pub fn contact_sheet(cells: &[SheetCell], columns: usize, range: (f32, f32)) -> Result<RgbImage> {
    let Some(first) = cells.first() else {
        return Err(Error::invalid("contact sheet", "no image", "at least 1"));
    };
    if columns == 0 {
        return Err(Error::invalid("contact sheet columns", 0, "at least 1"));
    }
    if let Some(other) = cells.iter().find(|cell| cell.thumb != first.thumb) {
        let expected = format!("{} for every image", first.thumb);
        return Err(Error::invalid("thumbnail size", other.thumb, expected));
    }
    let layout = Layout::new(first.thumb, columns.min(cells.len()), cells.len());
    let mut sheet = layout.blank()?;
    let mut order: Vec<&SheetCell> = cells.iter().collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    for (at, cell) in order.into_iter().enumerate() {
        draw_cell(&mut sheet, &layout, at, cell, range);
    }
    draw_scale(&mut sheet, &layout, range);
    Ok(sheet)
}

/// Where things go, in pixels.
struct Layout {
    thumb: usize,
    columns: usize,
    rows: usize,
    /// Size of the letters' dots.
    text: usize,
    margin: usize,
    gap: usize,
}

impl Layout {
    fn new(thumb: usize, columns: usize, cells: usize) -> Self {
        let text = if thumb >= LARGE_THUMB { 2 } else { 1 };
        let (margin, gap) = (12 * text, 10 * text);
        Self { thumb, columns, rows: cells.div_ceil(columns), text, margin, gap }
    }
    fn cell_width(&self) -> usize {
        2 * self.thumb + PAIR_GAP
    }
    fn line(&self) -> usize {
        (HEIGHT + 4) * self.text
    }
    fn cell_height(&self) -> usize {
        self.thumb + 4 * self.text + 2 * self.line()
    }
    fn width(&self) -> usize {
        2 * self.margin + self.columns * (self.cell_width() + self.gap) - self.gap
    }
    fn scale_top(&self) -> usize {
        self.margin + self.rows * (self.cell_height() + self.gap)
    }
    fn bar_height(&self) -> usize {
        6 * self.text
    }
    fn height(&self) -> usize {
        self.scale_top() + self.bar_height() + 4 * self.text + HEIGHT * self.text + self.margin
    }
    fn corner(&self, at: usize) -> (usize, usize) {
        let (row, column) = (at / self.columns, at % self.columns);
        (
            self.margin + column * (self.cell_width() + self.gap),
            self.margin + row * (self.cell_height() + self.gap),
        )
    }
    fn blank(&self) -> Result<RgbImage> {
        let (width, height) = (self.width(), self.height());
        let bytes = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        match bytes.filter(|bytes| *bytes <= MAX_BYTES) {
            Some(bytes) => {
                let data = PAPER.into_iter().cycle().take(bytes).collect();
                Ok(RgbImage { width, height, data })
            }
            None => Err(Error::invalid(
                "contact sheet",
                format!("{width} x {height} pixels"),
                "at most 2 GiB (fewer images, or smaller thumbnails)",
            )),
        }
    }
}

fn draw_cell(
    sheet: &mut RgbImage,
    layout: &Layout,
    at: usize,
    cell: &SheetCell,
    range: (f32, f32),
) {
    let (x, y) = layout.corner(at);
    let (thumb, text) = (layout.thumb, layout.text);
    fill(sheet, (x - 1, y - 1), (layout.cell_width() + 2, thumb + 2), FRAME);
    // In the middle of its square, which is framed whole.
    let (aside, above) = ((thumb - cell.image.width) / 2, (thumb - cell.image.height) / 2);
    let heat = blend(&cell.image, &cell.map, range);
    for (picture, left) in [(&cell.image, x), (&heat, x + thumb + PAIR_GAP)] {
        paste(sheet, picture, (left + aside, y + above));
    }
    let letters = (layout.cell_width() + text) / (ADVANCE * text);
    let top = y + thumb + 4 * text;
    let rank = format!("{} ", at + 1);
    draw_text(sheet, &shorten(&rank, letters), (x, top), text, FAINT);
    let taken = rank.chars().count();
    let name = shorten(&cell.name, letters.saturating_sub(taken));
    draw_text(sheet, &name, (x + taken * ADVANCE * text, top), text, INK);
    let second = top + layout.line();
    let score = shorten(&figure(cell.score), letters);
    draw_text(sheet, &score, (x, second), text, INK);
    let decision =
        cell.decision.map(|defective| if defective { (" NG", DEFECTIVE) } else { (" OK", NORMAL) });
    let mut taken = text_width(&score, text);
    if let Some((word, colour)) = decision
        && taken + ADVANCE * text + text_width(word, text) <= layout.cell_width()
    {
        draw_text(sheet, word, (x + taken + text, second), text, colour);
        taken += text + text_width(word, text);
    }
    let (label, colour) = match cell.label {
        Some(true) => ("defective", DEFECTIVE),
        Some(false) => ("normal", NORMAL),
        None => return,
    };
    // Right-aligned, if there is room for it beside the score.
    let width = text_width(label, text);
    if taken + ADVANCE * text + width <= layout.cell_width() {
        draw_text(sheet, label, (x + layout.cell_width() - width, second), text, colour);
    }
}

/// The colour bar: half the page wide, its ends and middle named, what it measures to its left if there is room.
fn draw_scale(sheet: &mut RgbImage, layout: &Layout, (low, high): (f32, f32)) {
    let text = layout.text;
    let width = (sheet.width / 2).max(layout.cell_width()).min(sheet.width - 2 * layout.margin);
    let (left, top) = ((sheet.width - width) / 2, layout.scale_top());
    for column in 0..width {
        // The levels are spread over the whole bar, both ends shown.
        let level = (column * 255 / (width - 1).max(1)) as u8;
        fill(sheet, (left + column, top), (1, layout.bar_height()), jet(level));
    }
    let (title, title_gap) = ("anomaly map", 2 * ADVANCE * text);
    if let Some(x) = left.checked_sub(text_width(title, text) + title_gap) {
        let y = (top + layout.bar_height() / 2).saturating_sub(HEIGHT * text / 2);
        draw_text(sheet, title, (x, y), text, FAINT);
    }
    let middle = f64::from(low) + (f64::from(high) - f64::from(low)) / 2.0;
    let line = top + layout.bar_height() + 4 * text;
    for (value, share) in [(f64::from(low), 0), (middle, 1), (f64::from(high), 2)] {
        let label = figure(value);
        let label_width = text_width(&label, text);
        // Left, centred, right. Three labels fit any bar wide enough for 3 of them; else the middle one is left out.
        if share == 1 && 4 * label_width > width {
            continue;
        }
        let x = left + width.saturating_sub(label_width) * share / 2;
        draw_text(sheet, &label, (x, line), text, FAINT);
    }
}

/// Four decimals, or three significant digits where those would say little.
fn figure(value: f64) -> String {
    if value != 0.0 && (value.abs() < 0.01 || value.abs() >= 1e4) {
        format!("{value:.2e}")
    } else {
        format!("{value:.4}")
    }
}

fn paste(sheet: &mut RgbImage, image: &RgbImage, (x, y): (usize, usize)) {
    let width = 3 * image.width;
    for (row, line) in image.data.chunks_exact(width).enumerate() {
        let start = ((y + row) * sheet.width + x) * 3;
        sheet.data[start..start + width].copy_from_slice(line);
    }
}

/// The mean over the part of the source that each output covers, with fractions of pixels at its rim.
/// `source` `[from.height, from.width, C]` -> `[to.height, to.width, C]`.
pub(super) fn reduce<const C: usize>(source: &[f32], from: ImageSize, to: ImageSize) -> Vec<f32> {
    let row = to.width * C;
    let mut narrow = vec![0.0f32; row * from.height];
    let columns = spans(from.width, to.width);
    for (line, values) in narrow.chunks_exact_mut(row).zip(source.chunks_exact(from.width * C)) {
        for (out, span) in line.chunks_exact_mut(C).zip(&columns) {
            for (at, weight) in span {
                for (sum, value) in out.iter_mut().zip(&values[at * C..][..C]) {
                    *sum += weight * value;
                }
            }
        }
    }
    let mut out = vec![0.0f32; row * to.height];
    for (line, span) in out.chunks_exact_mut(row).zip(spans(from.height, to.height)) {
        for (at, weight) in span {
            for (sum, value) in line.iter_mut().zip(&narrow[at * row..][..row]) {
                *sum += weight * value;
            }
        }
    }
    out
}

/// For each of `side` outputs, the source positions it covers with their weights, which sum to 1.
fn spans(length: usize, side: usize) -> Vec<Vec<(usize, f32)>> {
    // In units of 1/side of a source pixel everything is an integer.
    (0..side)
        .map(|at| {
            let (from, to) = (at * length, (at + 1) * length);
            (from / side..to.div_ceil(side))
                .map(|pixel| {
                    let covered = to.min((pixel + 1) * side) - from.max(pixel * side);
                    (pixel, covered as f32 / length as f32)
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(thumb: usize, level: u8, score: f64, label: Option<bool>) -> SheetCell {
        sized_cell((5, 5), thumb, level, score, label)
    }

    fn sized_cell(
        (width, height): (usize, usize),
        thumb: usize,
        level: u8,
        score: f64,
        label: Option<bool>,
    ) -> SheetCell {
        let image = RgbImage { width, height, data: vec![level; width * height * 3] };
        let (map, size) = ([score as f32; 6], ImageSize::new(2, 3));
        SheetCell::new(&image, &map, size, thumb, "name.png", label, score).expect("cell")
    }

    fn pixel(sheet: &RgbImage, x: usize, y: usize) -> &[u8] {
        &sheet.data[(y * sheet.width + x) * 3..][..3]
    }

    #[test]
    fn the_most_anomalous_comes_first() {
        let cells =
            [cell(16, 10, 0.1, None), cell(16, 30, 0.9, Some(true)), cell(16, 20, 0.5, None)];
        let sheet = contact_sheet(&cells, 2, (0.0, 1.0)).expect("sheet");
        let layout = Layout::new(16, 2, 3);
        assert_eq!((sheet.width, sheet.height), (layout.width(), layout.height()));
        assert_eq!(sheet.data.len(), sheet.width * sheet.height * 3);
        for (at, level) in [(0, 30), (1, 20), (2, 10)] {
            let (x, y) = layout.corner(at);
            assert_eq!(pixel(&sheet, x, y), [level; 3], "cell {at}");
            assert_ne!(pixel(&sheet, x + 16 + PAIR_GAP, y), [level; 3], "heat of cell {at}");
        }
        // The margin stays clean; the bar's middle is the middle colour of JET.
        assert!(sheet.data[..3 * sheet.width * (layout.margin - 1)].iter().all(|b| *b == 255));
        let middle = pixel(&sheet, sheet.width / 2, layout.scale_top());
        assert!(middle[1] == 255 && middle[0] > 100 && middle[2] > 100, "{middle:?}");
    }

    #[test]
    fn cells_keep_their_images_proportions() {
        let cells =
            [sized_cell((30, 10), 16, 40, 0.9, None), sized_cell((10, 20), 16, 40, 0.1, None)];
        assert_eq!((cells[0].image.width, cells[0].image.height), (16, 5));
        assert_eq!((cells[1].image.width, cells[1].image.height), (8, 16));
        let sheet = contact_sheet(&cells, 2, (0.0, 1.0)).expect("sheet");
        let layout = Layout::new(16, 2, 2);
        for (at, columns, rows) in [(0, 0..16, 5..10), (1, 4..12, 0..16)] {
            let (left, top) = layout.corner(at);
            for y in 0..16 {
                for x in 0..16 {
                    let inside = columns.contains(&x) && rows.contains(&y);
                    let of_image = pixel(&sheet, left + x, top + y);
                    assert_eq!(of_image == [40; 3], inside, "cell {at}: {x}, {y}");
                    let of_heat = pixel(&sheet, left + x + 16 + PAIR_GAP, top + y);
                    assert_eq!(of_heat != FRAME, inside, "heat of cell {at}: {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn decisions_are_drawn_in_their_colours() {
        for (decision, colour) in
            [(Some(true), Some(DEFECTIVE)), (Some(false), Some(NORMAL)), (None, None)]
        {
            let made = cell(48, 10, 0.5, None).with_decision(decision);
            let sheet = contact_sheet(&[made], 1, (0.0, 1.0)).expect("sheet");
            for one in [DEFECTIVE, NORMAL] {
                let drawn = sheet.data.chunks_exact(3).any(|pixel| pixel == one);
                assert_eq!(drawn, Some(one) == colour, "{decision:?} {one:?}");
            }
        }
    }

    #[test]
    fn odd_sizes_do_not_fail() {
        for thumb in [1, 2, 7, 97] {
            for columns in [1, 3, 50] {
                let mut cells = vec![cell(thumb, 0, f64::NAN, Some(false)); 4];
                cells.push(sized_cell((1, 300), thumb, 0, 1.0, None));
                let sheet = contact_sheet(&cells, columns, (0.5, 0.5)).expect("sheet");
                assert!(sheet.width > 2 * thumb * columns.min(5));
            }
        }
    }

    #[test]
    fn reducing_takes_the_mean() {
        let (one, two) = (ImageSize::square(1), ImageSize::square(2));
        assert_eq!(reduce::<1>(&[1.0, 2.0, 3.0, 6.0], two, one), [3.0]);
        let rows = reduce::<1>(&[1.0, 2.0, 3.0, 6.0], two, ImageSize::new(2, 1));
        assert_eq!(rows, [1.5, 4.5]);
        // Three pixels to two: each output covers one and a half.
        let found = reduce::<1>(&[0.0, 3.0, 6.0], ImageSize::new(1, 3), two);
        for (a, b) in found.iter().zip([1.0, 5.0, 1.0, 5.0]) {
            assert!((a - b).abs() < 1e-6, "{found:?}");
        }
        let colours = reduce::<3>(&[1.0, 2.0, 3.0, 3.0, 4.0, 5.0], ImageSize::new(1, 2), one);
        assert_eq!(colours, [2.0, 3.0, 4.0]);
    }

    #[test]
    fn bad_input_is_named() {
        let image = RgbImage { width: 1, height: 1, data: vec![0; 3] };
        let make = |map: &[f32], thumb| {
            SheetCell::new(&image, map, ImageSize::square(1), thumb, "", None, 0.0)
        };
        assert!(make(&[], 8).is_err() && make(&[0.0], 0).is_err());
        assert!(contact_sheet(&[], 3, (0.0, 1.0)).is_err());
        assert!(contact_sheet(&[cell(8, 0, 0.0, None)], 0, (0.0, 1.0)).is_err());
        let mixed = [cell(8, 0, 0.0, None), cell(9, 0, 0.0, None)];
        assert!(contact_sheet(&mixed, 1, (0.0, 1.0)).is_err());
    }
}
