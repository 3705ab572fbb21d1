//! A bank as one safetensors file.
//!
//! | tensor | shape | is |
//! |---|---|---|
//! | `tokens.LAYER` | `[M, L, C]`, F16 or BF16 | patch tokens of a block, one tensor a block |
//! | `class_tokens` | `[M, E]`, F32 | class tokens |
//! | `content` | `[M]`, U64 | a hash of each image's pixels |
//! | `left_out` | `[M, L]`, U8 | not 0 for patches that are no part of their image, if there are any |
//! | `raw_scores` | `[M]`, F32 | raw scores of the references among themselves |
//! | `thumbnails` | `[M, h, w, 3]`, U8 | small pictures, RGB |
//!
//! Metadata: `format` is `musc-bank`, `version` is `1`; `grid`, `HxW`; `settings` and `names`, JSON; `threshold`, a decimal number.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::settings::{SIMILARITIES, activation_name, activation_named};
use super::{Bank, BankSettings, Thumbnails};
use crate::inspect::{InputSize, Rescoring};
use crate::scoring::MutualScoring;
use crate::tensor_file::{MAX_HEADER_BYTES, Tensor, TensorFile, printable, write_tensors};
use crate::{Error, Grid, ImageSize, Result};

const FORMAT: (&str, &str) = ("format", "musc-bank");
const VERSION: (&str, &str) = ("version", "1");
const GRID: &str = "grid";
const SETTINGS: &str = "settings";
const NAMES: &str = "names";
const THRESHOLD: &str = "threshold";

/// [`BankSettings`] as they are written.
#[derive(Serialize, Deserialize)]
struct Written {
    backbone: String,
    weights_sha256: String,
    pretrained: String,
    activation: String,
    layers: Vec<usize>,
    blocks_read: Vec<usize>,
    input: String,
    keep_aspect: Option<usize>,
    pad: bool,
    r_list: Vec<usize>,
    interval: [f64; 2],
    radius: Option<usize>,
    rscin_k: Option<Vec<usize>>,
    rscin_similarity: Option<String>,
    paper: bool,
    decision: String,
    /// Not in the first banks.
    #[serde(default)]
    features: Vec<String>,
}

impl Written {
    fn of(settings: &BankSettings) -> Self {
        let (keep_aspect, pad) = match settings.asked_input {
            InputSize::Exactly(_) => (None, false),
            InputSize::KeepAspect { longest, pad } => (Some(longest), pad),
        };
        let rescoring = settings.rescoring.as_ref();
        let similarity = |rescoring: &Rescoring| {
            let known = SIMILARITIES.iter().find(|(known, _)| *known == rescoring.similarity);
            known.map_or_else(String::new, |(_, name)| name.to_string())
        };
        Written {
            backbone: settings.backbone.clone(),
            weights_sha256: settings.weights_sha256.clone(),
            pretrained: settings.pretrained.clone(),
            activation: activation_name(settings.activation).to_string(),
            layers: settings.layers.clone(),
            blocks_read: settings.blocks.clone(),
            input: settings.input.to_string(),
            keep_aspect,
            pad,
            r_list: settings.scoring.degrees.clone(),
            interval: [settings.scoring.interval.0, settings.scoring.interval.1],
            radius: settings.scoring.radius,
            rscin_k: rescoring.and_then(|rescoring| rescoring.k.clone()),
            rscin_similarity: rescoring.map(similarity),
            paper: settings.paper,
            decision: settings.rule.to_string(),
            features: settings.features.clone(),
        }
    }

    /// The settings, or what is wrong with them.
    fn read(self) -> std::result::Result<BankSettings, String> {
        let input: ImageSize =
            self.input.parse().map_err(|_| format!("input `{}`", printable(&self.input)))?;
        let rescoring = match self.rscin_similarity {
            None => None,
            Some(name) => {
                let known = SIMILARITIES.iter().find(|(_, known)| *known == name);
                let (similarity, _) =
                    known.ok_or_else(|| format!("rscin_similarity `{}`", printable(&name)))?;
                if self.rscin_k.as_ref().is_some_and(|k| k.is_empty() || k.contains(&0)) {
                    return Err("rscin_k that is empty or has a 0".into());
                }
                Some(Rescoring::default().with_k(self.rscin_k).with_similarity(*similarity))
            }
        };
        let activation = activation_named(&self.activation)
            .ok_or_else(|| format!("activation `{}`", printable(&self.activation)))?;
        let rule = self
            .decision
            .parse()
            .map_err(|_| format!("decision `{}`", printable(&self.decision)))?;
        let known = |format: &&String| ["f32", "f16", "bf16"].contains(&format.as_str());
        if let Some(other) = self.features.iter().find(|format| !known(format)) {
            return Err(format!("features in `{}`", printable(other)));
        }
        Ok(BankSettings {
            backbone: self.backbone,
            weights_sha256: self.weights_sha256,
            pretrained: self.pretrained,
            activation,
            layers: self.layers,
            blocks: self.blocks_read,
            input,
            asked_input: match self.keep_aspect {
                Some(longest) => InputSize::KeepAspect { longest, pad: self.pad },
                None => InputSize::Exactly(input),
            },
            scoring: MutualScoring::default()
                .with_degrees(self.r_list)
                .with_interval(self.interval[0], self.interval[1])
                .with_radius(self.radius),
            rescoring,
            paper: self.paper,
            rule,
            features: self.features,
        })
    }
}

