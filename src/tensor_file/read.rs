//! Named tensors of any number type in, f32, f64 and marks out.
//!
//! Tensors are read one at a time, straight from the file, so that a large file is never in memory twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

#[cfg(feature = "files")]
use super::halves::Halves;
use super::header::{Header, HeaderFault, header, printable};
use crate::{Error, Result};

/// Bytes read at a time; a multiple of every element's size.
const CHUNK_BYTES: usize = 1 << 20;

/// An open file of tensors.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where the data begin.
    data: u64,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

/// A tensor's values and its shape, outermost dimension first.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Values<T> {
    /// Sizes.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<T>,
}

impl<T> Values<T> {
    /// Values of this shape, which is not compared with their number.
    pub fn new(shape: Vec<usize>, data: Vec<T>) -> Self {
        Values { shape, data }
    }
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Dataset`] when it is not a safetensors file, is cut short, or its header
    /// contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let Header { data, tensors, metadata } =
            header(&mut file, size).map_err(|fault| match fault {
                HeaderFault::Read(source) => Error::io("read", path)(source),
                HeaderFault::Content(reason) => Error::Dataset { path: path.to_path_buf(), reason },
            })?;
        Ok(TensorFile { path: path.to_path_buf(), file, data: data as u64, tensors, metadata })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file's metadata say under a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// True when the file holds a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// True when the file holds a tensor of this name in double precision.
    #[cfg(feature = "files")]
    pub fn is_f64(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|info| info.dtype == Dtype::F64)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor as f32. `dims` names the dimensions wanted, for the message if there is another number of them.
    ///
    /// # Errors
    /// [`Error::Tensor`] when there is no such tensor, or one of another number of dimensions, or not of numbers;
    /// [`Error::Io`] when the file cannot be read.
    pub fn f32(&mut self, name: &str, dims: &[&str]) -> Result<Values<f32>> {
        self.numbers(name, dims, |value| value as f32)
    }

    /// A tensor as f64.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn f64(&mut self, name: &str, dims: &[&str]) -> Result<Values<f64>> {
        self.numbers(name, dims, |value| value)
    }

    /// A tensor as marks: 1 where it is not 0.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn marks(&mut self, name: &str, dims: &[&str]) -> Result<Values<u8>> {
        self.numbers(name, dims, |value| u8::from(value != 0.0))
    }

    /// A tensor of 64-bit integers, bit for bit: a negative one of a signed tensor comes as the unsigned one of its bits.
    ///
    /// # Errors
    /// As [`Self::f32`], and when it is of another type than I64 or U64.
    pub fn u64(&mut self, name: &str, dims: &[&str]) -> Result<Values<u64>> {
        let integer: fn(&[u8]) -> u64 =
            |bytes| bytes.try_into().map_or(u64::MAX, u64::from_le_bytes);
        self.read(name, dims, "64-bit integers", |dtype| {
            matches!(dtype, Dtype::I64 | Dtype::U64).then_some((size_of::<u64>(), integer))
        })
    }

    /// A tensor of 16-bit numbers, as they lie in the file.
    ///
    /// # Errors
    /// As [`Self::f32`], and when it is of another type than F16 or BF16.
    #[cfg(feature = "files")]
    pub fn halves(&mut self, name: &str, dims: &[&str]) -> Result<(Vec<usize>, Halves)> {
        let bits = |bytes: &[u8]| bytes.try_into().map_or(u16::MAX, u16::from_le_bytes);
        let what = "16-bit numbers";
        if self.tensors.get(name).is_some_and(|info| info.dtype == Dtype::BF16) {
            let values = self.read(name, dims, what, |_| {
                Some((2, move |bytes: &[u8]| half::bf16::from_bits(bits(bytes))))
            })?;
            return Ok((values.shape, Halves::Bf16(values.data)));
        }
        let values = self.read(name, dims, what, |dtype| {
            let decode = move |bytes: &[u8]| half::f16::from_bits(bits(bytes));
            (dtype == Dtype::F16).then_some((2, decode))
        })?;
        Ok((values.shape, Halves::F16(values.data)))
    }

    /// A tensor of bytes, as they lie in the file.
    ///
    /// # Errors
    /// As [`Self::f32`], and when it is of another type than U8.
    #[cfg(feature = "files")]
    pub fn bytes(&mut self, name: &str, dims: &[&str]) -> Result<Values<u8>> {
        let byte: fn(&[u8]) -> u8 = |bytes| bytes.first().copied().unwrap_or(0);
        self.read(name, dims, "bytes", |dtype| (dtype == Dtype::U8).then_some((1, byte)))
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
            tensor: printable(name),
            found: found.into(),
            expected: expected.into(),
        }
    }

    fn numbers<T>(
        &mut self,
        name: &str,
        dims: &[&str],
        convert: fn(f64) -> T,
    ) -> Result<Values<T>> {
        self.read(name, dims, "numbers", |dtype| {
            let (width, decode) = decoder(dtype)?;
            Some((width, move |bytes: &[u8]| convert(decode(bytes))))
        })
    }

    fn read<T, D: Fn(&[u8]) -> T>(
        &mut self,
        name: &str,
        dims: &[&str],
        what: &str,
        decoder: impl FnOnce(Dtype) -> Option<(usize, D)>,
    ) -> Result<Values<T>> {
        let wanted = format!("{what} of shape [{}]", dims.join(","));
        let Some(info) = self.tensors.get(name).cloned() else {
            let there: Vec<&str> = self.names().collect();
            let found = format!("no such tensor (there are: {})", printable(&there.join(", ")));
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
            data.extend(part.chunks_exact(width).map(&decode));
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
