//! The words of `musc-run bank` and `musc-run predict`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use musc::scoring::decision::DecisionRule;

use super::values::{MatchArg, parse_decision, parse_match, parse_seconds};
use super::{BackboneArgs, LookedAtArgs, MachineArgs, SimilarityArg, SizeArgs};

const PREDICT_HELP: &str = "\
With `-` a path is read from each line of stdin, and with --watch every file that appears is taken; each is answered with one line
of JSON on stdout as soon as it is known: path, decision (OK or NG), score, raw_score, threshold, seconds, regions; or path and error.
Exit codes: 0 done; 1 an error that may pass; 2 an image could not be answered, or wrong usage; 4 an image is NG and --fail-on-ng
was given; 130 Ctrl-C.";

/// What can be done with banks.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum BankCommand {
    /// Make a bank of images: of known-good ones, or of a batch as it comes
    Build(Box<BankBuildArgs>),
    /// What is in a bank
    Info(BankInfoArgs),
    /// A bank with more images
    Add(BankAddArgs),
    /// Several banks as one
    Merge(BankMergeArgs),
}

#[derive(Debug, Clone, Args)]
pub struct BankBuildArgs {
    /// Images: a folder, files, a pattern in quotes, or a list
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<String>,
    #[command(flatten)]
    pub output: BankOutputArgs,
    #[command(flatten)]
    pub backbone: BackboneArgs,
    #[command(flatten)]
    pub size: SizeArgs,
    #[command(flatten)]
    pub looked_at: LookedAtArgs,
    #[command(flatten)]
    pub method: BankMethodArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Method")]
pub struct BankMethodArgs {
    /// Aggregation degrees, odd [default: 1 3 5]
    #[arg(long, value_name = "R", num_args = 1.., value_delimiter = ',')]
    pub r_list: Option<Vec<usize>>,
    /// Where a patch finds its like: anywhere, or within RADIUS rows and columns of its own place [default: anywhere]
    #[arg(long = "match", value_name = "anywhere|RADIUS", value_parser = parse_match)]
    pub match_where: Option<MatchArg>,
    /// Neighbours that RsCIN keeps [default: 1 2 3]
    #[arg(long, value_name = "K", num_args = 1.., value_delimiter = ',')]
    pub rscin_k: Option<Vec<usize>>,
    /// How RsCIN compares class tokens [default: cosine]
    #[arg(long, value_enum, value_name = "HOW")]
    pub rscin_similarity: Option<SimilarityArg>,
    /// How the threshold is made of the bank's raw scores: gap[:SIGMAS], shortest-half[:SIGMAS], quantile:Q, share:P, or a number
    /// [default: gap]
    #[arg(long, value_name = "RULE", value_parser = parse_decision, allow_hyphen_values = true)]
    pub decide: Option<DecisionRule>,
    /// Go on without the files that cannot be read
    #[arg(long)]
    pub skip_bad: bool,
}

/// Where a bank goes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct BankOutputArgs {
    /// The bank: one safetensors file, such as part.bank.safetensors
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, Clone, Args)]
pub struct BankInfoArgs {
    /// The bank
    #[arg(value_name = "BANK")]
    pub bank: PathBuf,
    /// Print one JSON document on stdout in place of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct BankAddArgs {
    /// The bank; it stays as it is
    #[arg(value_name = "BANK")]
    pub bank: PathBuf,
    /// Images: a folder, files, a pattern in quotes, or a list
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<String>,
    #[command(flatten)]
    pub output: BankOutputArgs,
    #[command(flatten)]
    pub looked_at: LookedAtArgs,
    /// Go on without the files that cannot be read
    #[arg(long)]
    pub skip_bad: bool,
    #[command(flatten)]
    pub weights: BankWeightsArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Clone, Args)]
pub struct BankMergeArgs {
    /// The banks, of one setting
    #[arg(value_name = "BANK", required = true, num_args = 1..)]
    pub banks: Vec<PathBuf>,
    #[command(flatten)]
    pub output: BankOutputArgs,
    #[command(flatten)]
    pub weights: BankWeightsArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// The weights that a bank was made with; everything else it says itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backbone")]
pub struct BankWeightsArgs {
    /// The weights that the bank was made with, as safetensors [default: found by the bank's backbone, as a run finds them]
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = PREDICT_HELP)]
pub struct PredictArgs {
    /// Images: a folder, files, a pattern in quotes, or a list; `-` reads a path from each line of stdin
    #[arg(value_name = "IMAGES", required_unless_present = "watch", conflicts_with = "watch")]
    pub images: Vec<String>,
    /// The bank that the images are compared with, see `musc-run bank`
    #[arg(long, value_name = "FILE")]
    pub bank: PathBuf,
    /// Answer every image that appears in a folder or its sub-folders, until Ctrl-C
    #[arg(long, value_name = "DIR", help_heading = "Watching")]
    pub watch: Option<PathBuf>,
    /// With --watch: the images that are there already, too
    #[arg(long, requires = "watch", help_heading = "Watching")]
    pub existing: bool,
    /// With --watch: a file is taken as finished when it has not changed for so long
    #[arg(long, value_name = "SECONDS", requires = "watch", value_parser = parse_seconds, default_value = "0.5",
          help_heading = "Watching")]
    pub settle: f64,
    /// Let the bank slide: the last M images that are OK are what the next one is compared with. The threshold stays
    #[arg(long, value_name = "M", help_heading = "Method")]
    pub keep: Option<usize>,
    /// With --keep: write the bank as it is at the end
    #[arg(long, value_name = "FILE", requires = "keep", help_heading = "Output")]
    pub bank_out: Option<PathBuf>,
    /// Replace the file of --bank-out if it is there
    #[arg(long, requires = "bank_out", help_heading = "Output")]
    pub overwrite: bool,
    /// Another threshold than the bank's: gap[:SIGMAS], shortest-half[:SIGMAS], quantile:Q or share:P of the bank's raw scores, or a number
    #[arg(long, value_name = "RULE", value_parser = parse_decision, allow_hyphen_values = true, help_heading = "Method")]
    pub decide: Option<DecisionRule>,
    /// End with exit code 4 when an image is NG
    #[arg(long, help_heading = "Method")]
    pub fail_on_ng: bool,
    #[command(flatten)]
    pub looked_at: LookedAtArgs,
    #[command(flatten)]
    pub weights: BankWeightsArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}
