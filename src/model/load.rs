//! From the tensors of a file, in any scheme, to a [`Vit`]; or everything that is wrong with them at once.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::registry::Family;
use super::scheme::{Naming, Projection, Qkv, REGISTER_TOKENS, SCHEMES, WRAPPERS};
use super::tensor::Tensor;
use super::vit::{Architecture, Block, HEAD_WIDTH, LayerNorm, Linear, Vit};
use super::weight_file::WeightFile;
use crate::tensor_file::printable;
use crate::{Error, Result};

/// Names that a message about an unknown file shows.
const NAMES_SHOWN: usize = 12;
/// More blocks than any backbone has; a larger index in a name is not believed.
const MAX_DEPTH: usize = 1024;

/// Reads a whole backbone.
///
/// # Errors
/// [`Error::Weights`]: the file's names fit no scheme; or each missing, extra, misshapen tensor; or each tensor
/// with a value that is not finite.
pub(super) fn load(file: &WeightFile) -> Result<Vit> {
    let failed = |problems| Error::Weights { file: file.name().to_owned(), problems };
    let (names, problems) = plain_names(file);
    let naming = recognise(&names).map_err(|problem| failed(vec![problem]))?;
    let mut loader = Loader {
        file,
        naming,
        names,
        used: BTreeSet::new(),
        problems,
        sizes_known: true,
        blocks: Vec::new(),
        tensors: Vec::new(),
    };
    let vit = loader.vit();
    loader.report_extra();
    match vit {
        Some(vit) if loader.problems.is_empty() => {
            let problems = loader.not_finite();
            if problems.is_empty() { Ok(vit) } else { Err(failed(problems)) }
        }
        _ => Err(failed(loader.problems)),
    }
}

/// Each tensor's name without wrappers, to its name in the file; and the names that meet in that.
fn plain_names(file: &WeightFile) -> (BTreeMap<&str, &str>, Vec<String>) {
    let mut names = BTreeMap::new();
    let mut problems = Vec::new();
    for name in file.names() {
        let mut plain = name;
        while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| plain.strip_prefix(wrapper)) {
            plain = rest;
        }
        if let Some(other) = names.insert(plain, name) {
            problems.push(format!(
                "tensors `{}` and `{}` are both `{}` without their prefixes",
                printable(other),
                printable(name),
                printable(plain)
            ));
        }
    }
    (names, problems)
}

/// The scheme whose test tensor is there.
fn recognise(names: &BTreeMap<&str, &str>) -> Result<&'static Naming, String> {
    if let Some(name) = REGISTER_TOKENS.iter().find_map(|name| names.get(name)) {
        return Err(format!(
            "tensor `{}`: DINOv2 with register tokens is another model than those supported; take the \
             weights without registers",
            printable(name)
        ));
    }
    if let Some(naming) = SCHEMES.iter().find(|naming| names.contains_key(naming.test)) {
        return Ok(naming);
    }
    let shown: Vec<_> =
        names.values().take(NAMES_SHOWN).map(|name| format!("`{}`", printable(name))).collect();
    let tests: Vec<_> = SCHEMES
        .iter()
        .map(|naming| format!("`{}` ({})", naming.test, naming.scheme.description()))
        .collect();
    Err(format!(
        "no known naming: found {} tensors, {}{}; expected one of {}",
        names.len(),
        if shown.is_empty() { "no names".into() } else { shown.join(", ") },
        if names.len() > NAMES_SHOWN { ", …" } else { "" },
        tests.join(", ")
    ))
}

struct Loader<'a> {
    file: &'a WeightFile,
    naming: &'static Naming,
    /// Names without wrappers, to names in the file.
    names: BTreeMap<&'a str, &'a str>,
    /// Names without wrappers of the tensors asked for.
    used: BTreeSet<String>,
    problems: Vec<String>,
    /// False when some size could not be told: then presence and types are checked, shapes are not.
    sizes_known: bool,
    /// The indices of the blocks that are there, in order.
    blocks: Vec<usize>,
    /// The tensors taken, by their names in the file, for a look at their values.
    tensors: Vec<(&'a str, Tensor)>,
}

