//! The default weights, inside the program.

/// The backbone of [`embedded_weights`].
pub const EMBEDDED_BACKBONE: &str = "dinov2_vits14";

/// Puts bytes at the start of a cache line, which `include_bytes` alone does not promise.
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

static WEIGHTS: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../weights/dinov2_vits14.safetensors"));

/// The default weights, DINOv2 ViT-S/14 in f16, as a safetensors file: 44 MB that are read from the program's
/// file as they are used. See `weights/README.md` for where they come from.
pub fn embedded_weights() -> &'static [u8] {
    &WEIGHTS.0
}
