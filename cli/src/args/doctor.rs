//! The words of `musc-run doctor`.

use clap::Args;

#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Device to look at: cpu, auto, cuda[:0,1…], sim, or a card's number [default: auto]
    #[arg(long)]
    pub device: Option<String>,
    /// Print one JSON document on stdout in place of text
    #[arg(long)]
    pub json: bool,
}
