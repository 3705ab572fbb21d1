//! The images of a set on one card: what LNAMD made of them, their tokens in blocks, and unit tokens for a radius.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::{Buffer, View};
use super::card::Card;
use super::features::{Blocks, Features};
use super::launch::lnamd::Statistics;
use super::launch::{MAX_DEGREES, Side, lnamd, local_distance};
use super::patch_scores::Job;
use super::stream::Stream;
use crate::{Error, Result};

/// The images of a set.
pub(super) struct ImageSet<'a> {
    features: &'a Features,
    row_sum: Buffer<f32>,
    mean: Buffer<f32>,
    /// `[R, N, L]`.
    inv_norm: Buffer<f32>,
    pub blocks: Blocks<'a>,
    layer: usize,
}

impl<'a> ImageSet<'a> {
    /// Room for `degrees` degrees, and for blocks of so many images in so many places.
    pub fn new(
        card: &Arc<Card>,
        features: &'a Features,
        degrees: usize,
        (block, slots): (usize, usize),
    ) -> Result<Self> {
        let (n, l) = (features.images, features.patches);
        Ok(ImageSet {
            features,
            row_sum: card.alloc(n * l, "row sums")?,
            mean: card.alloc(n, "means")?,
            inv_norm: card.alloc(degrees * n * l, "norms")?,
            blocks: Blocks::new(card, features, block, slots)?,
            layer: 0,
        })
    }

    /// What the kernels of pairs take, with the norms of a run of degrees.
    pub fn side(&self, degrees: Range<usize>) -> Result<Side<'_>> {
        let of_degree = self.features.images * self.features.patches;
        Ok(Side {
            row_sum: self.row_sum.view(),
            mean: self.mean.view(),
            inv_norm: self
                .inv_norm
                .view()
                .part(degrees.start * of_degree..degrees.end * of_degree)?,
            images: self.features.images,
        })
    }

    /// Row sums, means and norms of a layer. Blocks take two places in turn, from `first_slot` on.
    pub fn begin_layer(
        &mut self,
        stream: &Stream,
        layer: usize,
        degrees: &[usize],
        first_slot: usize,
    ) -> Result<()> {
        let features = self.features;
        let (n, l) = (features.images, features.patches);
        let widths = (features.stride, features.width);
        self.layer = layer;
        self.blocks.set_layer(layer);
        for block in 0..self.blocks.count() {
            let slot = first_slot + block % 2;
            self.blocks.ensure(block, slot, stream)?;
            let images = self.blocks.images(block);
            let tokens = self.blocks.tokens(slot, &images)?;
            for (chunk, of_launch) in degrees.chunks(MAX_DEGREES).enumerate() {
                let first = (chunk * MAX_DEGREES * n + images.start) * l;
                let out = Statistics {
                    row_sum: self.row_sum.view_mut().part(images.start * l..images.end * l)?,
                    mean: self.mean.view_mut().part(images.clone())?,
                    inv_norm: self.inv_norm.view_mut().part(first..degrees.len() * n * l)?,
                    norm_images: n,
                };
                let sizes = (images.len(), features.grid);
                lnamd::statistics(stream, features.half, tokens, sizes, widths, of_launch, &out)?;
            }
            self.blocks.release(slot, stream)?;
        }
        let means = stream.download_new(self.mean.view())?;
        if let Some(image) = means.iter().position(|mean| !mean.is_finite()) {
            return Err(Error::invalid(
                format!(
                    "patch tokens of layer {} of image {image} in {}",
                    features.layers[layer],
                    features.half.name()
                ),
                "numbers that are not finite",
                "finite ones: try bf16, whose range is that of f32",
            ));
        }
        self.hide_left_out(stream)
    }

    /// No norm for patches that are left out.
    fn hide_left_out(&mut self, stream: &Stream) -> Result<()> {
        let marks = &self.features.left_out;
        if marks.is_empty() {
            return Ok(());
        }
        let mut norms = stream.download_new(self.inv_norm.view())?;
        for of_degree in norms.chunks_exact_mut(marks.len()) {
            for (norm, _) in of_degree.iter_mut().zip(marks).filter(|(_, left_out)| **left_out) {
                *norm = f32::NAN;
            }
        }
        stream.upload(self.inv_norm.view_mut(), &norms)
    }
}

/// Unit tokens of a block of images in every degree.
pub(super) struct Units {
    /// `[R, images, L, width]`.
    tokens: Buffer<u16>,
    images: usize,
    image_values: usize,
    /// Layer and block.
    holds: Option<(usize, usize)>,
}

impl Units {
    /// Room for blocks of so many images.
    pub fn new(card: &Arc<Card>, job: &Job<'_>, images: usize) -> Result<Self> {
        let image_values = job.queries.image_values();
        let values = job.degrees.len() * images * image_values;
        let tokens = card.alloc(values, "unit tokens")?;
        Ok(Units { tokens, images, image_values, holds: None })
    }

    /// Makes the unit tokens of a block, unless it holds them.
    pub fn ensure(
        &mut self,
        job: &Job<'_>,
        images: &mut ImageSet<'_>,
        block: usize,
        stream: &Stream,
    ) -> Result<()> {
        if self.holds == Some((images.layer, block)) {
            return Ok(());
        }
        // As many places as there are: two of one set, one of queries and two of references.
        let slot = block % 2;
        images.blocks.ensure(block, slot, stream)?;
        let run = images.blocks.images(block);
        let tokens = images.blocks.tokens(slot, &run)?;
        let l = job.queries.patches;
        for (at, &degree) in job.degrees.iter().enumerate() {
            let side = images.side(at..at + 1)?;
            let side = Side {
                row_sum: side.row_sum.part(run.start * l..run.end * l)?,
                mean: side.mean.part(run.clone())?,
                inv_norm: side.inv_norm.part(run.start * l..run.end * l)?,
                images: run.len(),
            };
            let first = at * self.images * self.image_values;
            let out = self.tokens.view_mut().part(first..first + run.len() * self.image_values)?;
            local_distance::pool(stream, &job.token_shape(), tokens, &side, degree, out)?;
        }
        images.blocks.release(slot, stream)?;
        self.holds = Some((images.layer, block));
        Ok(())
    }

    /// The unit tokens of a degree, of images by their place in the block.
    pub fn tokens(&self, degree: usize, images: &Range<usize>) -> Result<View<'_, u16>> {
        let first = degree * self.images;
        let values = self.image_values;
        self.tokens.view().part((first + images.start) * values..(first + images.end) * values)
    }
}
