//! What is refused before a kernel runs, and host access to device memory.

use ptxsim::{Arg, Device, DeviceConfig, Error, LaunchConfig, Module, Result};

fn module(target: u32, attributes: &str, shared: u32) -> Result<Module> {
    Module::parse(
        "m",
        &format!(
            ".version 8.4\n.target sm_{target}\n.address_size 64\n\
             .visible .entry k(.param .u64 p, .param .align 4 .b8 s[12])\n{attributes}\n{{\n\
             .shared .align 4 .b8 fixed[{shared}];\n.reg .b32 %r<2>;\nmov.u32 %r1, fixed;\nret;\n}}"
        ),
    )
}

fn args() -> Vec<Arg> {
    vec![Arg::from(0u64), Arg::bytes(&[0; 12])]
}

fn launch(m: &Module, cc: u32, config: LaunchConfig, args: &[Arg]) -> Result<()> {
    Device::new(DeviceConfig::new(cc)).launch(m, "k", config, args).map(|_| ())
}

#[test]
fn names_counts_and_sizes_of_arguments() {
    let m = module(75, "", 4).unwrap();
    let one = LaunchConfig::linear(1, 1);
    launch(&m, 75, one.clone(), &args()).unwrap();
    let e = Device::new(DeviceConfig::new(75)).launch(&m, "kk", one.clone(), &args()).unwrap_err();
    assert_eq!(e, Error::NoEntry { module: "m".into(), name: "kk".into(), known: "k".into() });
    let e = launch(&m, 75, one.clone(), &args()[..1]).unwrap_err();
    assert_eq!(e, Error::ParamCount { kernel: "k".into(), expected: 2, found: 1 });
    let e = launch(&m, 75, one, &[Arg::from(0u32), Arg::bytes(&[0; 12])]).unwrap_err();
    assert_eq!(e, Error::ParamSize { kernel: "k".into(), index: 0, expected: 8, found: 4 });
    let entry = m.entry("k").unwrap();
    assert_eq!((entry.params[1].offset, entry.params[1].size), (8, 12));
}

#[test]
fn shapes() {
    let m = module(75, ".maxntid 128, 1, 1\n.minnctapersm 2", 4).unwrap();
    let entry = m.entry("k").unwrap();
    assert_eq!(entry.max_threads, Some([128, 1, 1]));
    assert_eq!(entry.min_blocks_per_multiprocessor, Some(2));
    for (grid, block) in [
        ([1, 1, 1], [129, 1, 1]),
        ([0, 1, 1], [1, 1, 1]),
        ([1, 70_000, 1], [1, 1, 1]),
        ([1, 1, 1], [1, 1, 65]),
        ([1, 1, 1], [0, 1, 1]),
    ] {
        let e = launch(&m, 75, LaunchConfig::new(grid, block), &args()).unwrap_err();
        assert!(matches!(e, Error::LaunchShape { .. }), "{e}");
    }
    let free = module(75, "", 4).unwrap();
    let e = launch(&free, 75, LaunchConfig::new([1; 3], [64, 32, 1]), &args()).unwrap_err();
    assert!(matches!(e, Error::LaunchShape { found: 2048, limit: 1024, .. }), "{e}");
    let exact = module(75, ".reqntid 32, 2", 4).unwrap();
    launch(&exact, 75, LaunchConfig::new([1; 3], [32, 2, 1]), &args()).unwrap();
    let e = launch(&exact, 75, LaunchConfig::linear(1, 64), &args()).unwrap_err();
    assert!(matches!(e, Error::RequiredBlock { expected: [32, 2, 1], .. }), "{e}");
}

