//! `mma.sync`: fragments are spread over the lanes as the PTX manual lays them out.
//!
//! Each multiplication of floats is exact. Their sums are taken as `DeviceConfig::mma_sums` says:
//! in f32, rounded to nearest after each addition in the order of k, or as tensor cores take
//! them, which cut towards zero (`truncated`). The two differ by more than roundings do: a sum of
//! terms of one sign comes out too small, by a few units in the last place for each block.

use super::truncated::{self, Sums};
use super::warp::Warp;
use crate::config::MmaSums;
use crate::ir::*;
use crate::num::*;

pub(super) const M: usize = 16;
pub(super) const N: usize = 8;

/// Executes an `mma` of a full warp.
pub(crate) fn mma(w: &mut Warp, op: &Mma, sums: MmaSums) {
    match op.kind {
        MmaKind::F16 | MmaKind::Bf16 | MmaKind::Tf32 => {
            let sums = sums.of(op);
            pulp::Arch::new().dispatch(Float { w, op, sums });
        }
        MmaKind::Int8(sa, sb) => int8(w, op, sa, sb),
    }
}

impl MmaSums {
    /// What it means for an instruction; `None` for sums in f32.
    fn of(self, op: &Mma) -> Option<Sums> {
        let MmaSums::Truncated { block, extra_bits } = self else { return None };
        let (block, least) = match op.kind {
            MmaKind::F16 => (block, -14),
            MmaKind::Tf32 => (block / 2, -126),
            _ => (block, -126),
        };
        Some(Sums {
            block: block.max(1) as usize,
            // So many bits are exact in what the sums are taken in.
            extra_bits: extra_bits.min(20) as i32,
            least,
            half_acc: op.half_acc,
        })
    }
}

/// The work of one `mma`, compiled for each vector extension and picked at run time.
struct Float<'a> {
    w: &'a mut Warp,
    op: &'a Mma,
    sums: Option<Sums>,
}

impl pulp::WithSimd for Float<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Float { w, op, sums } = self;
        let mut c = load_acc(w, op);
        match (op.kind, op.k) {
            (MmaKind::F16, 16) => pairs::<16, false>(w, op, sums, &mut c),
            (MmaKind::F16, _) => pairs::<8, false>(w, op, sums, &mut c),
            (MmaKind::Bf16, 16) => pairs::<16, true>(w, op, sums, &mut c),
            (MmaKind::Bf16, _) => pairs::<8, true>(w, op, sums, &mut c),
            (_, 8) => tf32::<8>(w, op, sums, &mut c),
            (_, _) => tf32::<4>(w, op, sums, &mut c),
        }
        store_acc(w, op, &c);
    }
}

/// Accumulators: registers 0 and 1 hold row `lane/4`, 2 and 3 row `lane/4 + 8`, columns
/// `2·(lane%4)` and the next. As f16, two columns share a register.
#[inline(always)]
fn load_acc(w: &Warp, op: &Mma) -> [[f32; N]; M] {
    let mut c = [[0f32; N]; M];
    if op.half_acc {
        for (r, &s) in op.c.iter().enumerate() {
            rows_of_pairs::<N, false>(w.get32(s), &mut c, 8 * r, 0);
        }
        return c;
    }
    for (r, s) in op.c.chunks_exact(2).enumerate() {
        let (x, y) = (w.get32(s[0]), w.get32(s[1]));
        for row in 0..8 {
            for j in 0..4 {
                c[8 * r + row][2 * j] = f32::from_bits(x[4 * row + j]);
                c[8 * r + row][2 * j + 1] = f32::from_bits(y[4 * row + j]);
            }
        }
    }
    c
}

#[inline(always)]
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
    let bits = |x: f32| if x.is_nan() { NAN32 } else { x.to_bits() };
    for (r, s) in op.d.chunks_exact(2).enumerate() {
        for (k, &s) in s.iter().enumerate() {
            let out = &mut w.r32[s as usize];
            for row in 0..8 {
                for j in 0..4 {
                    out[4 * row + j] = bits(c[8 * r + row][2 * j + k]);
                }
            }
        }
    }
}

