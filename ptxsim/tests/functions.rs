//! Functions and calls: as NVRTC 12.4 and nvcc 13 compile them (`fixtures/functions.cu`), and each
//! rule by hand.

use ptxsim::{Arg, Device, DeviceConfig, Error, LaunchConfig, Module, Result, Space};

fn compiled() -> [Module; 2] {
    ["functions.ptx", "functions_nvcc13.ptx"].map(|name| {
        let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let module = Module::parse(name, &text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(module.refused(), []);
        module
    })
}

fn read<const N: usize>(device: &Device, at: u64, n: usize) -> Vec<[u8; N]> {
    let mut bytes = vec![0; N * n];
    device.read(at, &mut bytes).unwrap();
    bytes.as_chunks::<N>().0.to_vec()
}

#[test]
fn recursion_structs_tables_and_virtual_functions() {
    for (module, threads) in compiled().iter().flat_map(|m| [1, 31, 64, 100].map(|n| (m, n))) {
        for seed in 0..4 {
            let device = Device::new(DeviceConfig::new(80));
            let out = device.alloc(16 * threads as u64).unwrap();
            let config = LaunchConfig::linear(1, threads as u32).with_seed(seed);
            device
                .launch(module, "calls", config, &[Arg::from(out)])
                .unwrap_or_else(|e| panic!("{e}"));
            let values: Vec<i32> =
                read(&device, out, 4 * threads).into_iter().map(i32::from_le_bytes).collect();
            for (t, got) in values.chunks(4).enumerate() {
                let t = t as i32;
                let factorial = |n: i32| (2..=n).product::<i32>();
                let squares = |n: i32| (0..n).map(|i| i * i).sum::<i32>();
                let mut first = factorial(t % 10) + (1..=t % 8).map(squares).sum::<i32>();
                if t % 3 == 0 {
                    first += factorial(t % 5);
                }
                let shifted = 10 * t + t % 5 + i32::from(t as i8 + 1) + 2 * t;
                let of_table = if t & 1 == 0 { t + 1 } else { t * 3 };
                let area = if t & 2 != 0 { t * t } else { 3 * t * t };
                assert_eq!(got, [first, shifted, of_table, area], "thread {t}, seed {seed}");
            }
        }
    }
}

#[test]
fn the_long_way_of_a_sine() {
    for module in compiled() {
        let device = Device::new(DeviceConfig::new(80));
        let x = [0.5, 1e5, 1e10, -1e300, 3e22, f64::INFINITY, 0.0, -0.1];
        let at = device.alloc(8 * x.len() as u64).unwrap();
        device
            .write(at, &x.iter().flat_map(|v: &f64| v.to_le_bytes()).collect::<Vec<_>>())
            .unwrap();
        device.launch(&module, "sines", LaunchConfig::linear(1, 8), &[Arg::from(at)]).unwrap();
        for (bytes, x) in read::<8>(&device, at, x.len()).into_iter().zip(x) {
            let (got, want) = (f64::from_le_bytes(bytes), x.sin());
            // CUDA's sine of a double is off by 2 units in the last place at most, the host's by 1.
            let near = (got - want).abs() <= 3.0 * f64::EPSILON * want.abs();
            assert!(near || (got.is_nan() && want.is_nan()), "sin {x}: {got}, expected {want}");
        }
    }
}

#[test]
fn printed_text_comes_in_the_order_of_threads_and_blocks() {
    for module in compiled() {
        let device = Device::new(DeviceConfig::new(80));
        let args = |n: i32| [Arg::from(0u64), Arg::from(n)];
        device.launch(&module, "prints", LaunchConfig::linear(1, 40), &args(2)).unwrap();
        let text = String::from_utf8(device.take_printed()).unwrap();
        let expected = "thread 0 of     2: 0.00  |hi|a|0|0x1234\n\
                    thread 1 of     2: 1.50  |hi|b|-5000000000|0x1234\nplain 100%\n";
        assert_eq!(text, expected);
        assert_eq!(device.take_printed(), b"");
        // Each block prints for itself, and two launches one after the other.
        for blocks in [3, 2] {
            device.launch(&module, "prints", LaunchConfig::linear(blocks, 1), &args(0)).unwrap();
        }
        assert_eq!(device.take_printed(), b"plain 100%\n".repeat(5));
    }
}

#[test]
fn a_failed_assertion_says_what_and_where() {
    for module in compiled() {
        let device = Device::new(DeviceConfig::new(80));
        let args = [Arg::from(0u64), Arg::from(1)];
        let e = device.launch(&module, "prints", LaunchConfig::linear(2, 64), &args).unwrap_err();
        let Error::Assertion { message, file, line, function, site } = &e else { panic!("{e}") };
        assert_eq!((message.as_str(), *line), ("t < 40", 32));
        assert!(file.ends_with("functions.cu") && function.contains("prints"), "{file} {function}");
        assert_eq!((site.thread, site.block), ([40, 0, 0], [0, 0, 0]));
        assert_eq!(site.source.as_ref().map(|s| s.1), Some(32));
        // What was printed before is not lost, and what later blocks print does not count.
        let text = String::from_utf8(device.take_printed()).unwrap();
        assert!(text.starts_with("thread 0 of") && text.matches("plain").count() == 1, "{text}");
    }
}

/// A module with functions and an entry that leaves a 32-bit result a thread.
fn run(functions: &str, body: &str, threads: u32) -> Result<Vec<u32>> {
    let text = format!(
        ".version 8.4\n.target sm_80\n.address_size 64\n{functions}\n\
         .visible .entry k(.param .u64 out)\n{{\n\
         .reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 %r<16>; .reg .b64 %x<8>; .reg .b32 %t, %d;\n\
         mov.u32 %t, %tid.x; mov.u32 %d, 0;\n{body}\n\
         ld.param.u64 %x1, [out]; mul.wide.u32 %x2, %t, 4; add.s64 %x1, %x1, %x2;\n\
         st.global.u32 [%x1], %d;\nret;\n}}"
    );
    let module = Module::parse("m", &text)?;
    module.entry("k")?;
    let mut first = None;
    for seed in 0..4 {
        let device = Device::new(DeviceConfig::new(80));
        let out = device.alloc(4 * u64::from(threads))?;
        device.memset(out, 0xee, 4 * u64::from(threads))?;
        let config = LaunchConfig::linear(1, threads).with_seed(seed);
        device.launch(&module, "k", config, &[Arg::from(out)])?;
        let values: Vec<u32> =
            read(&device, out, threads as usize).into_iter().map(u32::from_le_bytes).collect();
        assert_eq!(first.get_or_insert_with(|| values.clone()), &values, "seed {seed}");
    }
    Ok(first.unwrap())
}

/// n + f(n - 1), f(0) = 100, with what has to outlive the call in registers of every kind.
const SUM: &str = "
.func (.reg .u32 out) f(.reg .u32 n)
{
    .reg .pred %p<3>; .reg .u32 %r<4>; .reg .u64 %x<3>;
    setp.eq.u32 %p1, n, 0;
    @%p1 bra last;
    and.b32 %r1, n, 1; setp.ne.u32 %p2, %r1, 0;
    cvt.u64.u32 %x1, n;
    sub.u32 %r2, n, 1;
    call (%r3), f, (%r2);
    cvt.u32.u64 %r1, %x1;
    add.u32 out, %r3, %r1;
    @%p2 add.u32 out, out, 1000;
    ret;
last:
    mov.u32 out, 100;
    ret;
}";

#[test]
fn registers_as_parameters_outlive_calls_of_the_same_function() {
    let got = run(SUM, "call (%d), f, (%t);", 40).unwrap();
    for (t, got) in got.into_iter().enumerate() {
        let t = t as u32;
        assert_eq!(got, 100 + t * (t + 1) / 2 + 1000 * t.div_ceil(2), "thread {t}");
    }
    // Literals are passed, results dropped, and calls have guards.
    let got =
        run(SUM, "setp.lt.u32 %p1, %t, 3; @%p1 call (%d), f, (4); @!%p1 call (_), f, (1);", 5);
    assert_eq!(got.unwrap(), [2110, 2110, 2110, 0, 0]);
}

#[test]
fn registers_and_memory_pass_to_each_other() {
    let f = "
.func (.param .b64 out) f(.param .b32 a, .reg .b32 b, .param .align 4 .b8 s[8])
{
    .reg .b32 %r<4>; .reg .b64 %x;
    ld.param.u32 %r1, [a]; ld.param.u32 %r2, [s+4];
    add.u32 %r1, %r1, b; add.u32 %r1, %r1, %r2; cvt.u64.u32 %x, %r1;
    st.param.u64 [out], %x; ret;
}";
    let body = "{ .param .b32 p; .param .b32 q; .param .align 4 .b8 r[8]; .param .b64 o;
        st.param.u32 [p], 5; st.param.u32 [q], %t; st.param.u32 [r+4], 70;
        call (o), f, (p, q, r); ld.param.u64 %x1, [o]; cvt.u32.u64 %d, %x1;
        call (%x2), f, (%d, 100, r); cvt.u32.u64 %r1, %x2; add.u32 %d, %d, %r1; }";
    let want = |t: u32| (75 + t) + (75 + t + 100 + 70);
    assert_eq!(run(f, body, 3).unwrap(), [want(0), want(1), want(2)]);
}

