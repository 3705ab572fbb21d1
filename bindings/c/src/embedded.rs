//! The default weights, inside the library where they lay in the repository when it was built.

use musc::inspect::Weights;

/// The backbone of the default weights, which is taken where none is named.
pub const BUILT_IN_BACKBONE: &str = "dinov2_vits14";

/// What stands for the default weights in messages.
#[cfg(built_in)]
const BUILT_IN: &str = "built-in";

/// Puts bytes at the start of a cache line, which `include_bytes` alone does not promise.
#[cfg(built_in)]
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

#[cfg(built_in)]
static WEIGHTS: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../../weights/dinov2_vits14.safetensors"));

/// Whether the default weights are part of the library.
pub const fn has_weights() -> bool {
    cfg!(built_in)
}

/// Where the weights of a backbone come from when no file is named: from inside the library for the default backbone.
#[cfg(built_in)]
pub fn weights_of(name: &str) -> Weights {
    match name {
        BUILT_IN_BACKBONE => Weights::Static { name: BUILT_IN, bytes: &WEIGHTS.0 },
        _ => Weights::Found,
    }
}

/// Where the weights of a backbone come from when no file is named: this library was built without any.
#[cfg(not(built_in))]
pub fn weights_of(_: &str) -> Weights {
    Weights::Found
}
