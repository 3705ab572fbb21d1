//! The CUDA backend on the simulator: the same code as on a card, with every access checked.
#![cfg(feature = "sim")]

mod exact;
mod goldens;
mod real;
mod refused;
mod support;
