//! Queues of work on a card, and points in them.

use std::sync::Arc;

use bytemuck::Pod;

use super::buffer::{Buffer, View, ViewMut};
use super::card::Card;
use super::driver::{EventHandle, LaunchShape, StreamHandle};
use crate::{Error, Result};

/// A point in a stream's work.
pub struct Event {
    handle: EventHandle,
    card: Arc<Card>,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Event").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Event {
    pub(super) fn new(card: &Arc<Card>, handle: EventHandle) -> Self {
        Event { handle, card: Arc::clone(card) }
    }

    /// Waits on the host until the point is reached.
    ///
    /// # Errors
    /// Whatever went wrong in the work before it.
    pub fn synchronise(&self) -> Result<()> {
        // SAFETY: the event is this driver's and lives.
        unsafe { self.card.driver().synchronise_event(self.handle) }
    }

    /// Milliseconds from an earlier event to this one, both of [`Card::timing_event`], recorded and passed; `None` on the
    /// simulator.
    ///
    /// # Errors
    /// The driver's.
    pub fn ms_since(&self, earlier: &Event) -> Result<Option<f32>> {
        // SAFETY: both events live; of another card, the driver refuses them.
        unsafe { self.card.driver().elapsed_ms(earlier.handle, self.handle) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `Card::event`; the only owner is going away.
        unsafe { self.card.driver().destroy_event(self.handle) };
    }
}

/// A queue of work on a card, done in order.
pub struct Stream {
    handle: StreamHandle,
    card: Arc<Card>,
    owned: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Stream").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: made by `Card::stream`; the only owner is going away.
            unsafe { self.card.driver().destroy_stream(self.handle) };
        } else {
            // SAFETY: adopted by `from_raw`, and alive as long as this, by its promise.
            unsafe { self.card.driver().leave_stream(self.handle) };
        }
    }
}

impl Stream {
    pub(super) fn owned(card: &Arc<Card>, handle: StreamHandle) -> Self {
        Stream { handle, card: Arc::clone(card), owned: true }
    }

    /// A stream of somebody else's: never destroyed here.
    ///
    /// # Safety
    /// The handle is a stream of that card's driver and context, and lives as long as the result is used.
    pub unsafe fn from_raw(card: &Arc<Card>, handle: StreamHandle) -> Self {
        // SAFETY: the caller's promise.
        unsafe { card.driver().adopt_stream(handle) };
        Stream { handle, card: Arc::clone(card), owned: false }
    }

    /// The card.
    pub fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// The driver's handle (`CUstream` on a card).
    pub fn handle(&self) -> StreamHandle {
        self.handle
    }

    /// Copies values to the card and waits for it.
    ///
    /// # Errors
    /// Lengths that differ, another card's memory, or the driver's.
    pub fn upload<T: Pod>(&self, to: ViewMut<'_, T>, from: &[T]) -> Result<()> {
        // SAFETY: `from` is borrowed until the stream has passed the copy, which is waited for next.
        unsafe { self.upload_async(to, from)? };
        self.synchronise()
    }

    /// A new buffer with these values.
    ///
    /// # Errors
    /// No memory, or the driver's.
    pub fn upload_new<T: Pod>(&self, values: &[T], what: &str) -> Result<Buffer<T>> {
        let mut buffer = self.card.alloc(values.len(), what)?;
        self.upload(buffer.view_mut(), values)?;
        Ok(buffer)
    }

    /// Copies values from the card, after all work given before, and waits for it.
    ///
    /// # Errors
    /// Lengths that differ, another card's memory, or whatever went wrong in the work before.
    pub fn download<T: Pod>(&self, from: View<'_, T>, to: &mut [T]) -> Result<()> {
        // SAFETY: `to` is borrowed until the stream has passed the copy, which is waited for next.
        unsafe { self.download_async(from, to)? };
        self.synchronise()
    }

    /// As [`download`](Stream::download), into a new vector.
    ///
    /// # Errors
    /// As there.
    pub fn download_new<T: Pod>(&self, from: View<'_, T>) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); from.len];
        self.download(from, &mut values)?;
        Ok(values)
    }

