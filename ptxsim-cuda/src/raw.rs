//! What C passes: pointers that may be null, and are good otherwise, as the documentation of each function asks its
//! callers. These types have no constructor but for null: values of them are only ever the arguments of an exported function, whose
//! callers made that promise.

use std::ffi::{CStr, c_char};

use crate::code::{Fail, INVALID_VALUE, fail};

/// Where one value goes.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Nobody asks for the value.
    pub fn none() -> Out<T> {
        Out(std::ptr::null_mut())
    }

    /// Writes it; a null pointer is an invalid value.
    pub fn put(self, value: T) -> Result<(), Fail> {
        if self.0.is_null() {
            return Err(fail(INVALID_VALUE, "the pointer to the result is null"));
        }
        self.put_if(value);
        Ok(())
    }

    /// Writes it unless the pointer is null.
    pub fn put_if(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, and the caller promised room for a value. C's structs may lie unaligned.
            unsafe { self.0.write_unaligned(value) }
        }
    }

    /// Errors early, before anything is done.
    pub fn needed(self) -> Result<(), Fail> {
        if self.0.is_null() {
            Err(fail(INVALID_VALUE, "the pointer to the result is null"))
        } else {
            Ok(())
        }
    }

    /// Writes the value at an index.
    pub fn put_at(self, index: usize, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, and the caller promised room for as many values as it said.
            unsafe { self.0.add(index).write_unaligned(value) }
        }
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address.
    pub fn address(self) -> usize {
        self.0 as usize
    }
}

/// Where values are.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub fn get(self) -> Result<T, Fail> {
        self.at(0)
    }

    /// The value at an index.
    pub fn at(self, index: usize) -> Result<T, Fail> {
        if self.0.is_null() {
            return Err(fail(INVALID_VALUE, "a pointer to arguments is null"));
        }
        // SAFETY: not null, and the caller promised as many values as it said.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub fn address(self) -> usize {
        self.0 as usize
    }
}

impl In<u8> {
    /// An image in memory, of a length that itself tells.
    pub fn at_address(address: usize) -> In<u8> {
        In(address as *const u8)
    }

    /// The text there, up to its zero byte.
    pub fn text(self) -> Result<String, Fail> {
        Text(self.0.cast()).get()
    }
}

/// Text that ends in a zero byte.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub fn get(self) -> Result<String, Fail> {
        if self.0.is_null() {
            return Err(fail(INVALID_VALUE, "a name is null"));
        }
        // SAFETY: not null, and the caller promised a zero byte at its end.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned())
    }
}

/// Host memory that lives, and is left alone, until the work that uses it has run: the caller of a copy promised so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostAddress(pub usize);

impl HostAddress {
    /// Bytes from an offset on.
    ///
    /// # Safety
    /// The bytes are there to read, and nobody writes them meanwhile.
    pub unsafe fn bytes<'a>(self, offset: usize, bytes: usize) -> &'a [u8] {
        // SAFETY: the caller's; no length is above isize::MAX, which callers check by `row_bytes`.
        unsafe { std::slice::from_raw_parts((self.0 + offset) as *const u8, bytes) }
    }

    /// As [`bytes`](HostAddress::bytes), to write.
    ///
    /// # Safety
    /// The bytes are there to write, and nobody else uses them meanwhile.
    pub unsafe fn bytes_mut<'a>(self, offset: usize, bytes: usize) -> &'a mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut((self.0 + offset) as *mut u8, bytes) }
    }
}

/// Copies text into a buffer of `room` bytes, cut to fit, with a zero byte at its end.
pub(crate) fn put_text(to: Out<u8>, room: usize, text: &str) -> usize {
    let Some(most) = room.checked_sub(1) else { return 0 };
    let bytes = &text.as_bytes()[..text.len().min(most)];
    for (at, &byte) in bytes.iter().chain(&[0]).enumerate() {
        to.put_at(at, byte);
    }
    bytes.len() + 1
}

/// Writes a value at an address that a list of values gave, as JIT options do.
///
/// # Safety
/// The address is null, or good for a value of this type.
pub(crate) unsafe fn put_at_address<T>(address: usize, value: T) {
    Out(address as *mut T).put_if(value);
}

/// As [`put_text`], at an address.
///
/// # Safety
/// The address is null, or good for as many bytes.
pub(crate) unsafe fn put_text_at_address(address: usize, room: usize, text: &str) -> usize {
    if address == 0 { 0 } else { put_text(Out(address as *mut u8), room, text) }
}

/// Reads a value at an address that a list of values gave.
///
/// # Safety
/// The address is null, or good for a value of this type.
pub(crate) unsafe fn get_at_address<T: Copy>(address: usize) -> Result<T, Fail> {
    In(address as *const T).get()
}
