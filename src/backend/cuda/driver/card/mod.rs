//! A real card, through `cudarc`'s bindings of the driver API. The library is loaded at run time: nothing of CUDA is
//! needed to build or to start.
//!
//! Codes that a driver newer than the bindings invents are not in the bindings' enum (they know those of CUDA 12.9): only
//! what failed anyway returns one.

mod context;
mod memory;

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::sys::CUfunction_attribute_enum as FunctionAttribute;
use cudarc::driver::{DriverError, result, sys};

use self::context::PrimaryContext;
use self::memory::{Memory, create_event};
use super::{CardInfo, Driver, EventHandle, Function, LaunchShape, ModuleHandle, StreamHandle};
use crate::backend::cuda::host_memory;
use crate::{Error, Result};

/// Shared memory a block gets without asking for more.
const SHARED_BYTES_UNASKED: u32 = 48 * 1024;
/// Room for what the driver's compiler says of PTX that it refuses.
const JIT_LOG_BYTES: usize = 4096;

/// A card of this machine, by its primary context, which it shares with other users of CUDA in the process.
pub struct CudaCard {
    info: CardInfo,
    memory: Memory,
    // The last to go: the memory is its.
    context: PrimaryContext,
}

impl Drop for CudaCard {
    fn drop(&mut self) {
        let _ = self.context.make_current();
        self.memory.close();
    }
}

impl std::fmt::Debug for CudaCard {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CudaCard").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Whether a device of NVIDIA's is on the bus, as far as the system tells (Linux).
pub fn has_nvidia_device() -> bool {
    const VENDOR: &str = "0x10de";
    let devices = std::fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    devices
        .filter_map(|device| std::fs::read_to_string(device.path().join("vendor")).ok())
        .any(|vendor| vendor.trim() == VENDOR)
}

/// How many cards there are.
///
/// # Errors
/// [`Error::Device`] with the reason why there is none: no driver, or what the driver says.
pub fn count() -> Result<usize> {
    let absent = |reason: String| Error::Device { device: "cuda".into(), reason };
    // SAFETY: only looks whether a library of that name loads.
    if !unsafe { sys::is_culib_present() } {
        let advice = if has_nvidia_device() { ": install NVIDIA's driver" } else { "" };
        return Err(absent(format!(
            "no CUDA driver on this machine (libcuda is not there){advice}"
        )));
    }
    let said = |call: &str, error: DriverError| absent(format!("{call}: {}", describe(error)));
    result::init().map_err(|error| said("cuInit", error))?;
    let count = result::device::get_count().map_err(|error| said("cuDeviceGetCount", error))?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(absent(String::from("the driver finds no card"))),
    }
}

