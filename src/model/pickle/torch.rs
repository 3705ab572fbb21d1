//! PyTorch's part: storages by their persistent ids, and tensors as views of them.

use super::globals::Global;
use super::object::{Id, Object, Objects, Storage, Tensor};

/// The storage of a persistent id: `("storage", type, key, device, elements)`.
pub(super) fn storage<'a>(objects: &Objects<'a>, id: Id) -> Result<Storage<'a>, String> {
    let expected = "a persistent id that is not (\"storage\", type, key, device, elements)";
    let Some(&[tag, kind, key, _device, elements]) = objects.tuple(id) else {
        return Err(expected.into());
    };
    let &Object::Global(Global::Storage(dtype)) = objects.get(kind) else {
        return Err(expected.into());
    };
    match (objects.text(tag), objects.text(key), objects.size(elements)) {
        (Some("storage"), Some(key), Some(elements)) => Ok(Storage { dtype, key, elements }),
        _ => Err(expected.into()),
    }
}

/// The tensor of `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks[, metadata])`.
pub(super) fn tensor<'a>(objects: &Objects<'a>, arguments: &[Id]) -> Result<Tensor<'a>, String> {
    let &[storage, offset, shape, strides, ..] = arguments else {
        return Err(format!("a tensor of {} arguments, expected at least 4", arguments.len()));
    };
    let &Object::Storage(storage) = objects.get(storage) else {
        return Err(format!("a tensor of {}", objects.get(storage).kind()));
    };
    let offset = objects.size(offset).ok_or("a tensor whose offset is no number from 0")?;
    let (shape, strides) = (objects.sizes(shape)?, objects.sizes(strides)?);
    if shape.len() != strides.len() {
        let (dimensions, found) = (shape.len(), strides.len());
        return Err(format!("a tensor of {dimensions} dimensions with {found} strides"));
    }
    Ok(Tensor { storage, offset, shape, strides })
}
