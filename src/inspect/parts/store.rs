//! A folder in which workers lay down the parts of one job.
//!
//! ```text
//! DIR/manifest.json                    settings, number of images and parts, a note of the program's
//! DIR/images.csv                       the images: path, bytes
//! DIR/part-00003-of-00016.safetensors  a part, whole or absent
//! DIR/block-00003-of-00016.safetensors the tokens of a block, likewise
//! ```
//!
//! Whoever comes first writes the manifest; everybody else compares. Nothing is locked: a part that two workers make is
//! written twice, the same bytes.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::part::{Part, PartFiles};
use super::{block_file, file};
use crate::atomic::{write_file, write_new_file};
use crate::backend::device::AnyFeatures;
use crate::backend::{Backend, FeatureSet, HostFeatures};
use crate::inspect::bank::{SIMILARITIES, activation_name};
use crate::inspect::work::Plan;
use crate::inspect::{Batch, Block, InputSize, Inspector, Subsets, TileMatch};
use crate::model::{sha256_of_bytes, sha256_of_parts};
use crate::tensor_file::printable;
use crate::{Error, Result};

/// The settings that tokens depend on.
const OF_TOKENS: [&str; 10] = [
    "musc",
    "backbone",
    "weights with SHA-256",
    "activation",
    "layers",
    "size",
    "padding",
    StoreTerms::NUMBERS[0],
    "regions",
    "unreadable files",
];
const FORMAT: &str = "musc-parts";
const VERSION: u32 = 1;

/// What all parts of a job must have in common: every setting that a number depends on, and the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreTerms {
    settings: Vec<(String, String)>,
    /// `path,bytes`, a line an image.
    images: String,
    count: usize,
}

/// The folder of a job's parts.
#[derive(Debug, Clone)]
pub struct PartStore {
    folder: PathBuf,
    manifest: Manifest,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    /// A hash of everything below but the note.
    job: String,
    images: usize,
    images_sha256: String,
    parts: usize,
    settings: Vec<(String, String)>,
    note: Value,
}

