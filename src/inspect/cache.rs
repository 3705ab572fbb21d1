//! Tokens that are kept between runs: a file an image, found by its pixels.
//!
//! The key is a SHA-256 of the resized pixels, of the weights' own, and of everything else that tokens depend on: size, blocks,
//! activation, normalisation, number format, version. So another aggregation degree, k or threshold finds all of them, and
//! another size none. Files are still read and resized; what is spared is the backbone.
//!
//! Files are written whole or not at all, as soon as their images are done: a run that was killed goes on from there. A file
//! carries a SHA-256 of its values; one that is damaged is told of, and made again. Each use sets a file's time, and those not
//! used for the longest go first where the folder grows beyond its limit.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;

use super::{Inspector, Note};
use crate::backend::device::{AnyBackend, AnyFeatures, AnyModel};
use crate::backend::{Backend, FeatureSet, HostFeatures, Pixels};
use crate::image::RgbImage;
use crate::model::sha256_of_parts;
use crate::progress::{Stage, go_on};
use crate::tensor_file::{Halves, Tensor, TensorFile, write_tensors};
use crate::{Error, Grid, ImageSize, Progress, Result};

/// What is kept where nobody says how much: 10 GiB.
pub const USUAL_CACHE_BYTES: u64 = 10 << 30;
/// Images that go through the backbone together, and are kept then: what a killed run loses at most.
const TOGETHER: usize = 16;
const FORMAT: (&str, &str) = ("format", "musc-tokens");
const VERSION: (&str, &str) = ("version", "1");
/// The end of the names of kept files.
const ENDING: &str = "safetensors";
/// Unfinished files of runs that were killed are removed when they are this old.
const STALE: Duration = Duration::from_secs(3600);

/// How often the cache helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Images, or tiles of images, whose tokens were found.
    pub found: u64,
    /// Those that went through the backbone.
    pub made: u64,
}

/// A folder of tokens.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    counts: CacheCounts,
    notes: Vec<Note>,
    /// Writing has failed, and is not tried again.
    full: bool,
}

/// The tokens of one image.
struct Entry {
    /// One `[L, C]` a block.
    tokens: Vec<Vec<f32>>,
    class_token: Vec<f32>,
    content: u64,
}

/// What the entries of a batch have in common.
struct Shape<'a> {
    blocks: &'a [usize],
    grid: Grid,
    width: usize,
    class_width: usize,
}

impl Cache {
    /// Opens a folder, which is made where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be made or listed; [`Error::Invalid`] for no room.
    pub fn open(folder: &Path, limit: u64) -> Result<Self> {
        if limit == 0 {
            return Err(Error::invalid("size of the cache", 0, "at least 1 byte"));
        }
        std::fs::create_dir_all(folder).map_err(Error::io("create the cache", folder))?;
        let cache = Cache { folder: folder.to_path_buf(), limit, state: Mutex::default() };
        std::fs::read_dir(folder).map_err(Error::io("list the cache", folder))?;
        let now = SystemTime::now();
        let mut bytes = 0;
        for (path, size, used) in cache.files() {
            if path.extension().is_some_and(|ending| ending == ENDING) {
                bytes += size;
            } else if now.duration_since(used).is_ok_and(|age| age > STALE) {
                // Nobody is at it any more; if it stays, it does no harm.
                let _ = std::fs::remove_file(&path);
            }
        }
        cache.state().bytes = bytes;
        Ok(cache)
    }

    pub fn counts(&self) -> CacheCounts {
        self.state().counts
    }

