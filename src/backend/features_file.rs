//! Features in files: the tensors `tokens.LAYER`, and what is known of the images they are of.
//!
//! | tensor | shape | is |
//! |---|---|---|
//! | `tokens.LAYER` | `[N, L, C]` | patch tokens of a feature layer, one tensor a layer |
//! | `class_tokens` | `[N, E]` | class tokens, if there are any |
//! | `content` | `[N]`, I64 or U64 | a hash of each image's pixels, if it is known |
//! | `left_out` | `[N, L]` | not 0 for patches that are no part of their image, if there are any |
//!
//! The metadata key `grid` holds the patch grid, `HxW`.

use std::path::Path;

use super::HostFeatures;
#[cfg(feature = "files")]
use crate::tensor_file::{Tensor, write_tensors};
use crate::tensor_file::{TensorFile, printable};
use crate::{Error, Grid, Result};

/// What the names of patch tokens begin with; the layer's number follows.
const TOKENS: &str = "tokens.";
const CLASS_TOKENS: &str = "class_tokens";
const CONTENT: &str = "content";
const LEFT_OUT: &str = "left_out";
/// The metadata key of the patch grid.
const GRID: &str = "grid";

/// Reads features, their layers in rising order.
///
/// The grid is the file's own word; where it has none, `grid`; where there is none either, the square grid of L patches.
///
/// # Errors
/// [`Error::Io`] and [`Error::Dataset`] as [`TensorFile::open`]; [`Error::Tensor`] when there is no `tokens.LAYER`, a tensor is
/// not of the shape above, a value is not finite, or no grid fits L; [`Error::Dataset`] when the file's grid and `grid`
/// contradict each other, with both.
pub fn read_features(path: &Path, grid: Option<Grid>) -> Result<HostFeatures> {
    let mut file = TensorFile::open(path)?;
    let layers = layers(&file)?;
    let mut tokens = Vec::with_capacity(layers.len());
    let mut shape = Vec::new();
    for (_, name) in &layers {
        let values = file.f32(name, &["N", "L", "C"])?;
        if tokens.is_empty() {
            shape = values.shape;
        } else if values.shape != shape {
            let found = format!("shape {:?}", values.shape);
            return Err(file.wrong(name, found, format!("{shape:?}, as the first layer")));
        }
        finite(&file, name, &values.data)?;
        tokens.push(values.data);
    }
    let (&[images, patches, width], Some((_, first))) = (&shape[..], layers.first()) else {
        return Err(file.wrong("tokens.LAYER", "none", "at least one, of shape [N,L,C]"));
    };
    let grid = grid_of(&file, first, grid, patches)?;
    let layers = layers.iter().map(|(layer, _)| *layer).collect();
    let mut features = HostFeatures::new(images, grid, width, layers, tokens);
    if file.has(CLASS_TOKENS) {
        let values = file.f32(CLASS_TOKENS, &["N", "E"])?;
        finite(&file, CLASS_TOKENS, &values.data)?;
        let class_width = same(&file, CLASS_TOKENS, &values.shape, &[Some(images), None])?;
        features = features.with_class_tokens(class_width, values.data);
    }
    if file.has(CONTENT) {
        let values = file.u64(CONTENT, &["N"])?;
        same(&file, CONTENT, &values.shape, &[Some(images)])?;
        features = features.with_content(values.data);
    }
    if file.has(LEFT_OUT) {
        let values = file.marks(LEFT_OUT, &["N", "L"])?;
        same(&file, LEFT_OUT, &values.shape, &[Some(images), Some(patches)])?;
        features = features.with_left_out(values.data.iter().map(|&mark| mark != 0).collect());
    }
    features.check()?;
    Ok(features)
}

/// Numbers and names of the layers, rising.
fn layers(file: &TensorFile) -> Result<Vec<(usize, String)>> {
    let mut layers: Vec<(usize, String)> = Vec::new();
    for name in file.names() {
        if let Some(layer) = name.strip_prefix(TOKENS) {
            let number = layer.parse().map_err(|_| {
                file.wrong(name, "a name that ends in no number", "tokens.LAYER, such as tokens.5")
            })?;
            layers.push((number, name.to_string()));
        }
    }
    layers.sort();
    // `tokens.5` and `tokens.05` are two names of one layer.
    match layers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(file.wrong(&pair[1].1, format!("beside {}", pair[0].1), "one a layer")),
        None => Ok(layers),
    }
}

