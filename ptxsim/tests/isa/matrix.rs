//! `ldmatrix` and `mma.sync`: layouts as the PTX manual spells them, element by element.

use crate::harness::*;

/// Row and column of element `i` of the A fragment (16-bit types, k 16) in a lane.
pub fn a16(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
    let col = thread * 2 + (i & 1) + if i >= 4 { 8 } else { 0 };
    (row, col)
}

/// Row and column of element `i` of the B fragment (16-bit types, k 16).
pub fn b16(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (thread * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }, group)
}

/// Row and column of element `i` of the accumulator.
pub fn c(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

/// Small whole numbers, exact in every format.
fn element(seed: usize, row: usize, col: usize) -> i32 {
    ((row * 31 + col * 17 + seed * 7) % 9) as i32 - 4
}

fn f16(v: i32) -> u32 {
    // Values from -4 to 4: sign, exponent and mantissa by hand.
    let magnitude = [0, 0x3c00, 0x4000, 0x4200, 0x4400][v.unsigned_abs() as usize];
    magnitude | if v < 0 { 0x8000 } else { 0 }
}

fn bf16(v: i32) -> u32 {
    (v as f32).to_bits() >> 16
}

/// The product by the definition.
fn product(k: usize, row: usize, col: usize) -> i32 {
    (0..k).map(|i| element(1, row, i) * element(2, i, col)).sum::<i32>() + element(3, row, col)
}

pub fn pack(v: impl Iterator<Item = u32>) -> Vec<u32> {
    let v: Vec<u32> = v.collect();
    v.chunks(2).map(|p| p[0] | p[1] << 16).collect()
}

fn check_f32(op: &str, n_a: usize, n_b: usize, k: usize, inputs: &[Vec<u32>]) {
    let regs = |name: char, from: usize, n: usize| {
        let r: Vec<String> = (from..from + n).map(|i| format!("%{name}{i}")).collect();
        format!("{{{}}}", r.join(", "))
    };
    let body = format!(
        "{op} {}, {}, {}, {};",
        regs('o', 0, 4),
        regs('i', 0, n_a),
        regs('i', n_a, n_b),
        regs('i', n_a + n_b, 4)
    );
    let out = warp(&body, inputs, 4).unwrap();
    for (lane, o) in out.iter().enumerate() {
        for (i, v) in o.iter().enumerate() {
            let (row, col) = c(lane, i);
            let want = product(k, row, col) as f32;
            assert_eq!(f32::from_bits(*v), want, "{op}: row {row}, column {col}");
        }
    }
}

fn accumulators(lane: usize) -> Vec<u32> {
    (0..4).map(|i| c(lane, i)).map(|(r, k)| (element(3, r, k) as f32).to_bits()).collect()
}

#[test]
fn k16_of_f16_and_bf16() {
    for (ty, to) in [("f16", f16 as fn(i32) -> u32), ("bf16", bf16)] {
        let inputs: Vec<_> = (0..32)
            .map(|l| {
                let a = pack((0..8).map(|i| a16(l, i)).map(|(r, k)| to(element(1, r, k))));
                let b = pack((0..4).map(|i| b16(l, i)).map(|(r, k)| to(element(2, r, k))));
                [a, b, accumulators(l)].concat()
            })
            .collect();
        let op = format!("mma.sync.aligned.m16n8k16.row.col.f32.{ty}.{ty}.f32");
        check_f32(&op, 4, 2, 16, &inputs);
    }
}

#[test]
fn k8_of_f16() {
    let inputs: Vec<_> = (0..32)
        .map(|l| {
            // Elements 0 and 1 in row lane/4, 2 and 3 in row lane/4 + 8.
            let a = pack((0..4).map(|i| {
                let row = (l >> 2) + if i < 2 { 0 } else { 8 };
                f16(element(1, row, (l % 4) * 2 + (i & 1)))
            }));
            let b = pack((0..2).map(|i| f16(element(2, (l % 4) * 2 + i, l >> 2))));
            [a, b, accumulators(l)].concat()
        })
        .collect();
    check_f32("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", 2, 1, 8, &inputs);
}

#[test]
fn k8_and_k4_of_tf32() {
    let tf = |v: i32| (v as f32).to_bits();
    for k in [8, 4] {
        let inputs: Vec<_> = (0..32)
            .map(|l| {
                let (group, thread) = (l >> 2, l % 4);
                let a = (0..k / 2).map(|i| {
                    let row = if i % 2 == 0 { group } else { group + 8 };
                    tf(element(1, row, if i < 2 { thread } else { thread + 4 }))
                });
                let b = (0..k / 4).map(|i| tf(element(2, thread + 4 * i, group)));
                [a.collect(), b.collect(), accumulators(l)].concat()
            })
            .collect();
        let op = format!("mma.sync.aligned.m16n8k{k}.row.col.f32.tf32.tf32.f32");
        check_f32(&op, k / 2, k / 4, k, &inputs);
    }
}

#[test]
fn f16_accumulators() {
    let inputs: Vec<_> = (0..32)
        .map(|l| {
            let a = pack((0..8).map(|i| a16(l, i)).map(|(r, k)| f16(element(1, r, k))));
            let b = pack((0..4).map(|i| b16(l, i)).map(|(r, k)| f16(element(2, r, k))));
            let acc = pack((0..4).map(|i| c(l, i)).map(|(r, k)| f16(element(3, r, k))));
            [a, b, acc].concat()
        })
        .collect();
    let body = "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1, %r2}, {%i0, %i1, %i2, %i3}, {%i4, %i5}, {%i6, %i7};
        mov.b32 {%h1, %h2}, %r1; cvt.f32.f16 %o0, %h1; cvt.f32.f16 %o1, %h2;
        mov.b32 {%h1, %h2}, %r2; cvt.f32.f16 %o2, %h1; cvt.f32.f16 %o3, %h2;";
    let out = warp(body, &inputs, 4).unwrap();
    for (lane, o) in out.iter().enumerate() {
        for (i, v) in o.iter().enumerate() {
            let (row, col) = c(lane, i);
            assert_eq!(f32::from_bits(*v), product(16, row, col) as f32);
        }
    }
}

#[test]
fn k32_of_signed_bytes() {
    let bytes = |f: &dyn Fn(usize) -> i32, n: usize| -> Vec<u32> {
        (0..n)
            .map(|r| (0..4).fold(0, |w, i| w | u32::from(f(4 * r + i) as i8 as u8) << (8 * i)))
            .collect()
    };
    let inputs: Vec<_> = (0..32)
        .map(|l| {
            let (group, thread) = (l >> 2, l % 4);
            let a = bytes(
                &|i| {
                    let row = if (i / 4) % 2 == 0 { group } else { group + 8 };
                    element(1, row, thread * 4 + (i & 3) + if i >= 8 { 16 } else { 0 })
                },
                4,
            );
            let b = bytes(
                &|i| element(2, thread * 4 + (i & 3) + if i >= 4 { 16 } else { 0 }, group),
                2,
            );
            let acc: Vec<u32> =
                (0..4).map(|i| c(l, i)).map(|(r, k)| element(3, r, k) as u32).collect();
            [a, b, acc].concat()
        })
        .collect();
    let body = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%o0, %o1, %o2, %o3}, {%i0, %i1, %i2, %i3}, {%i4, %i5}, {%i6, %i7, %i8, %i9};";
    let out = warp(body, &inputs, 4).unwrap();
    for (lane, o) in out.iter().enumerate() {
        for (i, v) in o.iter().enumerate() {
            let (row, col) = c(lane, i);
            assert_eq!(*v as i32, product(32, row, col), "row {row}, column {col}");
        }
    }
}

