//! Memory that is more than an allocation, and the other ways to load and to launch.

mod common;

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use common::*;

const LATE: &[(&str, &str)] = &[("LATE", "all")];
const EVERY: [&str; 5] = ["none", "all", "copies", "kernels", "random"];

// The programs. SAFETY of all of them: what is passed lives as the driver API asks.

#[test]
#[ignore = "a program, run by the tests below"]
fn managed() {
    start(0);
    let (_, function) = load();
    unsafe {
        let from = made(|to| cuMemAllocManaged(to, BYTES, 1));
        let to = made(|to| cuMemAllocManaged(to, BYTES, 1));
        set(from as *mut u32, 21);
        ok(twice(function, from, to, 0));
        ok(cuCtxSynchronize());
        assert_eq!(*(to as *const [u32; N]), [42; N]);
        // Copies and fills take it for device memory and for host memory.
        assert_eq!(read(to), (0, [42; N]));
        ok(cuMemsetD32_v2(to, 5, N));
        ok(cuCtxSynchronize());
        assert_eq!(*(to as *const u32), 5);
        let device = alloc(BYTES);
        ok(cuMemcpyHtoD_v2(device, from as *const c_void, BYTES));
        ok(cuMemcpyDtoD_v2(to, device, BYTES));
        ok(cuCtxSynchronize());
        assert_eq!(*(to as *const u32), 21);
        // Out of it is out of bounds.
        let mut kind = 0u32;
        ok(cuPointerGetAttribute((&raw mut kind).cast(), 8, to));
        assert_eq!(kind as u8, 1);
        ok(cuMemFree_v2(to));
        assert_eq!(cuMemFree_v2(to), 1);
        assert_eq!(cuMemFreeHost(from as *mut c_void), 1);
        // Page-locked memory is the device's at the same address.
        let host = pinned(4);
        assert_eq!(made(|to| cuMemHostGetDevicePointer_v2(to, host.cast(), 0)), host as u64);
        ok(twice(function, host as u64, device, 0));
        ok(twice(function, device, host as u64, 0));
        ok(cuCtxSynchronize());
        assert_eq!(host.read_volatile(), 16);
        assert_eq!(cuMemHostGetDevicePointer_v2(&mut 0, 8 as *mut c_void, 0), 1);
        ok(twice(function, from + 4, device, 0));
        assert_eq!(cuCtxSynchronize(), 700);
    }
}

