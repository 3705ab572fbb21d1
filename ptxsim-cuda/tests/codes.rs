//! What bad calls return, and that every function of the driver API is there.

mod common;

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use common::*;

// The programs. SAFETY of all of them: the arguments that are wrong are those that a driver looks at itself: null
// pointers, dead handles, ranges outside all memory.

#[test]
#[ignore = "a program, run by the tests below"]
fn bad_calls() {
    start(0);
    let (module, function) = load();
    let at = alloc(BYTES);
    let mut words = [0u32; N];
    let host: *mut c_void = words.as_mut_ptr().cast();
    let no = |code: u32, expected: u32, what: &str| assert_eq!(code, expected, "{what}");
    unsafe {
        let mut number = 0i32;
        let mut handle = 0u64;
        let mut ptr = null_mut();
        no(cuInit(1), 1, "flags");
        no(cuDeviceGet(&mut number, 1), 101, "no second card");
        no(cuDeviceGet(&mut number, -1), 101, "a negative card");
        no(cuDeviceGetCount(null_mut()), 1, "null result");
        no(cuDeviceGetName(null_mut(), 10, 0), 1, "null name");
        no(cuDeviceGetAttribute(&mut number, 100_000, 0), 1, "no such attribute");
        no(cuDevicePrimaryCtxRetain(&mut handle, 7), 101, "no such card");
        no(cuCtxSetCurrent(77), 201, "no handle at all");
        no(cuCtxSetCurrent(module), 201, "a module as a context");
        // Memory.
        no(cuMemAlloc_v2(&mut handle, 0), 1, "0 bytes");
        no(cuMemAlloc_v2(null_mut(), 4), 1, "null result");
        no(cuMemAlloc_v2(&mut handle, usize::MAX), 2, "all addresses");
        no(cuMemAlloc_v2(&mut handle, 1 << 40), 2, "more than there is");
        no(cuMemFree_v2(0), 1, "null");
        no(cuMemFree_v2(at + 4), 1, "the middle of an allocation");
        no(cuMemHostAlloc(&mut ptr, 0, 0), 1, "0 bytes");
        no(cuMemHostAlloc(&mut ptr, usize::MAX, 0), 2, "all addresses");
        no(cuMemHostAlloc(&mut ptr, 4, 64), 1, "flags");
        no(cuMemFreeHost(host), 1, "memory of the program's");
        no(cuMemHostUnregister(host), 713, "never registered");
        ok(cuMemHostRegister_v2(host, BYTES, 0));
        no(cuMemHostRegister_v2(host.byte_add(8), 4, 0), 712, "registered twice");
        no(cuMemFreeHost(host), 1, "registered, not allocated");
        ok(cuMemHostUnregister(host));
        no(cuMemGetAddressRange_v2(null_mut(), null_mut(), 5), 500, "no allocation");
        no(cuPointerGetAttribute(host, 2, 5), 1, "no memory");
        no(cuPointerGetAttribute(host, 999, at), 1, "no attribute");
        // Copies.
        no(cuMemcpyHtoD_v2(at, null_mut(), 4), 1, "from null");
        no(cuMemcpyHtoD_v2(at, host, BYTES + 1), 1, "one byte too many");
        no(cuMemcpyHtoD_v2(at + BYTES as u64, host, 1), 1, "behind the end");
        no(cuMemcpyHtoD_v2(at - 1, host, 1), 1, "before the begin");
        no(cuMemcpyHtoD_v2(at, host, usize::MAX), 1, "all addresses");
        no(cuMemcpyHtoD_v2(host as u64, host, 4), 1, "a host address as the device's");
        no(cuMemcpyDtoH_v2(at as *mut c_void, at, 4), 1, "a device address as the host's");
        no(cuMemcpyHtoD_v2(at, host, 0), 0, "nothing");
        no(cuMemcpyDtoD_v2(at, 0, 4), 1, "from null");
        no(cuMemsetD8_v2(at, 0, BYTES + 1), 1, "one byte too many");
        no(cuMemsetD32_v2(at, 0, usize::MAX / 2), 1, "all addresses");
        no(cuMemsetD32_v2(at + 2, 0, 1), 1, "misaligned");
        no(cuMemcpyHtoDAsync_v2(at, host, 4, module), 400, "a module as a stream");
        no(cuMemcpyHtoDAsync_v2(at, host, 4, 99), 400, "no stream");
        // Modules and functions.
        no(cuModuleLoadData(&mut handle, null_mut()), 1, "null");
        no(cuModuleLoadData(&mut handle, c"no ptx".as_ptr().cast()), 218, "no PTX");
        no(cuModuleLoadData(&mut handle, b"\x7fELF\0".as_ptr().cast()), 209, "a cubin");
        let text = |from: &str, to: &str| CString::new(PTX.replace(from, to)).unwrap();
        let newer = text(".version 7.0", ".version 9.0");
        no(cuModuleLoadData(&mut handle, newer.as_ptr().cast()), 222, "PTX of CUDA 13");
        let newer = text("sm_75", "sm_90");
        no(cuModuleLoadData(&mut handle, newer.as_ptr().cast()), 209, "for another card");
        no(cuModuleLoad(&mut handle, c"/no/such/file".as_ptr()), 301, "no file");
        no(cuModuleGetFunction(&mut handle, module, c"thrice".as_ptr()), 500, "no entry");
        no(
            cuModuleGetFunction(&mut handle, function, c"twice".as_ptr()),
            400,
            "a function as a module",
        );
        no(cuModuleGetFunction(&mut handle, module, null_mut()), 1, "null name");
        no(
            cuModuleGetGlobal_v2(&mut handle, null_mut(), module, c"nothing".as_ptr()),
            500,
            "no variable",
        );
        no(cuFuncGetAttribute(&mut number, 999, function), 1, "no attribute");
        no(cuFuncSetAttribute(function, 8, 1 << 20), 1, "more shared memory than there is");
        no(cuFuncSetAttribute(function, 0, 1), 1, "an attribute that is not set");
        no(cuFuncGetAttribute(&mut number, 0, 0), 400, "null function");
        // Launches.
        let launch = |grid: u32, block: u32, shared: u32, stream: u64, params: *mut *mut c_void| {
            cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, stream, params, null_mut())
        };
        let (mut from, mut to, mut n) = (at, at, 0u32);
        let mut params: [*mut c_void; 3] =
            [(&raw mut from).cast(), (&raw mut to).cast(), (&raw mut n).cast()];
        let good = params.as_mut_ptr();
        no(launch(1, 32, 0, 0, good), 0, "a good one");
        no(launch(0, 32, 0, 0, good), 1, "no blocks");
        no(launch(1, 0, 0, 0, good), 1, "no threads");
        no(launch(1, 1025, 0, 0, good), 1, "too many threads");
        no(launch(1, 32, 49153, 0, good), 1, "too much shared memory");
        no(launch(1, 32, 0, 0, null_mut()), 1, "no parameters");
        let mut missing: [*mut c_void; 3] =
            [(&raw mut from).cast(), null_mut(), (&raw mut n).cast()];
        no(launch(1, 32, 0, 0, missing.as_mut_ptr()), 1, "a null parameter");
        no(launch(1, 32, 0, 55, good), 400, "no stream");
        no(
            cuLaunchKernel(module, 1, 1, 1, 1, 1, 1, 0, 0, good, null_mut()),
            400,
            "a module as a function",
        );
        // More of it once asked for.
        ok(cuFuncSetAttribute(function, 8, 60_000));
        no(launch(1, 32, 60_000, 0, good), 0, "as asked for");
        no(launch(1, 32, 60_001, 0, good), 1, "more than asked for");
        // Streams and events.
        no(cuStreamCreate(&mut handle, 2), 1, "flags");
        no(cuStreamDestroy_v2(0), 400, "the default stream");
        let (s, e) = (stream(0), event());
        ok(cuStreamDestroy_v2(s));
        no(cuStreamDestroy_v2(s), 400, "destroyed twice");
        no(cuStreamWaitEvent(0, s, 0), 400, "a stream as an event");
        ok(cuEventDestroy_v2(e));
        no(cuEventDestroy_v2(e), 400, "destroyed twice");
        no(cuEventRecord(e, 0), 400, "destroyed");
        ok(cuModuleUnload(module));
        no(cuModuleUnload(module), 400, "unloaded twice");
        // After all of it the context is as it was.
        ok(cuCtxSynchronize());
        ok(cuMemFree_v2(at));
        tell("done", 1);
    }
}

