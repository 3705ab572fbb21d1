//! The simulator as a driver: `--device sim`, and the device of the tests.
//!
//! Streams are queues that can be let run late: work given to a late stream runs only when something waits for it. With
//! the copies late, a kernel that does not wait for its data reads memory nobody wrote, which the simulator reports;
//! with the kernels late, a copy that does not wait overwrites what they have yet to read, and the numbers differ. So
//! the order of streams is tested as strictly as the kernels are.

use std::alloc::Layout;
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use ptxsim::MmaSums;
use ptxsim::{Arg, Counters, DeviceConfig, LaunchConfig, Module};

use super::{
    CardInfo, Driver, EventHandle, Function, LaunchShape, ModuleHandle, PINNED_ALIGNMENT,
    StreamHandle,
};
use crate::backend::cuda::host_memory;
use crate::{Error, Result};

/// A simulated card.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// For messages: `sim`.
    pub label: String,
    /// Its compute capability; decides limits and which PTX is loaded.
    pub compute_capability: u32,
    /// Its memory in bytes; `None`: 16 GiB.
    pub memory_bytes: Option<u64>,
    /// The CUDA version its driver claims to know.
    pub cuda_version: (u32, u32),
    /// Streams whose work waits until it is needed: bit n for the n-th stream made.
    pub late_streams: u64,
    /// The first seed of the order of blocks and warps.
    pub seed: u64,
    /// How the tensor cores take their sums: in f32, or cut towards zero as an A100's or an H100's.
    pub mma_sums: MmaSums,
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions {
            label: "sim".into(),
            compute_capability: 80,
            memory_bytes: None,
            // It reads any PTX it knows the instructions of.
            cuda_version: (13, 9),
            late_streams: 0,
            seed: 0,
            mma_sums: MmaSums::F32,
        }
    }
}

/// Is told of every launch that ran: the entry's name, its shape, its parameters and what it cost.
pub type Observer = Box<dyn Fn(&str, LaunchShape, &[u8], &Counters) + Send + Sync>;

/// The simulator, opened as a card.
pub struct Sim {
    device: ptxsim::Device,
    info: CardInfo,
    options: SimOptions,
    state: Mutex<State>,
    observer: Mutex<Option<Observer>>,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Sim")
            .field("info", &self.info)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    modules: Vec<Arc<Module>>,
    /// Kernels by handle: module and entry.
    functions: Vec<(Arc<Module>, String)>,
    streams: HashMap<u64, Queue>,
    /// Streams and events made so far.
    made: (u64, u64),
    /// Where an event stands: the stream, and how much of its work comes before.
    events: HashMap<u64, Option<(u64, u64)>>,
    launches: u64,
}

#[derive(Default)]
struct Queue {
    late: bool,
    waiting: VecDeque<Work>,
    /// Pieces of work given, and done.
    given: u64,
    done: u64,
}

/// Host memory at an address that the caller keeps alive.
#[derive(Clone, Copy)]
struct HostPointer(*mut u8);

// SAFETY: the pointer is only followed inside `Sim::perform`, under the callers' promise (see `Driver`) that the memory
// lives and is left alone until the work is done, on whichever thread that happens.
unsafe impl Send for HostPointer {}

enum Work {
    ToCard { to: u64, from: HostPointer, bytes: usize },
    ToHost { to: HostPointer, from: u64, bytes: usize },
    Zero { at: u64, bytes: u64 },
    Launch { kernel: String, function: u64, shape: LaunchShape, params: Vec<u8> },
    Wait { stream: u64, until: u64 },
}

impl Sim {
    /// A card with empty memory.
    pub fn new(options: SimOptions) -> Self {
        let mut config = DeviceConfig::new(options.compute_capability);
        if let Some(bytes) = options.memory_bytes {
            config.memory_bytes = bytes;
        }
        config.mma_sums = options.mma_sums;
        let info = CardInfo {
            label: options.label.clone(),
            name: format!(
                "simulated card of compute capability {}.{}",
                options.compute_capability / 10,
                options.compute_capability % 10
            ),
            compute_capability: options.compute_capability,
            multiprocessors: config.multiprocessors,
            memory_bytes: config.memory_bytes,
            // What it would be says nothing here: the simulator has no caches.
            l2_bytes: 0,
            shared_bytes_per_block: config.shared_bytes_per_block,
            cuda_version: options.cuda_version,
        };
        Sim {
            device: ptxsim::Device::new(config),
            info,
            options,
            state: Mutex::new(State::default()),
            observer: Mutex::new(None),
        }
    }

