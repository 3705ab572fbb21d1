//! The program `musc-run` as its users meet it: arguments in, files and exit code out.
#![cfg(feature = "cli")]

mod bad_input;
mod runs;
mod sets;
mod stages;
mod support;
mod weights;