    /// What is worth saying since this was asked last.
    pub fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.state().notes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every file of the cache and every unfinished one, with its size and the time it was used last.
    fn files(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let folders = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let entries = folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok());
        entries
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let ours = name.ends_with(&format!(".{ENDING}")) || name.starts_with(".musc-");
                let about = entry.metadata().ok().filter(|about| ours && about.is_file())?;
                let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                Some((entry.path(), about.len(), used))
            })
            .collect()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(&key[..2.min(key.len())]).join(format!("{key}.{ENDING}"))
    }

    /// What is kept under a key; nothing where there is no file, or one that is damaged, which is told of.
    fn find(&self, key: &str, shape: &Shape<'_>) -> Option<Entry> {
        let path = self.path(key);
        if !path.exists() {
            return None;
        }
        match read(&path, shape) {
            Ok(entry) => {
                // The time is for the order in which files go; one that cannot be set costs no more than that.
                if let Ok(file) = File::options().append(true).open(&path) {
                    let _ = file.set_modified(SystemTime::now());
                }
                Some(entry)
            }
            // Another run may have removed it in between.
            Err(_) if !path.exists() => None,
            Err(reason) => {
                self.state().notes.push(Note::DamagedCache { reason: reason.to_string() });
                None
            }
        }
    }

    fn keep(&self, key: &str, entry: &Entry, shape: &Shape<'_>) {
        if self.state().full {
            return;
        }
        let path = self.path(key);
        let before = std::fs::metadata(&path).map_or(0, |about| about.len());
        match write(&path, entry, shape) {
            Ok(()) => {
                let bytes = std::fs::metadata(&path).map_or(0, |about| about.len());
                let mut state = self.state();
                state.bytes = (state.bytes + bytes).saturating_sub(before);
                if state.bytes > self.limit {
                    state.bytes = self.shrink();
                }
            }
            Err(reason) => {
                let mut state = self.state();
                if !state.full {
                    state.full = true;
                    state.notes.push(Note::CacheNotWritten { reason: reason.to_string() });
                }
            }
        }
    }

    /// Removes what has not been used for the longest, down to nine tenths of the limit; the bytes that are left.
    fn shrink(&self) -> u64 {
        let mut files = self.files();
        files.sort_by_key(|(_, _, used)| *used);
        let mut bytes: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (path, size, _) in files {
            if bytes <= self.limit / 10 * 9 {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                bytes -= size;
            }
        }
        bytes
    }
}

/// Reads a file and compares it with its own hash.
fn read(path: &Path, shape: &Shape<'_>) -> Result<Entry> {
    let mut file = TensorFile::open(path)?;
    let refuse = |reason: &str| Error::Dataset { path: path.to_path_buf(), reason: reason.into() };
    let told = |key: &str| file.metadata(key).map(String::from);
    if told(FORMAT.0).as_deref() != Some(FORMAT.1) || told(VERSION.0).as_deref() != Some(VERSION.1)
    {
        return Err(refuse("not a file of this cache"));
    }
    let hash = told("sha256").ok_or_else(|| refuse("it has no hash of its values"))?;
    let content = told("content").and_then(|text| text.parse().ok());
    let content = content.ok_or_else(|| refuse("it has no hash of its image"))?;
    let mut tokens = Vec::with_capacity(shape.blocks.len());
    for block in shape.blocks {
        let name = format!("tokens.{block}");
        let values = file.f32(&name, &["L", "C"])?;
        if values.shape != [shape.grid.patches(), shape.width] {
            let expected = format!("[{}, {}]", shape.grid.patches(), shape.width);
            return Err(file.wrong(&name, format!("shape {:?}", values.shape), expected));
        }
        tokens.push(values.data);
    }
    let class_token = file.f32("class_token", &["E"])?.data;
    let entry = Entry { tokens, class_token, content };
    if entry.class_token.len() != shape.class_width || entry.hash(shape) != hash {
        return Err(refuse("its values are not those that were written"));
    }
    Ok(entry)
}

fn write(path: &Path, entry: &Entry, shape: &Shape<'_>) -> Result<()> {
    let names: Vec<String> = shape.blocks.iter().map(|block| format!("tokens.{block}")).collect();
    let sizes = [shape.grid.patches(), shape.width];
    let halves: Option<Vec<Halves>> =
        entry.tokens.iter().map(|tokens| Halves::same(tokens)).collect();
    let mut tensors: Vec<Tensor<'_>> = match &halves {
        Some(halves) => {
            let both = names.iter().zip(halves);
            both.map(|(name, half)| Tensor::halves(name, &sizes, half)).collect()
        }
        None => {
            let both = names.iter().zip(&entry.tokens);
            both.map(|(name, tokens)| Tensor::f32(name, &sizes, tokens)).collect()
        }
    };
    let class_size = [entry.class_token.len()];
    tensors.push(Tensor::f32("class_token", &class_size, &entry.class_token));
    let metadata = [
        (FORMAT.0, FORMAT.1.to_string()),
        (VERSION.0, VERSION.1.to_string()),
        ("grid", shape.grid.to_string()),
        ("content", entry.content.to_string()),
        ("sha256", entry.hash(shape)),
    ];
    write_tensors(path, &tensors, &metadata)
}

impl Entry {
    /// A hash of all values and of what they are.
    fn hash(&self, shape: &Shape<'_>) -> String {
        let of = format!("{} {:?} {}", shape.grid, shape.blocks, self.content);
        let values = self.tokens.iter().chain([&self.class_token]);
        let parts: Vec<&[u8]> =
            [of.as_bytes()].into_iter().chain(values.map(|v| bytemuck::cast_slice(v))).collect();
        sha256_of_parts(&parts)
    }
}

/// Steps of a stage that somebody else begins and ends.
struct Steps<'a>(&'a dyn Progress);

