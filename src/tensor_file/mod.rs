//! Named tensors in files: one rule for the head of a safetensors file, reading, writing.
//!
//! A file is eight bytes, the length of its JSON head (little endian), the head, and the values of the tensors. Nothing of the
//! head is believed before it is checked against the file's length. Knows nothing of models, images or devices.

#[cfg(feature = "files")]
mod halves;
mod header;
mod read;
#[cfg(feature = "files")]
mod write;

#[cfg(feature = "files")]
pub use halves::Halves;
pub(crate) use header::{Header, HeaderFault, header};
pub use header::{MAX_HEADER_BYTES, printable};
pub use read::{TensorFile, Values};
#[cfg(feature = "files")]
pub use write::{Data, Tensor, write_tensors};
#[cfg(feature = "files")]
pub(crate) use write::{Kind, head, write_values};
