//! A card's memory: given and taken back in the order of streams where the card can, so that nobody who shares its
//! context waits for it.
//!
//! `cuMemFree` waits for all that runs in the context, other crates' work too, and ends a stream capture of theirs. A
//! pool of our own frees in stream order: the stream `freeing` waits for what our streams were given so far, and the
//! memory goes back to the system at the next wait on any of them. A card without pools (some virtual ones) waits for our
//! streams alone, then calls `cuMemFree`.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUmemAllocationType_enum::CU_MEM_ALLOCATION_TYPE_PINNED;
use cudarc::driver::sys::CUmemLocationType_enum::CU_MEM_LOCATION_TYPE_DEVICE;
use cudarc::driver::{DriverError, result, sys};

type Outcome<T> = std::result::Result<T, DriverError>;

/// Waits that block in place of spinning, and keep no time: cheaper, and the core is free for others meanwhile.
const WAITING: u32 = sys::CUevent_flags_enum::CU_EVENT_BLOCKING_SYNC as u32
    | sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;

/// Makes an event: to wait for, or with the time of its passing.
///
/// The context is current on this thread, as in everything here.
pub(super) fn create_event(timed: bool) -> Outcome<sys::CUevent> {
    let flags = if timed { sys::CUevent_flags_enum::CU_EVENT_DEFAULT as u32 } else { WAITING };
    let mut event = std::ptr::null_mut();
    // SAFETY: writes one handle, which lives.
    unsafe { sys::cuEventCreate(&mut event, flags) }.result()?;
    Ok(event)
}

/// What frees and waits need of the streams.
#[derive(Debug, Default)]
struct Streams {
    /// The streams that memory of this card may be in use on.
    alive: Vec<usize>,
    /// Ends of borrowed streams that were given back: events recorded on them.
    left: VecDeque<usize>,
    /// Events that nobody waits with.
    spare: Vec<usize>,
}

impl Streams {
    /// An event that nobody waits with.
    fn event(&mut self) -> Outcome<sys::CUevent> {
        match self.spare.pop() {
            Some(event) => Ok(event as sys::CUevent),
            None => create_event(false),
        }
    }
}

/// The pool, where the card has pools, and the two streams it works on.
#[derive(Debug)]
struct Pool {
    pool: usize,
    /// Allocations become valid on it, which is waited for at once.
    taking: usize,
    /// Frees happen on it, behind the work of all streams.
    freeing: usize,
}

/// A card's memory and the streams it is used on. Its methods need the context current.
#[derive(Debug)]
pub(super) struct Memory {
    pool: Option<Pool>,
    streams: Mutex<Streams>,
}

impl Memory {
    /// The memory of a card; with a pool of its own where the card has pools.
    pub fn new(device: sys::CUdevice, pools: bool) -> Outcome<Self> {
        let pool = if pools { Some(Pool::new(device)?) } else { None };
        Ok(Memory { pool, streams: Mutex::default() })
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        // A panic elsewhere leaves the lists whole.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on frees wait for this stream.
    pub fn enter(&self, stream: sys::CUstream) {
        self.streams().alive.push(stream as usize);
    }

    /// The stream goes away, with nothing left to do; or, borrowed, with work that frees still wait for.
    ///
    /// # Safety
    /// It lives, or is the default stream.
    pub unsafe fn leave(&self, stream: sys::CUstream, idle: bool) -> Outcome<()> {
        let mut streams = self.streams();
        if let Some(at) = streams.alive.iter().position(|&known| known == stream as usize) {
            streams.alive.swap_remove(at);
        }
        if idle {
            return Ok(());
        }
        let end = create_event(false)?;
        streams.left.push_back(end as usize);
        // SAFETY: the event was made just now; the stream is the caller's promise.
        unsafe { result::event::record(end, stream) }
    }

    /// Waits on the host for all that the stream was given, without spinning.
    ///
    /// # Safety
    /// The stream lives, or is the default stream.
    pub unsafe fn wait_for(&self, stream: sys::CUstream) -> Outcome<()> {
        let event = self.streams().event()?;
        // SAFETY: an event of this context that nobody else has; the stream is the caller's promise.
        let waited = unsafe {
            result::event::record(event, stream).and_then(|()| result::event::synchronize(event))
        };
        self.streams().spare.push(event as usize);
        waited
    }

    /// Takes memory that every stream may use.
    pub fn alloc(&self, bytes: usize) -> Outcome<u64> {
        let Some(pool) = &self.pool else {
            // SAFETY: only an address; it is written before it is read (the simulator checks).
            return unsafe { result::malloc_sync(bytes) };
        };
        match self.alloc_from(pool, bytes) {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                // What was freed may be waiting for its turn.
                self.settle()?;
                self.alloc_from(pool, bytes)
            }
            other => other,
        }
    }

