//! Faults of programs: each class is caught and named where work is late, and those of order are not seen where all runs
//! at once, as they would not be on a card with luck.

mod common;

use common::*;

const LATE: &[(&str, &str)] = &[("LATE", "all")];
const EAGER: &[(&str, &str)] = &[("LATE", "none")];

// The programs. SAFETY of all of them: what is passed lives as the driver API asks, but for the fault that each is about,
// which the simulator catches before it is one of memory.

#[test]
#[ignore = "a program, run by the tests below"]
fn missing_wait() {
    start(0);
    let (_, function) = load();
    let (a, b) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (from, to, source) = (alloc(BYTES), alloc(BYTES), pinned(3));
    unsafe { ok(cuMemcpyHtoDAsync_v2(from, source.cast(), BYTES, a)) };
    ok(twice(function, from, to, b));
    tell("sync", unsafe { cuStreamSynchronize(b) });
    let (code, words) = read(to);
    tell("read", code);
    tell("word", words[N - 1]);
}

#[test]
fn a_missing_wait_between_streams_is_caught() {
    let late = passes("missing_wait", LATE);
    assert_eq!(late.told("sync"), "719");
    assert_eq!(late.told("read"), "719");
    late.says(&["uninitialised global memory", "kernel twice", "allocation 1"]);
    let eager = passes("missing_wait", EAGER);
    assert_eq!((eager.told("sync"), eager.told("read"), eager.told("word")), ("0", "0", "6"));
    assert!(!eager.err.contains("CUDA_ERROR"), "{}", eager.err);
    // The default finds it by some seed, and the same each time.
    let caught =
        |seed: u32| passes("missing_wait", &[("SEED", &seed.to_string())]).told("sync") == "719";
    let drawn: Vec<bool> = (0..6).map(caught).collect();
    assert!(drawn.contains(&true), "{drawn:?}");
    assert_eq!(drawn[0], caught(0));
}

#[test]
#[ignore = "a program, run by the tests below"]
fn overwritten_early() {
    start(0);
    let (_, function) = load();
    let (a, b) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (from, to, one, two) = (alloc(BYTES), alloc(BYTES), pinned(1), pinned(2));
    unsafe {
        ok(cuMemcpyHtoDAsync_v2(from, one.cast(), BYTES, a));
        ok(twice(function, from, to, a));
        ok(cuMemcpyHtoDAsync_v2(from, two.cast(), BYTES, b));
        ok(cuStreamSynchronize(b));
        ok(cuStreamSynchronize(a));
    }
    tell("word", read(to).1[0]);
    // With the wait it is right in any order.
    unsafe {
        let done = event();
        ok(cuMemcpyHtoDAsync_v2(from, one.cast(), BYTES, a));
        ok(twice(function, from, to, a));
        ok(cuEventRecord(done, a));
        ok(cuStreamWaitEvent(b, done, 0));
        ok(cuEventDestroy_v2(done));
        ok(cuMemcpyHtoDAsync_v2(from, two.cast(), BYTES, b));
        ok(cuStreamSynchronize(b));
        ok(cuStreamSynchronize(a));
    }
    tell("waited", read(to).1[0]);
}

#[test]
fn a_copy_that_does_not_wait_gives_other_numbers() {
    let late = passes("overwritten_early", &[("LATE", "kernels")]);
    let eager = passes("overwritten_early", EAGER);
    assert_eq!((late.told("word"), late.told("waited")), ("4", "2"));
    assert_eq!((eager.told("word"), eager.told("waited")), ("2", "2"));
}

