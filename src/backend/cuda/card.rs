//! A card with the kernels on it, its memory with an owner, and its streams.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;

use super::driver::card::CudaCard;
use super::driver::{
    CardInfo, Driver, EventHandle, Function, LaunchShape, ModuleHandle, StreamHandle,
};
use super::kernels::ptx_for;
use crate::{Error, Result};

/// A card that is open: memory, streams and kernels come from it. Share it by [`Arc`].
pub struct Card {
    driver: Arc<dyn Driver>,
    modules: Mutex<HashMap<String, ModuleHandle>>,
    functions: Mutex<HashMap<String, Function>>,
    /// The most bytes that this process may take.
    limit: u64,
    used: AtomicU64,
    /// The most that was in use at once.
    peak: AtomicU64,
}

impl fmt::Debug for Card {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Card").field("info", self.info()).finish_non_exhaustive()
    }
}

impl Card {
    /// Opens a card of this machine by its number.
    ///
    /// # Errors
    /// [`Error::Device`]: no driver, no such card, or the driver's reason.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        Ok(Self::with_driver(Arc::new(CudaCard::open(ordinal)?), None))
    }

    /// A simulated card of compute capability 8.0.
    #[cfg(feature = "sim")]
    pub fn sim() -> Arc<Self> {
        use super::driver::sim::{Sim, SimOptions};
        Self::with_driver(Arc::new(Sim::new(SimOptions::default())), None)
    }

    /// A card behind any driver. `limit` is the most bytes that may be in use; `None` leaves it to the card.
    pub fn with_driver(driver: Arc<dyn Driver>, limit: Option<u64>) -> Arc<Self> {
        Arc::new(Card {
            driver,
            modules: Mutex::new(HashMap::new()),
            functions: Mutex::new(HashMap::new()),
            limit: limit.unwrap_or(u64::MAX),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        })
    }

    /// What card it is.
    pub fn info(&self) -> &CardInfo {
        self.driver.info()
    }

    /// The driver below.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// Bytes that can still be allocated: what is free on the card, within the limit.
    ///
    /// # Errors
    /// The driver's.
    pub fn available_bytes(&self) -> Result<u64> {
        let within = self.limit.saturating_sub(self.used.load(Ordering::Relaxed));
        Ok(self.driver.free_bytes()?.min(within))
    }

    /// The most bytes that were allocated here at once.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Memory for `len` values that nobody wrote yet. `what` is what messages call it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with need and have, or the driver's.
    pub fn alloc<T: Pod>(self: &Arc<Self>, len: usize, what: &str) -> Result<Buffer<T>> {
        let bytes = len as u64 * size_of::<T>() as u64;
        let used = self.used.load(Ordering::Relaxed);
        if bytes > self.limit.saturating_sub(used) {
            return Err(Error::OutOfMemory {
                device: self.info().label.clone(),
                what: what.to_string(),
                need: bytes,
                have: self.limit.saturating_sub(used),
            });
        }
        let address = self.driver.alloc(bytes, what)?;
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(used, Ordering::Relaxed);
        Ok(Buffer { card: Arc::clone(self), address, len, owned: true, of: PhantomData })
    }

    /// Page-locked host memory, zeroed.
    ///
    /// # Errors
    /// The driver's.
    pub fn alloc_pinned<T: Pod>(self: &Arc<Self>, len: usize) -> Result<Pinned<T>> {
        let bytes = len * size_of::<T>();
        let at = self.driver.alloc_pinned(bytes)?;
        // SAFETY: the driver gave that many bytes, to this call alone.
        unsafe { at.as_ptr().write_bytes(0, bytes) };
        Ok(Pinned { card: Arc::clone(self), at: at.cast(), len })
    }

    /// A new stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn stream(self: &Arc<Self>) -> Result<Stream> {
        Ok(Stream { handle: self.driver.create_stream()?, card: Arc::clone(self), owned: true })
    }

    /// A new event.
    ///
    /// # Errors
    /// The driver's.
    pub fn event(self: &Arc<Self>) -> Result<Event> {
        Ok(Event { handle: self.driver.create_event()?, card: Arc::clone(self) })
    }

    /// A kernel by file and entry, loaded at its first use.
    ///
    /// # Errors
    /// [`Error::Kernel`]: a card too old, a driver too old, PTX that does not load, or no such entry.
    pub fn function(&self, stem: &str, entry: &str) -> Result<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = functions.get(entry) {
            return Ok(function);
        }
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(stem) {
            Some(&module) => module,
            None => {
                let (target, ptx) = ptx_for(stem, self.info())?;
                let module =
                    self.driver.load_module(&format!("{stem}.compute_{target}.ptx"), ptx)?;
                modules.insert(stem.to_string(), module);
                module
            }
        };
        let function = self.driver.function(module, entry)?;
        functions.insert(entry.to_string(), function);
        Ok(function)
    }
}