impl CudaCard {
    /// Opens a card by its number.
    ///
    /// # Errors
    /// [`Error::Device`]: no driver, no such card, or the driver's reason.
    pub fn open(ordinal: usize) -> Result<Self> {
        let label = format!("cuda:{ordinal}");
        let count = count().map_err(|error| match error {
            Error::Device { reason, .. } => Error::Device { device: label.clone(), reason },
            other => other,
        })?;
        if ordinal >= count {
            return Err(Error::Device {
                device: label,
                reason: format!("no such card: found {count}, numbered from 0"),
            });
        }
        let said = |call: &'static str| {
            let label = label.clone();
            move |error: DriverError| Error::Device {
                device: label,
                reason: format!("{call}: {}", describe(error)),
            }
        };
        let context = i32::try_from(ordinal)
            .map_err(|_| ("cuDeviceGet", DriverError(sys::CUresult::CUDA_ERROR_INVALID_DEVICE)))
            .and_then(PrimaryContext::retain)
            .map_err(|(call, error)| said(call)(error))?;
        let device = context.device();
        // SAFETY: the driver gave the device.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let known = |which| attribute(which).map_err(said("cuDeviceGetAttribute"));
        let major = known(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = known(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let multiprocessors = known(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = known(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let l2_bytes = known(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        let name = result::device::get_name(device).map_err(said("cuDeviceGetName"))?;
        // SAFETY: the driver gave the device.
        let memory =
            unsafe { result::device::total_mem(device) }.map_err(said("cuDeviceTotalMem"))?;
        let mut version = 0;
        // SAFETY: writes one int, which lives.
        unsafe { sys::cuDriverGetVersion(&mut version) }
            .result()
            .map_err(said("cuDriverGetVersion"))?;
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let info = CardInfo {
            label: label.clone(),
            name,
            compute_capability: number(major) * 10 + number(minor),
            multiprocessors: number(multiprocessors),
            memory_bytes: memory as u64,
            l2_bytes: u64::from(number(l2_bytes)),
            shared_bytes_per_block: number(shared),
            cuda_version: (number(version) / 1000, number(version) % 1000 / 10),
        };
        // A driver from before pools (CUDA 11.2) does not know the question.
        let pools = info.cuda_version >= (11, 2)
            && known(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? == 1;
        context.make_current().map_err(said("cuCtxSetCurrent"))?;
        let memory = Memory::new(device, pools).map_err(said("cuMemPoolCreate"))?;
        Ok(CudaCard { info, memory, context })
    }

    /// The driver's `CUcontext`, to share with other users of the driver: the card's primary context, held as long as this is.
    pub fn raw_context(&self) -> *mut std::ffi::c_void {
        self.context.handle().cast()
    }

    /// An error of earlier work that a call of this name is told of: what it was called for is not to blame.
    fn earlier_work(&self, name: &str, error: DriverError) -> Error {
        let said = describe(error);
        Error::Device {
            device: self.info.label.clone(),
            reason: format!(
                "{name}: {said}: work before this failed; CUDA_LAUNCH_BLOCKING=1 names the kernel"
            ),
        }
    }

    /// For what gives back: done whether or not the context can be made current, since it mostly is. Errors are of earlier
    /// work, and whoever waits for that work is told of them.
    fn give_back(&self, call: impl FnOnce() -> std::result::Result<(), DriverError>) {
        let _ = self.context.make_current();
        let _ = call();
    }

    /// Makes the context current on this thread, then calls the driver.
    fn call<T>(
        &self,
        name: &str,
        call: impl FnOnce() -> std::result::Result<T, DriverError>,
    ) -> Result<T> {
        self.context.make_current().and_then(|()| call()).map_err(|error| Error::Device {
            device: self.info.label.clone(),
            reason: format!("{name}: {}", describe(error)),
        })
    }
}

/// Whether an error is one of work before that failed: it is told by every call from then on.
fn of_earlier_work(error: DriverError) -> bool {
    use sys::CUresult as Code;
    matches!(
        error.0,
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_CONTAINED
    )
}

/// The driver's name for an error and its sentence.
fn describe(error: DriverError) -> String {
    let text = |found: std::result::Result<&CStr, DriverError>| {
        found.map_or_else(|_| String::from("?"), |text| text.to_string_lossy().into_owned())
    };
    format!("{} ({})", text(error.error_string()), text(error.error_name()))
}

fn stream_of(stream: StreamHandle) -> sys::CUstream {
    stream.0 as sys::CUstream
}

fn event_of(event: EventHandle) -> sys::CUevent {
    event.0 as sys::CUevent
}

// SAFETY lines of the blocks below: "trait" stands for the promise of the caller in `Driver` that handles are this
// driver's and that ranges live until the stream has passed the work; the context is current by `call`.

// SAFETY: `cuMemHostAlloc` gives whole pages. After a failure the context is lost: the driver runs nothing more in it.
unsafe impl Driver for CudaCard {
    fn info(&self) -> &CardInfo {
        &self.info
    }

    fn raw_context(&self) -> Option<usize> {
        Some(self.context.handle() as usize)
    }

    fn free_bytes(&self) -> Result<u64> {
        self.call("cuMemPoolTrimTo", || self.memory.settle())?;
        self.call("cuMemGetInfo", result::mem_get_info).map(|(free, _)| free as u64)
    }

    fn load_module(&self, name: &str, ptx: &str) -> Result<ModuleHandle> {
        let text = CString::new(ptx).map_err(|_| Error::Kernel {
            kernel: name.to_string(),
            reason: "its PTX has a zero byte".into(),
        })?;
        let mut log = vec![0u8; JIT_LOG_BYTES];
        let mut options = [
            sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The second option's value is the size itself, in place of a pointer.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), JIT_LOG_BYTES as *mut c_void];
        let mut module: sys::CUmodule = std::ptr::null_mut();
        // SAFETY: the image is text that ends in a zero byte and is copied; both options have their value; the log is
        // as long as it says and lives.
        let loaded = self.context.make_current().and_then(|()| unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                text.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
            .result()
        });
        loaded.map(|()| ModuleHandle(module as u64)).map_err(|error| {
            if of_earlier_work(error) {
                return self.earlier_work("cuModuleLoadDataEx", error);
            }
            let error = format!("cuModuleLoadDataEx: {}", describe(error));
            let said = log.split(|&byte| byte == 0).next().unwrap_or_default();
            Error::Kernel {
                kernel: name.to_string(),
                reason: format!(
                    "the driver (CUDA {}.{}) does not load its PTX: {error}{}{}",
                    self.info.cuda_version.0,
                    self.info.cuda_version.1,
                    if said.is_empty() { "" } else { ": " },
                    String::from_utf8_lossy(said).trim()
                ),
            }
        })
    }

    fn function(&self, module: ModuleHandle, entry: &str, tiles: bool) -> Result<Function> {
        let kernel = |reason: String| Error::Kernel { kernel: entry.to_string(), reason };
        let name = CString::new(entry).map_err(|_| kernel("a name with a zero byte".into()))?;
        // SAFETY: the module was loaded by `load_module`, and modules live as long as the context.
        let function = self
            .call("cuModuleGetFunction", || unsafe {
                result::module::get_function(module.0 as sys::CUmodule, name)
            })
            .map_err(|error| kernel(error.to_string()))?;
        let attribute = |which| {
            // SAFETY: the function was found just now.
            self.call("cuFuncGetAttribute", || unsafe {
                result::function::get_function_attribute(function, which)
            })
            .map(|value| u32::try_from(value).unwrap_or(0))
        };
        let static_shared_bytes =
            attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let dynamic = self.info.shared_bytes_per_block.saturating_sub(static_shared_bytes);
        if dynamic + static_shared_bytes > SHARED_BYTES_UNASKED {
            // SAFETY: as above; the value is within what the card allows a block.
            self.call("cuFuncSetAttribute", || unsafe {
                result::function::set_function_attribute(
                    function,
                    FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    dynamic as i32,
                )
            })?;
        }
        if tiles {
            // Tiles live in shared memory and are read once from global memory: all of it that a multiprocessor has, so
            // that as many blocks fit as there are registers for. All such kernels ask for the same: another share costs a
            // wait for the multiprocessor to drain, and keeps two kernels from running on it side by side.
            // SAFETY: as above; the value is a percentage.
            self.call("cuFuncSetAttribute", || unsafe {
                result::function::set_function_attribute(
                    function,
                    FunctionAttribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                    100,
                )
            })?;
        }
        Ok(Function {
            handle: function as u64,
            max_threads: attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            static_shared_bytes,
            registers: attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
        })
    }

    fn alloc(&self, bytes: u64, what: &str) -> Result<u64> {
        // What there is, is asked for only where it was not enough.
        let out_of_memory = || Error::OutOfMemory {
            device: self.info.label.clone(),
            what: what.to_string(),
            need: bytes,
            have: self.free_bytes().unwrap_or(0),
        };
        let size = usize::try_from(bytes).map_err(|_| out_of_memory())?;
        self.context.make_current().map_err(|error| Error::Device {
            device: self.info.label.clone(),
            reason: describe(error),
        })?;
        match self.memory.alloc(size.max(1)) {
            Ok(address) => Ok(address),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(out_of_memory()),
            Err(error) => Err(Error::Device {
                device: self.info.label.clone(),
                reason: format!("{bytes} bytes for {what}: {}", describe(error)),
            }),
        }
    }

    unsafe fn free(&self, address: u64) {
        // SAFETY: trait.
        self.give_back(|| unsafe { self.memory.free(address) });
    }

    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>> {
        let bound = self.context.make_current();
        // SAFETY: plain allocation. Portable (1): pinned for every card, so that several may read it.
        match bound.and_then(|()| unsafe { result::malloc_host(bytes.max(1), 1) }) {
            Ok(at) => NonNull::new(at.cast::<u8>()).ok_or_else(|| Error::Device {
                device: self.info.label.clone(),
                reason: "cuMemHostAlloc gave no memory".into(),
            }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(host_memory::refused(&self.info.label, bytes as u64))
            }
            Err(error) => Err(Error::Device {
                device: self.info.label.clone(),
                reason: format!("cuMemHostAlloc of {bytes} bytes: {}", describe(error)),
            }),
        }
    }

    unsafe fn free_pinned(&self, at: NonNull<u8>, _bytes: usize) {
        // SAFETY: trait.
        self.give_back(|| unsafe { result::free_host(at.as_ptr().cast::<c_void>()) });
    }

    fn create_stream(&self) -> Result<StreamHandle> {
        self.call("cuStreamCreate", || {
            result::stream::create(result::stream::StreamKind::NonBlocking)
        })
        .map(|stream| {
            self.memory.enter(stream);
            StreamHandle(stream as u64)
        })
    }

    unsafe fn adopt_stream(&self, stream: StreamHandle) {
        self.memory.enter(stream_of(stream));
    }

    unsafe fn leave_stream(&self, stream: StreamHandle) {
        // SAFETY: trait.
        let _ =
            self.call("cuEventRecord", || unsafe { self.memory.leave(stream_of(stream), false) });
    }

    unsafe fn destroy_stream(&self, stream: StreamHandle) {
        // SAFETY: trait.
        self.give_back(|| unsafe {
            let waited = self.memory.wait_for(stream_of(stream));
            waited.and(self.memory.leave(stream_of(stream), true))
        });
        // SAFETY: trait.
        self.give_back(|| unsafe { result::stream::destroy(stream_of(stream)) });
    }

    unsafe fn copy_to_card(
        &self,
        stream: StreamHandle,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: trait: `bytes` bytes are there to read.
        let from = unsafe { std::slice::from_raw_parts(from, bytes) };
        // SAFETY: trait: the same number is there to write.
        self.call("cuMemcpyHtoDAsync", || unsafe {
            result::memcpy_htod_async(to, from, stream_of(stream))
        })
    }

    unsafe fn copy_to_host(
        &self,
        stream: StreamHandle,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: trait: `bytes` bytes are there to write, and nobody else uses them.
        let to = unsafe { std::slice::from_raw_parts_mut(to, bytes) };
        // SAFETY: trait: the same number is there to read.
        self.call("cuMemcpyDtoHAsync", || unsafe {
            result::memcpy_dtoh_async(to, from, stream_of(stream))
        })
    }

    unsafe fn zero(&self, stream: StreamHandle, at: u64, bytes: u64) -> Result<()> {
        // SAFETY: trait.
        self.call("cuMemsetD8Async", || unsafe {
            result::memset_d8_async(at, 0, bytes as usize, stream_of(stream))
        })
    }

    unsafe fn launch(
        &self,
        stream: StreamHandle,
        kernel: &str,
        function: Function,
        shape: LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        // One parameter, by its address; the driver copies as many bytes as the kernel declares before it returns.
        let mut arguments = [params.as_ptr().cast_mut().cast::<c_void>()];
        let [x, y, z] = shape.grid;
        // SAFETY: trait: shape, parameter struct and the addresses in it are the kernel's.
        let launched = self.context.make_current().and_then(|()| unsafe {
            result::launch_kernel(
                function.handle as sys::CUfunction,
                (x, y, z),
                (shape.threads, 1, 1),
                shape.shared_bytes,
                stream_of(stream),
                &mut arguments,
            )
        });
        launched.map_err(|error| {
            if of_earlier_work(error) {
                return self.earlier_work("cuLaunchKernel", error);
            }
            let reason = format!("cuLaunchKernel: {}", describe(error));
            Error::Kernel { kernel: kernel.to_string(), reason }
        })
    }

    fn create_event(&self, timed: bool) -> Result<EventHandle> {
        self.call("cuEventCreate", || create_event(timed)).map(|event| EventHandle(event as u64))
    }

    unsafe fn destroy_event(&self, event: EventHandle) {
        // SAFETY: trait.
        self.give_back(|| unsafe { result::event::destroy(event_of(event)) });
    }

    unsafe fn record(&self, event: EventHandle, stream: StreamHandle) -> Result<()> {
        // SAFETY: trait.
        self.call("cuEventRecord", || unsafe {
            result::event::record(event_of(event), stream_of(stream))
        })
    }

    unsafe fn wait(&self, stream: StreamHandle, event: EventHandle) -> Result<()> {
        // SAFETY: trait.
        self.call("cuStreamWaitEvent", || unsafe {
            result::stream::wait_event(
                stream_of(stream),
                event_of(event),
                sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
            )
        })
    }

    unsafe fn synchronise_event(&self, event: EventHandle) -> Result<()> {
        // SAFETY: trait.
        self.call("cuEventSynchronize", || unsafe { result::event::synchronize(event_of(event)) })
    }

    unsafe fn elapsed_ms(&self, from: EventHandle, to: EventHandle) -> Result<Option<f32>> {
        // SAFETY: trait.
        self.call("cuEventElapsedTime", || unsafe {
            result::event::elapsed(event_of(from), event_of(to))
        })
        .map(Some)
    }

    unsafe fn synchronise(&self, stream: StreamHandle) -> Result<()> {
        // SAFETY: trait.
        self.call("cuStreamSynchronize", || unsafe { self.memory.wait_for(stream_of(stream)) })
    }
}
