//! Every check, proven by a kernel written to break it, next to the kernel that is right.

use ptxsim::{Arg, Device, DeviceConfig, Error, Hazard, LaunchConfig, Module, Result, Space};

const FRAME: &str = "
.version 8.4
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dyn[];
.visible .entry k(.param .u64 data)
{
    .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .b64 %x<16>; .reg .b32 %t, %w, %l, %b;
    .shared .align 16 .b8 sm[1024];
    mov.u32 %t, %tid.x; shr.u32 %w, %t, 5; and.b32 %l, %t, 31; mov.u32 %b, %ctaid.x;
    ld.param.u64 %x1, [data];
    mul.wide.u32 %x2, %t, 4; add.s64 %x2, %x2, %x1;
    shl.b32 %r1, %t, 2; mov.u32 %r2, sm; add.u32 %r1, %r1, %r2;
";

fn config(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig::linear(blocks, threads)
}

/// Runs `body` with a pointer to 1024 bytes, of which the first 512 are written.
fn run_with(body: &str, config: LaunchConfig) -> Result<Vec<u8>> {
    let module = Module::parse("breaks.ptx", &format!("{FRAME}\n{body}\nret;\n}}"))?;
    let device = Device::new(DeviceConfig::new(80));
    let data = device.alloc_named(1024, "data")?;
    device.write(data, &(0..=255).chain(0..=255).collect::<Vec<u8>>())?;
    device.launch(&module, "k", config, &[Arg::from(data)])?;
    let mut out = vec![0; 1024];
    device.read_any(data, &mut out)?;
    Ok(out)
}

fn run(body: &str, blocks: u32, threads: u32) -> Result<Vec<u8>> {
    run_with(body, config(blocks, threads))
}

#[track_caller]
fn ok(body: &str, blocks: u32, threads: u32) {
    for seed in 0..4 {
        if let Err(e) = run_with(body, config(blocks, threads).with_seed(seed)) {
            panic!("{e}");
        }
    }
}

macro_rules! breaks {
    ($body:expr, $blocks:expr, $threads:expr, $pattern:pat $(if $guard:expr)?) => {
        for seed in 0..4 {
            match run_with($body, config($blocks, $threads).with_seed(seed)) {
                Err($pattern) $(if $guard)? => {}
                Err(e) => panic!("another error: {e}"),
                Ok(_) => panic!("no error"),
            }
        }
    };
}

#[test]
fn out_of_bounds_in_global_memory() {
    ok("st.global.u32 [%x1+1020], %t;", 1, 1);
    breaks!(
        "st.global.u32 [%x1+1024], %t;",
        1,
        1,
        Error::OutOfBounds { space: Space::Global, bytes: 4, .. }
    );
    breaks!("ld.global.u32 %r3, [%x1+-4];", 1, 1, Error::OutOfBounds { space: Space::Global, .. });
    breaks!("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [0];", 1, 1, Error::OutOfBounds { .. });
    let e = run("add.s64 %x2, %x2, 900; st.global.u32 [%x2], %t;", 1, 64).unwrap_err();
    let site = e.site().unwrap();
    assert_eq!((site.thread, site.block, site.kernel.as_str()), ([31, 0, 0], [0; 3], "k"));
    let text = e.to_string();
    assert!(text.contains("`data` of 1024 bytes") && text.contains("breaks.ptx:15"), "{text}");
}

#[test]
fn addresses_at_the_end_of_the_space() {
    for body in [
        "ld.global.u32 %r3, [-4];",
        "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [-16];",
        "st.shared.u64 [-8], %x1;",
        "ld.shared.u32 %r3, [%r2+-4];",
        "ld.local.u32 %r3, [-4];",
        "ld.u32 %r3, [-4];",
        "mov.u64 %x3, -16; cp.async.cg.shared.global [sm], [%x3], 16;",
        "mov.u64 %x3, -2; mov.u32 %r3, 4; cp.async.ca.shared.global [sm], [%x3], 8, %r3;",
        "red.global.add.u32 [-4], 1;",
    ] {
        let e = run(body, 1, 1).unwrap_err();
        assert!(matches!(e, Error::OutOfBounds { .. }), "{body}: {e}");
    }
    ok("cp.async.ca.shared.global [sm], [%x1], 4; cp.async.wait_group 4294967295;", 1, 1);
}

#[test]
fn an_access_does_not_reach_the_next_allocation() {
    let module =
        Module::parse("m", &format!("{FRAME} ld.global.u32 %r3, [%x1+64]; ret; }}")).unwrap();
    let device = Device::new(DeviceConfig::new(80));
    let a = device.alloc(64).unwrap();
    let b = device.alloc(64).unwrap();
    assert!(b > a + 64);
    let e = device.launch(&module, "k", config(1, 1), &[Arg::from(a)]).unwrap_err();
    assert!(matches!(e, Error::OutOfBounds { .. }), "{e}");
    device.free(b).unwrap();
    let e = device.launch(&module, "k", config(1, 1), &[Arg::from(b)]).unwrap_err();
    assert!(matches!(e, Error::OutOfBounds { .. }), "{e}");
}

#[test]
fn out_of_bounds_in_the_other_spaces() {
    breaks!(
        "st.shared.u32 [sm+1024], %t;",
        1,
        1,
        Error::OutOfBounds { space: Space::Shared, address: 1024, .. }
    );
    breaks!("st.shared.u32 [dyn], %t;", 1, 1, Error::OutOfBounds { space: Space::Shared, .. });
    breaks!("ld.param.u64 %x3, [data+8];", 1, 1, Error::OutOfBounds { space: Space::Param, .. });
    breaks!(
        ".local .align 4 .b8 l[8]; st.local.u32 [l+8], %t;",
        1,
        1,
        Error::OutOfBounds { space: Space::Local, .. }
    );
    breaks!(
        "mov.u32 %r3, 1020; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3+4];",
        1,
        32,
        Error::OutOfBounds { space: Space::Shared, .. }
    );
}

#[test]
fn misaligned_scalars_and_vectors() {
    breaks!("ld.global.u32 %r3, [%x1+2];", 1, 1, Error::Misaligned { bytes: 4, .. });
    breaks!(
        "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%x1+8];",
        1,
        1,
        Error::Misaligned { bytes: 16, .. }
    );
    breaks!(
        "st.shared.u64 [sm+4], %x1;",
        1,
        1,
        Error::Misaligned { space: Space::Shared, bytes: 8, .. }
    );
    breaks!(
        "mov.u32 %r3, 8; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];",
        1,
        32,
        Error::Misaligned { bytes: 16, .. }
    );
    breaks!(
        "cp.async.cg.shared.global [sm+8], [%x1], 16;",
        1,
        1,
        Error::Misaligned { space: Space::Shared, .. }
    );
    breaks!(
        "cp.async.cg.shared.global [sm], [%x1+8], 16;",
        1,
        1,
        Error::Misaligned { space: Space::Global, .. }
    );
}

#[test]
fn reads_of_what_nobody_wrote() {
    ok("ld.global.u32 %r3, [%x1+508];", 1, 1);
    breaks!(
        "ld.global.u32 %r3, [%x1+512];",
        1,
        1,
        Error::Uninitialised { space: Space::Global, .. }
    );
    breaks!(
        "st.global.u8 [%x1+512], %t; ld.global.u16 %h1, [%x1+512];",
        1,
        1,
        Error::Uninitialised { bytes: 2, .. }
    );
    ok("st.global.u8 [%x1+512], %t; ld.global.u8 %h1, [%x1+512];", 1, 1);
    breaks!("ld.shared.u32 %r3, [sm];", 1, 1, Error::Uninitialised { space: Space::Shared, .. });
    breaks!(
        "st.shared.u16 [sm], %h1; ld.shared.u32 %r3, [sm];",
        1,
        1,
        Error::Uninitialised { space: Space::Shared, .. }
    );
    breaks!(
        "atom.shared.add.u32 %r3, [sm], 1;",
        1,
        1,
        Error::Uninitialised { space: Space::Shared, .. }
    );
    breaks!(
        "red.global.add.u32 [%x1+600], 1;",
        1,
        1,
        Error::Uninitialised { space: Space::Global, .. }
    );
    breaks!(
        ".local .align 4 .b8 l[8]; ld.local.u32 %r3, [l];",
        1,
        1,
        Error::Uninitialised { space: Space::Local, .. }
    );
    // A block does not find what the block before it left in shared memory.
    breaks!(
        "setp.eq.u32 %p1, %b, 0; @%p1 st.shared.u32 [sm], 1; ld.shared.u32 %r3, [sm];",
        2,
        1,
        Error::Uninitialised { space: Space::Shared, .. }
    );
}

#[test]
fn shared_memory_race_between_warps() {
    let missing = "st.shared.u32 [%r1], %t; xor.b32 %r3, %r1, 128; ld.shared.u32 %r4, [%r3];";
    // Whichever warp runs first, the read finds nothing or meets the write.
    breaks!(missing, 1, 64, Error::SharedRace { .. } | Error::Uninitialised { .. });
    ok(&missing.replace("xor.b32", "bar.sync 0; xor.b32"), 1, 64);
    let reuse = "st.shared.u32 [%r1], %t; bar.sync 0; xor.b32 %r3, %r1, 128; ld.shared.u32 %r4, [%r3]; st.shared.u32 [%r1], %r4;";
    breaks!(
        reuse,
        1,
        64,
        Error::SharedRace { hazard: Hazard::WriteAfterRead | Hazard::ReadAfterWrite, .. }
    );
    ok(&reuse.replace("st.shared.u32 [%r1], %r4", "bar.sync 0; st.shared.u32 [%r1], %r4"), 1, 64);
    breaks!(
        "st.shared.u32 [sm], %t;",
        1,
        64,
        Error::SharedRace { hazard: Hazard::WriteAfterWrite, .. }
    );
}

#[test]
fn lanes_of_a_warp_are_ordered_by_a_warp_barrier_only() {
    let lanes = "st.shared.u32 [%r1], %t; xor.b32 %r3, %r1, 4; ld.shared.u32 %r4, [%r3];";
    breaks!(lanes, 1, 32, Error::SharedRace { hazard: Hazard::ReadAfterWrite, .. });
    ok(&lanes.replace("xor.b32", "bar.warp.sync -1; xor.b32"), 1, 32);
    // Half the warp, named exactly.
    let half = lanes.replace("xor.b32", "bar.warp.sync %r5; xor.b32");
    let half = format!(
        "setp.lt.u32 %p1, %l, 16; selp.u32 %r5, 0xffff, 0xffff0000, %p1; @%p1 bra low; {half} bra end; low: {half} end:"
    );
    ok(&half, 1, 32);
    // A barrier among the wrong lanes orders nothing.
    let wrong = lanes.replace("xor.b32 %r3, %r1, 4", "bar.warp.sync %r5; xor.b32 %r3, %r1, 64");
    breaks!(
        &format!(
            "setp.lt.u32 %p1, %l, 16; selp.u32 %r5, 0xffff, 0xffff0000, %p1; @%p1 bra low; {wrong} bra end; low: {wrong} end:"
        ),
        1,
        32,
        Error::SharedRace { .. } | Error::Uninitialised { .. }
    );
    // A shuffle does not order memory, unless the launch says so.
    let shuffle = lanes.replace("xor.b32 %r3", "shfl.sync.idx.b32 %r5, %t, 0, 31, -1; xor.b32 %r3");
    breaks!(&shuffle, 1, 32, Error::SharedRace { .. });
    let mut relaxed = config(1, 32);
    relaxed.warp_order = ptxsim::WarpOrder::Collectives;
    run_with(&shuffle, relaxed).unwrap();
    // A thread's own bytes need nothing.
    ok("st.shared.u32 [%r1], %t; ld.shared.u32 %r4, [%r1]; st.shared.u32 [%r1], %r4;", 1, 64);
    // Neither do neighbours in one word.
    ok("add.u32 %r3, %r2, %t; st.shared.u8 [%r3], %t; ld.shared.u8 %h1, [%r3];", 1, 64);
    breaks!(
        "add.u32 %r3, %r2, %t; st.shared.u8 [%r3], %t; and.b32 %r4, %r3, -2; ld.shared.u16 %h1, [%r4];",
        1,
        32,
        Error::SharedRace { .. }
    );
}

#[test]
fn ldmatrix_reads_for_all_lanes() {
    let body = "shl.b32 %r3, %t, 4; and.b32 %r3, %r3, 511; add.u32 %r3, %r3, %r2; st.shared.v4.u32 [%r3], {%t, %t, %t, %t};
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r3];";
    breaks!(body, 1, 32, Error::SharedRace { hazard: Hazard::ReadAfterWrite, .. });
    ok(&body.replace("ldmatrix", "bar.warp.sync -1; ldmatrix"), 1, 32);
}

