//! f64 instructions with a directed rounding: what they give lies next to what is exact, on the
//! right side. Whether a number is above or below the exact one is told by a remainder that the
//! host computes without error.

use crate::harness::*;

const TINY: f64 = f64::from_bits(1);

/// Numbers of many sizes and odd significands.
fn numbers(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 11
    };
    (0..n)
        .map(|_| {
            let exponent = 1023 - 60 + next() % 120;
            let sign = next() & 1;
            f64::from_bits(sign << 63 | exponent << 52 | next() & ((1 << 52) - 1))
        })
        .collect()
}

/// `exact` is above (1), at (0) or below (-1) a candidate.
#[track_caller]
fn check_side(what: &str, mode: &str, got: f64, exact: impl Fn(f64) -> f64) {
    let (low, high) = (exact(got), exact(if got > 0.0 { got.next_up() } else { got.next_down() }));
    let positive = got > 0.0;
    let right = match (mode, positive) {
        // Exact: both directions give it.
        _ if low == 0.0 => true,
        ("rm", true) | ("rz", true) => low > 0.0 && high < 0.0,
        ("rp", false) | ("rz", false) => low < 0.0 && high > 0.0,
        ("rp", true) => low < 0.0 && exact(got.next_down()) > 0.0,
        _ => low > 0.0 && exact(got.next_up()) < 0.0,
    };
    assert!(right, "{what}.{mode}: {got:e} ({:#x})", got.to_bits());
}

fn run3(op: &str, operands: usize, a: &[f64], b: &[f64], c: &[f64]) -> Vec<f64> {
    let names = ["%la", "%lb", "%lc"][..operands].join(", ");
    let inputs: Vec<[u64; 3]> =
        (0..a.len()).map(|i| [a[i], b[i], c[i]].map(f64::to_bits)).collect();
    let out = run64(&format!("{op} %ld, {names};"), &inputs);
    out.into_iter().map(f64::from_bits).collect()
}

/// a + b + c without rounding the larger parts: the sign is right where it is not zero.
fn sign_of_sum(a: f64, b: f64, c: f64) -> f64 {
    let two = |x: f64, y: f64| {
        let s = x + y;
        let z = s - x;
        (s, (x - (s - z)) + (y - z))
    };
    let (s, e) = two(a, b);
    let (t, f) = two(s, c);
    // t is exact here: c cancels s but for a few last places.
    t + (e + f)
}

#[test]
fn results_lie_on_the_right_side() {
    let n = 200;
    let (a, b, c) = (numbers(1, n), numbers(2, n), numbers(3, n));
    let positive: Vec<f64> = a.iter().map(|x| x.abs()).collect();
    for mode in ["rz", "rm", "rp"] {
        for (i, got) in run3(&format!("add.{mode}.f64"), 2, &a, &b, &c).into_iter().enumerate() {
            check_side("add", mode, got, |r| sign_of_sum(a[i], b[i], -r));
        }
        for (i, got) in run3(&format!("sub.{mode}.f64"), 2, &a, &b, &c).into_iter().enumerate() {
            check_side("sub", mode, got, |r| sign_of_sum(a[i], -b[i], -r));
        }
        for (i, got) in run3(&format!("mul.{mode}.f64"), 2, &a, &b, &c).into_iter().enumerate() {
            check_side("mul", mode, got, |r| a[i].mul_add(b[i], -r));
        }
        for (i, got) in run3(&format!("div.{mode}.f64"), 2, &a, &b, &c).into_iter().enumerate() {
            check_side("div", mode, got, |r| (-r).mul_add(b[i], a[i]) * b[i].signum());
        }
        for (i, got) in run3(&format!("rcp.{mode}.f64"), 1, &a, &b, &c).into_iter().enumerate() {
            check_side("rcp", mode, got, |r| (-r).mul_add(a[i], 1.0) * a[i].signum());
        }
        let roots = run3(&format!("sqrt.{mode}.f64"), 1, &positive, &b, &c);
        for (i, got) in roots.into_iter().enumerate() {
            check_side("sqrt", mode, got, |r| (-r).mul_add(r, positive[i]));
        }
        // Whole numbers, of which i128 holds products and sums.
        let whole = |seed: u64, bits: u32| -> Vec<f64> {
            numbers(seed, n)
                .iter()
                .map(|x| (x.to_bits() << 12 >> (64 - bits)) as f64 * x.signum())
                .collect()
        };
        let (x, y) = (whole(4, 50), whole(5, 50));
        for z in [whole(6, 20), whole(7, 52), c.iter().map(|_| 1.0).collect()] {
            // Also where the product all but vanishes.
            let near: Vec<f64> =
                (0..n).map(|i| if i % 3 == 0 { -(x[i] * y[i]) } else { z[i] }).collect();
            let got = run3(&format!("fma.{mode}.f64"), 3, &x, &y, &near);
            for (i, got) in got.into_iter().enumerate() {
                let exact = x[i] as i128 * y[i] as i128 + near[i] as i128;
                if got.abs() < 2f64.powi(53) {
                    assert_eq!(got, exact as f64, "fma.{mode}");
                    continue;
                }
                check_side("fma", mode, got, |r| (exact - r as i128) as f64);
            }
        }
    }
}

