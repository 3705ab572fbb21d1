//! Integer and bit instructions.

use crate::harness::*;

const M: u32 = u32::MAX;

#[test]
fn add_sub_wrap_and_saturate() {
    check("add.s32", 2, &[([1, 2, 0], 3), ([M, 1, 0], 0), ([0x7fff_ffff, 1, 0], 0x8000_0000)]);
    check("sub.u32", 2, &[([1, 2, 0], M), ([5, 5, 0], 0)]);
    check(
        "add.sat.s32",
        2,
        &[([0x7fff_ffff, 1, 0], 0x7fff_ffff), ([0x8000_0000, M, 0], 0x8000_0000)],
    );
    check("sub.sat.s32", 2, &[([0x8000_0000, 1, 0], 0x8000_0000)]);
    check64("add.s64", 2, &[([u64::MAX, 2, 0], 1)]);
    check64("sub.s64", 2, &[([0, 1, 0], u64::MAX)]);
}

#[test]
fn products() {
    check("mul.lo.s32", 2, &[([7, M, 0], (-7i32) as u32), ([0x1_0000, 0x1_0000, 0], 0)]);
    check("mul.hi.u32", 2, &[([M, M, 0], M - 1), ([0x1_0000, 0x1_0000, 0], 1)]);
    check("mul.hi.s32", 2, &[([M, M, 0], 0), ([M, 2, 0], M)]);
    check("mad.lo.s32", 3, &[([3, 4, 5], 17)]);
    check("mad.hi.u32", 3, &[([0x8000_0000, 4, 1], 3)]);
    check64("mul.lo.u64", 2, &[([1 << 40, 1 << 30, 0], 0), ([3, 5, 0], 15)]);
    check64("mul.hi.u64", 2, &[([1 << 63, 4, 0], 2)]);
    check64("mad.lo.s64", 3, &[([2, 3, 4], 10)]);
    let out = run64("mul.wide.s32 %ld, %a, %b;", &[[0xffff_ffff, 3, 0]]);
    assert_eq!(out, [(-3i64) as u64]);
    let out = run64("mul.wide.u32 %ld, %a, %b;", &[[0xffff_ffff, 3, 0]]);
    assert_eq!(out, [0x2_ffff_fffd]);
    let out = run64("mad.wide.s32 %ld, %a, %b, %lc;", &[[0xffff_ffff, 3, 10]]);
    assert_eq!(out, [7]);
}

#[test]
fn sixteen_bit_products_widen() {
    let body = "cvt.u16.u32 %h1, %a; cvt.u16.u32 %h2, %b; mul.wide.s16 %d, %h1, %h2;";
    assert_eq!(run(body, &[[0xffff, 5, 0], [300, 300, 0]]), [(-5i32) as u32, 90000]);
    let body = "cvt.u16.u32 %h1, %a; cvt.u16.u32 %h2, %b; mul.wide.u16 %d, %h1, %h2;";
    assert_eq!(run(body, &[[0xffff, 0xffff, 0]]), [0xfffe_0001]);
    let body = "cvt.u16.u32 %h1, %a; cvt.u16.u32 %h2, %b; mul.lo.s16 %h3, %h1, %h2;\
                shr.s16 %h3, %h3, 4; cvt.s32.s16 %d, %h3;";
    assert_eq!(run(body, &[[0xffff, 32, 0]]), [(-2i32) as u32]);
}

#[test]
fn division_and_remainder() {
    check("div.s32", 2, &[([(-7i32) as u32, 2, 0], (-3i32) as u32), ([7, 2, 0], 3)]);
    check("rem.s32", 2, &[([(-7i32) as u32, 2, 0], M), ([7, 0, 0], 7)]);
    check("div.u32", 2, &[([M, 16, 0], 0x0fff_ffff)]);
    check("rem.u32", 2, &[([100, 7, 0], 2)]);
    check64("div.u64", 2, &[([1 << 40, 3, 0], (1 << 40) / 3)]);
    check64("rem.s64", 2, &[([(-9i64) as u64, 4, 0], u64::MAX)]);
}