#[test]
fn bad_calls_return_the_documented_codes() {
    for late in ["all", "none"] {
        assert_eq!(passes("bad_calls", &[("LATE", late)]).told("done"), "1");
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn unwritten() {
    start(0);
    let at = alloc(BYTES);
    tell("read", read(at).0);
}

#[test]
fn reading_what_nobody_wrote_is_an_error_a_warning_or_nothing() {
    let strict = passes("unwritten", &[]);
    assert_eq!(strict.told("read"), "719");
    strict.says(&["was never written"]);
    let warned = passes("unwritten", &[("CHECK", "warn")]);
    assert_eq!(warned.told("read"), "0");
    warned.says(&["warning", "was never written"]);
    let off = passes("unwritten", &[("CHECK", "off")]);
    assert!(off.told("read") == "0" && !off.err.contains("written"), "{off:?}");
}

#[test]
#[ignore = "a program, run by the tests below"]
fn initialise() {
    tell("init", unsafe { cuInit(0) });
}

#[test]
fn switches_that_are_wrong_are_told() {
    let ran = passes("initialise", &[("LATE", "sometimes")]);
    assert_eq!(ran.told("init"), "1");
    ran.says(&["PTXSIM_CUDA_LATE is `sometimes`, expected none, all, copies, kernels or random"]);
    assert_eq!(passes("initialise", &[("DEVICES", "0")]).told("init"), "100");
    passes("initialise", &[("CARDS", "2")]).says(&["PTXSIM_CUDA_CARDS", "no such switch"]);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn counted() {
    start(0);
    let (module, function) = load();
    let (from, to) = (alloc(BYTES), alloc(BYTES));
    unsafe {
        ok(cuMemsetD32_v2(from, 1, N));
        ok(twice(function, from, to, 0));
        ok(twice(function, from, to, 0));
        ok(cuCtxSynchronize());
        // Modules' variables.
        let mut bytes = 0usize;
        let variable = made(|to| cuModuleGetGlobal_v2(to, &mut bytes, module, c"counter".as_ptr()));
        let mut value = 0u32;
        ok(cuMemcpyDtoH_v2((&raw mut value).cast(), variable, 4));
        assert_eq!((bytes, value), (4, 7));
        let mut base = 0;
        ok(cuMemGetAddressRange_v2(&mut base, &mut bytes, from + 9));
        assert_eq!((base, bytes), (from, BYTES));
        let free = |()| {
            let (mut free, mut total) = (0, 0);
            ok(cuMemGetInfo_v2(&mut free, &mut total));
            free
        };
        let before = free(());
        ok(cuModuleUnload(module));
        assert_eq!(free(()), before + 4, "the variables are freed with the module");
    }
}

#[test]
fn the_report_counts_kernels() {
    let path = std::env::temp_dir().join(format!("ptxsim-cuda-report-{}.json", std::process::id()));
    passes("counted", &[("REPORT", path.to_str().unwrap())]);
    let report = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for part in [
        "\"name\": \"twice\", \"launches\": 2, \"blocks\": 4, \"warps\": 4,",
        "\"sectors\": 32,",
        "\"leaks\": [\"leak: allocation 1, 256 bytes",
    ] {
        assert!(report.contains(part), "`{part}` is not in: {report}");
    }
}

/// The library as its users open it.
fn library() -> libloading::Library {
    let path = std::env::current_exe().unwrap().parent().unwrap().join("libptxsim_cuda.so");
    // SAFETY: this very library; it does nothing when opened.
    unsafe { libloading::Library::new(path) }.unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn every_function_of_the_driver_api_is_there() {
    let library = library();
    let names = include_str!("names_12040.txt").lines().filter(|line| !line.starts_with('#'));
    let missing: Vec<&str> = names
        .clone()
        // SAFETY: only looked up.
        .filter(|name| {
            unsafe { library.get::<unsafe extern "C" fn() -> u32>(name.as_bytes()) }.is_err()
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(names.count(), 431);
    // One that is not simulated says so, whatever it is called with.
    // SAFETY: it reads no argument.
    let code = unsafe {
        library.get::<unsafe extern "C" fn(usize, usize) -> u32>(b"cuGraphCreate").unwrap()(1, 2)
    };
    assert_eq!(code, 801);
}
