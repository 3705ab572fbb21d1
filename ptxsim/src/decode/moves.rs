//! Moves, conversions, comparisons and selections.

use super::cvt::{self, Cvt};
use super::lanes::*;
use super::types::Ty;
use super::{Decoded, Decoder, compare};
use crate::counters::Class;
use crate::ir::*;
use crate::parse::ast::Operand;

fn copy32() -> Fn32 {
    f1!(|a| a)
}

fn copy64() -> Fn64 {
    g1!(|a| a)
}

impl Decoder<'_> {
    pub(super) fn mov(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 2)?;
        let ty = self.ty(mods.first())?;
        if mods.len() > 1 {
            return self.unknown("modifiers of mov");
        }
        if let Operand::Vector(parts) = &o[0] {
            return self.unpack(ty, parts, &o[1]);
        }
        if let Operand::Vector(parts) = &o[1] {
            return self.pack(ty, &o[0], parts);
        }
        if ty == Ty::Pred {
            let Some(d) = self.dst_pred(&o[0])? else { return Ok((Op::Nop, Class::Predicate)) };
            let (a, a_negate) = self.pred(&o[1])?;
            let op = Op::Pred { op: PredOp::Mov, d, a, a_negate, b: a, b_negate: 0 };
            return Ok((op, Class::Predicate));
        }
        if let Operand::Name(n) = &o[1]
            && matches!(n.as_str(), "%clock" | "%clock_hi" | "%clock64" | "%globaltimer")
        {
            return Ok((Op::Clock { d: self.dst(&o[0])? }, Class::Move));
        }
        if ty.is_64() {
            let (d, a) = (self.dst64(&o[0])?, self.src64(&o[1], ty)?);
            return Ok((Op::Alu64 { f: copy64(), d, a, b: a, c: a }, Class::Move));
        }
        let (d, a) = (self.dst32(&o[0])?, self.src32(&o[1], ty)?);
        Ok((Op::Alu32 { f: copy32(), d, a, b: a, c: a }, Class::Move))
    }

    fn unpack(&mut self, ty: Ty, parts: &[Operand], from: &Operand) -> Decoded {
        let part = |d: &mut Self, o: &Operand| match o {
            Operand::Name(n) if n == "_" => Ok(None),
            _ => d.dst32(o).map(Some),
        };
        match (ty.bytes(), parts) {
            (4, [lo, hi]) => {
                let a = self.src32(from, ty)?;
                let (lo, hi) = (part(self, lo)?, part(self, hi)?);
                Ok((Op::Unpack32 { a, lo, hi }, Class::Move))
            }
            (8, [_, _] | [_, _, _, _]) => {
                let a = self.src64(from, ty)?;
                let mut d = Vec::with_capacity(4);
                for p in parts {
                    d.push(part(self, p)?);
                }
                Ok((Op::Unpack64 { a, parts: d }, Class::Move))
            }
            _ => self.unknown(format!("{} parts of this type", parts.len())),
        }
    }

    fn pack(&mut self, ty: Ty, to: &Operand, parts: &[Operand]) -> Decoded {
        match (ty.bytes(), parts) {
            (4, [lo, hi]) => {
                let d = self.dst32(to)?;
                let (lo, hi) = (self.src32(lo, Ty::B16)?, self.src32(hi, Ty::B16)?);
                Ok((Op::Pack32 { d, lo, hi }, Class::Move))
            }
            (8, [_, _] | [_, _, _, _]) => {
                let d = self.dst64(to)?;
                let ty = if parts.len() == 2 { Ty::B32 } else { Ty::B16 };
                let mut s = Vec::with_capacity(4);
                for p in parts {
                    s.push(self.src32(p, ty)?);
                }
                Ok((Op::Pack64 { d, parts: s }, Class::Move))
            }
            _ => self.unknown(format!("{} parts of this type", parts.len())),
        }
    }

    pub(super) fn cvt(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        let (mut types, mut round, mut ftz, mut sat, mut relu) =
            (vec![], None, false, false, false);
        for &m in mods {
            match m {
                "rn" | "rz" | "rm" | "rp" | "rni" | "rzi" | "rmi" | "rpi" | "rna" => {
                    round = Some(m);
                }
                "ftz" => ftz = true,
                "sat" => sat = true,
                "relu" => relu = true,
                _ => types.push(self.ty(Some(&m))?),
            }
        }
        let [to, from] = types[..] else { return self.unknown("two types expected") };
        let sixteen = |t| matches!(t, Ty::F16 | Ty::F16x2);
        if matches!(to, Ty::Bf16 | Ty::Bf16x2 | Ty::Tf32 | Ty::F16x2) || relu {
            self.needs(80)?;
        }
        if matches!(from, Ty::Bf16) && !sixteen(from) {
            // Only bf16 to f32 came with sm_80 and later targets; the rest with sm_90.
            self.needs(if to == Ty::F32 { 80 } else { 90 })?;
        }
        if matches!(to, Ty::F16x2 | Ty::Bf16x2) {
            self.count(o, 3)?;
            let f = cvt::cvt_pair(to, relu, round).filter(|_| from == Ty::F32 && !sat);
            let Some(f) = f else { return self.unknown("this conversion") };
            let d = self.dst32(&o[0])?;
            let (a, b) = (self.src32(&o[1], Ty::F32)?, self.src32(&o[2], Ty::F32)?);
            return Ok((Op::Alu32 { f, d, a, b, c: a }, Class::Convert));
        }
        self.count(o, 2)?;
        let d = self.dst(&o[0])?;
        let d = match d {
            Reg::Sink => Reg::R32(self.scopes.scratch32()),
            r => r,
        };
        let a = self.src(&o[1], from)?;
        let wide = (matches!(a, Reg::R64(_)), matches!(d, Reg::R64(_)));
        let f = cvt::cvt(to, from, round, ftz, sat, wide).filter(|_| !relu);
        let op = match (f, d, a) {
            (Some(Cvt::To32(f)), Reg::R32(d), Reg::R32(a)) => Op::Alu32 { f, d, a, b: a, c: a },
            (Some(Cvt::To64(f)), Reg::R64(d), Reg::R64(a)) => Op::Alu64 { f, d, a, b: a, c: a },
            (Some(Cvt::Narrow(f)), Reg::R32(d), Reg::R64(a)) => Op::Narrow { f, d, a },
            (Some(Cvt::Widen(f)), Reg::R64(d), Reg::R32(a)) => {
                let c = self.scopes.const64(Const64::Value(0));
                Op::Wide { f, d, a, b: a, c }
            }
            _ => return self.unknown("this conversion"),
        };
        Ok((op, Class::Convert))
    }

    pub(super) fn cvta(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 2)?;
        let to = mods.first() == Some(&"to");
        let rest = &mods[usize::from(to)..];
        let (Some(space), Some(&"u64"), 2) = (rest.first(), rest.get(1), rest.len()) else {
            return self.unknown("only 64-bit addresses are known");
        };
        let window = match space.split("::").next() {
            Some("global" | "const") => 0,
            Some("shared") => SHARED_WINDOW,
            Some("local") => LOCAL_WINDOW,
            Some("param") => PARAM_WINDOW,
            _ => return self.unknown(format!("state space `{space}`")),
        };
        let (d, a) = (self.dst64(&o[0])?, self.src64(&o[1], Ty::U64)?);
        let b = self.scopes.const64(Const64::Value(window));
        let f = if to { g2!(|a, b| a.wrapping_sub(b)) } else { g2!(|a, b| a.wrapping_add(b)) };
        Ok((Op::Alu64 { f, d, a, b, c: a }, Class::Move))
    }

    pub(super) fn isspacep(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 2)?;
        let space = match mods.first().and_then(|m| m.split("::").next()) {
            Some("global") => MemSpace::Global,
            Some("shared") => MemSpace::Shared,
            Some("local") => MemSpace::Local,
            Some("param") => MemSpace::Param,
            _ => return self.unknown("this state space"),
        };
        let Some(p) = self.dst_pred(&o[0])? else { return Ok((Op::Nop, Class::Predicate)) };
        let a = self.src64(&o[1], Ty::U64)?;
        Ok((Op::IsSpace { p, a, space }, Class::Predicate))
    }

    /// Comparison, combination and type modifiers of `setp` and `set`.
    fn comparison(
        &mut self,
        mods: &[&str],
    ) -> crate::error::Result<(String, Combine, bool, Vec<Ty>)> {
        let Some((cmp, rest)) = mods.split_first() else { return self.unknown("no comparison") };
        let (mut combine, mut ftz, mut types) = (Combine::None, false, vec![]);
        for &m in rest {
            match m {
                "and" => combine = Combine::And,
                "or" => combine = Combine::Or,
                "xor" => combine = Combine::Xor,
                "ftz" => ftz = true,
                _ => types.push(self.ty(Some(&m))?),
            }
        }
        Ok((cmp.to_string(), combine, ftz, types))
    }

    pub(super) fn setp(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        let (cmp, combine, ftz, types) = self.comparison(mods)?;
        let [ty] = types[..] else { return self.unknown("one type expected") };
        self.count(o, if combine == Combine::None { 3 } else { 4 })?;
        let (p, q) = match &o[0] {
            Operand::Pair(p, q) => {
                let named = |n: &String| Operand::Name(n.clone());
                (self.dst_pred(&named(p))?, self.dst_pred(&named(q))?)
            }
            x => (self.dst_pred(x)?, None),
        };
        let (with, with_negate) = match o.get(3) {
            Some(c) => self.pred(c)?,
            None => (TRUE, 0),
        };
        let to = SetTo { combine, with, with_negate, p, q };
        if ty.is_64() {
            let Some(f) = compare::cmp64(&cmp, ty) else { return self.unknown("this comparison") };
            let (a, b) = (self.src64(&o[1], ty)?, self.src64(&o[2], ty)?);
            return Ok((Op::Cmp64 { f, a, b, to }, Class::Predicate));
        }
        let Some(f) = compare::cmp32(&cmp, ty, ftz) else { return self.unknown("this comparison") };
        let (a, b) = (self.src32(&o[1], ty)?, self.src32(&o[2], ty)?);
        Ok((Op::Cmp32 { f, a, b, to }, Class::Predicate))
    }

    pub(super) fn set(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        let (cmp, combine, ftz, types) = self.comparison(mods)?;
        let [dt, ty] = types[..] else { return self.unknown("two types expected") };
        self.count(o, if combine == Combine::None { 3 } else { 4 })?;
        let one = match dt {
            Ty::U32 | Ty::S32 | Ty::B32 => u32::MAX,
            Ty::F32 => 1f32.to_bits(),
            Ty::F16 => 0x3c00,
            Ty::U16 | Ty::S16 => 0xffff,
            Ty::Bf16 => 0x3f80,
            _ => return self.unknown("this result type"),
        };
        let (with, with_negate) = match o.get(3) {
            Some(c) => self.pred(c)?,
            None => (TRUE, 0),
        };
        let to = SetTo { combine, with, with_negate, p: None, q: None };
        let d = self.dst32(&o[0])?;
        if ty.is_64() {
            let Some(f) = compare::cmp64(&cmp, ty) else { return self.unknown("this comparison") };
            let (a, b) = (self.src64(&o[1], ty)?, self.src64(&o[2], ty)?);
            return Ok((Op::Set64 { f, a, b, to, d, one }, Class::Predicate));
        }
        let Some(f) = compare::cmp32(&cmp, ty, ftz) else { return self.unknown("this comparison") };
        let (a, b) = (self.src32(&o[1], ty)?, self.src32(&o[2], ty)?);
        Ok((Op::Set32 { f, a, b, to, d, one }, Class::Predicate))
    }

    pub(super) fn selp(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 4)?;
        let ty = self.ty(mods.first())?;
        let (p, negate) = self.pred(&o[3])?;
        if negate != 0 {
            return self.unknown("a negated predicate");
        }
        if ty.is_64() {
            let d = self.dst64(&o[0])?;
            let (a, b) = (self.src64(&o[1], ty)?, self.src64(&o[2], ty)?);
            return Ok((Op::Sel64 { d, a, b, p }, Class::Predicate));
        }
        let d = self.dst32(&o[0])?;
        let (a, b) = (self.src32(&o[1], ty)?, self.src32(&o[2], ty)?);
        Ok((Op::Sel32 { d, a, b, p }, Class::Predicate))
    }

    pub(super) fn slct(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 4)?;
        let types: Vec<&str> = mods.iter().copied().filter(|m| *m != "ftz").collect();
        let (ty, by) = (self.ty(types.first())?, self.ty(types.get(1))?);
        // -0.0 and subnormals flushed to it count as not negative; NaN takes the second value.
        let f = match (ty.bytes(), by) {
            (4, Ty::S32) => f3!(|a, b, c| if c as i32 >= 0 { a } else { b }),
            (4, Ty::F32) => f3!(|a, b, c| if f32::from_bits(c) >= 0.0 { a } else { b }),
            _ => return self.unknown("these types"),
        };
        let d = self.dst32(&o[0])?;
        let (a, b) = (self.src32(&o[1], ty)?, self.src32(&o[2], ty)?);
        Ok((Op::Alu32 { f, d, a, b, c: self.src32(&o[3], by)? }, Class::Predicate))
    }
}
