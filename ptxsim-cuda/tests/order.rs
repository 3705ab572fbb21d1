//! The order of streams, and what sticks.

mod common;

use std::ffi::{CString, c_void};

use common::*;

const LATE: &[(&str, &str)] = &[("LATE", "all")];
const EVERY: [&str; 5] = ["none", "all", "copies", "kernels", "random"];

// The programs. SAFETY of all of them: what is passed lives as the driver API asks.

#[test]
#[ignore = "a program, run by the tests below"]
fn null_stream() {
    start(0);
    let (_, function) = load();
    let (from, to, source) = (alloc(BYTES), alloc(BYTES), pinned(3));
    let (blocking, free) = (stream(0), stream(NON_BLOCKING));
    unsafe {
        // The null stream waits for a blocking one ...
        ok(cuMemcpyHtoDAsync_v2(from, source.cast(), BYTES, blocking));
        ok(twice(function, from, to, 0));
        // ... and a blocking one, a thread's own among them, for it.
        ok(twice(function, to, from, blocking));
        ok(twice(function, from, to, 0));
        ok(twice(function, to, from, 2));
        ok(cuStreamSynchronize(2));
    }
    assert_eq!(read(from), (0, [48; N]));
    unsafe {
        // A synchronous fill is not waited for by a stream that does not block, nor by the host.
        let fresh = alloc(BYTES);
        ok(cuMemsetD32_v2(fresh, 5, N));
        ok(twice(function, fresh, to, free));
        tell("free", cuStreamSynchronize(free));
    }
}

#[test]
fn the_null_stream_orders_blocking_streams_alone() {
    for late in EVERY {
        let ran = passes("null_stream", &[("LATE", late)]);
        match late {
            "all" => assert_eq!(ran.told("free"), "719"),
            "none" | "kernels" => assert_eq!(ran.told("free"), "0"),
            _ => {}
        }
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn events() {
    start(0);
    let (_, function) = load();
    let (a, b) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (one, two, host) = (alloc(BYTES), alloc(BYTES), pinned(1));
    unsafe {
        let (first, second) = (event(), event());
        // Never recorded: complete, and nothing to wait for.
        ok(cuEventQuery(first));
        ok(cuEventSynchronize(first));
        ok(cuStreamWaitEvent(b, first, 0));
        let mut time = 0f32;
        assert_eq!(cuEventElapsedTime(&mut time, first, second), 400);
        ok(cuMemcpyHtoDAsync_v2(one, host.cast(), BYTES, a));
        ok(cuEventRecord(first, a));
        // A wait is for what was recorded when it was given.
        ok(cuStreamWaitEvent(b, first, 0));
        ok(cuEventRecord(first, b));
        ok(twice(function, one, two, b));
        ok(cuEventRecord(second, b));
        ok(cuStreamWaitEvent(a, second, 0));
        ok(cuMemcpyDtoHAsync_v2(host.cast(), two, BYTES, a));
        let mut asked = 0;
        while cuEventQuery(second) == 600 {
            asked += 1;
            assert!(asked < 100, "a program that asks gets there");
        }
        tell("asked", asked);
        while cuStreamQuery(a) == 600 {
            asked += 1;
            assert!(asked < 100, "a program that asks gets there");
        }
        assert_eq!(host.read_volatile(), 2);
        ok(cuEventElapsedTime(&mut time, first, second));
        assert!(time > 0.0 && time < 1000.0, "{time}");
        tell("time", time);
        // Streams and events may end with work left.
        ok(twice(function, one, two, a));
        ok(cuEventRecord(first, a));
        ok(cuStreamWaitEvent(b, first, 0));
        ok(cuEventDestroy_v2(first));
        ok(cuStreamDestroy_v2(a));
        assert_eq!(cuStreamSynchronize(a), 400);
        ok(twice(function, two, one, b));
        ok(cuStreamDestroy_v2(b));
    }
    assert_eq!(unsafe { cuCtxSynchronize() }, 0);
    assert_eq!(read(one), (0, [4; N]));
}

#[test]
fn events_are_points_in_streams() {
    for late in EVERY {
        let ran = passes("events", &[("LATE", late)]);
        if late == "all" {
            assert_ne!(ran.told("asked"), "0");
        }
    }
    assert_eq!(passes("events", &[]).told("time"), passes("events", &[]).told("time"));
}

#[test]
#[ignore = "a program, run by the tests below"]
fn pageable_blocks() {
    start(0);
    let a = stream(NON_BLOCKING);
    let at = alloc(BYTES);
    let mut out = [0u32; N];
    let host = pinned(0);
    unsafe {
        ok(cuMemcpyHtoDAsync_v2(at, [7u32; N].as_ptr().cast(), BYTES, a));
        ok(cuMemcpyDtoHAsync_v2(host.cast(), at, BYTES, a));
        tell("pinned", host.read_volatile());
        ok(cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), at, BYTES, a));
    }
    assert_eq!(out, [7; N]);
}