#[test]
fn shared_memory_limits_of_devices() {
    let m = module(75, "", 1024).unwrap();
    let dynamic = |bytes: u32, opt_in: bool| {
        let mut c = LaunchConfig::linear(1, 1).with_shared(bytes);
        c.allow_large_shared = opt_in;
        c
    };
    launch(&m, 75, dynamic(47 * 1024, false), &args()).unwrap();
    let e = launch(&m, 75, dynamic(47 * 1024 + 1, false), &args()).unwrap_err();
    assert!(matches!(e, Error::SharedMemory { limit: 49_152, fixed: 1024, .. }), "{e}");
    assert!(e.to_string().contains("opt-in"));
    for (cc, kb) in [(75, 64), (80, 163), (86, 99), (89, 99), (90, 227)] {
        launch(&m, cc, dynamic((kb - 1) * 1024, true), &args()).unwrap();
        let e = launch(&m, cc, dynamic((kb - 1) * 1024 + 1, true), &args()).unwrap_err();
        assert!(matches!(e, Error::SharedMemory { .. }), "{e}");
    }
    let big = module(75, "", 49_153).unwrap();
    let e = launch(&big, 90, dynamic(0, true), &args()).unwrap_err();
    assert!(matches!(e, Error::SharedMemory { .. }), "{e}");
}

#[test]
fn a_module_for_a_newer_card() {
    let m = module(86, "", 4).unwrap();
    let e = launch(&m, 80, LaunchConfig::linear(1, 1), &args()).unwrap_err();
    assert_eq!(e, Error::TargetTooNew { module: "m".into(), target: 86, device: 80 });
}

#[test]
fn instructions_that_nobody_knows_or_the_target_lacks() {
    let with = |line: &str| {
        let text = format!(
            ".version 8.4\n.target sm_75\n.address_size 64\n.entry k()\n{{\n.reg .b32 %r<9>; .reg .b64 %x<3>;\n{line}\nret;\n}}"
        );
        Module::parse("m", &text)?.entry("k").map(|_| ())
    };
    for line in [
        "frob.b32 %r1, %r2;",
        "add.q7 %r1, %r2, %r3;",
        "wgmma.fence.sync.aligned;",
        "add.s32 %r1, %r2;",
        "add.s32 %r1, %r2, %x1;",
        "mov.u32 %r1, %nothing;",
        "bra nowhere;",
        "ld.global.v3.u32 {%r1, %r2, %r3}, [%x1];",
        "call foo;",
        "tex.2d.v4.f32.f32 {%r1, %r2, %r3, %r4}, [%x1, {%r1, %r2}];",
    ] {
        let e = with(line).unwrap_err();
        assert!(
            matches!(e, Error::UnknownInstruction { line: 7, .. } | Error::Parse { line: 7, .. }),
            "{line}: {e}"
        );
    }
    for (line, need) in [
        ("cp.async.commit_group;", 80),
        ("redux.sync.add.u32 %r1, %r2, -1;", 80),
        ("cvt.rn.bf16x2.f32 %r1, %r2, %r3;", 80),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r1,%r2,%r3,%r4};",
            80,
        ),
    ] {
        let e = with(line).unwrap_err();
        assert!(
            matches!(e, Error::InstructionNotOnTarget { need: n, have: 75, line: 7, .. } if n == need),
            "{line}: {e}"
        );
    }
    with("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r1}, {%r1,%r2,%r3,%r4};").unwrap();
}

/// What the simulator does not know is its entry's affair alone.
#[test]
fn entries_fail_alone() {
    let text = |middle: &str| {
        format!(
            ".version 8.4\n.target sm_75\n.address_size 64\n.func f() {{ ret; }}\n\
             .entry before() {{ ret; }}\n.entry middle() {{ .reg .b32 %r<3>;\n{middle}\nret; }}\n\
             .entry after() {{ ret; }}"
        )
    };
    for (middle, known) in [
        ("frob.b32 %r1, %r2;", "UnknownInstruction"),
        ("cp.async.commit_group;", "InstructionNotOnTarget"),
        (".frobnicate 3, 4;", "UnknownDirective"),
        (".reg .b48 %x;", "Parse"),
        ("call g;", "UnknownInstruction"),
    ] {
        let m = Module::parse("m", &text(middle)).unwrap();
        let names = m.entries().into_iter().map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(names, ["before", "after"]);
        let refused = m.refused();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, "middle");
        let e = m.entry("middle").unwrap_err();
        assert_eq!(refused[0].1, e);
        assert!(format!("{e:?}").starts_with(known) && e.to_string().contains("m:7"), "{e:?}");
        let device = Device::new(DeviceConfig::new(75));
        let one = LaunchConfig::linear(1, 1);
        assert_eq!(device.launch(&m, "middle", one.clone(), &[]).unwrap_err(), e);
        device.launch(&m, "after", one, &[]).unwrap();
    }
    assert!(Module::parse("m", &text("call f;")).unwrap().refused().is_empty());
    // What is not PTX at all is the module's.
    for middle in ["mov.u32 %r1, %r2", "}", "mov.u32 %r1, #;"] {
        assert!(Module::parse("m", &text(middle)).is_err(), "{middle}");
    }
}

