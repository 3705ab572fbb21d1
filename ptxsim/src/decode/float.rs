//! Lane functions of floating-point instructions.

use super::lanes::*;
use crate::ir::*;
use crate::num::*;
use crate::num64;

const FTZ: u8 = 1;
const SAT: u8 = 2;

#[inline(always)]
fn input<const F: u8>(x: u32) -> f32 {
    f32::from_bits(if F & FTZ != 0 { flush(x) } else { x })
}

#[inline(always)]
fn output<const F: u8>(x: f32) -> u32 {
    let x = if F & SAT != 0 { saturate(x) } else { x };
    let bits = if x.is_nan() { NAN32 } else { x.to_bits() };
    if F & FTZ != 0 { flush(bits) } else { bits }
}

/// Clamps to [0, 1]; NaN becomes 0.
#[inline(always)]
pub(super) fn saturate(x: f32) -> f32 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

#[inline(always)]
fn add<const F: u8>(a: u32, b: u32) -> u32 {
    output::<F>(input::<F>(a) + input::<F>(b))
}

#[inline(always)]
fn sub<const F: u8>(a: u32, b: u32) -> u32 {
    output::<F>(input::<F>(a) - input::<F>(b))
}

#[inline(always)]
fn mul<const F: u8>(a: u32, b: u32) -> u32 {
    output::<F>(input::<F>(a) * input::<F>(b))
}

#[inline(always)]
fn div<const F: u8>(a: u32, b: u32) -> u32 {
    output::<F>(input::<F>(a) / input::<F>(b))
}

#[inline(always)]
fn fma<const F: u8>(a: u32, b: u32, c: u32) -> u32 {
    output::<F>(input::<F>(a).mul_add(input::<F>(b), input::<F>(c)))
}

#[inline(always)]
pub(super) fn min<const F: u8>(a: u32, b: u32) -> u32 {
    let (x, y) = (input::<F>(a), input::<F>(b));
    if x.is_nan() {
        return output::<F>(y);
    }
    // Of the two zeros the negative one is smaller.
    let take_x = x < y || y.is_nan() || (x == y && x.is_sign_negative());
    output::<F>(if take_x { x } else { y })
}

#[inline(always)]
pub(super) fn max<const F: u8>(a: u32, b: u32) -> u32 {
    let (x, y) = (input::<F>(a), input::<F>(b));
    if x.is_nan() {
        return output::<F>(y);
    }
    let take_x = x > y || y.is_nan() || (x == y && x.is_sign_positive());
    output::<F>(if take_x { x } else { y })
}

#[inline(always)]
pub(super) fn min_nan<const F: u8>(a: u32, b: u32) -> u32 {
    let nan = input::<F>(a).is_nan() || input::<F>(b).is_nan();
    if nan { NAN32 } else { min::<F>(a, b) }
}

#[inline(always)]
pub(super) fn max_nan<const F: u8>(a: u32, b: u32) -> u32 {
    let nan = input::<F>(a).is_nan() || input::<F>(b).is_nan();
    if nan { NAN32 } else { max::<F>(a, b) }
}

#[inline(always)]
fn neg<const F: u8>(a: u32) -> u32 {
    if F & FTZ != 0 { flush(a) ^ 0x8000_0000 } else { a ^ 0x8000_0000 }
}

#[inline(always)]
fn abs<const F: u8>(a: u32) -> u32 {
    if F & FTZ != 0 { flush(a) & 0x7fff_ffff } else { a & 0x7fff_ffff }
}

macro_rules! unary {
    ($($name:ident = |$x:ident| $e:expr;)*) => {$(
        #[inline(always)]
        fn $name<const F: u8>(a: u32) -> u32 {
            let $x = input::<F>(a);
            output::<F>($e)
        }
    )*};
}

unary! {
    ex2 = |x| x.exp2();
    lg2 = |x| x.log2();
    sin = |x| x.sin();
    cos = |x| x.cos();
    tanh = |x| x.tanh();
    rcp = |x| 1.0 / x;
    sqrt = |x| x.sqrt();
    rsqrt = |x| (1.0 / f64::from(x).sqrt()) as f32;
}

/// The loop of `fma`, compiled for each vector extension and picked at run time: without fused
/// instructions of the host it would be a library call a lane.
struct Fma<'a, const F: u8>([&'a L32; 3], &'a mut L32);

