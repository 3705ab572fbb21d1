//! Sums of `mma` as tensor cores take them, against the rule in whole numbers.

use ptxsim::{DeviceConfig, MmaSums};

use crate::harness::warp_on;
use crate::matrix::{a16, b16, c, pack};

/// A format of factors: bits of its significand after the point, its bias, and where both lie.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    F16,
    Bf16,
    Tf32,
    F32,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::F16 => "f16",
            Format::Bf16 => "bf16",
            Format::Tf32 => "tf32",
            Format::F32 => "f32",
        }
    }

    fn fraction(self) -> u32 {
        match self {
            Format::F16 => 10,
            Format::Bf16 => 7,
            Format::Tf32 | Format::F32 => 23,
        }
    }

    /// Significand with its sign, and its exponent: significand * 2^(exponent - fraction) is the
    /// value. 0 is `None`.
    fn parts(self, bits: u32) -> Option<(i128, i32)> {
        let bits = if self == Format::Tf32 { bits & 0xffff_e000 } else { bits };
        let fraction = self.fraction();
        let (exponents, bias) = if self == Format::F16 { (5, 15) } else { (8, 127) };
        let field = (bits >> fraction & ((1 << exponents) - 1)) as i32;
        assert!(field != (1 << exponents) - 1, "finite numbers alone");
        let below = i128::from(bits & ((1 << fraction) - 1));
        let significand = below + if field == 0 { 0 } else { 1 << fraction };
        let negative = bits >> (fraction + exponents) & 1 == 1;
        let signed = if negative { -significand } else { significand };
        (significand != 0).then_some((signed, field.max(1) - bias))
    }
}

/// How a device sums 16-bit factors.
#[derive(Debug, Clone, Copy)]
struct Rule {
    block: usize,
    extra: i32,
}

impl Rule {
    fn of(self, format: Format) -> Rule {
        Rule { block: if format == Format::Tf32 { self.block / 2 } else { self.block }, ..self }
    }

    fn sums(self) -> MmaSums {
        MmaSums::Truncated { block: self.block as u32, extra_bits: self.extra as u32 }
    }

    /// The sum as bits of the accumulator, all in whole numbers.
    fn sum(self, format: Format, a: &[u32], b: &[u32], start: u32, half: bool) -> u32 {
        let of = self.of(format);
        let accumulator = if half { Format::F16 } else { Format::F32 };
        let mut sum = start;
        for (a, b) in a.chunks(of.block).zip(b.chunks(of.block)) {
            let infinite = if half { sum & 0x7fff == 0x7c00 } else { sum << 1 == 0xff00_0000 };
            if infinite {
                // Finite products do not bring it back.
                return sum;
            }
            // Signed significand, the exponent of its last bit, the exponent it counts with.
            let mut terms: Vec<(i128, i32, i32)> = vec![];
            if let Some((s, e)) = accumulator.parts(sum) {
                // An f16 counts as the f32 of its value, whose exponents go further down.
                let last = e - accumulator.fraction() as i32;
                let leading = 127 - s.abs().leading_zeros() as i32;
                terms.push((s, last, (last + leading).max(-126)));
            }
            for (&a, &b) in a.iter().zip(b) {
                if let (Some((x, ex)), Some((y, ey))) = (format.parts(a), format.parts(b)) {
                    terms.push((x * y, ex + ey - 2 * format.fraction() as i32, ex + ey));
                }
            }
            let Some(top) = terms.iter().map(|t| t.2).max() else {
                sum = 0;
                continue;
            };
            let last = top - 23 - of.extra;
            let total: i128 = terms.iter().map(|&(s, e, _)| shifted(s, e - last)).sum();
            sum = if half { nearest_f16(total, last) } else { cut_f32(total, last) };
        }
        sum
    }
}

/// s * 2^by, cut toward zero.
fn shifted(s: i128, by: i32) -> i128 {
    let magnitude = match by {
        0.. => s.abs() << by,
        -126..0 => s.abs() >> -by,
        _ => 0,
    };
    if s < 0 { -magnitude } else { magnitude }
}

