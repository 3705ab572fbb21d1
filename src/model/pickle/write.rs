//! A state dict as a safetensors file.

use std::io::{self, Write};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::state_dict::{StateDict, StateTensor, size_of};

/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 16;
/// The header is filled up to a multiple of this, so that values are aligned.
const ALIGNMENT: usize = 8;

impl StateDict<'_> {
    /// Writes all tensors in safetensors' format: the widest types first, so that each value lies at a multiple of its size,
    /// and by name. Types stay as they are, except f64, which no backbone here needs and which becomes f32; what is not
    /// contiguous becomes so.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_safetensors(&self, writer: &mut dyn Write) -> io::Result<()> {
        let mut order: Vec<&StateTensor<'_>> = self.tensors.iter().collect();
        order.sort_by_key(|tensor| (std::cmp::Reverse(size_of(tensor.written())), tensor.name));
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({ "format": "pt" }));
        let mut end = 0;
        for tensor in &order {
            let start = end;
            end += tensor.elements() * size_of(tensor.written());
            let dtype = tensor.written().to_string();
            let info: Value =
                json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
            header.insert(tensor.name.to_owned(), info);
        }
        let mut text = serde_json::to_vec(&header)?;
        text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
        writer.write_all(&(text.len() as u64).to_le_bytes())?;
        writer.write_all(&text)?;
        order.iter().try_for_each(|tensor| tensor.write(writer))
    }

    /// Number of tensors whose values are rounded from f64 to f32 when they are written.
    pub fn rounded(&self) -> usize {
        self.tensors.iter().filter(|tensor| tensor.dtype == Dtype::F64).count()
    }
}

impl StateTensor<'_> {
    /// The type in the file that is written.
    fn written(&self) -> Dtype {
        if self.dtype == Dtype::F64 { Dtype::F32 } else { self.dtype }
    }

    /// True when the values lie in row-major order without gaps.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == expected;
            expected *= side;
            fits
        })
    }

    /// The values in row-major order.
    fn write(&self, writer: &mut dyn Write) -> io::Result<()> {
        let (size, elements) = (size_of(self.dtype), self.elements());
        // The views were checked when they were made; should one reach outside all the same, that is an error.
        let outside = || io::Error::new(io::ErrorKind::InvalidData, "a tensor outside its storage");
        if elements == 0 {
            return Ok(());
        }
        if self.is_contiguous() && self.dtype != Dtype::F64 {
            return writer.write_all(self.bytes.get(..elements * size).ok_or_else(outside)?);
        }
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut index = vec![0usize; self.shape.len()];
        let mut position = 0usize;
        for _ in 0..elements {
            let start = position * size;
            let value = self.bytes.get(start..start + size).ok_or_else(outside)?;
            match (self.dtype, <[u8; 8]>::try_from(value)) {
                (Dtype::F64, Ok(value)) => {
                    chunk.extend_from_slice(&(f64::from_le_bytes(value) as f32).to_le_bytes());
                }
                _ => chunk.extend_from_slice(value),
            }
            if chunk.len() + 8 > CHUNK {
                writer.write_all(&chunk)?;
                chunk.clear();
            }
            let sides = self.shape.iter().zip(&self.strides);
            for (at, (&side, &stride)) in index.iter_mut().zip(sides).rev() {
                *at += 1;
                // The stride of a dimension of length 1 means nothing and may be anything, hence modulo the word's size.
                position = position.wrapping_add(stride);
                if *at < side {
                    break;
                }
                // Back to this dimension's start.
                position = position.wrapping_sub(stride.wrapping_mul(side));
                *at = 0;
            }
        }
        writer.write_all(&chunk)
    }
}
