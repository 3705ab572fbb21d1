//! The vision transformer on a card: batches of images through the blocks, tokens kept where they are wanted.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::{Buffer, View};
use super::card::Card;
use super::features::Sink;
use super::launch::gemm::Operands;
use super::launch::layer_norm::Rows;
use super::launch::{Half, Matrix, attention, gemm, layer_norm, patch_embed};
use super::plan::BackboneSizes;
use super::staging::Staging;
use super::stream::{Event, Stream};
use super::weights::{Linear, Weights, round};
use crate::backend::Extraction;
use crate::backend::input::{Image, Images};
use crate::backend::patch_embed::patch_rows;
use crate::model::{Family, Vit};
use crate::progress::go_on;
use crate::{Error, Progress, Result};

/// A backbone on one card, ready for one extraction setting.
pub(super) struct CardModel {
    card: Arc<Card>,
    half: Half,
    family: Family,
    sizes: BackboneSizes,
    heads: usize,
    weights: Weights,
    extraction: Extraction,
}

/// What of each image goes to the host wherever its tokens are.
pub(super) struct OfImages {
    /// After the final norm, `[n, D]`.
    pub class_tokens: Vec<f32>,
    /// The hash of its pixels, `[n]`.
    pub content: Vec<u64>,
}

/// The memory of a batch.
struct Workspace {
    /// Pixels of two batches: one is copied while the other is read.
    pixels: [Buffer<u8>; 2],
    rows: Buffer<u16>,
    /// The residual stream.
    residual: Buffer<f32>,
    normed: Buffer<u16>,
    qkv: Buffer<u16>,
    mlp: Buffer<u16>,
    /// Tokens of each layer on their way to the host, of two batches.
    leaving: [Vec<Buffer<u16>>; 2],
    /// Class tokens of all images, after the final norm.
    class: Buffer<f32>,
}

impl CardModel {
    /// Puts the weights on the card.
    pub fn new(card: &Arc<Card>, vit: &Vit, extraction: &Extraction, half: Half) -> Result<Self> {
        let architecture = &vit.architecture;
        let grid = extraction.grid(vit)?;
        let width = architecture.width;
        if !width.is_multiple_of(layer_norm::WIDTH_STEP) || width > layer_norm::MAX_WIDTH {
            return Err(Error::invalid(
                format!("width of the backbone, on {}", card.info().label),
                width,
                format!("a multiple of {} up to {}", layer_norm::WIDTH_STEP, layer_norm::MAX_WIDTH),
            ));
        }
        if grid.patches() >= attention::MAX_TOKENS {
            return Err(Error::invalid(
                format!("grid of patches, on {}", card.info().label),
                format!("{grid}, {} patches", grid.patches()),
                format!("at most {}: choose a smaller image size", attention::MAX_TOKENS - 1),
            ));
        }
        Ok(CardModel {
            card: Arc::clone(card),
            half,
            family: architecture.family,
            sizes: BackboneSizes {
                width,
                depth: architecture.depth,
                mlp_width: architecture.mlp_width,
                patch: architecture.patch,
                grid,
            },
            heads: architecture.heads,
            weights: Weights::new(card, vit, half, grid)?,
            extraction: extraction.clone(),
        })
    }

    /// The sizes at work.
    pub fn sizes(&self) -> &BackboneSizes {
        &self.sizes
    }

    /// The least that a batch of so many images at hand can be cut to: what was asked for, or one image.
    pub fn least_batch(&self, images: usize) -> usize {
        self.extraction.batch_size.clamp(1, images.max(1))
    }

    /// Images of a batch: what was asked for, or what fills the card and fits it.
    fn batch(&self, images: usize, layers_to_host: usize) -> Result<usize> {
        if self.extraction.batch_size > 0 {
            return Ok(self.least_batch(images));
        }
        // A tenth is left for what is not counted: class tokens, and gaps between allocations.
        let available = self.card.available_bytes()? / 10 * 9;
        Ok(self.sizes.batch_within(layers_to_host, available).clamp(1, images.max(1)))
    }

