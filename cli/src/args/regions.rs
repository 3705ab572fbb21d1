//! The words of what part of an image is looked at, and of its tiles.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{parse_share, parse_tiles};

/// Where a tile finds its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TileMatchArg {
    Same,
    Any,
}

/// Which part of the images is looked at.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Regions and tiles")]
pub struct LookedAtArgs {
    /// What is looked at: a mask of the images' size, white (above 0) inside, black outside, for all images; or a folder with
    /// a mask for each image, of the image's name (of a data set: MASKS/CLASS/…). Patches less than half inside are
    /// neither scored nor compared with [default: everything]
    #[arg(long, value_name = "MASK.png|MASKS")]
    pub roi: Option<PathBuf>,
    /// Leave out what lies within N pixels of the image's edges, in pixels of the image as it is on disk [default: 0]
    #[arg(long, value_name = "N")]
    pub ignore_border: Option<usize>,
}

/// Which part of the images is looked at, and into which tiles they are cut.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Regions and tiles")]
pub struct RegionArgs {
    #[command(flatten)]
    pub looked_at: LookedAtArgs,
    /// Cut each image into R rows and C columns of tiles, each of which goes through the backbone at the size that an image
    /// would: for small defects in large images [default: the image is one]
    #[arg(long, value_name = "RxC", value_parser = parse_tiles)]
    pub tiles: Option<(usize, usize)>,
    /// The share of a tile's side by which neighbours overlap, 0 to 0.5 [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = parse_share, requires = "tiles")]
    pub tile_overlap: Option<f64>,
    /// What a tile is compared with: the tiles at its own position in the other images (same), or all tiles of the other
    /// images, for material that looks the same everywhere, at RxC times the memory and comparisons (any) [default: same]
    #[arg(
        long,
        value_enum,
        value_name = "same|any",
        hide_possible_values = true,
        requires = "tiles"
    )]
    pub match_tiles: Option<TileMatchArg>,
}
