//! Large images in tiles: each tile goes through the backbone at the input's size, and is scored against tiles of the other
//! images.

use super::parts::{Part, PartFiles};
use super::work::{self, features_with, marking};
use super::{Batch, InputSize, Inspector};
use crate::backend::device::AnyFeatures;
use crate::backend::{Backend, FeatureSet, Pixels, References};
use crate::image::{Cut, RgbImage, Tile, common_size};
use crate::progress::go_on;
use crate::{Error, Grid, ImageSize, Progress, Result};

/// How far neighbouring tiles overlap where nobody says.
pub const USUAL_OVERLAP: f64 = 0.1;

/// Where a tile finds its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TileMatch {
    /// In the tiles at its own position in the other images: for parts that always lie alike.
    #[default]
    Same,
    /// In all tiles of the other images, each a reference of its own: for material that looks the same everywhere. Takes
    /// R·C times the memory and comparisons of [`Same`](Self::Same).
    Any,
}

/// How large images are cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Tiles {
    /// Rows and columns, and how far neighbours overlap.
    pub cut: Cut,
    /// Where a tile finds its like.
    pub matching: TileMatch,
}

impl Tiles {
    /// Rows and columns of tiles, neighbours overlapping by a tenth, compared at their own position.
    ///
    /// # Errors
    /// As [`Cut::new`].
    pub fn new(rows: usize, columns: usize) -> Result<Self> {
        Ok(Tiles { cut: Cut::new(rows, columns, USUAL_OVERLAP)?, matching: TileMatch::Same })
    }

    /// With neighbours overlapping by this share of a tile's side, 0 to 0.5.
    ///
    /// # Errors
    /// As [`Cut::new`].
    pub fn with_overlap(mut self, share: f64) -> Result<Self> {
        self.cut = Cut::new(self.cut.rows(), self.cut.columns(), share)?;
        Ok(self)
    }

    /// With tiles that find their like there.
    pub fn with_matching(mut self, matching: TileMatch) -> Self {
        self.matching = matching;
        self
    }

    /// Rows and columns as text.
    pub(super) fn name(&self) -> String {
        format!("{}x{}", self.cut.rows(), self.cut.columns())
    }

    /// Whether tiles of one image stand beside each other among the references.
    fn anywhere(&self) -> bool {
        // Of one tile the position is its own anywhere.
        self.matching == TileMatch::Any && self.cut.tiles() > 1
    }

    /// What cannot go with tiles.
    pub(super) fn check(&self, input: InputSize) -> Result<()> {
        match input {
            InputSize::KeepAspect { pad: true, .. } => Err(Error::invalid(
                "tiles",
                format!("{} with padding", self.name()),
                "images that are not padded: tiles of other proportions are stretched",
            )),
            _ => Ok(()),
        }
    }

    /// Tokens of how many tiles of an image are held at a time.
    pub(super) fn held(&self) -> usize {
        if self.anywhere() { self.cut.tiles() } else { 1 }
    }
}

/// Refuses to go on where images are cut.
pub(super) fn refuse(inspector: &Inspector, what: &str) -> Result<()> {
    match inspector.settings.tiles {
        None => Ok(()),
        Some(tiles) => {
            let expected = format!("none: {what} are of whole images");
            Err(Error::invalid("tiles", tiles.name(), expected))
        }
    }
}

/// The size at which tiles go through the backbone; tiles that are smaller than a patch are refused.
pub(super) fn input_of(inspector: &Inspector, batch: &Batch, cut: Cut) -> Result<ImageSize> {
    let patch = inspector.backbone.architecture().patch;
    let mut sizes = batch.sizes();
    for (name, size) in &mut sizes {
        let tile = cut.tile_size(*size);
        if tile.height.min(tile.width) < patch {
            return Err(Error::invalid(
                "tiles",
                format!(
                    "{}x{} of {name} ({}x{} pixels): each {}x{}",
                    cut.rows(),
                    cut.columns(),
                    size.width,
                    size.height,
                    tile.width,
                    tile.height
                ),
                format!("tiles of at least one patch, {patch}x{patch} pixels"),
            ));
        }
        *size = tile;
    }
    match inspector.settings.input {
        InputSize::Exactly(input) => Ok(input),
        InputSize::KeepAspect { longest, .. } => common_size(&sizes, longest, patch),
    }
}