#[test]
fn one_store_of_one_value_by_many_lanes_is_no_race() {
    ok("st.shared.u32 [sm], 7;", 1, 32);
    breaks!(
        "st.shared.u32 [sm], %t;",
        1,
        32,
        Error::SharedRace { hazard: Hazard::WriteAfterWrite, .. }
    );
}

#[test]
fn shared_atomics_agree_among_themselves() {
    let set = "setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [sm], 0; bar.sync 0;";
    ok(&format!("{set} atom.shared.add.u32 %r3, [sm], 1;"), 1, 96);
    breaks!(
        &format!("{set} atom.shared.add.u32 %r3, [sm], 1; ld.shared.u32 %r4, [sm];"),
        1,
        96,
        Error::SharedRace { .. }
    );
    breaks!(
        &format!("{set} atom.shared.add.u32 %r3, [sm], 1; st.shared.u32 [sm], 1;"),
        1,
        96,
        Error::SharedRace { .. }
    );
}

#[test]
fn a_missing_wait_reads_poison() {
    let right = "cp.async.ca.shared.global [%r1], [%x2], 4; cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;
        xor.b32 %r3, %r1, 128; ld.shared.u32 %r4, [%r3]; st.global.u32 [%x2+512], %r4;";
    ok(right, 1, 64);
    breaks!(&right.replace("cp.async.wait_group 0;", ""), 1, 64, Error::PendingCopy { .. });
    breaks!(&right.replace("wait_group 0", "wait_group 1"), 1, 64, Error::PendingCopy { .. });
    // With the wait but not the barrier, other threads' copies are not there yet, or race.
    breaks!(
        &right.replace("bar.sync 0;", ""),
        1,
        64,
        Error::SharedRace { .. } | Error::PendingCopy { .. } | Error::Uninitialised { .. }
    );
}

