//! The tokens of a block as one safetensors file, from which a layer can be read alone.
//!
//! | tensor | shape | is |
//! |---|---|---|
//! | `tokens.LAYER` | `[n, L, C]`, F32, or F16 or BF16 where that holds the same values | patch tokens of a block of the backbone |
//! | `class_tokens` | `[n, E]`, F32 | class tokens |
//! | `content` | `[n]`, U64 | a hash of each image's pixels |
//! | `left_out` | `[n, L]`, U8 | not 0 for patches that are left out, if there are any |
//! | `asked`, `places`, `sizes` | | as in a part |
//!
//! Metadata: `format` is `musc-block`, `version` is `1`; `job`; `grid`, `HxW`; `bad` and `sixteen_bits` as in a part; `sha256.LAYER`, of
//! a layer's values, and `sha256`, of all others.

use std::path::Path;

use super::file::{
    HASH, JOB, Numbers, damaged, hash_of_files, metadata_of, open, read_files, told,
};
use super::part::PartFiles;
use crate::backend::{FeatureSet, HostFeatures};
use crate::model::sha256_of_parts;
use crate::tensor_file::{Halves, Tensor, printable, write_tensors};
use crate::{Error, Grid, Result};

const FORMAT: (&str, &str) = ("format", "musc-block");
const VERSION: (&str, &str) = ("version", "1");
const GRID: &str = "grid";

/// Writes a block of a job: its features and what was read of its files.
pub(super) fn write(
    path: &Path,
    features: &HostFeatures,
    files: &PartFiles,
    job: &str,
) -> Result<()> {
    let names: Vec<String> =
        features.layers.iter().map(|layer| format!("tokens.{layer}")).collect();
    let of_tokens = [features.images, features.patches(), features.width];
    let of_class = [features.images, features.class_width];
    let halves: Vec<Option<Halves>> =
        features.tokens.iter().map(|tokens| Halves::same(tokens)).collect();
    let mut tensors: Vec<Tensor<'_>> = Vec::new();
    for ((name, tokens), half) in names.iter().zip(&features.tokens).zip(&halves) {
        tensors.push(match half {
            Some(half) => Tensor::halves(name, &of_tokens, half),
            None => Tensor::f32(name, &of_tokens, tokens),
        });
    }
    tensors.push(Tensor::f32("class_tokens", &of_class, &features.class_tokens));
    tensors.push(Tensor::u64("content", &of_class[..1], &features.content));
    let marks: Vec<u8> = features.left_out.iter().map(|&mark| mark.into()).collect();
    if !marks.is_empty() {
        tensors.push(Tensor::u8("left_out", &of_tokens[..2], &marks));
    }
    let numbers = Numbers::of(files);
    tensors.extend(numbers.tensors());
    let hashes: Vec<String> =
        features.layers.iter().map(|layer| format!("sha256.{layer}")).collect();
    let mut metadata = vec![
        (FORMAT.0, FORMAT.1.to_string()),
        (VERSION.0, VERSION.1.to_string()),
        (JOB, job.to_string()),
        (HASH, hash(features, files, job)),
        (GRID, features.grid.to_string()),
    ];
    metadata.extend(metadata_of(files));
    for (name, tokens) in hashes.iter().zip(&features.tokens) {
        metadata.push((name, hash_of_layer(tokens, job)));
    }
    write_tensors(path, &tensors, &metadata)
}

/// Reads a block of a job with these layers of it; their tokens alone are read.
pub(super) fn read(path: &Path, layers: &[usize], job: &str) -> Result<(HostFeatures, PartFiles)> {
    let mut file = open(path, ("block", FORMAT, VERSION), job)?;
    let grid = told(&file, GRID)?;
    let grid: Grid = grid.parse().map_err(|_| Error::Dataset {
        path: path.to_path_buf(),
        reason: format!("its `grid` is {}, expected rows x columns", printable(&grid)),
    })?;
    let (known, files) = (told(&file, HASH)?, read_files(&mut file)?);
    let images = files.places.len();
    let mut tokens = Vec::with_capacity(layers.len());
    let mut width = 0;
    for layer in layers {
        let name = format!("tokens.{layer}");
        let values = file.f32(&name, &["n", "L", "C"])?;
        match values.shape[..] {
            [n, l, c] if n == images && l == grid.patches() && (width == 0 || c == width) => {
                width = c;
            }
            _ => {
                let expected = format!("[{images}, {}, C]", grid.patches());
                return Err(file.wrong(&name, format!("shape {:?}", values.shape), expected));
            }
        }
        if hash_of_layer(&values.data, job) != told(&file, &format!("sha256.{layer}"))? {
            return Err(damaged(path, &name));
        }
        tokens.push(values.data);
    }
    let class = file.f32("class_tokens", &["n", "E"])?;
    let class_width = class.shape.last().copied().unwrap_or(0);
    let content = file.u64("content", &["n"])?.data;
    let marks = match file.has("left_out") {
        true => file.marks("left_out", &["n", "L"])?.data.iter().map(|&m| m != 0).collect(),
        false => Vec::new(),
    };
    let features = HostFeatures::new(images, grid, width, layers.to_vec(), tokens)
        .with_class_tokens(class_width, class.data)
        .with_content(content)
        .with_left_out(marks);
    if hash(&features, &files, job) != known {
        return Err(damaged(path, "values"));
    }
    Ok((features, files))
}

/// Number of images of a block, by its head alone.
pub(super) fn images(path: &Path, job: &str) -> Result<usize> {
    let mut file = open(path, ("block", FORMAT, VERSION), job)?;
    Ok(file.u64("places", &["n"])?.data.len())
}

fn hash_of_layer(tokens: &[f32], job: &str) -> String {
    sha256_of_parts(&[job.as_bytes(), bytemuck::cast_slice(tokens)])
}

/// A hash of everything but the tokens.
fn hash(features: &HostFeatures, files: &PartFiles, job: &str) -> String {
    let marks: Vec<u8> = features.left_out.iter().map(|&mark| mark.into()).collect();
    sha256_of_parts(&[
        hash_of_files(files, job).as_bytes(),
        features.grid.to_string().as_bytes(),
        bytemuck::cast_slice(&features.class_tokens),
        bytemuck::cast_slice(&features.content),
        &marks,
    ])
}
