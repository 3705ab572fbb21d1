//! What the command line says, word for word: names, values and help, with nothing looked up or checked yet.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "comments on options are what --help says on a terminal: brackets in them are no links"
)]

mod bank;
mod doctor;
mod regions;
mod shards;
mod stages;
mod values;
mod weights;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use musc::ImageSize;
use musc::backend::device::Precision;
use musc::report::export::ExportFormat;
use musc::scoring::decision::DecisionRule;

pub use self::bank::{
    BankAddArgs, BankBuildArgs, BankCommand, BankInfoArgs, BankMergeArgs, BankOutputArgs,
    BankWeightsArgs, PredictArgs,
};
pub use self::doctor::DoctorArgs;
pub use self::regions::{LookedAtArgs, RegionArgs, TileMatchArg};
pub use self::shards::{InspectArgs, MergeArgs, ShardArg, ShardArgs};
pub use self::stages::{ExtractArgs, MetricsArgs, RscinArgs, ScoreArgs};
pub use self::values::precisions;
pub use self::values::{LabelsArg, MatchArg, ReferencesArg, parse_shard};
use self::values::{
    parse_bytes, parse_decision, parse_export, parse_image_size, parse_labels, parse_match,
    parse_references,
};
pub use self::weights::{
    WeightsCommand, WeightsConvertArgs, WeightsListArgs, WeightsNameArgs, WeightsVerifyArgs,
};

/// Lists of numbers that take several values after one name, as `argparse` reads `nargs="+"`.
const NUMBER_LISTS: [&str; 4] = ["--r-list", "--feature-layers", "--rscin-k", "--k"];

const EXAMPLES: &str = "\
Examples:
  musc-run demo                               30 sample images, figures, heat maps
  musc-run photos                             every image of a folder, scored against each other
  musc-run 'line3/*.png' --overlays           a pattern; the heat maps are also drawn over the images
  musc-run photos --keep-aspect 672           pictures that are not square, at their own proportions
  musc-run new --references good              known-good images to compare with, in place of each other
  musc-run many --references 200              thousands of images, in subsets: time and memory grow with N, not with N²
  musc-run sorted --labels from-folders       good/, normal/, ok/ are label 0, other sub-folders 1
  musc-run photos --labels review.csv         what was said in report.html, as labels: figures too
  musc-run --dataset_name mvtec_ad --data_path data/mvtec_anomaly_detection --class_name bottle \\
           --backbone_name dinov2_vits14 --feature_layers 2 5 8 11 --vis True --save_excel True
  musc-run extract photos --img-resize 518 --output features.safetensors
  musc-run score --features features.safetensors --r-list 1 3 5 --output scores.safetensors
  musc-run bank build good --output part.bank.safetensors
  musc-run predict --bank part.bank.safetensors new.png        one new image; `-` reads paths from stdin, --watch DIR a folder
  musc-run inspect many --shard 3/16 --store DIR               one of 16 workers; `musc-run merge DIR` makes the result
  musc-run weights download ViT-L-14-336      the weights of another backbone; runs find them by themselves
  musc-run doctor                             cards, driver, processor, weights: what would run, and what helps

Every option is read with `-` and with `_`. A folder called like a sub-command is reached by `./demo`.

Exit codes: 0 done; 1 an error that may pass (a full disk, a busy card, the network), or SIGTERM: try again; 2 wrong usage or bad
data: do not; 3 parts of a job are missing; 4 an image is NG and --fail-on-ng was given; 130 Ctrl-C (a second one ends at once).
Data goes to stdout, progress and messages to stderr.";

