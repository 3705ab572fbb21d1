//! `cvt`: every pair of types the compilers use, by way of one wide intermediate.

use super::half::to32;
use super::lanes::*;
use super::types::Ty;
use crate::ir::*;
use crate::num::*;

/// A decoded conversion, by the files its source and result live in.
pub(super) enum Cvt {
    To32(Fn32),
    Widen(FnWide),
    Narrow(FnNarrow),
    To64(Fn64),
}

/// How an integer result is rounded.
const RN: u8 = 0;
const RZ: u8 = 1;
const RM: u8 = 2;
const RP: u8 = 3;

#[inline(always)]
fn round_int<const R: u8>(x: f64) -> f64 {
    match R {
        RN => x.round_ties_even(),
        RZ => x.trunc(),
        RM => x.floor(),
        _ => x.ceil(),
    }
}

/// Sign- or zero-extends a narrow integer.
#[inline(always)]
fn extend<const S: u8>(x: u64) -> i128 {
    match S {
        0 => i128::from(x as u8),
        1 => i128::from(x as i8),
        2 => i128::from(x as u16),
        3 => i128::from(x as i16),
        4 => i128::from(x as u32),
        5 => i128::from(x as i32),
        6 => i128::from(x),
        _ => i128::from(x as i64),
    }
}

/// The bits of a narrow integer as its register holds them: signed types sign-extended to
/// the register's 32 bits only where the type is 32 bits wide, narrower ones kept to 16.
#[inline(always)]
fn keep<const D: u8>(x: u64) -> u64 {
    match D {
        0 => x & 0xff,
        1 => x as i8 as u64 & 0xffff_ffff,
        2 => x & 0xffff,
        3 => x as i16 as u64 & 0xffff_ffff,
        4 | 5 => x & 0xffff_ffff,
        _ => x,
    }
}