#[test]
fn refilling_a_stage_that_is_still_read_is_a_race() {
    let body = "cp.async.ca.shared.global [%r1], [%x2], 4; cp.async.wait_all; bar.sync 0;
        xor.b32 %r3, %r1, 128; ld.shared.u32 %r4, [%r3];
        cp.async.ca.shared.global [%r1], [%x2], 4; cp.async.wait_all;";
    breaks!(body, 1, 64, Error::SharedRace { .. } | Error::PendingCopy { .. });
    ok(&body.replace("ld.shared.u32 %r4, [%r3];", "ld.shared.u32 %r4, [%r3]; bar.sync 0;"), 1, 64);
}

#[test]
fn two_blocks_on_one_address() {
    breaks!(
        "st.global.u32 [%x2], %b;",
        2,
        8,
        Error::BlockRace { hazard: Hazard::WriteAfterWrite, .. }
    );
    ok(
        "shl.b32 %r3, %b, 5; cvt.u64.u32 %x3, %r3; add.s64 %x2, %x2, %x3; st.global.u32 [%x2], %b;",
        2,
        8,
    );
    // A read of what another block writes, in either order.
    breaks!(
        "setp.eq.u32 %p1, %b, 0; @%p1 st.global.u32 [%x1], 1; @!%p1 ld.global.u32 %r3, [%x1];",
        2,
        1,
        Error::BlockRace { hazard: Hazard::ReadAfterWrite | Hazard::WriteAfterRead, .. }
    );
    // Bytes of one word.
    ok(
        "cvt.u64.u32 %x3, %b; add.s64 %x3, %x3, %x1; st.global.u8 [%x3], %b; ld.global.u8 %h1, [%x3];",
        4,
        1,
    );
    breaks!(
        "shr.u32 %r3, %b, 1; cvt.u64.u32 %x3, %r3; add.s64 %x3, %x3, %x1; st.global.u8 [%x3], %b;",
        4,
        1,
        Error::BlockRace { bytes: 1, .. }
    );
    // Atomics agree; atomics and plain accesses do not.
    ok("red.global.add.u32 [%x1], 1;", 4, 32);
    breaks!("red.global.add.u32 [%x1], 1; st.global.u32 [%x1], 1;", 4, 1, Error::BlockRace { .. });
    // Two launches may write the same.
    let module = Module::parse("m", &format!("{FRAME} st.global.u32 [%x1], %b; ret; }}")).unwrap();
    let device = Device::new(DeviceConfig::new(80));
    let a = device.alloc(64).unwrap();
    for _ in 0..600 {
        device.launch(&module, "k", config(1, 1), &[Arg::from(a)]).unwrap();
    }
    let mut unchecked = config(2, 1);
    unchecked.check_blocks = false;
    device.launch(&module, "k", unchecked, &[Arg::from(a)]).unwrap();
}

