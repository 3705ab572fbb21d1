//! Arithmetic and bit instructions: which lane function, which operands.

use super::types::Ty;
use super::{Decoded, Decoder, float, half, int};
use crate::counters::Class;
use crate::error::Result;
use crate::ir::*;
use crate::num::Round;
use crate::parse::ast::{Immediate, Operand};

/// The modifiers of an arithmetic instruction.
#[derive(Default)]
struct Mods<'a> {
    types: Vec<Ty>,
    round: Option<&'a str>,
    ftz: bool,
    sat: bool,
    approx: bool,
    nan: bool,
    relu: bool,
    cc: bool,
    /// `lo`, `hi`, `wide`, shift and permute modes.
    mode: &'a str,
    direction: &'a str,
}

impl Mods<'_> {
    /// A rounding that is not to nearest.
    fn directed(&self) -> Option<Round> {
        match self.round {
            Some("rz") => Some(Round::Zero),
            Some("rm") => Some(Round::Down),
            Some("rp") => Some(Round::Up),
            _ => None,
        }
    }
}

fn sources(base: &str) -> usize {
    match base {
        "neg" | "abs" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh"
        | "not" | "cnot" | "brev" | "clz" | "popc" | "bfind" => 1,
        "fma" | "mad" | "madc" | "bfe" | "prmt" | "shf" | "sad" | "dp4a" => 3,
        "bfi" | "lop3" => 4,
        _ => 2,
    }
}

const KNOWN: &[&str] = &[
    "add", "sub", "mul", "div", "rem", "fma", "mad", "mul24", "min", "max", "neg", "abs", "and",
    "or", "xor", "not", "cnot", "shl", "shr", "shf", "bfe", "bfi", "brev", "clz", "popc", "prmt",
    "bfind", "sad", "dp4a", "lop3", "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh",
    "copysign", "addc", "subc", "madc", "bmsk",
];

