//! A safetensors file as named tensors, with nothing in it believed before it is checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::TensorInfo;

use super::tensor::{Dtype, Storage, Tensor};
use crate::error::PYTORCH_FILE;
use crate::tensor_file::{Header, HeaderFault, header, printable};
use crate::{Error, Result};

/// The tensors of one `.safetensors` file, by name. The data stay in the mapped file.
pub struct WeightFile {
    name: String,
    storage: Arc<Storage>,
    /// Where the tensors' data begin.
    data: usize,
    tensors: BTreeMap<String, TensorInfo>,
}

impl std::fmt::Debug for WeightFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("WeightFile")
            .field("name", &self.name)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl WeightFile {
    /// Maps a file into memory and reads its header.
    ///
    /// The file must not be cut short by another program while it is in use: a read past its new end would
    /// end the process. Replacing it by renaming another file over it is safe.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or mapped; [`Error::Weights`] when it is not a safetensors file,
    /// is cut short, or its header contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?;
        let name = path.display().to_string();
        if !length.is_file() {
            return Err(not_read(&name, "not a file; expected a .safetensors file".into()));
        }
        if length.len() == 0 {
            return Err(not_read(&name, "the file is empty".into()));
        }
        // SAFETY: the mapping is read-only and private to this process's use, and every access goes through
        // slices bounded by its length. What cannot be checked is that no other program truncates or changes
        // the file meanwhile: truncation ends the process by a signal, a change shows other weights. Both are
        // stated above.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Self::parse(name, Storage::Mapped(map))
    }

    /// Reads the whole file into memory: for files that another program may truncate or change meanwhile, which a mapping
    /// does not bear.
    ///
    /// # Errors
    /// As [`WeightFile::open`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let name = path.display().to_string();
        if bytes.is_empty() {
            return Err(not_read(&name, "the file is empty".into()));
        }
        Self::parse(name, Storage::Owned(bytes))
    }

    /// Reads the header of a file that is part of the program. `name` stands for it in messages.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`WeightFile::open`].
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::parse(name.to_owned(), Storage::Static(bytes))
    }

    /// Takes a file's bytes from memory, for places where mapping is no option. `name` stands for it in messages.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`WeightFile::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(name.to_owned(), Storage::Owned(bytes))
    }

    fn parse(name: String, storage: Storage) -> Result<Self> {
        let bytes = storage.bytes();
        // Both are what torch.save writes.
        if bytes.starts_with(b"PK\x03\x04") || is_pickle(bytes) {
            let problem = format!("not a safetensors file: {PYTORCH_FILE}");
            return Err(not_read(&name, problem));
        }
        let Header { data, tensors, .. } =
            header(&mut &*bytes, bytes.len() as u64).map_err(|fault| {
                not_read(
                    &name,
                    match fault {
                        HeaderFault::Content(problem) => problem,
                        HeaderFault::Read(reason) => format!("cut short: {reason}"),
                    },
                )
            })?;
        Ok(Self { name, storage: Arc::new(storage), data, tensors })
    }

    /// The file's path, or the name given for bytes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of this name; its data are not copied.
    ///
    /// # Errors
    /// [`Error::Tensor`] when there is none, or its type is not F32, F16 or BF16.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let error = |found: String, expected: &str| Error::Tensor {
            file: self.name.clone(),
            tensor: printable(name),
            found,
            expected: expected.to_owned(),
        };
        let info = self.tensors.get(name).ok_or_else(|| error("nothing".into(), "a tensor"))?;
        let dtype = match info.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            other => return Err(error(format!("type {other}"), "F32, F16 or BF16")),
        };
        let (start, end) = info.data_offsets;
        // The header's checks leave no way to fail here; should one be lost, this still cannot read astray.
        let range = self.data.saturating_add(start)..self.data.saturating_add(end);
        Tensor::new(info.shape.clone(), dtype, Arc::clone(&self.storage), range).ok_or_else(|| {
            error(
                format!("data at {start}..{end} for shape {:?}", info.shape),
                "data inside the file",
            )
        })
    }
}

/// True for the first bytes of a pickle of protocol 2 or later.
pub(super) fn is_pickle(start: &[u8]) -> bool {
    // The length of a safetensors header may begin with the same bytes (640, or 65536 times some more), but then come zeros
    // and a brace.
    let is_header = matches!(start, [_, _, _, _, 0, 0, 0, 0, b'{', ..]);
    matches!(start, [0x80, 2..=5, ..]) && !is_header
}

fn not_read(name: &str, problem: String) -> Error {
    Error::Weights { file: name.to_owned(), problems: vec![problem] }
}
