//! The words of `musc-run weights`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const DOWNLOAD_HELP: &str = "\
A download that was cut off goes on where it ended; what came is compared with the published SHA-256. Variables: HF_HOME,
HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE and XDG_CACHE_HOME (the cache), HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE=1 (no
network), HTTPS_PROXY, SSL_CERT_FILE (certificates of authorities to trust, PEM).";

/// What can be done with weights.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum WeightsCommand {
    /// Every backbone, where its weights are published, and whether they are on this machine
    List(WeightsListArgs),
    /// The file that a run would use for a backbone
    Path(WeightsNameArgs),
    /// Read weights from end to end and say what they are
    Verify(WeightsVerifyArgs),
    /// Get a backbone's weights from the Hugging Face Hub into its cache, where runs find them
    #[command(after_help = DOWNLOAD_HELP)]
    Download(WeightsNameArgs),
    /// Make safetensors of a PyTorch file (.pth, .pt, .bin), with nothing in it executed
    Convert(WeightsConvertArgs),
}

/// How a command speaks.
#[derive(Debug, Clone, Copy, Args)]
pub struct MessageArgs {
    /// No progress on stderr
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON document on stdout in place of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct WeightsListArgs {
    #[command(flatten)]
    pub messages: MessageArgs,
}

#[derive(Debug, Clone, Args)]
pub struct WeightsNameArgs {
    /// Backbone
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The weights' training set: openai, laion400m_e31 or laion400m_e32 [default: openai]
    #[arg(long, value_name = "TAG")]
    pub pretrained: Option<String>,
    #[command(flatten)]
    pub messages: MessageArgs,
}

#[derive(Debug, Clone, Args)]
pub struct WeightsVerifyArgs {
    /// A safetensors file, or a backbone whose file a run would use
    #[arg(value_name = "FILE|NAME")]
    pub weights: String,
    /// With a backbone: the weights' training set [default: openai]
    #[arg(long, value_name = "TAG")]
    pub pretrained: Option<String>,
    #[command(flatten)]
    pub messages: MessageArgs,
}

#[derive(Debug, Clone, Args)]
pub struct WeightsConvertArgs {
    /// PyTorch file: a state dict, or a dict with one in it
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Result: safetensors
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Where in the file the state dict is, such as teacher or model.state_dict [default: the only one, or the one for use
    /// by its name]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Replace the result if it is there
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub messages: MessageArgs,
}