    fn alloc_from(&self, pool: &Pool, bytes: usize) -> Outcome<u64> {
        let (taking, mut address) = (pool.taking as sys::CUstream, 0);
        // SAFETY: pool and stream are ours and live; writes one address. One that is not handed out is given back.
        unsafe {
            let pool = pool.pool as sys::CUmemoryPool;
            sys::cuMemAllocFromPoolAsync(&mut address, bytes, pool, taking).result()?;
            self.wait_for(taking).inspect_err(|_| {
                let _ = result::free_async(address, taking);
            })?;
        }
        Ok(address)
    }

    /// Frees memory behind the work that our streams have been given.
    ///
    /// # Safety
    /// The address came from [`alloc`](Self::alloc), and no work given from now on uses it.
    pub unsafe fn free(&self, address: u64) -> Outcome<()> {
        // Errors of earlier work show here; whoever waits for that work is told of them.
        let mut streams = self.streams();
        let Some(pool) = &self.pool else {
            for end in streams.left.drain(..) {
                // SAFETY: made by `leave`, and taken off the list.
                unsafe {
                    let _ = result::event::synchronize(end as sys::CUevent);
                    let _ = result::event::destroy(end as sys::CUevent);
                }
            }
            if let Ok(event) = streams.event() {
                for &stream in &streams.alive {
                    // SAFETY: the stream is on the list, which is held, so it lives; the event is nobody else's.
                    unsafe {
                        let _ = result::event::record(event, stream as sys::CUstream);
                        let _ = result::event::synchronize(event);
                    }
                }
                streams.spare.push(event as usize);
            }
            // SAFETY: the caller's promise; nothing of ours runs any more.
            return unsafe { result::free_sync(address) };
        };
        let freeing = pool.freeing as sys::CUstream;
        let wait = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        for end in streams.left.drain(..) {
            // SAFETY: made by `leave`, taken off the list; what waits for it keeps what it needs of it.
            unsafe {
                let _ = result::stream::wait_event(freeing, end as sys::CUevent, wait);
                let _ = result::event::destroy(end as sys::CUevent);
            }
        }
        if let Ok(event) = streams.event() {
            for &stream in &streams.alive {
                // SAFETY: the stream is on the list, so it lives; the wait is for what was recorded last, so that the
                // event may be recorded again.
                unsafe {
                    let _ = result::event::record(event, stream as sys::CUstream);
                    let _ = result::stream::wait_event(freeing, event, wait);
                }
            }
            streams.spare.push(event as usize);
        }
        // SAFETY: the caller's promise; the stream is behind everything that could use the memory.
        unsafe { result::free_async(address, freeing) }
    }

    /// Waits until what was freed is the system's again.
    pub fn settle(&self) -> Outcome<()> {
        let Some(pool) = &self.pool else { return Ok(()) };
        // SAFETY: stream and pool are ours and live.
        unsafe {
            self.wait_for(pool.freeing as sys::CUstream)?;
            sys::cuMemPoolTrimTo(pool.pool as sys::CUmemoryPool, 0).result()
        }
    }

    /// Gives everything back. Nothing that came from here is used any more.
    pub fn close(&mut self) {
        let streams = self.streams.get_mut().unwrap_or_else(PoisonError::into_inner);
        for event in streams.spare.drain(..).chain(streams.left.drain(..)) {
            // SAFETY: ours, and off its list.
            let _ = unsafe { result::event::destroy(event as sys::CUevent) };
        }
        if let Some(pool) = self.pool.take() {
            // SAFETY: ours, taken out of its place; a stream ends when its work has.
            unsafe {
                let _ = result::stream::synchronize(pool.freeing as sys::CUstream);
                let _ = result::stream::destroy(pool.freeing as sys::CUstream);
                let _ = result::stream::destroy(pool.taking as sys::CUstream);
                let _ = sys::cuMemPoolDestroy(pool.pool as sys::CUmemoryPool);
            }
        }
    }
}

impl Pool {
    fn new(device: sys::CUdevice) -> Outcome<Self> {
        let properties = sys::CUmemPoolProps {
            allocType: CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: sys::CUmemLocation { type_: CU_MEM_LOCATION_TYPE_DEVICE, id: device },
            win32SecurityAttributes: std::ptr::null_mut::<c_void>(),
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        };
        let mut pool = std::ptr::null_mut();
        // SAFETY: writes one handle; the properties live.
        unsafe { sys::cuMemPoolCreate(&mut pool, &properties) }.result()?;
        let stream = || result::stream::create(result::stream::StreamKind::NonBlocking);
        let made = stream().and_then(|taking| {
            stream().map(|freeing| (taking, freeing)).inspect_err(|_| {
                // SAFETY: made just now, and nobody's.
                let _ = unsafe { result::stream::destroy(taking) };
            })
        });
        match made {
            Ok((taking, freeing)) => {
                Ok(Pool { pool: pool as usize, taking: taking as usize, freeing: freeing as usize })
            }
            Err(error) => {
                // SAFETY: made just now, and nothing came from it.
                let _ = unsafe { sys::cuMemPoolDestroy(pool) };
                Err(error)
            }
        }
    }
}
