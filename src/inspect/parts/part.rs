//! Some images of a batch, scored, and many of those as one.

use std::path::PathBuf;

use crate::backend::FeatureSet;
use crate::dataset::Loaded;
use crate::inspect::work::Files;
use crate::{Error, Result};

/// Some images of a batch, scored against each other or against references: what one worker makes, and
/// [`Inspector::join`](crate::inspect::Inspector::join) puts together.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub(super) files: PartFiles,
    /// Patch scores an image; with tiles, of all its tiles.
    pub(super) patches: usize,
    pub(super) scored: Scored,
}

/// What was read of the files of a part.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::inspect) struct PartFiles {
    /// Places in the batch that were asked for, rising.
    pub asked: Vec<usize>,
    /// Those that could be read, rising.
    pub places: Vec<usize>,
    /// Width and height of each image's file.
    pub sizes: Vec<(u32, u32)>,
    /// Files that could not be read, with why.
    pub bad: Vec<(PathBuf, String)>,
    /// Images of 16 bits a channel.
    pub sixteen_bits: usize,
}

impl PartFiles {
    /// Of images that were loaded; `asked` are the places that the loading counted from 0.
    pub fn of(asked: &[usize], loaded: Loaded) -> Self {
        PartFiles {
            places: loaded.kept.iter().map(|&at| asked[at]).collect(),
            asked: asked.to_vec(),
            sizes: loaded.sizes,
            bad: loaded.bad,
            sixteen_bits: loaded.scaled_from_16_bit,
        }
    }
}

/// What is known of scored images, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::inspect) struct Scored {
    /// `[N, P]`.
    pub patch_scores: Vec<f32>,
    /// `[N, P]`, or empty where no patch is left out.
    pub left_out: Vec<bool>,
    /// `[N, P]` before they were rounded, where figures are to equal the authors' to the digit.
    pub exact_scores: Option<Vec<f64>>,
    /// `[N, E]`.
    pub class_tokens: Vec<f32>,
    pub class_width: usize,
}

impl Part {
    /// Images of these files, with `patches` patch scores of 0 each, for who fills them in.
    pub(in crate::inspect) fn empty(
        files: PartFiles,
        patches: usize,
        (class_tokens, class_width): (Vec<f32>, usize),
        exact: bool,
    ) -> Self {
        let values = files.places.len() * patches;
        Part {
            files,
            patches,
            scored: Scored {
                patch_scores: vec![0.0; values],
                left_out: Vec::new(),
                exact_scores: exact.then(|| vec![0.0; values]),
                class_tokens,
                class_width,
            },
        }
    }

    /// Images of these files, with the patch scores `[n, L]` of their features.
    pub(in crate::inspect) fn of_features(
        files: PartFiles,
        features: &impl FeatureSet,
        scores: &[f64],
        exact: bool,
    ) -> Result<Self> {
        let tokens = (features.class_tokens()?, features.class_width());
        let mut part = Part::empty(files, features.patches(), tokens, exact);
        if scores.len() != part.scored.patch_scores.len() {
            let expected = part.scored.patch_scores.len().to_string();
            return Err(Error::invalid("patch scores of a part", scores.len(), expected));
        }
        part.set(0, scores);
        part.scored.left_out = features.left_out().to_vec();
        Ok(part)
    }

    /// Sets patch scores from a position on.
    pub(in crate::inspect) fn set(&mut self, start: usize, scores: &[f64]) {
        let to = &mut self.scored.patch_scores[start..start + scores.len()];
        for (to, &score) in to.iter_mut().zip(scores) {
            *to = score as f32;
        }
        if let Some(exact) = &mut self.scored.exact_scores {
            exact[start..start + scores.len()].copy_from_slice(scores);
        }
    }

    /// Marks patches as left out, or not, from a position on.
    pub(in crate::inspect) fn mark(&mut self, start: usize, marks: &[bool]) {
        self.scored.left_out.resize(self.scored.patch_scores.len(), false);
        self.scored.left_out[start..start + marks.len()].copy_from_slice(marks);
    }

    /// Width and height of each image's file.
    pub(in crate::inspect) fn sides(&self) -> &[(u32, u32)] {
        &self.files.sizes
    }

    /// What is known of the images.
    pub(in crate::inspect) fn scored(&self) -> &Scored {
        &self.scored
    }

    /// Number of images that were scored.
    pub fn len(&self) -> usize {
        self.files.places.len()
    }

    /// Whether no image was scored.
    pub fn is_empty(&self) -> bool {
        self.files.places.is_empty()
    }

    /// The places in the batch of the images that were scored, rising.
    pub fn places(&self) -> &[usize] {
        &self.files.places
    }

    /// Files that could not be read, with why; empty unless they were to be skipped.
    pub fn skipped(&self) -> &[(PathBuf, String)] {
        &self.files.bad
    }
}

/// Parts of a batch as one, in the batch's order, whatever order they come in.
pub(in crate::inspect) struct Joined {
    /// The places that are expected, rising.
    places: Vec<usize>,
    state: Vec<State>,
    patches: usize,
    sizes: Vec<(u32, u32)>,
    bad: Vec<(PathBuf, String)>,
    sixteen_bits: usize,
    scored: Scored,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Expected,
    Scored,
    Unreadable,
}