/// Scores the tiles of some images of a batch.
pub(super) fn part(
    inspector: &Inspector,
    batch: &Batch,
    tiles: Tiles,
    input: ImageSize,
    subset: &[usize],
    progress: &dyn Progress,
) -> Result<Part> {
    let grid = input.grid(inspector.backbone.architecture().patch);
    let work = Work { inspector, batch, tiles, input, grid, progress };
    let (mut part, content) = work.whole(subset)?;
    inspector.settings.scoring.check(part.len().saturating_sub(1), grid)?;
    let (places, sides) = (part.places().to_vec(), part.sides().to_vec());
    let of = Subset { places: &places, sides: &sides };
    if tiles.anywhere() {
        work.anywhere(&of, &content, &mut part)?;
    } else {
        for index in 0..tiles.cut.tiles() {
            work.at_position(&of, index, &mut part)?;
        }
    }
    Ok(part)
}

/// Images of a subset: places in the batch, widths and heights.
struct Subset<'a> {
    places: &'a [usize],
    sides: &'a [(u32, u32)],
}

/// Tiles of one position that have something to look at.
struct Position {
    tile: Tile,
    index: usize,
    /// Which of the subset's images, rising.
    seen: Vec<usize>,
    /// `[seen, L]`, or empty.
    left_out: Vec<bool>,
}