    /// Tells `observer` of every launch from now on.
    pub fn observe(&self, observer: Observer) {
        *self.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in another thread leaves the queues whole: work is taken off before it runs.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, error: ptxsim::Error) -> Error {
        Error::Device { device: self.info.label.clone(), reason: error.to_string() }
    }

    fn give(&self, stream: StreamHandle, work: Work) -> Result<()> {
        let mut state = self.state();
        let queue = state.queue(stream.0, &self.info)?;
        queue.waiting.push_back(work);
        queue.given += 1;
        let (late, given) = (queue.late, queue.given);
        if late { Ok(()) } else { self.run_until(&mut state, stream.0, given) }
    }

    /// Does the stream's work up to a count, and what it waits for on other streams.
    ///
    /// When something of it fails, the rest that waits on the stream is dropped: whoever waited is told and lets go of the
    /// host memory that the rest would copy from and to.
    fn run_until(&self, state: &mut State, stream: u64, until: u64) -> Result<()> {
        let done = self.run_until_failure(state, stream, until);
        if done.is_err()
            && let Some(queue) = state.streams.get_mut(&stream)
        {
            queue.waiting.clear();
            queue.done = queue.given;
        }
        done
    }

    fn run_until_failure(&self, state: &mut State, stream: u64, until: u64) -> Result<()> {
        loop {
            let queue = state.queue(stream, &self.info)?;
            if queue.done >= until {
                return Ok(());
            }
            let Some(work) = queue.waiting.pop_front() else { return Ok(()) };
            queue.done += 1;
            if let Work::Wait { stream, until } = work {
                // A stream that has ended has done its work.
                if state.streams.contains_key(&stream) {
                    self.run_until(state, stream, until)?;
                }
            } else {
                self.perform(state, work)?;
            }
        }
    }

    fn perform(&self, state: &mut State, work: Work) -> Result<()> {
        match work {
            Work::ToCard { to, from, bytes } => {
                // SAFETY: the caller of `copy_to_card` promised `bytes` bytes there until the work is done.
                let bytes = unsafe { std::slice::from_raw_parts(from.0, bytes) };
                self.device.write(to, bytes).map_err(|e| self.wrong(e))
            }
            Work::ToHost { to, from, bytes } => {
                // SAFETY: the caller of `copy_to_host` promised `bytes` bytes there, to itself, until the work is done.
                let bytes = unsafe { std::slice::from_raw_parts_mut(to.0, bytes) };
                self.device.read(from, bytes).map_err(|e| self.wrong(e))
            }
            Work::Zero { at, bytes } => self.device.memset(at, 0, bytes).map_err(|e| self.wrong(e)),
            Work::Launch { kernel, function, shape, params } => {
                state.launches += 1;
                let (module, entry) =
                    state.functions.get(function as usize).cloned().ok_or_else(|| {
                        Error::Kernel { kernel, reason: "a handle of no loaded kernel".into() }
                    })?;
                let config = LaunchConfig::new(shape.grid, [shape.threads, 1, 1])
                    .with_shared(shape.shared_bytes)
                    .with_seed(self.options.seed.wrapping_add(state.launches));
                let counters = self
                    .device
                    .launch(&module, &entry, config, &[Arg::bytes(&params)])
                    .map_err(|e| Error::Kernel { kernel: entry.clone(), reason: e.to_string() })?;
                let observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(observer) = observer.as_ref() {
                    observer(&entry, shape, &params, &counters);
                }
                Ok(())
            }
            Work::Wait { .. } => Ok(()),
        }
    }

    fn run_all(&self) -> Result<()> {
        let mut state = self.state();
        let streams: Vec<(u64, u64)> = state.streams.iter().map(|(&s, q)| (s, q.given)).collect();
        // One that fails keeps no other from its end. The first failure is told.
        streams
            .into_iter()
            .map(|(stream, given)| self.run_until(&mut state, stream, given))
            .fold(Ok(()), Result::and)
    }
}

impl State {
    fn queue(&mut self, stream: u64, info: &CardInfo) -> Result<&mut Queue> {
        self.streams.get_mut(&stream).ok_or_else(|| Error::Device {
            device: info.label.clone(),
            reason: format!("no stream {stream}"),
        })
    }

    fn event(&self, event: u64) -> Option<(u64, u64)> {
        self.events.get(&event).copied().flatten()
    }
}