/// Finds the defective ones among images of one kind, and where the defect is, with no training.
#[derive(Debug, Parser)]
#[command(
    name = "musc-run",
    version = crate::version(),
    long_version = crate::long_version(),
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// One step of the method on its own, or the demonstration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run on the 30 sample images inside the program and show the figures
    Demo(DemoArgs),
    /// What musc-run does without a sub-command, whole or a share of it: one worker of many
    Inspect(Box<InspectArgs>),
    /// What the shards of a job have made, to one result
    Merge(Box<MergeArgs>),
    /// Known-good or earlier images, kept to compare new ones with
    #[command(subcommand)]
    Bank(BankCommand),
    /// New images against a bank: OK or NG, one by one
    Predict(PredictArgs),
    /// Images or pixels to patch tokens and class tokens
    Extract(ExtractArgs),
    /// Patch tokens to patch scores, anomaly maps and image scores
    Score(ScoreArgs),
    /// Re-score images by their class tokens (RsCIN)
    Rscin(RscinArgs),
    /// Scores and ground truth to the seven figures, as JSON
    Metrics(MetricsArgs),
    /// Weights: which there are and where, checked, downloaded, converted
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// What this machine has for a run, what would run, and what helps where it would not
    Doctor(DoctorArgs),
}

/// Where it runs and what it says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine and messages")]
pub struct MachineArgs {
    /// cpu, auto, cuda[:0,1…], sim, or a card's number (that card if there is one, else the CPU) [default: auto]
    #[arg(long)]
    pub device: Option<String>,
    /// Numbers of products: auto (on a card f16; on the CPU features in f32 and scoring in bf16 where the processor has
    /// AVX512-BF16), f32 (the CPU alone), f16 (cards alone), or bf16, features too: half the bits, or tokens beyond f16's
    /// 65504 [default: auto, on the CPU with --paper f32]
    #[arg(long, value_name = "FORMAT", value_parser = precisions(), hide_possible_values = true)]
    pub precision: Option<Precision>,
    /// Most memory to take on each card, such as 6G or 800M; past it, tokens wait on the host and images are scored
    /// in groups [default: what is free]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_vram: Option<usize>,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// No progress on stderr
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON document on stdout in place of text
    #[arg(long)]
    pub json: bool,
}

/// The activation of a backbone's MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivationArg {
    // What the authors' program ends up with for this backbone, these weights and this size.
    Official,
    #[value(name = "quick_gelu", alias = "quick-gelu", alias = "quickgelu")]
    QuickGelu,
    Gelu,
}

/// How RsCIN compares two class tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SimilarityArg {
    Cosine,
    Dot,
}

/// The data sets whose layout is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatasetArg {
    #[value(name = "mvtec_ad", alias = "mvtec-ad")]
    MvtecAd,
    #[value(name = "visa")]
    Visa,
    #[value(name = "btad")]
    Btad,
}

/// The range that a heat map's colours span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VisTypeArg {
    #[value(name = "single_norm", alias = "single-norm")]
    SingleNorm,
    #[value(name = "whole_norm", alias = "whole-norm")]
    WholeNorm,
}

/// The whole job.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Images to score against each other: a folder, files, a pattern in quotes, a list (.txt), or a table
    /// (.csv: path,label[,mask])
    #[arg(value_name = "PATH", help_heading = "Images", display_order = 0)]
    pub paths: Vec<String>,
    #[command(flatten)]
    pub images: DatasetArgs,
    #[command(flatten)]
    pub regions: RegionArgs,
    #[command(flatten)]
    pub backbone: BackboneArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    #[command(flatten)]
    pub method: MethodArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub struct DatasetArgs {
    /// A data set in its published layout, in place of PATH
    #[arg(long, value_enum, value_name = "SET")]
    pub dataset_name: Option<DatasetArg>,
    /// The data set's root folder
    #[arg(long, value_name = "DIR")]
    pub data_path: Option<PathBuf>,
    /// Categories of the data set, or ALL [default: ALL]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub class_name: Option<Vec<String>>,
    /// Subsets that each category is dealt into, scored on their own, as the authors deal them [default: 1]
    #[arg(long, value_name = "S")]
    pub divide_num: Option<usize>,
    /// What each image is compared with: all others; about M of them (the images are dealt into subsets of M + 1, at a cost that
    /// grows with N in place of N²); known-good or earlier images of a folder, a list or a bank; or those and each other
    /// (all+PATH). Images of PATH are not scored [default: all for a data set and up to 300 images, else 200]
    #[arg(long, value_name = "all|M|PATH|all+PATH", value_parser = parse_references, conflicts_with = "divide_num")]
    pub references: Option<ReferencesArg>,
    /// Seed of the order in which images are dealt into subsets [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Labels for PATH: sub-folders good, normal and ok are label 0, others 1 (from-folders), or a table path,label,review,
    /// such as the review.csv that report.html saves
    #[arg(long, value_name = "from-folders|TABLE", value_parser = parse_labels)]
    pub labels: Option<LabelsArg>,
    /// Go on without the files that cannot be read; run.json lists them
    #[arg(long)]
    pub skip_bad: bool,
}