/// total * 2^last as an f32, cut toward zero.
fn cut_f32(total: i128, last: i32) -> u32 {
    if total == 0 {
        return 0;
    }
    let sign = u32::from(total < 0) << 31;
    let top = 127 - total.abs().leading_zeros() as i32;
    let exponent = (top + last).max(-126);
    let significand = shifted(total.abs(), last - (exponent - 23)) as u32;
    if top + last > 127 {
        return sign | 0x7f80_0000;
    }
    // A subnormal has no leading one, and the field 0.
    sign | (((exponent + 126) as u32) << 23).wrapping_add(significand)
}

/// total * 2^last as an f16, to nearest, ties to even.
fn nearest_f16(total: i128, last: i32) -> u32 {
    if total == 0 {
        return 0;
    }
    let sign = u32::from(total < 0) << 15;
    let top = 127 - total.abs().leading_zeros() as i32;
    let exponent = (top + last).max(-14);
    // Halves of the last place and whether anything lies below them.
    let doubled = shifted(total.abs(), last - (exponent - 11));
    let rest = shifted(doubled, (exponent - 11) - last) != total.abs();
    let up = doubled & 1 == 1 && (rest || doubled & 2 == 2);
    let significand = ((doubled >> 1) + i128::from(up)) as u32;
    sign | (((exponent + 14) as u32) << 10).wrapping_add(significand).min(0x7c00)
}

/// One `mma` of `k`: rows of A, columns of B, the accumulator; the result by row and column.
fn mma(
    sums: MmaSums,
    format: Format,
    half: bool,
    a: &[Vec<u32>],
    b: &[Vec<u32>],
    start: &[Vec<u32>],
) -> Vec<Vec<u32>> {
    let k = a[0].len();
    let (name, acc) = (format.name(), if half { "f16" } else { "f32" });
    let op = format!("mma.sync.aligned.m16n8k{k}.row.col.{acc}.{name}.{name}.{acc}");
    let tf = format == Format::Tf32;
    let inputs: Vec<Vec<u32>> = (0..32)
        .map(|l: usize| {
            let (group, thread) = (l >> 2, l % 4);
            let (fa, fb): (Vec<u32>, Vec<u32>) = if tf {
                let at = |i: usize| (group + 8 * (i % 2), thread + 4 * (i / 2));
                (
                    (0..k / 2).map(at).map(|(r, c)| a[r][c]).collect(),
                    (0..k / 4).map(|i| b[group][thread + 4 * i]).collect(),
                )
            } else {
                (
                    pack((0..k / 2).map(|i| a16(l, i)).map(|(r, c)| a[r][c])),
                    pack((0..k / 4).map(|i| b16(l, i)).map(|(r, c)| b[c][r])),
                )
            };
            let fc = (0..4).map(|i| c(l, i)).map(|(r, k)| start[r][k]);
            let fc = if half { pack(fc) } else { fc.collect() };
            [fa, fb, fc].concat()
        })
        .collect();
    let (n_a, n_b) = (if tf { k / 2 } else { k / 4 }, if tf { k / 4 } else { k / 8 });
    let list = |name: char, from: usize, n: usize| {
        let r: Vec<String> = (from..from + n).map(|i| format!("%{name}{i}")).collect();
        format!("{{{}}}", r.join(", "))
    };
    let n = if half { 2 } else { 4 };
    let body = format!(
        "{op} {}, {}, {}, {};",
        list('o', 0, n),
        list('i', 0, n_a),
        list('i', n_a, n_b),
        list('i', n_a + n_b, n)
    );
    let device = DeviceConfig { mma_sums: sums, ..DeviceConfig::new(80) };
    let out = warp_on(device, &body, &inputs, n).unwrap_or_else(|e| panic!("{op}: {e}"));
    let mut result = vec![vec![0; 8]; 16];
    for (lane, o) in out.iter().enumerate() {
        for i in 0..4 {
            let (row, col) = c(lane, i);
            result[row][col] = if half { o[i / 2] >> (16 * (i % 2)) & 0xffff } else { o[i] };
        }
    }
    result
}

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.bits() % n
    }

    /// A finite number: zeros of both signs, subnormals, numbers of one size or of any.
    fn number(&mut self, format: Format, kind: u32) -> u32 {
        let (fraction, exponents) = match format {
            Format::F16 => (10, 5),
            Format::Bf16 => (7, 8),
            _ => (23, 8),
        };
        let middle = (1u32 << (exponents - 1)) - 1;
        let field = match (kind, self.below(8)) {
            (0, _) => middle,
            (1, _) => middle - 4 + self.below(8),
            (_, 0) => return self.below(2) << (fraction + exponents),
            (_, 1) => 0,
            (2, _) => middle - 10 + self.below(20),
            // Large ones overflow, small ones underflow.
            (3, _) => (2 * middle).saturating_sub(self.below(3)),
            _ => 1 + self.below(5),
        };
        // Sums of one sign show a bias, of both cancellation.
        let sign = if kind.is_multiple_of(2) { 0 } else { self.below(2) };
        let below = self.bits() & ((1 << fraction) - 1);
        sign << (fraction + exponents) | field << fraction | below
    }
}

