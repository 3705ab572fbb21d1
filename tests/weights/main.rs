//! Weight files: every naming scheme, every type of value, and what is wrong with those that are refused.

#[path = "../common/compare.rs"]
mod compare;
mod hostile;
mod refused;
mod schemes;
mod support;