impl StoreTerms {
    /// The settings that say in which number formats a device works: of features, and of scoring. Nothing that is done with
    /// parts depends on them.
    pub const NUMBERS: [&'static str; 2] = ["numbers", "numbers in scoring"];

    /// With another fact that parts depend on, such as which references there are.
    pub fn with(mut self, what: &str, value: impl Into<String>) -> Self {
        self.settings.push((what.to_string(), value.into()));
        self
    }

    /// Without the settings of these names: for parts that may differ in them.
    pub fn without(mut self, names: &[&str]) -> Self {
        self.settings.retain(|(what, _)| !names.contains(&what.as_str()));
        self
    }

    /// What tokens alone have in common, whatever is done with them.
    pub fn of_tokens(&self) -> Self {
        let mut terms = self.clone();
        terms.settings.retain(|(what, _)| OF_TOKENS.contains(&what.as_str()));
        terms
    }

    /// All of it as text, a fact or an image a line: two that are equal have the same lines.
    pub fn lines(&self) -> String {
        let settings = self.settings.iter().map(|(what, value)| format!("{what}: {value}\n"));
        settings.chain([self.images.clone()]).collect()
    }

    /// A hash of it, and of the number of parts.
    pub fn job(&self, parts: usize) -> String {
        self.manifest(parts, &Value::Null).job
    }

    fn manifest(&self, parts: usize, note: &Value) -> Manifest {
        let images_sha256 = sha256_of_bytes(self.images.as_bytes());
        let mut words = vec![FORMAT.to_string(), VERSION.to_string(), parts.to_string()];
        words.extend(self.settings.iter().flat_map(|(what, value)| [what.clone(), value.clone()]));
        words.push(images_sha256.clone());
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        Manifest {
            format: FORMAT.into(),
            version: VERSION,
            job: sha256_of_parts(&words),
            images: self.count,
            images_sha256,
            parts,
            settings: self.settings.clone(),
            note: note.clone(),
        }
    }
}

impl Inspector {
    /// What the parts of a batch's plan have in common. Images are known by their paths within the batch and their files'
    /// bytes; of the weights, and of a region's mask, a hash is taken.
    ///
    /// # Errors
    /// A file that is not there; weights or a mask that cannot be read.
    pub fn store_terms(&self, batch: &Batch, plan: &Plan) -> Result<StoreTerms> {
        let (of, settings) = (&self.backbone, &self.settings);
        let scoring = &settings.scoring;
        let padding = matches!(settings.input, InputSize::KeepAspect { pad: true, .. });
        let formats = self.formats();
        let on = if formats.instructions.is_some() { "" } else { ", on a card" };
        let subsets = match settings.subsets {
            Subsets::Auto => "as many as is usual".into(),
            Subsets::All => "one".into(),
            Subsets::References(references) => format!("of about {references} references"),
            Subsets::Divide(parts) => format!("{parts}, as the authors deal"),
        };
        let tiles = settings.tiles.map_or_else(
            || "none".into(),
            |tiles| {
                let (rows, columns) = (tiles.cut.rows(), tiles.cut.columns());
                let place = match tiles.matching {
                    TileMatch::Same => "at their own place",
                    TileMatch::Any => "anywhere",
                };
                format!("{rows}x{columns}, overlap {}, {place}", tiles.cut.overlap())
            },
        );
        let rescoring = settings.rescoring.as_ref().map_or_else(
            || "none".into(),
            |asked| {
                let k = asked.k.as_deref().unwrap_or(batch.rscin_k());
                let known = SIMILARITIES.iter().find(|(known, _)| *known == asked.similarity);
                format!("k {k:?} by {}", known.map_or("another", |(_, name)| name))
            },
        );
        let settings = vec![
            ("musc", env!("CARGO_PKG_VERSION").to_string()),
            ("backbone", of.name().to_string()),
            ("weights with SHA-256", of.weights_sha256()?),
            ("activation", activation_name(of.asked_activation()).to_string()),
            ("layers", format!("{:?}", of.blocks)),
            ("size", plan.input.to_string()),
            ("padding", padding.to_string()),
            (StoreTerms::NUMBERS[0], format!("{}{on}", formats.features)),
            (StoreTerms::NUMBERS[1], format!("{}{on}", formats.scoring)),
            ("aggregation degrees", format!("{:?}", scoring.degrees)),
            ("interval", format!("{:?}", scoring.interval)),
            ("matching", scoring.radius.map_or("anywhere".into(), |r| format!("within {r}"))),
            ("subsets", subsets),
            ("seed", settings.seed.to_string()),
            ("tiles", tiles),
            ("regions", batch.regions().words()?),
            ("RsCIN", rescoring),
            ("authors' quirks", settings.paper.to_string()),
            ("unreadable files", if batch.skips_bad() { "skipped" } else { "an error" }.into()),
        ];
        let mut images = String::from("path,bytes\n");
        for (name, sample) in batch.relative_names().iter().zip(batch.samples()) {
            let bytes = match batch.in_memory() {
                true => 0,
                false => match std::fs::metadata(&sample.path) {
                    Ok(about) => about.len(),
                    // Its reading says why, or it is passed over.
                    Err(_) if batch.skips_bad() => 0,
                    Err(reason) => return Err(Error::io("read", &sample.path)(reason)),
                },
            };
            // Writing to a string does not fail.
            let _ = writeln!(images, "{},{bytes}", quoted(name));
        }
        let settings = settings.into_iter().map(|(what, value)| (what.into(), value)).collect();
        Ok(StoreTerms { settings, images, count: batch.len() })
    }
}

/// A field of a CSV file.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_string()
}

