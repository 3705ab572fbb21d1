//! The one way to watch a long operation and to stop it, from decoding to writing.

use std::fmt;

use crate::{Error, Result};

/// A part of the job that takes long enough to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Opening every file only to see that it can be read.
    Checking,
    /// Decoding and resizing images.
    Reading,
    /// Images through the backbone. Files are read beside it, in place of [`Reading`](Self::Reading), but where bad ones are to be
    /// skipped or tokens are kept.
    Features,
    /// Pairs of images compared, for each feature layer.
    Scoring,
    /// Maps' largest values, and RsCIN.
    Rescoring,
    /// Figures from labels and masks.
    Figures,
    /// Heat maps, overlays, the contact sheet, maps as numbers.
    Pictures,
    /// A weight file from the network.
    Download,
    /// A card's kernels loaded, and compiled by its driver where they are not in its cache.
    Kernels,
}

impl Stage {
    /// The stage's name in one lower-case word.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Checking => "checking",
            Stage::Reading => "reading",
            Stage::Features => "features",
            Stage::Scoring => "scoring",
            Stage::Rescoring => "rescoring",
            Stage::Figures => "figures",
            Stage::Pictures => "pictures",
            Stage::Download => "download",
            Stage::Kernels => "kernels",
        }
    }

    /// What its steps are.
    pub fn unit(self) -> &'static str {
        match self {
            Stage::Scoring => "pairs",
            Stage::Download => "bytes",
            Stage::Kernels => "files",
            _ => "images",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Is told how a long operation goes, and may stop it. Called from many threads at once.
///
/// One stage is under way at a time: [`begin`](Self::begin), any number of [`advance`](Self::advance), and
/// [`end`](Self::end) unless the operation fails. The same stage may come again, once a subset of images.
pub trait Progress: Sync {
    /// A stage of `steps` steps begins; 0 where their number is not known or does not matter.
    fn begin(&self, stage: Stage, steps: u64) {
        let _ = (stage, steps);
    }

    /// `steps` more of the stage's steps are done.
    fn advance(&self, steps: u64) {
        let _ = steps;
    }

    /// The stage is done.
    fn end(&self) {}

    /// True when the operation should end with [`Error::Interrupted`]. Asked often: it should be cheap.
    fn stopped(&self) -> bool {
        false
    }
}

/// Watches nothing and stops nothing.
impl Progress for () {}

impl<P: Progress + ?Sized> Progress for &P {
    fn begin(&self, stage: Stage, steps: u64) {
        (**self).begin(stage, steps);
    }
    fn advance(&self, steps: u64) {
        (**self).advance(steps);
    }
    fn end(&self) {
        (**self).end();
    }
    fn stopped(&self) -> bool {
        (**self).stopped()
    }
}

/// Ends an operation that should stop.
///
/// # Errors
/// [`Error::Interrupted`] when `progress` says so.
pub fn go_on(progress: &dyn Progress) -> Result<()> {
    if progress.stopped() { Err(Error::Interrupted) } else { Ok(()) }
}
