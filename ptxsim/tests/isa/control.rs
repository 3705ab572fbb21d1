//! Branches, loops, divergence, barriers that order warps.

use crate::harness::*;

#[test]
fn both_sides_of_a_branch_run_and_join() {
    let body = "setp.lt.u32 %p1, %a, 2; @%p1 bra low; add.u32 %d, %a, 100; bra.uni join;
        low: add.u32 %d, %a, 200; join: add.u32 %d, %d, 1000; activemask.b32 %r1; popc.b32 %r1, %r1; mad.lo.u32 %d, %r1, 10000, %d;";
    let out = run(body, &[[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]);
    // All four lanes are together again at the join.
    assert_eq!(out, [41_200, 41_201, 41_102, 41_103]);
}

#[test]
fn loops_of_different_length() {
    let body = "mov.u32 %r1, 0; head: setp.ge.u32 %p1, %r1, %a; @%p1 bra out; add.u32 %d, %d, %r1; add.u32 %r1, %r1, 1; bra head; out:";
    let inputs: Vec<[u32; 3]> = (0..32).map(|i| [i, 0, 0]).collect();
    let want: Vec<u32> = (0..32u32).map(|n| n * n.saturating_sub(1) / 2).collect();
    assert_eq!(run(body, &inputs), want);
}

#[test]
fn early_exit_leaves_the_others() {
    let text = "mov.u32 %o0, 1; setp.ge.u32 %p1, %tid, 33; @%p1 bra end; mov.u32 %o0, 2; end:";
    let inputs: Vec<Vec<u32>> = (0..40).map(|_| vec![0]).collect();
    let out = warp(text, &inputs, 1).unwrap();
    assert!(out.iter().enumerate().all(|(l, o)| o[0] == if l < 33 { 2 } else { 1 }));
}

#[test]
fn indexed_branches() {
    let body = "rem.u32 %r1, %a, 3; mov.u32 %d, 9; list: .branchtargets A, B, C; brx.idx %r1, list;
        A: add.u32 %d, %d, 1; bra end; B: add.u32 %d, %d, 2; bra end; C: add.u32 %d, %d, 3; end:";
    let inputs: Vec<[u32; 3]> = (0..6).map(|i| [i, 0, 0]).collect();
    assert_eq!(run(body, &inputs), [10, 11, 12, 10, 11, 12]);
}

#[test]
fn barriers_order_warps() {
    // Each warp hands its values to the next one, three times.
    let body = "shl.b32 %r1, %tid, 2; mov.u32 %r2, sm; add.u32 %r1, %r1, %r2; add.u32 %r3, %tid, 32; rem.u32 %r3, %r3, 128;
        shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r2; mov.u32 %o0, %i0; mov.u32 %r4, 0;
        again: st.shared.u32 [%r1], %o0; bar.sync 0; ld.shared.u32 %o0, [%r3]; barrier.sync.aligned 0;
        add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 3; @%p1 bra again;";
    let inputs: Vec<Vec<u32>> = (0..128).map(|i| vec![i]).collect();
    let out = warp(body, &inputs, 1).unwrap();
    assert!(out.iter().enumerate().all(|(t, o)| o[0] as usize == (t + 96) % 128));
}

#[test]
fn barriers_reduce() {
    let body = "setp.lt.u32 %p1, %i0, 70; bar.red.popc.u32 %o0, 0, %p1; bar.red.and.pred %p2, 0, %p1; bar.red.or.pred %p3, 0, %p1;
        selp.u32 %o1, 1, 0, %p2; selp.u32 %o2, 1, 0, %p3;";
    let inputs: Vec<Vec<u32>> = (0..96).map(|i| vec![i]).collect();
    let out = warp(body, &inputs, 3).unwrap();
    assert!(out.iter().all(|o| o == &[70, 0, 1]));
}

#[test]
fn named_barriers_of_producer_and_consumer() {
    // Warp 0 writes and arrives, warp 1 waits and reads.
    let body = "mov.u32 %o0, 0; mov.u32 %r2, sm; and.b32 %r1, %tid, 31; shl.b32 %r1, %r1, 2; add.u32 %r1, %r1, %r2;
        setp.ge.u32 %p1, %tid, 32; @%p1 bra consumer; st.shared.u32 [%r1], %i0; bar.arrive 3, 64; bra end;
        consumer: bar.sync 3, 64; ld.shared.u32 %o0, [%r1]; end:";
    let inputs: Vec<Vec<u32>> = (0..64).map(|i| vec![i + 7]).collect();
    let out = warp(body, &inputs, 1).unwrap();
    assert!(out.iter().enumerate().all(|(t, o)| o[0] as usize == if t < 32 { 0 } else { t - 25 }));
}