/// Eight rows of four lanes, two 16-bit floats a lane, to a place in a matrix.
#[inline(always)]
fn rows_of_pairs<const K: usize, const BF: bool>(
    v: &L32,
    m: &mut [[f32; K]; M],
    row0: usize,
    col0: usize,
) {
    let to = |h: u32| if BF { bf16_to_f32(h) } else { f16_to_f32(h) };
    let (mut lo, mut hi) = ([0f32; W], [0f32; W]);
    for i in 0..W {
        lo[i] = to(v[i] & 0xffff);
        hi[i] = to(v[i] >> 16);
    }
    for row in 0..8 {
        for j in 0..4 {
            m[row0 + row][col0 + 2 * j] = lo[4 * row + j];
            m[row0 + row][col0 + 2 * j + 1] = hi[4 * row + j];
        }
    }
}

/// Products of 16-bit floats. A: registers by rows `lane/4`, `+8`, then columns `+8`; B: column
/// `lane/4`, rows `2·(lane%4)` and the next, then `+8`.
#[inline(always)]
fn pairs<const K: usize, const BF: bool>(
    w: &Warp,
    op: &Mma,
    sums: Option<Sums>,
    c: &mut [[f32; N]; M],
) {
    let to = |h: u32| if BF { bf16_to_f32(h) } else { f16_to_f32(h) };
    let mut a = [[0f32; K]; M];
    let mut b = [[0f32; N]; K];
    for (r, &s) in op.a.iter().enumerate().take(K / 4) {
        rows_of_pairs::<K, BF>(w.get32(s), &mut a, 8 * (r % 2), 8 * (r / 2));
    }
    for (r, &s) in op.b.iter().enumerate().take(K / 8) {
        let v = w.get32(s);
        let (mut lo, mut hi) = ([0f32; W], [0f32; W]);
        for i in 0..W {
            lo[i] = to(v[i] & 0xffff);
            hi[i] = to(v[i] >> 16);
        }
        for j in 0..4 {
            for n in 0..N {
                b[8 * r + 2 * j][n] = lo[4 * n + j];
                b[8 * r + 2 * j + 1][n] = hi[4 * n + j];
            }
        }
    }
    match sums {
        None => multiply(&a, &b, c),
        Some(sums) => truncated::multiply(&a, &b, c, sums),
    }
}

/// Products of tf32: the low 13 bits of each operand do not count.
#[inline(always)]
fn tf32<const K: usize>(w: &Warp, op: &Mma, sums: Option<Sums>, c: &mut [[f32; N]; M]) {
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
    match sums {
        None => multiply(&a, &b, c),
        Some(sums) => truncated::multiply(&a, &b, c, sums),
    }
}

/// The product of two 16-bit or tf32 values is exact in f32, so that multiply and add give the
/// same with and without fused instructions.
#[inline(always)]
fn multiply<const K: usize>(a: &[[f32; K]; M], b: &[[f32; N]; K], c: &mut [[f32; N]; M]) {
    // Four rows at a time share the loads of B and do not wait for each other's sums.
    for (rows, acc) in a.chunks_exact(4).zip(c.chunks_exact_mut(4)) {
        let [mut s0, mut s1, mut s2, mut s3] = [acc[0], acc[1], acc[2], acc[3]];
        for k in 0..K {
            for n in 0..N {
                s0[n] += rows[0][k] * b[k][n];
                s1[n] += rows[1][k] * b[k][n];
                s2[n] += rows[2][k] * b[k][n];
                s3[n] += rows[3][k] * b[k][n];
            }
        }
        acc.copy_from_slice(&[s0, s1, s2, s3]);
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
    for ((r, &s), c) in op.d.iter().enumerate().zip(&c) {
        for (l, &c) in c.iter().enumerate() {
            let (row, col) = (l / 4 + 8 * (r / 2), 2 * (l % 4) + r % 2);
            let dot: i64 = (0..k).map(|i| a[row][i] * b[i][col]).sum();
            let sum = i64::from(c as i32) + dot;
            let limited = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            w.r32[s as usize][l] = if op.saturate { limited } else { sum } as u32;
        }
    }
}