#[test]
fn what_a_call_does_not_pass_is_read_by_nobody() {
    let f = ".func (.param .b32 o) f(.param .b32 a, .param .align 4 .b8 s[8]) {
        .reg .b32 %r; ld.param.u32 %r, [s+4]; st.param.u32 [o], %r; ret; }
        .func (.param .b32 o) g() { ret; }";
    let frame = "{ .param .b32 p; .param .align 4 .b8 r[8]; .param .b32 o;";
    let unwritten = |e: Error| matches!(e, Error::Uninitialised { space: Space::Local, .. });
    // Half of the struct is not written: that alone is no error, reading it is.
    let call = "call (o), f, (p, r); ld.param.u32 %d, [o]; }";
    assert!(unwritten(run(f, &format!("{frame} st.param.u32 [r], 1; {call}"), 1).unwrap_err()));
    assert_eq!(run(f, &format!("{frame} st.param.u32 [r+4], 1; {call}"), 1).unwrap(), [1]);
    // Nor did g write its result.
    let e = run(f, &format!("{frame} call (o), g; ld.param.u32 %d, [o]; }}"), 1).unwrap_err();
    assert!(unwritten(e));
    // A frame is nobody's again afterwards: what an earlier call left there does not count.
    let f = ".func (.param .b32 o) f(.param .b32 w) {
        .local .align 4 .b8 a[4]; .reg .b32 %r; .reg .pred %p;
        ld.param.u32 %r, [w]; setp.ne.u32 %p, %r, 0; @%p st.local.u32 [a], 7;
        ld.local.u32 %r, [a]; st.param.u32 [o], %r; ret; }";
    run(f, "call (%d), f, (1);", 1).unwrap();
    assert!(unwritten(run(f, "call (%d), f, (1); call (%d), f, (0);", 1).unwrap_err()));
}