/// The backbone and its weights.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backbone")]
pub struct BackboneArgs {
    /// Backbone; a data set's default is ViT-L-14-336, a PATH's is the built-in dinov2_vits14
    #[arg(long, value_name = "NAME")]
    pub backbone_name: Option<String>,
    /// The weights' training set: openai, laion400m_e31 or laion400m_e32 [default: openai]
    #[arg(long, value_name = "TAG")]
    pub pretrained: Option<String>,
    /// Weights as safetensors [default: the built-in ones for dinov2_vits14, else
    /// weights/BACKBONE.TAG.safetensors, weights/BACKBONE.safetensors, or the Hugging Face cache; `musc-run weights
    /// download BACKBONE` gets them]
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Activation of the MLPs: official (what the authors' program ends up with for these weights and size), gelu
    /// or quick_gelu [default: official]
    #[arg(long, value_enum, value_name = "A", hide_possible_values = true)]
    pub activation: Option<ActivationArg>,
    /// Feature layers: block indices from 0 [default: a quarter, half, three quarters and all of the depth]
    #[arg(long, value_name = "L", num_args = 1.., value_delimiter = ',')]
    pub feature_layers: Option<Vec<usize>>,
    /// Images that go through the backbone together; it changes no number [default: what fills the device]
    #[arg(long, value_name = "B")]
    pub batch_size: Option<usize>,
    /// Keep tokens in a folder, and take them from there for images, weights and a size that were seen before: another run
    /// with other degrees, k or threshold makes none, and one that was killed goes on [default: none are kept]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Most room for --cache, such as 800M or 50G; what was not used for the longest goes first [default: 10G]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = "cache")]
    pub cache_size: Option<usize>,
}

/// The size at which images go through the backbone.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Backbone")]
pub struct SizeArgs {
    /// Side of the square the images are resized to, a multiple of the patch size [default: 518]
    #[arg(long, value_name = "S", conflicts_with_all = ["img_size", "keep_aspect"])]
    pub img_resize: Option<usize>,
    /// Height and width the images are resized to, multiples of the patch size
    #[arg(long, value_name = "HxW", value_parser = parse_image_size, conflicts_with = "keep_aspect")]
    pub img_size: Option<ImageSize>,
    /// Keep the images' proportions: the longer side gets S pixels, the other the nearest multiple of the patch size;
    /// images of other proportions than most are an error
    #[arg(long, value_name = "S")]
    pub keep_aspect: Option<usize>,
    /// With --keep-aspect: images of other proportions are put on a larger canvas, and its empty part is left out
    #[arg(long, requires = "keep_aspect")]
    pub pad: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Method")]
pub struct MethodArgs {
    /// A YAML file in the authors' layout; what the command line says wins [default: none is read]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Aggregation degrees, odd [default: 1 3 5]
    #[arg(long, value_name = "R", num_args = 1.., value_delimiter = ',')]
    pub r_list: Option<Vec<usize>>,
    /// Where a patch finds its like in the other images: anywhere, or within RADIUS rows and columns of its own place, for
    /// parts that always lie alike [default: anywhere]
    #[arg(long = "match", value_name = "anywhere|RADIUS", value_parser = parse_match)]
    pub match_where: Option<MatchArg>,
    /// How OK and NG are told apart, on the raw scores of each category: gap[:SIGMAS] (the widest gap within 6 standard
    /// deviations above the shortest half), shortest-half[:SIGMAS] (the mean of the shortest half and 3.5 of them), quantile:Q, share:P (the highest share P is NG), f1 (the best by the labels), mebin
    /// (each image by its own map), or a threshold [default: gap]
    #[arg(long, value_name = "RULE", value_parser = parse_decision, allow_hyphen_values = true)]
    pub decide: Option<DecisionRule>,
    /// End with exit code 4 when an image is NG
    #[arg(long)]
    pub fail_on_ng: bool,
    /// Neighbours that RsCIN keeps [default: 1 2 3; for VisA 1 8 9]
    #[arg(long, value_name = "K", num_args = 1.., value_delimiter = ',')]
    pub rscin_k: Option<Vec<usize>>,
    /// How RsCIN compares class tokens; dot is the authors' way for DINO [default: cosine, with --paper dot]
    #[arg(long, value_enum, value_name = "HOW")]
    pub rscin_similarity: Option<SimilarityArg>,
    /// Figures as the authors' program makes them, quirks included: RsCIN by dot product, DINO's feature layers
    /// counted from the wrong end, 0 for a figure without meaning, maps in f64, f32 on the CPU; options given beside it win
    #[arg(long)]
    pub paper: bool,
    /// Most memory for the table of pairwise minima, such as 512M or 2G; past it, images are scored in groups
    /// [default: 1G, on a card what is free]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_table_memory: Option<usize>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Folder of the results [default: output]
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Write heat maps: True or False [default: True for a PATH, False for a data set]
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub vis: Option<bool>,
    /// Colours by each map's own range (of a data set: defective images only), or by all maps' common range
    /// [default: single_norm for a data set, whole_norm for a PATH]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub vis_type: Option<VisTypeArg>,
    /// Write report.html, to look through and review the images, and the plots scores.svg, roc.svg and pr.svg: True or False
    /// [default: True for a PATH, False for a data set]
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub report: Option<bool>,
    /// Write results.xlsx: True or False [default: False]
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub save_excel: Option<bool>,
    /// Also write the anomaly maps as f32 safetensors
    #[arg(long)]
    pub save_maps: bool,
    /// Also draw each heat map and its contour over the image
    #[arg(long)]
    pub overlays: bool,
    /// Also write the regions of NG images for another program, into export/: coco, labelstudio or fiftyone (with grey maps),
    /// or several of them with commas between
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', value_parser = parse_export)]
    pub export: Vec<ExportFormat>,
    /// Replace the files of an earlier run in the same folder
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Side of the square the images are resized to, a multiple of 14
    #[arg(long, value_name = "S", default_value_t = 448, help_heading = "Method")]
    pub img_resize: usize,
    /// Folder of the results; they go to DIR/demo [default: output]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub output_dir: Option<PathBuf>,
    /// Write report.html: True or False [default: True]
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true,
        help_heading = "Output")]
    pub report: Option<bool>,
    /// Also write the anomaly maps as f32 safetensors
    #[arg(long, help_heading = "Output")]
    pub save_maps: bool,
    /// Replace the files of an earlier demo in the same folder
    #[arg(long, help_heading = "Output")]
    pub overwrite: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// Brings the authors' spelling to ours, before clap reads it: `_` in an option's name becomes `-`, and the
/// numbers after a list's name are joined by commas, so that a PATH after them stays a PATH.
pub fn normalise(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words = words.into_iter().peekable();
    let mut normal = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" {
            normal.push(word);
            normal.extend(words);
            break;
        }
        let Some(mut option) = option_name_with_dashes(&word) else {
            normal.push(word);
            continue;
        };
        if NUMBER_LISTS.contains(&option.as_str()) {
            let mut numbers = Vec::new();
            while let Some(number) = words.next_if(|next| is_number_list(next)) {
                numbers.push(number.to_string_lossy().into_owned());
            }
            if !numbers.is_empty() {
                option = format!("{option}={}", numbers.join(","));
            }
        }
        normal.push(option.into());
    }
    normal
}

/// The word with dashes in the option's name, if it is a long option in readable text.
fn option_name_with_dashes(word: &OsStr) -> Option<String> {
    let text = word.to_str()?;
    if !text.starts_with("--") {
        return None;
    }
    Some(match text.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")),
        None => text.replace('_', "-"),
    })
}

fn is_number_list(word: &OsStr) -> bool {
    word.to_str().is_some_and(|text| {
        text.split(',')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests;
