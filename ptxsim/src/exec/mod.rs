//! Running: a block's warps, instruction by instruction.

pub(crate) mod block;
mod collective;
mod cost;
mod mem;
mod mma;
mod run;
mod truncated;
mod warp;
