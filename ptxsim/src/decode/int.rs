//! Lane functions of integer and bit instructions.

use super::lanes::*;
use crate::ir::*;

#[inline(always)]
fn bfe_u(a: u32, pos: u32, len: u32) -> u32 {
    let (pos, len) = (pos & 255, len & 255);
    if len == 0 || pos > 31 {
        return 0;
    }
    let v = a >> pos;
    if len >= 32 { v } else { v & ((1 << len) - 1) }
}

#[inline(always)]
fn bfe_s(a: u32, pos: u32, len: u32) -> u32 {
    let (pos, len) = (pos & 255, len & 255);
    if len == 0 {
        return 0;
    }
    // Bits past the register repeat the sign.
    let v = i64::from(a as i32) >> pos.min(63);
    if len >= 32 { v as u32 } else { ((v << (64 - len)) >> (64 - len)) as u32 }
}

#[inline(always)]
pub(crate) fn bfi(a: u32, b: u32, pos: u32, len: u32) -> u32 {
    let (pos, len) = (pos & 255, len & 255);
    if len == 0 || pos > 31 {
        return b;
    }
    let field = if len >= 32 { u32::MAX } else { (1 << len) - 1 };
    (b & !(field << pos)) | ((a & field) << pos)
}

/// `bfi` on 64 bits.
#[inline(always)]
pub(crate) fn bfi64(a: u64, b: u64, pos: u32, len: u32) -> u64 {
    let (pos, len) = (pos & 255, len & 255);
    if len == 0 || pos > 63 {
        return b;
    }
    let field = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    (b & !(field << pos)) | ((a & field) << pos)
}

/// `bfe` on 64 bits; signed fields repeat their top bit, or the register's where they pass it.
#[inline(always)]
pub(crate) fn bfe64(a: u64, pos: u32, len: u32, signed: bool) -> u64 {
    let (pos, len) = (pos & 255, len & 255);
    if len == 0 {
        return 0;
    }
    let v = if signed {
        (a as i64 >> pos.min(63)) as u64
    } else if pos > 63 {
        0
    } else {
        a >> pos
    };
    let cut = 64u32.saturating_sub(len);
    if signed { ((v << cut) as i64 >> cut) as u64 } else { v << cut >> cut }
}

/// `prmt` in its default mode: each selector nibble picks a byte, its top bit repeats the sign.
#[inline(always)]
fn prmt(a: u32, b: u32, sel: u32) -> u32 {
    let v = (u64::from(b) << 32) | u64::from(a);
    let mut out = 0;
    for i in 0..4 {
        let s = sel >> (4 * i);
        let byte = (v >> (8 * (s & 7))) as u32 & 0xff;
        let byte = if s & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte };
        out |= byte << (8 * i);
    }
    out
}

/// The special modes of `prmt` use the two low bits of the selector.
fn prmt_mode(mode: &str) -> Option<Fn32> {
    Some(match mode {
        "" => f3!(|a, b, c| prmt(a, b, c)),
        "f4e" => f3!(|a, b, c| prmt(a, b, [0x3210, 0x4321, 0x5432, 0x6543][c as usize & 3])),
        "b4e" => f3!(|a, b, c| prmt(a, b, [0x5670, 0x6701, 0x7012, 0x0123][c as usize & 3])),
        "rc8" => f3!(|a, b, c| prmt(a, b, [0x0000, 0x1111, 0x2222, 0x3333][c as usize & 3])),
        "ecl" => f3!(|a, b, c| prmt(a, b, [0x3210, 0x3211, 0x3222, 0x3333][c as usize & 3])),
        "ecr" => f3!(|a, b, c| prmt(a, b, [0x0000, 0x1110, 0x2210, 0x3210][c as usize & 3])),
        "rc16" => f3!(|a, b, c| prmt(a, b, [0x1010, 0x3232, 0x1010, 0x3232][c as usize & 3])),
        _ => return None,
    })
}

#[inline(always)]
fn lop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut out = 0;
    for i in 0..8 {
        if table >> i & 1 != 0 {
            let x = if i & 4 != 0 { a } else { !a };
            let y = if i & 2 != 0 { b } else { !b };
            let z = if i & 1 != 0 { c } else { !c };
            out |= x & y & z;
        }
    }
    out
}

fn lop3_with<const T: usize>() -> Fn32 {
    f3!(|a, b, c| lop3(a, b, c, T as u32))
}

