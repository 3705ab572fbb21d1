//! References that are kept: in memory in 16 bits, and as one safetensors file.
//!
//! A [`Bank`] is what [`ReferenceSet`](super::ReferenceSet) is made of. Tokens are rounded to 16 bits when it is made, and its own
//! raw scores are those of the rounded tokens, so that a bank that was read scores as the one that was written.
//!
//! # Memory
//! layers·M·L·C·2 bytes, and M·(4·E + a thumbnail); making one, or references of one, takes the tokens in f32 besides.

mod file;
mod make;
mod settings;

use std::collections::HashSet;

pub use self::settings::BankSettings;
pub(super) use self::settings::refuse_differences;
pub(super) use self::settings::{SIMILARITIES, activation_name};
use crate::backend::HostFeatures;
use crate::backend::features::{join_marks, replace_marks};
use crate::scoring::decision::{DecisionRule, threshold};
use crate::tensor_file::Halves;
use crate::{Grid, ImageSize, Result};

/// References with all that is needed to compare others with them: tokens, class tokens, their raw scores among themselves, the
/// threshold, the settings they were made with, their names and small pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Bank {
    pub(in crate::inspect) settings: BankSettings,
    pub(in crate::inspect) names: Vec<String>,
    pub(in crate::inspect) grid: Grid,
    pub(in crate::inspect) width: usize,
    /// One `[M, L, C]` a layer.
    pub(in crate::inspect) tokens: Vec<Halves>,
    pub(in crate::inspect) class_width: usize,
    pub(in crate::inspect) class_tokens: Vec<f32>,
    pub(in crate::inspect) content: Vec<u64>,
    pub(in crate::inspect) left_out: Vec<bool>,
    pub(in crate::inspect) raw_scores: Vec<f32>,
    pub(in crate::inspect) threshold: f64,
    pub(in crate::inspect) thumbnails: Thumbnails,
}

/// Small pictures, all of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thumbnails {
    /// Height and width.
    pub size: ImageSize,
    /// RGB, 8 bit, `[M, height, width, 3]`.
    pub pixels: Vec<u8>,
}

impl Bank {
    /// Number of references M.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What it was made with.
    pub fn settings(&self) -> &BankSettings {
        &self.settings
    }

    /// The references' names, `[M]`: paths as they were given.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Raw scores of the references among themselves, `[M]`.
    pub fn raw_scores(&self) -> &[f32] {
        &self.raw_scores
    }

    /// The threshold that the rule of the settings makes of the raw scores: an image above it is defective.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Small pictures of the references.
    pub fn thumbnails(&self) -> &Thumbnails {
        &self.thumbnails
    }

    /// Whether parts of the references are not looked at, beside what is no picture.
    pub fn has_regions(&self) -> bool {
        !self.settings.pads() && self.left_out.contains(&true)
    }

    /// The grid of patches.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The format of the tokens, layer by layer: `f16`, or `bf16` where tokens are beyond it.
    pub fn formats(&self) -> Vec<&'static str> {
        self.tokens.iter().map(Halves::format).collect()
    }

    /// A hash of each reference's pixels, `[M]`.
    pub fn content(&self) -> &[u64] {
        &self.content
    }

    /// With the threshold of another rule.
    ///
    /// # Errors
    /// As [`threshold`]; F1, which needs labels.
    pub fn with_rule(mut self, rule: DecisionRule) -> Result<Self> {
        self.threshold = bank_threshold(rule, &self.raw_scores)?;
        self.settings.rule = rule;
        Ok(self)
    }

    /// The features, in f32.
    pub(in crate::inspect) fn features(&self) -> HostFeatures {
        HostFeatures::new(
            self.len(),
            self.grid,
            self.width,
            self.settings.blocks.clone(),
            self.tokens.iter().map(Halves::to_f32).collect(),
        )
        .with_class_tokens(self.class_width, self.class_tokens.clone())
        .with_content(self.content.clone())
        .with_left_out(self.left_out.clone())
    }

    /// Some of the references, in this order; the raw scores and the threshold stay what they were.
    pub(in crate::inspect) fn some(&self, places: &[usize]) -> Self {
        let (patches, thumb) = (self.grid.patches(), self.thumbnails.size.pixels() * 3);
        let tokens =
            self.tokens.iter().map(|layer| pick_halves(layer, places, patches * self.width));
        Bank {
            settings: self.settings.clone(),
            names: places.iter().map(|&at| self.names[at].clone()).collect(),
            grid: self.grid,
            width: self.width,
            tokens: tokens.collect(),
            class_width: self.class_width,
            class_tokens: pick(&self.class_tokens, places, self.class_width),
            content: pick(&self.content, places, 1),
            left_out: if self.left_out.is_empty() {
                Vec::new()
            } else {
                pick(&self.left_out, places, patches)
            },
            raw_scores: pick(&self.raw_scores, places, 1),
            threshold: self.threshold,
            thumbnails: Thumbnails {
                size: self.thumbnails.size,
                pixels: pick(&self.thumbnails.pixels, places, thumb),
            },
        }
    }

    /// Another bank's references behind these; the raw scores are put side by side, and the threshold stays.
    pub(in crate::inspect) fn push(&mut self, other: &Bank) {
        self.settings.add_features(&other.settings.features);
        let patches = self.grid.patches();
        let images = self.len();
        join_marks((&mut self.left_out, images), (&other.left_out, other.len()), patches);
        for (one, two) in self.tokens.iter_mut().zip(&other.tokens) {
            let joined = match (&*one, two) {
                (Halves::F16(one), Halves::F16(two)) => Halves::F16([&one[..], two].concat()),
                (Halves::Bf16(one), Halves::Bf16(two)) => Halves::Bf16([&one[..], two].concat()),
                (one, two) => Halves::round(&[one.to_f32(), two.to_f32()].concat()),
            };
            *one = joined;
        }
        self.names.extend(other.names.iter().cloned());
        self.class_tokens.extend(&other.class_tokens);
        self.content.extend(&other.content);
        self.raw_scores.extend(&other.raw_scores);
        self.thumbnails.pixels.extend(&other.thumbnails.pixels);
    }
}