#[test]
fn minimum_maximum_sign() {
    check("min.s32", 2, &[([M, 1, 0], M)]);
    check("min.u32", 2, &[([M, 1, 0], 1)]);
    check("max.s32", 2, &[([M, 1, 0], 1)]);
    check("max.u32", 2, &[([M, 1, 0], M)]);
    check("abs.s32", 1, &[([M, 0, 0], 1), ([7, 0, 0], 7)]);
    check("neg.s32", 1, &[([1, 0, 0], M)]);
    check("sad.u32", 3, &[([3, 10, 100], 107)]);
    check("sad.s32", 3, &[([M, 1, 0], 2)]);
    check64("max.s64", 2, &[([u64::MAX, 1, 0], 1)]);
}

#[test]
fn logic() {
    check("and.b32", 2, &[([0xf0f0, 0xff00, 0], 0xf000)]);
    check("or.b32", 2, &[([0xf0f0, 0xff00, 0], 0xfff0)]);
    check("xor.b32", 2, &[([0xf0f0, 0xff00, 0], 0x0ff0)]);
    check("not.b32", 1, &[([0xf0f0, 0, 0], 0xffff_0f0f)]);
    check("cnot.b32", 1, &[([0, 0, 0], 1), ([5, 0, 0], 0)]);
    check64("and.b64", 2, &[([u64::MAX, 0xf << 40, 0], 0xf << 40)]);
    check64("not.b64", 1, &[([0, 0, 0], u64::MAX)]);
}

#[test]
fn lop3_follows_its_table() {
    // Tables by the manual's rule: F(0xf0, 0xcc, 0xaa).
    let (ta, tb, tc) = (0xf0u8, 0xccu8, 0xaau8);
    let input = [0x1234_5678, 0x9abc_def0, 0x0f1e_2d3c];
    let [a, b, c] = input;
    for (table, want) in [
        (ta & tb & tc, a & b & c),
        (ta ^ tb ^ tc, a ^ b ^ c),
        ((ta & tb) | (!ta & tc), (a & b) | (!a & c)),
        (!(ta | tb | tc), !(a | b | c)),
        (ta | (tb & tc), a | (b & c)),
    ] {
        let out = run(&format!("lop3.b32 %d, %a, %b, %c, {table:#x};"), &[input]);
        assert_eq!(out, [want], "table {table:#x}");
    }
}

#[test]
fn shifts_clamp() {
    check("shl.b32", 2, &[([1, 31, 0], 0x8000_0000), ([1, 32, 0], 0), ([1, 200, 0], 0)]);
    check("shr.u32", 2, &[([0x8000_0000, 31, 0], 1), ([M, 32, 0], 0)]);
    check("shr.s32", 2, &[([0x8000_0000, 31, 0], M), ([0x8000_0000, 99, 0], M)]);
    let out = run64("shl.b64 %ld, %la, %b;", &[[1, 40, 0], [1, 64, 0]]);
    assert_eq!(out, [1 << 40, 0]);
    let out = run64("shr.s64 %ld, %la, %b;", &[[1 << 63, 63, 0], [1 << 63, 64, 0]]);
    assert_eq!(out, [u64::MAX, u64::MAX]);
    // The funnel takes the 64-bit value (b, a).
    check("shf.l.wrap.b32", 3, &[([0x8000_0000, 1, 1], 3), ([5, 7, 32], 7)]);
    check("shf.l.clamp.b32", 3, &[([5, 7, 40], 5)]);
    check("shf.r.wrap.b32", 3, &[([2, 1, 1], 0x8000_0001), ([5, 7, 33], 0x8000_0002)]);
    check("shf.r.clamp.b32", 3, &[([5, 7, 40], 7)]);
}

