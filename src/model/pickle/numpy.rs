//! NumPy's part: types of numbers, and arrays from their bytes.

use half::f16;

use super::globals::Global;
use super::object::{Array, Bytes, Id, NumberType, Object, Objects};

/// The type of `dtype("f2", False, True)`.
pub(super) fn number_type(objects: &Objects<'_>, arguments: &[Id]) -> Result<NumberType, String> {
    let text = arguments.first().and_then(|&id| objects.text(id));
    let text = text.ok_or("a number type that is not named")?;
    match text {
        "f2" | "f4" | "f8" | "i1" | "i2" | "i4" | "i8" | "u1" | "u2" | "u4" | "u8" | "b1" => {
            let mut bytes = text.bytes();
            let kind = bytes.next().unwrap_or_default();
            let size = usize::from(bytes.next().unwrap_or_default().saturating_sub(b'0'));
            Ok(NumberType { kind, size, big_endian: false })
        }
        other => Err(format!(
            "an array of type `{}`; expected f2, f4, f8, whole numbers or truth values",
            super::short(other)
        )),
    }
}

/// The same type with its byte order: the state `(3, "<", …)`.
pub(super) fn number_type_state(
    objects: &Objects<'_>,
    number: NumberType,
    state: Id,
) -> Result<NumberType, String> {
    let order = match objects.tuple(state) {
        Some(&[_, order, ..]) => objects.text(order),
        _ => None,
    };
    match order {
        Some("<" | "|" | "=") => Ok(NumberType { big_endian: false, ..number }),
        Some(">") => Ok(NumberType { big_endian: true, ..number }),
        _ => Err("a number type without a byte order".into()),
    }
}

/// The empty array of `_reconstruct(ndarray, (0,), b"b")`.
pub(super) fn empty<'a>(objects: &Objects<'a>, arguments: &[Id]) -> Result<Array<'a>, String> {
    match arguments.first().map(|&id| objects.get(id)) {
        Some(Object::Global(Global::NdArray)) => Ok(Array {
            shape: vec![0],
            number: NumberType { kind: b'b', size: 1, big_endian: false },
            fortran: false,
            bytes: Bytes::InFile(&[]),
        }),
        _ => Err("an array of a class that is not numpy.ndarray".into()),
    }
}

/// The array of the state `(version, shape, type, fortran, bytes)`.
pub(super) fn array_state<'a>(objects: &Objects<'a>, state: Id) -> Result<Array<'a>, String> {
    let Some(&[_, shape, number, fortran, bytes]) = objects.tuple(state) else {
        return Err("an array whose state is not (version, shape, type, order, bytes)".into());
    };
    let fortran = objects.truth(fortran).ok_or("an array without an order")?;
    array(objects, shape, number, fortran, bytes)
}

/// The array of `_frombuffer(bytes, type, shape, "C" or "F")`.
pub(super) fn from_buffer<'a>(
    objects: &Objects<'a>,
    arguments: &[Id],
) -> Result<Array<'a>, String> {
    let &[bytes, number, shape, order] = arguments else {
        return Err(format!("an array of {} arguments, expected 4", arguments.len()));
    };
    let fortran = match objects.text(order) {
        Some("C") => false,
        Some("F") => true,
        _ => return Err("an array without an order".into()),
    };
    array(objects, shape, number, fortran, bytes)
}

fn array<'a>(
    objects: &Objects<'a>,
    shape: Id,
    number: Id,
    fortran: bool,
    bytes: Id,
) -> Result<Array<'a>, String> {
    let shape = objects.sizes(shape)?;
    let &Object::NumberType(number) = objects.get(number) else {
        return Err(format!("an array of {}", objects.get(number).kind()));
    };
    let Object::Bytes(bytes) = objects.get(bytes) else {
        return Err(format!("an array of {}, expected bytes", objects.get(bytes).kind()));
    };
    let bytes = bytes.clone();
    let wanted = shape.iter().try_fold(number.size, |size, &side| size.checked_mul(side));
    if wanted != Some(bytes.len()) {
        return Err(format!("an array of shape {shape:?} with {} bytes", bytes.len()));
    }
    Ok(Array { shape, number, fortran, bytes })
}

/// The bytes of `encode(text, "latin1")`, at most `limit` of them.
pub(super) fn encode(
    objects: &Objects<'_>,
    arguments: &[Id],
    limit: usize,
) -> Result<Vec<u8>, String> {
    let &[text, encoding] = arguments else {
        return Err(format!("text encoded with {} arguments, expected 2", arguments.len()));
    };
    match (objects.text(text), objects.text(encoding)) {
        (Some(text), Some("latin1" | "latin-1")) if text.chars().count() <= limit => text
            .chars()
            .map(|character| u8::try_from(u32::from(character)))
            .collect::<Result<_, _>>()
            .map_err(|_| "text that is no bytes".into()),
        (Some(_), Some("latin1" | "latin-1")) => Err("more bytes than the file has".into()),
        _ => Err("text encoded in another way than latin1".into()),
    }
}

/// The values in row-major order, as f32.
pub(super) fn values(array: &Array<'_>) -> Vec<f32> {
    let stored = stored_values(array);
    if !array.fortran || array.shape.len() < 2 {
        return stored;
    }
    // The first index runs fastest in the file, the last one in the result.
    let mut ordered = Vec::with_capacity(stored.len());
    let mut index = vec![0usize; array.shape.len()];
    for _ in 0..stored.len() {
        let flat =
            index.iter().zip(&array.shape).rev().fold(0, |flat, (at, side)| flat * side + at);
        ordered.push(stored.get(flat).copied().unwrap_or_default());
        for (at, &side) in index.iter_mut().zip(&array.shape).rev() {
            *at += 1;
            if *at < side {
                break;
            }
            *at = 0;
        }
    }
    ordered
}

fn stored_values(array: &Array<'_>) -> Vec<f32> {
    let NumberType { kind, size, big_endian } = array.number;
    let value = |bytes: &[u8]| {
        // Little endian in the low bytes.
        let mut eight = [0u8; 8];
        for (at, &byte) in bytes.iter().enumerate() {
            let to = if big_endian { size - 1 - at } else { at };
            if let Some(to) = eight.get_mut(to) {
                *to = byte;
            }
        }
        let bits = u64::from_le_bytes(eight);
        let unused = 64 - 8 * size as u32;
        match (kind, size) {
            (b'f', 2) => f16::from_bits(bits as u16).to_f32(),
            (b'f', 4) => f32::from_bits(bits as u32),
            (b'f', _) => f64::from_bits(bits) as f32,
            // Up and down again, for the sign.
            (b'i', _) => ((bits << unused) as i64 >> unused) as f32,
            (b'b', _) => f32::from(u8::from(bits != 0)),
            _ => bits as f32,
        }
    };
    array.bytes.chunks_exact(size).map(value).collect()
}
