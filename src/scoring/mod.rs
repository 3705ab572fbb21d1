//! scoring.

pub mod rscin;
pub mod upsample;
