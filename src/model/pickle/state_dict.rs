//! From the objects of a pickle to the tensors of one model, each checked against the storage behind it.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::archive::TorchFile;
use super::machine;
use super::object::{Id, Object, Objects, Tensor};
use super::short;
use crate::Result;

/// Of several dicts of tensors, the one that is meant when none is named: training saves a model beside others.
const PREFERRED: [&str; 6] = ["teacher", "model_ema", "ema", "state_dict", "model", "module"];
/// How deep dicts are looked for.
const MAX_DEPTH: usize = 8;
/// Longest key that is followed.
const MAX_KEY: usize = 256;
/// Most dicts of tensors in a file.
const MAX_CANDIDATES: usize = 1024;
/// Keys that a message shows.
const KEYS_SHOWN: usize = 12;
/// Tensors may share their values. Written out they may take this many times the file's size, and no more.
const MAX_GROWTH: usize = 4;

/// The tensors of one model.
#[derive(Debug)]
pub struct StateDict<'a> {
    /// The keys that lead to it, joined by dots; empty for the outermost dict.
    pub key: String,
    /// Sorted by name.
    pub tensors: Vec<StateTensor<'a>>,
    /// Entries that are no tensors.
    pub left_out: Vec<&'a str>,
}

/// One tensor, a view of a part of the file that lies wholly inside it.
#[derive(Debug, Clone)]
pub struct StateTensor<'a> {
    pub(super) name: &'a str,
    /// The type of the stored values.
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
    /// The storage from the tensor's first value on.
    pub(super) bytes: &'a [u8],
}

impl StateTensor<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Length of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type in which its values are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of values. The shape is checked to fit the file, so that this cannot overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Bytes of an element of the types that [`super::globals`] knows.
pub(super) fn size_of(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Reads the pickle of a file and picks a model out of it.
pub(super) fn read<'a>(file: &'a TorchFile, key: Option<&str>) -> Result<StateDict<'a>> {
    let (objects, root) = machine::run(file.pickle()).map_err(|problem| file.error(problem))?;
    let found = candidates(&objects, root).map_err(|problem| file.error(problem))?;
    let (path, dict) =
        choose(&objects, root, &found, key).map_err(|problem| file.error(problem))?;
    let mut named: BTreeMap<&'a str, &Tensor<'a>> = BTreeMap::new();
    let mut left_out = Vec::new();
    for &(key, value) in pairs(&objects, *dict) {
        match (objects.get(key), objects.get(value)) {
            (&Object::Text(name), Object::Tensor(tensor)) => _ = named.insert(name, tensor),
            (&Object::Text(name), _) => left_out.push(name),
            (other, _) => left_out.push(other.kind()),
        }
    }
    let mut problems = Vec::new();
    let mut tensors = Vec::with_capacity(named.len());
    let mut total = 0usize;
    for (name, tensor) in named {
        match view(file, name, tensor) {
            Ok(view) => {
                total = total.saturating_add(view.elements() * size_of(view.dtype));
                tensors.push(view);
            }
            Err(problem) => problems.push(format!("tensor `{}`: {problem}", short(name))),
        }
    }
    if total > file.size().saturating_mul(MAX_GROWTH) {
        problems.push(format!(
            "its tensors take {total} bytes, more than {MAX_GROWTH} times the file's {}",
            file.size()
        ));
    }
    match problems.is_empty() {
        true => Ok(StateDict { key: path.clone(), tensors, left_out }),
        false => Err(file.errors(problems)),
    }
}

fn pairs<'o>(objects: &'o Objects<'_>, dict: Id) -> &'o [(Id, Id)] {
    match objects.get(dict) {
        Object::Dict(pairs) => pairs,
        _ => &[],
    }
}

