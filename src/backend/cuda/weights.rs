//! A backbone's weights on a card: memory-mapped file to page-locked memory to the card, once.

use std::sync::Arc;

use half::slice::HalfFloatSliceExt;

use super::buffer::{Buffer, View};
use super::card::Card;
use super::launch::layer_norm::Norm;
use super::launch::patch_embed::row_width;
use super::launch::{Half, Matrix};
use super::staging::Staging;
use crate::model::{self, Dtype, Tensor, Vit, position_embedding};
use crate::{Error, Grid, Result};

/// A linear layer on the card.
pub struct Linear {
    weight: Buffer<u16>,
    /// `[out]`.
    pub bias: Buffer<f32>,
    inputs: usize,
}

impl Linear {
    /// W `[out, in]` as the right operand of a product.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix { values: self.weight.view(), rows: self.bias.len(), stride: self.inputs }
    }

    /// Length of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
}

/// A LayerNorm on the card.
pub struct LayerNorm {
    gamma: Buffer<f32>,
    beta: Buffer<f32>,
    eps: f32,
}

impl LayerNorm {
    /// Its parameters for a launch.
    pub fn norm(&self) -> Norm<'_> {
        Norm { gamma: self.gamma.view(), beta: self.beta.view(), eps: self.eps }
    }
}

/// A block on the card.
pub struct Block {
    pub norm1: LayerNorm,
    pub qkv: Linear,
    pub out: Linear,
    pub scale1: Option<Buffer<f32>>,
    pub norm2: LayerNorm,
    pub fc1: Linear,
    pub fc2: Linear,
    pub scale2: Option<Buffer<f32>>,
}

impl Block {
    /// LayerScale of the attention and of the MLP.
    pub fn scales(&self) -> (Option<View<'_, f32>>, Option<View<'_, f32>>) {
        (self.scale1.as_ref().map(Buffer::view), self.scale2.as_ref().map(Buffer::view))
    }
}

/// All weights on the card.
pub struct Weights {
    /// `[D, row_width(P)]`, zero behind 3·P·P.
    pub patch: Linear,
    /// `[1 + L, D]`: class token and position; then position and the bias of the patch convolution.
    pub positions: Buffer<f32>,
    pub pre_norm: Option<LayerNorm>,
    pub blocks: Vec<Block>,
    pub final_norm: LayerNorm,
}

/// Puts tensors on a card, one after another.
struct Loader<'a> {
    card: &'a Arc<Card>,
    half: Half,
    staging: Staging,
    source: &'a str,
    eps: f32,
}

impl Weights {
    /// Uploads a backbone for a grid of patches.
    ///
    /// # Errors
    /// No memory, a weight beyond the format's range, or the driver's.
    pub fn new(card: &Arc<Card>, vit: &Vit, half: Half, grid: Grid) -> Result<Self> {
        let architecture = &vit.architecture;
        let eps = architecture.layer_norm_eps;
        let staging = Staging::new(card)?;
        let mut loader = Loader { card, half, staging, source: vit.source(), eps };
        let width = architecture.width;
        let mut positions = position_embedding(vit, grid);
        let (class_row, patch_rows) = positions.split_at_mut(width);
        add(class_row, &vit.class_token.to_f32());
        if let Some(bias) = &vit.patch_bias {
            let bias = bias.to_f32();
            patch_rows.chunks_exact_mut(width).for_each(|row| add(row, &bias));
        }
        let blocks = vit
            .blocks
            .iter()
            .enumerate()
            .map(|(index, block)| loader.block(index, block))
            .collect::<Result<_>>()?;
        let weights = Weights {
            patch: loader.patch(&vit.patch_weight, architecture.patch, width)?,
            positions: loader.f32("position embedding", &positions)?,
            pre_norm: vit.pre_norm.as_ref().map(|norm| loader.norm(norm)).transpose()?,
            blocks,
            final_norm: loader.norm(&vit.final_norm)?,
        };
        loader.staging.stream().synchronise()?;
        Ok(weights)
    }
}

fn add(values: &mut [f32], others: &[f32]) {
    for (value, other) in values.iter_mut().zip(others) {
        *value += other;
    }
}