macro_rules! lop3_table {
    ($t:expr, $($n:literal)*) => {
        match $t {
            $($n => lop3_with::<$n>(),
              x if x == $n + 64 => lop3_with::<{ $n + 64 }>(),
              x if x == $n + 128 => lop3_with::<{ $n + 128 }>(),
              x if x == $n + 192 => lop3_with::<{ $n + 192 }>(),)*
            _ => return None,
        }
    };
}

/// `lop3` with its table as a constant of the function.
pub(super) fn lop3_of(table: u32) -> Option<Fn32> {
    Some(lop3_table!(table,
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
        32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60
        61 62 63))
}

#[inline(always)]
fn div_u(a: u32, b: u32) -> u32 {
    a.checked_div(b).unwrap_or(u32::MAX)
}

#[inline(always)]
fn div_s(a: u32, b: u32) -> u32 {
    if b == 0 { u32::MAX } else { (a as i32).wrapping_div(b as i32) as u32 }
}

#[inline(always)]
fn rem_s(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 }
}

/// Position of the highest bit that differs from the sign (or is set), `u32::MAX` for none.
#[inline(always)]
fn bfind(a: u32) -> u32 {
    if a == 0 { u32::MAX } else { 31 - a.leading_zeros() }
}

#[inline(always)]
fn bytes4(x: u32, signed: bool) -> [i32; 4] {
    x.to_le_bytes().map(|b| if signed { i32::from(b as i8) } else { i32::from(b) })
}

#[inline(always)]
fn dp4a<const SA: bool, const SB: bool>(a: u32, b: u32, c: u32) -> u32 {
    let (a, b) = (bytes4(a, SA), bytes4(b, SB));
    (0..4).fold(c as i32, |s, i| s.wrapping_add(a[i] * b[i])) as u32
}

pub(super) fn dp4a_of(sa: bool, sb: bool) -> Fn32 {
    match (sa, sb) {
        (false, false) => f3!(|a, b, c| dp4a::<false, false>(a, b, c)),
        (false, true) => f3!(|a, b, c| dp4a::<false, true>(a, b, c)),
        (true, false) => f3!(|a, b, c| dp4a::<true, false>(a, b, c)),
        (true, true) => f3!(|a, b, c| dp4a::<true, true>(a, b, c)),
    }
}

/// 32-bit integer instructions. `mode` is `lo`, `hi`, `sat`, `wrap`, `clamp`, … where one is given.
pub(super) fn int32(name: &str, mode: &str, signed: bool) -> Option<Fn32> {
    Some(match (name, mode) {
        ("add", "") => f2!(|a, b| a.wrapping_add(b)),
        ("sub", "") => f2!(|a, b| a.wrapping_sub(b)),
        ("add", "sat") if signed => f2!(|a, b| (a as i32).saturating_add(b as i32) as u32),
        ("sub", "sat") if signed => f2!(|a, b| (a as i32).saturating_sub(b as i32) as u32),
        ("mul", "lo") => f2!(|a, b| a.wrapping_mul(b)),
        ("mul", "hi") if signed => {
            f2!(|a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32)
        }
        ("mul", "hi") => f2!(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        ("mad", "lo") => f3!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("mad", "hi") if signed => f3!(|a, b, c| {
            (((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32).wrapping_add(c)
        }),
        ("mad", "hi") => {
            f3!(|a, b, c| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c))
        }
        ("div", "") if signed => f2!(|a, b| div_s(a, b)),
        ("div", "") => f2!(|a, b| div_u(a, b)),
        ("rem", "") if signed => f2!(|a, b| rem_s(a, b)),
        ("rem", "") => f2!(|a, b| if b == 0 { a } else { a % b }),
        ("neg", "") => f1!(|a| a.wrapping_neg()),
        ("abs", "") => f1!(|a| (a as i32).wrapping_abs() as u32),
        ("min", "") if signed => f2!(|a, b| (a as i32).min(b as i32) as u32),
        ("max", "") if signed => f2!(|a, b| (a as i32).max(b as i32) as u32),
        ("min", "relu") if signed => f2!(|a, b| (a as i32).min(b as i32).max(0) as u32),
        ("max", "relu") if signed => f2!(|a, b| (a as i32).max(b as i32).max(0) as u32),
        ("min", "") => f2!(|a, b| a.min(b)),
        ("max", "") => f2!(|a, b| a.max(b)),
        ("and", "") => f2!(|a, b| a & b),
        ("or", "") => f2!(|a, b| a | b),
        ("xor", "") => f2!(|a, b| a ^ b),
        ("not", "") => f1!(|a| !a),
        ("cnot", "") => f1!(|a| u32::from(a == 0)),
        ("shl", "") => f2!(|a, b| if b > 31 { 0 } else { a << b }),
        ("shr", "") if signed => f2!(|a, b| ((a as i32) >> b.min(31)) as u32),
        ("shr", "") => f2!(|a, b| if b > 31 { 0 } else { a >> b }),
        ("shf.l", "wrap") => f3!(|a, b, c| shf_l(a, b, c & 31)),
        ("shf.l", "clamp") => f3!(|a, b, c| shf_l(a, b, c.min(32))),
        ("shf.r", "wrap") => f3!(|a, b, c| shf_r(a, b, c & 31)),
        ("shf.r", "clamp") => f3!(|a, b, c| shf_r(a, b, c.min(32))),
        ("bmsk", "clamp") => f2!(|a, b| bmsk(a.min(32), b.min(32))),
        ("bmsk", "wrap") => f2!(|a, b| bmsk(a & 31, b & 31)),
        ("bfe", "") if signed => f3!(|a, b, c| bfe_s(a, b, c)),
        ("bfe", "") => f3!(|a, b, c| bfe_u(a, b, c)),
        ("brev", "") => f1!(|a| a.reverse_bits()),
        ("clz", "") => f1!(|a| a.leading_zeros()),
        ("popc", "") => f1!(|a| a.count_ones()),
        ("prmt", m) => return prmt_mode(m),
        ("bfind", "") if signed => f1!(|a| bfind(if a as i32 >= 0 { a } else { !a })),
        ("bfind", "") => f1!(|a| bfind(a)),
        ("bfind", "shiftamt") if signed => f1!(|a| {
            let p = bfind(if a as i32 >= 0 { a } else { !a });
            if p == u32::MAX { p } else { 31 - p }
        }),
        ("bfind", "shiftamt") => f1!(|a| if a == 0 { u32::MAX } else { a.leading_zeros() }),
        ("fns", _) => return None,
        ("sad", "") if signed => {
            f3!(|a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c))
        }
        ("sad", "") => f3!(|a, b, c| a.abs_diff(b).wrapping_add(c)),
        ("mul24", "lo") if signed => f2!(|a, b| low24_s(a).wrapping_mul(low24_s(b)) as u32),
        ("mul24", "lo") => f2!(|a, b| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff)),
        _ => return None,
    })
}