#[test]
fn the_ends_of_the_range() {
    let max = f64::MAX;
    let next = 1f64.next_up();
    let below = 1f64.next_down();
    let least = f64::MIN_POSITIVE;
    let inf = f64::INFINITY;
    // Operation, operands, results towards zero, down and up.
    let table: &[(&str, [f64; 3], [f64; 3])] = &[
        ("add", [1.0, TINY, 0.0], [1.0, 1.0, next]),
        ("add", [1.0, -TINY, 0.0], [below, below, 1.0]),
        ("add", [-1.0, TINY, 0.0], [-below, -1.0, -below]),
        ("add", [max, max, 0.0], [max, max, inf]),
        ("add", [-max, -1.0, 0.0], [-max, -inf, -max]),
        ("add", [3.5, -3.5, 0.0], [0.0, -0.0, 0.0]),
        ("add", [0.0, -0.0, 0.0], [0.0, -0.0, 0.0]),
        ("add", [-0.0, -0.0, 0.0], [-0.0, -0.0, -0.0]),
        ("add", [TINY, TINY, 0.0], [2.0 * TINY; 3]),
        ("add", [inf, 1.0, 0.0], [inf; 3]),
        ("sub", [1.0, 1e300, 0.0], [-1e300f64.next_down(), -1e300, -1e300f64.next_down()]),
        ("mul", [max, 2.0, 0.0], [max, max, inf]),
        ("mul", [max, -2.0, 0.0], [-max, -inf, -max]),
        ("mul", [TINY, TINY, 0.0], [0.0, 0.0, TINY]),
        ("mul", [TINY, -TINY, 0.0], [-0.0, -TINY, -0.0]),
        ("mul", [least, 0.5, 0.0], [least / 2.0; 3]),
        // 2^-1022 less a little: the largest subnormal, or up to a normal number.
        ("mul", [least, below, 0.0], [least.next_down(), least.next_down(), least]),
        ("mul", [0.0, -5.0, 0.0], [-0.0; 3]),
        ("div", [1.0, 3.0, 0.0], [1.0 / 3.0, 1.0 / 3.0, (1f64 / 3.0).next_up()]),
        ("div", [TINY, 2.0, 0.0], [0.0, 0.0, TINY]),
        ("div", [max, TINY, 0.0], [max, max, inf]),
        ("div", [1.0, 0.0, 0.0], [inf; 3]),
        ("div", [6.0, -2.0, 0.0], [-3.0; 3]),
        ("fma", [max, 2.0, -max], [max; 3]),
        ("fma", [1.0, 1.0, TINY], [1.0, 1.0, next]),
        ("fma", [1.0, -1.0, 1.0], [0.0, -0.0, 0.0]),
        ("fma", [0.0, -1.0, 0.0], [0.0, -0.0, 0.0]),
        ("fma", [1e200, 1e200, -inf], [-inf; 3]),
        (
            "fma",
            [next, next, -1.0],
            [2.0 * f64::EPSILON, 2.0 * f64::EPSILON, (2.0 * f64::EPSILON).next_up()],
        ),
    ];
    for (op, input, want) in table {
        let operands = if *op == "fma" { 3 } else { 2 };
        for (mode, want) in ["rz", "rm", "rp"].into_iter().zip(want) {
            check64(
                &format!("{op}.{mode}.f64"),
                operands,
                &[(input.map(f64::to_bits), want.to_bits())],
            );
        }
    }
    // A root that is above a number by 2^-78 of itself.
    let just = 1.0 + f64::from((1 << 26) - 1) * f64::EPSILON;
    for (op, x, want) in [
        ("sqrt", 1.0 + f64::from((1 << 27) - 1) * f64::EPSILON, [just, just, just.next_up()]),
        ("sqrt", 4.0, [2.0; 3]),
        ("sqrt", TINY, [2f64.powi(-537); 3]),
        ("sqrt", 2.0, [2f64.sqrt().next_down(), 2f64.sqrt().next_down(), 2f64.sqrt()]),
        ("sqrt", -0.0, [-0.0; 3]),
        ("rcp", 4.0, [0.25; 3]),
        ("rcp", TINY, [max, max, inf]),
        ("rcp", -inf, [-0.0; 3]),
    ] {
        for (mode, want) in ["rz", "rm", "rp"].into_iter().zip(want) {
            check64(
                &format!("{op}.{mode}.f64"),
                1,
                &[([x, 0.0, 0.0f64].map(f64::to_bits), want.to_bits())],
            );
        }
    }
    let nan = run3("add.rz.f64", 2, &[f64::NAN, inf], &[1.0, -inf], &[0.0; 2]);
    assert!(nan.iter().all(|x| x.is_nan()));
}

#[test]
fn saturated_conversions_of_doubles() {
    for (op, to_f32) in
        [("cvt.sat.f64.f64", false), ("cvt.rn.sat.f32.f64", true), ("cvt.rzi.sat.f64.f64", false)]
    {
        let x = [
            -1.0,
            -0.0,
            TINY,
            0.3,
            0.99999999999,
            1.0,
            1.5,
            f64::INFINITY,
            f64::NAN,
            -f64::INFINITY,
        ];
        let inputs: Vec<[u64; 3]> = x.iter().map(|x| [x.to_bits(), 0, 0]).collect();
        let body = if to_f32 {
            format!("{op} %d, %la; cvt.u64.u32 %ld, %d;")
        } else {
            format!("{op} %ld, %la;")
        };
        for (got, x) in run64(&body, &inputs).into_iter().zip(x) {
            let clamped = if x > 0.0 { x.min(1.0) } else { 0.0 };
            let want = match op {
                "cvt.sat.f64.f64" => clamped.to_bits(),
                "cvt.rzi.sat.f64.f64" => clamped.trunc().to_bits(),
                _ => u64::from((clamped as f32).to_bits()),
            };
            assert_eq!(got, want, "{op} of {x}");
        }
    }
    assert_eq!(
        run64("cvt.sat.f64.f32 %ld, %a;", &[[u64::from(2.5f32.to_bits()), 0, 0]])[0],
        1f64.to_bits()
    );
}
