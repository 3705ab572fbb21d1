//! The memories of the device, each with its shadow.

pub(crate) mod global;
pub(crate) mod local;
pub(crate) mod shared;
pub(crate) mod tags;