/// `n` ones from bit `at`.
#[inline(always)]
fn bmsk(at: u32, n: u32) -> u32 {
    (((1u64 << n) - 1) << at) as u32
}

#[inline(always)]
fn low24_s(a: u32) -> i32 {
    ((a << 8) as i32) >> 8
}

#[inline(always)]
fn shf_l(a: u32, b: u32, n: u32) -> u32 {
    let v = (u64::from(b) << 32) | u64::from(a);
    ((v << n) >> 32) as u32
}

#[inline(always)]
fn shf_r(a: u32, b: u32, n: u32) -> u32 {
    let v = (u64::from(b) << 32) | u64::from(a);
    (v >> n) as u32
}

/// 16-bit integer instructions.
pub(super) fn int16(name: &str, mode: &str, signed: bool) -> Option<Fn32> {
    const M: u32 = 0xffff;
    Some(match (name, mode) {
        ("add", "") => f2!(|a, b| a.wrapping_add(b) & M),
        ("sub", "") => f2!(|a, b| a.wrapping_sub(b) & M),
        ("mul", "lo") => f2!(|a, b| a.wrapping_mul(b) & M),
        ("mul", "hi") if signed => {
            f2!(|a, b| ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u32 & M)
        }
        ("mul", "hi") => f2!(|a, b| ((a & M) * (b & M)) >> 16),
        ("mad", "lo") => f3!(|a, b, c| a.wrapping_mul(b).wrapping_add(c) & M),
        ("div", "") if signed => {
            f2!(|a, b| div_s(i32::from(a as i16) as u32, i32::from(b as i16) as u32) & M)
        }
        ("div", "") => f2!(|a, b| div_u(a & M, b & M) & M),
        ("rem", "") if signed => {
            f2!(|a, b| rem_s(i32::from(a as i16) as u32, i32::from(b as i16) as u32) & M)
        }
        ("rem", "") => f2!(|a, b| if b & M == 0 { a & M } else { (a & M) % (b & M) }),
        ("neg", "") => f1!(|a| a.wrapping_neg() & M),
        ("abs", "") => f1!(|a| u32::from((a as i16).wrapping_abs() as u16)),
        ("min", "") if signed => f2!(|a, b| (a as i16).min(b as i16) as u32 & M),
        ("max", "") if signed => f2!(|a, b| (a as i16).max(b as i16) as u32 & M),
        ("min", "") => f2!(|a, b| (a & M).min(b & M)),
        ("max", "") => f2!(|a, b| (a & M).max(b & M)),
        ("and", "") => f2!(|a, b| a & b & M),
        ("or", "") => f2!(|a, b| (a | b) & M),
        ("xor", "") => f2!(|a, b| (a ^ b) & M),
        ("not", "") => f1!(|a| !a & M),
        ("shl", "") => f2!(|a, b| if b > 15 { 0 } else { (a << b) & M }),
        ("shr", "") if signed => f2!(|a, b| ((a as i16) >> b.min(15)) as u32 & M),
        ("shr", "") => f2!(|a, b| if b > 15 { 0 } else { (a & M) >> b }),
        _ => return None,
    })
}

