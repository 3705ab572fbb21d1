//! A card with the kernels on it, and what of its memory is in use.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;

use super::buffer::{Buffer, Pinned};
use super::driver::card::CudaCard;
use super::driver::{CardInfo, Driver, Function, ModuleHandle};
use super::kernels::ptx_for;
use super::stream::{Event, Stream};
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
        let free = self.driver.free_bytes()?;
        // Allocations come in pages of up to 2 MiB, and others use the card too: what is free is not all to be had.
        Ok((free - free / 20).min(within))
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
        Ok(Buffer::owned(self, address, len))
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
        Ok(Pinned::new(self, at.cast(), len))
    }

    /// A new stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn stream(self: &Arc<Self>) -> Result<Stream> {
        Ok(Stream::owned(self, self.driver.create_stream()?))
    }

    /// A new event.
    ///
    /// # Errors
    /// The driver's.
    pub fn event(self: &Arc<Self>) -> Result<Event> {
        Ok(Event::new(self, self.driver.create_event()?))
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

    /// Gives back what [`alloc`](Self::alloc) took.
    ///
    /// # Safety
    /// The address and the bytes are an allocation's, which nobody uses any more.
    pub(super) unsafe fn free(&self, address: u64, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.driver.free(address) };
    }
}