#[test]
fn texts_that_are_no_modules() {
    for text in [
        "",
        ".version 8.4",
        ".version 8.4\n.target sm_75\n.entry k() {",
        ".version x\n.target sm_75",
        ".version 8.4\n.target sm_75\n.address_size 32",
        ".version 8.4\n.target sm_75\n.entry k(.param .u64 p) { .reg .b32 %r1; mov.u32 %r1, 1 }",
    ] {
        assert!(matches!(Module::parse("m", text), Err(Error::Parse { .. })), "{text}");
    }
}

#[test]
fn damaged_texts_are_errors_not_panics() {
    let path = format!("{}/tests/fixtures/mixed.ptx", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let whole = |text: &str| Module::parse("m", text).is_ok_and(|m| m.refused().is_empty());
    // Cut anywhere, and with any one line or byte gone.
    for cut in (0..text.len()).step_by(97) {
        // What is left is whole only between two kernels.
        let whole = Module::parse("m", &text[..cut]).is_ok();
        let open = text[..cut].matches('{').count() - text[..cut].matches('}').count();
        assert!(!(whole && open > 0), "cut at {cut}");
    }
    let lines: Vec<&str> = text.lines().collect();
    let mut refused = 0;
    for gone in (0..lines.len()).step_by(3) {
        let left: Vec<&str> =
            lines.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, l)| *l).collect();
        refused += usize::from(!whole(&left.join("\n")));
    }
    assert!(refused > 0);
    for at in (0..text.len()).step_by(53) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = b"x9;{}[]%.,"[at % 10];
        refused += usize::from(!whole(&String::from_utf8_lossy(&bytes)));
    }
    assert!(refused > 100);
    let e = Module::parse("m", &("a{".repeat(100_000))).unwrap_err();
    assert!(matches!(e, Error::UnknownDirective { .. }), "{e}");
}

