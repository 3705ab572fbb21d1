//! Tensors to safetensors files, straight from where they lie.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use super::halves::Halves;
use super::header::printable;
use crate::atomic::write_file;
use crate::{Error, Result};

/// Values converted to bytes at a time.
const CHUNK: usize = 1 << 14;

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Tensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its values, row-major.
    pub data: Data<'a>,
}

/// The values of a tensor, in its number type.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Data<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
    /// Bytes.
    U8(&'a [u8]),
    /// 64-bit integers.
    U64(&'a [u64]),
    /// Half precision.
    F16(&'a [half::f16]),
    /// The upper half of single precision.
    Bf16(&'a [half::bf16]),
}

impl<'a> Tensor<'a> {
    /// A tensor of f32.
    pub const fn f32(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> Self {
        Tensor { name, shape, data: Data::F32(data) }
    }

    /// A tensor of f64.
    pub const fn f64(name: &'a str, shape: &'a [usize], data: &'a [f64]) -> Self {
        Tensor { name, shape, data: Data::F64(data) }
    }

    /// A tensor of bytes.
    pub const fn u8(name: &'a str, shape: &'a [usize], data: &'a [u8]) -> Self {
        Tensor { name, shape, data: Data::U8(data) }
    }

    /// A tensor of 16-bit numbers.
    pub fn halves(name: &'a str, shape: &'a [usize], data: &'a Halves) -> Self {
        let data = match data {
            Halves::F16(values) => Data::F16(values),
            Halves::Bf16(values) => Data::Bf16(values),
        };
        Tensor { name, shape, data }
    }

    /// A tensor of 64-bit integers.
    pub const fn u64(name: &'a str, shape: &'a [usize], data: &'a [u64]) -> Self {
        Tensor { name, shape, data: Data::U64(data) }
    }
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::F64(values) => values.len(),
            Data::U8(values) => values.len(),
            Data::U64(values) => values.len(),
            Data::F16(values) => values.len(),
            Data::Bf16(values) => values.len(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Data::F32(_) => Kind::F32,
            Data::F64(_) => Kind::F64,
            Data::U8(_) => Kind::U8,
            Data::U64(_) => Kind::U64,
            Data::F16(_) => Kind::F16,
            Data::Bf16(_) => Kind::Bf16,
        }
    }
}

/// A number type, by its name in the head.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    F32,
    F64,
    U8,
    U64,
    F16,
    Bf16,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::F32 => "F32",
            Kind::F64 => "F64",
            Kind::U8 => "U8",
            Kind::U64 => "U64",
            Kind::F16 => "F16",
            Kind::Bf16 => "BF16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::U8 => 1,
            Kind::U64 | Kind::F64 => 8,
            Kind::F16 | Kind::Bf16 => 2,
        }
    }
}

