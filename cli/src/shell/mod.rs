//! What both programs share of a program: how it speaks, how it ends, and how it is stopped.

mod exit;
pub mod interrupt;
pub mod memory;
pub mod options;
pub mod out;
pub mod voice;

pub use exit::{Stop, exit_code, last_words, parse};
pub use options::renamed;
