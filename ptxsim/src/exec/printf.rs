//! `printf` as the CUDA programming guide has it: flags `# 0+-` and space, width, precision (either
//! may be `*`), sizes `hh h l ll`, conversions `d i u o x X p e E f F g G a A c s %`. Anything else
//! after a `%` is printed as it stands.

use crate::fault::Fault;

/// Where values come from.
pub(super) trait Source {
    /// The next value, of 4 or 8 bytes.
    fn next(&mut self, bytes: u32) -> Result<u64, Fault>;
    /// The bytes of a string.
    fn string(&mut self, address: u64) -> Result<Vec<u8>, Fault>;
}

#[derive(Debug, Clone, Copy, Default)]
struct Spec {
    alternate: bool,
    zero: bool,
    plus: bool,
    space: bool,
    left: bool,
    width: usize,
    precision: Option<usize>,
}

/// More columns or digits than anyone means.
const WIDEST: usize = 4096;

/// Writes the text of a format and its values.
pub(super) fn format(
    format: &[u8],
    values: &mut impl Source,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut rest = format;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = after;
            continue;
        }
        rest = match conversion(after, values, out)? {
            Some(after) => after,
            None => {
                out.push(b'%');
                after
            }
        };
    }
    Ok(())
}

/// One conversion; what comes after it, or `None` when it is none.
fn conversion<'f>(
    mut f: &'f [u8],
    values: &mut impl Source,
    out: &mut Vec<u8>,
) -> Result<Option<&'f [u8]>, Fault> {
    let mut spec = Spec::default();
    while let Some((&flag, after)) = f.split_first() {
        match flag {
            b'#' => spec.alternate = true,
            b'0' => spec.zero = true,
            b'+' => spec.plus = true,
            b' ' => spec.space = true,
            b'-' => spec.left = true,
            _ => break,
        }
        f = after;
    }
    // A number is only taken from the values once the conversion is known to be one.
    let (width, after) = number(f);
    let (precision, after) = match after.split_first() {
        Some((b'.', after)) => {
            let (precision, after) = number(after);
            (Some(precision.unwrap_or(Number::Is(0))), after)
        }
        _ => (None, after),
    };
    let long = after.iter().take_while(|b| **b == b'l').count();
    let short = after.iter().take_while(|b| **b == b'h').count();
    let after = &after[long.max(short)..];
    let Some((&kind, after)) = after.split_first() else { return Ok(None) };
    if !b"diuoxXpeEfFgGaAcs%".contains(&kind) || long > 2 || short > 2 {
        return Ok(None);
    }
    if kind == b'%' {
        out.push(b'%');
        return Ok(Some(after));
    }
    if let Some(n) = width {
        let n = n.value(values)?;
        spec.left |= n < 0;
        spec.width = (n.unsigned_abs() as usize).min(WIDEST);
    }
    if let Some(n) = precision {
        // A negative one is none.
        spec.precision = usize::try_from(n.value(values)?).ok().map(|n| n.min(WIDEST));
    }
    let whole = |values: &mut dyn FnMut(u32) -> Result<u64, Fault>| -> Result<(u64, i64), Fault> {
        let v = values(if long > 0 { 8 } else { 4 })?;
        Ok(match (long, short) {
            (0, 0) => (u64::from(v as u32), i64::from(v as i32)),
            (0, 1) => (u64::from(v as u16), i64::from(v as i16)),
            (0, _) => (u64::from(v as u8), i64::from(v as i8)),
            _ => (v, v as i64),
        })
    };
    match kind {
        b'd' | b'i' => {
            let (_, v) = whole(&mut |n| values.next(n))?;
            let sign = spec.sign(v < 0);
            spec.integer(out, sign, &v.unsigned_abs().to_string());
        }
        b'u' => {
            let (v, _) = whole(&mut |n| values.next(n))?;
            spec.integer(out, "", &v.to_string());
        }
        b'o' => {
            let (v, _) = whole(&mut |n| values.next(n))?;
            let mut digits = format!("{v:o}");
            if spec.alternate && v != 0 {
                digits.insert(0, '0');
            }
            spec.integer(out, "", &digits);
        }
        b'x' | b'X' => {
            let (v, _) = whole(&mut |n| values.next(n))?;
            let upper = kind == b'X';
            let prefix = match (spec.alternate && v != 0, upper) {
                (false, _) => "",
                (true, false) => "0x",
                (true, true) => "0X",
            };
            spec.integer(out, prefix, &if upper { format!("{v:X}") } else { format!("{v:x}") });
        }
        b'p' => {
            let v = values.next(8)?;
            let text = if v == 0 { "(nil)".to_string() } else { format!("{v:#x}") };
            spec.pad(out, text.as_bytes());
        }
        b'c' => {
            let v = values.next(4)? as u8;
            spec.pad(out, &[v]);
        }
        b's' => {
            let address = values.next(8)?;
            let text = values.string(address)?;
            spec.pad(out, &text[..text.len().min(spec.precision.unwrap_or(usize::MAX))]);
        }
        _ => {
            let v = f64::from_bits(values.next(8)?);
            spec.float(out, kind, v);
        }
    }
    Ok(Some(after))
}

/// A width or precision.
enum Number {
    Is(i64),
    Next,
}