    fn workspace(&self, images: usize, batch: usize, layers_to_host: usize) -> Result<Workspace> {
        let (card, width) = (&self.card, self.sizes.width);
        let (patches, patch) = (self.sizes.patches(), self.sizes.patch);
        let tokens = batch * (patches + 1);
        let pixels = || card.alloc(batch * patches * patch * patch * 3, "pixels");
        let leaving = || {
            (0..layers_to_host)
                .map(|_| card.alloc(batch * patches * width, "tokens on their way"))
                .collect::<Result<Vec<_>>>()
        };
        Ok(Workspace {
            pixels: [pixels()?, pixels()?],
            rows: card
                .alloc(batch * patches * patch_embed::row_width(self.sizes.patch), "patch rows")?,
            residual: card.alloc(tokens * width, "residual stream")?,
            normed: card.alloc(tokens * width, "normalised rows")?,
            qkv: card.alloc(tokens * 3 * width, "query, key, value")?,
            mlp: card.alloc(tokens * self.sizes.mlp_width, "MLP")?,
            leaving: [leaving()?, leaving()?],
            class: card.alloc(images * width, "class tokens")?,
        })
    }

    /// Tokens of the images into `sink`, and what goes to the host in any case.
    pub fn extract(
        &self,
        images: &Images<'_>,
        mut sink: Sink<'_>,
        progress: &dyn Progress,
    ) -> Result<OfImages> {
        let count = images.len();
        let layers_to_host =
            if matches!(sink, Sink::Host(_)) { self.extraction.layers.len() } else { 0 };
        let batch = self.batch(count, layers_to_host)?;
        let width = self.sizes.width;
        let mut run = Run {
            compute: self.card.stream()?,
            leaving: self.card.stream()?,
            ready: events(&self.card)?,
            read: events(&self.card)?,
            made: events(&self.card)?,
            left: events(&self.card)?,
            staging: Staging::new(&self.card)?,
        };
        let mut work = self.workspace(count, batch, layers_to_host)?;
        let content = self.batches(images, batch, &mut run, &mut work, &mut sink, progress);
        // Whatever happened, nothing runs any more when the borrowed memory goes back.
        let waited = run.leaving.synchronise().and(run.compute.synchronise());
        let content = content?;
        waited?;
        let class_tokens = run.compute.download_new(work.class.view().part(0..count * width)?)?;
        Ok(OfImages { class_tokens, content })
    }

