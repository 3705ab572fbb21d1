//! One layer of a set of images as operands of the Gram products: centred tokens, panels, and the norms of pooled tokens.
//!
//! In bf16 the centred tokens are rounded once, and everything else, norms too, is of the rounded tokens: so the products and
//! the norms belong together, and two equal images are at distance 0.

use std::ops::Range;

use bytemuck::Pod;
use pulp::Arch;
use rayon::prelude::*;

use super::aligned::Aligned;
use super::bf16;
use super::bf16::finish::{Keep, Rows};
use super::lnamd::{centre, inverse_norms, token_stride};
use super::panels::{Panels, fill_panels, product_of_panels};
use super::sides::left_out_of;
use crate::Grid;
use crate::backend::HostFeatures;
use crate::gemm::{Shape, Store};
use crate::simd::{Bf16, Way};

/// One layer of one side, ready for products.
#[derive(Debug)]
pub struct Centred {
    /// The grid of patches.
    pub grid: Grid,
    /// Width C.
    pub width: usize,
    images: usize,
    degrees: Vec<usize>,
    operands: Operands,
    /// 1/‖box_r F'‖ `[N, R, L]`.
    inverse_norms: Vec<f32>,
}

/// What is multiplied, in one of the formats.
#[derive(Debug)]
enum Operands {
    F32(Both<f32>),
    Bf16(Bf16, Both<half::bf16>),
}

/// Left and right operands.
#[derive(Debug)]
struct Both<T> {
    /// F' `[N, L, token_stride(C)]`, of what is a left operand.
    tokens: Option<Aligned<T>>,
    /// F'ᵀ `[N]` in panels of `[C, L]`, of what is a right operand.
    panels: Option<Aligned<T>>,
}

impl<T: Pod> Both<T> {
    /// One image of so many values of each.
    fn image(&mut self, at: usize, token_values: usize, panel_values: usize) -> OneImage<'_, T> {
        let Both { tokens, panels } = self;
        (
            tokens.as_mut().map(|of| &mut of[at * token_values..][..token_values]),
            panels.as_mut().map(|of| &mut of[at * panel_values..][..panel_values]),
        )
    }

    /// The same of all of them.
    fn images(
        &mut self,
        images: usize,
        token_values: usize,
        panel_values: usize,
    ) -> impl Iterator<Item = OneImage<'_, T>> {
        let lefts = parts(&mut self.tokens, token_values, images);
        lefts.into_iter().zip(parts(&mut self.panels, panel_values, images))
    }
}

/// Room for an image's left and right operand.
type OneImage<'a, T> = (Option<&'a mut [T]>, Option<&'a mut [T]>);

/// The same, in one of the formats.
enum Room<'a> {
    F32(OneImage<'a, f32>),
    Bf16(OneImage<'a, half::bf16>),
}

impl Operands {
    /// Room for one image of so many values of each side.
    fn room(&mut self, at: usize, token_values: usize, panel_values: usize) -> Room<'_> {
        match self {
            Operands::F32(sides) => Room::F32(sides.image(at, token_values, panel_values)),
            Operands::Bf16(_, sides) => Room::Bf16(sides.image(at, token_values, panel_values)),
        }
    }

    /// The same of all of them.
    fn rooms(&mut self, images: usize, token_values: usize, panel_values: usize) -> Vec<Room<'_>> {
        match self {
            Operands::F32(sides) => {
                sides.images(images, token_values, panel_values).map(Room::F32).collect()
            }
            Operands::Bf16(_, sides) => {
                sides.images(images, token_values, panel_values).map(Room::Bf16).collect()
            }
        }
    }
}

impl Centred {
    /// Room for the norms of one layer of such features, of which products are done so.
    pub fn new(features: &HostFeatures, degrees: &[usize], way: Way) -> Self {
        Centred {
            grid: features.grid,
            width: features.width,
            images: features.images,
            degrees: degrees.to_vec(),
            operands: match way.bf16 {
                None => Operands::F32(Both { tokens: None, panels: None }),
                Some(proof) => Operands::Bf16(proof, Both { tokens: None, panels: None }),
            },
            inverse_norms: vec![0.0; features.images * degrees.len() * features.grid.patches()],
        }
    }

