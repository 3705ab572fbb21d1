//! Which part of the images is looked at, and into which tiles they are cut.

use std::path::{Path, PathBuf};

use musc::Result;
use musc::inspect::{Batch, Regions, TileMatch, Tiles};

use crate::args::{LookedAtArgs, RegionArgs, TileMatchArg};

/// Which part of the images is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegionConfig {
    /// A mask, or a folder of masks.
    pub roi: Option<PathBuf>,
    /// Pixels of the original image at each edge that are left out.
    pub border: usize,
}

/// The tiles that some options come to.
pub fn tiles(args: &RegionArgs) -> Result<Option<Tiles>> {
    let Some((rows, columns)) = args.tiles else { return Ok(None) };
    let matching = match args.match_tiles {
        Some(TileMatchArg::Any) => TileMatch::Any,
        Some(TileMatchArg::Same) | None => TileMatch::Same,
    };
    let tiles = Tiles::new(rows, columns)?.with_matching(matching);
    match args.tile_overlap {
        Some(share) => tiles.with_overlap(share).map(Some),
        None => Ok(Some(tiles)),
    }
}

impl From<&LookedAtArgs> for RegionConfig {
    fn from(args: &LookedAtArgs) -> Self {
        RegionConfig { roi: args.roi.clone(), border: args.ignore_border.unwrap_or(0) }
    }
}

impl RegionConfig {
    /// Whether all of every image is looked at.
    pub fn is_everywhere(&self) -> bool {
        self.roi.is_none() && self.border == 0
    }

    /// One batch with its regions.
    pub fn of(&self, batch: Batch) -> Result<Batch> {
        Ok(self.apply(vec![batch], false)?.remove(0))
    }

    /// The batches with their regions. In a folder of masks, a class has its own sub-folder if it is there.
    pub fn apply(&self, batches: Vec<Batch>, by_class: bool) -> Result<Vec<Batch>> {
        let one = match &self.roi {
            Some(mask) if !mask.is_dir() => Some(Regions::read(mask)?),
            _ => None,
        };
        batches
            .into_iter()
            .map(|batch| {
                let regions = match (&one, &self.roi) {
                    (Some(one), _) => one.clone(),
                    (None, Some(folder)) => Regions::read(self.folder(folder, &batch, by_class))?,
                    (None, None) => Regions::everywhere(),
                };
                batch.with_regions(regions.with_border(self.border))
            })
            .collect()
    }

    fn folder(&self, folder: &Path, batch: &Batch, by_class: bool) -> PathBuf {
        let of_class = folder.join(batch.name());
        if by_class && of_class.is_dir() { of_class } else { folder.to_path_buf() }
    }
}