fn limits(d: u8) -> (i128, i128) {
    match d {
        0 => (0, u8::MAX.into()),
        1 => (i8::MIN.into(), i8::MAX.into()),
        2 => (0, u16::MAX.into()),
        3 => (i16::MIN.into(), i16::MAX.into()),
        4 => (0, u32::MAX.into()),
        5 => (i32::MIN.into(), i32::MAX.into()),
        6 => (0, u64::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

/// Extension without 128-bit arithmetic, for plain conversions.
#[inline(always)]
fn extend64<const S: u8>(x: u64) -> u64 {
    match S {
        0 => u64::from(x as u8),
        1 => x as i8 as u64,
        2 => u64::from(x as u16),
        3 => x as i16 as u64,
        4 => u64::from(x as u32),
        5 => x as i32 as u64,
        _ => x,
    }
}

#[inline(always)]
fn int_int<const S: u8, const D: u8>(x: u64) -> u64 {
    keep::<D>(extend64::<S>(x))
}

#[inline(always)]
fn int_int_sat<const S: u8, const D: u8>(x: u64) -> u64 {
    let (lo, hi) = limits(D);
    keep::<D>(extend::<S>(x).clamp(lo, hi) as u64)
}

/// A float of format `S` (0 f32, 1 f32 flushed, 2 f16, 3 bf16, 4 f64) as f64.
#[inline(always)]
fn float_in<const S: u8>(x: u64) -> f64 {
    match S {
        0 => f64::from(f32::from_bits(x as u32)),
        1 => f64::from(f32::from_bits(flush(x as u32))),
        2 => f64::from(to32::<0>(x as u32)),
        3 => f64::from(to32::<1>(x as u32)),
        _ => f64::from_bits(x),
    }
}

/// Float to integer: rounded, clamped to the range, NaN to 0.
#[inline(always)]
fn float_int<const S: u8, const D: u8, const R: u8>(x: u64) -> u64 {
    let v = round_int::<R>(float_in::<S>(x));
    let r = match D {
        0 => u64::from(v as u8),
        1 => v as i8 as u64,
        2 => u64::from(v as u16),
        3 => v as i16 as u64,
        4 => u64::from(v as u32),
        5 => v as i32 as u64,
        6 => v as u64,
        _ => v as i64 as u64,
    };
    keep::<D>(r)
}

/// Integer to float of format `D`, to nearest or in a direction.
#[inline(always)]
fn int_float<const S: u8, const D: u8, const R: u8>(x: u64) -> u64 {
    let v = extend::<S>(x);
    if R == RN {
        return match D {
            4 => (v as f64).to_bits(),
            0 => u64::from((v as f32).to_bits()),
            _ => u64::from(round_16(int_odd(v), Round::Nearest, D == 3)),
        };
    }
    let odd = int_odd(v);
    match D {
        4 => odd.to_bits(),
        0 => u64::from(round_f32(odd, mode::<R>()).to_bits()),
        _ => u64::from(round_16(odd, mode::<R>(), D == 3)),
    }
}

/// An integer as f64, to odd.
fn int_odd(v: i128) -> f64 {
    let hi = (v >> 32) as f64 * 4_294_967_296.0;
    sum_to_odd(hi, (v & 0xffff_ffff) as f64)
}

fn mode<const R: u8>() -> Round {
    match R {
        RN => Round::Nearest,
        RZ => Round::Zero,
        RM => Round::Down,
        _ => Round::Up,
    }
}

/// Float to float. `R` 0 to 3 are rounding directions, 4 to 7 the same but to an integer value.
#[inline(always)]
fn float_float<const S: u8, const D: u8, const R: u8>(x: u64) -> u64 {
    let v = float_in::<S>(x);
    if R >= 4 {
        let v = match R {
            4 => round_int::<RN>(v),
            5 => round_int::<RZ>(v),
            6 => round_int::<RM>(v),
            _ => round_int::<RP>(v),
        };
        return float_out::<D, RN>(v);
    }
    float_out::<D, R>(v)
}

#[inline(always)]
fn float_out<const D: u8, const R: u8>(v: f64) -> u64 {
    match D {
        4 => v.to_bits(),
        2 | 3 => u64::from(round_16(v, mode::<R>(), D == 3)),
        _ => {
            let r = round_f32(v, mode::<R>());
            let bits = if r.is_nan() { NAN32 } else { r.to_bits() };
            u64::from(if D == 1 { flush(bits) } else { bits })
        }
    }
}

/// Wraps a function on `u64` bits for the register files of source and result.
macro_rules! wrap {
    ($from64:expr, $to64:expr, $f:expr) => {
        match ($from64, $to64) {
            (false, false) => Cvt::To32(f1!(|a| $f(u64::from(a)) as u32)),
            (false, true) => Cvt::Widen(wide!(|a, _, _| $f(u64::from(a)))),
            (true, false) => Cvt::Narrow(narrow!(|a| $f(a) as u32)),
            (true, true) => Cvt::To64(g1!(|a| $f(a))),
        }
    };
}

fn int_index(ty: Ty) -> Option<u8> {
    Some(match ty {
        Ty::U8 | Ty::B8 => 0,
        Ty::S8 => 1,
        Ty::U16 | Ty::B16 => 2,
        Ty::S16 => 3,
        Ty::U32 | Ty::B32 => 4,
        Ty::S32 => 5,
        Ty::U64 | Ty::B64 => 6,
        Ty::S64 => 7,
        _ => return None,
    })
}

macro_rules! pick {
    ($v:expr, [$($n:literal)*], |$c:ident| $body:expr) => {
        match $v { $($n => { const $c: u8 = $n; $body })* _ => return None }
    };
}

fn int_to_int(s: u8, d: u8, sat: bool, wide: (bool, bool)) -> Option<Cvt> {
    Some(pick!(s, [0 1 2 3 4 5 6 7], |S| pick!(d, [0 1 2 3 4 5 6 7], |D| if sat {
        wrap!(wide.0, wide.1, int_int_sat::<S, D>)
    } else {
        wrap!(wide.0, wide.1, int_int::<S, D>)
    })))
}

fn float_to_int(s: u8, d: u8, r: u8, wide: (bool, bool)) -> Option<Cvt> {
    Some(pick!(s, [0 1 2 3 4], |S| pick!(d, [0 1 2 3 4 5 6 7], |D| pick!(
        r,
        [0 1 2 3],
        |R| wrap!(wide.0, wide.1, float_int::<S, D, R>)
    ))))
}

fn int_to_float(s: u8, d: u8, r: u8, wide: (bool, bool)) -> Option<Cvt> {
    Some(pick!(s, [0 1 2 3 4 5 6 7], |S| pick!(d, [0 2 3 4], |D| pick!(
        r,
        [0 1 2 3],
        |R| wrap!(wide.0, wide.1, int_float::<S, D, R>)
    ))))
}

fn float_to_float(s: u8, d: u8, r: u8, wide: (bool, bool)) -> Option<Cvt> {
    // The two that every kernel has, without the way through f64.
    match (s, d, r) {
        (0, 2, 0) => return Some(Cvt::To32(f1!(|a| f32_to_f16(f32::from_bits(a))))),
        (0, 3, 0) => return Some(Cvt::To32(f1!(|a| f32_to_bf16(f32::from_bits(a))))),
        (2, 0, _) if r < 4 => return Some(Cvt::To32(f1!(|a| canonical(f16_to_f32(a & 0xffff))))),
        (3, 0, _) if r < 4 => return Some(Cvt::To32(f1!(|a| canonical(bf16_to_f32(a & 0xffff))))),
        _ => {}
    }
    Some(pick!(s, [0 1 2 3 4], |S| pick!(d, [0 1 2 3 4], |D| pick!(
        r,
        [0 1 2 3 4 5 6 7],
        |R| wrap!(wide.0, wide.1, float_float::<S, D, R>)
    ))))
}

/// Within [0, 1], NaN 0: what is rounded before is the same as what is cut before, as both ends
/// are numbers of every format.
#[inline(always)]
fn float_float_sat<const S: u8, const D: u8, const R: u8>(x: u64) -> u64 {
    let v = float_in::<S>(x);
    let v = if v > 0.0 { v.min(1.0) } else { 0.0 };
    float_float::<4, D, R>(v.to_bits())
}

fn saturated(s: u8, d: u8, r: u8, wide: (bool, bool)) -> Option<Cvt> {
    Some(pick!(s, [0 4], |S| pick!(d, [0 4], |D| pick!(
        r,
        [0 1 2 3 4 5 6 7],
        |R| wrap!(wide.0, wide.1, float_float_sat::<S, D, R>)
    ))))
}

#[inline(always)]
fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

fn float_index(ty: Ty, ftz: bool) -> Option<u8> {
    Some(match ty {
        Ty::F32 if ftz => 1,
        Ty::F32 => 0,
        Ty::F16 => 2,
        Ty::Bf16 => 3,
        Ty::F64 => 4,
        _ => return None,
    })
}

/// Decodes a scalar conversion. `wide` says whether source and result registers are 64-bit.
pub(super) fn cvt(
    to: Ty,
    from: Ty,
    round: Option<&str>,
    ftz: bool,
    sat: bool,
    wide: (bool, bool),
) -> Option<Cvt> {
    if to == Ty::Tf32 && from == Ty::F32 {
        return match round {
            Some("rna") => Some(Cvt::To32(f1!(|a| f32_to_tf32(a)))),
            _ => None,
        };
    }
    let r = match round {
        None | Some("rn") => RN,
        Some("rz") => RZ,
        Some("rm") => RM,
        Some("rp") => RP,
        Some("rni") => 4,
        Some("rzi") => 5,
        Some("rmi") => 6,
        Some("rpi") => 7,
        _ => return None,
    };
    match (from.is_float(), to.is_float()) {
        (false, false) => int_to_int(int_index(from)?, int_index(to)?, sat, wide),
        (true, false) if r >= 4 => {
            float_to_int(float_index(from, ftz)?, int_index(to)?, r - 4, wide)
        }
        (false, true) if r < 4 && !sat => {
            int_to_float(int_index(from)?, float_index(to, false)?, r, wide)
        }
        (true, true) if sat => match (from, to, r) {
            (Ty::F32, Ty::F32, RN) => {
                Some(Cvt::To32(f1!(|a| super::float::saturate(f32::from_bits(a)).to_bits())))
            }
            (Ty::F64, Ty::F64, r) => saturated(4, 4, r, wide),
            (Ty::F64, Ty::F32, r @ (RN | RZ | RM | RP)) if !ftz => saturated(4, 0, r, wide),
            (Ty::F32, Ty::F64, RN) if !ftz => saturated(0, 4, RN, wide),
            _ => None,
        },
        (true, true) => float_to_float(float_index(from, ftz)?, float_index(to, ftz)?, r, wide),
        _ => None,
    }
}

/// `cvt.rn.f16x2.f32 d, a, b`: `a` to the upper half, `b` to the lower.
pub(super) fn cvt_pair(to: Ty, relu: bool, round: Option<&str>) -> Option<Fn32> {
    #[inline(always)]
    fn low(x: u32) -> f32 {
        f32::from_bits(x)
    }
    #[inline(always)]
    fn relu_of(x: u32) -> f32 {
        let x = f32::from_bits(x);
        if x <= 0.0 { 0.0 } else { x }
    }
    Some(match (to, relu, round) {
        (Ty::F16x2, false, Some("rn")) => {
            f2!(|a, b| (f32_to_f16(low(a)) << 16) | f32_to_f16(low(b)))
        }
        (Ty::F16x2, true, Some("rn")) => {
            f2!(|a, b| (f32_to_f16(relu_of(a)) << 16) | f32_to_f16(relu_of(b)))
        }
        (Ty::Bf16x2, false, Some("rn")) => {
            f2!(|a, b| (f32_to_bf16(low(a)) << 16) | f32_to_bf16(low(b)))
        }
        (Ty::Bf16x2, true, Some("rn")) => {
            f2!(|a, b| (f32_to_bf16(relu_of(a)) << 16) | f32_to_bf16(relu_of(b)))
        }
        (Ty::F16x2 | Ty::Bf16x2, false, Some("rz")) => {
            if to == Ty::F16x2 {
                f2!(|a, b| (rz::<false>(a) << 16) | rz::<false>(b))
            } else {
                f2!(|a, b| (rz::<true>(a) << 16) | rz::<true>(b))
            }
        }
        _ => return None,
    })
}

#[inline(always)]
fn rz<const BF: bool>(x: u32) -> u32 {
    round_16(f64::from(f32::from_bits(x)), Round::Zero, BF)
}
