//! The default weights, inside the program, or library, where they lay beside it when it was built. Of the programs, and of the
//! C and Python libraries in `bindings`.

use musc::inspect::Weights;

/// The backbone of the default weights.
pub const BUILT_IN_BACKBONE: &str = "dinov2_vits14";

/// What stands for the default weights in messages and records.
pub const BUILT_IN: &str = "built-in";

/// Puts bytes at the start of a cache line, which `include_bytes` alone does not promise.
#[cfg(built_in)]
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

#[cfg(built_in)]
static WEIGHTS: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../weights/dinov2_vits14.safetensors"));

/// The default weights, DINOv2 ViT-S/14 in f16, as a safetensors file: 44 MB that are read from the program's file as they
/// are used. See `weights/README.md` for where they come from. `None` in what was built without them.
#[cfg(built_in)]
pub fn built_in_weights() -> Option<&'static [u8]> {
    Some(&WEIGHTS.0)
}

/// This was built without the default weights.
#[cfg(not(built_in))]
pub fn built_in_weights() -> Option<&'static [u8]> {
    None
}

/// Where the weights of a backbone come from when no file is named: from inside for the default backbone.
pub fn weights_of(name: &str) -> Weights {
    match built_in_weights() {
        Some(bytes) if name == BUILT_IN_BACKBONE => Weights::Static { name: BUILT_IN, bytes },
        _ => Weights::Found,
    }
}
