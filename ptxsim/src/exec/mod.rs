//! Running: a block's warps, instruction by instruction.

pub(crate) mod block;
mod builtin;
mod call;
mod collective;
mod cost;
mod mem;
mod mma;
mod printf;
mod run;
mod truncated;
mod warp;
