//! Tokens of N images: on the card, or page-locked on the host when they do not fit or several cards share them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::buffer::{Buffer, Pinned, View};
use super::card::Card;
use super::launch::Half;
use super::stream::{Event, Stream};
use super::weights::widen;
use crate::backend::FeatureSet;
use crate::{Error, Grid, Result};

/// What the width of tokens on a card is padded to a multiple of.
pub(super) const WIDTH_STEP: usize = 128;

/// Where patch tokens are, one `[N, L, stride]` a layer.
pub(super) enum Place {
    /// In the memory of the one card.
    Card(Vec<Buffer<u16>>),
    /// Page-locked on the host; cards take them in blocks of images.
    Host(Vec<Pinned<u16>>),
}

/// Patch tokens in a 16-bit format and class tokens in f32.
pub struct Features {
    pub(super) images: usize,
    pub(super) grid: Grid,
    pub(super) patches: usize,
    /// C.
    pub(super) width: usize,
    /// From one token to the next: C, padded with zeros to a multiple of [`WIDTH_STEP`].
    pub(super) stride: usize,
    pub(super) layers: Vec<usize>,
    pub(super) half: Half,
    pub(super) place: Place,
    pub(super) class_width: usize,
    /// `[N, E]`, on the host: re-scoring is done there.
    pub(super) class_tokens: Vec<f32>,
    pub(super) content: Vec<u64>,
    pub(super) left_out: Vec<bool>,
}

impl fmt::Debug for Features {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Features")
            .field("images", &self.images)
            .field("grid", &self.grid)
            .field("width", &self.width)
            .field("layers", &self.layers)
            .field("half", &self.half)
            .field("on_card", &self.on_card())
            .finish_non_exhaustive()
    }
}

impl Features {
    /// Whether the patch tokens are in a card's memory.
    pub fn on_card(&self) -> bool {
        matches!(self.place, Place::Card(_))
    }

    /// Another hash of each image's pixels, `[N]`.
    #[cfg(feature = "files")]
    pub(crate) fn set_content(&mut self, content: Vec<u64>) {
        self.content = content;
    }

    /// The 16-bit format of the patch tokens.
    pub fn half(&self) -> Half {
        self.half
    }

    /// Values of one image, with the padding.
    pub(super) fn image_values(&self) -> usize {
        self.patches * self.stride
    }
}

impl FeatureSet for Features {
    fn images(&self) -> usize {
        self.images
    }

    fn grid(&self) -> Grid {
        self.grid
    }

    fn content(&self) -> &[u64] {
        &self.content
    }

    fn left_out(&self) -> &[bool] {
        &self.left_out
    }

    fn width(&self) -> usize {
        self.width
    }

    fn layers(&self) -> &[usize] {
        &self.layers
    }

    fn class_width(&self) -> usize {
        self.class_width
    }

    fn class_tokens(&self) -> Result<Vec<f32>> {
        Ok(self.class_tokens.clone())
    }

    fn patch_tokens(&self, index: usize) -> Result<Vec<f32>> {
        let absent =
            |layers: usize| Error::invalid("feature layer index", index, format!("below {layers}"));
        let mut padded = vec![0.0; self.images * self.image_values()];
        match &self.place {
            Place::Host(layers) => {
                let layer = layers.get(index).ok_or_else(|| absent(layers.len()))?;
                widen(self.half, layer, &mut padded);
            }
            Place::Card(layers) => {
                let layer = layers.get(index).ok_or_else(|| absent(layers.len()))?;
                let stream = layer.card().stream()?;
                let bits = stream.download_new(layer.view())?;
                widen(self.half, &bits, &mut padded);
            }
        }
        if self.width == self.stride {
            return Ok(padded);
        }
        Ok(padded
            .chunks_exact(self.stride)
            .flat_map(|token| &token[..self.width])
            .copied()
            .collect())
    }
}