#[test]
fn constants_are_read_only() {
    let text =
        FRAME.replace(".extern .shared", ".const .align 4 .b32 c[2] = {1, 2};\n.extern .shared");
    let body = "mov.u64 %x3, c; cvta.const.u64 %x3, %x3; st.global.u32 [%x3], 1;";
    let module = Module::parse("m", &format!("{text} {body} ret; }}")).unwrap();
    let device = Device::new(DeviceConfig::new(80));
    let e = device.launch(&module, "k", config(1, 1), &[Arg::from(0u64)]).unwrap_err();
    assert!(matches!(e, Error::ReadOnly { .. }), "{e}");
}

#[test]
fn divergent_barriers() {
    // Half of a warp stays away, and waits for the rest further on.
    breaks!(
        "setp.lt.u32 %p1, %l, 16; @%p1 bar.sync 0; bar.warp.sync -1;",
        1,
        32,
        Error::DivergentBarrier { .. }
    );
    // The halves wait at two barriers.
    breaks!(
        "setp.lt.u32 %p1, %l, 16; @%p1 bra low; bar.sync 0; bra end; low: bar.sync 0; end:",
        1,
        32,
        Error::DivergentBarrier { .. }
    );
    // The warps wait at two barriers.
    breaks!(
        "setp.eq.u32 %p1, %w, 0; @%p1 bra low; bar.sync 0; bra end; low: bar.sync 0; end:",
        1,
        64,
        Error::DivergentBarrier { .. }
    );
    // One barrier with two thread counts.
    breaks!(
        "setp.eq.u32 %p1, %w, 0; @%p1 bra low; bar.sync 1, 64; bra end; low: bar.sync 1, 96; end:",
        1,
        64,
        Error::DivergentBarrier { .. }
    );
    // Lanes that have ended are not waited for.
    ok("setp.lt.u32 %p1, %t, 40; @!%p1 bra end; bar.sync 0; end:", 1, 64);
    ok("setp.lt.u32 %p1, %t, 40; @!%p1 exit; bar.sync 0;", 1, 64);
}