#[test]
#[ignore = "a program, run by the tests below"]
fn pinned_reused() {
    start(0);
    let (at, source) = (alloc(BYTES), pinned(1));
    unsafe {
        ok(cuMemcpyHtoDAsync_v2(at, source.cast(), BYTES, 0));
        set(source, 2);
        tell("sync", cuStreamSynchronize(0));
    }
    tell("word", read(at).1[0]);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn pageable_reused() {
    start(0);
    let at = alloc(BYTES);
    let mut source = [1u32; N];
    unsafe {
        ok(cuMemcpyHtoDAsync_v2(at, source.as_ptr().cast(), BYTES, 0));
        set(source.as_mut_ptr(), 2);
        ok(cuStreamSynchronize(0));
    }
    assert_eq!(read(at).1, [1; N]);
    // Registered, it is page-locked.
    unsafe {
        ok(cuMemHostRegister_v2(source.as_mut_ptr().cast(), BYTES, 0));
        ok(cuMemcpyHtoDAsync_v2(at, source.as_ptr().cast(), BYTES, 0));
        set(source.as_mut_ptr(), 3);
        tell("sync", cuStreamSynchronize(0));
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn pinned_filled_by_the_device() {
    start(0);
    let (at, to, host) = (alloc(BYTES), alloc(BYTES), pinned(1));
    unsafe {
        ok(cuMemsetD32_v2(at, 5, N));
        ok(cuMemcpyDtoHAsync_v2(host.cast(), at, BYTES, 0));
        ok(cuMemcpyHtoDAsync_v2(to, host.cast(), BYTES, 0));
        ok(cuStreamSynchronize(0));
    }
    assert_eq!(read(to).1, [5; N]);
}

#[test]
fn a_page_locked_buffer_reused_too_early_is_caught_and_a_pageable_one_is_fine() {
    let late = passes("pinned_reused", LATE);
    assert_eq!(late.told("sync"), "719");
    late.says(&["page-locked memory", "changed by the host before the copy of 256 bytes"]);
    let eager = passes("pinned_reused", EAGER);
    assert_eq!((eager.told("sync"), eager.told("word")), ("0", "1"));
    assert_eq!(passes("pageable_reused", LATE).told("sync"), "719");
    assert_eq!(passes("pageable_reused", EAGER).told("sync"), "0");
    passes("pinned_filled_by_the_device", LATE);
    passes("pinned_filled_by_the_device", EAGER);
}

#[test]
#[ignore = "a program, run by the tests below"]
fn wrong_card() {
    let first = start(0);
    let of_first = alloc(BYTES);
    unsafe { ok(cuMemsetD32_v2(of_first, 1, N)) };
    let second = start(1);
    let (_, function) = load();
    let to = alloc(BYTES);
    unsafe {
        tell("copy", cuMemsetD32_v2(of_first, 1, N));
        ok(cuMemcpyPeer(to, second, of_first, first, BYTES));
        tell("peer", cuMemcpyPeer(to, first, of_first, second, BYTES));
    }
    assert_eq!(read(to).1, [1; N]);
    ok(twice(function, of_first, to, 0));
    tell("sync", unsafe { cuCtxSynchronize() });
    // The other card's context is as it was.
    unsafe { ok(cuCtxSetCurrent(first)) };
    assert_eq!(read(of_first), (0, [1; N]));
}

#[test]
fn another_cards_pointer_is_caught() {
    for late in ["all", "none"] {
        let ran = passes("wrong_card", &[("DEVICES", "2"), ("LATE", late)]);
        assert_eq!((ran.told("copy"), ran.told("peer"), ran.told("sync")), ("1", "1", "700"));
        ran.says(&[
            "is memory of card 0 (byte ",
            " of allocation 1), not of card 1",
            "out of bounds",
        ]);
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn used_after_free() {
    start(0);
    let (_, function) = load();
    let (from, to) = (alloc(BYTES), alloc(BYTES));
    unsafe {
        ok(cuMemsetD32_v2(from, 1, N));
        ok(cuMemFree_v2(from));
        tell("twice", cuMemFree_v2(from));
        tell("copy", cuMemsetD8_v2(from, 0, 1));
    }
    ok(twice(function, from, to, 0));
    tell("sync", unsafe { cuCtxSynchronize() });
}

#[test]
fn use_after_free_is_caught() {
    for late in ["all", "none"] {
        let ran = passes("used_after_free", &[("LATE", late)]);
        assert_eq!((ran.told("twice"), ran.told("copy"), ran.told("sync")), ("1", "1", "700"));
        ran.says(&[
            "allocation 1, 256 bytes at",
            "was freed before",
            "is freed memory (byte 0 of allocation 1",
        ]);
    }
}

#[test]
#[ignore = "a program, run by the tests below"]
fn leaks() {
    let context = start(0);
    let freed = alloc(100);
    alloc(200);
    pinned(0);
    unsafe {
        ok(cuMemFree_v2(freed));
        ok(cuDevicePrimaryCtxRelease_v2(0));
        tell("after", cuCtxSynchronize());
        tell("set", cuCtxSetCurrent(context));
    }
}

#[test]
fn leaks_are_listed_and_can_fail_the_process() {
    let ran = passes("leaks", LATE);
    ran.says(&["leak: allocation 2, 200 bytes at 0x", "leak: page-locked memory, 256 bytes at"]);
    assert!(!ran.err.contains("allocation 1"), "{}", ran.err);
    assert_eq!((ran.told("after"), ran.told("set")), ("709", "709"));
    assert_eq!(run("leaks", &[("LEAKS", "fail")]).code, Some(70));
    assert!(!passes("leaks", &[("LEAKS", "off")]).err.contains("leak:"));
}

#[test]
#[ignore = "a program, run by the tests below"]
fn event_destroyed() {
    start(0);
    let (_, function) = load();
    let (a, b) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
    let (from, to, source) = (alloc(BYTES), alloc(BYTES), pinned(3));
    unsafe {
        let done = event();
        ok(cuMemcpyHtoDAsync_v2(from, source.cast(), BYTES, a));
        ok(cuEventRecord(done, a));
        ok(cuEventDestroy_v2(done));
        tell("wait", cuStreamWaitEvent(b, done, 0));
    }
    ok(twice(function, from, to, b));
    tell("sync", unsafe { cuStreamSynchronize(b) });
}

#[test]
fn an_event_destroyed_early_is_caught() {
    let late = passes("event_destroyed", LATE);
    assert_eq!((late.told("wait"), late.told("sync")), ("400", "719"));
    late.says(&[
        "cuStreamWaitEvent: CUDA_ERROR_INVALID_HANDLE (400): event 0x",
        "was destroyed before",
    ]);
    // The handle is dead in any order; the work, done early, is not missed.
    let eager = passes("event_destroyed", EAGER);
    assert_eq!((eager.told("wait"), eager.told("sync")), ("400", "0"));
}

#[test]
#[ignore = "a program, run by the tests below"]
fn module_unloaded() {
    start(0);
    let (module, function) = load();
    let (from, to) = (alloc(BYTES), alloc(BYTES));
    unsafe { ok(cuMemsetD32_v2(from, 4, N)) };
    ok(twice(function, from, to, 0));
    tell("unload", unsafe { cuModuleUnload(module) });
    tell("launch", twice(function, from, to, 0));
    tell("word", read(to).1[0]);
}

#[test]
fn a_module_unloaded_in_flight_is_caught() {
    let said = "is unloaded while 1 of its launches have not run: `twice` on stream 0x";
    let late = passes("module_unloaded", LATE);
    late.says(&[said, "warning"]);
    assert_eq!((late.told("unload"), late.told("launch"), late.told("word")), ("0", "400", "8"));
    let fault = passes("module_unloaded", &[("LATE", "all"), ("UNLOAD", "fault")]);
    fault.says(&[said]);
    assert_eq!(fault.told("unload"), "719");
    let eager = passes("module_unloaded", &[("LATE", "none"), ("UNLOAD", "fault")]);
    assert_eq!((eager.told("unload"), eager.told("word")), ("0", "8"));
    assert!(!eager.err.contains(said), "{}", eager.err);
}
