//! One layer of a set of images as operands of the Gram products: centred tokens, panels, and the norms of pooled tokens.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::aligned::Aligned;
use super::lnamd::{centre, inverse_norms, token_stride};
use super::panels::{Panels, fill_panels};
use super::sides::left_out_of;
use crate::Grid;
use crate::backend::HostFeatures;

/// One layer of one side, ready for products.
#[derive(Debug)]
pub struct Centred {
    /// The grid of patches.
    pub grid: Grid,
    /// Width C.
    pub width: usize,
    images: usize,
    degrees: Vec<usize>,
    /// F' `[N, L, token_stride(C)]`, of what is a left operand.
    tokens: Option<Aligned>,
    /// F'ᵀ `[N]` in panels of `[C, L]`, of what is a right operand.
    panels: Option<Aligned>,
    /// 1/‖box_r F'‖ `[N, R, L]`.
    inverse_norms: Vec<f32>,
}

impl Centred {
    /// Room for the norms of one layer of such features.
    pub fn new(features: &HostFeatures, degrees: &[usize]) -> Self {
        Centred {
            grid: features.grid,
            width: features.width,
            images: features.images,
            degrees: degrees.to_vec(),
            tokens: None,
            panels: None,
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
        self.tokens = Some(Aligned::zeros(self.images * self.token_values()));
        self
    }

    /// With room for right operands.
    pub fn with_panels(mut self) -> Self {
        self.panels = Some(Aligned::zeros(self.images * self.panel_values()));
        self
    }

    fn token_values(&self) -> usize {
        self.grid.patches() * token_stride(self.width)
    }

    fn panel_values(&self) -> usize {
        Panels::extent(self.width, self.grid.patches())
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
        let lefts = parts(&mut self.tokens, token_values, self.images);
        let rights = parts(&mut self.panels, panel_values, self.images);
        features.tokens[layer][run.start * values..run.end * values]
            .par_chunks_exact(values)
            .zip(self.inverse_norms.par_chunks_exact_mut(norm_values))
            .zip(lefts)
            .zip(rights)
            .enumerate()
            .for_each_init(
                || None,
                |scratch, (image, (((tokens, norms), left), right))| {
                    let centred = match left {
                        Some(left) => left,
                        None => scratch.get_or_insert_with(|| Aligned::zeros(token_values)),
                    };
                    let left_out = left_out_of(features, run.start + image);
                    of.image(tokens, left_out, centred, right, norms);
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
        let mut scratch;
        let centred = match &mut self.tokens {
            Some(tokens) => &mut tokens[at * token_values..][..token_values],
            None => {
                scratch = Aligned::zeros(token_values);
                &mut scratch[..]
            }
        };
        let panels = self.panels.as_mut();
        let panels = panels.map(|panels| &mut panels[at * panel_values..][..panel_values]);
        let norms = &mut self.inverse_norms[at * norm_values..][..norm_values];
        of.image(tokens, left_out_of(features, image), centred, panels, norms);
    }

    /// F' of an image that is a left operand, `[L, token_stride(C)]`.
    pub fn tokens_of(&self, image: usize) -> &[f32] {
        let values = self.token_values();
        &self.tokens.as_deref().unwrap_or_default()[image * values..][..values]
    }

    /// F'ᵀ of an image that is a right operand, in panels.
    pub fn panels_of(&self, image: usize) -> &[f32] {
        let values = self.panel_values();
        &self.panels.as_deref().unwrap_or_default()[image * values..][..values]
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

impl Of<'_> {
    /// `tokens` `[L, C]` to centred tokens, panels where there is room for them, and norms.
    fn image(
        &self,
        tokens: &[f32],
        left_out: &[bool],
        centred: &mut [f32],
        panels: Option<&mut [f32]>,
        norms: &mut [f32],
    ) {
        let stride = token_stride(self.width);
        centre(tokens, self.width, left_out, centred);
        if let Some(panels) = panels {
            fill_panels(centred, stride, self.width, panels);
        }
        for (&degree, norms) in self.degrees.iter().zip(norms.chunks_exact_mut(self.grid.patches()))
        {
            inverse_norms(self.arch, centred, self.grid, stride, degree, norms);
        }
    }
}

/// One part of `size` values an image, or none an image where there are no values at all.
fn parts(values: &mut Option<Aligned>, size: usize, images: usize) -> Vec<Option<&mut [f32]>> {
    match values {
        None => (0..images).map(|_| None).collect(),
        Some(values) => values.chunks_exact_mut(size).map(Some).collect(),
    }
}
