//! A tensor of weights: a shape and bytes that are shared, mapped or owned.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;

/// Elements that one thread converts or looks at before it takes the next: 128 KiB of f16, an L2 cache's share.
const CHUNK: usize = 1 << 16;
/// Elements converted at a time: small enough for the stack and the L1 cache.
const STEP: usize = 1 << 10;

/// The types weights may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an [`Dtype::F32`].
    Bf16,
}

impl Dtype {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }
}

/// Where bytes live. Tensors of a file share one of these.
pub(super) enum Storage {
    /// A file mapped read-only.
    Mapped(Mmap),
    /// Bytes inside the program.
    Static(&'static [u8]),
    /// Made in memory: stacked or transposed.
    Owned(Vec<u8>),
}

impl Storage {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Storage::Mapped(map) => map,
            Storage::Static(bytes) => bytes,
            Storage::Owned(bytes) => bytes,
        }
    }
}

/// A tensor in row-major order whose bytes are shared: cloning copies no value.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    dtype: Dtype,
    storage: Arc<Storage>,
    range: Range<usize>,
}

impl Tensor {
    /// A part of some storage. `None` unless the range lies inside it and has the size that the shape says.
    pub(super) fn new(
        shape: Vec<usize>,
        dtype: Dtype,
        storage: Arc<Storage>,
        range: Range<usize>,
    ) -> Option<Self> {
        let elements = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side))?;
        let bytes = elements.checked_mul(dtype.size())?;
        let part = storage.bytes().get(range.clone())?;
        (part.len() == bytes).then_some(Self { shape, dtype, storage, range })
    }

    fn owned(shape: Vec<usize>, dtype: Dtype, bytes: Vec<u8>) -> Option<Self> {
        let range = 0..bytes.len();
        Self::new(shape, dtype, Arc::new(Storage::Owned(bytes)), range)
    }

    /// Length of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of the values.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of values.
    pub fn elements(&self) -> usize {
        self.range.len() / self.dtype.size()
    }

    /// The values as they are stored: little endian, at no particular alignment.
    pub fn bytes(&self) -> &[u8] {
        // The range was checked when the tensor was made, and storage never changes its length.
        self.storage.bytes().get(self.range.clone()).unwrap_or_default()
    }

    /// The values in f32; exact for all three types. Large tensors are converted on all threads.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.elements()];
        let size = self.dtype.size();
        values
            .par_chunks_mut(CHUNK)
            .zip(self.bytes().par_chunks(CHUNK * size))
            .for_each(|(values, bytes)| convert(self.dtype, bytes, values));
        values
    }

    /// The same values under another shape. `None` when the number of values differs.
    pub(super) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        Self::new(shape.to_vec(), self.dtype, Arc::clone(&self.storage), self.range.clone())
    }

    /// A matrix `[rows, columns]` as `[columns, rows]`, in memory of its own. `None` for what is not a matrix.
    pub(super) fn transposed(&self) -> Option<Self> {
        let &[rows, columns] = self.shape.as_slice() else { return None };
        let size = self.dtype.size();
        let source = self.bytes();
        let mut bytes = Vec::with_capacity(source.len());
        for column in 0..columns {
            for row in 0..rows {
                let start = (row * columns + column) * size;
                bytes.extend_from_slice(source.get(start..start + size)?);
            }
        }
        Self::owned(vec![columns, rows], self.dtype, bytes)
    }

    /// Tensors joined along the first dimension, in memory of its own; in f32 when their types differ. `None`
    /// when the other dimensions differ, or there is no tensor.
    pub(super) fn stacked(parts: &[Self]) -> Option<Self> {
        let first = parts.first()?;
        let (_, rest) = first.shape.split_first()?;
        let mut rows = 0usize;
        for part in parts {
            let (length, others) = part.shape.split_first()?;
            rows = rows.checked_add(*length)?;
            if others != rest {
                return None;
            }
        }
        let shape: Vec<usize> = std::iter::once(rows).chain(rest.iter().copied()).collect();
        if parts.iter().all(|part| part.dtype == first.dtype) {
            let bytes: Vec<&[u8]> = parts.iter().map(Self::bytes).collect();
            return Self::owned(shape, first.dtype, bytes.concat());
        }
        let bytes = parts.iter().flat_map(Self::to_f32).flat_map(f32::to_le_bytes).collect();
        Self::owned(shape, Dtype::F32, bytes)
    }

    /// The position of the first value that is infinite or not a number, in row-major order.
    pub fn first_not_finite(&self) -> Option<usize> {
        let size = self.dtype.size();
        self.bytes().par_chunks(CHUNK * size).enumerate().find_map_first(|(chunk, bytes)| {
            first_not_finite(self.dtype, bytes).map(|index| chunk * CHUNK + index)
        })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}{:?}", self.dtype, self.shape)
    }
}

/// Bytes at any alignment to values; both slices hold the same number of elements.
fn convert(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::F16 => {
            // Through an aligned buffer, from which the conversion takes eight values at a time.
            let mut buffer = [f16::ZERO; STEP];
            for (values, bytes) in values.chunks_mut(STEP).zip(bytes.as_chunks().0.chunks(STEP)) {
                let part = &mut buffer[..values.len()];
                for (half, bytes) in part.iter_mut().zip(bytes) {
                    *half = f16::from_le_bytes(*bytes);
                }
                part.convert_to_f32_slice(values);
            }
        }
        Dtype::Bf16 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
}