#[test]
fn divergent_warp_instructions() {
    breaks!(
        "setp.lt.u32 %p1, %l, 16; @%p1 shfl.sync.idx.b32 %r3, %t, 0, 31, -1; bar.warp.sync -1;",
        1,
        32,
        Error::DivergentWarp { .. }
    );
    breaks!(
        "setp.lt.u32 %p1, %l, 16; @%p1 bar.warp.sync 0xff;",
        1,
        32,
        Error::DivergentWarp { .. }
    );
    breaks!(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%r3, %r4, %r5, %r6}, {%t, %t}, {%t}, {%r3, %r4, %r5, %r6};",
        1,
        16,
        Error::DivergentWarp { .. }
    );
    breaks!(
        "setp.lt.u32 %p1, %l, 16; @%p1 shfl.sync.idx.b32 %r3, %t, 20, 31, 0xffff;",
        1,
        32,
        Error::ShuffleSource { lane: 20, .. }
    );
}

#[test]
fn deadlocks() {
    breaks!("setp.eq.u32 %p1, %w, 0; @%p1 bar.sync 1, 64;", 1, 64, Error::Deadlock { .. });
    breaks!(
        "setp.eq.u32 %p1, %w, 0; @%p1 bar.sync 1, 64; @!%p1 bar.sync 2, 64;",
        1,
        64,
        Error::Deadlock { .. }
    );
    let mut short = config(1, 32);
    short.instruction_limit = 100_000;
    let e = run_with("again: bra again;", short).unwrap_err();
    assert!(matches!(e, Error::InstructionLimit { limit: 100_000, .. }), "{e}");
}

#[test]
fn traps() {
    breaks!("setp.eq.u32 %p1, %t, 5; @%p1 trap;", 1, 32, Error::Trap { ref site } if site.thread == [5, 0, 0]);
    breaks!("brkpt;", 1, 32, Error::Trap { .. });
}

#[test]
fn the_same_seed_gives_the_same_error() {
    let body = "xor.b32 %r3, %w, 1; setp.lt.u32 %p1, %w, 4; @%p1 st.shared.u32 [sm], %t;";
    for seed in 0..6 {
        let run = || run_with(body, config(3, 256).with_seed(seed)).unwrap_err();
        let first = run();
        for _ in 0..5 {
            let again = run();
            assert_eq!(first.site().unwrap().thread, again.site().unwrap().thread);
        }
    }
}
