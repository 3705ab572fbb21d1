//! Buffers that start on a cache line, so that no whole vector straddles two.

use std::marker::PhantomData;

use bytemuck::Pod;

/// One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([u8; LINE]);

const LINE: usize = 64;

/// f32 values of a cache line.
pub const LANES: usize = LINE / size_of::<f32>();

/// A buffer of zeros at first, aligned to 64 bytes; it derefs to a slice of exactly the length asked for.
pub struct Aligned<T = f32> {
    lines: Vec<Line>,
    length: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Aligned<T> {
    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        let lines = (length * size_of::<T>()).div_ceil(LINE);
        let lines = vec![bytemuck::Zeroable::zeroed(); lines];
        Aligned { lines, length, values: PhantomData }
    }
}

/// Its length: the values are many.
impl<T> std::fmt::Debug for Aligned<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Aligned({})", self.length)
    }
}

impl<T: Pod> std::ops::Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.length]
    }
}

impl<T: Pod> std::ops::DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.length]
    }
}
