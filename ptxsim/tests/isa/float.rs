//! f32 and f64 arithmetic.

use crate::harness::*;

const TINY: f32 = f32::from_bits(3);
const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

fn ulp(x: f32) -> f32 {
    x.next_up() - x
}

#[test]
fn sums_and_products_round_to_nearest() {
    let half = ulp(1.0) / 2.0;
    check_f32(
        "add.f32",
        2,
        &[
            ([1.0, half, 0.0], 1.0),
            ([1.0 + ulp(1.0), half, 0.0], 1.0 + 2.0 * ulp(1.0)),
            ([INF, -INF, 0.0], NAN),
            ([TINY, TINY, 0.0], f32::from_bits(6)),
        ],
    );
    check_f32("sub.rn.f32", 2, &[([1.0, 3.0, 0.0], -2.0)]);
    check_f32("mul.f32", 2, &[([3.0, 5.0, 0.0], 15.0), ([0.0, INF, 0.0], NAN)]);
    check_f32("div.rn.f32", 2, &[([1.0, 3.0, 0.0], 1.0 / 3.0), ([1.0, 0.0, 0.0], INF)]);
}

#[test]
fn fma_rounds_once() {
    let x = 1.0 + ulp(1.0);
    // x² = 1 + 2u + u²: the product alone loses u².
    check_f32(
        "fma.rn.f32",
        3,
        &[
            ([x, x, -1.0 - 2.0 * ulp(1.0)], ulp(1.0) * ulp(1.0)),
            ([2.0, 3.0, 4.0], 10.0),
            ([NAN, 1.0, 1.0], NAN),
        ],
    );
    let out = run64("fma.rn.f64 %ld, %la, %lb, %lc;", &[[2.0, 3.0, 4.0f64].map(f64::to_bits)]);
    assert_eq!(f64::from_bits(out[0]), 10.0);
}

#[test]
fn directed_rounding() {
    let tiny = 2f32.powi(-40);
    let next = 1.0 + ulp(1.0);
    check_f32("add.rz.f32", 2, &[([1.0, tiny, 0.0], 1.0), ([-1.0, -tiny, 0.0], -1.0)]);
    check_f32("add.rp.f32", 2, &[([1.0, tiny, 0.0], next), ([-1.0, -tiny, 0.0], -1.0)]);
    check_f32(
        "add.rm.f32",
        2,
        &[([1.0, -tiny, 0.0], 1f32.next_down()), ([-1.0, -tiny, 0.0], -next)],
    );
    check_f32("mul.rz.f32", 2, &[([f32::MAX, 2.0, 0.0], f32::MAX)]);
    check_f32("fma.rp.f32", 3, &[([1.0, 1.0, 1e-30], next)]);
    let third = 1.0f32 / 3.0;
    check_f32(
        "div.rz.f32",
        2,
        &[([1.0, 3.0, 0.0], if f64::from(third) > 1.0 / 3.0 { third.next_down() } else { third })],
    );
    check_f32(
        "sqrt.rm.f32",
        1,
        &[([4.0, 0.0, 0.0], 2.0), ([4f32.next_down(), 0.0, 0.0], 2f32.next_down())],
    );
}

#[test]
fn subnormals_are_kept_or_flushed() {
    check_f32("add.ftz.f32", 2, &[([TINY, 0.0, 0.0], 0.0), ([-TINY, -0.0, 0.0], -0.0)]);
    check_f32("mul.ftz.f32", 2, &[([1e-30, 1e-10, 0.0], 0.0)]);
    check_f32("mul.f32", 2, &[([1e-30, 1e-10, 0.0], 1e-40)]);
    check_f32("abs.ftz.f32", 1, &[([-TINY, 0.0, 0.0], 0.0)]);
    check_f32("abs.f32", 1, &[([-TINY, 0.0, 0.0], TINY)]);
}

