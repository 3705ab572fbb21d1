//! `mma.sync`: fragments are spread over the lanes as the PTX manual lays them out.
//!
//! The product is computed in f32, each multiplication exact, sums rounded to nearest in the
//! order of k. Hardware sums in an order and precision of its own; both are within the error
//! of an f32 dot product.

use super::warp::Warp;
use crate::ir::*;
use crate::num::*;

const M: usize = 16;
const N: usize = 8;

/// Executes an `mma` of a full warp.
pub(crate) fn mma(w: &mut Warp, op: &Mma) {
    match op.kind {
        MmaKind::F16 | MmaKind::Bf16 | MmaKind::Tf32 => float(w, op),
        MmaKind::Int8(sa, sb) => int8(w, op, sa, sb),
    }
}

fn float(w: &mut Warp, op: &Mma) {
    let mut c = [[0f32; N]; M];
    load_acc(w, op, &mut c);
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || match (op.kind, op.k) {
            (MmaKind::F16, 16) => pairs::<16, false>(w, op, &mut c),
            (MmaKind::F16, _) => pairs::<8, false>(w, op, &mut c),
            (MmaKind::Bf16, 16) => pairs::<16, true>(w, op, &mut c),
            (MmaKind::Bf16, _) => pairs::<8, true>(w, op, &mut c),
            (_, 8) => tf32::<8>(w, op, &mut c),
            (_, _) => tf32::<4>(w, op, &mut c),
        },
    );
    store_acc(w, op, &c);
}

/// Accumulators: registers 0 and 1 hold row `lane/4`, 2 and 3 row `lane/4 + 8`, columns
/// `2·(lane%4)` and the next. As f16, two columns share a register.
fn load_acc(w: &Warp, op: &Mma, c: &mut [[f32; N]; M]) {
    if op.half_acc {
        for (r, &s) in op.c.iter().enumerate() {
            for (l, &v) in w.get32(s).iter().enumerate() {
                let (row, col) = (l / 4 + 8 * r, 2 * (l % 4));
                c[row][col] = f16_to_f32(v & 0xffff);
                c[row][col + 1] = f16_to_f32(v >> 16);
            }
        }
        return;
    }
    for (r, &s) in op.c.iter().enumerate() {
        for (l, &v) in w.get32(s).iter().enumerate() {
            c[l / 4 + 8 * (r / 2)][2 * (l % 4) + r % 2] = f32::from_bits(v);
        }
    }
}

fn store_acc(w: &mut Warp, op: &Mma, c: &[[f32; N]; M]) {
    if op.half_acc {
        for (r, &s) in op.d.iter().enumerate() {
            for (l, v) in w.r32[s as usize].iter_mut().enumerate() {
                let (row, col) = (l / 4 + 8 * r, 2 * (l % 4));
                *v = f32_to_f16(c[row][col]) | f32_to_f16(c[row][col + 1]) << 16;
            }
        }
        return;
    }
    for (r, &s) in op.d.iter().enumerate() {
        for (l, v) in w.r32[s as usize].iter_mut().enumerate() {
            let x = c[l / 4 + 8 * (r / 2)][2 * (l % 4) + r % 2];
            *v = if x.is_nan() { NAN32 } else { x.to_bits() };
        }
    }
}

