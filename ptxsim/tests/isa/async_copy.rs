//! `cp.async`.

use crate::harness::*;
use ptxsim::Error;

const SETUP: &str = "shl.b32 %r1, %tid, 4; mov.u32 %r2, sm; add.u32 %r1, %r1, %r2;";

fn inputs() -> Vec<Vec<u32>> {
    by_lane(|l| vec![l, l + 100, l + 200, l + 300])
}

#[test]
fn sixteen_bytes_arrive_at_the_wait() {
    let body = format!(
        "{SETUP} cp.async.cg.shared.global.L2::128B [%r1], [%at], 16; cp.async.commit_group;
        cp.async.wait_group 0; ld.shared.v4.u32 {{%o0, %o1, %o2, %o3}}, [%r1];"
    );
    let out = warp(&body, &inputs(), 4).unwrap();
    assert_eq!(out[9], [9, 109, 209, 309]);
}

#[test]
fn smaller_sizes_and_zero_fill() {
    let body = format!(
        "{SETUP} cp.async.ca.shared.global [%r1], [%at], 8, 4; cp.async.ca.shared.global [%r1+8], [%at+12], 4;
        cp.async.ca.shared.global [%r1+12], [%at], 4, 0; cp.async.wait_all;
        ld.shared.v4.u32 {{%o0, %o1, %o2, %o3}}, [%r1];"
    );
    let out = warp(&body, &inputs(), 4).unwrap();
    assert_eq!(out[9], [9, 0, 309, 0]);
}

#[test]
fn a_source_size_of_zero_reads_nothing() {
    // The source address is far outside.
    let body = format!(
        "{SETUP} mov.u64 %x3, 64; mov.u32 %r5, 0; cp.async.cg.shared.global [%r1], [%x3], 16, %r5;
        cp.async.commit_group; cp.async.wait_group 0; ld.shared.v4.u32 {{%o0, %o1, %o2, %o3}}, [%r1];"
    );
    assert_eq!(warp(&body, &inputs(), 4).unwrap()[31], [0; 4]);
}

#[test]
fn groups_complete_in_order() {
    let two = format!(
        "{SETUP} cp.async.ca.shared.global [%r1], [%at], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%r1+4], [%at+4], 4; cp.async.commit_group;"
    );
    let body = format!("{two} cp.async.wait_group 1; ld.shared.u32 %o0, [%r1];");
    assert_eq!(warp(&body, &inputs(), 1).unwrap()[3], [3]);
    let body = format!("{two} cp.async.wait_group 1; ld.shared.u32 %o0, [%r1+4];");
    let e = warp(&body, &inputs(), 1).unwrap_err();
    assert!(matches!(e, Error::PendingCopy { owner: 0, address: 4, .. }), "{e}");
}

#[test]
fn an_open_group_is_not_waited_for() {
    let body = format!(
        "{SETUP} cp.async.ca.shared.global [%r1], [%at], 4; cp.async.wait_group 0; ld.shared.u32 %o0, [%r1];"
    );
    assert!(matches!(warp(&body, &inputs(), 1), Err(Error::PendingCopy { .. })));
}

#[test]
fn writing_over_a_copy_in_flight_is_an_error() {
    let body = format!(
        "{SETUP} cp.async.ca.shared.global [%r1], [%at], 4; cp.async.commit_group; st.shared.u32 [%r1], %i0; mov.u32 %o0, 0;"
    );
    assert!(matches!(warp(&body, &inputs(), 1), Err(Error::PendingCopy { .. })));
}
