//! The driver API as C declares it, and programs in processes of their own: switches are read once a process.

#![allow(dead_code, non_snake_case)]

use std::ffi::{CString, c_char, c_void};
use std::process::Command;

// Links the library, whose functions are declared below.
use ptxsim_cuda as _;

pub type Ptr = u64;

unsafe extern "C" {
    pub fn cuInit(flags: u32) -> u32;
    pub fn cuDeviceGet(device: *mut i32, ordinal: i32) -> u32;
    pub fn cuDeviceGetCount(count: *mut i32) -> u32;
    pub fn cuDeviceGetName(name: *mut c_char, room: i32, device: i32) -> u32;
    pub fn cuDeviceGetAttribute(value: *mut i32, which: i32, device: i32) -> u32;
    pub fn cuDevicePrimaryCtxRetain(context: *mut u64, device: i32) -> u32;
    pub fn cuDevicePrimaryCtxRelease_v2(device: i32) -> u32;
    pub fn cuDevicePrimaryCtxReset_v2(device: i32) -> u32;
    pub fn cuCtxCreate_v2(context: *mut u64, flags: u32, device: i32) -> u32;
    pub fn cuCtxDestroy_v2(context: u64) -> u32;
    pub fn cuCtxSetCurrent(context: u64) -> u32;
    pub fn cuCtxGetCurrent(context: *mut u64) -> u32;
    pub fn cuCtxPushCurrent_v2(context: u64) -> u32;
    pub fn cuCtxPopCurrent_v2(context: *mut u64) -> u32;
    pub fn cuCtxSynchronize() -> u32;
    pub fn cuMemAlloc_v2(at: *mut Ptr, bytes: usize) -> u32;
    pub fn cuMemFree_v2(at: Ptr) -> u32;
    pub fn cuMemHostAlloc(at: *mut *mut c_void, bytes: usize, flags: u32) -> u32;
    pub fn cuMemFreeHost(at: *mut c_void) -> u32;
    pub fn cuMemHostRegister_v2(at: *mut c_void, bytes: usize, flags: u32) -> u32;
    pub fn cuMemHostUnregister(at: *mut c_void) -> u32;
    pub fn cuMemGetAddressRange_v2(base: *mut Ptr, bytes: *mut usize, at: Ptr) -> u32;
    pub fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32;
    pub fn cuPointerGetAttribute(data: *mut c_void, which: u32, at: Ptr) -> u32;
    pub fn cuMemcpyHtoD_v2(to: Ptr, from: *const c_void, bytes: usize) -> u32;
    pub fn cuMemcpyDtoH_v2(to: *mut c_void, from: Ptr, bytes: usize) -> u32;
    pub fn cuMemcpyDtoD_v2(to: Ptr, from: Ptr, bytes: usize) -> u32;
    pub fn cuMemcpyHtoDAsync_v2(to: Ptr, from: *const c_void, bytes: usize, stream: u64) -> u32;
    pub fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: Ptr, bytes: usize, stream: u64) -> u32;
    pub fn cuMemcpyPeer(
        to: Ptr,
        to_context: u64,
        from: Ptr,
        from_context: u64,
        bytes: usize,
    ) -> u32;
    pub fn cuMemsetD8_v2(at: Ptr, value: u8, count: usize) -> u32;
    pub fn cuMemsetD32_v2(at: Ptr, value: u32, count: usize) -> u32;
    pub fn cuMemsetD8Async(at: Ptr, value: u8, count: usize, stream: u64) -> u32;
    pub fn cuModuleLoadData(module: *mut u64, image: *const c_void) -> u32;
    pub fn cuModuleLoadDataEx(
        module: *mut u64,
        image: *const c_void,
        count: u32,
        options: *mut u32,
        values: *mut *mut c_void,
    ) -> u32;
    pub fn cuModuleLoad(module: *mut u64, path: *const c_char) -> u32;
    pub fn cuModuleUnload(module: u64) -> u32;
    pub fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) -> u32;
    pub fn cuModuleGetGlobal_v2(
        at: *mut Ptr,
        bytes: *mut usize,
        module: u64,
        name: *const c_char,
    ) -> u32;
    pub fn cuFuncGetAttribute(value: *mut i32, which: u32, function: u64) -> u32;
    pub fn cuFuncSetAttribute(function: u64, which: u32, value: i32) -> u32;
    pub fn cuLaunchKernel(
        function: u64,
        gx: u32,
        gy: u32,
        gz: u32,
        bx: u32,
        by: u32,
        bz: u32,
        shared: u32,
        stream: u64,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> u32;
    pub fn cuStreamCreate(stream: *mut u64, flags: u32) -> u32;
    pub fn cuStreamDestroy_v2(stream: u64) -> u32;
    pub fn cuStreamSynchronize(stream: u64) -> u32;
    pub fn cuStreamQuery(stream: u64) -> u32;
    pub fn cuStreamWaitEvent(stream: u64, event: u64, flags: u32) -> u32;
    pub fn cuEventCreate(event: *mut u64, flags: u32) -> u32;
    pub fn cuEventDestroy_v2(event: u64) -> u32;
    pub fn cuEventRecord(event: u64, stream: u64) -> u32;
    pub fn cuEventQuery(event: u64) -> u32;
    pub fn cuEventSynchronize(event: u64) -> u32;
    pub fn cuEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64) -> u32;
    pub fn cuGetErrorName(code: u32, text: *mut *const c_char) -> u32;
}

