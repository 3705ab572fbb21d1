//! Number formats and rounding that the host's own types do not give.

/// Rounding direction of a result that is not exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

/// The NaN that PTX arithmetic returns.
pub(crate) const NAN32: u32 = 0x7fff_ffff;
/// The f16 and bf16 NaN that PTX arithmetic returns.
pub(crate) const NAN16: u32 = 0x7fff;

#[inline(always)]
pub(crate) fn f16_to_f32(h: u32) -> f32 {
    let em = (h & 0x7fff) << 13;
    // Rebias the exponent by a multiplication, which also normalises subnormals.
    let scaled = (f32::from_bits(em) * f32::from_bits(0x7780_0000)).to_bits();
    let special = if em >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled | special | ((h & 0x8000) << 16))
}

/// f32 to f16, to nearest even.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u32 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let a = bits & 0x7fff_ffff;
    let odd = (a >> 13) & 1;
    let normal = (a.wrapping_add(0xfff + odd).wrapping_sub(0x3800_0000)) >> 13;
    // Adding 0.5 lines the bits up with the spacing of f16's subnormals.
    let sub = (f32::from_bits(a) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let r = if a < 0x3880_0000 { sub } else { normal };
    let r = if a >= 0x477f_f000 { 0x7c00 } else { r };
    if a > 0x7f80_0000 { NAN16 } else { r | sign }
}

#[inline(always)]
pub(crate) fn bf16_to_f32(h: u32) -> f32 {
    f32::from_bits(h << 16)
}

/// f32 to bf16, to nearest even.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let r = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { NAN16 } else { r }
}

/// f32 to tf32 (10 mantissa bits kept), to nearest with ties away from zero.
pub(crate) fn f32_to_tf32(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0x7f80_0000 {
        return if x & 0x007f_ffff != 0 { NAN32 } else { x };
    }
    x.wrapping_add(0x1000) & 0xffff_e000
}

/// `a + b` in f64 with the last bit set when the sum is not exact ("round to odd"): rounding
/// that result once more, to a format of at most 51 bits, gives the rounded exact sum.
pub(crate) fn sum_to_odd(a: f64, b: f64) -> f64 {
    let s = a + b;
    if !s.is_finite() {
        return s;
    }
    let bb = s - a;
    let err = (a - (s - bb)) + (b - bb);
    to_odd(s, err)
}

/// Moves a rounded value `s` to the odd neighbour in the direction of the rest `err`.
fn to_odd(s: f64, err: f64) -> f64 {
    let bits = s.to_bits();
    if err == 0.0 || bits & 1 == 1 {
        return s;
    }
    let away = (err > 0.0) == (s > 0.0);
    f64::from_bits(if away { bits + 1 } else { bits - 1 })
}

/// `a / b` of two f32 values, in f64, to odd.
pub(crate) fn quotient_to_odd(a: f32, b: f32) -> f64 {
    let (x, y) = (f64::from(a), f64::from(b));
    let q = x / y;
    if !q.is_finite() || q == 0.0 {
        return q;
    }
    let rest = (-q).mul_add(y, x);
    to_odd(q, if y < 0.0 { -rest } else { rest })
}

/// Square root of an f32 value, in f64, to odd.
pub(crate) fn root_to_odd(a: f32) -> f64 {
    let x = f64::from(a);
    let r = x.sqrt();
    if !r.is_finite() || r == 0.0 { r } else { to_odd(r, (-r).mul_add(r, x)) }
}

/// Rounds an f64 (exact, or rounded to odd) to f32 in the given direction.
pub(crate) fn round_f32(x: f64, mode: Round) -> f32 {
    let n = x as f32;
    let back = f64::from(n);
    if x.is_nan() || back == x || x.is_infinite() {
        return n;
    }
    let down = match mode {
        Round::Nearest => return n,
        Round::Zero => x > 0.0,
        Round::Down => true,
        Round::Up => false,
    };
    if down && back > x {
        next_down(n)
    } else if !down && back < x {
        next_up(n)
    } else {
        n
    }
}

fn next_up(x: f32) -> f32 {
    x.next_up()
}

fn next_down(x: f32) -> f32 {
    x.next_down()
}