#[test]
fn bit_fields() {
    check("bfe.u32", 3, &[([0xabcd_1234, 8, 8], 0x12), ([M, 28, 8], 0xf), ([M, 0, 0], 0)]);
    check(
        "bfe.s32",
        3,
        &[
            ([0xabcd_f234, 12, 4], M),
            ([0xabcd_7234, 12, 4], 7),
            ([0x8000_0000, 28, 8], 0xffff_fff8),
        ],
    );
    let out = run("bfi.b32 %d, %a, %b, 8, 4;", &[[0x5, 0xffff_ffff, 0], [0xff, 0, 0]]);
    assert_eq!(out, [0xffff_f5ff, 0xf00]);
    let out = run64("bfi.b64 %ld, %la, %lb, 40, 8;", &[[0x12, u64::MAX, 0]]);
    assert_eq!(out, [0xffff_12ff_ffff_ffff]);
    let out = run64("bfe.u64 %ld, %la, 40, 8;", &[[0x00ab_cd00_0000_0000, 0, 0]]);
    assert_eq!(out, [0xcd]);
    let out = run64("bfe.s64 %ld, %la, 40, 8;", &[[0x00ab_cd00_0000_0000, 0, 0]]);
    assert_eq!(out, [0xffff_ffff_ffff_ffcd]);
    check("brev.b32", 1, &[([1, 0, 0], 0x8000_0000), ([0x0000_00f0, 0, 0], 0x0f00_0000)]);
    check("clz.b32", 1, &[([0, 0, 0], 32), ([1, 0, 0], 31), ([M, 0, 0], 0)]);
    check(
        "bmsk.clamp.b32",
        2,
        &[([4, 8, 0], 0xff0), ([28, 8, 0], 0xf000_0000), ([0, 40, 0], M), ([32, 8, 0], 0)],
    );
    check("popc.b32", 1, &[([0xf0f0, 0, 0], 8)]);
    check("bfind.u32", 1, &[([0, 0, 0], M), ([0x10, 0, 0], 4)]);
    check("bfind.s32", 1, &[([M, 0, 0], M), ([(-17i32) as u32, 0, 0], 4)]);
    check("bfind.shiftamt.u32", 1, &[([0x10, 0, 0], 27)]);
    let out = run("popc.b64 %d, %la;", &[[M, 0, 0]]);
    assert_eq!(out, [32]);
}

#[test]
fn byte_permutation() {
    let (a, b) = (0x3322_1100, 0x7766_5544);
    check(
        "prmt.b32",
        3,
        &[
            ([a, b, 0x3210], a),
            ([a, b, 0x7654], b),
            ([a, b, 0x0123], 0x0011_2233),
            ([0x80, b, 0x0008], 0x8080_80ff),
        ],
    );
    check("prmt.b32.f4e", 3, &[([a, b, 1], 0x4433_2211)]);
    check("prmt.b32.rc16", 3, &[([a, b, 1], 0x3322_3322)]);
}

#[test]
fn dot_products_of_bytes() {
    check("dp4a.s32.s32", 3, &[([0xff01_0203, 0x0101_0101, 10], 10 + 3 + 2 + 1 - 1)]);
    check("dp4a.u32.u32", 3, &[([0xff01_0203, 0x0101_0101, 10], 10 + 3 + 2 + 1 + 255)]);
    check("dp4a.s32.u32", 3, &[([0x0000_00ff, 0x0000_00ff, 0], (-255i32) as u32)]);
}

#[test]
fn carries_chain() {
    let body = "add.cc.u32 %r1, %a, %b; addc.u32 %d, %c, 0;";
    assert_eq!(run(body, &[[M, 1, 5], [M, 0, 5]]), [6, 5]);
    let body = "sub.cc.u32 %r1, %a, %b; subc.u32 %d, %c, 0;";
    assert_eq!(run(body, &[[0, 1, 5], [1, 1, 5]]), [4, 5]);
    let body = "mad.lo.cc.u32 %r1, %a, %b, %c; madc.hi.u32 %d, %a, %b, 0;";
    // 0xffffffff · 2 + 2 = 0x2_0000_0000.
    assert_eq!(run(body, &[[M, 2, 2]]), [2]);
}
