//! The default weights, inside the extension module where they lay beside it when it was built.

use musc::inspect::Weights;

/// The backbone of the default weights.
pub const BUILT_IN_BACKBONE: &str = "dinov2_vits14";

/// Puts bytes at the start of a cache line, which `include_bytes` alone does not promise.
#[cfg(built_in)]
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

#[cfg(built_in)]
static WEIGHTS: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../../weights/dinov2_vits14.safetensors"));

/// DINOv2 ViT-S/14 in f16, as a safetensors file that is read from the module's own as it is used.
#[cfg(built_in)]
pub fn built_in_weights() -> Option<&'static [u8]> {
    Some(&WEIGHTS.0)
}

/// This module was built without the default weights.
#[cfg(not(built_in))]
pub fn built_in_weights() -> Option<&'static [u8]> {
    None
}

/// Where the weights of a backbone come from when no file is named: from inside the module for the default backbone.
pub fn weights_of(name: &str) -> Weights {
    match built_in_weights() {
        Some(bytes) if name == BUILT_IN_BACKBONE => Weights::Static { name: "built-in", bytes },
        _ => Weights::Found,
    }
}