    /// With room for so many images in place of all.
    pub fn for_images(mut self, images: usize) -> Self {
        self.images = images;
        self.inverse_norms.resize(images * self.norm_values(), 0.0);
        self
    }

    /// With room for left operands.
    pub fn with_tokens(mut self) -> Self {
        let values = self.images * self.token_values();
        match &mut self.operands {
            Operands::F32(sides) => sides.tokens = Some(Aligned::zeros(values)),
            Operands::Bf16(_, sides) => sides.tokens = Some(Aligned::zeros(values)),
        }
        self
    }

    /// With room for right operands.
    pub fn with_panels(mut self) -> Self {
        let values = self.images * self.panel_values();
        match &mut self.operands {
            Operands::F32(sides) => sides.panels = Some(Aligned::zeros(values)),
            Operands::Bf16(_, sides) => sides.panels = Some(Aligned::zeros(values)),
        }
        self
    }

    fn token_values(&self) -> usize {
        self.grid.patches() * token_stride(self.width)
    }

    fn panel_values(&self) -> usize {
        match self.operands {
            Operands::F32(_) => Panels::extent(self.width, self.grid.patches()),
            Operands::Bf16(..) => {
                bf16::panels::extent(token_stride(self.width), self.grid.patches())
            }
        }
    }

    fn norm_values(&self) -> usize {
        self.degrees.len() * self.grid.patches()
    }

    /// Takes in a layer of features of the sizes that there is room for.
    pub fn fill(&mut self, features: &HostFeatures, layer: usize, arch: Arch) {
        self.fill_run(features, 0..features.images, layer, arch);
    }

    /// The same of a run of their images, for as many of which there is room.
    pub fn fill_run(
        &mut self,
        features: &HostFeatures,
        run: Range<usize>,
        layer: usize,
        arch: Arch,
    ) {
        let values = self.grid.patches() * self.width;
        let (token_values, panel_values) = (self.token_values(), self.panel_values());
        let norm_values = self.norm_values();
        let of = Of { arch, grid: self.grid, width: self.width, degrees: &self.degrees };
        let tokens = &features.tokens[layer][run.start * values..run.end * values];
        let images = tokens.par_chunks_exact(values).enumerate();
        let images = images.zip(self.inverse_norms.par_chunks_exact_mut(norm_values));
        let rooms = self.operands.rooms(self.images, token_values, panel_values);
        images.zip(rooms).for_each_init(
            Scratch::default,
            |scratch, (((image, tokens), norms), room)| {
                let left_out = left_out_of(features, run.start + image);
                of.image(tokens, left_out, room, norms, scratch);
            },
        );
    }

    /// Puts an image of other features of the same sizes in the place of one.
    pub fn replace(
        &mut self,
        at: usize,
        (features, image): (&HostFeatures, usize),
        layer: usize,
        arch: Arch,
    ) {
        let patches = self.grid.patches();
        let (token_values, panel_values) = (self.token_values(), self.panel_values());
        let norm_values = self.norm_values();
        let of = Of { arch, grid: self.grid, width: self.width, degrees: &self.degrees };
        let tokens =
            &features.tokens[layer][image * patches * self.width..][..patches * self.width];
        let left_out = left_out_of(features, image);
        let norms = &mut self.inverse_norms[at * norm_values..][..norm_values];
        let room = self.operands.room(at, token_values, panel_values);
        of.image(tokens, left_out, room, norms, &mut Scratch::default());
    }