/// Products of 16-bit floats. A: registers by rows `lane/4`, `+8`, then columns `+8`; B: column
/// `lane/4`, rows `2·(lane%4)` and the next, then `+8`.
#[inline(always)]
fn pairs<const K: usize, const BF: bool>(w: &Warp, op: &Mma, c: &mut [[f32; N]; M]) {
    let to = |h: u32| if BF { bf16_to_f32(h) } else { f16_to_f32(h) };
    let mut a = [[0f32; K]; M];
    let mut b = [[0f32; N]; K];
    for (r, &s) in op.a.iter().enumerate() {
        let v = w.get32(s);
        let (mut lo, mut hi) = ([0f32; W], [0f32; W]);
        for i in 0..W {
            lo[i] = to(v[i] & 0xffff);
            hi[i] = to(v[i] >> 16);
        }
        for l in 0..W {
            let (row, col) = (l / 4 + 8 * (r % 2), 2 * (l % 4) + 8 * (r / 2));
            a[row][col] = lo[l];
            a[row][col + 1] = hi[l];
        }
    }
    for (r, &s) in op.b.iter().enumerate() {
        let v = w.get32(s);
        let (mut lo, mut hi) = ([0f32; W], [0f32; W]);
        for i in 0..W {
            lo[i] = to(v[i] & 0xffff);
            hi[i] = to(v[i] >> 16);
        }
        for l in 0..W {
            let row = 2 * (l % 4) + 8 * r;
            b[row][l / 4] = lo[l];
            b[row + 1][l / 4] = hi[l];
        }
    }
    multiply(&a, &b, c);
}

/// Products of tf32: the low 13 bits of each operand do not count.
#[inline(always)]
fn tf32<const K: usize>(w: &Warp, op: &Mma, c: &mut [[f32; N]; M]) {
    let to = |x: u32| f32::from_bits(x & 0xffff_e000);
    let mut a = [[0f32; K]; M];
    let mut b = [[0f32; N]; K];
    for (r, &s) in op.a.iter().enumerate() {
        for (l, &v) in w.get32(s).iter().enumerate() {
            a[l / 4 + 8 * (r % 2)][l % 4 + 4 * (r / 2)] = to(v);
        }
    }
    for (r, &s) in op.b.iter().enumerate() {
        for (l, &v) in w.get32(s).iter().enumerate() {
            b[l % 4 + 4 * r][l / 4] = to(v);
        }
    }
    multiply(&a, &b, c);
}

/// The product of two 16-bit or tf32 values is exact in f32, so that multiply and add give the
/// same with and without fused instructions.
#[inline(always)]
fn multiply<const K: usize>(a: &[[f32; K]; M], b: &[[f32; N]; K], c: &mut [[f32; N]; M]) {
    for (row, acc) in a.iter().zip(c.iter_mut()) {
        let mut sum = *acc;
        for (x, bs) in row.iter().zip(b) {
            for (s, y) in sum.iter_mut().zip(bs) {
                *s += x * y;
            }
        }
        *acc = sum;
    }
}

/// 8-bit integers, four to a register along k.
fn int8(w: &mut Warp, op: &Mma, sa: bool, sb: bool) {
    let byte = |v: u32, i: usize, signed: bool| {
        let b = (v >> (8 * i)) as u8;
        if signed { i64::from(b as i8) } else { i64::from(b) }
    };
    let k = op.k as usize;
    let mut a = [[0i64; 32]; M];
    let mut b = [[0i64; N]; 32];
    for (r, &s) in op.a.iter().enumerate() {
        for (l, &v) in w.get32(s).iter().enumerate() {
            for i in 0..4 {
                a[l / 4 + 8 * (r % 2)][4 * (l % 4) + i + 16 * (r / 2)] = byte(v, i, sa);
            }
        }
    }
    for (r, &s) in op.b.iter().enumerate() {
        for (l, &v) in w.get32(s).iter().enumerate() {
            for i in 0..4 {
                b[4 * (l % 4) + i + 16 * r][l / 4] = byte(v, i, sb);
            }
        }
    }
    let c: Vec<L32> = op.c.iter().map(|&s| *w.get32(s)).collect();
    for (r, &s) in op.d.iter().enumerate() {
        for l in 0..W {
            let (row, col) = (l / 4 + 8 * (r / 2), 2 * (l % 4) + r % 2);
            let dot: i64 = (0..k).map(|i| a[row][i] * b[i][col]).sum();
            let sum = i64::from(c[r][l] as i32) + dot;
            let limited = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            w.r32[s as usize][l] = if op.saturate { limited } else { sum } as u32;
        }
    }
}