#[test]
fn host_access_is_checked() {
    let device = Device::new(DeviceConfig { memory_bytes: 1000, ..DeviceConfig::new(80) });
    assert_eq!(device.alloc(1001), Err(Error::OutOfMemory { need: 1001, have: 1000 }));
    let p = device.alloc(13).unwrap();
    assert_eq!(device.used_bytes(), 13);
    assert_eq!(device.alloc(990), Err(Error::OutOfMemory { need: 990, have: 987 }));
    device.write(p + 3, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).unwrap();
    let mut out = [0; 10];
    device.read(p + 3, &mut out).unwrap();
    assert_eq!(out, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert!(matches!(device.write(p + 4, &[0; 10]), Err(Error::HostAccess { .. })));
    assert!(matches!(device.read(p, &mut out), Err(Error::HostAccess { .. })));
    assert_eq!(device.read_any(p, &mut out).unwrap(), Some(0));
    device.memset(p, 9, 13).unwrap();
    let mut all = [0; 13];
    device.read(p, &mut all).unwrap();
    assert_eq!(all, [9; 13]);
    let q = device.alloc(8).unwrap();
    device.copy(q + 1, p + 2, 5).unwrap();
    let mut some = [0; 8];
    assert_eq!(device.read_any(q, &mut some).unwrap(), Some(0));
    assert_eq!(some[1..6], [9; 5]);
    assert!(device.read(q + 6, &mut some[..1]).is_err());
    device.free(p).unwrap();
    assert!(device.free(p).is_err());
    assert!(device.write(p, &[0]).is_err());
    let empty = device.alloc(0).unwrap();
    device.write(empty, &[]).unwrap();
    assert!(device.write(empty, &[1]).is_err());
}

#[test]
fn devices_have_addresses_of_their_own() {
    let config = DeviceConfig::new(80);
    let (first, second) = (0x2000_0000_0000, 0x2200_0000_0000);
    let a = Device::with_addresses(config.clone(), first, second);
    let b = Device::with_addresses(config, second, u64::MAX);
    let (of_a, of_b) = (a.alloc(100).unwrap(), b.alloc(100).unwrap());
    assert_eq!((of_a, of_b), (first, second));
    assert!(b.write(of_a, &[1]).is_err() && a.write(of_b, &[1]).is_err());
    assert_eq!(a.holding(of_a + 99), Some((of_a, 100)));
    assert_eq!(a.holding(of_a + 100), None);
    // From one to the other, with what was never written.
    a.write(of_a, &[7; 10]).unwrap();
    b.copy_from(of_b, &a, of_a, 20).unwrap();
    let mut out = [0; 20];
    assert_eq!(b.read_any(of_b, &mut out), Ok(Some(10)));
    assert_eq!(out[..10], [7; 10]);
    // A range that is used up.
    let small = Device::with_addresses(DeviceConfig::new(80), first, first + (4 << 20));
    small.alloc(1 << 20).unwrap();
    assert!(matches!(small.alloc(2 << 20), Err(Error::OutOfMemory { .. })));
    small.alloc(1 << 10).unwrap();
}

#[test]
fn allocations_at_chosen_addresses() {
    let d = Device::new(DeviceConfig::new(80));
    let at = d.reserve(64).unwrap();
    assert!(d.write(at, &[1]).is_err());
    d.alloc_at(at, 64, "late").unwrap();
    d.write(at, &[1]).unwrap();
    let refused = |at, bytes, why: &str| {
        let said = d.alloc_at(at, bytes, "").unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    };
    refused(at, 64, "another allocation");
    refused(at + 48, 64, "another allocation");
    refused(at - 16, 32, "another allocation");
    refused(at + 8, 4, "multiple of 16");
    refused(0x0100_0000_0000, 64, "shared and local memory");
    refused(u64::MAX - 15, 64, "the end of all addresses");
    assert!(matches!(d.alloc_at(0xa000_0000_0000, 1 << 50, ""), Err(Error::OutOfMemory { .. })));
    d.alloc_at(0x4000_0000_0000, 64, "").unwrap();
    d.free(at).unwrap();
    d.alloc_at(at, 64, "again").unwrap();
    assert_eq!(d.used_bytes(), 128);
}

#[test]
fn variables_are_freed_with_their_module() {
    let text = ".version 7.0\n.target sm_75\n.address_size 64\n.visible .global .align 4 .u32 v[4] = {1, 2, 3, 4};\n\
                .visible .entry k()\n{\nret;\n}";
    let m = Module::parse("m", text).unwrap();
    let d = Device::new(DeviceConfig::new(80));
    let (at, bytes) = d.variable(&m, "v").unwrap();
    assert_eq!((d.used_bytes(), bytes), (16, 16));
    d.unload(&m);
    assert_eq!(d.used_bytes(), 0);
    assert!(d.write(at, &[1]).is_err());
    d.unload(&m);
    // Launched again, it has them anew.
    d.launch(&m, "k", LaunchConfig::linear(1, 1), &[]).unwrap();
    assert_ne!(d.variable(&m, "v").unwrap().0, at);
}

#[test]
fn a_launch_is_checked_without_running() {
    let m = module(75, "", 4).unwrap();
    let d = Device::new(DeviceConfig::new(75));
    d.check_launch(&m, "k", &LaunchConfig::linear(1, 1), &args()).unwrap();
    let shape = d.check_launch(&m, "k", &LaunchConfig::linear(0, 1), &args());
    assert!(matches!(shape, Err(Error::LaunchShape { .. })));
    let count = d.check_launch(&m, "k", &LaunchConfig::linear(1, 1), &[]);
    assert!(matches!(count, Err(Error::ParamCount { .. })));
}
