//! `cvt`.

use crate::harness::*;

fn f(x: f32) -> u32 {
    x.to_bits()
}

#[test]
fn integers_extend_cut_and_saturate() {
    check("cvt.s32.s8", 1, &[([0x80, 0, 0], 0xffff_ff80), ([0x17f, 0, 0], 0x7f)]);
    check("cvt.u32.u8", 1, &[([0x180, 0, 0], 0x80)]);
    check("cvt.s32.s16", 1, &[([0xffff, 0, 0], u32::MAX)]);
    check("cvt.sat.u8.s32", 1, &[([300, 0, 0], 255), ([u32::MAX, 0, 0], 0)]);
    check("cvt.sat.s8.s32", 1, &[([300, 0, 0], 127), ([(-300i32) as u32, 0, 0], (-128i32) as u32)]);
    assert_eq!(run64("cvt.s64.s32 %ld, %a;", &[[0xffff_ffff, 0, 0]]), [u64::MAX]);
    assert_eq!(run64("cvt.u64.u32 %ld, %a;", &[[0xffff_ffff, 0, 0]]), [0xffff_ffff]);
    assert_eq!(run("cvt.u32.u64 %d, %la;", &[[7, 0, 0]]), [7]);
}

#[test]
fn floats_to_integers() {
    check(
        "cvt.rni.s32.f32",
        1,
        &[([f(2.5), 0, 0], 2), ([f(3.5), 0, 0], 4), ([f(-2.5), 0, 0], (-2i32) as u32)],
    );
    check(
        "cvt.rzi.s32.f32",
        1,
        &[([f(-2.9), 0, 0], (-2i32) as u32), ([f(1e20), 0, 0], i32::MAX as u32)],
    );
    check("cvt.rmi.s32.f32", 1, &[([f(-2.1), 0, 0], (-3i32) as u32)]);
    check("cvt.rpi.s32.f32", 1, &[([f(2.1), 0, 0], 3), ([f(f32::NAN), 0, 0], 0)]);
    check("cvt.rzi.u32.f32", 1, &[([f(-5.0), 0, 0], 0), ([f(4e9), 0, 0], 4_000_000_000)]);
    check("cvt.rzi.ftz.u32.f32", 1, &[([f(7.9), 0, 0], 7)]);
    assert_eq!(
        run64("cvt.rzi.s64.f32 %ld, %a;", &[[u64::from(f(-1e10)), 0, 0]]),
        [(-10_000_000_000i64) as u64]
    );
}

#[test]
fn integers_to_floats() {
    check(
        "cvt.rn.f32.s32",
        1,
        &[([(-3i32) as u32, 0, 0], f(-3.0)), ([16_777_217, 0, 0], f(16_777_216.0))],
    );
    check("cvt.rn.f32.u32", 1, &[([u32::MAX, 0, 0], f(4_294_967_296.0))]);
    check("cvt.rz.f32.u32", 1, &[([u32::MAX, 0, 0], f(4_294_967_040.0))]);
    check("cvt.rp.f32.s32", 1, &[([16_777_217, 0, 0], f(16_777_218.0))]);
    assert_eq!(run("cvt.rn.f32.s64 %d, %la;", &[[5, 0, 0]]), [f(5.0)]);
    let body = "cvt.rn.f16.s32 %h1, %a; cvt.u32.u16 %d, %h1;";
    assert_eq!(run(body, &[[2049, 0, 0], [3, 0, 0]]), [0x6800, 0x4200]);
    assert_eq!(run64("cvt.rn.f64.s32 %ld, %a;", &[[0xffff_ffff, 0, 0]]), [(-1f64).to_bits()]);
}

#[test]
fn floats_to_integral_floats() {
    check("cvt.rni.f32.f32", 1, &[([f(2.5), 0, 0], f(2.0)), ([f(-0.4), 0, 0], f(-0.0))]);
    check("cvt.rzi.f32.f32", 1, &[([f(-2.9), 0, 0], f(-2.0))]);
    check("cvt.rmi.f32.f32", 1, &[([f(-2.1), 0, 0], f(-3.0))]);
    check("cvt.sat.f32.f32", 1, &[([f(2.5), 0, 0], f(1.0)), ([f(-1.0), 0, 0], 0)]);
}

#[test]
fn half_precision() {
    let to = |x: f32| run("cvt.rn.f16.f32 %h1, %a; cvt.u32.u16 %d, %h1;", &[[f(x), 0, 0]])[0];
    assert_eq!(to(1.0), 0x3c00);
    assert_eq!(to(65520.0), 0x7c00);
    assert_eq!(to(f32::NAN), 0x7fff);
    assert_eq!(to(2f32.powi(-25)), 0);
    assert_eq!(to(2f32.powi(-25).next_up()), 1);
    let rz = |x: f32| run("cvt.rz.f16.f32 %h1, %a; cvt.u32.u16 %d, %h1;", &[[f(x), 0, 0]])[0];
    assert_eq!(rz(1.9999), 0x3fff);
    let from = "cvt.u16.u32 %h1, %a; cvt.f32.f16 %d, %h1;";
    assert_eq!(run(from, &[[0x3555, 0, 0], [0x0001, 0, 0]]), [f(0.333_251_95), f(2f32.powi(-24))]);
    let from = "cvt.u16.u32 %h1, %a; cvt.f32.bf16 %d, %h1;";
    assert_eq!(run(from, &[[0x4049, 0, 0]]), [f(3.140_625)]);
    let bf = "cvt.rn.bf16.f32 %h1, %a; cvt.u32.u16 %d, %h1;";
    assert_eq!(run(bf, &[[f(std::f32::consts::PI), 0, 0]]), [0x4049]);
    let to_int = "cvt.u16.u32 %h1, %a; cvt.rni.s32.f16 %d, %h1;";
    assert_eq!(run(to_int, &[[0x4100, 0, 0]]), [2]);
}

#[test]
fn pairs_put_the_first_source_on_top() {
    check("cvt.rn.f16x2.f32", 2, &[([f(1.0), f(2.0), 0], 0x3c00_4000)]);
    check("cvt.rn.bf16x2.f32", 2, &[([f(1.0), f(2.0), 0], 0x3f80_4000)]);
    check("cvt.rn.relu.f16x2.f32", 2, &[([f(-1.0), f(2.0), 0], 0x0000_4000)]);
    check("cvt.rz.bf16x2.f32", 2, &[([f(1.999), f(-1.999), 0], 0x3fff_bfff)]);
}

#[test]
fn doubles_and_tf32() {
    assert_eq!(run64("cvt.f64.f32 %ld, %a;", &[[u64::from(f(1.5)), 0, 0]]), [1.5f64.to_bits()]);
    assert_eq!(run("cvt.rn.f32.f64 %d, %la;", &[[0, 0, 0]]), [0]);
    let third = (1.0f64 / 3.0).to_bits();
    let out = run64("cvt.rz.f32.f64 %d, %la; cvt.u64.u32 %ld, %d;", &[[third, 0, 0]]);
    assert_eq!(out, [u64::from((1.0f32 / 3.0).next_down().to_bits())]);
    // tf32 keeps ten bits; ties go away from zero.
    check(
        "cvt.rna.tf32.f32",
        1,
        &[([0x3f80_1000, 0, 0], 0x3f80_2000), ([0x3f80_0fff, 0, 0], 0x3f80_0000)],
    );
}