/// Every dict that holds a tensor, with the keys that lead to it. Each is visited once, however often it is named.
fn candidates(objects: &Objects<'_>, root: Id) -> Result<Vec<(String, Id)>, String> {
    struct Visit<'k> {
        dict: Id,
        /// The visit that led here, and the key.
        from: Option<(usize, &'k str)>,
        depth: usize,
    }
    let path = |visits: &[Visit<'_>], of: usize| {
        let mut keys = Vec::new();
        let mut here = visits.get(of);
        while let Some(Visit { from: Some((parent, key)), .. }) = here {
            keys.push(*key);
            here = visits.get(*parent);
        }
        keys.reverse();
        keys.join(".")
    };
    let mut found = Vec::new();
    let mut seen = vec![false; objects.all.len()];
    let mut visits = vec![Visit { dict: root, from: None, depth: 0 }];
    let mut next = 0;
    while let Some(&Visit { dict, depth, .. }) = visits.get(next) {
        let mut has_tensor = false;
        for &(key, value) in pairs(objects, dict) {
            match (objects.text(key), objects.get(value)) {
                (Some(_), Object::Tensor(_)) => has_tensor = true,
                (Some(key), Object::Dict(_)) if depth < MAX_DEPTH && key.len() <= MAX_KEY => {
                    if let Some(seen) = seen.get_mut(value as usize)
                        && !std::mem::replace(seen, true)
                    {
                        visits.push(Visit {
                            dict: value,
                            from: Some((next, key)),
                            depth: depth + 1,
                        });
                    }
                }
                _ => (),
            }
        }
        if has_tensor {
            if found.len() == MAX_CANDIDATES {
                return Err(format!("more than {MAX_CANDIDATES} dicts of tensors"));
            }
            found.push((path(&visits, next), dict));
        }
        next += 1;
    }
    found.sort();
    Ok(found)
}

fn choose<'c>(
    objects: &Objects<'_>,
    root: Id,
    found: &'c [(String, Id)],
    key: Option<&str>,
) -> Result<&'c (String, Id), String> {
    let listed = |keys: Vec<&str>| {
        let shown: Vec<String> =
            keys.iter().take(KEYS_SHOWN).map(|key| format!("`{}`", short(key))).collect();
        let more = if keys.len() > KEYS_SHOWN { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    let all = || listed(found.iter().map(|(path, _)| path.as_str()).collect());
    match (key, found) {
        (_, []) => match objects.get(root) {
            Object::Dict(pairs) => {
                let keys = pairs.iter().filter_map(|&(key, _)| objects.text(key)).collect();
                Err(format!("no state dict: found no tensor in a dict with keys {}", listed(keys)))
            }
            other => Err(format!("no state dict: found {}, expected a dict", other.kind())),
        },
        (Some(key), _) => found.iter().find(|(path, _)| path == key).ok_or_else(|| {
            format!("no dict of tensors under the key `{key}`; there are {}", all())
        }),
        (None, [only]) => Ok(only),
        (None, several) => PREFERRED
            .iter()
            .chain([&""])
            .find_map(|name| several.iter().find(|(path, _)| path == name))
            .ok_or_else(|| {
                format!(
                    "several dicts of tensors: {}; name the one that is meant with --key",
                    all()
                )
            }),
    }
}

/// The tensor as a part of the file.
fn view<'a>(
    file: &'a TorchFile,
    name: &'a str,
    tensor: &Tensor<'a>,
) -> Result<StateTensor<'a>, String> {
    let Tensor { storage, offset, shape, strides } = tensor;
    let size = size_of(storage.dtype);
    let bytes = file
        .storage(storage.key)
        .ok_or_else(|| format!("found no entry `data/{}` with its values", short(storage.key)))?;
    let stored = storage.elements.checked_mul(size).and_then(|length| bytes.get(..length));
    let stored = stored.ok_or_else(|| {
        format!(
            "found {} bytes in `data/{}`, expected {} values of type {}",
            bytes.len(),
            short(storage.key),
            storage.elements,
            storage.dtype
        )
    })?;
    let outside = || {
        format!(
            "shape {shape:?}, strides {strides:?} and offset {offset} reach outside its storage of {} values",
            storage.elements
        )
    };
    let elements = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    let elements = elements.ok_or_else(outside)?;
    // The position of the last value.
    let last = shape.iter().zip(strides).try_fold(*offset, |last, (&side, &stride)| {
        last.checked_add(side.saturating_sub(1).checked_mul(stride)?)
    });
    if elements > 0 && last.is_none_or(|last| last >= storage.elements) {
        return Err(outside());
    }
    if elements > storage.elements {
        return Err(format!(
            "shape {shape:?} repeats the values of its storage, of which there are {}",
            storage.elements
        ));
    }
    let bytes =
        if elements == 0 { &[] } else { stored.get(offset * size..).ok_or_else(outside)? };
    Ok(StateTensor {
        name,
        dtype: storage.dtype,
        shape: shape.clone(),
        strides: strides.clone(),
        bytes,
    })
}