struct Work<'a> {
    inspector: &'a Inspector,
    batch: &'a Batch,
    tiles: Tiles,
    input: ImageSize,
    grid: Grid,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    /// Class tokens and content of whole images; what else is made of them is let go.
    fn whole(&self, subset: &[usize]) -> Result<(Part, Vec<u64>)> {
        let (inspector, batch) = (self.inspector, self.batch);
        let resize = inspector.resize_to(work::input_of(inspector, batch)?);
        // Class tokens are of all the image, whatever part of it is looked at.
        let everything = Some(Vec::new());
        let (loaded, features) =
            features_with(inspector, batch, subset, &resize, everything, self.progress)?;
        let tokens = (features.class_tokens()?, features.class_width());
        let patches = self.grid.patches() * self.tiles.cut.tiles();
        let exact = inspector.settings.paper;
        let files = PartFiles::of(subset, loaded);
        Ok((Part::empty(files, patches, tokens, exact), features.content().to_vec()))
    }

    /// Which tiles at a position are looked at; all others are marked at once.
    fn position(&self, of: &Subset<'_>, index: usize, part: &mut Part) -> Result<Position> {
        let (patches, all) = (self.grid.patches(), self.tiles.cut.tiles());
        let tile = Tile::new(self.tiles.cut, index)?;
        let resize = self.inspector.resize_to(self.input).with_tile(tile);
        let marking = marking(self.batch, &resize, self.inspector.backbone.architecture().patch);
        let marks = self
            .inspector
            .on_pool(|| marking.left_out(of.places, of.sides, true, self.progress))?;
        if marks.is_empty() {
            let seen = (0..of.places.len()).collect();
            return Ok(Position { tile, index, seen, left_out: marks });
        }
        let (mut seen, mut left_out) = (Vec::new(), Vec::new());
        for (image, marks) in marks.chunks_exact(patches).enumerate() {
            part.mark((image * all + index) * patches, marks);
            if marks.contains(&false) {
                seen.push(image);
                left_out.extend_from_slice(marks);
            }
        }
        if !left_out.contains(&true) {
            left_out.clear();
        }
        Ok(Position { tile, index, seen, left_out })
    }

    /// Scores the tiles of one position against each other.
    fn at_position(&self, of: &Subset<'_>, index: usize, part: &mut Part) -> Result<()> {
        go_on(self.progress)?;
        let position = self.position(of, index, part)?;
        let Position { seen, .. } = &position;
        if seen.is_empty() {
            return Ok(());
        }
        if let [alone] = seen[..] {
            let name = self.batch.samples()[of.places[alone]].path.display();
            return Err(Error::invalid(
                format!("region at tile {} of {}", index + 1, self.tiles.name()),
                format!("one in {name} alone"),
                "one in at least 2 images, which are compared there, or in none",
            ));
        }
        let (inspector, scoring) = (self.inspector, &self.inspector.settings.scoring);
        scoring.check(seen.len() - 1, self.grid)?;
        let places: Vec<usize> = seen.iter().map(|&image| of.places[image]).collect();
        let resize = inspector.resize_to(self.input).with_tile(position.tile);
        let marks = Some(position.left_out.clone());
        let (loaded, features) =
            features_with(inspector, self.batch, &places, &resize, marks, self.progress)?;
        all_there(loaded.kept.len(), places.len(), loaded.bad)?;
        let scores = inspector.backend.patch_scores(
            &features,
            References::Others,
            scoring,
            self.progress,
        )?;
        self.add(&position, &scores.mean_f64(), part);
        Ok(())
    }

    /// Scores all tiles against all tiles of the other images.
    fn anywhere(&self, of: &Subset<'_>, content: &[u64], part: &mut Part) -> Result<()> {
        let (inspector, scoring) = (self.inspector, &self.inspector.settings.scoring);
        let patches = self.grid.patches();
        let mut positions = Vec::new();
        let (mut images, mut contents): (Vec<RgbImage>, Vec<u64>) = (Vec::new(), Vec::new());
        for index in 0..self.tiles.cut.tiles() {
            go_on(self.progress)?;
            let position = self.position(of, index, part)?;
            let places: Vec<usize> = position.seen.iter().map(|&at| of.places[at]).collect();
            let resize = inspector.resize_to(self.input).with_tile(position.tile);
            let loaded = inspector.on_pool(|| self.batch.load(&places, &resize, self.progress))?;
            all_there(loaded.kept.len(), places.len(), loaded.bad)?;
            images.extend(loaded.images);
            contents.extend(position.seen.iter().map(|&image| content[image]));
            positions.push(position);
        }
        let model = inspector.model(self.input)?;
        let mut features =
            inspector.backend.extract(&model, Pixels::Rgb(&images), self.progress)?;
        drop(images);
        let marks = self.marks_of(&positions, patches);
        if !marks.is_empty() {
            inspector.backend.leave_out(&mut features, marks)?;
        }
        // A tile has the content of its image, so that it is compared with no tile of that.
        features.set_content(contents);
        let features: AnyFeatures = features;
        let set = References::Set(&features);
        let scores = inspector.backend.patch_scores(&features, set, scoring, self.progress)?;
        let mean = scores.mean_f64();
        let mut start = 0;
        for position in &positions {
            let length = position.seen.len() * patches;
            self.add(position, &mean[start..start + length], part);
            start += length;
        }
        Ok(())
    }

    /// Marks of the tiles of all positions, one behind the other; empty where there are none.
    fn marks_of(&self, positions: &[Position], patches: usize) -> Vec<bool> {
        if positions.iter().all(|position| position.left_out.is_empty()) {
            return Vec::new();
        }
        let mut marks = Vec::new();
        for position in positions {
            if position.left_out.is_empty() {
                marks.resize(marks.len() + position.seen.len() * patches, false);
            } else {
                marks.extend_from_slice(&position.left_out);
            }
        }
        marks
    }

    /// Takes in scores `[seen, L]` of the tiles of a position.
    fn add(&self, position: &Position, scores: &[f64], part: &mut Part) {
        let (patches, all) = (self.grid.patches(), self.tiles.cut.tiles());
        for (&image, scores) in position.seen.iter().zip(scores.chunks_exact(patches)) {
            part.set((image * all + position.index) * patches, scores);
        }
    }
}

/// Files that could be read before, and cannot be now.
fn all_there(found: usize, expected: usize, bad: Vec<(std::path::PathBuf, String)>) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::BadImages { bad }) }
}