#[test]
fn managed_and_page_locked_memory_is_shared_with_kernels() {
    for late in EVERY {
        passes("managed", &[("LATE", late)]);
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn pools() {
    start(0);
    let (_, function) = load();
    let (a, b) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    unsafe {
        let pool = made(|to| cuDeviceGetDefaultMemPool(to, 0));
        let (from, to) =
            (made(|to| cuMemAllocAsync(to, BYTES, a)), made(|to| cuMemAllocAsync(to, BYTES, a)));
        ok(cuMemsetD8Async(from, 1, BYTES, a));
        ok(twice(function, from, to, a));
        let ready = event();
        ok(cuEventRecord(ready, a));
        ok(cuStreamWaitEvent(b, ready, 0));
        ok(twice(function, to, from, b));
        ok(cuStreamSynchronize(b));
        assert_eq!(read(from).1[3], 0x0404_0404);
        let mut used = 0u64;
        ok(cuMemPoolGetAttribute(pool, 7, (&raw mut used).cast()));
        assert_eq!(used, 2 * BYTES as u64);
        assert_eq!(cuMemPoolDestroy(pool), 1);
        assert_eq!(cuMemAllocAsync(&mut 0, 0, a), 1);
        assert_eq!(cuMemAllocAsync(&mut 0, 1 << 40, a), 2);
        let plain = alloc(4);
        assert_eq!(cuMemFreeAsync(plain, a), 1);
        ok(cuMemFreeAsync(to, a));
        assert_eq!(cuMemFreeAsync(to, a), 1);
        assert_eq!(cuMemsetD8Async(to, 1, 1, a), 1);
        ok(cuCtxSynchronize());
        // Freed in stream order, from then on nobody's.
        ok(twice(function, from, to, a));
        assert_eq!(cuStreamSynchronize(a), 700);
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn pool_without_wait() {
    start(0);
    let (_, function) = load();
    let (a, b) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    unsafe {
        let (from, to) = (alloc(BYTES), made(|to| cuMemAllocAsync(to, BYTES, a)));
        ok(cuMemsetD32_v2(from, 1, N));
        ok(cuCtxSynchronize());
        tell("reserved", to);
        let late = made(|to| cuMemAllocAsync(to, BYTES, a));
        ok(twice(function, from, late, b));
        tell("sync", cuStreamSynchronize(b));
    }
}

#[test]
fn stream_ordered_memory_is_there_in_stream_order() {
    for late in EVERY {
        passes("pools", &[("LATE", late)]).says(&[
            "is freed memory (byte ",
            "was freed before",
            "is not stream-ordered",
        ]);
    }
    let late = passes("pool_without_wait", LATE);
    assert_eq!(late.told("sync"), "700");
    late.says(&["allocation 3 at 0x", "is stream-ordered, and its stream has not come to it"]);
    assert_eq!(passes("pool_without_wait", &[("LATE", "none")]).told("sync"), "0");
    passes("no_pools", &[("POOLS", "0")]);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn no_pools() {
    start(0);
    unsafe {
        let mut value = 1;
        ok(cuDeviceGetAttribute(&mut value, 115, 0));
        assert_eq!(value, 0);
        assert_eq!(cuMemAllocAsync(&mut 0, 4, 0), 801);
    }
}

/// What a host function is given.
struct Shared {
    calls: std::sync::atomic::AtomicU32,
    code: std::sync::atomic::AtomicU32,
    host: *mut u32,
    seen: std::sync::atomic::AtomicU32,
}

unsafe extern "C" fn host_function(data: *mut c_void) {
    use std::sync::atomic::Ordering::SeqCst;
    // SAFETY: the program below gives this.
    let shared = unsafe { &*data.cast::<Shared>() };
    // SAFETY: the memory lives as long.
    shared.seen.store(unsafe { shared.host.read_volatile() }, SeqCst);
    // SAFETY: not permitted, which it says.
    shared.code.store(unsafe { cuCtxSynchronize() }, SeqCst);
    shared.calls.fetch_add(1, SeqCst);
}

unsafe extern "C" fn callback(_stream: u64, status: u32, data: *mut c_void) {
    // SAFETY: as above.
    let shared = unsafe { &*data.cast::<Shared>() };
    shared.calls.fetch_add(10 + status, std::sync::atomic::Ordering::SeqCst);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn host_functions() {
    use std::sync::atomic::Ordering::SeqCst;
    start(0);
    let a = stream(NON_BLOCKING);
    let shared = Shared { calls: 0.into(), code: 0.into(), host: pinned(0), seen: 0.into() };
    let data = (&raw const shared).cast_mut().cast::<c_void>();
    unsafe {
        let at = alloc(BYTES);
        ok(cuMemsetD8Async(at, 3, BYTES, a));
        ok(cuMemcpyDtoHAsync_v2(shared.host.cast(), at, BYTES, a));
        ok(cuLaunchHostFunc(a, host_function as *const () as usize, data));
        ok(cuStreamAddCallback(a, callback as *const () as usize, data, 0));
        assert_eq!(cuLaunchHostFunc(a, 0, data), 1);
        ok(cuStreamSynchronize(a));
        assert_eq!(shared.calls.load(SeqCst), 11);
        assert_eq!((shared.seen.load(SeqCst), shared.code.load(SeqCst)), (0x0303_0303, 800));
        // A program may wait for it without the driver.
        ok(cuLaunchHostFunc(a, host_function as *const () as usize, data));
        let begin = std::time::Instant::now();
        while shared.calls.load(SeqCst) < 12 {
            assert!(begin.elapsed().as_secs() < 20, "it never ran");
            std::thread::yield_now();
        }
    }
}

#[test]
fn host_functions_run_in_order_and_without_being_waited_for() {
    for late in EVERY {
        passes("host_functions", &[("LATE", late)]);
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn libraries_and_launches() {
    start(0);
    let text = CString::new(PTX).unwrap();
    unsafe {
        let library = made(|to| {
            cuLibraryLoadData(
                to,
                text.as_ptr().cast(),
                null_mut(),
                null_mut(),
                0,
                null_mut(),
                null_mut(),
                0,
            )
        });
        let kernel = made(|to| cuLibraryGetKernel(to, library, c"twice".as_ptr()));
        assert_eq!(cuLibraryGetKernel(&mut 0, library, c"thrice".as_ptr()), 500);
        ok(cuKernelSetAttribute(8, 1000, kernel, 0));
        let function = made(|to| cuKernelGetFunction(to, kernel));
        let mut value = 0;
        ok(cuFuncGetAttribute(&mut value, 8, function));
        assert_eq!(value, 1000);
        let (from, to) = (alloc(BYTES), alloc(BYTES));
        ok(cuMemsetD32_v2(from, 1, N));
        // A kernel is launched as a function is.
        ok(twice(kernel, from, to, 0));
        ok(twice(function, to, from, 0));
        // One buffer of parameters.
        #[repr(C)]
        struct Params(u64, u64, u32);
        let mut params = Params(from, to, N as u32);
        let size = std::cell::Cell::new(size_of::<Params>());
        let mut extra: [*mut c_void; 5] = [
            std::ptr::without_provenance_mut(1),
            (&raw mut params).cast(),
            std::ptr::without_provenance_mut(2),
            size.as_ptr().cast(),
            null_mut(),
        ];
        let launch = |extra: *mut *mut c_void| {
            cuLaunchKernel(function, 2, 1, 1, 32, 1, 1, 0, 0, null_mut(), extra)
        };
        ok(launch(extra.as_mut_ptr()));
        size.set(12);
        assert_eq!(launch(extra.as_mut_ptr()), 1);
        // CUlaunchConfig: grid, block, shared bytes, stream, attributes.
        #[repr(C)]
        struct Config([u32; 7], u64, *const c_void, u32);
        let mut config = Config([2, 1, 1, 32, 1, 1, 0], 0, std::ptr::null(), 0);
        let (mut a, mut b, mut n) = (to, from, N as u32);
        let mut params: [*mut c_void; 3] =
            [(&raw mut a).cast(), (&raw mut b).cast(), (&raw mut n).cast()];
        let launch = |config: &Config, params: &mut [*mut c_void; 3]| {
            cuLaunchKernelEx((&raw const *config).cast(), kernel, params.as_mut_ptr(), null_mut())
        };
        ok(launch(&config, &mut params));
        assert_eq!(read(from), (0, [16; N]));
        // A cooperative launch (attribute 2) is not simulated.
        let attribute = [2u64, 1, 0, 0, 0, 0, 0, 0, 0];
        config.2 = attribute.as_ptr().cast();
        config.3 = 1;
        assert_eq!(launch(&config, &mut params), 801);
        let mut bytes = 0;
        let variable = made(|to| cuLibraryGetGlobal(to, &mut bytes, library, c"counter".as_ptr()));
        ok(cuMemcpyHtoD_v2(variable, (&raw const bytes).cast(), 4));
        ok(cuLibraryUnload(library));
        assert_eq!(cuLibraryUnload(library), 400);
        assert_eq!(twice(kernel, from, to, 0), 400);
        assert_eq!(cuKernelGetFunction(&mut 0, kernel), 400);
    }
}

#[test]
fn libraries_and_all_forms_of_launches() {
    for late in EVERY {
        passes("libraries_and_launches", &[("LATE", late)]);
    }
}

/// A fat binary of images: kind, target, flags, bytes.
fn fat(images: &[(u16, u32, u64, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for &(kind, target, flags, bytes) in images {
        let mut header = vec![0; 64];
        header[0..2].copy_from_slice(&kind.to_le_bytes());
        header[4..8].copy_from_slice(&64u32.to_le_bytes());
        header[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        header[28..32].copy_from_slice(&target.to_le_bytes());
        header[40..48].copy_from_slice(&flags.to_le_bytes());
        body.extend(header);
        body.extend(bytes);
    }
    let mut all = 0xba55_ed50u32.to_le_bytes().to_vec();
    all.extend(1u16.to_le_bytes());
    all.extend(16u16.to_le_bytes());
    all.extend((body.len() as u64).to_le_bytes());
    all.extend(body);
    all
}

#[test]
#[ignore = "a program, run by the tests below"]
fn fat_binaries() {
    start(0);
    let text = format!("{PTX}\0");
    let other = text.replace("twice", "other");
    let load = |image: &[u8]| {
        let mut module = 0;
        // SAFETY: the image is as long as its headers say.
        (unsafe { cuModuleLoadData(&mut module, image.as_ptr().cast()) }, module)
    };
    let good = fat(&[
        (2, 80, 0, b"machine code"),
        (1, 75, 0, other.as_bytes()),
        (1, 80, 0, text.as_bytes()),
        (1, 90, 0, b"newer"),
    ]);
    let (code, module) = load(&good);
    assert_eq!(code, 0);
    unsafe { ok(cuModuleGetFunction(&mut 0, module, c"twice".as_ptr())) };
    // As nvcc wraps it.
    let mut wrapped = [0x0000_0001_4662_43b1u64, good.as_ptr() as u64, 0];
    assert_eq!(
        load(unsafe { std::slice::from_raw_parts(wrapped.as_mut_ptr().cast::<u8>(), 24) }).0,
        0
    );
    assert_eq!(load(&fat(&[(2, 80, 0, b"machine code")])).0, 209);
    assert_eq!(load(&fat(&[(1, 80, 0x2000, b"packed"), (1, 90, 0, b"newer")])).0, 209);
    let mut damaged = good.clone();
    damaged[16 + 8] = 0xff;
    damaged[16 + 14] = 0xff;
    assert_eq!(load(&damaged).0, 200);
    assert_eq!(load(&[0x80, 0x81, 0x82, 0x83]).0, 200);
}

#[test]
fn the_ptx_of_a_fat_binary_is_loaded() {
    passes("fat_binaries", LATE).says(&[
        "machine code for sm_80",
        "compressed PTX for sm_80",
        "PTX for sm_90",
    ]);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn by_name() {
    start(0);
    let find = |name: &std::ffi::CStr, version: i32, flags: u64| {
        let (mut to, mut status) = (0, 9);
        // SAFETY: results live.
        let code =
            unsafe { cuGetProcAddress_v2(name.as_ptr(), &mut to, version, flags, &mut status) };
        (code, to, status)
    };
    let own = |f: usize| f;
    assert_eq!(find(c"cuMemAlloc", 12040, 0), (0, own(cuMemAlloc_v2 as *const () as usize), 0));
    assert_eq!(find(c"cuMemAlloc", 3000, 0), (500, 0, 2));
    assert_eq!(find(c"cuNothing", 12040, 0), (500, 0, 1));
    let plain = find(c"cuStreamQuery", 12040, 0).1;
    let (code, per_thread, _) = find(c"cuStreamQuery", 12040, 2);
    assert!(code == 0 && per_thread != plain && plain == cuStreamQuery as *const () as usize);
    // Stream 0 is then the thread's own, which the null stream's work does not go to.
    type Set = unsafe extern "C" fn(Ptr, u8, usize, u64) -> u32;
    type Query = unsafe extern "C" fn(u64) -> u32;
    unsafe {
        let set = std::mem::transmute::<usize, Set>(find(c"cuMemsetD8Async", 12040, 2).1);
        let query = std::mem::transmute::<usize, Query>(per_thread);
        let at = alloc(BYTES);
        ok(set(at, 1, BYTES, 0));
        assert_eq!(cuStreamQuery(0), 0, "it was given to the null stream");
        assert_eq!(query(0), 600);
        assert_eq!(cuStreamQuery(2), 0, "asked twice, it ran");
    }
}

#[test]
fn functions_are_found_by_name_and_version() {
    passes("by_name", LATE);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn rectangles() {
    start(0);
    let at = alloc(64 * 8);
    // CUDA_MEMCPY2D: x, y, kind, host, device, array, pitch of both ends, then width and height.
    #[repr(C)]
    #[derive(Default)]
    struct Place(usize, usize, u32, usize, u64, usize, usize);
    #[repr(C)]
    struct Copy(Place, Place, usize, usize);
    let from: Vec<u8> = (0..100).collect();
    let mut to = [0u8; 100];
    let copy = |c: &Copy| unsafe { cuMemcpy2D_v2((&raw const *c).cast()) };
    // The middle of a square of 10 bytes' sides.
    let host = |at: usize| Place(2, 3, 1, at, 0, 0, 10);
    let device = |pitch: usize| Place(1, 1, 2, 0, at, 0, pitch);
    ok(copy(&Copy(host(from.as_ptr() as usize), device(64), 5, 6)));
    ok(copy(&Copy(device(64), host(to.as_mut_ptr() as usize), 5, 6)));
    for (i, &byte) in to.iter().enumerate() {
        let inside = (2..7).contains(&(i % 10)) && (3..9).contains(&(i / 10));
        assert_eq!(byte, if inside { i as u8 } else { 0 }, "{i}");
    }
    assert_eq!(copy(&Copy(host(from.as_ptr() as usize), device(4), 5, 6)), 1);
    assert_eq!(copy(&Copy(host(from.as_ptr() as usize), device(64), 5, 8)), 1);
    assert_eq!(copy(&Copy(host(from.as_ptr() as usize), device(usize::MAX / 2), 5, 8)), 1);
    assert_eq!(copy(&Copy(host(0), device(64), 5, 1)), 1);
    assert_eq!(copy(&Copy(Place(0, 0, 3, 0, 0, 0, 0), device(64), 5, 1)), 801);
}

#[test]
fn rectangles_are_copied() {
    passes("rectangles", LATE);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn occupancy() {
    start(0);
    let (_, function) = load();
    let blocks = |threads: i32, shared: usize| {
        let mut count = 0;
        // SAFETY: the result lives.
        ok(unsafe {
            cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut count, function, threads, shared)
        });
        count
    };
    // 64 warps, 164 KiB of shared memory, 32 blocks.
    assert_eq!([blocks(1024, 0), blocks(256, 0), blocks(32, 0), blocks(1025, 0)], [2, 8, 32, 0]);
    assert_eq!([blocks(32, 48 * 1024), blocks(32, 1 << 20)], [3, 0]);
    let (mut grid, mut block) = (0, 0);
    // SAFETY: the results live.
    ok(unsafe { cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, function, 0, 0, 0) });
    assert_eq!((grid, block), (2 * 108, 1024));
}

#[test]
fn occupancy_is_that_of_the_limits() {
    passes("occupancy", LATE);
}

/// Prints its parameter; asserts that it is not 0.
const SHOUT: &str = r#"
.version 7.0
.target sm_75
.address_size 64
.extern .func (.param .b32 result) vprintf (.param .b64 text, .param .b64 values);
.extern .func __assertfail (.param .b64 text, .param .b64 file, .param .b32 line, .param .b64 function, .param .b64 size);
.global .align 1 .b8 text[9] = {110, 32, 105, 115, 32, 37, 100, 10, 0};
.global .align 1 .b8 what[6] = {110, 32, 33, 61, 32, 0};
.visible .entry shout(.param .u32 n)
{
    .local .align 8 .b8 values[8];
    .reg .pred %p<2>; .reg .b32 %r<4>; .reg .b64 %rd<6>;
    ld.param.u32 %r1, [n];
    mov.u64 %rd1, values;
    cvta.local.u64 %rd2, %rd1;
    st.local.u32 [%rd1], %r1;
    mov.u64 %rd3, text;
    cvta.global.u64 %rd4, %rd3;
    {
    .param .b64 param0;
    st.param.b64 [param0+0], %rd4;
    .param .b64 param1;
    st.param.b64 [param1+0], %rd2;
    .param .b32 retval0;
    call.uni (retval0), vprintf, (param0, param1);
    ld.param.b32 %r2, [retval0+0];
    }
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra done;
    mov.u64 %rd3, what;
    cvta.global.u64 %rd5, %rd3;
    {
    .param .b64 param0;
    st.param.b64 [param0+0], %rd5;
    .param .b64 param1;
    st.param.b64 [param1+0], %rd5;
    .param .b32 param2;
    st.param.b32 [param2+0], 17;
    .param .b64 param3;
    st.param.b64 [param3+0], %rd5;
    .param .b64 param4;
    st.param.b64 [param4+0], 1;
    call.uni __assertfail, (param0, param1, param2, param3, param4);
    }
done:
    ret;
}
"#;

#[test]
#[ignore = "a program, run by the tests below"]
fn shouts() {
    start(0);
    let text = CString::new(SHOUT).unwrap();
    unsafe {
        let module = made(|to| cuModuleLoadData(to, text.as_ptr().cast()));
        let function = made(|to| cuModuleGetFunction(to, module, c"shout".as_ptr()));
        for n in [5u32, 0] {
            let mut n = n;
            let mut params: [*mut c_void; 1] = [(&raw mut n).cast()];
            ok(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, params.as_mut_ptr(), null_mut()));
            tell(&format!("sync{n}"), cuCtxSynchronize());
        }
    }
}

#[test]
fn kernels_print_and_assert() {
    let ran = passes("shouts", LATE);
    assert!(ran.out.contains("n is 5\n") && ran.out.contains("n is 0\n"), "{ran:?}");
    assert_eq!((ran.told("sync5"), ran.told("sync0")), ("0", "710"));
    ran.says(&["CUDA_ERROR_ASSERT (710)", "assertion `n != ` failed"]);
}
