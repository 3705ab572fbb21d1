//! Counters against counts done by hand.

use ptxsim::{Arg, Class, Counters, Device, DeviceConfig, LaunchConfig, Module};

fn run(body: &str, blocks: u32, threads: u32) -> Counters {
    let text = format!(
        "
.version 8.4
.target sm_80
.address_size 64
.file 1 \"k.cu\"
.visible .entry k(.param .u64 p)
{{
    .shared .align 16 .b8 sm[8192];
    .reg .pred %p<4>; .reg .b32 %r<16>; .reg .b64 %x<8>; .reg .b32 %t;
    mov.u32 %t, %tid.x; ld.param.u64 %x1, [p];
{body}
    ret;
}}"
    );
    let module = Module::parse("m", &text).unwrap();
    let device = Device::new(DeviceConfig::new(80));
    let p = device.alloc(1 << 16).unwrap();
    device.memset(p, 0, 1 << 16).unwrap();
    device.launch(&module, "k", LaunchConfig::linear(blocks, threads), &[Arg::from(p)]).unwrap()
}

#[test]
fn classes_warps_and_lanes() {
    let c = run(
        "add.u32 %r1, %t, 1; fma.rn.f32 %r2, %r1, %r1, %r1; ex2.approx.f32 %r3, %r2; setp.lt.u32 %p1, %t, 3; @%p1 add.u32 %r1, %r1, 1;",
        3,
        40,
    );
    assert_eq!((c.blocks(), c.warps(), c.kernel()), (3, 6, "k"));
    let t = c.total();
    assert_eq!((t.class(Class::Int).warps, t.class(Class::Int).lanes), (12, 3 * (40 + 3)));
    assert_eq!((t.class(Class::Fp32).warps, t.class(Class::Sfu).lanes), (6, 120));
    assert_eq!((t.class(Class::Move).warps, t.class(Class::Control).warps), (6, 6));
    assert_eq!(t.total.warps, c.instructions().iter().map(|i| i.counts.warps).sum::<u64>());
}

#[test]
fn sectors_needed_and_asked() {
    let at = |step: u32, offset: u32| {
        let c = run(
            &format!(
                "mul.wide.u32 %x2, %t, {step}; add.s64 %x2, %x2, %x1; ld.global.u32 %r1, [%x2+{offset}];"
            ),
            1,
            32,
        );
        let t = c.total().total;
        (t.sectors, t.sectors_needed, t.global_bytes)
    };
    assert_eq!(at(4, 0), (4, 4, 128));
    assert_eq!(at(4, 4), (5, 4, 128));
    assert_eq!(at(8, 0), (8, 4, 128));
    assert_eq!(at(64, 0), (32, 4, 128));
    assert_eq!(at(0, 0), (1, 1, 128));
    let c = run(
        "mul.wide.u32 %x2, %t, 16; add.s64 %x2, %x2, %x1; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%x2];",
        2,
        64,
    );
    assert_eq!(c.total().class(Class::LoadGlobal).sectors, 4 * 16);
    assert_eq!(c.total().sector_efficiency(), Some(1.0));
}

#[test]
fn bank_conflicts() {
    let store = |step: u32| {
        let c = run(
            &format!(
                "mul.lo.u32 %r1, %t, {step}; mov.u32 %r2, sm; add.u32 %r1, %r1, %r2; st.shared.u32 [%r1], %t;"
            ),
            1,
            32,
        );
        let t = c.total().total;
        (t.wavefronts, t.wavefronts_ideal, t.shared_bytes)
    };
    assert_eq!(store(4), (1, 1, 128));
    assert_eq!(store(8), (2, 1, 128));
    assert_eq!(store(128), (32, 1, 128));
    assert_eq!(store(132), (1, 1, 128));
    // ldmatrix: rows of 64 bytes lie on two groups of banks each, 128-byte rows on one.
    let matrix = |stride: u32| {
        let c = run(
            &format!(
                "mov.u32 %r2, sm; mul.lo.u32 %r1, %t, {stride}; add.u32 %r1, %r1, %r2;
            st.shared.v4.u32 [%r1], {{%t, %t, %t, %t}}; bar.warp.sync -1;
            ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r1];"
            ),
            1,
            32,
        );
        let n = c.total().class(Class::LdMatrix);
        (n.wavefronts, n.wavefronts_ideal, n.bank_conflicts())
    };
    assert_eq!(matrix(16), (4, 4, 0));
    assert_eq!(matrix(128), (32, 4, 28));
    assert_eq!(matrix(64), (16, 4, 12));
    assert_eq!(matrix(144), (4, 4, 0));
}

#[test]
fn loops_and_lines() {
    let c = run("
    mov.u32 %r1, 0;
outer:
    mov.u32 %r2, 0;
inner:
    .loc 1 77 5
    mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r4, %r5, %r6, %r7}, {%t, %t, %t, %t}, {%t, %t}, {%r4, %r5, %r6, %r7};
    add.u32 %r2, %r2, 1;
    setp.lt.u32 %p1, %r2, 5;
    @%p1 bra inner;
    add.u32 %r1, %r1, 1;
    setp.lt.u32 %p1, %r1, 3;
    @%p1 bra outer;", 2, 64);
    let loops = c.loops();
    assert_eq!(loops.len(), 2);
    assert_eq!(
        (loops[0].depth, loops[0].innermost, loops[1].depth, loops[1].innermost),
        (0, false, 1, true)
    );
    // Four warps, three rounds of five.
    assert_eq!((loops[0].iterations, loops[1].iterations), (12, 60));
    let main = c.main_loop().unwrap();
    assert_eq!(main.lines, loops[1].lines);
    assert_eq!(main.summary.class(Class::Mma).mma_flops, 60 * 2 * 16 * 8 * 16);
    assert_eq!(main.summary.others_per_mma(), Some(3.0));
    let lines = c.lines(main.lines.0, main.lines.1);
    assert_eq!(lines, main.summary);
    let mma = c.instructions().into_iter().find(|i| i.class == Class::Mma).unwrap();
    assert_eq!(mma.source, Some(("k.cu".to_string(), 77)));
    assert!(mma.text.starts_with("mma.sync"));
}