#[test]
fn copies_to_pageable_memory_block_and_to_page_locked_do_not() {
    assert_eq!(passes("pageable_blocks", LATE).told("pinned"), "0");
    assert_eq!(passes("pageable_blocks", &[("LATE", "none")]).told("pinned"), "7");
}

#[test]
#[ignore = "a program, run by the tests below"]
fn fault_sticks() {
    let context = start(0);
    let (module, function) = load();
    let (from, to) = (alloc(BYTES), alloc(BYTES));
    unsafe {
        ok(cuMemsetD32_v2(from, 1, N));
        // Eight bytes from the end: the kernel runs out of it.
        ok(twice(function, from + BYTES as u64 - 8, to, 0));
        tell("sync", cuCtxSynchronize());
        let mut at = 0;
        let codes = [
            cuMemAlloc_v2(&mut at, 4),
            cuMemFree_v2(from),
            cuMemsetD8_v2(to, 0, 1),
            twice(function, from, to, 0),
            cuStreamSynchronize(0),
            cuModuleUnload(module),
            cuCtxSynchronize(),
        ];
        assert_eq!(codes, [700; 7]);
        // What does not need the context goes on.
        let mut current = 0;
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, context);
        ok(cuDevicePrimaryCtxReset_v2(0));
        assert_eq!(cuMemAlloc_v2(&mut at, 4), 709);
        let again = made(|to| cuDevicePrimaryCtxRetain(to, 0));
        ok(cuCtxSetCurrent(again));
        assert_eq!(twice(function, from, to, 0), 709);
        assert_eq!(cuMemFree_v2(from), 1);
    }
    let (_, function) = load();
    let (from, to) = (alloc(BYTES), alloc(BYTES));
    unsafe { ok(cuMemsetD32_v2(from, 1, N)) };
    ok(twice(function, from, to, 0));
    assert_eq!(read(to), (0, [2; N]));
}

#[test]
fn a_fault_sticks_until_the_context_is_reset() {
    for late in EVERY {
        let ran = passes("fault_sticks", &[("LATE", late)]);
        assert_eq!(ran.told("sync"), "700");
        ran.says(&["out of bounds: global access of 4 bytes", "kernel twice, module"]);
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn contexts() {
    unsafe {
        let mut at = 0;
        assert_eq!(cuMemAlloc_v2(&mut at, 4), 3);
        ok(cuInit(0));
        assert_eq!(cuMemAlloc_v2(&mut at, 4), 201);
        let first = made(|to| cuCtxCreate_v2(to, 0, 0));
        let second = made(|to| cuCtxCreate_v2(to, 0, 0));
        let current = || made(|to| cuCtxGetCurrent(to));
        assert_eq!(current(), second);
        let of_second = alloc(64);
        let stream_of_second = stream(0);
        let mut popped = 0;
        ok(cuCtxPopCurrent_v2(&mut popped));
        assert_eq!((popped, current()), (second, first));
        let (_, function) = load();
        // A context's stream takes no other context's kernel.
        assert_eq!(twice(function, of_second, of_second, stream_of_second), 400);
        ok(cuCtxPushCurrent_v2(second));
        assert_eq!(twice(function, of_second, of_second, 0), 201);
        // What it owned ends with it.
        ok(cuCtxDestroy_v2(second));
        assert_eq!(current(), first);
        assert_eq!(cuMemFree_v2(of_second), 1);
        assert_eq!(cuStreamSynchronize(stream_of_second), 709);
        assert_eq!(cuCtxSetCurrent(second), 709);
        assert_eq!(cuCtxDestroy_v2(second), 709);
        // Another thread has a stack of its own.
        let other = std::thread::spawn(|| made(|to| cuCtxGetCurrent(to)));
        assert_eq!(other.join().unwrap(), 0);
        ok(cuCtxSetCurrent(0));
        assert_eq!(current(), 0);
        // A primary context is held by count.
        let primary = made(|to| cuDevicePrimaryCtxRetain(to, 0));
        assert_eq!(made(|to| cuDevicePrimaryCtxRetain(to, 0)), primary);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuCtxSetCurrent(primary));
        ok(cuCtxSynchronize());
        assert_eq!(cuCtxDestroy_v2(primary), 201);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        assert_eq!(cuCtxSynchronize(), 709);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 201);
    }
}

