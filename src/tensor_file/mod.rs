//! Named tensors in files: one rule for the head of a safetensors file, reading, writing, and features.
//!
//! A file is eight bytes, the length of its JSON head (little endian), the head, and the values of the tensors. Nothing of the
//! head is believed before it is checked against the file's length. Knows nothing of models, images or devices.

mod features;
mod header;
mod read;
#[cfg(feature = "files")]
mod write;

pub use features::read_features;
#[cfg(feature = "files")]
pub use features::write_features;
pub use header::MAX_HEADER_BYTES;
#[expect(unused_imports, reason = "for weight files, which read the same head")]
pub(crate) use header::{HeaderFault, header, printable};
pub use read::{TensorFile, Values};
#[cfg(feature = "files")]
pub use write::{Data, Tensor, write_tensors};
#[cfg(feature = "files")]
pub(crate) use write::{Kind, head, write_values};