impl<const F: u8> pulp::WithSimd for Fma<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Fma([a, b, c], d) = self;
        for i in 0..W {
            d[i] = fma::<F>(a[i], b[i], c[i]);
        }
    }
}

fn fma_lanes<const F: u8>(a: &L32, b: &L32, c: &L32, d: &mut L32) {
    pulp::Arch::new().dispatch(Fma::<F>([a, b, c], d));
}

/// The same for f64.
struct Fma64<'a>([&'a L64; 3], &'a mut L64);

impl pulp::WithSimd for Fma64<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Fma64([a, b, c], d) = self;
        for i in 0..W {
            let [x, y, z] = [a[i], b[i], c[i]].map(f64::from_bits);
            d[i] = x.mul_add(y, z).to_bits();
        }
    }
}

fn fma64_lanes(a: &L64, b: &L64, c: &L64, d: &mut L64) {
    pulp::Arch::new().dispatch(Fma64([a, b, c], d));
}

fn fma_of(flags: u8) -> Fn32 {
    match flags {
        0 => fma_lanes::<0>,
        1 => fma_lanes::<1>,
        2 => fma_lanes::<2>,
        _ => fma_lanes::<3>,
    }
}

/// The exact sum and product of f32 values in f64, rounded to odd.
#[inline(always)]
fn directed<const M: u8>(x: f64) -> u32 {
    let mode = match M {
        1 => Round::Zero,
        2 => Round::Down,
        _ => Round::Up,
    };
    let r = round_f32(x, mode);
    // An overflow stays at the largest finite value when it rounds towards zero.
    let r = if r.is_infinite() && x.is_finite() && directed_clamps(M, x) {
        f32::MAX.copysign(x as f32)
    } else {
        r
    };
    if r.is_nan() { NAN32 } else { r.to_bits() }
}

fn directed_clamps(mode: u8, x: f64) -> bool {
    match mode {
        1 => true,
        2 => x > 0.0,
        _ => x < 0.0,
    }
}

macro_rules! directed2 {
    ($mode:expr, |$a:ident, $b:ident| $e:expr) => {
        match $mode {
            Round::Zero => f2!(|a, b| {
                let ($a, $b) = wide2(a, b);
                directed::<1>($e)
            }),
            Round::Down => f2!(|a, b| {
                let ($a, $b) = wide2(a, b);
                directed::<2>($e)
            }),
            _ => f2!(|a, b| {
                let ($a, $b) = wide2(a, b);
                directed::<3>($e)
            }),
        }
    };
}

#[inline(always)]
fn wide2(a: u32, b: u32) -> (f64, f64) {
    (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)))
}

#[inline(always)]
fn fma_odd(a: u32, b: u32, c: u32) -> f64 {
    let (x, y) = wide2(a, b);
    sum_to_odd(x * y, f64::from(f32::from_bits(c)))
}

/// `add`, `sub`, `mul`, `div`, `fma`, `rcp`, `sqrt` of f32 with a directed rounding.
pub(super) fn f32_directed(name: &str, mode: Round) -> Option<Fn32> {
    Some(match name {
        "add" => directed2!(mode, |a, b| sum_to_odd(a, b)),
        "sub" => directed2!(mode, |a, b| sum_to_odd(a, -b)),
        "mul" => directed2!(mode, |a, b| a * b),
        "div" => directed2!(mode, |a, b| quotient_to_odd(a as f32, b as f32)),
        "rcp" => match mode {
            Round::Zero => f1!(|a| directed::<1>(quotient_to_odd(1.0, f32::from_bits(a)))),
            Round::Down => f1!(|a| directed::<2>(quotient_to_odd(1.0, f32::from_bits(a)))),
            _ => f1!(|a| directed::<3>(quotient_to_odd(1.0, f32::from_bits(a)))),
        },
        "sqrt" => match mode {
            Round::Zero => f1!(|a| directed::<1>(root_to_odd(f32::from_bits(a)))),
            Round::Down => f1!(|a| directed::<2>(root_to_odd(f32::from_bits(a)))),
            _ => f1!(|a| directed::<3>(root_to_odd(f32::from_bits(a)))),
        },
        "fma" | "mad" => match mode {
            Round::Zero => f3!(|a, b, c| directed::<1>(fma_odd(a, b, c))),
            Round::Down => f3!(|a, b, c| directed::<2>(fma_odd(a, b, c))),
            _ => f3!(|a, b, c| directed::<3>(fma_odd(a, b, c))),
        },
        _ => return None,
    })
}

