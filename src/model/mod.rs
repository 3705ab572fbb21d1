//! Backbones: which there are, and their weights.
//!
//! Owns the way from a weight file of any accepted naming to one canonical [`Vit`], checked from end to end.
//! A weight file is hostile input: sizes, names, shapes, types and values are all looked at before a backend
//! sees them. Knows nothing of images, devices or scores.

#[cfg(feature = "cli")]
mod embedded;
mod load;
mod position;
mod registry;
mod scheme;
mod tensor;
mod vit;
mod weight_file;

#[cfg(feature = "cli")]
pub use embedded::{EMBEDDED_BACKBONE, embedded_weights};
pub use position::position_embedding;
pub use registry::{Activation, BACKBONES, Backbone, Family, backbone};
pub use scheme::Scheme;
pub use tensor::{Dtype, Tensor};
pub use vit::{Architecture, Block, LayerNorm, Linear, Vit};
pub use weight_file::{MAX_HEADER_BYTES, WeightFile};