    /// All batches, one after another. The hash of each image's pixels, taken as it comes.
    fn batches(
        &self,
        images: &Images<'_>,
        batch: usize,
        run: &mut Run,
        work: &mut Workspace,
        sink: &mut Sink<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<u64>> {
        let values = self.sizes.patches() * self.sizes.width;
        let mut content = Vec::with_capacity(images.len());
        let mut under_way: Option<usize> = None;
        for (number, start) in (0..images.len()).step_by(batch).enumerate() {
            go_on(progress)?;
            let turn = number % 2;
            let range = start..images.len().min(start + batch);
            let ready = images.part(range.clone()).all()?;
            content.extend(ready.iter().map(|image| image.content()));
            let normalised = self.input(&ready, run, work, turn)?;
            run.compute.wait(&run.ready[turn])?;
            // The tokens of the batch before last must have left before new ones take their place.
            run.compute.wait(&run.left[turn])?;
            self.one_batch(run, work, turn, &range, normalised, sink)?;
            run.compute.record(&run.made[turn])?;
            if let Sink::Host(layers) = sink {
                run.leaving.wait(&run.made[turn])?;
                for (layer, from) in layers.iter_mut().zip(&work.leaving[turn]) {
                    let to = &mut layer[range.start * values..range.end * values];
                    let from = from.view().part(0..to.len())?;
                    // SAFETY: the sink is borrowed until `extract` ends, which waits for the stream before; each batch
                    // has a part of its own, that nobody reads before.
                    unsafe { run.leaving.download_async(from, to)? };
                }
                run.leaving.record(&run.left[turn])?;
            }
            // One batch runs while the next is made ready, no more.
            if let Some(images) = under_way.replace(range.len()) {
                run.made[1 - turn].synchronise()?;
                progress.advance(images as u64);
            }
        }
        run.compute.synchronise()?;
        progress.advance(under_way.unwrap_or(0) as u64);
        Ok(content)
    }

    /// Gives a batch's pixels to the copying stream; or its patch rows, where the pixels come normalised. Tells which.
    fn input(
        &self,
        images: &[Image<'_>],
        run: &mut Run,
        work: &mut Workspace,
        turn: usize,
    ) -> Result<bool> {
        let BackboneSizes { patch, grid, .. } = self.sizes;
        let patches = grid.patches();
        let normalised = images.iter().any(|image| matches!(image, Image::Normalised(_)));
        run.staging.stream().wait(&run.read[turn])?;
        if normalised {
            // The rows are held once: both halves must have been read.
            run.staging.stream().wait(&run.read[1 - turn])?;
            let (row, padded) = (3 * patch * patch, patch_embed::row_width(patch));
            let mut rows = vec![0.0f32; patches * row];
            let mut bits = vec![0u16; images.len() * patches * padded];
            for (image, bits) in images.iter().zip(bits.chunks_exact_mut(patches * padded)) {
                patch_rows(image, &self.extraction.normalisation, grid, patch, &mut rows);
                for (to, from) in bits.chunks_exact_mut(padded).zip(rows.chunks_exact(row)) {
                    round(self.half, from, &mut to[..row]);
                }
            }
            let to = work.rows.view_mut().part(0..bits.len())?;
            run.staging.send(to, |first, part: &mut [u16]| {
                part.copy_from_slice(&bits[first..first + part.len()]);
            })?;
        } else {
            let values = patches * patch * patch * 3;
            let to = work.pixels[turn].view_mut().part(0..images.len() * values)?;
            run.staging.send(to, |first, mut part: &mut [u8]| {
                let mut at = first;
                while !part.is_empty() {
                    let (image, offset) = (at / values, at % values);
                    let length = part.len().min(values - offset);
                    let (head, tail) = part.split_at_mut(length);
                    if let Some(Image::Rgb(image)) = images.get(image) {
                        head.copy_from_slice(&image.data[offset..offset + length]);
                    }
                    (part, at) = (tail, at + length);
                }
            })?;
        }
        run.staging.stream().record(&run.ready[turn])?;
        Ok(normalised)
    }

    /// A batch from pixels to tokens.
    fn one_batch(
        &self,
        run: &Run,
        work: &mut Workspace,
        turn: usize,
        range: &Range<usize>,
        normalised: bool,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let BackboneSizes { width, patch, grid, .. } = self.sizes;
        let (half, count, patches) = (self.half, range.len(), grid.patches());
        let (tokens, compute, weights) = (count * (patches + 1), &run.compute, &self.weights);
        if !normalised {
            let pixels = work.pixels[turn].view();
            let sizes = (count, grid, patch);
            let rows = work.rows.view_mut();
            patch_embed::rows(compute, half, pixels, &self.extraction.normalisation, sizes, rows)?;
        }
        let class_row = weights.positions.view().part(0..width)?;
        patch_embed::class(compute, class_row, (count, grid, width), work.residual.view_mut())?;
        gemm::embed(
            compute,
            &operands(half, work.rows.view(), count * patches, &weights.patch),
            weights.positions.view(),
            patches,
            work.residual.view_mut(),
        )?;
        // Pixels and rows are read.
        compute.record(&run.read[turn])?;
        if let Some(norm) = &weights.pre_norm {
            let residual = work.residual.view_mut();
            layer_norm::stream_in_place(compute, tokens, width, norm.norm(), residual)?;
        }
        for (index, block) in weights.blocks.iter().enumerate() {
            let (scale1, scale2) = block.scales();
            let all = Rows::All(tokens);
            let (residual, normed) = (work.residual.view(), work.normed.view_mut());
            layer_norm::store(
                compute,
                half,
                residual,
                all,
                width,
                Some(block.norm1.norm()),
                normed,
            )?;
            let input = operands(half, work.normed.view(), tokens, &block.qkv);
            gemm::bias(compute, &input, block.qkv.bias.view(), None, work.qkv.view_mut())?;
            let (qkv, out) = (work.qkv.view(), work.normed.view_mut());
            attention::flash(compute, half, qkv, out, count, patches + 1, self.heads)?;
            let input = operands(half, work.normed.view(), tokens, &block.out);
            let residual = work.residual.view_mut();
            gemm::bias_residual(compute, &input, block.out.bias.view(), scale1, residual)?;
            let (residual, normed) = (work.residual.view(), work.normed.view_mut());
            layer_norm::store(
                compute,
                half,
                residual,
                all,
                width,
                Some(block.norm2.norm()),
                normed,
            )?;
            let input = operands(half, work.normed.view(), tokens, &block.fc1);
            let activation = Some(self.extraction.activation);
            let hidden = work.mlp.view_mut();
            gemm::bias(compute, &input, block.fc1.bias.view(), activation, hidden)?;
            let input = operands(half, work.mlp.view(), tokens, &block.fc2);
            let residual = work.residual.view_mut();
            gemm::bias_residual(compute, &input, block.fc2.bias.view(), scale2, residual)?;
            self.keep(compute, work, turn, index, range, sink)?;
        }
        let class = work.class.view_mut().part(range.start * width..range.end * width)?;
        let rows = Rows::Class { images: count, patches };
        let norm = weights.final_norm.norm();
        layer_norm::stream(compute, work.residual.view(), rows, width, norm, class)
    }

    /// Stores the tokens after block `index` where it is a feature layer: after the final norm where the family has them so.
    fn keep(
        &self,
        compute: &Stream,
        work: &mut Workspace,
        turn: usize,
        index: usize,
        range: &Range<usize>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let (width, patches) = (self.sizes.width, self.sizes.patches());
        let values = patches * width;
        for (at, _) in self.extraction.layers.iter().enumerate().filter(|(_, l)| **l == index) {
            let out = match sink {
                Sink::Card(layers) => {
                    layers[at].view_mut().part(range.start * values..range.end * values)?
                }
                Sink::Host(_) => work.leaving[turn][at].view_mut().part(0..range.len() * values)?,
            };
            let rows = Rows::Patches { images: range.len(), patches };
            let norm = self.family.norms_patch_tokens().then(|| self.weights.final_norm.norm());
            layer_norm::store(compute, self.half, work.residual.view(), rows, width, norm, out)?;
        }
        Ok(())
    }
}

/// The streams and events of an extraction. For each of the two turns: the copy in is done, its reading is done, the
/// tokens are made, the tokens have left.
struct Run {
    compute: Stream,
    leaving: Stream,
    ready: [Event; 2],
    read: [Event; 2],
    made: [Event; 2],
    left: [Event; 2],
    staging: Staging,
}

fn events(card: &Arc<Card>) -> Result<[Event; 2]> {
    Ok([card.event()?, card.event()?])
}

/// Dense rows times a layer's weights.
fn operands<'a>(half: Half, rows: View<'a, u16>, count: usize, linear: &'a Linear) -> Operands<'a> {
    let k = linear.inputs();
    Operands { half, a: Matrix { values: rows, rows: count, stride: k }, b: linear.matrix(), k }
}
