//! Memory with an owner: on a card, and page-locked on the host.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use super::card::Card;
use crate::{Error, Result};

/// Values in a card's memory, freed with their owner. Contents are raw: nothing says that they were written.
pub struct Buffer<T> {
    card: Arc<Card>,
    address: u64,
    len: usize,
    owned: bool,
    of: PhantomData<T>,
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Buffer")
            .field("address", &self.address)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<T: Pod> Buffer<T> {
    /// An allocation of the card's, freed with the buffer. `len` values take at most `isize::MAX` bytes.
    pub(super) fn owned(card: &Arc<Card>, address: u64, len: usize) -> Self {
        Buffer { card: Arc::clone(card), address, len, owned: true, of: PhantomData }
    }

    /// Memory of somebody else's, such as another crate's on the same card: never freed here.
    ///
    /// # Safety
    /// `len` values lie at `address` on that card, and live and are left alone as long as the buffer is used.
    pub unsafe fn from_raw(card: &Arc<Card>, address: u64, len: usize) -> Self {
        Buffer { card: Arc::clone(card), address, len, owned: false, of: PhantomData }
    }

    /// The card it is on.
    pub fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// The address on the card.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it, to read.
    pub fn view(&self) -> View<'_, T> {
        View { card: &self.card, address: self.address, len: self.len, of: PhantomData }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { card: &self.card, address: self.address, len: self.len, of: PhantomData }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: allocated by `Card::alloc`; the only owner is going away.
            unsafe { self.card.free(self.address, (self.len * size_of::<T>()) as u64) };
        }
    }
}

/// A part of a buffer, to read.
#[derive(Debug)]
pub struct View<'a, T> {
    pub(super) card: &'a Arc<Card>,
    pub(super) address: u64,
    pub(super) len: usize,
    of: PhantomData<&'a T>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

/// A part of a buffer, to write.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    pub(super) card: &'a Arc<Card>,
    pub(super) address: u64,
    pub(super) len: usize,
    of: PhantomData<&'a mut T>,
}

impl<'a, T: Pod> View<'a, T> {
    /// Somebody else's memory on the card.
    ///
    /// # Safety
    /// `len` values lie at `address`, live as long as the view, and are left alone meanwhile.
    #[cfg(feature = "cust-interop")]
    pub(super) unsafe fn from_raw(card: &'a Arc<Card>, address: u64, len: usize) -> Self {
        View { card, address, len, of: PhantomData }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values of a range.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that leaves the view.
    pub fn part(self, range: Range<usize>) -> Result<View<'a, T>> {
        let (address, len) = part::<T>(self.address, self.len, &range)?;
        Ok(View { card: self.card, address, len, of: PhantomData })
    }
}

impl<'a, T: Pod> ViewMut<'a, T> {
    /// Somebody else's memory on the card.
    ///
    /// # Safety
    /// `len` values lie at `address`, live as long as the view, and are used by nobody else meanwhile.
    #[cfg(feature = "cust-interop")]
    pub(super) unsafe fn from_raw(card: &'a Arc<Card>, address: u64, len: usize) -> Self {
        ViewMut { card, address, len, of: PhantomData }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values of a range.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that leaves the view.
    pub fn part(self, range: Range<usize>) -> Result<ViewMut<'a, T>> {
        let (address, len) = part::<T>(self.address, self.len, &range)?;
        Ok(ViewMut { card: self.card, address, len, of: PhantomData })
    }

    /// The first `len` values, and the others.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are fewer.
    pub fn split(self, len: usize) -> Result<(ViewMut<'a, T>, ViewMut<'a, T>)> {
        let (first, head) = part::<T>(self.address, self.len, &(0..len))?;
        let (second, tail) = part::<T>(self.address, self.len, &(len..self.len))?;
        let view = |address, len| ViewMut { card: self.card, address, len, of: PhantomData };
        Ok((view(first, head), view(second, tail)))
    }

    /// The same to read.
    pub fn as_view(&self) -> View<'_, T> {
        View { card: self.card, address: self.address, len: self.len, of: PhantomData }
    }
}

fn part<T>(address: u64, len: usize, range: &Range<usize>) -> Result<(u64, usize)> {
    if range.start > range.end || range.end > len {
        return Err(Error::invalid(
            "part of a buffer",
            format!("{range:?}"),
            format!("within 0..{len}"),
        ));
    }
    Ok((address + (range.start * size_of::<T>()) as u64, range.len()))
}

/// Page-locked host memory: copies from and to it run beside kernels.
pub struct Pinned<T> {
    card: Arc<Card>,
    at: NonNull<T>,
    len: usize,
}

impl<T> std::fmt::Debug for Pinned<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pinned").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T: Pod> Pinned<T> {
    /// `len` values at `at`, which the card's driver allocated and this frees.
    ///
    /// # Safety
    /// `len` values are there, written, aligned, and nobody else's; together they take at most `isize::MAX` bytes.
    pub(super) unsafe fn new(card: &Arc<Card>, at: NonNull<T>, len: usize) -> Self {
        Pinned { card: Arc::clone(card), at, len }
    }
}

// SAFETY: it owns its memory, as a `Vec` does.
unsafe impl<T: Send> Send for Pinned<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Sync> Sync for Pinned<T> {}

impl<T: Pod> Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values lie there, written (with zeros at first) and aligned (`new`'s promise); `T` takes any bits.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `Card::alloc_pinned` with this length; whoever copies waits before it lets go.
        unsafe { self.card.driver().free_pinned(self.at.cast(), self.len * size_of::<T>()) };
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_within_its_view() {
        let card = Card::sim();
        let mut buffer = card.alloc::<u32>(10, "values").unwrap();
        let start = buffer.address();
        let part = buffer.view().part(3..7).unwrap().part(1..4).unwrap();
        assert_eq!((part.address, part.len()), (start + 16, 3));
        assert!(buffer.view().part(10..10).unwrap().is_empty());
        let far = usize::MAX;
        for (from, to) in [(4, 3), (0, 11), (11, 11), (11, 0), (0, far), (far, 0), (far, far)] {
            let range = from..to;
            let error = buffer.view().part(range.clone()).unwrap_err().to_string();
            assert_eq!(error, format!("part of a buffer: found {range:?}, expected within 0..10"));
            assert!(buffer.view_mut().part(range).is_err());
        }
        let (head, tail) = buffer.view_mut().split(4).unwrap();
        assert_eq!((head.len(), tail.len(), tail.address), (4, 6, start + 16));
        for len in [11, far / 4 + 2, far] {
            assert!(buffer.view_mut().split(len).is_err(), "{len}");
        }
    }
}
