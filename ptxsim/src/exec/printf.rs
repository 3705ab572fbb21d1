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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum V {
        I(i32),
        L(i64),
        D(f64),
        S(&'static str),
    }

    struct Values(Vec<V>, usize);

    impl Source for Values {
        fn next(&mut self, bytes: u32) -> Result<u64, Fault> {
            self.1 += 1;
            let Some(v) = self.0.get(self.1 - 1) else {
                return Err(Fault::BadOperand("no more".into()));
            };
            let (v, wide) = match v {
                V::I(v) => (*v as u32 as u64, 4),
                V::L(v) => (*v as u64, 8),
                V::D(v) => (v.to_bits(), 8),
                V::S(_) => (self.1 as u64, 8),
            };
            assert_eq!(bytes, wide);
            Ok(v)
        }

        fn string(&mut self, address: u64) -> Result<Vec<u8>, Fault> {
            let V::S(text) = self.0[address as usize - 1] else { panic!("no string") };
            Ok(text.as_bytes().to_vec())
        }
    }

    fn print(f: &str, values: &[V]) -> Result<String, Fault> {
        let mut out = Vec::new();
        format(f.as_bytes(), &mut Values(values.to_vec(), 0), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// As glibc prints them.
    #[test]
    fn every_conversion_is_as_c_has_it() {
        let table: &[(&str, &[V], &str)] = &[
            ("%d", &[V::I(-42)], "-42"),
            ("%5d|", &[V::I(42)], "   42|"),
            ("%-5d|", &[V::I(42)], "42   |"),
            ("%05d", &[V::I(-42)], "-0042"),
            ("%+d", &[V::I(7)], "+7"),
            ("% d", &[V::I(7)], " 7"),
            ("%.4d", &[V::I(7)], "0007"),
            ("%8.4d|", &[V::I(-7)], "   -0007|"),
            ("%-08d|", &[V::I(7)], "7       |"),
            ("%.0d|", &[V::I(0)], "|"),
            ("%i", &[V::I(2147483647)], "2147483647"),
            ("%u", &[V::I(-1)], "4294967295"),
            ("%o", &[V::I(8)], "10"),
            ("%#o", &[V::I(8)], "010"),
            ("%#o", &[V::I(0)], "0"),
            ("%x", &[V::I(255)], "ff"),
            ("%X", &[V::I(255)], "FF"),
            ("%#x", &[V::I(255)], "0xff"),
            ("%#X", &[V::I(255)], "0XFF"),
            ("%#x", &[V::I(0)], "0"),
            ("%#010x", &[V::I(255)], "0x000000ff"),
            ("%#.6x", &[V::I(255)], "0x0000ff"),
            ("%hd", &[V::I(70000)], "4464"),
            ("%hhd", &[V::I(200)], "-56"),
            ("%hu", &[V::I(70000)], "4464"),
            ("%hhx", &[V::I(511)], "ff"),
            ("%c", &[V::I(65)], "A"),
            ("%3c|", &[V::I(65)], "  A|"),
            ("%-3c|", &[V::I(65)], "A  |"),
            ("%lld", &[V::L(-5000000000)], "-5000000000"),
            ("%ld", &[V::L(5000000000)], "5000000000"),
            ("%llu", &[V::L(-1)], "18446744073709551615"),
            ("%llx", &[V::L(-1)], "ffffffffffffffff"),
            ("%lo", &[V::L(8)], "10"),
            ("%f", &[V::D(1.5)], "1.500000"),
            ("%.0f", &[V::D(2.5)], "2"),
            ("%#.0f", &[V::D(2.0)], "2."),
            ("%10.3f|", &[V::D(3.14259)], "     3.143|"),
            ("%-10.3f|", &[V::D(3.14259)], "3.143     |"),
            ("%010.3f|", &[V::D(-3.14259)], "-00003.143|"),
            ("%+.1f", &[V::D(0.25)], "+0.2"),
            ("% .1f", &[V::D(0.25)], " 0.2"),
            ("%f", &[V::D(1e20)], "100000000000000000000.000000"),
            ("%.3f", &[V::D(1e-10)], "0.000"),
            ("%e", &[V::D(12345.678)], "1.234568e+04"),
            ("%.0e", &[V::D(15.0)], "2e+01"),
            ("%E", &[V::D(1e-300)], "1.000000E-300"),
            ("%.2e", &[V::D(9.999)], "1.00e+01"),
            ("%e", &[V::D(0.0)], "0.000000e+00"),
            ("%#.0e", &[V::D(1.0)], "1.e+00"),
            ("%g", &[V::D(100000.0)], "100000"),
            ("%g", &[V::D(1000000.0)], "1e+06"),
            ("%g", &[V::D(0.0001)], "0.0001"),
            ("%g", &[V::D(0.00001)], "1e-05"),
            ("%.3g", &[V::D(1234.5)], "1.23e+03"),
            ("%#g", &[V::D(1.0)], "1.00000"),
            ("%G", &[V::D(1e-10)], "1E-10"),
            ("%g", &[V::D(0.0)], "0"),
            ("%.10g", &[V::D(0.1)], "0.1"),
            ("%.0g", &[V::D(123.0)], "1e+02"),
            ("%g", &[V::D(999999.5)], "1e+06"),
            ("%a", &[V::D(1.0)], "0x1p+0"),
            ("%a", &[V::D(0.1)], "0x1.999999999999ap-4"),
            ("%.2a", &[V::D(1.999)], "0x2.00p+0"),
            ("%A", &[V::D(255.0)], "0X1.FEP+7"),
            ("%a", &[V::D(0.0)], "0x0p+0"),
            ("%.0a", &[V::D(1.5)], "0x2p+0"),
            ("%a", &[V::D(-5e-324)], "-0x0.0000000000001p-1022"),
            ("%20a|", &[V::D(1.0)], "              0x1p+0|"),
            ("%020a|", &[V::D(1.0)], "0x000000000000001p+0|"),
            ("%s", &[V::S("hi")], "hi"),
            ("%5s|", &[V::S("hi")], "   hi|"),
            ("%-5s|", &[V::S("hi")], "hi   |"),
            ("%.1s|", &[V::S("hi")], "h|"),
            ("%5.1s|", &[V::S("hi")], "    h|"),
        ];
        for (f, values, want) in table {
            assert_eq!(print(f, values).unwrap(), *want, "{f} {values:?}");
        }
    }

    #[test]
    fn what_is_no_conversion_stands_as_it_is() {
        let values = [V::I(6), V::I(3), V::D(2.5), V::S("x")];
        assert_eq!(print("%*.*f%s%%|%", &values).unwrap(), " 2.500x%|%");
        assert_eq!(print("%-*d|", &[V::I(4), V::I(7)]).unwrap(), "7   |");
        assert_eq!(print("%*d|", &[V::I(-4), V::I(7)]).unwrap(), "7   |");
        assert_eq!(print("%.*d", &[V::I(-1), V::I(7)]).unwrap(), "7");
        assert_eq!(print("%y %lll %5", &[]).unwrap(), "%y %lll %5");
        assert_eq!(print("%f %F", &[V::D(f64::INFINITY), V::D(f64::NAN)]).unwrap(), "inf NAN");
        assert_eq!(
            print("%08f|%+e", &[V::D(f64::NEG_INFINITY), V::D(f64::INFINITY)]).unwrap(),
            "    -inf|+inf"
        );
        assert_eq!(print("%p %p", &[V::L(0x1f), V::L(0)]).unwrap(), "0x1f (nil)");
        assert_eq!(print("%9999999999999d|", &[V::I(1)]).unwrap().len(), WIDEST + 1);
        assert!(print("%d %d", &[V::I(1)]).is_err());
    }
}