impl Number {
    fn value(self, values: &mut impl Source) -> Result<i64, Fault> {
        match self {
            Number::Is(n) => Ok(n),
            Number::Next => Ok(i64::from(values.next(4)? as i32)),
        }
    }
}

fn number(f: &[u8]) -> (Option<Number>, &[u8]) {
    if let Some((b'*', after)) = f.split_first() {
        return (Some(Number::Next), after);
    }
    let digits = f.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return (None, f);
    }
    let n = f[..digits].iter().fold(0i64, |n, b| (10 * n + i64::from(b - b'0')).min(1 << 30));
    (Some(Number::Is(n)), &f[digits..])
}

impl Spec {
    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    fn pad(&self, out: &mut Vec<u8>, text: &[u8]) {
        let blanks = self.width.saturating_sub(text.len());
        if !self.left {
            out.resize(out.len() + blanks, b' ');
        }
        out.extend_from_slice(text);
        if self.left {
            out.resize(out.len() + blanks, b' ');
        }
    }

    /// A sign or prefix and digits; zeros between them where the width asks for them.
    fn digits(&self, out: &mut Vec<u8>, before: &str, digits: &str, zeros: bool) {
        let blanks = self.width.saturating_sub(before.len() + digits.len());
        let zeros = if zeros && self.zero && !self.left { blanks } else { 0 };
        let text = format!("{before}{}{digits}", "0".repeat(zeros));
        self.pad(out, text.as_bytes());
    }

    fn integer(&self, out: &mut Vec<u8>, before: &str, digits: &str) {
        let Some(least) = self.precision else { return self.digits(out, before, digits, true) };
        // No digit of a zero with precision 0; and a precision turns the flag 0 off.
        let digits = if digits == "0" { "" } else { digits };
        let zeros = "0".repeat(least.saturating_sub(digits.len()));
        self.digits(out, before, &format!("{zeros}{digits}"), false);
    }

    fn float(&self, out: &mut Vec<u8>, kind: u8, v: f64) {
        let negative = v.is_sign_negative() && !v.is_nan();
        let upper = kind.is_ascii_uppercase();
        let v = v.abs();
        let cased = |s: String| if upper { s.to_uppercase() } else { s };
        if !v.is_finite() {
            let text = if v.is_nan() { "nan" } else { "inf" };
            return self.digits(out, self.sign(negative), &cased(text.to_string()), false);
        }
        let digits = match kind.to_ascii_lowercase() {
            b'f' => self.fixed(v, self.precision.unwrap_or(6)),
            b'e' => self.scientific(v, self.precision.unwrap_or(6)),
            b'g' => self.general(v),
            _ => {
                let before = format!("{}{}", self.sign(negative), if upper { "0X" } else { "0x" });
                return self.digits(out, &before, &cased(self.hexadecimal(v)), true);
            }
        };
        self.digits(out, self.sign(negative), &cased(digits), true);
    }

    fn fixed(&self, v: f64, precision: usize) -> String {
        let point = if self.alternate && precision == 0 { "." } else { "" };
        format!("{v:.precision$}{point}")
    }

    fn scientific(&self, v: f64, precision: usize) -> String {
        let text = format!("{v:.precision$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let point = if self.alternate && precision == 0 { "." } else { "" };
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(e) => ('-', e),
            None => ('+', exponent),
        };
        format!("{digits}{point}e{sign}{exponent:0>2}")
    }

    fn general(&self, v: f64) -> String {
        let p = self.precision.unwrap_or(6).max(1);
        let text = format!("{v:.*e}", p - 1);
        let exponent: i64 = text.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
        let fixed = (-4..p as i64).contains(&exponent);
        let text = if fixed {
            self.fixed(v, (p as i64 - 1 - exponent) as usize)
        } else {
            self.scientific(v, p - 1)
        };
        if self.alternate {
            return text;
        }
        let (digits, rest) = match text.find('e') {
            Some(at) => text.split_at(at),
            None => (&text[..], ""),
        };
        let digits = match digits.contains('.') {
            true => digits.trim_end_matches('0').trim_end_matches('.'),
            false => digits,
        };
        format!("{digits}{rest}")
    }

    /// Without its `0x`.
    fn hexadecimal(&self, v: f64) -> String {
        let bits = v.to_bits();
        let (field, mut fraction) = ((bits >> 52) as i64, bits & ((1 << 52) - 1));
        let mut leading = u64::from(field != 0);
        let exponent = if v == 0.0 { 0 } else { field.max(1) - 1023 };
        let mut digits = 13;
        if let Some(precision) = self.precision.filter(|p| *p < 13) {
            // To nearest, ties to even.
            let cut = 4 * (13 - precision) as u32;
            let whole = leading << 52 | fraction;
            let (kept, below) = (whole >> cut, whole & ((1 << cut) - 1));
            let half = 1 << (cut - 1);
            let kept = kept + u64::from(below > half || (below == half && kept & 1 == 1));
            (leading, fraction) = ((kept << cut) >> 52, (kept << cut) & ((1 << 52) - 1));
            digits = precision;
        }
        let mut text: String = format!("{fraction:013x}").chars().take(digits).collect();
        match self.precision {
            None => text.truncate(text.trim_end_matches('0').len()),
            Some(p) => text.extend(std::iter::repeat_n('0', p.saturating_sub(13))),
        }
        let point = if text.is_empty() && !self.alternate { "" } else { "." };
        format!("{leading}{point}{text}p{exponent:+}")
    }
}