/// Host memory of so many bytes, at least one; `None` for more than there can be.
fn host_layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), PINNED_ALIGNMENT).ok()
}

// SAFETY: pinned memory is the allocator's, with the layout asked for; work of a stream that fails is dropped with it
// (`run_until`).
unsafe impl Driver for Sim {
    fn info(&self) -> &CardInfo {
        &self.info
    }

    fn free_bytes(&self) -> Result<u64> {
        Ok(self.info.memory_bytes.saturating_sub(self.device.used_bytes()))
    }

    fn load_module(&self, name: &str, ptx: &str) -> Result<ModuleHandle> {
        let module = Module::parse_once(name, ptx)
            .map_err(|e| Error::Kernel { kernel: name.to_string(), reason: e.to_string() })?;
        let mut state = self.state();
        state.modules.push(Arc::new(module));
        Ok(ModuleHandle(state.modules.len() as u64 - 1))
    }

    fn function(&self, module: ModuleHandle, entry: &str, _tiles: bool) -> Result<Function> {
        let mut state = self.state();
        let found = state.modules.get(module.0 as usize).cloned().ok_or_else(|| Error::Kernel {
            kernel: entry.to_string(),
            reason: "its module is not loaded".into(),
        })?;
        let known = found
            .entry(entry)
            .map_err(|e| Error::Kernel { kernel: entry.to_string(), reason: e.to_string() })?;
        state.functions.push((found, entry.to_string()));
        Ok(Function {
            handle: state.functions.len() as u64 - 1,
            max_threads: known.max_threads.map_or(1024, |sides| sides.iter().product()),
            static_shared_bytes: known.static_shared_bytes,
            registers: 0,
            local_bytes: 0,
        })
    }

    fn alloc(&self, bytes: u64, what: &str) -> Result<u64> {
        self.device.alloc_named(bytes, what).map_err(|error| match error {
            ptxsim::Error::OutOfMemory { .. } => Error::OutOfMemory {
                device: self.info.label.clone(),
                what: what.to_string(),
                need: bytes,
                have: self.info.memory_bytes.saturating_sub(self.device.used_bytes()),
            },
            other => self.wrong(other),
        })
    }

    unsafe fn free(&self, address: u64) {
        // As a card's driver: nothing is freed under work that may use it. What goes wrong there is told by the next
        // synchronisation on a card; here the work is lost with the memory it was for.
        let _ = self.run_all();
        let _ = self.device.free(address);
    }

    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>> {
        let none = || host_memory::refused(&self.info.label, bytes as u64);
        let layout = host_layout(bytes).ok_or_else(none)?;
        // SAFETY: the layout has at least one byte.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or_else(none)
    }

    unsafe fn free_pinned(&self, at: NonNull<u8>, bytes: usize) {
        if let Some(layout) = host_layout(bytes) {
            // SAFETY: made by `alloc_pinned` for as many bytes, as the caller promises, so with this layout.
            unsafe { std::alloc::dealloc(at.as_ptr(), layout) };
        }
    }

    fn create_stream(&self) -> Result<StreamHandle> {
        let mut state = self.state();
        let at = state.made.0;
        state.made.0 += 1;
        let late = at < 64 && self.options.late_streams >> at & 1 == 1;
        state.streams.insert(at, Queue { late, ..Queue::default() });
        Ok(StreamHandle(at))
    }

    unsafe fn destroy_stream(&self, stream: StreamHandle) {
        let mut state = self.state();
        let given = state.streams.get(&stream.0).map_or(0, |queue| queue.given);
        let _ = self.run_until(&mut state, stream.0, given);
        state.streams.remove(&stream.0);
    }