/// Values in a card's memory, freed with their owner. Contents are raw: nothing says that they were written.
pub struct Buffer<T> {
    card: Arc<Card>,
    address: u64,
    len: usize,
    owned: bool,
    of: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
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
            self.card.used.fetch_sub((self.len * size_of::<T>()) as u64, Ordering::Relaxed);
            // SAFETY: allocated by `Card::alloc`; the only owner is going away.
            unsafe { self.card.driver.free(self.address) };
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
    at: std::ptr::NonNull<T>,
    len: usize,
}

// SAFETY: it owns its memory, as a `Vec` does.
unsafe impl<T: Send> Send for Pinned<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Sync> Sync for Pinned<T> {}

impl<T: Pod> std::ops::Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values lie there, written (with zeros at first), aligned to a page; `T` takes any bits.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T: Pod> std::ops::DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `Card::alloc_pinned` with this length; whoever copies waits before it lets go.
        unsafe { self.card.driver.free_pinned(self.at.cast(), self.len * size_of::<T>()) };
    }
}

/// A point in a stream's work.
pub struct Event {
    handle: EventHandle,
    card: Arc<Card>,
}

impl Event {
    /// Waits on the host until the point is reached.
    ///
    /// # Errors
    /// Whatever went wrong in the work before it.
    pub fn synchronise(&self) -> Result<()> {
        // SAFETY: the event is this driver's and lives.
        unsafe { self.card.driver.synchronise_event(self.handle) }
    }

    /// Milliseconds from an earlier event to this one, both recorded and passed; `None` on the simulator.
    ///
    /// # Errors
    /// The driver's.
    pub fn ms_since(&self, earlier: &Event) -> Result<Option<f32>> {
        // SAFETY: both events live; of another card, the driver refuses them.
        unsafe { self.card.driver.elapsed_ms(earlier.handle, self.handle) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `Card::event`; the only owner is going away.
        unsafe { self.card.driver.destroy_event(self.handle) };
    }
}

/// A queue of work on a card, done in order.
pub struct Stream {
    handle: StreamHandle,
    card: Arc<Card>,
    owned: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: made by `Card::stream`; the only owner is going away.
            unsafe { self.card.driver.destroy_stream(self.handle) };
        }
    }
}

impl Stream {
    /// A stream of somebody else's: never destroyed here.
    ///
    /// # Safety
    /// The handle is a stream of that card's driver and context, and lives as long as the result is used.
    pub unsafe fn from_raw(card: &Arc<Card>, handle: StreamHandle) -> Self {
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
        self.check("upload", to.card, to.len, from.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(from);
        // SAFETY: both ranges hold as many bytes (checked), and live until the stream has passed, waited for next.
        unsafe {
            self.card.driver.copy_to_card(self.handle, to.address, bytes.as_ptr(), bytes.len())?;
        }
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
        self.check("download", from.card, to.len(), from.len)?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(to);
        // SAFETY: both ranges hold as many bytes (checked), and live until the stream has passed, waited for next.
        unsafe {
            self.card.driver.copy_to_host(
                self.handle,
                bytes.as_mut_ptr(),
                from.address,
                bytes.len(),
            )?;
        }
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
            self.card.driver.copy_to_card(self.handle, to.address, bytes.as_ptr(), bytes.len())
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
            self.card.driver.copy_to_host(
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
        // SAFETY: the view lies inside a living buffer of this card, which is freed only when streams are idle.
        unsafe { self.card.driver.zero(self.handle, at.address, (at.len * size_of::<T>()) as u64) }
    }

    /// Sets the event to the end of what was given so far.
    ///
    /// # Errors
    /// Another card's event, or the driver's.
    pub fn record(&self, event: &Event) -> Result<()> {
        self.same_card("record", &event.card)?;
        // SAFETY: both are this card's (checked) and live.
        unsafe { self.card.driver.record(event.handle, self.handle) }
    }

    /// Lets what is given from now on wait for the event.
    ///
    /// # Errors
    /// Another card's event, or the driver's.
    pub fn wait(&self, event: &Event) -> Result<()> {
        self.same_card("wait", &event.card)?;
        // SAFETY: both are this card's (checked) and live.
        unsafe { self.card.driver.wait(self.handle, event.handle) }
    }

    /// Waits on the host until everything given is done.
    ///
    /// # Errors
    /// Whatever went wrong in it.
    pub fn synchronise(&self) -> Result<()> {
        // SAFETY: the stream is this driver's and lives.
        unsafe { self.card.driver.synchronise(self.handle) }
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
        unsafe { self.card.driver.launch(self.handle, entry, function, shape, bytes) }
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