/// The first element with all bits of its exponent set: infinity or not a number.
fn first_not_finite(dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    match dtype {
        Dtype::F32 => position(bytes, 0x7f80_0000, |bytes| u32::from_le_bytes(bytes) & 0x7f80_0000),
        Dtype::F16 => position(bytes, 0x7c00, |bytes| u16::from_le_bytes(bytes) & 0x7c00),
        Dtype::Bf16 => position(bytes, 0x7f80, |bytes| u16::from_le_bytes(bytes) & 0x7f80),
    }
}

/// The first element whose exponent is `largest`. Of a run only the maximum is taken, without a branch, which
/// vectorises; the one run that has such an element is searched.
fn position<const SIZE: usize, T: Copy + Ord + Default>(
    bytes: &[u8],
    largest: T,
    exponent: impl Fn([u8; SIZE]) -> T,
) -> Option<usize> {
    let mut runs = bytes.as_chunks().0.chunks(STEP).enumerate();
    let has = |run: &[[u8; SIZE]]| {
        run.iter().fold(T::default(), |max, bytes| max.max(exponent(*bytes))) == largest
    };
    let (run, found) = runs.find(|(_, run)| has(run))?;
    let index = found.iter().position(|bytes| exponent(*bytes) == largest)?;
    Some(run * STEP + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that all three types hold exactly, of every kind: zeros, denormals of f16, large, negative.
    fn exact_values(count: usize) -> Vec<f32> {
        let some = [0.0, -0.0, 1.0, -1.5, 0.25, 448.0, -61440.0, 2f32.powi(-14), 2f32.powi(-24)];
        (0..count).map(|index| some[index % some.len()]).collect()
    }

    fn bytes_of(dtype: Dtype, values: &[f32]) -> Vec<u8> {
        let f16_bytes = |value: &f32| f16::from_f32(*value).to_le_bytes();
        match dtype {
            Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(f16_bytes).collect(),
            Dtype::Bf16 => {
                values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
            }
        }
    }

    /// A tensor whose bytes start at an odd address within their buffer.
    fn unaligned(dtype: Dtype, values: &[f32]) -> Tensor {
        let mut bytes = vec![0xff];
        bytes.extend(bytes_of(dtype, values));
        let range = 1..bytes.len();
        Tensor::new(vec![values.len()], dtype, Arc::new(Storage::Owned(bytes)), range).unwrap()
    }

    #[test]
    fn values_survive_in_every_type_and_length() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for count in [0, 1, 7, STEP - 1, STEP, STEP + 1, CHUNK, CHUNK + 13, 2 * CHUNK + 1] {
                let values = exact_values(count);
                let tensor = unaligned(dtype, &values);
                assert_eq!(tensor.elements(), count);
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(bits(&tensor.to_f32()) == bits(&values), "{dtype:?} {count}");
            }
        }
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let count = CHUNK + 2 * STEP + 5;
            assert_eq!(unaligned(dtype, &exact_values(count)).first_not_finite(), None);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 1, STEP, CHUNK - 1, CHUNK, CHUNK + STEP + 3, count - 1] {
                    let mut values = exact_values(count);
                    values[at] = bad;
                    values[count - 1] = bad;
                    assert_eq!(unaligned(dtype, &values).first_not_finite(), Some(at), "{dtype:?}");
                }
            }
        }
    }

    #[test]
    fn sizes_must_fit() {
        let storage = Arc::new(Storage::Owned(vec![0; 24]));
        let new = |shape: &[usize], range| {
            Tensor::new(shape.to_vec(), Dtype::F32, Arc::clone(&storage), range)
        };
        assert!(new(&[2, 3], 0..24).is_some());
        assert!(new(&[], 20..24).is_some());
        assert!(new(&[0, 5], 24..24).is_some());
        assert!(new(&[2, 3], 0..23).is_none());
        assert!(new(&[7], 0..28).is_none());
        assert!(new(&[usize::MAX, 2], 0..24).is_none());
        assert!(new(&[2, 3], 0..24).unwrap().reshaped(&[3, 1, 2]).is_some());
        assert!(new(&[2, 3], 0..24).unwrap().reshaped(&[4]).is_none());
    }

    #[test]
    fn a_matrix_is_transposed() {
        for dtype in [Dtype::F32, Dtype::F16] {
            let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            let matrix = Tensor::owned(vec![2, 3], dtype, bytes_of(dtype, &values)).unwrap();
            let transposed = matrix.transposed().unwrap();
            assert_eq!(transposed.shape(), [3, 2]);
            assert_eq!(transposed.to_f32(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
            assert!(matrix.reshaped(&[6]).unwrap().transposed().is_none());
        }
    }

    #[test]
    fn tensors_are_stacked_also_when_their_types_differ() {
        let tensor = |dtype, shape: &[usize], values: &[f32]| {
            Tensor::owned(shape.to_vec(), dtype, bytes_of(dtype, values)).unwrap()
        };
        let f16_row = tensor(Dtype::F16, &[1, 2], &[1.0, 2.0]);
        let f16_rows = tensor(Dtype::F16, &[2, 2], &[3.0, 4.0, 5.0, 6.0]);
        let same = Tensor::stacked(&[f16_row.clone(), f16_rows]).unwrap();
        assert_eq!((same.shape(), same.dtype()), (&[3, 2][..], Dtype::F16));
        assert_eq!(same.to_f32(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let f32_row = tensor(Dtype::F32, &[1, 2], &[0.1, 0.2]);
        let mixed = Tensor::stacked(&[f16_row.clone(), f32_row]).unwrap();
        assert_eq!(mixed.dtype(), Dtype::F32);
        assert_eq!(mixed.to_f32(), [1.0, 2.0, 0.1, 0.2]);
        assert!(Tensor::stacked(&[f16_row, tensor(Dtype::F16, &[2], &[1.0, 2.0])]).is_none());
        assert!(Tensor::stacked(&[]).is_none());
    }
}
