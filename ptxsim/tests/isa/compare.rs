//! Comparisons, predicates, selections.

use crate::harness::*;

/// A comparison's outcome as 0 or 1.
fn setp(op: &str, a: u32, b: u32) -> u32 {
    run(&format!("setp.{op} %p1, %a, %b; selp.u32 %d, 1, 0, %p1;"), &[[a, b, 0]])[0]
}

#[test]
fn integers() {
    let minus = u32::MAX;
    for (op, want) in [("eq", 0), ("ne", 1), ("lt", 1), ("le", 1), ("gt", 0), ("ge", 0)] {
        assert_eq!(setp(&format!("{op}.s32"), minus, 1), want, "{op}");
    }
    for (op, want) in [("lo", 0), ("ls", 0), ("hi", 1), ("hs", 1), ("lt", 0), ("gt", 1)] {
        assert_eq!(setp(&format!("{op}.u32"), minus, 1), want, "{op}");
    }
    let body = "setp.lt.s64 %p1, %la, %lb; selp.u64 %ld, 1, 0, %p1;";
    assert_eq!(run64(body, &[[u64::MAX, 0, 0], [0, u64::MAX, 0]]), [1, 0]);
    let body = "cvt.u16.u32 %h1, %a; setp.lt.s16 %p1, %h1, 0; selp.u32 %d, 1, 0, %p1;";
    assert_eq!(run(body, &[[0x8000, 0, 0], [0x7fff, 0, 0]]), [1, 0]);
}

#[test]
fn floats_and_nan() {
    let (nan, one, two) = (f32::NAN.to_bits(), 1f32.to_bits(), 2f32.to_bits());
    for (op, less, unordered) in [
        ("eq", 0, 0),
        ("ne", 1, 0),
        ("lt", 1, 0),
        ("le", 1, 0),
        ("gt", 0, 0),
        ("ge", 0, 0),
        ("equ", 0, 1),
        ("neu", 1, 1),
        ("ltu", 1, 1),
        ("leu", 1, 1),
        ("gtu", 0, 1),
        ("geu", 0, 1),
        ("num", 1, 0),
        ("nan", 0, 1),
    ] {
        assert_eq!(setp(&format!("{op}.f32"), one, two), less, "{op} of 1 and 2");
        assert_eq!(setp(&format!("{op}.f32"), nan, two), unordered, "{op} of NaN and 2");
    }
    assert_eq!(setp("eq.f32", 0, 0x8000_0000), 1);
    assert_eq!(setp("eq.f32", 1, 0), 0);
    assert_eq!(setp("eq.ftz.f32", 1, 0), 1);
}

#[test]
fn two_results_and_combinations() {
    let body = "setp.lt.s32 %p1|%p2, %a, %b; selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2;\
                or.b32 %d, %r1, %r2;";
    assert_eq!(run(body, &[[1, 2, 0], [2, 1, 0]]), [1, 2]);
    let body = "setp.eq.s32 %p3, %c, 1; setp.lt.and.s32 %p1|%p2, %a, %b, %p3;\
                selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2; or.b32 %d, %r1, %r2;";
    assert_eq!(run(body, &[[1, 2, 1], [2, 1, 1], [1, 2, 0], [2, 1, 0]]), [1, 2, 0, 0]);
    let body = "setp.eq.s32 %p3, %c, 1; setp.lt.or.s32 %p1, %a, %b, !%p3; selp.u32 %d, 1, 0, %p1;";
    assert_eq!(run(body, &[[1, 2, 1], [2, 1, 1], [2, 1, 0]]), [1, 0, 1]);
}

#[test]
fn predicate_logic() {
    let body = "setp.ne.s32 %p1, %a, 0; setp.ne.s32 %p2, %b, 0;\
                and.pred %p3, %p1, %p2; or.pred %p4, %p1, %p2; xor.pred %p5, %p1, %p2; not.pred %p6, %p1;\
                selp.u32 %r1, 1, 0, %p3; selp.u32 %r2, 2, 0, %p4; selp.u32 %r3, 4, 0, %p5;\
                selp.u32 %r4, 8, 0, %p6; or.b32 %d, %r1, %r2; or.b32 %d, %d, %r3; or.b32 %d, %d, %r4;";
    assert_eq!(run(body, &[[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]), [8, 14, 6, 3]);
}

#[test]
fn predicated_lanes_only() {
    let body =
        "mov.u32 %d, 7; setp.lt.u32 %p1, %a, 2; @%p1 mov.u32 %d, 8; @!%p1 add.u32 %d, %d, 2;";
    assert_eq!(run(body, &[[0, 0, 0], [1, 0, 0], [2, 0, 0]]), [8, 8, 9]);
}

#[test]
fn numbers_from_comparisons() {
    check("set.lt.u32.s32", 2, &[([1, 2, 0], u32::MAX), ([2, 1, 0], 0)]);
    check("set.ge.f32.s32", 2, &[([2, 2, 0], 1f32.to_bits())]);
    check("slct.s32.s32", 3, &[([5, 6, 0], 5), ([5, 6, u32::MAX], 6)]);
    check("slct.f32.f32", 3, &[([5, 6, 1f32.to_bits()], 5), ([5, 6, f32::NAN.to_bits()], 6)]);
}