impl Loader<'_> {
    /// The tensor of this name with this shape; ones in front of the shape do not matter where `leading`.
    fn take_as(&mut self, name: &str, expected: &[usize], leading: bool) -> Option<Tensor> {
        self.used.insert(name.to_owned());
        let Some(&in_file) = self.names.get(name) else {
            let shape =
                if self.sizes_known { format!(", expected {expected:?}") } else { String::new() };
            self.problems.push(format!("tensor `{name}` is missing{shape}"));
            return None;
        };
        let tensor = match self.file.tensor(in_file) {
            Ok(tensor) => tensor,
            Err(Error::Tensor { tensor, found, expected, .. }) => {
                self.problems
                    .push(format!("tensor `{tensor}`: found {found}, expected {expected}"));
                return None;
            }
            Err(other) => {
                self.problems.push(other.to_string());
                return None;
            }
        };
        if !self.sizes_known {
            return Some(tensor);
        }
        let shape = tensor.shape();
        let ones = shape.iter().take_while(|&&side| side == 1).count();
        let surplus = shape.len().saturating_sub(expected.len());
        let fits = shape == expected
            || leading && ones >= surplus && shape.get(surplus..) == Some(expected);
        let fitting = if fits { tensor.reshaped(expected) } else { None };
        if fitting.is_none() {
            self.problems.push(format!(
                "tensor `{}`: found shape {shape:?}, expected {expected:?}",
                printable(in_file)
            ));
        }
        self.tensors.push((in_file, tensor));
        fitting
    }

    fn take(&mut self, name: &str, expected: &[usize]) -> Option<Tensor> {
        self.take_as(name, expected, false)
    }

    fn norm(&mut self, name: &str, width: usize) -> Option<LayerNorm> {
        let weight = self.take(&format!("{name}.weight"), &[width]);
        let bias = self.take(&format!("{name}.bias"), &[width]);
        Some(LayerNorm { weight: weight?, bias: bias? })
    }

    fn linear(&mut self, name: &str, output: usize, input: usize) -> Option<Linear> {
        let weight = self.take(&format!("{name}.weight"), &[output, input]);
        let bias = self.take(&format!("{name}.bias"), &[output]);
        Some(Linear { weight: weight?, bias: bias? })
    }

    /// The sizes, each from the one tensor that tells it. Where one cannot be told it is 0, and
    /// `sizes_known` becomes false.
    fn architecture(&mut self) -> Architecture {
        let naming = self.naming;
        let width = self.size(naming.class_token, |shape| shape.last().copied());
        let patch = self.size(naming.patch_weight, |shape| shape.get(3).copied());
        let rows = self.size(naming.position_embedding, |shape| shape.iter().rev().nth(1).copied());
        let native_grid = self.grid(rows);
        let fc1 = format!("{}0.{}.weight", naming.block, naming.fc1);
        let mlp_width = self.size(&fc1, |shape| shape.first().copied());
        let class_dim = match &naming.projection {
            None => width,
            Some(part) => {
                let side = usize::from(!part.transposed);
                self.size(part.name, |shape| shape.get(side).copied())
            }
        };
        if !width.is_multiple_of(HEAD_WIDTH) {
            self.problems.push(format!(
                "the width of a token is {width}, expected a multiple of the head width {HEAD_WIDTH}"
            ));
        }
        Architecture {
            family: naming.family,
            width,
            depth: self.depth(),
            heads: width / HEAD_WIDTH,
            patch,
            native_grid,
            mlp_width,
            class_dim,
            layer_norm_eps: naming.family.layer_norm_eps(),
        }
    }

    /// A size that the shape of one tensor tells.
    fn size(&mut self, name: &str, of: impl Fn(&[usize]) -> Option<usize>) -> usize {
        // A tensor that is missing or of another type is reported when it is taken.
        let tensor = self.names.get(name).and_then(|in_file| self.file.tensor(in_file).ok());
        let Some(tensor) = tensor else {
            self.sizes_known = false;
            return 0;
        };
        // Without values a shape can be anything; with them its sides are bounded by the file's size.
        let told = if tensor.elements() > 0 { of(tensor.shape()) } else { None };
        told.unwrap_or_else(|| {
            self.sizes_known = false;
            self.problems.push(format!(
                "tensor `{name}`: found shape {:?}, which does not tell the model's sizes",
                tensor.shape()
            ));
            0
        })
    }

    /// Side of the patch grid from the rows of the position embedding.
    fn grid(&mut self, rows: usize) -> usize {
        let patches = rows.saturating_sub(1);
        let side = patches.isqrt();
        if rows > 0 && (side == 0 || side * side != patches) {
            self.sizes_known = false;
            let name = self.naming.position_embedding;
            self.problems.push(format!(
                "tensor `{name}`: found {rows} rows, expected 1 + a square, for the class token and a \
                 square grid"
            ));
        }
        side
    }

    /// Number of blocks: one more than the largest index in a name, with none left out.
    fn depth(&mut self) -> usize {
        let prefix = self.naming.block;
        let mut indices = BTreeSet::new();
        for name in self.names.range(prefix..).map(|(name, _)| *name) {
            let Some(rest) = name.strip_prefix(prefix) else { break };
            let index = rest.split('.').next().and_then(|digits| digits.parse::<usize>().ok());
            match index {
                Some(index) if index < MAX_DEPTH => _ = indices.insert(index),
                _ => {
                    self.problems.push(format!(
                        "tensor `{}`: expected a block's index below {MAX_DEPTH} after `{prefix}`",
                        printable(name)
                    ));
                    self.sizes_known = false;
                    return 0;
                }
            }
        }
        let depth = indices.last().map_or(0, |last| last + 1);
        // A gap is one line, however wide: one wrong index must not make a line of every tensor that would fill it.
        let mut next = 0;
        for &index in &indices {
            match index - next {
                0 => (),
                1 => self.problems.push(format!(
                    "block {next} of {depth} is missing: no `{prefix}{next}.…`"
                )),
                _ => self.problems.push(format!(
                    "blocks {next} to {last} of {depth} are missing: no `{prefix}{next}.…` to `{prefix}{last}.…`",
                    last = index - 1
                )),
            }
            next = index + 1;
        }
        self.blocks = indices.into_iter().collect();
        if depth == 0 {
            self.problems.push(format!("no block: no `{prefix}0.…`"));
        }
        depth
    }

    /// Everything, in order. `None` when a problem is reported.
    fn vit(&mut self) -> Option<Vit> {
        let naming = self.naming;
        let sizes = self.architecture();
        let Architecture { width, patch, native_grid, class_dim, .. } = sizes;
        let patch_weight = self.take(naming.patch_weight, &[width, 3, patch, patch]);
        let patch_bias = naming.patch_bias.map(|name| self.take(name, &[width]));
        let class_token = self.take_as(naming.class_token, &[width], true);
        let rows = 1 + native_grid * native_grid;
        let position_embedding = self.take_as(naming.position_embedding, &[rows, width], true);
        let pre_norm = naming.pre_norm.map(|name| self.norm(name, width));
        let present = std::mem::take(&mut self.blocks);
        let blocks: Vec<_> = present.into_iter().map(|index| self.block(index, &sizes)).collect();
        let final_norm = self.norm(naming.final_norm, width);
        let projection =
            naming.projection.as_ref().map(|part| self.projection(part, width, class_dim));
        Some(Vit {
            patch_weight: patch_weight?,
            patch_bias: all(patch_bias)?,
            class_token: class_token?,
            position_embedding: position_embedding?,
            pre_norm: all(pre_norm)?,
            blocks: blocks.into_iter().collect::<Option<_>>()?,
            final_norm: final_norm?,
            projection: all(projection)?,
            architecture: sizes,
            scheme: naming.scheme,
            source: self.file.name().to_owned(),
        })
    }

    fn block(&mut self, index: usize, sizes: &Architecture) -> Option<Block> {
        let naming = self.naming;
        let (width, mlp) = (sizes.width, sizes.mlp_width);
        let full = |name: &str| format!("{}{index}.{name}", naming.block);
        let norm1 = self.norm(&full(naming.norm1), width);
        let qkv = match &naming.qkv {
            Qkv::Stacked { weight, bias } => {
                let weight = self.take(&full(weight), &[3 * width, width]);
                let bias = self.take(&full(bias), &[3 * width]);
                weight.zip(bias).map(|(weight, bias)| Linear { weight, bias })
            }
            Qkv::Separate(names) => {
                let parts = names.map(|name| self.linear(&full(name), width, width));
                let parts: Option<Vec<_>> = parts.into_iter().collect();
                parts.and_then(|parts| stack(&parts))
            }
        };
        let out = self.linear(&full(naming.out), width, width);
        let scale1 = naming.scale1.map(|name| self.take(&full(name), &[width]));
        let norm2 = self.norm(&full(naming.norm2), width);
        let fc1 = self.linear(&full(naming.fc1), mlp, width);
        let fc2 = self.linear(&full(naming.fc2), width, mlp);
        let scale2 = naming.scale2.map(|name| self.take(&full(name), &[width]));
        Some(Block {
            norm1: norm1?,
            qkv: qkv?,
            out: out?,
            scale1: all(scale1)?,
            norm2: norm2?,
            fc1: fc1?,
            fc2: fc2?,
            scale2: all(scale2)?,
        })
    }

    fn projection(&mut self, part: &Projection, width: usize, class_dim: usize) -> Option<Tensor> {
        if let Some(bias) = part.zero_bias
            && self.names.contains_key(bias)
            && let Some(tensor) = self.take(bias, &[class_dim])
            && tensor.to_f32().iter().any(|&value| value != 0.0)
        {
            self.problems
                .push(format!("tensor `{bias}` is not zero: CLIP's projection has no bias"));
        }
        if part.transposed {
            self.take(part.name, &[class_dim, width])?.transposed()
        } else {
            self.take(part.name, &[width, class_dim])
        }
    }

    /// Tensors of the backbone's part of the file that no part of it asked for.
    fn report_extra(&mut self) {
        for (&name, &in_file) in &self.names {
            if !self.used.contains(name) && !self.naming.ignores(name) {
                let shape =
                    self.file.tensor(in_file).map(|tensor| format!(" {:?}", tensor.shape()));
                self.problems.push(format!(
                    "tensor `{}`{} is extra: the {} has no such part",
                    printable(in_file),
                    shape.unwrap_or_default(),
                    match self.naming.family {
                        Family::Clip => "image tower of CLIP",
                        Family::Dino => "ViT of DINO",
                        Family::Dinov2 => "ViT of DINOv2",
                    }
                ));
            }
        }
    }

    /// A line for each tensor in use that holds an infinity or a NaN.
    fn not_finite(&self) -> Vec<String> {
        let problem = |(name, tensor): &(&str, Tensor)| {
            let flat = tensor.first_not_finite()?;
            let index = position_in(tensor.shape(), flat);
            Some(format!(
                "tensor `{}`: the value at {index:?} is infinite or not a number",
                printable(name)
            ))
        };
        self.tensors.par_iter().filter_map(problem).collect()
    }
}

/// An optional part that a model lacks is `Some(None)`; one that it should have and that failed is `None`.
fn all<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(part) => part.map(Some),
    }
}

/// Linear layers on top of each other.
fn stack(parts: &[Linear]) -> Option<Linear> {
    let weights: Vec<_> = parts.iter().map(|part| part.weight.clone()).collect();
    let biases: Vec<_> = parts.iter().map(|part| part.bias.clone()).collect();
    Some(Linear { weight: Tensor::stacked(&weights)?, bias: Tensor::stacked(&biases)? })
}

/// The index along each dimension of the `flat`-th value in row-major order.
fn position_in(shape: &[usize], mut flat: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (position, &side) in index.iter_mut().zip(shape).rev() {
        *position = flat.checked_rem(side).unwrap_or(0);
        flat = flat.checked_div(side).unwrap_or(0);
    }
    index
}
