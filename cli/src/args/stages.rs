//! The words of the single steps: extract, score, rscin, metrics.

use std::path::PathBuf;

use clap::Args;
use musc::{Grid, ImageSize};

use super::values::{MatchArg, parse_bytes, parse_grid, parse_image_size, parse_match};
use super::{BackboneArgs, MachineArgs, ShardArgs, SimilarityArg, SizeArgs};

#[derive(Debug, Clone, Args)]
pub struct ExtractArgs {
    /// Images: a folder, files, a pattern in quotes, or a list
    #[arg(value_name = "IMAGES", required_unless_present = "pixels", conflicts_with = "pixels")]
    pub images: Vec<String>,
    /// Normalised pixels in place of images: safetensors with `pixels` [N,3,H,W]
    #[arg(long, value_name = "FILE", conflicts_with = "shard")]
    pub pixels: Option<PathBuf>,
    #[command(flatten)]
    pub backbone: BackboneArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    /// Go on without the files that cannot be read
    #[arg(long)]
    pub skip_bad: bool,
    /// Result: safetensors with `tokens.LAYER` [N,L,C] and `class_tokens` [N,E]
    #[arg(long, value_name = "FILE", required_unless_present = "shard", conflicts_with = "shard")]
    pub output: Option<PathBuf>,
    /// Replace the result if it is there
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub shard: ShardArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, Args)]
pub struct ScoreArgs {
    /// Safetensors with `tokens.LAYER` [N,L,C], of each layer
    #[arg(long, value_name = "FILE")]
    pub features: PathBuf,
    /// Aggregation degrees, odd [default: 1 3 5]
    #[arg(long, value_name = "R", num_args = 1.., value_delimiter = ',')]
    pub r_list: Option<Vec<usize>>,
    /// Safetensors with `tokens.LAYER` [M,L,C] of other images: the images are compared with these alone [default: with each
    /// other]
    #[arg(long, value_name = "FILE")]
    pub references: Option<PathBuf>,
    /// The grid of patches, rows x columns, of files that do not say it [default: a square]
    #[arg(long, value_name = "HxW", value_parser = parse_grid)]
    pub grid: Option<Grid>,
    /// Where a patch finds its like: anywhere, or within RADIUS rows and columns of its own place [default: anywhere]
    #[arg(long = "match", value_name = "anywhere|RADIUS", value_parser = parse_match)]
    pub match_where: Option<MatchArg>,
    /// Side of square anomaly maps; without a size there are none
    #[arg(long, value_name = "S", conflicts_with = "img_size")]
    pub img_resize: Option<usize>,
    /// Height and width of the anomaly maps
    #[arg(long, value_name = "HxW", value_parser = parse_image_size)]
    pub img_size: Option<ImageSize>,
    /// Most memory for the table of pairwise minima, such as 512M or 2G [default: 1G, on a card
    /// what is free]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_table_memory: Option<usize>,
    /// Result: safetensors with `patch_scores` [N,L], `patch_scores_by_r_layer` [R,layers,N,L], `image_scores`
    /// [N] and, with a size, `anomaly_map` [N,H,W]
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the result if it is there
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, Args)]
pub struct RscinArgs {
    /// Safetensors with `scores` [N], or CSV with a column raw_score or score
    #[arg(long, value_name = "FILE")]
    pub scores: PathBuf,
    /// Safetensors with `class_tokens` [N,E], CSV with a row of numbers an image, or pickled NumPy arrays such as the
    /// authors' mvtec_ad_cls.dat
    #[arg(long, value_name = "FILE")]
    pub class_tokens: PathBuf,
    /// The category to take from pickled class tokens that are kept by category
    #[arg(long, value_name = "NAME")]
    pub class_name: Option<String>,
    /// Neighbours to keep, the image itself counted; 1 is added when it is missing
    #[arg(long, value_name = "K", num_args = 1.., value_delimiter = ',', default_values_t = [1, 2, 3])]
    pub k: Vec<usize>,
    /// Take k as given, without adding 1
    #[arg(long)]
    pub exact_k: bool,
    /// How class tokens are compared
    #[arg(long, value_enum, value_name = "HOW", default_value = "cosine")]
    pub similarity: SimilarityArg,
    /// Result: safetensors with `rescored` [N], or CSV with that column
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the result if it is there
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, Args)]
pub struct MetricsArgs {
    /// Safetensors with `gt_image` [N] and `score_image` [N], `gt_pixel` and `score_pixel` [N,H,W], or one pair
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    #[command(flatten)]
    pub machine: MachineArgs,
}
