//! Pickled weights and features, as PyTorch and NumPy wrote them, and what is refused.
#![cfg(feature = "files")]

mod archive;
mod class_features;
mod support;
mod torch;
