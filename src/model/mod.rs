//! Backbones: which there are, and their weights.
//!
//! Owns the way from a weight file of any accepted naming to one canonical [`Vit`], checked from end to end.
//! A weight file is hostile input: sizes, names, shapes, types and values are all looked at before a backend
//! sees them. Knows nothing of images, devices or scores.

#[cfg(feature = "hub")]
pub mod hub;
mod hub_cache;
mod load;
pub mod locate;
#[cfg(feature = "files")]
pub mod pickle;
mod position;
mod published;
mod registry;
mod scheme;
#[cfg(any(feature = "files", feature = "hub"))]
mod sha256;
mod tensor;
mod vit;
mod weight_file;

pub use crate::tensor_file::MAX_HEADER_BYTES;
pub use hub_cache::HubCache;
pub use position::{position_embedding, token_embedding};
pub use published::{PUBLISHED, Published};
pub use registry::{Activation, BACKBONES, Backbone, Family, backbone, default_activation};
pub use scheme::Scheme;
#[cfg(feature = "files")]
pub(crate) use sha256::sha256_of_parts;
#[cfg(any(feature = "files", feature = "hub"))]
pub use sha256::{sha256_of_bytes, sha256_of_file};
pub use tensor::{Dtype, Tensor};
pub use vit::{Architecture, Block, LayerNorm, Linear, Vit};
pub use weight_file::WeightFile;
