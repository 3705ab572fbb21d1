//! Class features that other programs pickled: those of RsCIN's authors (`mvtec_ad_cls.dat`, `visa_cls.dat`), a dict of one
//! NumPy array `[N, E]` a category, and what is shaped like a part of that.

use std::path::Path;

use super::machine;
use super::numpy;
use super::object::{Array, Object, Objects};
use super::{is_pickle, short};
use crate::{Error, Result};

/// Categories that a message names.
const SHOWN: usize = 32;

/// One class token an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassFeatures {
    /// Number of images N.
    pub images: usize,
    /// Width E of a token.
    pub width: usize,
    /// The tokens `[N, E]`, row-major.
    pub tokens: Vec<f32>,
}

/// Reads class features from a pickle: an array `[N, E]`, a list of one, a list of N arrays `[E]` or `[1, E]`, or a dict
/// of these by category, of which `category` names one.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Dataset`] when it holds anything else, or `category` is not in it,
/// or is missing where there are several.
pub fn read_class_features(path: &Path, category: Option<&str>) -> Result<ClassFeatures> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    class_features_of_bytes(path, &bytes, category)
}

/// As [`read_class_features`], of a file's bytes. `name` stands for it in messages.
///
/// # Errors
/// [`Error::Dataset`] as there.
pub fn class_features_of_bytes(
    name: impl AsRef<Path>,
    bytes: &[u8],
    category: Option<&str>,
) -> Result<ClassFeatures> {
    let path = name.as_ref();
    read(bytes, category).map_err(|reason| Error::Dataset { path: path.to_path_buf(), reason })
}

fn read(bytes: &[u8], category: Option<&str>) -> Result<ClassFeatures, String> {
    if !is_pickle(bytes) {
        return Err("not a pickle of protocol 2 or later".into());
    }
    let (objects, root) = machine::run(bytes)?;
    let root = objects.get(root);
    let chosen = match (root, category) {
        (Object::Dict(pairs), _) => {
            // The last of equal keys holds.
            let found = |name: &str| {
                let named = pairs.iter().rev().find(|(key, _)| objects.text(*key) == Some(name));
                named.map(|(_, value)| *value)
            };
            let names: Vec<String> = pairs
                .iter()
                .filter_map(|&(key, _)| objects.text(key))
                .take(SHOWN)
                .map(short)
                .collect();
            match (category, &pairs[..]) {
                (Some(name), _) => found(name).ok_or_else(|| {
                    format!("no category `{}`; there are {}", short(name), names.join(", "))
                })?,
                (None, [(_, only)]) => *only,
                (None, _) => {
                    return Err(format!(
                        "class features of {} categories; name the one wanted of: {}",
                        pairs.len(),
                        names.join(", ")
                    ));
                }
            }
        }
        (_, Some(name)) => {
            return Err(format!(
                "no category `{}`: found {}, expected a dict of arrays by category",
                short(name),
                root.kind()
            ));
        }
        (_, None) => return matrix(&objects, root, bytes.len()),
    };
    matrix(&objects, objects.get(chosen), bytes.len())
}

/// `limit` is the file's size: the same array may stand in a list many times, but no honest list has more values than bytes.
fn matrix(
    objects: &Objects<'_>,
    found: &Object<'_>,
    mut limit: usize,
) -> Result<ClassFeatures, String> {
    match found {
        Object::Array(array) => of_array(array),
        Object::List(items) => {
            if let [only] = items[..]
                && let Object::Array(array) = objects.get(only)
                && array.shape.len() == 2
            {
                return of_array(array);
            }
            let mut all = ClassFeatures { images: 0, width: 0, tokens: Vec::new() };
            for &item in items {
                let Object::Array(array) = objects.get(item) else {
                    let kind = objects.get(item).kind();
                    return Err(format!("found {kind} in a list, expected arrays [E]"));
                };
                let row = match array.shape[..] {
                    [_] | [1, _] => numpy::values(array),
                    _ => {
                        let shape = &array.shape;
                        return Err(format!("found an array of shape {shape:?}, expected [E]"));
                    }
                };
                limit = limit
                    .checked_sub(row.len())
                    .ok_or("found more values in a list than the file has bytes")?;
                if all.images > 0 && row.len() != all.width {
                    let (width, other) = (all.width, row.len());
                    return Err(format!("found arrays of {width} and {other} values in a list"));
                }
                all.width = row.len();
                all.images += 1;
                all.tokens.extend(row);
            }
            checked(all)
        }
        other => Err(format!("found {}, expected an array [N,E]", other.kind())),
    }
}

fn of_array(array: &Array<'_>) -> Result<ClassFeatures, String> {
    match array.shape[..] {
        [images, width] => checked(ClassFeatures { images, width, tokens: numpy::values(array) }),
        _ => Err(format!("found an array of shape {:?}, expected [N,E]", array.shape)),
    }
}

fn checked(features: ClassFeatures) -> Result<ClassFeatures, String> {
    let ClassFeatures { images, width, tokens } = &features;
    if *images == 0 || *width == 0 {
        return Err(format!("found an array of shape [{images}, {width}], which is empty"));
    }
    match tokens.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let index = [at / width, at % width];
            Err(format!("the value at {index:?} is infinite or not a number"))
        }
        None => Ok(features),
    }
}
