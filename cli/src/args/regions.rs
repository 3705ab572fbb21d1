//! The words of what part of an image is looked at.

use std::path::PathBuf;

use clap::Args;

/// Which part of the images is looked at.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Regions")]
pub struct RegionArgs {
    /// What is looked at: a mask of the images' size, white (above 0) inside, black outside, for all images; or a folder with
    /// a mask for each image, of the image's name (of a data set: MASKS/CLASS/…). Patches less than half inside are
    /// neither scored nor compared with [default: everything]
    #[arg(long, value_name = "MASK.png|MASKS")]
    pub roi: Option<PathBuf>,
    /// Leave out what lies within N pixels of the image's edges, in pixels of the image as it is on disk [default: 0]
    #[arg(long, value_name = "N")]
    pub ignore_border: Option<usize>,
}
