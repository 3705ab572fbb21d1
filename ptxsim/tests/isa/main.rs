//! Every instruction class against values worked out by hand or by the rules of the PTX manual.

mod harness;

mod async_copy;
mod atomic;
mod compare;
mod control;
mod convert;
mod directed;
mod float;
mod half;
mod int;
mod matrix;
mod memory;
mod moves;
mod truncated;
mod warp;