impl Loader<'_> {
    fn f32(&mut self, what: &str, values: &[f32]) -> Result<Buffer<f32>> {
        let mut buffer = self.card.alloc(values.len(), what)?;
        self.staging.send(buffer.view_mut(), |first, part| {
            part.copy_from_slice(&values[first..first + part.len()]);
        })?;
        Ok(buffer)
    }

    fn norm(&mut self, norm: &model::LayerNorm) -> Result<LayerNorm> {
        Ok(LayerNorm {
            gamma: self.f32("norm", &norm.weight.to_f32())?,
            beta: self.f32("norm", &norm.bias.to_f32())?,
            eps: self.eps,
        })
    }

    /// A matrix in the 16-bit format; as it is stored where that is the format.
    fn half(&mut self, what: &str, tensor: &Tensor) -> Result<Buffer<u16>> {
        let mut buffer = self.card.alloc(tensor.elements(), what)?;
        let same = matches!(
            (tensor.dtype(), self.half),
            (Dtype::F16, Half::F16) | (Dtype::Bf16, Half::Bf16)
        );
        if same {
            let bytes = tensor.bytes();
            self.staging.send(buffer.view_mut(), |first, part: &mut [u16]| {
                let from = &bytes[2 * first..2 * (first + part.len())];
                for (value, bytes) in part.iter_mut().zip(from.as_chunks().0) {
                    *value = u16::from_le_bytes(*bytes);
                }
            })?;
        } else {
            let values = tensor.to_f32();
            self.check_range(what, &values)?;
            self.rounded(&mut buffer, &values)?;
        }
        Ok(buffer)
    }

    fn rounded(&mut self, buffer: &mut Buffer<u16>, values: &[f32]) -> Result<()> {
        let half = self.half;
        self.staging.send(buffer.view_mut(), |first, part| {
            round(half, &values[first..first + part.len()], part);
        })
    }

    /// Weights are finite in f32 ([`Vit`] says so); in f16 a large one would be infinite.
    fn check_range(&self, what: &str, values: &[f32]) -> Result<()> {
        match values.iter().position(|&value| !self.half.value(self.half.bits(value)).is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::Weights {
                file: self.source.to_string(),
                problems: vec![format!(
                    "{what}: {} at position {at} is beyond {}, whose largest number is 65504; use bf16",
                    values[at],
                    self.half.name()
                )],
            }),
        }
    }

    fn linear(&mut self, what: &str, linear: &model::Linear) -> Result<Linear> {
        let weight = self.half(what, &linear.weight)?;
        let bias = self.f32(what, &linear.bias.to_f32())?;
        let inputs = weight.len() / bias.len().max(1);
        Ok(Linear { weight, bias, inputs })
    }

    /// The patch convolution, its rows padded as the patch rows are. Its bias is in the positions; here it is zero.
    fn patch(&mut self, tensor: &Tensor, patch: usize, width: usize) -> Result<Linear> {
        let (row, padded) = (3 * patch * patch, row_width(patch));
        let values = tensor.to_f32();
        self.check_range("patch convolution", &values)?;
        let mut rows = vec![0.0; width * padded];
        for (to, from) in rows.chunks_exact_mut(padded).zip(values.chunks_exact(row)) {
            to[..row].copy_from_slice(from);
        }
        let mut weight = self.card.alloc(rows.len(), "patch convolution")?;
        self.rounded(&mut weight, &rows)?;
        let bias = self.f32("patch convolution", &vec![0.0; width])?;
        Ok(Linear { weight, bias, inputs: padded })
    }

    fn block(&mut self, index: usize, block: &model::Block) -> Result<Block> {
        let name = |part: &str| format!("block {index}, {part}");
        let scale = |loader: &mut Self, scale: &Option<Tensor>| {
            scale.as_ref().map(|s| loader.f32("LayerScale", &s.to_f32())).transpose()
        };
        Ok(Block {
            norm1: self.norm(&block.norm1)?,
            qkv: self.linear(&name("qkv"), &block.qkv)?,
            out: self.linear(&name("out"), &block.out)?,
            scale1: scale(self, &block.scale1)?,
            norm2: self.norm(&block.norm2)?,
            fc1: self.linear(&name("fc1"), &block.fc1)?,
            fc2: self.linear(&name("fc2"), &block.fc2)?,
            scale2: scale(self, &block.scale2)?,
        })
    }
}

/// f32 to the 16-bit format, to nearest, ties to even. Both slices have one length.
pub fn round(half: Half, from: &[f32], to: &mut [u16]) {
    match half {
        Half::F16 => bytemuck::cast_slice_mut::<u16, half::f16>(to).convert_from_f32_slice(from),
        Half::Bf16 => bytemuck::cast_slice_mut::<u16, half::bf16>(to).convert_from_f32_slice(from),
    }
}

/// The 16-bit format to f32, exactly. Both slices have one length.
pub fn widen(half: Half, from: &[u16], to: &mut [f32]) {
    match half {
        Half::F16 => bytemuck::cast_slice::<u16, half::f16>(from).convert_to_f32_slice(to),
        Half::Bf16 => bytemuck::cast_slice::<u16, half::bf16>(from).convert_to_f32_slice(to),
    }
}