#[test]
fn saturation_clamps_to_one() {
    check_f32(
        "add.sat.f32",
        2,
        &[
            ([1.0, 1.0, 0.0], 1.0),
            ([-1.0, 0.0, 0.0], 0.0),
            ([NAN, 0.0, 0.0], 0.0),
            ([0.25, 0.25, 0.0], 0.5),
        ],
    );
    check_f32("fma.rn.sat.f32", 3, &[([2.0, 3.0, 4.0], 1.0)]);
}

#[test]
fn minimum_and_maximum_treat_nan_and_zeros() {
    check_f32(
        "min.f32",
        2,
        &[
            ([NAN, 1.0, 0.0], 1.0),
            ([1.0, NAN, 0.0], 1.0),
            ([NAN, NAN, 0.0], NAN),
            ([0.0, -0.0, 0.0], -0.0),
            ([-0.0, 0.0, 0.0], -0.0),
        ],
    );
    check_f32(
        "max.f32",
        2,
        &[([NAN, 1.0, 0.0], 1.0), ([-0.0, 0.0, 0.0], 0.0), ([2.0, 3.0, 0.0], 3.0)],
    );
    check_f32("max.NaN.f32", 2, &[([NAN, 1.0, 0.0], NAN), ([1.0, 2.0, 0.0], 2.0)]);
}

#[test]
fn signs() {
    check_f32("neg.f32", 1, &[([1.5, 0.0, 0.0], -1.5), ([0.0, 0.0, 0.0], -0.0)]);
    // The sign of the first operand goes to the second.
    check_f32("copysign.f32", 2, &[([-1.0, 2.0, 0.0], -2.0), ([1.0, -2.0, 0.0], 2.0)]);
}

#[test]
fn functions() {
    check_f32("rcp.rn.f32", 1, &[([4.0, 0.0, 0.0], 0.25), ([-0.0, 0.0, 0.0], -INF)]);
    check_f32("rcp.approx.ftz.f32", 1, &[([3.0, 0.0, 0.0], 1.0 / 3.0), ([TINY, 0.0, 0.0], INF)]);
    check_f32("sqrt.rn.f32", 1, &[([2.0, 0.0, 0.0], 2f32.sqrt()), ([-1.0, 0.0, 0.0], NAN)]);
    check_f32("rsqrt.approx.f32", 1, &[([4.0, 0.0, 0.0], 0.5), ([0.0, 0.0, 0.0], INF)]);
    check_f32(
        "ex2.approx.ftz.f32",
        1,
        &[([3.0, 0.0, 0.0], 8.0), ([-INF, 0.0, 0.0], 0.0), ([-140.0, 0.0, 0.0], 0.0)],
    );
    check_f32("lg2.approx.f32", 1, &[([8.0, 0.0, 0.0], 3.0), ([0.0, 0.0, 0.0], -INF)]);
    check_f32("sin.approx.f32", 1, &[([0.0, 0.0, 0.0], 0.0)]);
    check_f32("cos.approx.f32", 1, &[([0.0, 0.0, 0.0], 1.0)]);
    check_f32("tanh.approx.f32", 1, &[([0.0, 0.0, 0.0], 0.0), ([INF, 0.0, 0.0], 1.0)]);
    check_f32("div.approx.f32", 2, &[([6.0, 3.0, 0.0], 2.0)]);
    check_f32("div.full.ftz.f32", 2, &[([7.0, 2.0, 0.0], 3.5)]);
}

#[test]
fn doubles() {
    let two = |a: f64, b: f64| [a.to_bits(), b.to_bits(), 0];
    check64("add.f64", 2, &[(two(0.1, 0.2), (0.1f64 + 0.2).to_bits())]);
    check64("mul.rn.f64", 2, &[(two(3.0, 4.0), 12f64.to_bits())]);
    check64("div.rn.f64", 2, &[(two(1.0, 3.0), (1.0f64 / 3.0).to_bits())]);
    check64("sqrt.rn.f64", 1, &[(two(2.0, 0.0), 2f64.sqrt().to_bits())]);
    check64("neg.f64", 1, &[(two(2.0, 0.0), (-2f64).to_bits())]);
}