/// Every form, rule and kind of number.
#[test]
fn sums_of_every_form_are_the_rules() {
    let rules = [(4, 0, MmaSums::V100), (8, 1, MmaSums::A100), (16, 2, MmaSums::H100)];
    let mut rules: Vec<(Rule, MmaSums)> =
        rules.map(|(block, extra, preset)| (Rule { block, extra }, preset)).into();
    let odd = Rule { block: 6, extra: 20 };
    rules.push((odd, odd.sums()));
    let forms = [
        (Format::F16, 16, false),
        (Format::F16, 8, false),
        (Format::F16, 16, true),
        (Format::F16, 8, true),
        (Format::Bf16, 16, false),
        (Format::Bf16, 8, false),
        (Format::Tf32, 8, false),
        (Format::Tf32, 4, false),
    ];
    let mut random = Random(7);
    let (mut same_as_f32, mut compared) = (0, 0);
    for (rule, preset) in rules {
        assert_eq!(preset, rule.sums());
        for (format, k, half) in forms {
            for kind in 0..5 {
                if kind == 4 && format != Format::F16 {
                    continue;
                }
                let mut matrix = |rows: usize, columns: usize, format| -> Vec<Vec<u32>> {
                    let number = |_| random.number(format, kind);
                    (0..rows * columns)
                        .map(number)
                        .collect::<Vec<_>>()
                        .chunks(columns)
                        .map(<[u32]>::to_vec)
                        .collect()
                };
                let (a, b) = (matrix(16, k, format), matrix(8, k, format));
                let start = matrix(16, 8, if half { Format::F16 } else { Format::F32 });
                let got = mma(preset, format, half, &a, &b, &start);
                let plain = mma(MmaSums::F32, format, half, &a, &b, &start);
                for row in 0..16 {
                    for col in 0..8 {
                        let want = rule.sum(format, &a[row], &b[col], start[row][col], half);
                        assert_eq!(
                            got[row][col], want,
                            "{format:?} k {k}, half {half}, kind {kind}, {rule:?}: row {row}, column {col}: {:#x}, expected {want:#x}",
                            got[row][col]
                        );
                        compared += 1;
                        same_as_f32 += usize::from(plain[row][col] == want);
                    }
                }
            }
        }
    }
    // It is another sum than the plain one.
    assert!(same_as_f32 * 3 < compared * 2, "{same_as_f32} of {compared} as in f32");
}

/// `start` plus 2^e of sign s at the places k of one `mma` of f16.
fn beside(sums: MmaSums, start: f32, terms: &[(usize, f32, i32)]) -> f32 {
    let (mut a, mut b) = (vec![vec![0; 16]; 16], vec![vec![0; 16]; 8]);
    for &(k, sign, e) in terms {
        // 2^e as 2^-12 times 2^(e + 12), both normal.
        (a[0][k], b[0][k]) = (0x0c00 | (sign.to_bits() >> 16 & 0x8000), ((e + 27) as u32) << 10);
    }
    let mut c = vec![vec![0; 8]; 16];
    c[0][0] = start.to_bits();
    f32::from_bits(mma(sums, Format::F16, false, &a, &b, &c)[0][0])
}