#[test]
fn frames_end_where_they_end() {
    // The address of a local variable that is gone.
    let f = ".func (.param .b64 o) f() { .local .align 4 .b8 a[4]; .reg .b64 %x; .reg .b32 %r;
        mov.u64 %x, a; mov.u32 %r, 9; st.local.u32 [a], %r; st.param.u64 [o], %x; ret; }";
    let e = run(f, "call (%x1), f; ld.local.u32 %d, [%x1];", 1).unwrap_err();
    assert!(matches!(e, Error::OutOfBounds { space: Space::Local, .. }), "{e}");
    // Inside a callee it is there: by 64 bits and generic, and by 32.
    let f = ".func (.param .b32 o) g(.param .b64 p) { .reg .b64 %x; .reg .b32 %r;
        ld.param.u64 %x, [p]; ld.u32 %r, [%x+4]; st.param.u32 [o], %r; ret; }
        .func (.param .b32 o) f() { .local .align 8 .b8 a[8]; .reg .b64 %x; .reg .b32 %r<4>;
        mov.u32 %r1, a; add.u32 %r1, %r1, 4; mov.u32 %r2, 9; st.local.u32 [%r1], %r2;
        mov.u64 %x, a; cvta.local.u64 %x, %x;
        call (%r3), g, (%x); st.param.u32 [o], %r3; ret; }";
    assert_eq!(run(f, "call (%d), f;", 3).unwrap(), [9; 3]);
    let e = run(
        ".func f() { .local .b8 a[4]; .reg .b32 %r; ld.local.u32 %r, [a+64]; ret; }",
        "call f;",
        1,
    );
    assert!(matches!(e.unwrap_err(), Error::OutOfBounds { space: Space::Local, .. }));
    // Without an end.
    let e = run(".func f() { call f; ret; }", "call f;", 2).unwrap_err();
    assert!(matches!(e, Error::StackOverflow { limit: 524_288, .. }), "{e}");
    let deep = ".func f(.param .b32 n) { .local .b8 a[4096]; .reg .b32 %r; .reg .pred %p;
        ld.param.u32 %r, [n]; setp.eq.u32 %p, %r, 0; @%p ret; sub.u32 %r, %r, 1; call f, (%r); ret; }";
    run(deep, "call f, (100);", 1).unwrap();
    assert!(matches!(run(deep, "call f, (130);", 1).unwrap_err(), Error::StackOverflow { .. }));
}

