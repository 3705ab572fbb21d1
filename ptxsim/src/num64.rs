//! f64 arithmetic rounded in a direction: significands as whole numbers, what is cut off as one
//! bit, one rounding at the end.

use crate::num::Round;

/// A finite number that is not zero: significand · 2^exponent.
#[derive(Debug, Clone, Copy)]
struct Parts {
    negative: bool,
    significand: u128,
    exponent: i32,
}

fn parts(x: f64) -> Parts {
    let bits = x.to_bits();
    let (field, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let significand = u128::from(fraction | u64::from(field != 0) << 52);
    Parts { negative: bits >> 63 == 1, significand, exponent: field.max(1) - 1075 }
}

/// Leading bit of a sum's operands: above it there is room for a carry.
const TOP: u32 = 125;

impl Parts {
    /// With the leading bit at `TOP`.
    fn raised(self) -> Parts {
        let by = TOP - (127 - self.significand.leading_zeros());
        let exponent = self.exponent - by as i32;
        Parts { significand: self.significand << by, exponent, ..self }
    }

    /// Rounded; the last bit of the significand may stand for anything below it.
    fn rounded(self, mode: Round) -> f64 {
        let away = match mode {
            Round::Up => !self.negative,
            Round::Down => self.negative,
            _ => false,
        };
        let leading = 127 - self.significand.leading_zeros() as i32 + self.exponent;
        let last = (leading - 52).max(-1074);
        let by = last - self.exponent;
        let (kept, rest) = match by {
            ..=0 => (self.significand << -by, false),
            1..=127 => {
                let kept = self.significand >> by;
                (kept, kept << by != self.significand)
            }
            _ => (0, true),
        };
        let kept = kept as u64 + u64::from(rest && away);
        // A carry out of the significand makes the next exponent, of a subnormal the first.
        let field = if kept >> 52 == 0 { 0 } else { (last + 1074) as u64 };
        let bits = (field << 52) + kept;
        let bits = match bits >> 52 {
            // Beyond the largest number: infinity or that number.
            0x7ff.. if away => f64::INFINITY.to_bits(),
            0x7ff.. => f64::MAX.to_bits(),
            _ => bits,
        };
        f64::from_bits(bits | u64::from(self.negative) << 63)
    }
}

/// a · b + c.
pub(crate) fn fma(a: f64, b: f64, c: f64, mode: Round) -> f64 {
    let nearest = a.mul_add(b, c);
    if !(a.is_finite() && b.is_finite() && c.is_finite()) {
        return nearest;
    }
    let negative = a.is_sign_negative() != b.is_sign_negative();
    if a == 0.0 || b == 0.0 {
        let product = if negative { -0.0 } else { 0.0 };
        return if c == 0.0 { zero(product, c, mode) } else { c };
    }
    let (x, y) = (parts(a), parts(b));
    let significand = x.significand * y.significand;
    let product = Parts { negative, significand, exponent: x.exponent + y.exponent };
    if c == 0.0 {
        return product.rounded(mode);
    }
    let (product, c) = (product.raised(), parts(c).raised());
    let larger = (c.exponent, c.significand) > (product.exponent, product.significand);
    let (large, small) = if larger { (c, product) } else { (product, c) };
    let by = (large.exponent - small.exponent) as u32;
    // What is shifted out leaves a bit, which lies far below the last one of the result.
    let lower = if by > 127 { 0 } else { small.significand >> by };
    let lost = by > 127 || lower << by != small.significand;
    let lower = lower | u128::from(lost);
    let significand = if large.negative == small.negative {
        large.significand + lower
    } else {
        large.significand - lower
    };
    if significand == 0 {
        return if mode == Round::Down { -0.0 } else { 0.0 };
    }
    Parts { significand, ..large }.rounded(mode)
}

/// The sum of two zeros.
fn zero(a: f64, b: f64, mode: Round) -> f64 {
    if a.is_sign_negative() == b.is_sign_negative() {
        a
    } else if mode == Round::Down {
        -0.0
    } else {
        0.0
    }
}

pub(crate) fn add(a: f64, b: f64, mode: Round) -> f64 {
    fma(a, 1.0, b, mode)
}

pub(crate) fn mul(a: f64, b: f64, mode: Round) -> f64 {
    let nearest = a * b;
    if !(a.is_finite() && b.is_finite()) || a == 0.0 || b == 0.0 {
        return nearest;
    }
    let (x, y) = (parts(a), parts(b));
    let negative = x.negative != y.negative;
    let significand = x.significand * y.significand;
    Parts { negative, significand, exponent: x.exponent + y.exponent }.rounded(mode)
}

pub(crate) fn div(a: f64, b: f64, mode: Round) -> f64 {
    let nearest = a / b;
    if !(a.is_finite() && b.is_finite()) || a == 0.0 || b == 0.0 {
        return nearest;
    }
    let (x, y) = (parts(a).raised(), parts(b));
    // At least 72 bits, and one for the remainder.
    let (whole, rest) = (x.significand / y.significand, x.significand % y.significand);
    let significand = whole << 1 | u128::from(rest != 0);
    let negative = x.negative != y.negative;
    Parts { negative, significand, exponent: x.exponent - y.exponent - 1 }.rounded(mode)
}

pub(crate) fn sqrt(a: f64, mode: Round) -> f64 {
    let nearest = a.sqrt();
    if !a.is_finite() || a <= 0.0 {
        return nearest;
    }
    let x = parts(a).raised();
    // An even exponent.
    let odd = x.exponent & 1;
    let (square, exponent) = (x.significand << odd, x.exponent - odd);
    let root = square.isqrt();
    let significand = root << 1 | u128::from(root * root != square);
    Parts { negative: false, significand, exponent: exponent / 2 - 1 }.rounded(mode)
}