    /// G = F'_i·F'_jᵀ `[L, L]` of image i, a left operand, and image j of what may be another set, a right operand, in rows of
    /// `stride` values, on this thread. Both sides are of one format.
    pub fn gram(&self, i: usize, right: &Centred, j: usize, stride: usize, out: &mut [f32]) {
        let (patches, width) = (self.grid.patches(), self.width);
        let (left_values, right_values) = (self.token_values(), right.panel_values());
        match (&self.operands, &right.operands) {
            (Operands::F32(left), Operands::F32(right)) => product_of_panels(
                (
                    one_of(&left.tokens, i, left_values),
                    Shape::strided(patches, width, token_stride(width)),
                ),
                (one_of(&right.panels, j, right_values), width, patches),
                (out, Shape::strided(patches, patches, stride), Store::Overwrite),
                1,
            ),
            (Operands::Bf16(proof, left), Operands::Bf16(_, right)) => bf16::product::product(
                *proof,
                (one_of(&left.tokens, i, left_values), Shape::dense(patches, token_stride(width))),
                (one_of(&right.panels, j, right_values), token_stride(width), patches),
                (Rows::new(out, stride), Keep),
                1,
            ),
            _ => unreachable!("both sides are made for one way of products"),
        }
    }

    /// 1/‖box_r F'‖ of one image, `[R][L]`.
    pub fn norms(&self, image: usize) -> Vec<&[f32]> {
        let values = self.norm_values();
        self.inverse_norms[image * values..][..values].chunks_exact(self.grid.patches()).collect()
    }
}

/// What is made of every image alike.
struct Of<'a> {
    arch: Arch,
    grid: Grid,
    width: usize,
    degrees: &'a [usize],
}

/// Memory for what is no operand.
#[derive(Default)]
struct Scratch {
    centred: Option<Aligned>,
    rounded: Option<Aligned<half::bf16>>,
}

impl Of<'_> {
    /// `tokens` `[L, C]` to centred tokens, panels where there is room for them, and norms. In bf16 all of rounded tokens.
    fn image(
        &self,
        tokens: &[f32],
        left_out: &[bool],
        room: Room<'_>,
        norms: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let stride = token_stride(self.width);
        let values = self.grid.patches() * stride;
        let Scratch { centred, rounded } = scratch;
        match room {
            Room::F32((left, right)) => {
                let centred = match left {
                    Some(left) => left,
                    None => centred.get_or_insert_with(|| Aligned::zeros(values)),
                };
                centre(tokens, self.width, left_out, centred);
                if let Some(panels) = right {
                    fill_panels(centred, stride, self.width, panels);
                }
                self.norms(centred, norms);
            }
            Room::Bf16((left, right)) => {
                let centred = centred.get_or_insert_with(|| Aligned::zeros(values));
                let rounded = match left {
                    Some(left) => left,
                    None => rounded.get_or_insert_with(|| Aligned::zeros(values)),
                };
                centre(tokens, self.width, left_out, centred);
                for (value, out) in centred.iter_mut().zip(&mut *rounded) {
                    *out = bf16::rounded(*value);
                    *value = bf16::widened(*out);
                }
                if let Some(panels) = right {
                    bf16::panels::fill_panels(rounded, stride, stride, panels);
                }
                self.norms(centred, norms);
            }
        }
    }

    /// 1/‖box_r F'‖ for every degree, of centred tokens.
    fn norms(&self, centred: &[f32], norms: &mut [f32]) {
        let stride = token_stride(self.width);
        for (&degree, norms) in self.degrees.iter().zip(norms.chunks_exact_mut(self.grid.patches()))
        {
            inverse_norms(self.arch, centred, self.grid, stride, degree, norms);
        }
    }
}

/// One part of `size` values an image, or none an image where there are no values at all.
fn parts<T: Pod>(
    values: &mut Option<Aligned<T>>,
    size: usize,
    images: usize,
) -> Vec<Option<&mut [T]>> {
    match values {
        None => (0..images).map(|_| None).collect(),
        Some(values) => values.chunks_exact_mut(size).map(Some).collect(),
    }
}

/// The values of one image where there is room for any.
fn one_of<T: Pod>(values: &Option<Aligned<T>>, image: usize, size: usize) -> &[T] {
    &values.as_deref().unwrap_or_default()[image * size..][..size]
}
