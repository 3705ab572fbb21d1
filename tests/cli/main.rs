//! The programs `musc-run` and `musc-bench` as their users meet them: arguments in, files and exit code out.
#![cfg(feature = "cli")]

mod bad_input;
mod bench;
mod runs;
mod sets;
mod stages;
mod support;
mod weights;