/// 64-bit integer instructions with 64-bit operands only.
pub(super) fn int64(name: &str, mode: &str, signed: bool) -> Option<Fn64> {
    Some(match (name, mode) {
        ("add", "") => g2!(|a, b| a.wrapping_add(b)),
        ("sub", "") => g2!(|a, b| a.wrapping_sub(b)),
        ("mul", "lo") => g2!(|a, b| a.wrapping_mul(b)),
        ("mul", "hi") if signed => {
            g2!(|a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64)
        }
        ("mul", "hi") => g2!(|a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        ("mad", "lo") => g3!(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("div", "") if signed => {
            g2!(|a, b| if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 })
        }
        ("div", "") => g2!(|a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        ("rem", "") if signed => {
            g2!(|a, b| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 })
        }
        ("rem", "") => g2!(|a, b| if b == 0 { a } else { a % b }),
        ("neg", "") => g1!(|a| a.wrapping_neg()),
        ("abs", "") => g1!(|a| (a as i64).wrapping_abs() as u64),
        ("min", "") if signed => g2!(|a, b| (a as i64).min(b as i64) as u64),
        ("max", "") if signed => g2!(|a, b| (a as i64).max(b as i64) as u64),
        ("min", "") => g2!(|a, b| a.min(b)),
        ("max", "") => g2!(|a, b| a.max(b)),
        ("and", "") => g2!(|a, b| a & b),
        ("or", "") => g2!(|a, b| a | b),
        ("xor", "") => g2!(|a, b| a ^ b),
        ("not", "") => g1!(|a| !a),
        ("brev", "") => g1!(|a| a.reverse_bits()),
        _ => return None,
    })
}

/// 64-bit shifts: the amount is a 32-bit register.
pub(super) fn shift64(name: &str, signed: bool) -> Option<FnShift> {
    macro_rules! shift {
        (|$a:ident, $b:ident| $e:expr) => {
            (|a: &L64, b: &L32, d: &mut L64| {
                for i in 0..W {
                    let ($a, $b) = (a[i], b[i]);
                    d[i] = $e;
                }
            }) as FnShift
        };
    }
    Some(match name {
        "shl" => shift!(|a, b| if b > 63 { 0 } else { a << b }),
        "shr" if signed => shift!(|a, b| ((a as i64) >> b.min(63)) as u64),
        "shr" => shift!(|a, b| if b > 63 { 0 } else { a >> b }),
        _ => return None,
    })
}

/// `mul.wide` and `mad.wide` of 32-bit factors.
pub(super) fn wide32(signed: bool) -> FnWide {
    if signed {
        wide!(|a, b, c| (i64::from(a as i32) * i64::from(b as i32)).wrapping_add(c as i64) as u64)
    } else {
        wide!(|a, b, c| (u64::from(a) * u64::from(b)).wrapping_add(c))
    }
}

/// `mul.wide` and `mad.wide` of 16-bit factors.
pub(super) fn wide16(signed: bool) -> Fn32 {
    if signed {
        f3!(|a, b, c| (i32::from(a as i16) * i32::from(b as i16)).wrapping_add(c as i32) as u32)
    } else {
        f3!(|a, b, c| ((a & 0xffff) * (b & 0xffff)).wrapping_add(c))
    }
}

/// `popc` and `clz` of 64-bit registers.
pub(super) fn count64(name: &str) -> Option<FnNarrow> {
    Some(match name {
        "popc" => narrow!(|a| a.count_ones()),
        "clz" => narrow!(|a| a.leading_zeros()),
        "bfind" => narrow!(|a| if a == 0 { u32::MAX } else { 63 - a.leading_zeros() }),
        _ => return None,
    })
}
