//! The CUDA backend on the simulator: the same code as on a card, with every access checked.
#![cfg(feature = "sim")]

mod by_the_driver;
#[path = "../common/compare.rs"]
mod compare;
#[cfg(target_os = "linux")]
#[path = "../common/driver.rs"]
mod driver;
mod duplicates;
mod exact;
mod goldens;
#[path = "../common/mma_sums.rs"]
mod mma_sums;
#[path = "../common/random_features.rs"]
mod random_features;
mod real;
mod refused;
#[path = "../common/stages.rs"]
mod stages;
mod support;