#[test]
fn calls_by_address_are_checked() {
    let f = ".func (.param .b32 o) f(.param .b32 a) { .reg .b32 %r; ld.param.u32 %r, [a];
        add.u32 %r, %r, 1; st.param.u32 [o], %r; ret; }
        .func (.param .b32 o) g(.param .b32 a) { .reg .b32 %r; ld.param.u32 %r, [a];
        shl.b32 %r, %r, 4; st.param.u32 [o], %r; ret; }
        .func (.param .b32 o) h(.param .b64 a) { .reg .b32 %r; mov.u32 %r, 1; st.param.u32 [o], %r; ret; }
        .func broken() { frob.b32 %r; ret; }
        .global .align 8 .u64 table[4] = { f, g, generic(table)+8, 0 };";
    let proto = "proto: .callprototype (.param .b32 _) _ (.param .b32 _);";
    let by = |address: &str| {
        let body = format!("{proto} {address} call (%d), %x3, (%t), proto;");
        run(f, &body, 33)
    };
    assert_eq!(by("mov.u64 %x3, f;").unwrap()[32], 33);
    // Each lane its own function, and one of them through a pointer into the table.
    let of_lane = "and.b32 %r1, %t, 1; mul.wide.u32 %x3, %r1, 8; mov.u64 %x4, table;
        add.s64 %x3, %x3, %x4; ld.global.u64 %x3, [%x3];";
    let want: Vec<u32> = (0..33).map(|t| if t & 1 == 0 { t + 1 } else { t << 4 }).collect();
    assert_eq!(by(of_lane).unwrap(), want);
    let pointed = "ld.global.u64 %x3, [table+16]; ld.global.u64 %x3, [%x3];";
    assert_eq!(by(pointed).unwrap()[2], 32);
    for (address, why) in [
        ("mov.u64 %x3, 0;", "no function at 0x0"),
        ("mov.u64 %x3, f; add.s64 %x3, %x3, 8;", "no function at"),
        ("mov.u64 %x3, h;", "`h` takes and gives other sizes"),
        ("mov.u64 %x3, broken;", "no function at"),
    ] {
        let e = by(address).unwrap_err();
        assert!(matches!(&e, Error::BadOperand { detail, .. } if detail.contains(why)), "{e}");
    }
    let e = run(f, "mov.u64 %x3, f; call (%d), %x3, (%t);", 1).unwrap_err();
    assert!(matches!(e, Error::UnknownInstruction { .. }), "{e}");
    // By name the sizes are known before anything runs.
    for call in [
        "call (%d), f, (%x1);",
        "call f, (%t);",
        "call (%d), f;",
        "{ .param .b64 p; st.param.u64 [p], %x1; call (%d), f, (p); }",
        "{ .param .b8 o[8]; call (o), f, (%t); }",
        "call nothing;",
        "call broken;",
    ] {
        let e = run(f, call, 1).unwrap_err();
        assert!(matches!(e, Error::UnknownInstruction { .. }), "{call}: {e}");
    }
}

