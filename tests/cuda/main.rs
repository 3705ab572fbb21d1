//! The CUDA backend on the simulator: the same code as on a card, with every access checked.
#![cfg(feature = "sim")]

mod exact;
mod goldens;
#[path = "../common/random_features.rs"]
mod random_features;
mod real;
mod refused;
mod support;
