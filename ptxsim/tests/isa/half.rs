//! f16, bf16 and their pairs.

use crate::harness::*;

/// `op` on 16-bit registers filled from the low halves of the inputs.
fn half(op: &str, n: usize, input: [u32; 3]) -> u32 {
    let names = ["%h1", "%h2", "%h3"][..n].join(", ");
    let load = "cvt.u16.u32 %h1, %a; cvt.u16.u32 %h2, %b; cvt.u16.u32 %h3, %c;";
    run(&format!("{load} {op} %h4, {names}; cvt.u32.u16 %d, %h4;"), &[input])[0]
}

const ONE: u32 = 0x3c00;
const TWO: u32 = 0x4000;
const B_ONE: u32 = 0x3f80;

#[test]
fn f16_arithmetic() {
    assert_eq!(half("add.f16", 2, [ONE, ONE, 0]), TWO);
    // 1 + 2⁻¹¹ is halfway between 1 and the next f16: to even.
    assert_eq!(half("add.rn.f16", 2, [ONE, 0x1000, 0]), ONE);
    assert_eq!(half("add.f16", 2, [ONE + 1, 0x1000, 0]), ONE + 2);
    assert_eq!(half("sub.f16", 2, [ONE, TWO, 0]), 0xbc00);
    assert_eq!(half("mul.f16", 2, [TWO, TWO, 0]), 0x4400);
    assert_eq!(half("mul.f16", 2, [0x7bff, TWO, 0]), 0x7c00);
    assert_eq!(half("neg.f16", 1, [ONE, 0, 0]), 0xbc00);
    assert_eq!(half("abs.f16", 1, [0xbc00, 0, 0]), ONE);
    assert_eq!(half("max.f16", 2, [0x7e00, ONE, 0]), ONE);
    assert_eq!(half("max.NaN.f16", 2, [0x7e00, ONE, 0]), 0x7fff);
    assert_eq!(half("min.f16", 2, [0x0000, 0x8000, 0]), 0x8000);
    assert_eq!(half("mul.ftz.f16", 2, [0x0400, 0x3800, 0]), 0);
    assert_eq!(half("mul.f16", 2, [0x0400, 0x3800, 0]), 0x0200);
    assert_eq!(half("add.sat.f16", 2, [ONE, ONE, 0]), ONE);
    assert_eq!(half("ex2.approx.f16", 1, [TWO, 0, 0]), 0x4400);
    assert_eq!(half("tanh.approx.f16", 1, [0, 0, 0]), 0);
}

#[test]
fn f16_fma_rounds_once() {
    // (1 + 2⁻¹⁰)² = 1 + 2⁻⁹ + 2⁻²⁰; less 1 + 2⁻⁹ leaves 2⁻²⁰, an f16 subnormal of 16 units.
    assert_eq!(half("fma.rn.f16", 3, [ONE + 1, ONE + 1, 0xbc02]), 0x0010);
    // 1·(1 + 2⁻¹⁰) + 2⁻¹¹ is a tie, the smallest thing more is not.
    assert_eq!(half("fma.rn.f16", 3, [ONE + 1, ONE, 0x1000]), ONE + 2);
    assert_eq!(half("fma.rn.f16", 3, [ONE, ONE, 0x1000]), ONE);
    assert_eq!(half("fma.rn.f16", 3, [ONE, ONE, 0x1001]), ONE + 1);
    assert_eq!(half("fma.rn.relu.f16", 3, [ONE, 0xbc00, 0]), 0);
}

#[test]
fn bf16_arithmetic() {
    assert_eq!(half("add.rn.bf16", 2, [B_ONE, B_ONE, 0]), 0x4000);
    assert_eq!(half("mul.bf16", 2, [0x4000, 0x4040, 0]), 0x40c0);
    assert_eq!(half("fma.rn.bf16", 3, [0x4000, 0x4040, B_ONE]), 0x40e0);
    // 1 + 2⁻⁸ is a tie; with 2⁻¹⁰⁰ more it is not, which f64 alone cannot hold.
    assert_eq!(half("fma.rn.bf16", 3, [B_ONE, 0x3b80, B_ONE]), B_ONE);
    assert_eq!(half("max.bf16", 2, [B_ONE, 0x4000, 0]), 0x4000);
    assert_eq!(half("neg.bf16", 1, [B_ONE, 0, 0]), 0xbf80);
    assert_eq!(half("abs.bf16", 1, [0xbf80, 0, 0]), B_ONE);
}

#[test]
fn pairs_work_on_both_halves() {
    let p = |hi: u32, lo: u32| hi << 16 | lo;
    check("add.f16x2", 2, &[([p(ONE, TWO), p(ONE, ONE), 0], p(TWO, 0x4200))]);
    check("fma.rn.f16x2", 3, &[([p(ONE, TWO), p(TWO, TWO), p(ONE, 0)], p(0x4200, 0x4400))]);
    check("max.f16x2", 2, &[([p(ONE, TWO), p(TWO, ONE), 0], p(TWO, TWO))]);
    check("mul.bf16x2", 2, &[([p(B_ONE, 0x4000), p(B_ONE, 0x4000), 0], p(B_ONE, 0x4080))]);
    check("neg.f16x2", 1, &[([p(ONE, TWO), 0, 0], p(0xbc00, 0xc000))]);
    check("ex2.approx.f16x2", 1, &[([p(ONE, 0), 0, 0], p(TWO, ONE))]);
}

#[test]
fn older_targets_lack_them() {
    for (target, op, need) in [
        (75, "fma.rn.bf16 %h1, %h2, %h3, %h4;", 80),
        (80, "add.bf16 %h1, %h2, %h3;", 90),
        (75, "max.f16 %h1, %h2, %h3;", 80),
    ] {
        let e = module(target, op).unwrap_err();
        assert!(
            matches!(&e, ptxsim::Error::InstructionNotOnTarget { need: n, have, .. } if *n == need && *have == target),
            "{e}"
        );
    }
}
