//! The names that a pickle may say. This list is all there is to be called.

use safetensors::Dtype;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// A dict that keeps its order, as all dicts here do.
    OrderedDict,
    /// A type of values in PyTorch.
    Storage(Dtype),
    /// A tensor from its storage, offset, shape and strides.
    RebuildTensor,
    /// A tensor that was trained.
    RebuildParameter,
    /// A shape.
    Size,
    /// An empty array, to be filled by `BUILD`.
    Reconstruct,
    /// The class of arrays.
    NdArray,
    /// A type of values in NumPy.
    NumberType,
    /// An array from its bytes, with protocol 5.
    FromBuffer,
    /// A single NumPy number.
    Scalar,
    /// Bytes written as text, before protocol 3.
    Encode,
}

/// Each module and name, and what they stand for. NumPy 2 calls `numpy.core` `numpy._core`.
const GLOBALS: &[(&str, &str, Global)] = &[
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "Size", Global::Size),
    ("torch", "DoubleStorage", Global::Storage(Dtype::F64)),
    ("torch", "FloatStorage", Global::Storage(Dtype::F32)),
    ("torch", "HalfStorage", Global::Storage(Dtype::F16)),
    ("torch", "BFloat16Storage", Global::Storage(Dtype::BF16)),
    ("torch", "LongStorage", Global::Storage(Dtype::I64)),
    ("torch", "IntStorage", Global::Storage(Dtype::I32)),
    ("torch", "ShortStorage", Global::Storage(Dtype::I16)),
    ("torch", "CharStorage", Global::Storage(Dtype::I8)),
    ("torch", "ByteStorage", Global::Storage(Dtype::U8)),
    ("torch", "BoolStorage", Global::Storage(Dtype::BOOL)),
    ("numpy.core.multiarray", "_reconstruct", Global::Reconstruct),
    ("numpy._core.multiarray", "_reconstruct", Global::Reconstruct),
    ("numpy.core.numeric", "_frombuffer", Global::FromBuffer),
    ("numpy._core.numeric", "_frombuffer", Global::FromBuffer),
    ("numpy.core.multiarray", "scalar", Global::Scalar),
    ("numpy._core.multiarray", "scalar", Global::Scalar),
    ("numpy", "ndarray", Global::NdArray),
    ("numpy", "dtype", Global::NumberType),
    ("_codecs", "encode", Global::Encode),
];

/// What the name stands for, if it is in the list.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    GLOBALS.iter().find(|(m, n, _)| *m == module && *n == name).map(|(_, _, global)| *global)
}