/// Where an extraction writes the tokens of a run of images.
pub(super) enum Sink<'a> {
    /// Into the card's buffers, from image 0 of the run on.
    Card(&'a mut [Buffer<u16>]),
    /// Into the run's part of each layer's page-locked memory.
    Host(Vec<&'a mut [u16]>),
}

/// Tokens of a layer for the scoring of one card: runs of images by address, loaded when they are on the host.
pub(super) struct Blocks<'a> {
    features: &'a Features,
    layer: usize,
    /// Images of a block.
    size: usize,
    slots: Vec<Slot>,
    copies: Option<Stream>,
}

struct Slot {
    tokens: Buffer<u16>,
    holds: Option<(usize, usize)>,
    ready: Event,
    released: Event,
}

impl<'a> Blocks<'a> {
    /// Blocks of `size` images, in up to `slots` places on the card. Those are only allocated for tokens on the host,
    /// and only one where a block is all.
    pub fn new(
        card: &Arc<Card>,
        features: &'a Features,
        size: usize,
        slots: usize,
    ) -> Result<Self> {
        let mut blocks = Blocks { features, layer: 0, size, slots: Vec::new(), copies: None };
        if !features.on_card() {
            let count = if size >= features.images { 1 } else { slots };
            for _ in 0..count {
                blocks.slots.push(Slot {
                    tokens: card.alloc(size * features.image_values(), "a block of tokens")?,
                    holds: None,
                    ready: card.event()?,
                    released: card.event()?,
                });
            }
            blocks.copies = Some(card.stream()?);
        }
        Ok(blocks)
    }

    /// The images of a block.
    pub fn images(&self, block: usize) -> Range<usize> {
        block * self.size..self.features.images.min((block + 1) * self.size)
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.features.images.div_ceil(self.size.max(1))
    }

    /// Turns to another layer.
    pub fn set_layer(&mut self, layer: usize) {
        self.layer = layer;
    }

    /// Makes sure that the block is in the slot when `compute` gets to what it is given next. Slots beyond those there
    /// are mean the only one.
    pub fn ensure(&mut self, block: usize, slot: usize, compute: &Stream) -> Result<()> {
        let Place::Host(layers) = &self.features.place else { return Ok(()) };
        let range = self.images(block);
        let at = slot.min(self.slots.len() - 1);
        let values = self.features.image_values();
        let (Some(copies), Some(layer)) = (&self.copies, layers.get(self.layer)) else {
            return Ok(());
        };
        let slot = &mut self.slots[at];
        if slot.holds != Some((self.layer, block)) {
            copies.wait(&slot.released)?;
            let from = &layer[range.start * values..range.end * values];
            let to = slot.tokens.view_mut().part(0..from.len())?;
            // SAFETY: the tokens are borrowed as long as `self`, whose drop waits for the copies; nobody writes them.
            unsafe { copies.upload_async(to, from)? };
            copies.record(&slot.ready)?;
            slot.holds = Some((self.layer, block));
        }
        compute.wait(&slot.ready)
    }

    /// Says that `compute` needs the slot's block no more after what it was given so far.
    pub fn release(&self, slot: usize, compute: &Stream) -> Result<()> {
        match self.slots.get(slot.min(self.slots.len().saturating_sub(1))) {
            Some(slot) => compute.record(&slot.released),
            None => Ok(()),
        }
    }

    /// The tokens of images of a block that is in a slot.
    pub fn tokens(&self, slot: usize, images: &Range<usize>) -> Result<View<'_, u16>> {
        let values = self.features.image_values();
        match &self.features.place {
            Place::Card(layers) => {
                let layer = layers.get(self.layer).ok_or_else(|| {
                    Error::invalid(
                        "feature layer index",
                        self.layer,
                        format!("below {}", layers.len()),
                    )
                })?;
                layer.view().part(images.start * values..images.end * values)
            }
            Place::Host(_) => {
                let slot = &self.slots[slot.min(self.slots.len() - 1)];
                let first = slot.holds.map_or(0, |(_, block)| self.images(block).start);
                slot.tokens
                    .view()
                    .part((images.start - first) * values..(images.end - first) * values)
            }
        }
    }
}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        if let Some(copies) = &self.copies {
            // An error of the copies shows again at the next synchronisation.
            let _ = copies.synchronise();
        }
    }
}