#[test]
fn contexts_are_stacked_counted_and_own_what_they_allocate() {
    passes("contexts", LATE).says(&["leak: allocation 1, 64 bytes"]);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn many_threads() {
    let context = start(0);
    let (_, function) = load();
    let work = || {
        // SAFETY: as all programs here.
        unsafe {
            ok(cuCtxSetCurrent(context));
            let s = stream(NON_BLOCKING);
            let (from, to) = (alloc(BYTES), alloc(BYTES));
            for round in 1..20u32 {
                let host = pinned(round);
                ok(cuMemcpyHtoDAsync_v2(from, host.cast(), BYTES, s));
                ok(twice(function, from, to, s));
                ok(cuStreamSynchronize(s));
                assert_eq!(read(to), (0, [2 * round; N]));
                ok(cuMemFreeHost(host.cast()));
            }
            ok(cuMemFree_v2(from));
            ok(cuMemFree_v2(to));
            ok(cuStreamDestroy_v2(s));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
}

#[test]
fn threads_share_a_context() {
    for late in ["all", "random", "none"] {
        passes("many_threads", &[("LATE", late)]);
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn jit_log() {
    start(0);
    let wrong =
        CString::new(PTX.replace("add.s32 %r2, %r2, %r2;", "frobnicate.s32 %r2, %r2, %r2;"))
            .unwrap();
    let right = CString::new(PTX).unwrap();
    for (image, code) in [(&wrong, 218), (&right, 0)] {
        let (mut info, mut error) = ([1u8; 300], [1u8; 300]);
        let mut options = [3, 4, 5, 6];
        let mut values: [*mut c_void; 4] = [
            info.as_mut_ptr().cast(),
            300 as *mut c_void,
            error.as_mut_ptr().cast(),
            300 as *mut c_void,
        ];
        let mut module = 0;
        // SAFETY: each option has its value, each buffer its length.
        let got = unsafe {
            cuModuleLoadDataEx(
                &mut module,
                image.as_ptr().cast(),
                4,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        assert_eq!(got, code);
        let text = |log: &[u8; 300], used: *mut c_void| {
            let log = std::ffi::CStr::from_bytes_until_nul(log).unwrap();
            assert_eq!(log.count_bytes() + 1, used as usize);
            log.to_str().unwrap().to_string()
        };
        tell(&format!("info{code}"), text(&info, values[1]));
        tell(&format!("error{code}"), text(&error, values[3]));
    }
    // A log that is too small is cut.
    let mut small = [1u8; 8];
    let mut values: [*mut c_void; 2] = [small.as_mut_ptr().cast(), 5 as *mut c_void];
    let mut module = 0;
    // SAFETY: as above.
    let got = unsafe {
        cuModuleLoadDataEx(
            &mut module,
            wrong.as_ptr().cast(),
            2,
            [5, 6].as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    assert_eq!((got, &small[4..]), (218, &[0, 1, 1, 1][..]));
}

#[test]
fn the_log_of_loading_says_why() {
    let ran = passes("jit_log", &[]);
    assert!(
        ran.told("error218").contains("`frobnicate.s32` is not known to the simulator"),
        "{ran:?}"
    );
    assert_eq!((ran.told("info218"), ran.told("error0")), ("", ""));
    assert!(ran.told("info0").contains("PTX 7.0 for sm_75, 1 entries"), "{ran:?}");
}
