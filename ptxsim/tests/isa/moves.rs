//! Moves, packing, special registers, address conversions.

use crate::harness::*;

#[test]
fn literals() {
    assert_eq!(run("mov.b32 %d, 0xdeadbeef;", &[[0; 3]]), [0xdead_beef]);
    assert_eq!(run("mov.f32 %d, 0f3F800000;", &[[0; 3]]), [1f32.to_bits()]);
    assert_eq!(run("mov.u32 %d, -1;", &[[0; 3]]), [u32::MAX]);
    assert_eq!(run64("mov.f64 %ld, 0d3FF0000000000000;", &[[0; 3]]), [1f64.to_bits()]);
    assert_eq!(run64("mov.u64 %ld, -2;", &[[0; 3]]), [(-2i64) as u64]);
    assert_eq!(run("mov.u16 %h1, -1; cvt.u32.u16 %d, %h1;", &[[0; 3]]), [0xffff]);
}

#[test]
fn packing_puts_the_first_part_low() {
    let body = "mov.b32 {%h1, %h2}, %a; mov.b32 %d, {%h2, %h1};";
    assert_eq!(run(body, &[[0x1234_5678, 0, 0]]), [0x5678_1234]);
    assert_eq!(run64("mov.b64 %ld, {%a, %b};", &[[1, 2, 0]]), [0x2_0000_0001]);
    assert_eq!(run("mov.b64 {_, %d}, %la;", &[[7, 0, 0]]), [0]);
    let body = "mov.b64 {%r1, %r2}, %la; add.u32 %d, %r1, %r2;";
    assert_eq!(
        run64(&format!("mov.b64 %la, {{%a, %b}}; {body} cvt.u64.u32 %ld, %d;"), &[[3, 4, 0]]),
        [7]
    );
    let body = "mov.b64 {%h1, %h2, %h3, %h4}, %la; mov.b64 %ld, {%h4, %h3, %h2, %h1};";
    assert_eq!(run64(body, &[[0x1111_2222_3333_4444, 0, 0]]), [0x4444_3333_2222_1111]);
}

#[test]
fn special_registers() {
    let n = 40;
    let out = run(
        "mov.u32 %r1, %laneid; mov.u32 %r2, %warpid; mov.u32 %r3, %ntid.x; mad.lo.u32 %d, %r2, 32, %r1; mad.lo.u32 %d, %r3, 1000, %d;",
        &vec![[0; 3]; n],
    );
    assert_eq!(out, (0..n as u32).map(|i| 40_000 + i).collect::<Vec<_>>());
    let out = run("mov.u32 %d, %lanemask_lt;", &[[0; 3]; 4]);
    assert_eq!(out, [0, 1, 3, 7]);
    let out = run("mov.u32 %d, %lanemask_ge;", &[[0; 3]; 2]);
    assert_eq!(out, [u32::MAX, u32::MAX - 1]);
    assert_eq!(run("mov.u32 %d, WARP_SZ;", &[[0; 3]]), [32]);
    let body =
        "mov.u32 %r1, %clock; add.u32 %r2, %r2, 1; mov.u32 %r3, %clock; sub.u32 %d, %r3, %r1;";
    assert!(run(body, &[[0; 3]])[0] > 0);
}

#[test]
fn inner_scopes_hide_outer_names() {
    let body = "mov.u32 %r1, 1; { .reg .b32 %r<4>; mov.u32 %r1, 2; mov.u32 %d, %r1; } add.u32 %d, %d, %r1;";
    assert_eq!(run(body, &[[0; 3]]), [3]);
}

#[test]
fn generic_addresses_tell_their_space() {
    let body = "mov.u64 %x2, sm; cvta.shared.u64 %x3, %x2;
        isspacep.shared %p1, %x3; isspacep.global %p2, %x3; isspacep.global %p3, %at;
        selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2; selp.u32 %r3, 4, 0, %p3;
        or.b32 %o0, %r1, %r2; or.b32 %o0, %o0, %r3;
        cvta.to.shared.u64 %x4, %x3; sub.s64 %x4, %x4, %x2; cvt.u32.u64 %o1, %x4;";
    let out = warp(body, &by_lane(|_| vec![0]), 2).unwrap();
    assert_eq!(out[0], [5, 0]);
}

/// `name[2]` is the address of an element, in every place where an address may stand.
#[test]
fn elements_of_variables() {
    let body = ".shared .align 8 .b64 wide[4]; .shared .align 2 .b16 narrow[8];
        mov.u32 %r1, wide[2]; mov.u32 %r2, wide; sub.u32 %r1, %r1, %r2;
        mov.u32 %r3, narrow[3]; mov.u32 %r2, narrow[0]; sub.u32 %r3, %r3, %r2;
        st.shared.u32 [wide+16], %a; mov.u32 %r4, wide[2]; ld.shared.u32 %r4, [%r4];
        mov.u64 %x1, wide[1]; mov.u64 %x2, wide; sub.u64 %x1, %x1, %x2; cvt.u32.u64 %r5, %x1;
        shl.b32 %r5, %r5, 24; shl.b32 %r4, %r4, 16; shl.b32 %r3, %r3, 8;
        or.b32 %d, %r1, %r3; or.b32 %d, %d, %r4; or.b32 %d, %d, %r5;";
    assert_eq!(run(body, &[[0x5a, 0, 0]]), [0x085a_0610]);
    assert!(module(90, "mov.u32 %d, %a[1];").is_err());
    assert!(module(90, ".shared .b32 s[4]; mov.u32 %d, s[9223372036854775807];").is_err());
}
