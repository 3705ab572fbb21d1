//! Lane functions of f16, bf16 and their packed pairs.

use super::float::{max, max_nan, min, min_nan, saturate};
use super::lanes::*;
use crate::ir::*;
use crate::num::*;

/// bf16 instead of f16.
pub(super) const BF: u8 = 1;
/// Flush subnormals (f16 only).
pub(super) const FLUSH: u8 = 2;
/// Clamp the result to [0, 1].
pub(super) const CLAMP: u8 = 4;
/// Negative results become 0.
pub(super) const RELU: u8 = 8;

#[inline(always)]
pub(super) fn to32<const F: u8>(h: u32) -> f32 {
    let h = h & 0xffff;
    if F & BF != 0 {
        return bf16_to_f32(h);
    }
    f16_to_f32(if F & FLUSH != 0 && h & 0x7c00 == 0 { h & 0x8000 } else { h })
}

#[inline(always)]
fn to16<const F: u8>(x: f32) -> u32 {
    let x = if F & CLAMP != 0 { saturate(x) } else { x };
    let x = if F & RELU != 0 && x <= 0.0 { 0.0 } else { x };
    if F & BF != 0 {
        return f32_to_bf16(x);
    }
    let h = f32_to_f16(x);
    if F & FLUSH != 0 && h & 0x7c00 == 0 { h & 0x8000 } else { h }
}

macro_rules! half_fns {
    ($($name:ident($($x:ident),*) = $e:expr;)*) => {$(
        #[inline(always)]
        fn $name<const F: u8>($($x: u32),*) -> u32 {
            $(let $x = to32::<F>($x);)*
            to16::<F>($e)
        }
    )*};
}

// A sum or product of two 16-bit floats rounded to f32 and then to 16 bits is the correctly
// rounded one: f32 has more than twice the bits plus two.
half_fns! {
    add(a, b) = a + b;
    sub(a, b) = a - b;
    mul(a, b) = a * b;
    hmin(a, b) = f32::from_bits(min::<0>(a.to_bits(), b.to_bits()));
    hmax(a, b) = f32::from_bits(max::<0>(a.to_bits(), b.to_bits()));
    hmin_nan(a, b) = f32::from_bits(min_nan::<0>(a.to_bits(), b.to_bits()));
    hmax_nan(a, b) = f32::from_bits(max_nan::<0>(a.to_bits(), b.to_bits()));
    ex2(a) = a.exp2();
    tanh(a) = a.tanh();
}

#[inline(always)]
fn fma<const F: u8>(a: u32, b: u32, c: u32) -> u32 {
    let [a, b, c] = [a, b, c].map(|x| f64::from(to32::<F>(x)));
    // The product is exact in f64; the sum is rounded to odd, then once to 16 bits.
    let h = round_16(sum_to_odd(a * b, c), Round::Nearest, F & BF != 0);
    to16::<F>(if F & BF != 0 { bf16_to_f32(h) } else { f16_to_f32(h) })
}

#[inline(always)]
fn neg<const F: u8>(a: u32) -> u32 {
    let a = a & 0xffff;
    (if F & FLUSH != 0 && a & 0x7c00 == 0 { a & 0x8000 } else { a }) ^ 0x8000
}

#[inline(always)]
fn abs<const F: u8>(a: u32) -> u32 {
    neg::<F>(a) & 0x7fff
}

fn with<const F: u8>(name: &str, packed: bool, nan: bool) -> Option<Fn32> {
    macro_rules! one {
        ($f:ident) => {
            if packed {
                f1!(|a| $f::<F>(a & 0xffff) | ($f::<F>(a >> 16) << 16))
            } else {
                f1!(|a| $f::<F>(a))
            }
        };
    }
    macro_rules! two {
        ($f:ident) => {
            if packed {
                f2!(|a, b| $f::<F>(a & 0xffff, b & 0xffff) | ($f::<F>(a >> 16, b >> 16) << 16))
            } else {
                f2!(|a, b| $f::<F>(a, b))
            }
        };
    }
    Some(match name {
        "add" => two!(add),
        "sub" => two!(sub),
        "mul" => two!(mul),
        "min" if nan => two!(hmin_nan),
        "max" if nan => two!(hmax_nan),
        "min" => two!(hmin),
        "max" => two!(hmax),
        "neg" => one!(neg),
        "abs" => one!(abs),
        "ex2" => one!(ex2),
        "tanh" => one!(tanh),
        "fma" if packed => f3!(|a, b, c| {
            let hi = fma::<F>(a >> 16, b >> 16, c >> 16);
            fma::<F>(a & 0xffff, b & 0xffff, c & 0xffff) | (hi << 16)
        }),
        "fma" => f3!(|a, b, c| fma::<F>(a, b, c)),
        _ => return None,
    })
}

/// f16 and bf16 instructions, single or packed, by their flags.
pub(super) fn half_op(name: &str, flags: u8, packed: bool, nan: bool) -> Option<Fn32> {
    match flags {
        0 => with::<0>(name, packed, nan),
        1 => with::<1>(name, packed, nan),
        2 => with::<2>(name, packed, nan),
        4 => with::<4>(name, packed, nan),
        6 => with::<6>(name, packed, nan),
        8 => with::<8>(name, packed, nan),
        9 => with::<9>(name, packed, nan),
        10 => with::<10>(name, packed, nan),
        _ => None,
    }
}