    unsafe fn copy_to_card(
        &self,
        stream: StreamHandle,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<()> {
        self.give(stream, Work::ToCard { to, from: HostPointer(from.cast_mut()), bytes })
    }

    unsafe fn copy_to_host(
        &self,
        stream: StreamHandle,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<()> {
        self.give(stream, Work::ToHost { to: HostPointer(to), from, bytes })
    }

    unsafe fn zero(&self, stream: StreamHandle, at: u64, bytes: u64) -> Result<()> {
        self.give(stream, Work::Zero { at, bytes })
    }

    unsafe fn launch(
        &self,
        stream: StreamHandle,
        kernel: &str,
        function: Function,
        shape: LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        let (kernel, params) = (kernel.to_string(), params.to_vec());
        self.give(stream, Work::Launch { kernel, function: function.handle, shape, params })
    }

    fn create_event(&self, _timed: bool) -> Result<EventHandle> {
        let mut state = self.state();
        let at = state.made.1;
        state.made.1 += 1;
        state.events.insert(at, None);
        Ok(EventHandle(at))
    }

    unsafe fn destroy_event(&self, event: EventHandle) {
        self.state().events.remove(&event.0);
    }

    unsafe fn record(&self, event: EventHandle, stream: StreamHandle) -> Result<()> {
        let mut state = self.state();
        let given = state.queue(stream.0, &self.info)?.given;
        state.events.insert(event.0, Some((stream.0, given)));
        Ok(())
    }

    unsafe fn wait(&self, stream: StreamHandle, event: EventHandle) -> Result<()> {
        let at = self.state().event(event.0);
        match at {
            Some((of, until)) if of != stream.0 => {
                self.give(stream, Work::Wait { stream: of, until })
            }
            _ => Ok(()),
        }
    }

    unsafe fn synchronise_event(&self, event: EventHandle) -> Result<()> {
        let mut state = self.state();
        match state.event(event.0) {
            // A stream that has ended has done its work.
            Some((stream, until)) if state.streams.contains_key(&stream) => {
                self.run_until(&mut state, stream, until)
            }
            _ => Ok(()),
        }
    }

    unsafe fn elapsed_ms(&self, _from: EventHandle, _to: EventHandle) -> Result<Option<f32>> {
        Ok(None)
    }

    unsafe fn synchronise(&self, stream: StreamHandle) -> Result<()> {
        let mut state = self.state();
        let given = state.queue(stream.0, &self.info)?.given;
        self.run_until(&mut state, stream.0, given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::Card;

    /// A late stream has work waiting; the first piece fails when something waits for it. What comes after it must not
    /// touch the host's memory, which its owner takes back once told of the failure.
    #[test]
    fn work_behind_a_failure_is_dropped() {
        let sim = Arc::new(Sim::new(SimOptions { late_streams: 1, ..SimOptions::default() }));
        let card = Card::with_driver(Arc::clone(&sim) as Arc<dyn Driver>, None);
        let stream = card.stream().unwrap();
        let unwritten = card.alloc::<u32>(4, "never written").unwrap();
        let mut written = stream.upload_new(&[1u32; 4], "written").unwrap();
        let mut first = [9u32; 4];
        let mut second = [9u32; 4];
        // SAFETY: both arrays, and the one copied from, live until the stream has nothing left to do.
        unsafe {
            stream.download_async(unwritten.view(), &mut first).unwrap();
            stream.download_async(written.view(), &mut second).unwrap();
            stream.upload_async(written.view_mut(), &[2u32; 4]).unwrap();
        }
        let error = stream.synchronise().unwrap_err().to_string();
        assert!(error.contains("never written"), "{error}");
        assert!(sim.state().streams.values().all(|queue| queue.waiting.is_empty()));
        stream.synchronise().unwrap();
        assert_eq!(second, [9; 4]);
        // The stream takes new work.
        assert_eq!(stream.download_new(written.view()).unwrap(), [1; 4]);
    }

    /// Memory is freed when all streams have passed their work, also those that come after one that fails.
    #[test]
    fn a_failing_stream_does_not_keep_others_from_their_end() {
        let sim =
            Arc::new(Sim::new(SimOptions { late_streams: u64::MAX, ..SimOptions::default() }));
        let card = Card::with_driver(Arc::clone(&sim) as Arc<dyn Driver>, None);
        let streams: Vec<_> = (0..8).map(|_| card.stream().unwrap()).collect();
        let unwritten = card.alloc::<u32>(4, "never written").unwrap();
        let written = streams[0].upload_new(&[1u32; 4], "written").unwrap();
        let mut to = [[0u32; 4]; 8];
        for (at, (stream, to)) in streams.iter().zip(&mut to).enumerate() {
            let from = if at % 2 == 0 { unwritten.view() } else { written.view() };
            // SAFETY: `to` lives until the streams have nothing left to do.
            unsafe { stream.download_async(from, to).unwrap() };
        }
        drop(card.alloc::<u32>(1, "freed").unwrap());
        assert!(sim.state().streams.values().all(|queue| queue.waiting.is_empty()));
        assert!(to.iter().skip(1).step_by(2).all(|to| *to == [1; 4]), "{to:?}");
    }
}
