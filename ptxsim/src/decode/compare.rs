//! Comparisons: `setp` and `set` of every type.

use super::lanes::*;
use super::types::Ty;
use crate::ir::*;
use crate::num::{bf16_to_f32, f16_to_f32, flush};

/// All comparison operators of a float type.
macro_rules! floats {
    ($cmp:expr, $m:ident, $to:expr) => {
        match $cmp {
            "eq" => $m!(|a, b| $to(a) == $to(b)),
            "ne" => $m!(|a, b| $to(a) < $to(b) || $to(a) > $to(b)),
            "lt" => $m!(|a, b| $to(a) < $to(b)),
            "le" => $m!(|a, b| $to(a) <= $to(b)),
            "gt" => $m!(|a, b| $to(a) > $to(b)),
            "ge" => $m!(|a, b| $to(a) >= $to(b)),
            // The unordered forms are true when a side is NaN.
            "equ" => $m!(|a, b| unordered($to(a), $to(b)) || $to(a) == $to(b)),
            "neu" => $m!(|a, b| $to(a) != $to(b)),
            "ltu" => $m!(|a, b| unordered($to(a), $to(b)) || $to(a) < $to(b)),
            "leu" => $m!(|a, b| unordered($to(a), $to(b)) || $to(a) <= $to(b)),
            "gtu" => $m!(|a, b| unordered($to(a), $to(b)) || $to(a) > $to(b)),
            "geu" => $m!(|a, b| unordered($to(a), $to(b)) || $to(a) >= $to(b)),
            "num" => $m!(|a, b| !unordered($to(a), $to(b))),
            "nan" => $m!(|a, b| unordered($to(a), $to(b))),
            _ => return None,
        }
    };
}

/// All comparison operators of an integer type; `lo` to `hs` are the unsigned names.
macro_rules! ints {
    ($cmp:expr, $m:ident, $t:ty) => {
        match $cmp {
            "eq" => $m!(|a, b| a as $t == b as $t),
            "ne" => $m!(|a, b| a as $t != b as $t),
            "lt" | "lo" => $m!(|a, b| (a as $t) < (b as $t)),
            "le" | "ls" => $m!(|a, b| a as $t <= b as $t),
            "gt" | "hi" => $m!(|a, b| a as $t > b as $t),
            "ge" | "hs" => $m!(|a, b| a as $t >= b as $t),
            _ => return None,
        }
    };
}

#[inline(always)]
fn unordered<T: PartialOrd>(a: T, b: T) -> bool {
    a.partial_cmp(&b).is_none()
}

#[inline(always)]
fn f(x: u32) -> f32 {
    f32::from_bits(x)
}

#[inline(always)]
fn flushed(x: u32) -> f32 {
    f32::from_bits(flush(x))
}

#[inline(always)]
fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

#[inline(always)]
fn h(x: u32) -> f32 {
    f16_to_f32(x & 0xffff)
}

#[inline(always)]
fn b(x: u32) -> f32 {
    bf16_to_f32(x & 0xffff)
}

/// Comparison of types up to 32 bits.
pub(super) fn cmp32(cmp: &str, ty: Ty, ftz: bool) -> Option<FnCmp32> {
    Some(match ty {
        Ty::F32 if ftz => floats!(cmp, c2, flushed),
        Ty::F32 => floats!(cmp, c2, f),
        Ty::F16 => floats!(cmp, c2, h),
        Ty::Bf16 => floats!(cmp, c2, b),
        Ty::U32 | Ty::B32 => ints!(cmp, c2, u32),
        Ty::S32 => ints!(cmp, c2, i32),
        Ty::U16 | Ty::B16 => ints!(cmp, c2, u16),
        Ty::S16 => ints!(cmp, c2, i16),
        _ => return None,
    })
}

/// Comparison of 64-bit types.
pub(super) fn cmp64(cmp: &str, ty: Ty) -> Option<FnCmp64> {
    Some(match ty {
        Ty::F64 => floats!(cmp, k2, d),
        Ty::U64 | Ty::B64 => ints!(cmp, k2, u64),
        Ty::S64 => ints!(cmp, k2, i64),
        _ => return None,
    })
}
