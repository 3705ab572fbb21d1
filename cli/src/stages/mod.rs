//! The steps of the method on their own, from file to file.

mod extract;
mod metrics;
pub(crate) mod rscin;
mod score;

use std::path::Path;

pub use extract::extract;
pub use metrics::metrics;
use musc::Result;
pub use rscin::rscin;
pub use score::score;

use crate::run::config::MachineConfig;
use crate::shell::out;
use crate::shell::voice::{Voice, warn};

/// Says where the result is: a sentence on stderr, or a document on stdout.
fn report(machine: &MachineConfig, output: &Path, what: &[(String, Vec<usize>)]) -> Result<()> {
    if machine.json {
        let tensors: serde_json::Map<String, serde_json::Value> =
            what.iter().map(|(name, shape)| (name.clone(), serde_json::json!(shape))).collect();
        return out::print_json(
            &serde_json::json!({ "output": output.display().to_string(), "tensors": tensors }),
        );
    }
    Voice::new(machine.quiet).say(&format!("wrote {}", output.display()));
    Ok(())
}

/// Notes that some k is larger than the number of images.
fn note_large_k(k: &[usize], images: usize) {
    if let Some(large) = k.iter().find(|&&k| k > images) {
        warn(&format!(
            "note: k = {large} is more than the {images} images there are and counts as {images}"
        ));
    }
}