impl Decoder<'_> {
    pub(super) fn arith(&mut self, base: &str, mods: &[&str], o: &[Operand]) -> Decoded {
        if !KNOWN.contains(&base) {
            return self.unknown("no such instruction here");
        }
        let m = self.mods(base, mods)?;
        let Some(&ty) = m.types.first() else { return self.unknown("no type") };
        self.count(o, 1 + sources(base))?;
        if ty == Ty::Pred {
            return self.pred_logic(base, o);
        }
        if m.cc || matches!(base, "addc" | "subc" | "madc") {
            return self.carry(base, &m, ty, o);
        }
        match base {
            "dp4a" => {
                let Some(&second) = m.types.get(1) else { return self.unknown("two types") };
                let f = int::dp4a_of(ty.is_signed(), second.is_signed());
                return self.alu32(f, o, &[Ty::B32; 3], Class::Int);
            }
            "bfi" if ty == Ty::B32 => {
                let op = Op::Bfi {
                    d: self.dst32(&o[0])?,
                    a: self.src32(&o[1], ty)?,
                    b: self.src32(&o[2], ty)?,
                    pos: self.src32(&o[3], Ty::U32)?,
                    len: self.src32(&o[4], Ty::U32)?,
                };
                return Ok((op, Class::Int));
            }
            "bfi" if ty == Ty::B64 => {
                let op = Op::Bfi64 {
                    d: self.dst64(&o[0])?,
                    a: self.src64(&o[1], ty)?,
                    b: self.src64(&o[2], ty)?,
                    pos: self.src32(&o[3], Ty::U32)?,
                    len: self.src32(&o[4], Ty::U32)?,
                };
                return Ok((op, Class::Int));
            }
            "bfe" if ty.is_64() => {
                let op = Op::Bfe64 {
                    signed: ty.is_signed(),
                    d: self.dst64(&o[0])?,
                    a: self.src64(&o[1], ty)?,
                    pos: self.src32(&o[2], Ty::U32)?,
                    len: self.src32(&o[3], Ty::U32)?,
                };
                return Ok((op, Class::Int));
            }
            "lop3" => {
                let Operand::Imm(Immediate::Int(t)) = o[4] else {
                    return self.unknown("the table must be a literal");
                };
                let Some(f) = u32::try_from(t).ok().and_then(int::lop3_of) else {
                    return self.unknown(format!("table {t}"));
                };
                return self.alu32(f, &o[..4], &[Ty::B32; 3], Class::Int);
            }
            _ => {}
        }
        if ty.is_float() { self.float(base, &m, ty, o) } else { self.integer(base, &m, ty, o) }
    }

    fn mods<'m>(&self, base: &str, mods: &[&'m str]) -> Result<Mods<'m>> {
        let mut m = Mods::default();
        for &s in mods {
            if let Some(t) = Ty::parse(s) {
                m.types.push(t);
                continue;
            }
            match s {
                "rn" | "rz" | "rm" | "rp" => m.round = Some(s),
                "ftz" => m.ftz = true,
                "sat" => m.sat = true,
                "approx" | "full" => m.approx = true,
                "NaN" => m.nan = true,
                "relu" => m.relu = true,
                "cc" => m.cc = true,
                "l" | "r" if base == "shf" => m.direction = s,
                "lo" | "hi" | "wide" => m.mode = s,
                "wrap" | "clamp" if matches!(base, "shf" | "bmsk") => m.mode = s,
                "f4e" | "b4e" | "rc8" | "ecl" | "ecr" | "rc16" if base == "prmt" => m.mode = s,
                "shiftamt" if base == "bfind" => m.mode = s,
                _ => return self.unknown(format!("modifier `.{s}`")),
            }
        }
        Ok(m)
    }

    /// `d` and its sources through one 32-bit lane function.
    fn alu32(&mut self, f: Fn32, o: &[Operand], types: &[Ty], class: Class) -> Decoded {
        let d = self.dst32(&o[0])?;
        let mut s = [0; 3];
        for (i, x) in o[1..].iter().enumerate() {
            s[i] = self.src32(x, types[i])?;
        }
        // Absent sources read the first one again: any valid slot does.
        for i in o.len() - 1..3 {
            s[i] = s[0];
        }
        Ok((Op::Alu32 { f, d, a: s[0], b: s[1], c: s[2] }, class))
    }

    fn alu64(&mut self, f: Fn64, o: &[Operand], ty: Ty, class: Class) -> Decoded {
        let d = self.dst64(&o[0])?;
        let mut s = [0; 3];
        for (i, x) in o[1..].iter().enumerate() {
            s[i] = self.src64(x, ty)?;
        }
        for i in o.len() - 1..3 {
            s[i] = s[0];
        }
        Ok((Op::Alu64 { f, d, a: s[0], b: s[1], c: s[2] }, class))
    }

    fn float(&mut self, base: &str, m: &Mods, ty: Ty, o: &[Operand]) -> Decoded {
        if !m.mode.is_empty() {
            return self.unknown(format!("modifier `.{}`", m.mode));
        }
        match ty {
            Ty::F32 => {
                let sfu = matches!(base, "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rsqrt")
                    || (m.approx && matches!(base, "rcp" | "sqrt"));
                let class = if sfu { Class::Sfu } else { Class::Fp32 };
                if base == "tanh" {
                    self.needs(75)?;
                }
                if m.nan {
                    self.needs(80)?;
                }
                let f = match m.directed() {
                    Some(mode) if !m.ftz && !m.sat => float::f32_directed(base, mode),
                    Some(_) => None,
                    None => float::f32_op(base, u8::from(m.ftz) | u8::from(m.sat) << 1, m.nan),
                };
                let Some(f) = f.filter(|_| !m.relu) else {
                    return self.unknown("this form of the f32 instruction");
                };
                self.alu32(f, o, &[ty; 3], class)
            }
            Ty::F64 => {
                let f = match m.directed() {
                    Some(mode) => float::f64_directed(base, mode),
                    None => float::f64_op(base),
                };
                let Some(f) = f.filter(|_| !m.sat && !m.nan && !m.relu) else {
                    return self.unknown("this form of the f64 instruction");
                };
                self.alu64(f, o, ty, Class::Fp64)
            }
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 => {
                let bf = matches!(ty, Ty::Bf16 | Ty::Bf16x2);
                let packed = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
                self.needs(match base {
                    "add" | "sub" | "mul" | "ex2" | "tanh" if bf => 90,
                    "min" | "max" => 80,
                    _ if bf => 80,
                    "ex2" | "tanh" => 75,
                    _ if m.relu => 80,
                    _ => 53,
                })?;
                let flags = (u8::from(bf) * half::BF)
                    | (u8::from(m.ftz && !bf) * half::FLUSH)
                    | (u8::from(m.sat) * half::CLAMP)
                    | (u8::from(m.relu) * half::RELU);
                let nearest = matches!(m.round, None | Some("rn"));
                let f = half::half_op(base, flags, packed, m.nan).filter(|_| nearest);
                let Some(f) = f else {
                    return self.unknown("this form of the 16-bit float instruction");
                };
                let class = if matches!(base, "ex2" | "tanh") { Class::Sfu } else { Class::Fp16 };
                self.alu32(f, o, &[ty; 3], class)
            }
            _ => self.unknown("this type"),
        }
    }

    fn integer(&mut self, base: &str, m: &Mods, ty: Ty, o: &[Operand]) -> Decoded {
        let signed = ty.is_signed();
        if m.round.is_some() || m.ftz || m.approx || m.nan {
            return self.unknown("a float modifier on an integer type");
        }
        let mode = match (m.mode, m.sat, m.relu) {
            (mode, false, false) => mode,
            ("", true, false) => "sat",
            ("", false, true) => {
                self.needs(90)?;
                "relu"
            }
            _ => return self.unknown("these modifiers together"),
        };
        let f = match (base, ty.bytes()) {
            ("mul" | "mad", 4) if mode == "wide" => {
                let d = self.dst64(&o[0])?;
                let (a, b) = (self.src32(&o[1], ty)?, self.src32(&o[2], ty)?);
                let c = match o.get(3) {
                    Some(c) => self.src64(c, Ty::B64)?,
                    None => self.scopes.const64(Const64::Value(0)),
                };
                return Ok((Op::Wide { f: int::wide32(signed), d, a, b, c }, Class::Int));
            }
            ("mul" | "mad", 2) if mode == "wide" => {
                let d = self.dst32(&o[0])?;
                let (a, b) = (self.src32(&o[1], ty)?, self.src32(&o[2], ty)?);
                let c = match o.get(3) {
                    Some(c) => self.src32(c, Ty::B32)?,
                    None => self.scopes.const32(0),
                };
                return Ok((Op::Alu32 { f: int::wide16(signed), d, a, b, c }, Class::Int));
            }
            ("shl" | "shr", 8) => {
                let Some(f) = int::shift64(base, signed) else { return self.unknown("this form") };
                let d = self.dst64(&o[0])?;
                let (a, b) = (self.src64(&o[1], ty)?, self.src32(&o[2], Ty::U32)?);
                return Ok((Op::Shift64 { f, d, a, b }, Class::Int));
            }
            ("popc" | "clz" | "bfind", 8) => {
                let Some(f) = int::count64(base).filter(|_| !signed && mode.is_empty()) else {
                    return self.unknown("this form");
                };
                let (d, a) = (self.dst32(&o[0])?, self.src64(&o[1], ty)?);
                return Ok((Op::Narrow { f, d, a }, Class::Int));
            }
            ("shf", 4) => int::int32(&format!("shf.{}", m.direction), mode, signed),
            (_, 4) => int::int32(base, mode, signed),
            (_, 2) => int::int16(base, mode, signed),
            (_, 8) => {
                let Some(f) = int::int64(base, mode, signed) else {
                    return self.unknown("this form of the 64-bit instruction");
                };
                return self.alu64(f, o, ty, Class::Int);
            }
            _ => None,
        };
        let Some(f) = f else { return self.unknown("this form of the integer instruction") };
        // Shift amounts and field positions are always 32-bit.
        let types = match base {
            "shl" | "shr" => [ty, Ty::U32, Ty::U32],
            "bfe" => [ty, Ty::U32, Ty::U32],
            _ => [ty; 3],
        };
        self.alu32(f, o, &types, Class::Int)
    }

    fn carry(&mut self, base: &str, m: &Mods, ty: Ty, o: &[Operand]) -> Decoded {
        if ty.bytes() != 4 || ty.is_float() {
            return self.unknown("carry of a type that has not 32 bits");
        }
        let op = match (base, m.mode) {
            ("add" | "addc", "") => CarryOp::Add,
            ("sub" | "subc", "") => CarryOp::Sub,
            ("mad" | "madc", "lo") => CarryOp::MadLo,
            ("mad" | "madc", "hi") => CarryOp::MadHi,
            _ => return self.unknown("carry of this instruction"),
        };
        let (d, a, b) = (self.dst32(&o[0])?, self.src32(&o[1], ty)?, self.src32(&o[2], ty)?);
        let c = match o.get(3) {
            Some(c) => self.src32(c, ty)?,
            None => a,
        };
        let take = base.ends_with('c') && base != "mad";
        let signed = ty.is_signed();
        Ok((Op::Carry { op, signed, take, give: m.cc, d, a, b, c }, Class::Int))
    }

    fn pred_logic(&mut self, base: &str, o: &[Operand]) -> Decoded {
        let op = match base {
            "and" => PredOp::And,
            "or" => PredOp::Or,
            "xor" => PredOp::Xor,
            "not" => PredOp::Not,
            _ => return self.unknown("of predicates"),
        };
        let Some(d) = self.dst_pred(&o[0])? else { return Ok((Op::Nop, Class::Predicate)) };
        let (a, a_negate) = self.pred(&o[1])?;
        let (b, b_negate) = match o.get(2) {
            Some(b) => self.pred(b)?,
            None => (a, 0),
        };
        Ok((Op::Pred { op, d, a, a_negate, b, b_negate }, Class::Predicate))
    }
}