impl PartStore {
    /// Opens the folder of a job with so many parts; where it has no manifest yet, it gets one, with a note for whoever reads
    /// it later.
    ///
    /// # Errors
    /// [`Error::Dataset`] for a folder of another job, by every setting that differs or the first image that does;
    /// [`Error::Io`] when it cannot be read or written.
    pub fn open(folder: &Path, terms: &StoreTerms, parts: usize, note: &Value) -> Result<Self> {
        let manifest = terms.manifest(parts, note);
        let (path, images) = (folder.join("manifest.json"), folder.join("images.csv"));
        if !path.exists() {
            write_file(&images, |out| out.write_all(terms.images.as_bytes()))?;
            let mut text = serde_json::to_string_pretty(&manifest)
                .map_err(|error| Error::io("write", &path)(error.into()))?;
            text.push('\n');
            // Somebody may have come first: then theirs stands.
            write_new_file(&path, |out| out.write_all(text.as_bytes()))?;
        }
        let store = Self::found(folder)?;
        store.check(terms, parts, &[])?;
        Ok(store)
    }

    /// The folder of a job that is under way, whatever job it is.
    ///
    /// # Errors
    /// [`Error::Dataset`] for a folder without a manifest, or one that is none; [`Error::Io`] when it cannot be read.
    pub fn found(folder: &Path) -> Result<Self> {
        Ok(PartStore { folder: folder.to_path_buf(), manifest: read_manifest(folder)? })
    }

    /// Refuses another job than that of the folder; settings of the names in `but` may differ.
    ///
    /// # Errors
    /// [`Error::Dataset`] by every setting that differs, or the first image that does.
    pub fn check(&self, terms: &StoreTerms, parts: usize, but: &[&str]) -> Result<()> {
        let ours = terms.manifest(parts, &Value::Null);
        if self.manifest.job == ours.job {
            return Ok(());
        }
        let differ = difference(&self.manifest, &ours, &self.folder, &terms.images, but);
        if differ.is_empty() && !but.is_empty() {
            return Ok(());
        }
        let reason = format!("it is the store of another job: it has {}", differ.join("; "));
        Err(Error::Dataset { path: self.folder.clone(), reason })
    }

    /// The number formats of the job's devices, for people: those of features and of scoring.
    pub fn formats(&self) -> String {
        let of = |what: &str| {
            let found = self.manifest.settings.iter().find(|(name, _)| name == what);
            found.map_or_else(|| "unknown".into(), |(_, value)| printable(value))
        };
        let [features, scoring] = StoreTerms::NUMBERS.map(of);
        if features == scoring {
            features
        } else {
            format!("features {features}, scoring {scoring}")
        }
    }

    /// The note that was left by who opened the folder first.
    pub fn note(&self) -> &Value {
        &self.manifest.note
    }

    /// Number of parts of the job.
    pub fn parts(&self) -> usize {
        self.manifest.parts
    }

    /// The file of a part.
    pub fn path(&self, part: usize) -> PathBuf {
        self.folder.join(format!("part-{part:05}-of-{:05}.safetensors", self.manifest.parts))
    }