/// Rounds an f64 (exact, or rounded to odd) to f16 or bf16 in the given direction.
pub(crate) fn round_16(x: f64, mode: Round, bf: bool) -> u32 {
    let to = |f: f32| if bf { f32_to_bf16(f) } else { f32_to_f16(f) };
    let from = |h: u32| if bf { bf16_to_f32(h) } else { f16_to_f32(h) };
    // f64 to f32 keeps enough bits when it, too, rounds to odd.
    let f = round_f32(x, Round::Zero);
    let f = if f64::from(f) != x && !x.is_nan() && f.to_bits() & 1 == 0 {
        f32::from_bits(f.to_bits() | 1)
    } else {
        f
    };
    let n = to(f);
    let back = f64::from(from(n));
    if x.is_nan() || back == x || mode == Round::Nearest || x.is_infinite() {
        return n;
    }
    let down = match mode {
        Round::Down => true,
        Round::Up => false,
        _ => x > 0.0,
    };
    let negative = n & 0x8000 != 0;
    if down && back > x {
        if n & 0x7fff == 0 {
            0x8001
        } else if negative {
            n + 1
        } else {
            n - 1
        }
    } else if !down && back < x {
        if n & 0x7fff == 0 {
            1
        } else if negative {
            n - 1
        } else {
            n + 1
        }
    } else {
        n
    }
}

/// Flushes a subnormal f32 to zero of its sign.
#[inline(always)]
pub(crate) fn flush(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0 { x & 0x8000_0000 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_goes_there_and_back() {
        for h in 0..0x1_0000u32 {
            let f = f16_to_f32(h);
            if f.is_nan() {
                assert!(h & 0x7c00 == 0x7c00 && h & 0x3ff != 0);
                assert_eq!(f32_to_f16(f), NAN16);
            } else {
                assert_eq!(f32_to_f16(f), h, "{h:#x}");
            }
        }
    }

    #[test]
    fn f16_halfway_cases_go_to_even() {
        for h in 0..0x7bffu32 {
            let mid = (f64::from(f16_to_f32(h)) + f64::from(f16_to_f32(h + 1))) / 2.0;
            let even = if h & 1 == 0 { h } else { h + 1 };
            assert_eq!(f32_to_f16(mid as f32), even);
            assert_eq!(f32_to_f16((mid as f32).next_up()), h + 1);
            assert_eq!(f32_to_f16((mid as f32).next_down()), h);
            assert_eq!(round_16(mid, Round::Zero, false), h);
            assert_eq!(round_16(mid, Round::Up, false), h + 1);
            assert_eq!(round_16(-mid, Round::Down, false), 0x8000 | (h + 1));
            assert_eq!(round_16(mid * (1.0 + 1e-15), Round::Nearest, false), h + 1);
        }
        assert_eq!(f32_to_f16(65519.996), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
    }

    #[test]
    fn known_f16_values() {
        assert_eq!(f16_to_f32(0x3c00), 1.0);
        assert_eq!(f16_to_f32(0xc000), -2.0);
        assert_eq!(f16_to_f32(0x7bff), 65504.0);
        assert_eq!(f16_to_f32(0x0001), 2f32.powi(-24));
        assert_eq!(bf16_to_f32(0x3f80), 1.0);
        assert_eq!(f32_to_bf16(1.0 + 2f32.powi(-8)), 0x3f80);
        assert_eq!(f32_to_bf16(1.0 + 3.0 * 2f32.powi(-8)), 0x3f82);
    }

    #[test]
    fn directed_rounding() {
        let third = quotient_to_odd(1.0, 3.0);
        assert_eq!(round_f32(third, Round::Nearest), 1.0 / 3.0);
        assert!(f64::from(round_f32(third, Round::Zero)) < 1.0 / 3.0);
        assert!(f64::from(round_f32(third, Round::Up)) > 1.0 / 3.0);
        assert_eq!(sum_to_odd(1.0, 1e-30), f64::from_bits(1f64.to_bits() + 1));
        assert_eq!(sum_to_odd(1.0, -1e-30), f64::from_bits(1f64.to_bits() - 1));
    }
}