fn finite(file: &TensorFile, name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => {
            Err(file.wrong(name, format!("{} at position {at}", values[at]), "finite numbers"))
        }
    }
}

/// Compares a shape with the sizes that are known; gives the last.
fn same(file: &TensorFile, name: &str, shape: &[usize], known: &[Option<usize>]) -> Result<usize> {
    let fits = shape.len() == known.len()
        && shape.iter().zip(known).all(|(size, known)| known.is_none_or(|known| known == *size));
    match (fits, shape.last()) {
        (true, Some(last)) => Ok(*last),
        _ => {
            let known: Vec<String> = known
                .iter()
                .map(|size| size.map_or_else(|| String::from("any"), |size| size.to_string()))
                .collect();
            let expected = format!("[{}], as the tokens have", known.join(", "));
            Err(file.wrong(name, format!("shape {shape:?}"), expected))
        }
    }
}

/// The grid of L patches, from the file, or else the caller, or else square.
fn grid_of(file: &TensorFile, tokens: &str, asked: Option<Grid>, patches: usize) -> Result<Grid> {
    let refuse = |reason: String| Error::Dataset { path: file.path().to_path_buf(), reason };
    let own = match file.metadata(GRID) {
        None => None,
        Some(text) => Some(text.parse::<Grid>().map_err(|_| {
            refuse(format!(
                "its metadata name the grid `{}`, expected rows x columns, such as 37x37",
                printable(text)
            ))
        })?),
    };
    if let (Some(own), Some(asked)) = (own, asked)
        && own != asked
    {
        return Err(refuse(format!(
            "its metadata name the grid {own}, it is to be read as {asked}"
        )));
    }
    match own.or(asked) {
        Some(grid) if grid.rows.checked_mul(grid.columns) == Some(patches) => Ok(grid),
        Some(grid) => Err(file.wrong(
            tokens,
            format!("{patches} patches an image"),
            format!("{}, those of a grid of {grid}", grid.patches()),
        )),
        None => Grid::of_square(patches).ok_or_else(|| {
            file.wrong(
                tokens,
                format!("{patches} patches an image and no grid"),
                "the grid HxW in the file's metadata or by its side, or a square number of patches",
            )
        }),
    }
}

/// Writes features as [`read_features`] reads them, with `grid` and these pairs as metadata. The file is written aside and
/// renamed when it is complete.
///
/// # Errors
/// What [`HostFeatures::check`] refuses; a `grid` among the pairs; [`Error::Io`] with the path.
#[cfg(feature = "files")]
pub fn write_features(
    path: &Path,
    features: &HostFeatures,
    metadata: &[(&str, String)],
) -> Result<()> {
    features.check()?;
    if let Some((_, value)) = metadata.iter().find(|(key, _)| *key == GRID) {
        return Err(Error::invalid("metadata `grid`", value, "it to be left to the features"));
    }
    let (images, patches) = (features.images, features.grid.patches());
    let names: Vec<String> =
        features.layers.iter().map(|layer| format!("{TOKENS}{layer}")).collect();
    let token_shape = [images, patches, features.width];
    let class_shape = [images, features.class_width];
    let mark_shape = [images, patches];
    let marks: Vec<u8> = features.left_out.iter().map(|&mark| u8::from(mark)).collect();
    let mut tensors: Vec<Tensor<'_>> = names
        .iter()
        .zip(&features.tokens)
        .map(|(name, data)| Tensor::f32(name, &token_shape, data))
        .collect();
    if features.class_width > 0 {
        tensors.push(Tensor::f32(CLASS_TOKENS, &class_shape, &features.class_tokens));
    }
    if !features.content.is_empty() {
        tensors.push(Tensor::u64(CONTENT, &class_shape[..1], &features.content));
    }
    if !marks.is_empty() {
        tensors.push(Tensor::u8(LEFT_OUT, &mark_shape, &marks));
    }
    let mut pairs = metadata.to_vec();
    pairs.push((GRID, features.grid.to_string()));
    write_tensors(path, &tensors, &pairs)
}

#[cfg(all(test, feature = "files"))]
#[path = "features_file_tests.rs"]
mod tests;
