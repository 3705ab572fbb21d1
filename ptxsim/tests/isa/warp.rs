//! Shuffles, votes, matches, reductions.

use crate::harness::*;

fn lanes(body: &str) -> Vec<Vec<u32>> {
    warp(body, &by_lane(|l| vec![l, l * 10]), 2).unwrap()
}

#[test]
fn shuffles_of_the_whole_warp() {
    let out = lanes("shfl.sync.bfly.b32 %o0|%p1, %i1, 5, 31, -1; selp.u32 %o1, 1, 0, %p1;");
    assert!(out.iter().enumerate().all(|(l, o)| o == &[(l as u32 ^ 5) * 10, 1]));
    let out = lanes("shfl.sync.down.b32 %o0|%p1, %i1, 3, 31, -1; selp.u32 %o1, 1, 0, %p1;");
    for (l, o) in out.iter().enumerate() {
        let l = l as u32;
        // Past the end a lane keeps its own value and the predicate is false.
        assert_eq!(o, &if l + 3 < 32 { [(l + 3) * 10, 1] } else { [l * 10, 0] });
    }
    let out = lanes("shfl.sync.up.b32 %o0|%p1, %i1, 3, 0, -1; selp.u32 %o1, 1, 0, %p1;");
    for (l, o) in out.iter().enumerate() {
        let l = l as u32;
        assert_eq!(o, &if l >= 3 { [(l - 3) * 10, 1] } else { [l * 10, 0] });
    }
    let out = lanes("shfl.sync.idx.b32 %o0, %i1, 7, 31, 0xffffffff; mov.u32 %o1, 0;");
    assert!(out.iter().all(|o| o[0] == 70));
}

#[test]
fn shuffles_in_segments() {
    // Width 8: c = (32 - 8) << 8 | 31 for down and idx.
    let c = (24 << 8) | 31;
    let out = lanes(&format!("shfl.sync.idx.b32 %o0, %i1, 2, {c}, -1; mov.u32 %o1, 0;"));
    assert!(out.iter().enumerate().all(|(l, o)| o[0] == (l as u32 / 8 * 8 + 2) * 10));
    let out =
        lanes(&format!("shfl.sync.down.b32 %o0|%p1, %i1, 6, {c}, -1; selp.u32 %o1, 1, 0, %p1;"));
    for (l, o) in out.iter().enumerate() {
        let l = l as u32;
        assert_eq!(o, &if l % 8 < 2 { [(l + 6) * 10, 1] } else { [l * 10, 0] });
    }
    let out = lanes(&format!("shfl.sync.up.b32 %o0, %i1, 1, {}, -1; mov.u32 %o1, 0;", 24 << 8));
    assert!(out.iter().enumerate().all(|(l, o)| {
        let l = l as u32;
        o[0] == if l.is_multiple_of(8) { l * 10 } else { (l - 1) * 10 }
    }));
}

#[test]
fn votes() {
    let set = "setp.lt.u32 %p1, %i0, 5;";
    let out = lanes(&format!(
        "{set} vote.sync.ballot.b32 %o0, %p1, -1; vote.sync.ballot.b32 %o1, !%p1, -1;"
    ));
    assert_eq!(out[9], [0x1f, !0x1f]);
    let out = lanes(&format!(
        "{set} vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, -1; vote.sync.uni.pred %p4, %p1, -1;
        selp.u32 %o0, 1, 0, %p2; selp.u32 %r1, 2, 0, %p3; selp.u32 %r2, 4, 0, %p4; or.b32 %o1, %r1, %r2;"
    ));
    assert_eq!(out[31], [1, 0]);
}

#[test]
fn matches() {
    let out = lanes(
        "and.b32 %r1, %i0, 3; match.any.sync.b32 %o0, %r1, -1;
        match.all.sync.b32 %o1|%p1, %r1, -1;",
    );
    for (l, o) in out.iter().enumerate() {
        assert_eq!(o, &[0x1111_1111 << (l % 4), 0]);
    }
    let out = lanes("match.all.sync.b32 %o0|%p1, 7, -1; selp.u32 %o1, 1, 0, %p1;");
    assert_eq!(out[3], [u32::MAX, 1]);
}

#[test]
fn reductions() {
    let out = lanes("redux.sync.add.s32 %o0, %i1, -1; redux.sync.max.u32 %o1, %i1, -1;");
    assert_eq!(out[4], [4960, 310]);
    let out = lanes(
        "sub.s32 %r1, %i0, 9; redux.sync.min.s32 %o0, %r1, -1; redux.sync.xor.b32 %o1, %i0, -1;",
    );
    assert_eq!(out[4], [(-9i32) as u32, 0]);
}

#[test]
fn part_of_a_warp() {
    let body = "mov.u32 %o0, 0; mov.u32 %o1, 0; setp.ge.u32 %p1, %i0, 16; @%p1 bra skip;
        shfl.sync.bfly.b32 %o0, %i1, 1, 31, 0xffff; activemask.b32 %o1; skip:";
    let out = lanes(body);
    for (l, o) in out.iter().enumerate() {
        let l = l as u32;
        assert_eq!(o, &if l < 16 { [(l ^ 1) * 10, 0xffff] } else { [0, 0] });
    }
}

#[test]
fn tiles_of_a_warp_with_masks_of_their_own() {
    // Lanes of two tiles stand at one instruction, each with its own member mask.
    let body = "setp.lt.u32 %p1, %i0, 16; selp.u32 %r1, 0xffff, 0xffff0000, %p1;
        shfl.sync.down.b32 %o0, %i1, 8, 4127, %r1; redux.sync.add.u32 %o1, %i0, %r1; bar.warp.sync %r1;";
    let out = lanes(body);
    for (l, o) in out.iter().enumerate() {
        let l = l as u32;
        let sum = if l < 16 { 120 } else { 376 };
        assert_eq!(o, &[if l % 16 < 8 { (l + 8) * 10 } else { l * 10 }, sum]);
    }
}
