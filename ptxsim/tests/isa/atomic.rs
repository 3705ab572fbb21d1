//! `atom` and `red`.

use crate::harness::*;
use ptxsim::{Arg, Device, DeviceConfig, LaunchConfig, Module};

/// Runs `op` by 64 threads of 4 blocks on one 8-byte cell, each thread with its global index.
fn cell(op: &str, start: u64) -> u64 {
    let text = format!(
        "
.version 8.4
.target sm_80
.address_size 64
.visible .entry k(.param .u64 at)
{{
    .reg .b32 %r<6>; .reg .b64 %x<6>; .reg .f64 %d<3>;
    ld.param.u64 %x1, [at];
    mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r1, %r2, 64, %r1;
    cvt.u64.u32 %x2, %r1;
    cvt.rn.f32.u32 %r3, %r1;
    {op}
    ret;
}}"
    );
    let module = Module::parse("m", &text).unwrap();
    let device = Device::new(DeviceConfig::new(80));
    let at = device.alloc(8).unwrap();
    device.write(at, &start.to_le_bytes()).unwrap();
    device.launch(&module, "k", LaunchConfig::linear(4, 64), &[Arg::from(at)]).unwrap();
    let mut out = [0; 8];
    device.read(at, &mut out).unwrap();
    u64::from_le_bytes(out)
}

#[test]
fn global_atomics_of_all_blocks() {
    let sum = 255 * 256 / 2;
    assert_eq!(cell("red.global.add.u32 [%x1], %r1;", 5), sum + 5);
    assert_eq!(cell("atom.global.add.u64 %x3, [%x1], %x2;", u64::MAX), sum - 1);
    assert_eq!(cell("red.global.max.u32 [%x1], %r1;", 3), 255);
    assert_eq!(cell("red.global.min.s32 [%x1], %r1;", 7), 0);
    assert_eq!(cell("red.global.or.b32 [%x1], %r1;", 0x100), 0x1ff);
    assert_eq!(cell("red.global.and.b32 [%x1], %r1;", 0xff), 0);
    assert_eq!(cell("red.global.xor.b32 [%x1], %r1;", 1), 1);
    assert_eq!(cell("red.global.add.f32 [%x1], %r3;", 0), u64::from((sum as f32).to_bits()));
    assert_eq!(cell("atom.global.inc.u32 %r4, [%x1], 9;", 0), 256 % 10);
    assert_eq!(
        cell("cvt.rn.f64.u32 %d1, %r1; red.global.add.f64 [%x1], %d1;", 0),
        (sum as f64).to_bits()
    );
}

#[test]
fn exchange_and_compare() {
    let swapped = cell(
        "setp.eq.u32 %p, %r1, 9; @%p atom.global.exch.b32 %r4, [%x1], 77;"
            .replace("setp", ".reg .pred %p; setp")
            .as_str(),
        1,
    );
    assert_eq!(swapped, 77);
    assert_eq!(cell("atom.global.cas.b32 %r4, [%x1], 1, 55;", 1), 55);
    assert_eq!(cell("atom.global.cas.b32 %r4, [%x1], 2, 55;", 1), 1);
}

#[test]
fn old_values_come_back_once_each() {
    let body = "mov.u32 %r1, sm; setp.eq.u32 %p1, %tid, 0; @%p1 st.shared.u32 [%r1], 100;
        bar.sync 0; atom.shared.add.u32 %o0, [%r1], 1; bar.sync 0; ld.shared.u32 %o1, [%r1];";
    let out = warp(body, &by_lane(|_| vec![0]), 2).unwrap();
    let mut old: Vec<u32> = out.iter().map(|o| o[0]).collect();
    old.sort_unstable();
    assert_eq!(old, (100..132).collect::<Vec<_>>());
    assert!(out.iter().all(|o| o[1] == 132));
}

#[test]
fn pairs_of_halves() {
    // 256 threads add (1, 2).
    let got = cell("red.global.add.noftz.f16x2 [%x1], 0x40003c00;", 0);
    assert_eq!(got, 0x6000_5c00);
}