/// What is kept beside a one, as in the experiments of the literature.
#[test]
fn what_is_kept_beside_a_one() {
    let ulp = 2f32.powi(-23);
    let (v100, a100, h100) = (MmaSums::V100, MmaSums::A100, MmaSums::H100);
    // Four halves of the last place: without an extra bit they are lost.
    let four = [0, 1, 2, 3].map(|k| (k, 1.0, -24));
    assert_eq!(
        [v100, a100, h100].map(|m| beside(m, 1.0, &four)),
        [1.0, 1.0 + 2.0 * ulp, 1.0 + 2.0 * ulp]
    );
    assert_eq!(beside(MmaSums::F32, 1.0, &four), 1.0);
    // Four quarters: two extra bits keep them.
    let four = [0, 1, 2, 3].map(|k| (k, 1.0, -25));
    assert_eq!([v100, a100, h100].map(|m| beside(m, 1.0, &four)), [1.0, 1.0, 1.0 + ulp]);
    // Two halves meet in a block of 16, not in blocks of 8: each is cut away alone.
    let two = [(0, 1.0, -24), (8, 1.0, -24)];
    assert_eq!([a100, h100].map(|m| beside(m, 1.0, &two)), [1.0, 1.0 + ulp]);
    // Cut towards zero on both sides of it: three quarters of the last place are lost.
    let three = |sign| [(0, sign, -24), (1, sign, -25)];
    assert_eq!(beside(h100, 1.0, &three(1.0)), 1.0);
    assert_eq!(beside(h100, -1.0, &three(-1.0)), -1.0);
    // Below the one numbers are twice as dense, but what is kept is set before the sum is known.
    assert_eq!(beside(a100, 1.0, &[(0, -1.0, -24)]), 1.0 - ulp / 2.0);
    assert_eq!(beside(v100, 1.0, &[(0, -1.0, -24)]), 1.0);
}

/// A subnormal counts with the least exponent of its format: 2^-24 · 2^15 is aligned as 2^1, and
/// 2^-25 beside it is below what is kept, though not below that of 2^-9.
#[test]
fn subnormal_factors_are_not_normalised() {
    let (mut a, mut b) = (vec![vec![0; 16]; 16], vec![vec![0; 16]; 8]);
    (a[0][0], b[0][0]) = (1, 0x7800);
    (a[0][1], b[0][1]) = (0x0c00, 0x0800);
    let start = vec![vec![0; 8]; 16];
    for sums in [MmaSums::V100, MmaSums::A100, MmaSums::H100] {
        let got = mma(sums, Format::F16, false, &a, &b, &start)[0][0];
        assert_eq!(f32::from_bits(got), 2f32.powi(-9), "{sums:?}");
    }
    let got = mma(MmaSums::F32, Format::F16, false, &a, &b, &start)[0][0];
    assert_eq!(f32::from_bits(got), 2f32.powi(-9) + 2f32.powi(-25));
}

#[test]
fn infinities_and_nan_are_as_in_any_sum() {
    let infinite = 0x7c00;
    for sums in [MmaSums::F32, MmaSums::A100, MmaSums::H100] {
        let of = |a: [u32; 2], b: [u32; 2], start: f32| {
            let (mut rows, mut columns) = (vec![vec![0; 16]; 16], vec![vec![0; 16]; 8]);
            for (k, at) in [0, 9].into_iter().enumerate() {
                (rows[0][at], columns[0][at]) = (a[k], b[k]);
            }
            let mut c = vec![vec![0; 8]; 16];
            c[0][0] = start.to_bits();
            let out = mma(sums, Format::F16, false, &rows, &columns, &c);
            // What is beside it is a number all the same; NaN where infinity meets a zero.
            assert_eq!(out[1][1], 0);
            out[0][0]
        };
        let (one, minus) = (0x3c00, 0xbc00);
        let bits = f32::to_bits;
        assert_eq!(of([infinite, one], [one, one], -5.0), bits(f32::INFINITY));
        assert_eq!(of([infinite, one], [minus, one], 5.0), bits(f32::NEG_INFINITY));
        assert_eq!(of([infinite, infinite], [one, minus], 0.0), 0x7fff_ffff);
        assert_eq!(of([one, one], [one, one], f32::NEG_INFINITY), bits(f32::NEG_INFINITY));
        assert_eq!(of([infinite, one], [one, one], f32::NEG_INFINITY), 0x7fff_ffff);
        assert_eq!(of([0x7e00, one], [one, one], 1.0), 0x7fff_ffff);
        assert_eq!(of([one, one], [one, one], f32::NAN), 0x7fff_ffff);
    }
}