    /// The parts that are not there yet, rising.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.parts()).filter(|&part| !self.path(part).is_file()).collect()
    }

    /// Reads a part; nothing where it is not there yet.
    ///
    /// # Errors
    /// [`Error::Dataset`] and [`Error::Tensor`] for a file that is damaged or of another job; [`Error::Io`] when it cannot be
    /// read.
    pub fn read(&self, part: usize) -> Result<Option<Part>> {
        if_there(file::read(&self.path(part), &self.manifest.job))
    }

    /// Writes a part, whole or not at all; one that is there is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write(&self, at: usize, part: &Part) -> Result<()> {
        file::write(&self.path(at), part, &self.manifest.job)
    }

    /// The file of a block.
    pub fn block_path(&self, block: usize) -> PathBuf {
        self.folder.join(format!("block-{block:05}-of-{:05}.safetensors", self.manifest.parts))
    }

    /// The blocks that are not there yet, rising.
    pub fn missing_blocks(&self) -> Vec<usize> {
        (0..self.parts()).filter(|&block| !self.block_path(block).is_file()).collect()
    }

    /// Images of a block that is there, by the head of its file.
    ///
    /// # Errors
    /// [`Error::Dataset`] and [`Error::Tensor`] for a file that is none; [`Error::Io`] when it cannot be read.
    pub fn images_of_block(&self, block: usize) -> Result<usize> {
        block_file::images(&self.block_path(block), &self.manifest.job)
    }

    /// Whether a block is there; it is read from end to end, and goes to no device.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn has_block(&self, inspector: &Inspector, block: usize) -> Result<bool> {
        Ok(if_there(self.block(block, &inspector.backbone.blocks))?.is_some())
    }

    /// Reads a block to the device of an inspector.
    ///
    /// # Errors
    /// A block that is not there; otherwise as [`read`](Self::read), and the device's own.
    pub fn read_block(&self, inspector: &Inspector, block: usize) -> Result<Block> {
        let (features, files) = self.block(block, &inspector.backbone.blocks)?;
        Ok(Block { files, features: inspector.backend.upload(features)? })
    }

    /// Reads the `index`-th feature layer of a block to the device of an inspector.
    ///
    /// # Errors
    /// An index past the last layer; a block that is not there; otherwise as [`read_block`](Self::read_block).
    pub fn read_layer(
        &self,
        inspector: &Inspector,
        block: usize,
        index: usize,
    ) -> Result<AnyFeatures> {
        let layers = &inspector.backbone.blocks;
        let layer = layers.get(index..index + 1).ok_or_else(|| {
            Error::invalid("feature layer index", index, format!("below {}", layers.len()))
        })?;
        inspector.backend.upload(self.block(block, layer)?.0)
    }

    fn block(&self, block: usize, layers: &[usize]) -> Result<(HostFeatures, PartFiles)> {
        block_file::read(&self.block_path(block), layers, &self.manifest.job)
    }

    /// Writes a block, whole or not at all; one that is there is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] with the path; the device's own.
    pub fn write_block(&self, at: usize, block: &Block) -> Result<()> {
        let features = block.features.to_host()?;
        block_file::write(&self.block_path(at), &features, &block.files, &self.manifest.job)
    }
}

/// Nothing in place of the error of a file that is not there.
fn if_there<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join("manifest.json");
    let refuse = |reason: String| Error::Dataset { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            refuse("not there: found no manifest, which a folder of parts has".into())
        }
        _ => Error::io("read", &path)(error),
    })?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|error| refuse(format!("no manifest of a folder of parts: {error}")))?;
    if manifest.format != FORMAT || manifest.version != VERSION {
        return Err(refuse(format!(
            "its format is {} {}, expected {FORMAT} {VERSION}",
            printable(&manifest.format),
            manifest.version
        )));
    }
    Ok(manifest)
}

/// In what a folder is another job's.
fn difference(
    found: &Manifest,
    ours: &Manifest,
    folder: &Path,
    images: &str,
    but: &[&str],
) -> Vec<String> {
    let mut differ = Vec::new();
    for (what, value) in ours.settings.iter().filter(|(what, _)| !but.contains(&what.as_str())) {
        let theirs = found.settings.iter().find(|(name, _)| name == what);
        let theirs = theirs.map_or("none", |(_, value)| value);
        if theirs != value {
            differ.push(format!("{what} {}, this job {value}", printable(theirs)));
        }
    }
    for (what, value) in &found.settings {
        if !ours.settings.iter().any(|(name, _)| name == what) {
            differ.push(format!("{} {}, this job none", printable(what), printable(value)));
        }
    }
    if found.images_sha256 != ours.images_sha256 {
        let theirs = std::fs::read_to_string(folder.join("images.csv")).unwrap_or_default();
        let known = sha256_of_bytes(theirs.as_bytes()) == found.images_sha256;
        let first = theirs.lines().zip(images.lines()).find(|(one, two)| one != two);
        differ.push(match first.filter(|_| known) {
            Some((one, two)) => format!(
                "images whose first other one (path,bytes) is {}, in this job {}",
                printable(one),
                printable(two)
            ),
            None => format!("{} images, this job {}", found.images, ours.images),
        });
    }
    if found.parts != ours.parts {
        differ.push(format!("{} parts, this job {}", found.parts, ours.parts));
    }
    differ
}