/// Writes tensors to one file, with pairs of metadata: those of the widest values first, so that all lie aligned, otherwise in
/// the order given. The file is written aside and renamed when it is complete.
///
/// # Errors
/// [`Error::Tensor`] when a shape does not fit its data or a name is given twice; [`Error::Io`] with the path.
pub fn write_tensors(
    path: &Path,
    tensors: &[Tensor<'_>],
    metadata: &[(&str, String)],
) -> Result<()> {
    let mut sorted: Vec<&Tensor<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| std::cmp::Reverse(tensor.data.kind().bytes()));
    let mut entries: Vec<(&str, Kind, &[usize])> = Vec::with_capacity(tensors.len());
    for tensor in &sorted {
        let wrong = |found: String, expected: String| Error::Tensor {
            file: path.display().to_string(),
            tensor: printable(tensor.name),
            found,
            expected,
        };
        if elements(tensor.shape) != Some(tensor.data.len()) {
            let found = format!("{} values", tensor.data.len());
            return Err(wrong(found, format!("shape {:?}", tensor.shape)));
        }
        if entries.iter().any(|(name, ..)| *name == tensor.name) {
            return Err(wrong("a second tensor of that name".into(), "one".into()));
        }
        entries.push((tensor.name, tensor.data.kind(), tensor.shape));
    }
    let head = head(&entries, metadata).map_err(Error::io("write", path))?;
    write_file(path, |writer| {
        writer.write_all(&head)?;
        sorted.iter().try_for_each(|tensor| write_values(writer, tensor.data))
    })
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// The file's head: its JSON's length (8 bytes, little endian) and the JSON, padded with blanks to a multiple of 8 so that
/// the values behind it are aligned.
pub(crate) fn head(
    tensors: &[(&str, Kind, &[usize])],
    metadata: &[(&str, String)],
) -> io::Result<Vec<u8>> {
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        let pairs: BTreeMap<&str, &str> =
            metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
        entries.insert(String::from("__metadata__"), serde_json::json!(pairs));
    }
    let mut offset = 0usize;
    for (name, kind, shape) in tensors {
        let end = elements(shape)
            .and_then(|count| count.checked_mul(kind.bytes()))
            .and_then(|bytes| bytes.checked_add(offset))
            .ok_or_else(|| io::Error::other(format!("tensor `{name}` is too large")))?;
        let entry = serde_json::json!({
            "dtype": kind.name(), "shape": shape, "data_offsets": [offset, end]
        });
        entries.insert((*name).to_string(), entry);
        offset = end;
    }
    let mut json = serde_json::to_vec(&entries)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

/// Writes a tensor's values, little endian.
pub(crate) fn write_values(writer: &mut dyn Write, values: Data<'_>) -> io::Result<()> {
    match values {
        Data::F32(values) => write_chunks(writer, values, |value| value.to_le_bytes()),
        Data::F64(values) => write_chunks(writer, values, |value| value.to_le_bytes()),
        Data::U8(values) => writer.write_all(values),
        Data::U64(values) => write_chunks(writer, values, |value| value.to_le_bytes()),
        Data::F16(values) => write_chunks(writer, values, |value| value.to_le_bytes()),
        Data::Bf16(values) => write_chunks(writer, values, |value| value.to_le_bytes()),
    }
}

fn write_chunks<T: Copy, const B: usize>(
    writer: &mut dyn Write,
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; B],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(B * CHUNK.min(values.len()));
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|&value| to_bytes(value)));
        writer.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors};

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("t.safetensors");
        let long: Vec<f32> = (0..2 * CHUNK + 3).map(|i| i as f32 / 7.0).collect();
        let size = [long.len()];
        let halves = Halves::round(&[1.0, -65504.0, 6e-8]);
        let brain = Halves::round(&[65536.0]);
        let tensors = [
            Tensor::u8("marks", &[3], &[1, 0, 255]),
            Tensor::f32("a\"quoted", &[3, 1], &[1.0, f32::NAN, -0.0]),
            Tensor::f32("empty", &[0, 5], &[]),
            Tensor::f32("scalar", &[], &[7.5]),
            Tensor::u64("hashes", &[2], &[1, u64::MAX - 1]),
            Tensor::f64("wide", &[2], &[0.1, f64::MIN_POSITIVE]),
            Tensor::halves("half", &[3], &halves),
            Tensor::halves("brain", &[1], &brain),
            Tensor::f32("long", &size, &long),
        ];
        write_tensors(&path, &tensors, &[("size", String::from("98"))]).expect("write");
        let bytes = std::fs::read(&path).expect("read");
        let (length, metadata) = SafeTensors::read_metadata(&bytes).expect("header");
        assert_eq!((8 + length) % 8, 0);
        assert_eq!(metadata.metadata().as_ref().expect("metadata")["size"], "98");
        // Odd numbers of bytes come last: everything lies aligned.
        for (name, info) in metadata.tensors() {
            let width = info.dtype.bitsize() / 8;
            assert_eq!(info.data_offsets.0 % width, 0, "{name}");
        }
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        for tensor in tensors {
            let read = file.tensor(tensor.name).expect(tensor.name);
            assert_eq!(read.shape(), tensor.shape);
            match tensor.data {
                Data::F32(data) => {
                    assert_eq!(read.dtype(), Dtype::F32);
                    let bits =
                        |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&floats(read.data())), bits(data), "{}", tensor.name);
                }
                Data::F64(data) => {
                    assert_eq!(read.dtype(), Dtype::F64);
                    let bytes = data.iter().flat_map(|value| value.to_le_bytes());
                    assert!(bytes.eq(read.data().iter().copied()));
                }
                Data::U8(data) => assert_eq!((read.dtype(), read.data()), (Dtype::U8, data)),
                Data::F16(data) => {
                    assert_eq!(read.dtype(), Dtype::F16);
                    assert_eq!(read.data(), bytemuck::cast_slice::<_, u8>(data));
                }
                Data::Bf16(data) => {
                    assert_eq!(read.dtype(), Dtype::BF16);
                    assert_eq!(read.data(), bytemuck::cast_slice::<_, u8>(data));
                }
                Data::U64(data) => {
                    assert_eq!(read.dtype(), Dtype::U64);
                    let (words, _) = read.data().as_chunks::<8>();
                    assert!(words.iter().map(|word| u64::from_le_bytes(*word)).eq(data.to_vec()));
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let path = Path::new("never.safetensors");
        let said = |tensors: &[Tensor<'_>]| {
            write_tensors(path, tensors, &[]).expect_err("refused").to_string()
        };
        assert!(said(&[Tensor::f32("t", &[2, 2], &[0.0; 3])]).contains("`t`"));
        assert!(said(&[Tensor::u8("t", &[2, 2], &[0; 5])]).contains("5 values"));
        let one = Tensor::f32("t", &[1], &[0.0]);
        assert!(said(&[one, Tensor::u64("t", &[1], &[0])]).contains("second tensor"));
        assert!(said(&[Tensor::f32("t", &[usize::MAX, 2], &[])]).contains("0 values"));
        assert!(!path.exists());
    }
}