#[test]
fn lanes_meet_again_after_a_call() {
    // Odd lanes call, some of them twice as deep: afterwards all shuffle together.
    let body = "and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 1; @%p1 call (%d), f, (%t);
        mov.u32 %r2, %d; shfl.sync.bfly.b32 %d, %r2, 1, 31, -1;";
    let got = run(SUM, body, 32).unwrap();
    let sum = |t: u32| 100 + t * (t + 1) / 2 + 1000 * t.div_ceil(2);
    let want: Vec<u32> = (0..32).map(|t| if t & 1 == 0 { sum(t + 1) } else { 0 }).collect();
    assert_eq!(got, want);
    // They meet at a shuffle of all, as deep as each of them is in the function, and part again.
    let deep = ".func (.reg .u32 o) f(.reg .u32 n, .reg .u32 v) { .reg .pred %p; .reg .u32 %r;
        setp.eq.u32 %p, n, 0; @%p bra last; sub.u32 %r, n, 1; call (%r), f, (%r, v);
        add.u32 o, %r, 1000; ret;
        last: shfl.sync.bfly.b32 o, v, 1, 31, -1; ret; }";
    let got = run(deep, "and.b32 %r1, %t, 3; call (%d), f, (%r1, %t);", 32).unwrap();
    let want: Vec<u32> = (0..32).map(|t| (t ^ 1) + 1000 * (t & 3)).collect();
    assert_eq!(got, want);
    let e = run(
        deep,
        "and.b32 %r1, %t, 3; setp.ne.u32 %p1, %t, 7; @%p1 call (%d), f, (%r1, %t); bar.warp.sync -1;",
        32,
    );
    assert!(matches!(e.unwrap_err(), Error::DivergentWarp { .. }));
    // A lane that ends inside a function ends.
    let f = ".func f(.reg .u32 t) { .reg .pred %p; setp.gt.u32 %p, t, 2; @%p exit; ret; }";
    assert_eq!(run(f, "call f, (%t); mov.u32 %d, 5;", 4).unwrap()[..3], [5; 3]);
    assert_eq!(run(f, "call f, (%t); mov.u32 %d, 5;", 4).unwrap()[3], 0xeeee_eeee);
}

#[test]
fn the_checks_reach_into_functions() {
    let shared = ".shared .align 4 .b8 sm[512];";
    let f = |middle: &str| {
        format!(
            "{shared} .func (.param .b32 o) f(.param .b32 t) {{ .reg .b32 %r<8>; .reg .b64 %x<4>; .reg .pred %p;
            mov.u32 %r2, sm; ld.param.u32 %r1, [t]; shl.b32 %r3, %r1, 2; add.u32 %r3, %r3, %r2;
            st.shared.u32 [%r3], %r1; {middle}
            xor.b32 %r4, %r1, 63; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r2;
            ld.shared.u32 %r5, [%r4]; st.param.u32 [o], %r5; ret; }}"
        )
    };
    let call = "call (%d), f, (%t);";
    assert_eq!(run(&f("bar.sync 0;"), call, 64).unwrap()[3], 60);
    let e = run(&f(""), call, 64).unwrap_err();
    assert!(matches!(e, Error::SharedRace { .. } | Error::Uninitialised { .. }), "{e}");
    let parted = ".func f(.reg .u32 t) { .reg .pred %p; setp.lt.u32 %p, t, 20;
        @%p bar.sync 0; @!%p bar.sync 0; ret; }";
    let e = run(parted, "call f, (%t);", 64).unwrap_err();
    assert!(matches!(e, Error::DivergentBarrier { .. }), "{e}");
    let e = run(&f("mov.u64 %x1, 16; st.global.u32 [%x1], %r1;"), call, 64).unwrap_err();
    assert!(
        matches!(&e, Error::OutOfBounds { site, .. } if site.kernel == "k" && site.instruction.contains("st.global")),
        "{e}"
    );
    let e = run(".func f() .noreturn { ret; }", "call f;", 1).unwrap_err();
    assert!(matches!(&e, Error::BadOperand { detail, .. } if detail.contains("must not")), "{e}");
    run(".func f() .noreturn { exit; }", "call f;", 1).unwrap();
}

#[test]
fn functions_are_declared_before_they_are_defined() {
    let f = ".func (.param .b32 o) f(.param .b32 a);
        .func (.param .b32 o) g() { .reg .b32 %r; call (%r), f, (6); st.param.u32 [o], %r; ret; }
        .func (.param .b32 o) f(.param .b32 a) { .reg .b32 %r; ld.param.u32 %r, [a]; st.param.u32 [o], %r; ret; }
        .func (.param .b32 o) f(.param .b32 a);";
    assert_eq!(run(f, "call (%d), g;", 1).unwrap(), [6]);
    let e = run(".extern .func f();", "call f;", 1).unwrap_err();
    assert!(e.to_string().contains("`f` is defined elsewhere"), "{e}");
}