/// `out[i] = 2 * in[i]` for u32, and a variable.
pub const PTX: &str = "
.version 7.0
.target sm_75
.address_size 64
.visible .global .align 4 .u32 counter = 7;
.visible .entry twice(.param .u64 from, .param .u64 to, .param .u32 n)
{
    .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %rd<7>;
    ld.param.u64 %rd1, [from];
    ld.param.u64 %rd2, [to];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra done;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.u32 %r2, [%rd4];
    add.s32 %r2, %r2, %r2;
    st.global.u32 [%rd5], %r2;
done:
    ret;
}
";

/// Words of the buffers of these programs.
pub const N: usize = 64;
pub const BYTES: usize = 4 * N;
pub const NON_BLOCKING: u32 = 1;

/// Success, or a panic that names the code.
#[track_caller]
pub fn ok(code: u32) {
    assert_eq!(code, 0, "a call failed");
}

/// What a function writes to its last result.
pub fn made<T: Default>(f: impl FnOnce(*mut T) -> u32) -> T {
    let mut value = T::default();
    ok(f(&mut value));
    value
}

/// `cuInit` and the primary context of a card.
pub fn start(card: i32) -> u64 {
    // SAFETY: of all blocks here: results and ranges live, as the driver API asks.
    unsafe {
        ok(cuInit(0));
        let context = made(|to| cuDevicePrimaryCtxRetain(to, card));
        ok(cuCtxSetCurrent(context));
        context
    }
}

pub fn alloc(bytes: usize) -> Ptr {
    // SAFETY: as above.
    made(|to| unsafe { cuMemAlloc_v2(to, bytes) })
}

pub fn stream(flags: u32) -> u64 {
    // SAFETY: as above.
    made(|to| unsafe { cuStreamCreate(to, flags) })
}

pub fn event() -> u64 {
    // SAFETY: as above.
    made(|to| unsafe { cuEventCreate(to, 0) })
}

/// Page-locked words, all of one value.
pub fn pinned(value: u32) -> *mut u32 {
    let mut at = std::ptr::null_mut();
    // SAFETY: the memory has `N` words.
    unsafe {
        ok(cuMemHostAlloc(&mut at, BYTES, 0));
        set(at.cast(), value);
    }
    at.cast()
}

/// # Safety
/// `N` words are there.
pub unsafe fn set(at: *mut u32, value: u32) {
    for i in 0..N {
        // SAFETY: the caller's.
        unsafe { at.add(i).write_volatile(value) }
    }
}

pub fn load() -> (u64, u64) {
    let text = CString::new(PTX).unwrap();
    // SAFETY: as above.
    unsafe {
        let module = made(|to| cuModuleLoadData(to, text.as_ptr().cast()));
        (module, made(|to| cuModuleGetFunction(to, module, c"twice".as_ptr())))
    }
}

/// The code of launching `twice` on a stream.
pub fn twice(function: u64, from: Ptr, to: Ptr, stream: u64) -> u32 {
    let (mut from, mut to, mut n) = (from, to, N as u32);
    let mut params: [*mut c_void; 3] =
        [(&raw mut from).cast(), (&raw mut to).cast(), (&raw mut n).cast()];
    // SAFETY: one pointer a parameter.
    unsafe {
        cuLaunchKernel(
            function,
            2,
            1,
            1,
            32,
            1,
            1,
            0,
            stream,
            params.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    }
}

/// Code and words of a synchronous copy to the host.
pub fn read(at: Ptr) -> (u32, [u32; N]) {
    let mut out = [0u32; N];
    // SAFETY: as above.
    let code = unsafe { cuMemcpyDtoH_v2(out.as_mut_ptr().cast(), at, BYTES) };
    (code, out)
}

/// A line that [`Ran::said`] finds.
pub fn tell(what: &str, value: impl std::fmt::Display) {
    println!("\nTOLD {what}={value}");
}

/// How a program ran.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What the program told under a name.
    #[track_caller]
    pub fn told(&self, what: &str) -> &str {
        let line = self
            .out
            .lines()
            .find_map(|line| line.strip_prefix("TOLD ")?.strip_prefix(what)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("nothing told of {what}: {self:?}"))
    }

    #[track_caller]
    pub fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is not in: {}", self.err);
        }
    }
}

/// Runs an ignored test of this file in a process of its own, with these switches.
pub fn run(program: &str, switches: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", program, "--ignored", "--nocapture", "--test-threads=1"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PTXSIM_CUDA_") {
            command.env_remove(name);
        }
    }
    for (name, value) in switches {
        command.env(format!("PTXSIM_CUDA_{name}"), value);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran =
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) };
    assert!(ran.out.contains("running 1 test"), "no program {program}: {ran:?}");
    ran
}

/// As [`run`], and the program ends well.
#[track_caller]
pub fn passes(program: &str, switches: &[(&str, &str)]) -> Ran {
    let ran = run(program, switches);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}