impl Bank {
    /// The only reference of another bank in the place of one.
    pub(in crate::inspect) fn replace(&mut self, at: usize, one: &Bank) {
        self.settings.add_features(&one.settings.features);
        let patches = self.grid.patches();
        let images = self.len();
        replace_marks((&mut self.left_out, images), at, &one.left_out, patches);
        let values = at * patches * self.width..(at + 1) * patches * self.width;
        for (to, from) in self.tokens.iter_mut().zip(&one.tokens) {
            match (&mut *to, from) {
                (Halves::F16(to), Halves::F16(from)) => to[values.clone()].copy_from_slice(from),
                (Halves::Bf16(to), Halves::Bf16(from)) => to[values.clone()].copy_from_slice(from),
                (_, from) => {
                    let mut wide = to.to_f32();
                    wide[values.clone()].copy_from_slice(&from.to_f32());
                    *to = Halves::round(&wide);
                }
            }
        }
        let (width, thumb) = (self.class_width, self.thumbnails.size.pixels() * 3);
        self.class_tokens[at * width..][..width].copy_from_slice(&one.class_tokens);
        self.thumbnails.pixels[at * thumb..][..thumb].copy_from_slice(&one.thumbnails.pixels);
        self.names[at].clone_from(&one.names[0]);
        self.content[at] = one.content[0];
        self.raw_scores[at] = one.raw_scores[0];
    }
}

/// The threshold that a rule makes of references' raw scores.
pub(in crate::inspect) fn bank_threshold(rule: DecisionRule, raw_scores: &[f32]) -> Result<f64> {
    threshold(rule, raw_scores, &[])
}

/// Values of the images at these places, `size` an image.
fn pick<T: Copy>(values: &[T], places: &[usize], size: usize) -> Vec<T> {
    places.iter().flat_map(|&at| &values[at * size..][..size]).copied().collect()
}

fn pick_halves(values: &Halves, places: &[usize], size: usize) -> Halves {
    match values {
        Halves::F16(values) => Halves::F16(pick(values, places, size)),
        Halves::Bf16(values) => Halves::Bf16(pick(values, places, size)),
    }
}

impl Bank {
    /// A bank whose raw scores are 0: still to be made.
    pub(in crate::inspect) fn of_features(
        settings: BankSettings,
        features: HostFeatures,
        names: Vec<String>,
        thumbnails: Thumbnails,
    ) -> Self {
        let content = features.known_content().into_owned();
        // A layer at a time, so that both forms are never here in full.
        let tokens = features.tokens.into_iter().map(|tokens| Halves::round(&tokens)).collect();
        Bank {
            settings,
            grid: features.grid,
            width: features.width,
            tokens,
            class_width: features.class_width,
            class_tokens: features.class_tokens,
            content,
            left_out: features.left_out,
            raw_scores: vec![0.0; names.len()],
            threshold: 0.0,
            thumbnails,
            names,
        }
    }
}

/// Of images with the same pixels the first.
fn without_duplicates(bank: Bank) -> Bank {
    let mut seen = HashSet::new();
    let places: Vec<usize> = (0..bank.len()).filter(|&at| seen.insert(bank.content[at])).collect();
    if places.len() == bank.len() { bank } else { bank.some(&places) }
}