impl Progress for Steps<'_> {
    fn advance(&self, steps: u64) {
        self.0.advance(steps);
    }
    fn stopped(&self) -> bool {
        self.0.stopped()
    }
}

impl Inspector {
    /// How many images, or tiles, were found in the cache so far, and how many were not; `None` without a cache.
    pub fn cache_counts(&self) -> Option<CacheCounts> {
        self.cache.as_ref().map(Cache::counts)
    }

    /// The features of images of this size, from the cache where it has them.
    pub(super) fn cached_features(
        &self,
        cache: &Cache,
        model: &AnyModel,
        images: &[RgbImage],
        input: ImageSize,
        progress: &dyn Progress,
    ) -> Result<AnyFeatures> {
        let of = self.backbone.architecture();
        let grid = input.grid(of.patch);
        let blocks = &self.backbone.blocks;
        let shape = Shape { blocks, grid, width: of.width, class_width: of.class_dim };
        let common = self.key_of(input)?;
        let keys: Vec<String> = self.on_pool(|| {
            let key = |image: &RgbImage| sha256_of_parts(&[common.as_bytes(), &image.data]);
            images.par_iter().map(key).collect()
        });
        progress.begin(Stage::Features, images.len() as u64);
        let mut entries: Vec<Option<Entry>> =
            self.on_pool(|| keys.par_iter().map(|key| cache.find(key, &shape)).collect());
        let missing: Vec<usize> = (0..images.len()).filter(|&at| entries[at].is_none()).collect();
        {
            let counts = &mut cache.state().counts;
            counts.found += (images.len() - missing.len()) as u64;
            counts.made += missing.len() as u64;
        }
        progress.advance((images.len() - missing.len()) as u64);
        for part in missing.chunks(TOGETHER) {
            go_on(progress)?;
            let pixels: Vec<RgbImage> = part.iter().map(|&at| images[at].clone()).collect();
            let made = self.backend.extract(model, Pixels::Rgb(&pixels), &Steps(progress))?;
            let made = split(&made.to_host()?);
            let at_keys = part.iter().map(|&at| &keys[at]);
            let to_keep: Vec<(&String, &Entry)> = at_keys.zip(&made).collect();
            self.on_pool(|| {
                to_keep.into_par_iter().for_each(|(key, entry)| cache.keep(key, entry, &shape));
            });
            for (&at, entry) in part.iter().zip(made) {
                entries[at] = Some(entry);
            }
        }
        progress.end();
        self.backend.upload(join(entries.into_iter().flatten().collect(), &shape))
    }

    /// All that tokens depend on but the pixels.
    fn key_of(&self, input: ImageSize) -> Result<String> {
        let numbers = match &self.backend {
            // Not the format of the scoring, which tokens do not depend on.
            AnyBackend::Cpu(cpu) => {
                format!("cpu {} {}", cpu.instructions(), cpu.features_format().name())
            }
            #[cfg(feature = "cuda")]
            AnyBackend::Cuda(cuda) => cuda.description(),
        };
        let extraction = self.extraction(input);
        Ok(format!(
            "{} {} {}\n{}\n{:?} {input} {:?} {:?}\n{numbers}",
            FORMAT.1,
            VERSION.1,
            env!("CARGO_PKG_VERSION"),
            self.backbone.weights_sha256()?,
            extraction.layers,
            extraction.activation,
            extraction.normalisation,
        ))
    }
}

/// Features, image by image.
fn split(features: &HostFeatures) -> Vec<Entry> {
    let (values, class_width) = (features.patches() * features.width, features.class_width);
    let content = features.known_content();
    (0..features.images)
        .map(|at| Entry {
            tokens: features
                .tokens
                .iter()
                .map(|tokens| tokens[at * values..][..values].to_vec())
                .collect(),
            class_token: features.class_tokens[at * class_width..][..class_width].to_vec(),
            content: content[at],
        })
        .collect()
}

/// Images as features.
fn join(entries: Vec<Entry>, shape: &Shape<'_>) -> HostFeatures {
    let images = entries.len();
    let mut tokens: Vec<Vec<f32>> = shape
        .blocks
        .iter()
        .map(|_| Vec::with_capacity(images * shape.grid.patches() * shape.width))
        .collect();
    let (mut class_tokens, mut content) = (Vec::new(), Vec::new());
    for entry in entries {
        for (all, one) in tokens.iter_mut().zip(entry.tokens) {
            all.extend(one);
        }
        class_tokens.extend(entry.class_token);
        content.push(entry.content);
    }
    HostFeatures::new(images, shape.grid, shape.width, shape.blocks.to_vec(), tokens)
        .with_class_tokens(shape.class_width, class_tokens)
        .with_content(content)
}
