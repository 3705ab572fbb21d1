//! A safetensors file as named tensors, with nothing in it believed before it is checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};

use super::tensor::{Dtype, Storage, Tensor};
use crate::{Error, Result};

/// Largest header that is read: thirty times that of the largest model here. What a header says is parsed
/// into memory, so its size is bounded before.
pub const MAX_HEADER_BYTES: u64 = 4 << 20;

/// Bytes in front of the header: its length.
const LENGTH_BYTES: usize = 8;

/// The tensors of one `.safetensors` file, by name. The data stay in the mapped file.
pub struct WeightFile {
    name: String,
    storage: Arc<Storage>,
    /// Where the tensors' data begin.
    data: usize,
    tensors: BTreeMap<String, TensorInfo>,
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
        let (data, metadata) = match read_header(storage.bytes()) {
            Ok(header) => header,
            Err(problem) => return Err(not_read(&name, problem)),
        };
        let tensors = metadata.tensors().into_iter().map(|(n, info)| (n, info.clone())).collect();
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

/// Text from a file, with control characters made visible: a terminal must not obey a tensor's name.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The position where data begin, and the header; or what is wrong.
///
/// The header is parsed, and offsets compared with shapes, by the safetensors crate. Its own check of the
/// whole file is not used: it does not say the sizes, and adds offsets unchecked.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let not_safetensors = |reason: String| format!("not a safetensors file: {reason}");
    let size = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(not_safetensors(format!("{size} bytes, too short for a header")));
    };
    let length = u64::from_le_bytes(*length);
    // Both are what torch.save writes.
    if bytes.starts_with(b"PK\x03\x04") || is_pickle(bytes) {
        return Err(not_safetensors(crate::error::PYTORCH_FILE.to_string()));
    }
    if length > MAX_HEADER_BYTES {
        return Err(not_safetensors(format!(
            "its header would have {length} bytes, more than the {MAX_HEADER_BYTES} allowed"
        )));
    }
    // At most MAX_HEADER_BYTES, so it fits any usize.
    let length = length as usize;
    let Some(header) = rest.get(..length) else {
        return Err(format!(
            "cut short: the header ends at byte {}, the file has {size} bytes",
            LENGTH_BYTES + length
        ));
    };
    let header = std::str::from_utf8(header)
        .map_err(|error| not_safetensors(format!("its header is not text: {error}")))?;
    let metadata: Metadata = serde_json::from_str(header).map_err(|error| {
        not_safetensors(printable(&format!("its header is not valid: {error}")))
    })?;
    let data = LENGTH_BYTES + length;
    let expected = data.checked_add(metadata.data_len());
    match expected {
        Some(expected) if expected == size => Ok((data, metadata)),
        Some(expected) if expected > size => Err(format!(
            "cut short: the header describes a file of {expected} bytes, the file has {size}"
        )),
        Some(expected) => Err(format!(
            "too long: the header describes a file of {expected} bytes, the file has {size}"
        )),
        None => {
            Err(format!("the header describes more data than can exist, the file has {size} bytes"))
        }
    }
}