/// Outputs of cards, as Khattak and Mikaitis publish them beside their models: `PTXSIM_TENSOR_CORES` names the folder
/// `model_validation` of github.com/north-numerical-computing/MATLAB-tensor-core.
#[test]
#[ignore = "wants the published outputs of cards"]
fn outputs_of_cards() {
    let folder = std::env::var("PTXSIM_TENSOR_CORES").expect("PTXSIM_TENSOR_CORES names a folder");
    let cards = [
        ("V100", MmaSums::V100, 4),
        ("A100", MmaSums::A100, 8),
        ("A2", MmaSums::A100, 8),
        ("Ada", MmaSums::A100, 8),
        ("L40S", MmaSums::A100, 8),
        ("H100", MmaSums::H100, 16),
        ("H200", MmaSums::H100, 16),
    ];
    for (card, sums, block) in cards {
        for (name, format) in
            [("fp16", Format::F16), ("bf16", Format::Bf16), ("tf32", Format::Tf32)]
        {
            let file = |what: &str, of: &str, radix: u32| -> Option<Vec<Vec<u32>>> {
                let path = format!("{folder}/{card}/{name}/{what}_{card}_{of}.txt");
                let text = std::fs::read_to_string(path).ok()?;
                let number = |w: &str| u32::from_str_radix(w, radix).unwrap();
                Some(text.lines().map(|l| l.split_whitespace().map(number).collect()).collect())
            };
            let Some(a) = file("a", name, 16) else {
                assert!(card == "V100" && name != "fp16", "{card} {name}: no file");
                continue;
            };
            let (b, start) = (file("b", name, 16).unwrap(), file("c", "fp32", 2).unwrap());
            let want = file("d", "fp32", 2).unwrap();
            // They come as the bits of f32.
            let narrow = |x: &u32| match format {
                Format::F16 => half_of(*x),
                Format::Bf16 => *x >> 16,
                _ => *x,
            };
            let k = if format == Format::Tf32 { 8 } else { 16 };
            let wide = |v: &[u32]| -> Vec<u32> {
                let mut v: Vec<u32> = v.iter().map(narrow).collect();
                v.resize(k, 0);
                v
            };
            let block = if format == Format::Tf32 { block / 2 } else { block };
            assert!(a.iter().all(|v| v.len() <= block), "{card} {name}: more than a block");
            let mut wrong = 0;
            for at in (0..a.len()).step_by(8) {
                let some = at..(at + 8).min(a.len());
                let pad = |mut v: Vec<Vec<u32>>, n: usize| {
                    v.resize(n, vec![0; k]);
                    v
                };
                let rows = pad(a[some.clone()].iter().map(|v| wide(v)).collect(), 16);
                let columns = pad(b[some.clone()].iter().map(|v| wide(v)).collect(), 8);
                let mut c = vec![vec![0; 8]; 16];
                for i in 0..some.len() {
                    c[i][i] = start[at + i][0];
                }
                let out = mma(sums, format, false, &rows, &columns, &c);
                wrong += (0..some.len()).filter(|&i| out[i][i] != want[at + i][0]).count();
            }
            println!("{card} {name}: {} outputs, {wrong} differ", a.len());
            assert_eq!(wrong, 0, "{card} {name}");
        }
    }
}

/// The f16 of an f32 that is one.
fn half_of(bits: u32) -> u32 {
    let sign = bits >> 16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let significand = bits & 0x7f_ffff | 0x80_0000;
    match exponent {
        _ if bits << 1 == 0 => sign,
        -14..=15 => sign | ((exponent + 15) as u32) << 10 | significand >> 13 & 0x3ff,
        -24..=-15 => sign | significand >> (13 + (-14 - exponent)),
        _ => panic!("{bits:#x} is no f16"),
    }
}
