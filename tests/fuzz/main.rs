//! Damaged files by the thousand, of weights, images, lists, tables and PTX: none ends the program, and none makes it take more memory than a bound that is
//! proportional to the file.
//!
//! Mutations come from a seeded generator, so that a failure can be met again. `MUSC_FUZZ_SECONDS=600 cargo test --test fuzz --
//! --nocapture --test-threads 1 NAME` goes on for so long, from a seed of its own that it prints; `MUSC_FUZZ_SEED` sets it.
#![cfg(feature = "files")]

mod banks;
mod images;
mod memory;
mod mutate;
mod rounds;
mod targets;
mod texts;
