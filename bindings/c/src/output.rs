//! What goes out: into buffers of the caller, whole or not at all.

use std::ffi::c_char;

use crate::input::check;
use crate::status::musc_status::MUSC_BUFFER_TOO_SMALL;
use crate::status::{Failure, Outcome};

/// A place for one value.
///
/// # Safety
/// `pointer` is NULL, or can be written to by nobody else meanwhile.
pub unsafe fn out_pointer<'a, T>(pointer: *mut T, what: &str) -> Outcome<&'a mut T> {
    check(pointer, 1, what)?;
    // SAFETY: not NULL and aligned by the check above. T is a number or a pointer, of which any bits are a value; the rest is the
    // caller's promise.
    Ok(unsafe { &mut *pointer })
}

/// Where a caller wants values.
#[derive(Debug, Clone, Copy)]
pub struct Buffer<T> {
    pub buffer: *mut T,
    pub capacity: usize,
    pub needed: *mut usize,
}

impl<T: Copy> Buffer<T> {
    /// Tells how many elements there are and, unless the caller only asked for that, lets `fill` write them in place. Nothing is
    /// written into a buffer that is too small.
    ///
    /// # Safety
    /// `needed` is NULL or can be written to; `buffer` is NULL or has room for `capacity` elements of any value, initialised or not.
    pub unsafe fn fill(self, count: usize, fill: impl FnOnce(&mut [T]) -> Outcome) -> Outcome
    where
        T: Default,
    {
        let Buffer { buffer, capacity, needed } = self;
        if needed.is_null() && buffer.is_null() {
            return Err(Failure::argument("buffer and needed", "NULL", "one of them at least"));
        }
        if !needed.is_null() {
            // SAFETY: the caller's promise.
            *unsafe { out_pointer(needed, "needed") }? = count;
        }
        if buffer.is_null() && capacity == 0 {
            return Ok(());
        }
        check(buffer, capacity, "buffer")?;
        if capacity < count {
            let message = format!("buffer: found room for {capacity} elements, expected {count}");
            return Err(Failure::new(MUSC_BUFFER_TOO_SMALL, message));
        }
        for at in 0..count {
            // SAFETY: `buffer` is not NULL and aligned by the check above, and `at` is below `count`, which is at most `capacity`.
            unsafe { buffer.add(at).write(T::default()) };
        }
        // SAFETY: as above, and every element has been written.
        fill(unsafe { std::slice::from_raw_parts_mut(buffer, count) })
    }

    /// As [`Self::fill`], from values that are there.
    ///
    /// # Safety
    /// As [`Self::fill`].
    pub unsafe fn copy(self, values: &[T]) -> Outcome
    where
        T: Default,
    {
        let copy = |buffer: &mut [T]| {
            buffer.copy_from_slice(values);
            Ok(())
        };
        // SAFETY: the caller's promise.
        unsafe { self.fill(values.len(), copy) }
    }
}

/// Where a caller wants a string: the capacity and what is needed count bytes, the 0 at the end among them.
///
/// # Safety
/// As [`Buffer::fill`].
pub unsafe fn put_text(buffer: Buffer<c_char>, text: &str) -> Outcome {
    // A 0 within would end it early.
    let text = text.replace('\0', "\u{fffd}");
    let bytes: Vec<c_char> = text.bytes().chain([0]).map(|byte| byte as c_char).collect();
    // SAFETY: the caller's promise.
    unsafe { buffer.copy(&bytes) }
}
