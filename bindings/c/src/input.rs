//! What C passes in: pointers become slices and strings here, after every check that can be made.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use crate::status::{Failure, Outcome};

/// `count` elements at a pointer, which may be NULL where there are none.
///
/// # Safety
/// `pointer` is NULL, or has `count` elements that nobody writes to while the slice is used.
pub unsafe fn slice<'a, T>(pointer: *const T, count: usize, what: &str) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    check(pointer, count, what)?;
    // SAFETY: not NULL, aligned and below isize::MAX bytes by the check above; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// Refuses NULL, an address that no such element can have, and more bytes than there are.
pub fn check<T>(pointer: *const T, count: usize, what: &str) -> Outcome {
    if pointer.is_null() {
        return Err(Failure::argument(what, "NULL", format!("{count} elements")));
    }
    if !pointer.is_aligned() {
        let expected = format!("a multiple of {}", align_of::<T>());
        return Err(Failure::argument(what, format!("address {pointer:?}"), expected));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        let found = format!("{count} elements");
        return Err(Failure::argument(what, found, "as many as fit into memory"));
    }
    Ok(())
}

/// The product of sizes.
pub fn product(sizes: &[usize], what: &str) -> Outcome<usize> {
    let all = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let as_text = || sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
    all.ok_or_else(|| Failure::argument(what, as_text(), "a product that fits into memory"))
}

/// A string.
///
/// # Safety
/// `pointer` is NULL, or has a 0 behind bytes that nobody writes to while the string is used.
pub unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Outcome<&'a str> {
    if pointer.is_null() {
        return Err(Failure::argument(what, "NULL", "a string in UTF-8"));
    }
    // SAFETY: not NULL by the check above; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|error| {
        let found = format!("a byte at {} that is no UTF-8", error.valid_up_to());
        Failure::argument(what, found, "a string in UTF-8")
    })
}

/// A path, which is not empty.
///
/// # Safety
/// As [`text`].
pub unsafe fn path(pointer: *const c_char, what: &str) -> Outcome<PathBuf> {
    // SAFETY: the caller's promise.
    match unsafe { text(pointer, what) }? {
        "" => Err(Failure::argument(what, "an empty string", "a path")),
        path => Ok(path.into()),
    }
}

/// Yes or no, from 1 or 0.
pub fn flag(value: i32, what: &str) -> Outcome<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::argument(what, other, "0 or 1")),
    }
}
