//! Weights from a Hub, which here is a small server of our own on this machine.

mod download;
mod server;