impl Bank {
    /// Writes the bank. The file is written aside and renamed when it is complete; one of that name is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] with the path; [`Error::Invalid`] for more names than a head takes.
    pub fn save(&self, path: &Path) -> Result<()> {
        let names = serde_json::json!(self.names).to_string();
        if names.len() as u64 > MAX_HEADER_BYTES / 2 {
            let expected = format!("at most {}", MAX_HEADER_BYTES / 2);
            return Err(Error::invalid("bytes of a bank's names", names.len(), expected));
        }
        let settings = serde_json::to_string(&Written::of(&self.settings))
            .map_err(|error| Error::io("write", path)(error.into()))?;
        let (images, patches) = (self.len(), self.grid.patches());
        let layers: Vec<String> =
            self.settings.blocks.iter().map(|block| format!("tokens.{block}")).collect();
        let token_shape = [images, patches, self.width];
        let class_shape = [images, self.class_width];
        let thumb_shape = [images, self.thumbnails.size.height, self.thumbnails.size.width, 3];
        let marks: Vec<u8> = self.left_out.iter().map(|&mark| u8::from(mark)).collect();
        let mut tensors: Vec<Tensor<'_>> = layers
            .iter()
            .zip(&self.tokens)
            .map(|(name, tokens)| Tensor::halves(name, &token_shape, tokens))
            .collect();
        tensors.push(Tensor::f32("class_tokens", &class_shape, &self.class_tokens));
        tensors.push(Tensor::u64("content", &class_shape[..1], &self.content));
        tensors.push(Tensor::f32("raw_scores", &class_shape[..1], &self.raw_scores));
        tensors.push(Tensor::u8("thumbnails", &thumb_shape, &self.thumbnails.pixels));
        if !marks.is_empty() {
            tensors.push(Tensor::u8("left_out", &token_shape[..2], &marks));
        }
        let metadata = [
            (FORMAT.0, FORMAT.1.to_string()),
            (VERSION.0, VERSION.1.to_string()),
            (GRID, self.grid.to_string()),
            (SETTINGS, settings),
            (NAMES, names),
            (THRESHOLD, self.threshold.to_string()),
        ];
        write_tensors(path, &tensors, &metadata)
    }

    /// Reads a bank. No more memory is taken than the file has bytes, and what the messages need.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Dataset`] as [`TensorFile::open`]; [`Error::Dataset`] for a file that is no bank, of another
    /// version, or with settings that cannot be; [`Error::Tensor`] for a tensor that is missing, does not fit the others, or has
    /// a value that is no number.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = TensorFile::open(path)?;
        let refuse = |reason: String| Error::Dataset { path: path.to_path_buf(), reason };
        if file.metadata(FORMAT.0) != Some(FORMAT.1) {
            let found = file.metadata(FORMAT.0).map_or_else(
                || String::from("its metadata name no format"),
                |found| format!("its metadata name the format `{}`", printable(found)),
            );
            return Err(refuse(format!("no bank: {found}, expected `{}`", FORMAT.1)));
        }
        let version = file.metadata(VERSION.0).unwrap_or("none");
        if version != VERSION.1 {
            let found = printable(version);
            return Err(refuse(format!("a bank of version {found}, expected {}", VERSION.1)));
        }
        let text = |key: &str| {
            let value = file.metadata(key);
            value.ok_or_else(|| refuse(format!("its metadata have no `{key}`, which a bank has")))
        };
        let grid: Grid = text(GRID)?.parse().map_err(|_| {
            refuse(String::from("its metadata's `grid` is no grid, expected rows x columns"))
        })?;
        let broken = |key: &str, error: &dyn std::fmt::Display| {
            refuse(format!(
                "its metadata's `{key}` cannot be read: {}",
                printable(&error.to_string())
            ))
        };
        let settings: Written =
            serde_json::from_str(text(SETTINGS)?).map_err(|error| broken(SETTINGS, &error))?;
        let settings = settings
            .read()
            .map_err(|found| refuse(format!("its settings have {found}, which cannot be")))?;
        let names: Vec<String> =
            serde_json::from_str(text(NAMES)?).map_err(|error| broken(NAMES, &error))?;
        let threshold = text(THRESHOLD)?.parse::<f64>().ok().filter(|value| value.is_finite());
        let threshold = threshold.ok_or_else(|| {
            refuse(String::from("its metadata's `threshold` is no finite number"))
        })?;
        let patches = grid.rows.checked_mul(grid.columns).filter(|&patches| patches > 0);
        let (Some(patches), false) = (patches, settings.blocks.is_empty()) else {
            let found = format!("a grid of {grid} and {} feature layers", settings.blocks.len());
            return Err(refuse(format!("{found}, expected at least one patch and one layer")));
        };
        let mut bank = Bank {
            names,
            grid,
            width: 0,
            tokens: Vec::new(),
            class_width: 0,
            class_tokens: Vec::new(),
            content: Vec::new(),
            left_out: Vec::new(),
            raw_scores: Vec::new(),
            threshold,
            thumbnails: Thumbnails { size: ImageSize::square(1), pixels: Vec::new() },
            settings,
        };
        read_tensors(&mut bank, &mut file, patches)?;
        Ok(bank)
    }
}