/// f32 instructions rounded to nearest. The approximate ones are computed as exactly as the
/// host can: hardware may differ by the error the PTX manual allows.
pub(super) fn f32_op(name: &str, flags: u8, nan: bool) -> Option<Fn32> {
    Some(match name {
        "add" => by_flags!(flags, f2, add, a, b),
        "sub" => by_flags!(flags, f2, sub, a, b),
        "mul" => by_flags!(flags, f2, mul, a, b),
        "div" => by_flags!(flags, f2, div, a, b),
        "fma" | "mad" => fma_of(flags),
        "min" if nan => by_flags!(flags, f2, min_nan, a, b),
        "max" if nan => by_flags!(flags, f2, max_nan, a, b),
        "min" => by_flags!(flags, f2, min, a, b),
        "max" => by_flags!(flags, f2, max, a, b),
        "neg" => by_flags!(flags, f1, neg, a),
        "abs" => by_flags!(flags, f1, abs, a),
        "ex2" => by_flags!(flags, f1, ex2, a),
        "lg2" => by_flags!(flags, f1, lg2, a),
        "sin" => by_flags!(flags, f1, sin, a),
        "cos" => by_flags!(flags, f1, cos, a),
        "tanh" => by_flags!(flags, f1, tanh, a),
        "rcp" => by_flags!(flags, f1, rcp, a),
        "sqrt" => by_flags!(flags, f1, sqrt, a),
        "rsqrt" => by_flags!(flags, f1, rsqrt, a),
        "copysign" => f2!(|a, b| (a & 0x8000_0000) | (b & 0x7fff_ffff)),
        _ => return None,
    })
}

fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

/// f64 instructions, rounded to nearest.
pub(super) fn f64_op(name: &str) -> Option<Fn64> {
    const SIGN: u64 = 1 << 63;
    Some(match name {
        "add" => g2!(|a, b| (d(a) + d(b)).to_bits()),
        "sub" => g2!(|a, b| (d(a) - d(b)).to_bits()),
        "mul" => g2!(|a, b| (d(a) * d(b)).to_bits()),
        "div" => g2!(|a, b| (d(a) / d(b)).to_bits()),
        "fma" | "mad" => fma64_lanes,
        "min" => g2!(|a, b| d(a).min(d(b)).to_bits()),
        "max" => g2!(|a, b| d(a).max(d(b)).to_bits()),
        "neg" => g1!(|a| a ^ SIGN),
        "abs" => g1!(|a| a & !SIGN),
        "rcp" => g1!(|a| (1.0 / d(a)).to_bits()),
        "sqrt" => g1!(|a| d(a).sqrt().to_bits()),
        "rsqrt" => g1!(|a| (1.0 / d(a).sqrt()).to_bits()),
        "copysign" => g2!(|a, b| (a & SIGN) | (b & !SIGN)),
        _ => return None,
    })
}

macro_rules! directed64 {
    ($mode:expr, $g:ident, |$($a:ident),*| $e:expr) => {
        match $mode {
            Round::Zero => $g!(|$($a),*| { const M: Round = Round::Zero; $e(M).to_bits() }),
            Round::Down => $g!(|$($a),*| { const M: Round = Round::Down; $e(M).to_bits() }),
            _ => $g!(|$($a),*| { const M: Round = Round::Up; $e(M).to_bits() }),
        }
    };
}

/// f64 instructions with a directed rounding.
pub(super) fn f64_directed(name: &str, mode: Round) -> Option<Fn64> {
    Some(match name {
        "add" => directed64!(mode, g2, |a, b| |m| num64::add(d(a), d(b), m)),
        "sub" => directed64!(mode, g2, |a, b| |m| num64::add(d(a), -d(b), m)),
        "mul" => directed64!(mode, g2, |a, b| |m| num64::mul(d(a), d(b), m)),
        "div" => directed64!(mode, g2, |a, b| |m| num64::div(d(a), d(b), m)),
        "rcp" => directed64!(mode, g1, |a| |m| num64::div(1.0, d(a), m)),
        "sqrt" => directed64!(mode, g1, |a| |m| num64::sqrt(d(a), m)),
        "fma" | "mad" => directed64!(mode, g3, |a, b, c| |m| num64::fma(d(a), d(b), d(c), m)),
        _ => return None,
    })
}
