//! `kernels/attention.cu`: softmax(Q·Kᵀ/8)·V for every image and head, without the T×T matrix in memory.

use super::{AttentionParams, Call, Half};
use crate::Result;
use crate::backend::cuda::buffer::{View, ViewMut};
use crate::backend::cuda::stream::Stream;

/// Threads of a block.
pub const THREADS: u32 = 128;
/// Queries a block works on.
pub const QUERIES: usize = 128;
/// Width of a head.
pub const HEAD: usize = 64;
/// The most tokens of an image, T.
pub const MAX_TOKENS: usize = 8192;

/// Attention of `images` images of `tokens` tokens in `heads` heads.
///
/// # Shapes
/// `qkv` `[N, T, 3·heads·64]`: query, key and value, each heads·64 wide; `out` `[N, T, heads·64]`.
///
/// # Errors
/// [`Error::Kernel`](crate::Error::Kernel) when a buffer is too small, or T, heads or N is out of range.
pub fn flash(
    stream: &Stream,
    half: Half,
    qkv: View<'_, u16>,
    out: ViewMut<'_, u16>,
    images: usize,
    tokens: usize,
    heads: usize,
) -> Result<()> {
    let call = Call::of_half(stream, "attention", "flash", half);
    call.require(tokens <= MAX_TOKENS, "tokens T", tokens, "at most 8192")?;
    call.require(heads <= 0xffff, "heads", heads, "at most 65535")?;
    call.require(images <= 0xffff, "images N", images, "at most 65535")?;
    let values = images * tokens * heads * HEAD;
    let params = AttentionParams {
        qkv: call.input_wide("qkv", qkv, 3 * values)?,
        out: call.output_wide("out", &out, values)?,
        images: call.count("images N", images)?,
        tokens: call.count("tokens T", tokens)?,
        heads: call.count("heads", heads)?,
        scale_log2: std::f32::consts::LOG2_E / (HEAD as f32).sqrt(),
    };
    let grid = [tokens.div_ceil(QUERIES) as u32, params.heads, params.images];
    // SAFETY: lengths were checked against [N, T, 3·heads·64] and [N, T, heads·64]; the launch is the header's.
    unsafe { call.launch(grid, THREADS, 0, &params) }
}