/// The tensors, each compared with the number of names and the grid.
fn read_tensors(bank: &mut Bank, file: &mut TensorFile, patches: usize) -> Result<()> {
    let images = bank.names.len();
    let fits = |file: &TensorFile, name: &str, shape: &[usize], known: &[Option<usize>]| {
        if shape.iter().zip(known).all(|(size, known)| known.is_none_or(|known| known == *size)) {
            return Ok(());
        }
        let known: Vec<String> =
            known.iter().map(|size| size.map_or("any".into(), |size| size.to_string())).collect();
        let expected = format!("[{}], by the names, the grid and the layers", known.join(", "));
        Err(file.wrong(name, format!("shape {shape:?}"), expected))
    };
    let mut width = None;
    for block in bank.settings.blocks.clone() {
        let name = format!("tokens.{block}");
        let (shape, tokens) = file.halves(&name, &["M", "L", "C"])?;
        fits(file, &name, &shape, &[Some(images), Some(patches), width])?;
        if let Some((at, value)) = tokens.not_finite() {
            return Err(file.wrong(&name, format!("{value} at position {at}"), "finite numbers"));
        }
        width = shape.last().copied();
        bank.tokens.push(tokens);
    }
    bank.width = width.unwrap_or_default();
    let class_tokens = file.f32("class_tokens", &["M", "E"])?;
    fits(file, "class_tokens", &class_tokens.shape, &[Some(images), None])?;
    bank.class_width = class_tokens.shape.last().copied().unwrap_or_default();
    let raw_scores = file.f32("raw_scores", &["M"])?;
    fits(file, "raw_scores", &raw_scores.shape, &[Some(images)])?;
    for (name, values) in [("class_tokens", &class_tokens.data), ("raw_scores", &raw_scores.data)] {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let found = format!("{} at position {at}", values[at]);
            return Err(file.wrong(name, found, "finite numbers"));
        }
    }
    bank.class_tokens = class_tokens.data;
    bank.raw_scores = raw_scores.data;
    let content = file.u64("content", &["M"])?;
    fits(file, "content", &content.shape, &[Some(images)])?;
    bank.content = content.data;
    let thumbnails = file.bytes("thumbnails", &["M", "h", "w", "3"])?;
    fits(file, "thumbnails", &thumbnails.shape, &[Some(images), None, None, Some(3)])?;
    if let [_, height, width, _] = thumbnails.shape[..] {
        bank.thumbnails =
            Thumbnails { size: ImageSize::new(height, width), pixels: thumbnails.data };
    }
    if file.has("left_out") {
        let marks = file.bytes("left_out", &["M", "L"])?;
        fits(file, "left_out", &marks.shape, &[Some(images), Some(patches)])?;
        bank.left_out = marks.data.iter().map(|&mark| mark != 0).collect();
    }
    // What is left: no image, no width, an image of which nothing is left.
    if images == 0 || bank.width == 0 {
        return Err(file.wrong("tokens", "none", "at least one reference with tokens"));
    }
    let all_out = bank.left_out.chunks_exact(patches).position(|m| !m.contains(&false));
    match all_out {
        None => Ok(()),
        Some(image) => {
            let found = format!("all patches of image {image}");
            Err(file.wrong("left_out", found, "at least one patch that is left"))
        }
    }
}