impl Joined {
    /// Room for the images at these places, rising, once the first part says how large they are.
    pub fn new(places: Vec<usize>, exact: bool) -> Self {
        Joined {
            state: vec![State::Expected; places.len()],
            patches: 0,
            sizes: vec![(1, 1); places.len()],
            bad: Vec::new(),
            sixteen_bits: 0,
            scored: Scored { exact_scores: exact.then(Vec::new), ..Scored::default() },
            places,
        }
    }

    /// Takes in a part.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a part of other images, of images that were taken in before, or of another size than the first.
    pub fn add(&mut self, part: Part) -> Result<()> {
        let width = part.scored.class_width;
        if self.patches == 0 && !part.is_empty() {
            (self.patches, self.scored.class_width) = (part.patches, width);
            let values = self.places.len() * self.patches;
            self.scored.patch_scores.resize(values, 0.0);
            self.scored.class_tokens.resize(self.places.len() * width, 0.0);
            if let Some(exact) = &mut self.scored.exact_scores {
                exact.resize(values, 0.0);
            }
        }
        let sizes = (part.patches, width, part.scored.exact_scores.is_some());
        let expected = (self.patches, self.scored.class_width, self.scored.exact_scores.is_some());
        if !part.is_empty() && sizes != expected {
            let words = |(patches, width, exact): (usize, usize, bool)| {
                let kind = if exact { "f64" } else { "f32" };
                format!("{patches} patch scores in {kind} and class tokens of {width} values")
            };
            let expected = format!("{}, as the others have", words(expected));
            return Err(Error::invalid("images of a part", words(sizes), expected));
        }
        for place in &part.files.asked {
            let found = self.places.binary_search(place);
            let at = found.map_err(|_| {
                Error::invalid("image of a part", place, "one of the batch that can be read")
            })?;
            if self.state[at] != State::Expected {
                return Err(Error::invalid("image of a part", place, "one of no other part"));
            }
            self.state[at] = State::Unreadable;
        }
        let marked = !part.scored.left_out.is_empty();
        if marked && self.scored.left_out.is_empty() {
            self.scored.left_out.resize(self.scored.patch_scores.len(), false);
        }
        for (from, place) in part.files.places.iter().enumerate() {
            let Ok(to) = self.places.binary_search(place) else { continue };
            self.state[to] = State::Scored;
            self.sizes[to] = part.files.sizes.get(from).copied().unwrap_or((1, 1));
            let p = self.patches;
            copy(&mut self.scored.patch_scores, to, &part.scored.patch_scores, from, p);
            copy(&mut self.scored.class_tokens, to, &part.scored.class_tokens, from, width);
            if marked {
                copy(&mut self.scored.left_out, to, &part.scored.left_out, from, p);
            }
            if let (Some(exact), Some(of)) =
                (&mut self.scored.exact_scores, &part.scored.exact_scores)
            {
                copy(exact, to, of, from, p);
            }
        }
        self.bad.extend(part.files.bad);
        self.sixteen_bits += part.files.sixteen_bits;
        Ok(())
    }

    /// The images that could be read.
    ///
    /// # Errors
    /// [`Error::Invalid`] when images are in no part.
    pub fn finish(mut self) -> Result<(Files, Scored)> {
        let missing: Vec<usize> = self
            .places
            .iter()
            .zip(&self.state)
            .filter(|(_, state)| **state == State::Expected)
            .map(|(&place, _)| place)
            .collect();
        if let Some(first) = missing.first() {
            return Err(Error::invalid(
                "parts of the batch",
                format!(
                    "{} of {} images in none, image {first} first",
                    missing.len(),
                    self.places.len()
                ),
                "every image in one",
            ));
        }
        if self.state.contains(&State::Unreadable) {
            let scored: Vec<bool> =
                self.state.iter().map(|state| *state == State::Scored).collect();
            let (patches, width) = (self.patches, self.scored.class_width);
            keep(&mut self.places, &scored, 1);
            keep(&mut self.sizes, &scored, 1);
            keep(&mut self.scored.patch_scores, &scored, patches);
            keep(&mut self.scored.left_out, &scored, patches);
            keep(&mut self.scored.class_tokens, &scored, width);
            if let Some(exact) = &mut self.scored.exact_scores {
                keep(exact, &scored, patches);
            }
        }
        let files = Files {
            kept: self.places,
            bad: self.bad,
            sizes: self.sizes,
            sixteen_bits: self.sixteen_bits,
        };
        Ok((files, self.scored))
    }
}

fn copy<T: Copy>(to: &mut [T], at: usize, from: &[T], image: usize, values: usize) {
    to[at * values..][..values].copy_from_slice(&from[image * values..][..values]);
}

/// The values of the images that are kept, moved to the front.
fn keep<T: Copy>(all: &mut Vec<T>, kept: &[bool], values: usize) {
    if all.is_empty() {
        return;
    }
    let mut to = 0;
    for (from, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
        all.copy_within(from * values..(from + 1) * values, to * values);
        to += 1;
    }
    all.truncate(to * values);
}
