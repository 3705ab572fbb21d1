//! What the runtime needs of a CUDA driver, in one trait: the real one behind [`card`], the simulator behind [`sim`].
//!
//! The trait speaks in raw handles and addresses, as the driver does; everything above it is typed and safe
//! ([`Card`](super::Card), [`Buffer`](super::Buffer), [`Stream`](super::Stream)). Whatever the two drivers could do
//! differently is below this line, so what runs on the simulator in the tests is what runs on a card.

pub mod card;
#[cfg(feature = "sim")]
pub mod sim;

use std::ptr::NonNull;

use crate::{Error, Result};

/// What a card is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardInfo {
    /// As it was asked for, for messages: `cuda:0`, `sim`.
    pub label: String,
    /// The maker's name of it.
    pub name: String,
    /// Compute capability as one number: 86 for 8.6.
    pub compute_capability: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Level-2 cache in bytes.
    pub l2_bytes: u64,
    /// Shared memory a block may have when it asks for more than 48 KiB, in bytes.
    pub shared_bytes_per_block: u32,
    /// The newest CUDA version its driver knows: (12, 4).
    pub cuda_version: (u32, u32),
}

/// A loaded module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleHandle(pub u64);

/// A kernel of a loaded module, with what the driver says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// The driver's handle.
    pub handle: u64,
    /// Threads a block may have at most.
    pub max_threads: u32,
    /// Static shared memory in bytes.
    pub static_shared_bytes: u32,
    /// Registers of a thread, as the driver compiled it; 0 where that is not known (the simulator).
    pub registers: u32,
    /// Local memory of a thread in bytes, as the driver compiled it: what it spills, and its stack.
    pub local_bytes: u32,
}

/// A queue of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHandle(pub u64);

/// A point in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHandle(pub u64);

/// The shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block, in x.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
}

/// Bytes that page-locked memory is aligned to: a page.
pub const PINNED_ALIGNMENT: usize = 4096;