    /// Gives a copy to the card without waiting.
    ///
    /// # Errors
    /// Lengths that differ, another card's memory, or the driver's.
    /// # Safety
    /// `from` lives and is not written until the stream has passed the copy.
    pub unsafe fn upload_async<T: Pod>(&self, to: ViewMut<'_, T>, from: &[T]) -> Result<()> {
        self.check("upload", to.card, to.len, from.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(from);
        // SAFETY: as many bytes on both sides (checked); the caller keeps the host's alive.
        unsafe {
            self.card.driver().copy_to_card(self.handle, to.address, bytes.as_ptr(), bytes.len())
        }
    }

    /// Gives a copy to the host without waiting.
    ///
    /// # Errors
    /// Lengths that differ, another card's memory, or the driver's.
    /// # Safety
    /// `to` lives and is not used until the stream has passed the copy.
    pub unsafe fn download_async<T: Pod>(&self, from: View<'_, T>, to: &mut [T]) -> Result<()> {
        self.check("download", from.card, to.len(), from.len)?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(to);
        // SAFETY: as many bytes on both sides (checked); the caller keeps the host's alive and alone.
        unsafe {
            self.card.driver().copy_to_host(
                self.handle,
                bytes.as_mut_ptr(),
                from.address,
                bytes.len(),
            )
        }
    }

    /// Sets every bit to zero.
    ///
    /// # Errors
    /// Another card's memory, or the driver's.
    pub fn zero<T: Pod>(&self, at: ViewMut<'_, T>) -> Result<()> {
        self.check("zero", at.card, at.len, at.len)?;
        // SAFETY: the view lies inside a living buffer of this card, which is freed behind the work of streams.
        unsafe {
            self.card.driver().zero(self.handle, at.address, (at.len * size_of::<T>()) as u64)
        }
    }

    /// Sets the event to the end of what was given so far.
    ///
    /// # Errors
    /// Another card's event, or the driver's.
    pub fn record(&self, event: &Event) -> Result<()> {
        self.same_card("record", &event.card)?;
        // SAFETY: both are this card's (checked) and live.
        unsafe { self.card.driver().record(event.handle, self.handle) }
    }

    /// Lets what is given from now on wait for the event.
    ///
    /// # Errors
    /// Another card's event, or the driver's.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.same_card("wait", &event.card)?;
        // SAFETY: both are this card's (checked) and live.
        unsafe { self.card.driver().wait(self.handle, event.handle) }
    }

    /// Waits on the host until everything given is done.
    ///
    /// # Errors
    /// Whatever went wrong in it.
    pub fn synchronise(&self) -> Result<()> {
        // SAFETY: the stream is this driver's and lives.
        unsafe { self.card.driver().synchronise(self.handle) }
    }

    /// Launches a kernel by file and entry.
    ///
    /// # Errors
    /// [`Error::Kernel`] for a shape beyond the kernel's or the card's limits, or the driver's.
    /// # Safety
    /// `params` is the kernel's parameter struct, the shape is what its header asks for, and the addresses are good
    /// for what it reads and writes.
    pub(super) unsafe fn launch<P: Pod>(
        &self,
        stem: &str,
        entry: &str,
        shape: LaunchShape,
        params: &P,
    ) -> Result<()> {
        let function = self.card.function(stem, entry)?;
        let refused = |reason: String| Err(Error::Kernel { kernel: entry.to_string(), reason });
        if shape.threads == 0 || shape.threads > function.max_threads {
            return refused(format!(
                "found {} threads a block, expected 1 to {}",
                shape.threads, function.max_threads
            ));
        }
        let limits = [0x7fff_ffff, 0xffff, 0xffff];
        if shape.grid.iter().zip(limits).any(|(&blocks, limit)| blocks == 0 || blocks > limit) {
            return refused(format!("found {:?} blocks, expected 1 to {limits:?}", shape.grid));
        }
        let (shared, have) = (
            u64::from(shape.shared_bytes) + u64::from(function.static_shared_bytes),
            u64::from(self.card.info().shared_bytes_per_block),
        );
        if shared > have {
            return refused(format!(
                "needs {shared} bytes of shared memory a block, {} has {have}",
                self.card.info().label
            ));
        }
        let bytes = bytemuck::bytes_of(params);
        // SAFETY: the caller's promise; limits were checked above.
        unsafe { self.card.driver().launch(self.handle, entry, function, shape, bytes)? };
        if !self.card.checked() {
            return Ok(());
        }
        self.synchronise().map_err(|error| match error {
            Error::Device { device, reason } => Error::Kernel {
                kernel: entry.to_string(),
                reason: format!("it failed on {device}: {reason}"),
            },
            other => other,
        })
    }

    fn check(&self, what: &str, card: &Arc<Card>, to: usize, from: usize) -> Result<()> {
        self.same_card(what, card)?;
        if to == from {
            Ok(())
        } else {
            Err(Error::invalid(format!("{what}: values to copy"), from, format!("{to}")))
        }
    }

    fn same_card(&self, what: &str, card: &Arc<Card>) -> Result<()> {
        if Arc::ptr_eq(&self.card, card) {
            return Ok(());
        }
        let (found, expected) = (&card.info().label, &self.card.info().label);
        Err(Error::invalid(format!("{what}: card"), found, format!("{expected}, the stream's")))
    }
}
