//! A card with the kernels on it, and what of its memory is in use.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytemuck::Pod;

use super::buffer::{Buffer, Pinned};
use super::driver::card::CudaCard;
use super::driver::{CardInfo, Driver, Function, ModuleHandle, PINNED_ALIGNMENT};
use super::host_memory;
use super::kernels::{entries, keeps_tiles, ptx_for, stems};
use super::stream::{Event, Stream};
use crate::progress::go_on;
use crate::{Error, Progress, Result};

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
    /// Every launch is waited for.
    checked: AtomicBool,
}

/// A kernel as the card's driver compiled it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedKernel {
    /// Its file: `gemm`.
    pub stem: String,
    /// Its entry: `gemm_bias_f16`.
    pub entry: String,
    /// Registers of a thread; 0 where that is not known.
    pub registers: u32,
    /// Local memory of a thread in bytes: what it spills.
    pub local_bytes: u32,
}

/// All kernels, loaded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Loaded {
    /// How long it took, in seconds: a driver compiles what is not in its cache.
    pub seconds: f64,
    /// Each kernel, by file and entry.
    pub kernels: Vec<LoadedKernel>,
}

impl Loaded {
    /// Those that spill: they are right, and slower than they could be.
    pub fn spilling(&self) -> impl Iterator<Item = &LoadedKernel> {
        self.kernels.iter().filter(|kernel| kernel.local_bytes > 0)
    }
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
            checked: AtomicBool::new(false),
        })
    }

    /// What card it is.
    pub fn info(&self) -> &CardInfo {
        self.driver.info()
    }

    /// Waits for every launch from now on, or no longer: a kernel that fails is then named, where else the failure shows in
    /// a later call. Slow, and to find out.
    pub fn set_checked(&self, checked: bool) {
        self.checked.store(checked, Ordering::Relaxed);
    }

    /// Whether every launch is waited for.
    pub fn checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
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
        let bytes = self.bytes_of::<T>(len, what)? as u64;
        let have = self.limit.saturating_sub(self.used.load(Ordering::Relaxed));
        if bytes > have {
            return Err(self.out_of_memory(what, bytes, have));
        }
        let address = self.driver.alloc(bytes, what)?;
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(used, Ordering::Relaxed);
        Ok(Buffer::owned(self, address, len))
    }

    /// Page-locked host memory for `len` values, zeroed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for more bytes than memory can have, or the driver's.
    pub fn alloc_pinned<T: Pod>(self: &Arc<Self>, len: usize) -> Result<Pinned<T>> {
        // No page is larger, and no value that is copied to a card has reason to be.
        const { assert!(align_of::<T>() <= PINNED_ALIGNMENT) };
        let bytes = self.bytes_of::<T>(len, "page-locked host memory")?;
        let at = self.driver.alloc_pinned(bytes)?;
        // SAFETY: `Driver` promises that many bytes, aligned to `PINNED_ALIGNMENT`, to this call alone.
        host_memory::zero(unsafe { std::slice::from_raw_parts_mut(at.as_ptr().cast(), bytes) });
        // SAFETY: so `len` values fit there: their bytes were multiplied without overflow. They are written, with zeros.
        Ok(unsafe { Pinned::new(self, at.cast(), len) })
    }

    /// Bytes that `len` values take. What is larger than any object can be is refused here, so that no product of a length
    /// and a size overflows behind it.
    fn bytes_of<T>(&self, len: usize, what: &str) -> Result<usize> {
        const MOST: usize = isize::MAX as usize;
        match len.checked_mul(size_of::<T>()) {
            Some(bytes) if bytes <= MOST => Ok(bytes),
            bytes => {
                Err(self.out_of_memory(what, bytes.map_or(u64::MAX, |b| b as u64), MOST as u64))
            }
        }
    }

    fn out_of_memory(&self, what: &str, need: u64, have: u64) -> Error {
        Error::OutOfMemory { device: self.info().label.clone(), what: what.to_string(), need, have }
    }

    /// A new stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn stream(self: &Arc<Self>) -> Result<Stream> {
        Ok(Stream::owned(self, self.driver.create_stream()?))
    }

    /// A new event to wait for.
    ///
    /// # Errors
    /// The driver's.
    pub fn event(self: &Arc<Self>) -> Result<Event> {
        Ok(Event::new(self, self.driver.create_event(false)?))
    }

    /// A new event that keeps the time at which it is passed, which [`event`](Self::event)s do not.
    ///
    /// # Errors
    /// The driver's.
    pub fn timing_event(self: &Arc<Self>) -> Result<Event> {
        Ok(Event::new(self, self.driver.create_event(true)?))
    }

    /// Loads every kernel, in place of each at its first use: a driver that has them not in its cache compiles them, which
    /// takes seconds. Each file is a step of `progress`, whose stage the caller begins and ends.
    ///
    /// # Errors
    /// As [`function`](Self::function), or [`Error::Interrupted`].
    pub fn load_kernels(&self, progress: &dyn Progress) -> Result<Loaded> {
        let start = Instant::now();
        let mut kernels = Vec::new();
        for stem in stems() {
            go_on(progress)?;
            let (_, ptx) = ptx_for(stem, self.info())?;
            for entry in entries(ptx) {
                let Function { registers, local_bytes, .. } = self.function(stem, entry)?;
                let (stem, entry) = (stem.to_string(), entry.to_string());
                kernels.push(LoadedKernel { stem, entry, registers, local_bytes });
            }
            progress.advance(1);
        }
        Ok(Loaded { seconds: start.elapsed().as_secs_f64(), kernels })
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
        let function = self.driver.function(module, entry, keeps_tiles(stem))?;
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

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::backend::cuda::driver::sim::{Sim, SimOptions};

    /// What was needed and what there was, of an error that has to be of memory.
    fn refused<T: fmt::Debug>(result: Result<T>) -> (u64, u64) {
        match result {
            Err(Error::OutOfMemory { need, have, .. }) => (need, have),
            other => panic!("found {other:?}, expected a refusal"),
        }
    }

    #[test]
    fn a_length_whose_bytes_overflow_is_refused() {
        let card = Card::sim();
        let most = isize::MAX as u64;
        // 2^61 values of 8 bytes are 2^64 bytes: no bytes at all to a product that wraps.
        for len in [1 << 61, (1 << 61) + 1, usize::MAX / 8 + 1, usize::MAX] {
            assert_eq!(refused(card.alloc::<u64>(len, "values").map(drop)), (u64::MAX, most));
            assert_eq!(refused(card.alloc_pinned::<u64>(len).map(drop)), (u64::MAX, most));
        }
        // No overflow, but more than a slice may have.
        assert_eq!(refused(card.alloc_pinned::<u8>(1 << 63).map(drop)), (1 << 63, most));
        assert_eq!(refused(card.alloc::<u8>(1 << 63, "values").map(drop)), (1 << 63, most));
        assert_eq!(card.peak_bytes(), 0);
    }

    #[test]
    fn what_no_machine_has_is_refused_by_the_driver() {
        let card = Card::sim();
        let need = 1 << 62;
        assert_eq!(refused(card.alloc::<u8>(need, "values").map(drop)), (1 << 62, 16 << 30));
        let error = card.alloc_pinned::<u8>(need).map(drop).unwrap_err();
        assert!(error.to_string().contains("4611686018427387904 bytes"), "{error}");
        assert!(error.to_string().contains("no memory for page-locked host memory"), "{error}");
        // A card that claims more memory than there are addresses.
        let options = SimOptions { memory_bytes: Some(u64::MAX), ..SimOptions::default() };
        let card = Card::with_driver(Arc::new(Sim::new(options)), None);
        assert_eq!(refused(card.alloc::<u8>(need, "values").map(drop)).0, 1 << 62);
        assert_eq!(refused(card.driver().alloc(u64::MAX, "values").map(drop)).0, u64::MAX);
    }

    #[test]
    fn page_locked_memory_is_zeroed_and_aligned() {
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C, align(256))]
        struct Wide([u64; 32]);

        let card = Card::sim();
        for len in [0, 1, 3] {
            let mut pinned = card.alloc_pinned::<Wide>(len).unwrap();
            assert!(pinned.as_ptr().addr().is_multiple_of(PINNED_ALIGNMENT));
            assert!(pinned.iter().all(|value| value.0 == [0; 32]));
            pinned.fill(Wide([7; 32]));
            assert_eq!(pinned.len(), len);
        }
    }
}
