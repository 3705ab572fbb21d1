//! Safetensors between the stage commands: named tensors of any number type in, f32 and f64 out.
//!
//! Tensors are read one at a time, straight from the file, so that a large file is never in memory twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::{Error, Result};

/// Largest header that is read.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Bytes read at a time; a multiple of every element's size.
const CHUNK_BYTES: usize = 1 << 20;

/// An open file of tensors.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where the data begin.
    data: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

/// A tensor's values and its shape, outermost dimension first.
#[derive(Debug, Clone, PartialEq)]
pub struct Values<T> {
    /// Sizes.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<T>,
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let bad = |reason: String| Error::Dataset { path: path.to_path_buf(), reason };
        let mut size = [0u8; 8];
        file.read_exact(&mut size)
            .map_err(|_| bad(format!("{length} bytes, too short for a safetensors file")))?;
        let header_bytes = u64::from_le_bytes(size);
        if header_bytes > MAX_HEADER_BYTES {
            return Err(bad(String::from("not a safetensors file: no header at its start")));
        }
        let mut header = vec![0u8; header_bytes as usize];
        file.read_exact(&mut header).map_err(|_| {
            bad(format!("cut short: {length} bytes, the header alone takes {}", 8 + header_bytes))
        })?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|reason| bad(format!("not a safetensors file: {reason}")))?;
        let data = 8 + header_bytes;
        let expected = data.saturating_add(metadata.data_len() as u64);
        if length != expected {
            return Err(bad(format!(
                "{length} bytes, its header describes {expected}: cut short or damaged"
            )));
        }
        let tensors =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(TensorFile { path: path.to_path_buf(), file, data, tensors })
    }

    /// True when the file holds a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor as f32. `dims` names the dimensions wanted, for the message if there is another number of them.
    pub fn f32(&mut self, name: &str, dims: &[&str]) -> Result<Values<f32>> {
        self.read(name, dims, |value| value as f32)
    }

    /// A tensor as f64.
    pub fn f64(&mut self, name: &str, dims: &[&str]) -> Result<Values<f64>> {
        self.read(name, dims, |value| value)
    }

    /// A tensor as marks: 1 where it is not 0.
    pub fn marks(&mut self, name: &str, dims: &[&str]) -> Result<Values<u8>> {
        self.read(name, dims, |value| u8::from(value != 0.0))
    }

    /// The error for a tensor of this file that is not as it should be.
    pub fn wrong(
        &self,
        name: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        Error::Tensor {
            file: self.path.display().to_string(),
            tensor: name.to_string(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    fn read<T>(
        &mut self,
        name: &str,
        dims: &[&str],
        convert: impl Fn(f64) -> T,
    ) -> Result<Values<T>> {
        let wanted = format!("numbers of shape [{}]", dims.join(","));
        let Some(info) = self.tensors.get(name).cloned() else {
            let there: Vec<&str> = self.names().collect();
            let found = format!("no such tensor (there are: {})", there.join(", "));
            return Err(self.wrong(name, found, wanted));
        };
        if info.shape.len() != dims.len() {
            return Err(self.wrong(name, format!("shape {:?}", info.shape), wanted));
        }
        let Some((width, decode)) = decoder(info.dtype) else {
            return Err(self.wrong(name, format!("type {}", info.dtype), wanted));
        };
        let (start, end) = info.data_offsets;
        let path = self.path.clone();
        self.file
            .seek(SeekFrom::Start(self.data + start as u64))
            .map_err(Error::io("read", &path))?;
        let mut reader =
            BufReader::with_capacity(CHUNK_BYTES, &self.file).take((end - start) as u64);
        let mut data = Vec::with_capacity((end - start) / width);
        let mut chunk = vec![0u8; CHUNK_BYTES.min(end - start)];
        let mut left = end - start;
        while left > 0 {
            let part = &mut chunk[..left.min(CHUNK_BYTES)];
            reader.read_exact(part).map_err(Error::io("read", &path))?;
            left -= part.len();
            data.extend(part.chunks_exact(width).map(|bytes| convert(decode(bytes))));
        }
        Ok(Values { shape: info.shape, data })
    }
}

/// An element's bytes to its value.
type Decode = fn(&[u8]) -> f64;

/// The bytes of an element, and its value. Every type here fits f64 without loss, except integers past 2^53.
fn decoder(dtype: Dtype) -> Option<(usize, Decode)> {
    macro_rules! plain {
        ($type:ty) => {
            Some((size_of::<$type>(), |bytes| {
                bytes.try_into().map(<$type>::from_le_bytes).map_or(f64::NAN, |value| value as f64)
            }))
        };
    }
    match dtype {
        Dtype::F64 => plain!(f64),
        Dtype::F32 => plain!(f32),
        Dtype::F16 => Some((2, |bytes| {
            bytes.try_into().map(half::f16::from_le_bytes).map_or(f64::NAN, f64::from)
        })),
        Dtype::BF16 => Some((2, |bytes| {
            bytes.try_into().map(half::bf16::from_le_bytes).map_or(f64::NAN, f64::from)
        })),
        Dtype::I64 => plain!(i64),
        Dtype::I32 => plain!(i32),
        Dtype::I16 => plain!(i16),
        Dtype::I8 => plain!(i8),
        Dtype::U64 => plain!(u64),
        Dtype::U32 => plain!(u32),
        Dtype::U16 => plain!(u16),
        Dtype::U8 | Dtype::BOOL => plain!(u8),
        _ => None,
    }
}