/// A CUDA driver, opened on one card. Work given to a stream runs in its order; streams do not wait for each other
/// unless told to.
///
/// # Safety
/// Safe code reads and writes what [`alloc_pinned`](Driver::alloc_pinned) gives, so an implementation has to keep its
/// promise: as many bytes as asked for, aligned to [`PINNED_ALIGNMENT`], nobody else's until they are freed. Work that
/// cannot be done any more must not touch host memory later: once a wait has failed, nothing given before it may run.
///
/// The methods marked unsafe take addresses and lengths that nothing below checks on a real card. Ranges must lie in
/// living allocations of this driver (or in host memory of that length), and must live until the stream has passed
/// the work, which [`synchronise`](Driver::synchronise) or an event tells.
pub unsafe trait Driver: Send + Sync {
    /// The card.
    fn info(&self) -> &CardInfo;
    /// The CUDA context (`CUcontext`) behind it, as a number, where there is one.
    fn raw_context(&self) -> Option<usize> {
        None
    }
    /// Bytes of memory that are free now, to anybody.
    ///
    /// # Errors
    /// The driver's.
    fn free_bytes(&self) -> Result<u64>;
    /// Loads PTX text. `name` is for messages.
    ///
    /// # Errors
    /// Text the driver refuses, with its reason.
    fn load_module(&self, name: &str, ptx: &str) -> Result<ModuleHandle>;
    /// A kernel by its entry's name. `tiles` says that it keeps tiles in shared memory and is to have as much of it as the
    /// card can give.
    ///
    /// # Errors
    /// A name the module does not have.
    fn function(&self, module: ModuleHandle, entry: &str, tiles: bool) -> Result<Function>;
    /// Allocates memory on the card, aligned to 256 bytes at least. `what` is for messages.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or the driver's.
    fn alloc(&self, bytes: u64, what: &str) -> Result<u64>;
    /// Frees an allocation, once the driver's streams and the adopted ones are done with what they were given. Does not
    /// wait for that where the card can free in the order of streams.
    ///
    /// # Safety
    /// `address` came from [`alloc`](Driver::alloc), and no work given from now on uses it.
    unsafe fn free(&self, address: u64);
    /// Allocates page-locked host memory of `bytes` bytes, aligned to [`PINNED_ALIGNMENT`], from which copies run beside
    /// kernels.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the system does not page-lock so much, or the driver's.
    fn alloc_pinned(&self, bytes: usize) -> Result<NonNull<u8>>;
    /// Frees page-locked memory.
    ///
    /// # Safety
    /// Both came from and went to [`alloc_pinned`](Driver::alloc_pinned), and no copy uses it any more.
    unsafe fn free_pinned(&self, at: NonNull<u8>, bytes: usize);
    /// A new stream.
    ///
    /// # Errors
    /// The driver's.
    fn create_stream(&self) -> Result<StreamHandle>;
    /// Ends a stream, once its work is done.
    ///
    /// # Safety
    /// The stream is this driver's and not used any more.
    unsafe fn destroy_stream(&self, stream: StreamHandle);
    /// From now on memory is freed behind the work of this stream too, which somebody else made.
    ///
    /// # Safety
    /// It is of this driver and context, and lives until [`leave_stream`](Driver::leave_stream).
    unsafe fn adopt_stream(&self, stream: StreamHandle) {
        let _ = stream;
    }
    /// Ends what [`adopt_stream`](Driver::adopt_stream) began: only work that the stream has already is still waited for.
    ///
    /// # Safety
    /// It was adopted and lives.
    unsafe fn leave_stream(&self, stream: StreamHandle) {
        let _ = stream;
    }
    /// Copies host bytes to the card.
    ///
    /// # Errors
    /// The driver's.
    /// # Safety
    /// As the trait says, for both ranges.
    unsafe fn copy_to_card(
        &self,
        stream: StreamHandle,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<()>;
    /// Copies bytes of the card to the host.
    ///
    /// # Errors
    /// The driver's.
    /// # Safety
    /// As the trait says, for both ranges.
    unsafe fn copy_to_host(
        &self,
        stream: StreamHandle,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<()>;
    /// Sets bytes on the card to zero.
    ///
    /// # Errors
    /// The driver's.
    /// # Safety
    /// As the trait says.
    unsafe fn zero(&self, stream: StreamHandle, at: u64, bytes: u64) -> Result<()>;
    /// Launches a kernel whose only parameter is the struct `params`.
    ///
    /// # Errors
    /// A launch the driver refuses.
    /// # Safety
    /// The shape fits the kernel, `params` is its parameter struct, and every address in it is good for what the
    /// kernel's header says it reads and writes.
    unsafe fn launch(
        &self,
        stream: StreamHandle,
        kernel: &str,
        function: Function,
        shape: LaunchShape,
        params: &[u8],
    ) -> Result<()>;
    /// A new event: to wait for, without a processor that spins; or `timed`, for [`elapsed_ms`](Driver::elapsed_ms).
    ///
    /// # Errors
    /// The driver's.
    fn create_event(&self, timed: bool) -> Result<EventHandle>;
    /// Ends an event.
    ///
    /// # Safety
    /// The event is this driver's and not used any more.
    unsafe fn destroy_event(&self, event: EventHandle);
    /// Sets the event to the end of what the stream was given so far.
    ///
    /// # Errors
    /// The driver's.
    /// # Safety
    /// Both are this driver's.
    unsafe fn record(&self, event: EventHandle, stream: StreamHandle) -> Result<()>;
    /// Lets what the stream is given from now on wait for the event.
    ///
    /// # Errors
    /// The driver's.
    /// # Safety
    /// Both are this driver's.
    unsafe fn wait(&self, stream: StreamHandle, event: EventHandle) -> Result<()>;
    /// Waits on the host for the event.
    ///
    /// # Errors
    /// Whatever went wrong in work before it.
    /// # Safety
    /// The event is this driver's.
    unsafe fn synchronise_event(&self, event: EventHandle) -> Result<()>;
    /// Milliseconds between two recorded events; `None` where time means nothing (the simulator).
    ///
    /// # Errors
    /// The driver's.
    /// # Safety
    /// Both are this driver's, and timed.
    unsafe fn elapsed_ms(&self, from: EventHandle, to: EventHandle) -> Result<Option<f32>>;
    /// Waits on the host until the stream has nothing left to do.
    ///
    /// # Errors
    /// Whatever went wrong in its work.
    /// # Safety
    /// The stream is this driver's.
    unsafe fn synchronise(&self, stream: StreamHandle) -> Result<()>;
}

/// The CUDA version a driver must know to load PTX of this version (PTX ISA manual, release notes), for the error that
/// says so before the driver's own, vaguer one.
pub fn cuda_version_of_ptx((major, minor): (u32, u32)) -> (u32, u32) {
    match (major, minor) {
        (6, 3) => (10, 0),
        (6, 4) => (10, 1),
        (6, 5) => (10, 2),
        (7, 0) => (11, 0),
        (7, minor) => (11, minor),
        (8, minor @ 0..=5) => (12, minor),
        (8, 6) => (12, 7),
        (8, 7) => (12, 8),
        (8, _) => (12, 9),
        (9, minor) => (13, minor),
        _ => (major + 4, 0),
    }
}

/// The `.version` of PTX text.
///
/// # Errors
/// Text without one.
pub fn ptx_version(name: &str, ptx: &str) -> Result<(u32, u32)> {
    ptx.lines()
        .find_map(|line| line.trim().strip_prefix(".version"))
        .and_then(|rest| rest.trim().split_once('.'))
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.trim().parse().ok()?)))
        .ok_or_else(|| Error::Kernel {
            kernel: name.to_string(),
            reason: "its PTX has no line `.version major.minor`".into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_ptx_and_driver() {
        assert_eq!(ptx_version("k", "//\n.version 8.4\n.target sm_80").unwrap(), (8, 4));
        assert!(ptx_version("k", ".target sm_80").unwrap_err().to_string().contains("kernel k"));
        assert_eq!(cuda_version_of_ptx((8, 4)), (12, 4));
        assert_eq!(cuda_version_of_ptx((9, 0)), (13, 0));
        assert_eq!(cuda_version_of_ptx((7, 8)), (11, 8));
    }
}