/// Shared memory holds 32 rows of 8 halves, row r column c with the value 8·r + c.
const FILL: &str = "mov.u32 %r2, sm; shl.b32 %r1, %tid, 4; add.u32 %r1, %r1, %r2;
    st.shared.v4.u32 [%r1], {%i0, %i1, %i2, %i3}; bar.warp.sync -1;";

fn rows() -> Vec<Vec<u32>> {
    by_lane(|r| (0..4).map(|i| (8 * r + 2 * i) | (8 * r + 2 * i + 1) << 16).collect())
}

#[test]
fn ldmatrix_gives_row_lane_over_four() {
    let body =
        format!("{FILL} ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%o0, %o1, %o2, %o3}}, [%r1];");
    let out = warp(&body, &rows(), 4).unwrap();
    for (lane, o) in out.iter().enumerate() {
        for (m, v) in o.iter().enumerate() {
            let value = |k: usize| (8 * (8 * m + lane / 4) + 2 * (lane % 4) + k) as u32;
            assert_eq!(*v, value(0) | value(1) << 16, "lane {lane}, matrix {m}");
        }
    }
}

#[test]
fn ldmatrix_transposed_gives_column_lane_over_four() {
    let body =
        format!("{FILL} ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {{%o0, %o1}}, [%r1];");
    let out = warp(&body, &rows(), 2).unwrap();
    for (lane, o) in out.iter().enumerate() {
        for (m, v) in o.iter().enumerate() {
            let value = |k: usize| (8 * (8 * m + 2 * (lane % 4) + k) + lane / 4) as u32;
            assert_eq!(*v, value(0) | value(1) << 16, "lane {lane}, matrix {m}");
        }
    }
}

#[test]
fn ldmatrix_x1_takes_the_addresses_of_eight_lanes() {
    // The other lanes' addresses do not count.
    let body = format!(
        "{FILL} setp.ge.u32 %p1, %tid, 8; selp.u32 %r1, 0xfffff001, %r1, %p1;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%o0}}, [%r1];"
    );
    let out = warp(&body, &rows(), 1).unwrap();
    assert_eq!(out[31][0], 62 | 63 << 16);
}
