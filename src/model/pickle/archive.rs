//! The zip archive that `torch.save` writes: one pickle, and an entry a storage. Entries are stored, not compressed, so that
//! they are parts of the mapped file.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::state_dict::{self, StateDict};
use super::{machine, zip};
use crate::model::tensor::Storage;
use crate::{Error, Result};

/// Largest pickle inside an archive. That of the largest backbone here takes a two hundredth of it.
const MAX_PICKLE_BYTES: usize = 16 << 20;

/// An open PyTorch file (`.pth`, `.pt`, `.bin`), its entries checked.
pub struct TorchFile {
    name: String,
    storage: Storage,
    pickle: Range<usize>,
    /// By the keys that the pickle uses.
    entries: HashMap<String, Range<usize>>,
}

impl std::fmt::Debug for TorchFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TorchFile")
            .field("name", &self.name)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl TorchFile {
    /// Maps a file into memory, finds its entries and compares each with its checksum.
    ///
    /// The file must not be cut short by another program while it is in use, as with
    /// [`WeightFile::open`](crate::model::WeightFile::open).
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or mapped; [`Error::Weights`] when it is no such archive, is damaged, or is of a
    /// kind that holds programs (TorchScript) or was written before PyTorch 1.6.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        let name = path.display().to_string();
        if !metadata.is_file() {
            let problems = vec!["not a file; expected a PyTorch file".into()];
            return Err(Error::Weights { file: name, problems });
        }
        if metadata.len() == 0 {
            return Err(Error::Weights { file: name, problems: vec!["the file is empty".into()] });
        }
        // SAFETY: the mapping is read-only, and every access goes through slices bounded by its length. That no other
        // program truncates or changes the file meanwhile cannot be checked, and is stated above.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Self::parse(name, Storage::Mapped(map))
    }

    /// Takes a file's bytes from memory. `name` stands for it in messages.
    ///
    /// # Errors
    /// [`Error::Weights`] as [`TorchFile::open`].
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(name.to_owned(), Storage::Owned(bytes))
    }

    fn parse(name: String, storage: Storage) -> Result<Self> {
        match find_entries(storage.bytes()) {
            Ok((pickle, entries)) => Ok(Self { name, storage, pickle, entries }),
            Err(problem) => Err(Error::Weights { file: name, problems: vec![problem] }),
        }
    }

    /// The tensors of the model in the file. `key` names the dict that holds it, such as `teacher` or `model.state_dict`,
    /// where there are several; without it a file of several gives the one that is for use, by its name.
    ///
    /// # Errors
    /// [`Error::Weights`]: the pickle names anything but tensors and plain data, or there is no such dict, or each tensor
    /// that does not lie inside its storage.
    pub fn state_dict(&self, key: Option<&str>) -> Result<StateDict<'_>> {
        state_dict::read(self, key)
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> usize {
        self.storage.bytes().len()
    }

    pub(super) fn pickle(&self) -> &[u8] {
        self.storage.bytes().get(self.pickle.clone()).unwrap_or_default()
    }

    /// The bytes of a storage.
    pub(super) fn storage(&self, key: &str) -> Option<&[u8]> {
        self.storage.bytes().get(self.entries.get(key)?.clone())
    }

    pub(super) fn error(&self, problem: String) -> Error {
        self.errors(vec![problem])
    }

    pub(super) fn errors(&self, problems: Vec<String>) -> Error {
        Error::Weights { file: self.name.clone(), problems }
    }
}

/// Where the pickle lies, and each storage by its key.
type Entries = (Range<usize>, HashMap<String, Range<usize>>);

fn find_entries(bytes: &[u8]) -> Result<Entries, String> {
    if machine::is_legacy(bytes) {
        return Err("written by PyTorch before 1.6, or with its old format: a pickle without an archive; in Python, \
             torch.save(torch.load(IN, weights_only=True), OUT) writes the present format"
            .into());
    }
    if !bytes.starts_with(b"PK\x03\x04") {
        return Err("not a PyTorch file: it does not start as a zip archive".into());
    }
    let mut all = Vec::new();
    zip::entries(bytes, |entry| {
        all.push(entry);
        Ok(())
    })
    .map_err(|problem| format!("not a readable zip archive: {problem}"))?;
    let mut folders = all.iter().filter_map(|entry| entry.name.strip_suffix("data.pkl"));
    let folders = folders.by_ref().filter(|folder| folder.ends_with('/')).take(2);
    let folder = match folders.collect::<Vec<_>>()[..] {
        [folder] => folder,
        [] => return Err("not a PyTorch file: a zip archive without `data.pkl`".into()),
        _ => return Err("not a PyTorch file: several entries `data.pkl`".into()),
    };
    let script = |name: &&str| *name == "constants.pkl" || name.starts_with("code/");
    let mut within = all.iter().filter_map(|entry| entry.name.strip_prefix(folder));
    if let Some(name) = within.find(script) {
        return Err(format!(
            "a TorchScript archive, with programs in it (`{}`), as OpenAI publishes CLIP; its values are not read here. \
             Take the same weights as safetensors from where they are published, or save them in Python: \
             safetensors.torch.save_file(torch.jit.load(IN).state_dict(), OUT)",
            super::short(name)
        ));
    }
    let mut pickle = None;
    let mut entries = HashMap::new();
    let mut total = 0u64;
    for entry in &all {
        let Some(name) = entry.name.strip_prefix(folder) else { continue };
        let key = name.strip_prefix("data/");
        if !(key.is_some() || name == "data.pkl" || name == "byteorder") {
            continue;
        }
        let shown = || super::short(name);
        if !entry.plain {
            let name = shown();
            return Err(format!("`{name}` is compressed or encrypted; PyTorch writes neither"));
        }
        let range =
            entry.range(bytes).map_err(|problem| format!("damaged: `{}`: {problem}", shown()))?;
        // Entries that lie over each other would make the work below any number of times the file's size.
        total = total.saturating_add(range.len() as u64);
        if total > bytes.len() as u64 {
            return Err("damaged: its entries take more bytes than the file has".into());
        }
        let part = bytes.get(range.clone()).unwrap_or_default();
        if crc32fast::hash(part) != entry.crc {
            return Err(format!("damaged: `{}` does not have its checksum", shown()));
        }
        if name == "byteorder" && part != b"little" {
            return Err("its values are in another byte order than little endian".into());
        }
        if name == "data.pkl" {
            pickle = Some(range);
        } else if let Some(key) = key
            && entries.insert(key.to_owned(), range).is_some()
        {
            return Err(format!("damaged: there are two `{}`", shown()));
        }
    }
    let pickle = pickle.ok_or("not a PyTorch file: a zip archive without `data.pkl`")?;
    if pickle.len() > MAX_PICKLE_BYTES {
        let found = pickle.len();
        return Err(format!("its pickle has {found} bytes, expected at most {MAX_PICKLE_BYTES}"));
    }
    Ok((pickle, entries))
}
