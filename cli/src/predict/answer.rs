//! One answer an image: a line of JSON, or of text.

use std::path::{Path, PathBuf};
use std::time::Instant;

use musc::inspect::{Bank, Batch, Predictor};
use musc::report::region_json;
use musc::tensor_file::printable;
use musc::{Error, Result};
use serde_json::{Value, json};

use crate::run::config::RegionConfig;
use crate::shell::out;
use crate::shell::voice::Voice;

/// Asks a predictor and says what it answers.
pub struct Answers<'a> {
    predictor: Predictor<'a>,
    regions: RegionConfig,
    /// A line of JSON an image, in place of text.
    lines: bool,
    failed: usize,
    defective: usize,
}

/// A file that could not be answered, and why.
pub struct Unread {
    /// Its path.
    pub path: PathBuf,
    /// The reason.
    pub reason: String,
}

impl<'a> Answers<'a> {
    /// Answers of this predictor, which looks at these regions of each image.
    pub fn new(predictor: Predictor<'a>, regions: RegionConfig, lines: bool) -> Self {
        Answers { predictor, regions, lines, failed: 0, defective: 0 }
    }

    /// Images that could not be answered so far.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Images that are NG so far.
    pub fn defective(&self) -> usize {
        self.defective
    }

    /// The bank as it is now.
    pub fn bank(&self) -> Bank {
        self.predictor.bank()
    }

    /// Answers these files in their order; those that cannot be read with an error.
    pub fn answer(&mut self, paths: &[PathBuf]) -> Result<()> {
        for Unread { path, reason } in self.try_answer(paths)? {
            self.fail(&path, &reason)?;
        }
        Ok(())
    }

    /// Answers those of the files that can be read; the others are handed back.
    pub fn try_answer(&mut self, paths: &[PathBuf]) -> Result<Vec<Unread>> {
        // Each for itself where a file is none: what a list of files refuses must not keep the others from an answer.
        let mut unread = Vec::new();
        let mut there = Vec::with_capacity(paths.len());
        for path in paths {
            match std::fs::metadata(path) {
                Ok(found) if found.is_file() => there.push(path.clone()),
                Ok(_) => unread.push(Unread { path: path.clone(), reason: "not a file".into() }),
                Err(reason) => {
                    unread.push(Unread { path: path.clone(), reason: reason.to_string() });
                }
            }
        }
        if there.is_empty() {
            return Ok(unread);
        }
        let started = Instant::now();
        let batch = Batch::files_as_given(&there)?.skip_bad(true);
        let told = self
            .regions
            .of(batch)
            .and_then(|batch| self.predictor.predict(&batch, &Voice::Quiet.teller()));
        let inspection = match told {
            Ok(inspection) => inspection,
            Err(error @ (Error::Interrupted | Error::Device { .. })) => return Err(error),
            Err(error) if there.len() == 1 => {
                let path = there.remove(0);
                unread.push(Unread { path, reason: error.to_string() });
                return Ok(unread);
            }
            // One of them does not fit: they are asked one by one.
            Err(_) => {
                for path in there {
                    unread.extend(self.try_answer(&[path])?);
                }
                return Ok(unread);
            }
        };
        let seconds = started.elapsed().as_secs_f64() / there.len() as f64;
        let threshold = self.predictor.threshold();
        for (at, sample) in inspection.samples().iter().enumerate() {
            let (score, raw) = (inspection.scores()[at], inspection.raw_scores()[at]);
            let defective = f64::from(raw) > threshold;
            self.defective += usize::from(defective);
            let decision = if defective { "NG" } else { "OK" };
            if self.lines {
                let regions =
                    if defective { inspection.regions(at, threshold)? } else { Vec::new() };
                line(&json!({
                    "path": sample.path.display().to_string(),
                    "decision": decision,
                    "score": score,
                    "raw_score": raw,
                    "threshold": threshold,
                    "regions": regions.iter().map(region_json).collect::<Vec<_>>(),
                    "seconds": seconds,
                }))?;
            } else {
                let name = printable(&sample.path.display().to_string());
                out::print(&format!("{decision}  {raw:.4}  {name}\n"))?;
            }
        }
        unread.extend(
            inspection
                .skipped()
                .iter()
                .map(|(path, reason)| Unread { path: path.clone(), reason: reason.clone() }),
        );
        Ok(unread)
    }

    /// Answers that a file could not be read.
    pub fn fail(&mut self, path: &Path, reason: &str) -> Result<()> {
        self.failed += 1;
        let path = path.display().to_string();
        if self.lines {
            return line(&json!({ "path": path, "error": reason }));
        }
        crate::shell::voice::warn(&format!("{}: {reason}", printable(&path)));
        Ok(())
    }
}

/// A line of JSON on stdout, gone before the next image is looked at. A reader that stops reading ends the work.
fn line(document: &Value) -> Result<()> {
    out::print_or_stop(&format!("{document}\n"))
}
