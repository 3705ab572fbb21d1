//! Instructions of a whole warp, barriers and branches.

use super::types::Ty;
use super::{Decoded, Decoder};
use crate::counters::Class;
use crate::error::Result;
use crate::ir::*;
use crate::parse::ast::Operand;

impl Decoder<'_> {
    pub(super) fn mma(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 4)?;
        let (mut shape, mut layout, mut types, mut saturate) = ("", vec![], vec![], false);
        for &m in mods {
            match m {
                "sync" | "aligned" => {}
                "row" | "col" => layout.push(m),
                "satfinite" => saturate = true,
                _ if m.starts_with('m') && m.contains('n') => shape = m,
                _ => types.push(self.ty(Some(&m))?),
            }
        }
        let Some(k) = shape.strip_prefix("m16n8k").and_then(|k| k.parse::<u32>().ok()) else {
            return self.unknown(format!("shape `{shape}`"));
        };
        let [dt, at, bt, ct] = types[..] else { return self.unknown("four types expected") };
        if layout != ["row", "col"] {
            return self.unknown("only .row.col is known");
        }
        let half_acc = dt == Ty::F16 && ct == Ty::F16;
        let float_acc = dt == Ty::F32 && ct == Ty::F32;
        // Registers of A; B has half as many.
        let (kind, regs) = match (at, bt, k) {
            (Ty::F16, Ty::F16, 8 | 16) if half_acc || float_acc => {
                self.needs(if k == 8 { 75 } else { 80 })?;
                (MmaKind::F16, k / 4)
            }
            (Ty::Bf16, Ty::Bf16, 8 | 16) if float_acc => {
                self.needs(80)?;
                (MmaKind::Bf16, k / 4)
            }
            (Ty::Tf32, Ty::Tf32, 4 | 8) if float_acc => {
                self.needs(80)?;
                (MmaKind::Tf32, k / 2)
            }
            (Ty::S8 | Ty::U8, Ty::S8 | Ty::U8, 16 | 32) if dt == Ty::S32 && ct == Ty::S32 => {
                self.needs(80)?;
                (MmaKind::Int8(at == Ty::S8, bt == Ty::S8), k / 8)
            }
            _ => return self.unknown("these types and shape"),
        };
        if saturate && !matches!(kind, MmaKind::Int8(..)) {
            return self.unknown("modifier `.satfinite`");
        }
        let acc = if half_acc { 2 } else { 4 };
        let regs = regs as usize;
        let mma = Mma {
            kind,
            k,
            half_acc,
            saturate,
            d: self.list(&o[0], acc, true)?,
            a: self.list(&o[1], regs, false)?,
            b: self.list(&o[2], regs / 2, false)?,
            c: self.list(&o[3], acc, false)?,
        };
        Ok((Op::Mma(Box::new(mma)), Class::Mma))
    }

    /// A vector of 32-bit registers (a single one may stand without braces).
    fn list(&mut self, o: &Operand, n: usize, write: bool) -> Result<Vec<Slot>> {
        let parts = match o {
            Operand::Vector(v) => &v[..],
            x => std::slice::from_ref(x),
        };
        if parts.len() != n {
            return self.unknown(format!("{} registers where {n} are expected", parts.len()));
        }
        let mut out = Vec::with_capacity(n);
        for p in parts {
            out.push(if write { self.dst32(p)? } else { self.src32(p, Ty::F32)? });
        }
        Ok(out)
    }

    pub(super) fn shfl(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 5)?;
        let mode = match mods {
            ["sync", "up", "b32"] => ShflMode::Up,
            ["sync", "down", "b32"] => ShflMode::Down,
            ["sync", "bfly", "b32"] => ShflMode::Bfly,
            ["sync", "idx", "b32"] => ShflMode::Idx,
            _ => return self.unknown("this form of shuffle"),
        };
        let (d, p) = match &o[0] {
            Operand::Pair(d, p) => {
                (Operand::Name(d.clone()), self.dst_pred(&Operand::Name(p.clone()))?)
            }
            x => (x.clone(), None),
        };
        let s = Shfl {
            mode,
            d: self.dst32(&d)?,
            p,
            a: self.src32(&o[1], Ty::B32)?,
            b: self.src32(&o[2], Ty::B32)?,
            c: self.src32(&o[3], Ty::B32)?,
            mask: self.src32(&o[4], Ty::B32)?,
        };
        Ok((Op::Shfl(Box::new(s)), Class::Warp))
    }

    pub(super) fn vote(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 3)?;
        let mode = match mods {
            ["sync", "all", "pred"] => VoteMode::All,
            ["sync", "any", "pred"] => VoteMode::Any,
            ["sync", "uni", "pred"] => VoteMode::Uni,
            ["sync", "ballot", "b32"] => VoteMode::Ballot,
            _ => return self.unknown("this form of vote"),
        };
        let d = if mode == VoteMode::Ballot {
            self.dst32(&o[0])?
        } else {
            match self.dst_pred(&o[0])? {
                Some(p) => p,
                None => return self.unknown("a vote whose result is dropped"),
            }
        };
        let (p, p_negate) = self.pred(&o[1])?;
        Ok((Op::Vote { mode, d, p, p_negate, mask: self.src32(&o[2], Ty::B32)? }, Class::Warp))
    }

    pub(super) fn match_(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.needs(70)?;
        self.count(o, 3)?;
        let (all, ty) = match mods {
            ["any", "sync", t] => (false, self.ty(Some(t))?),
            ["all", "sync", t] => (true, self.ty(Some(t))?),
            _ => return self.unknown("this form of match"),
        };
        let (d, p) = match &o[0] {
            Operand::Pair(d, p) => {
                (Operand::Name(d.clone()), self.dst_pred(&Operand::Name(p.clone()))?)
            }
            x => (x.clone(), None),
        };
        let a = self.src(&o[1], ty)?;
        let op = Op::Match { d: self.dst32(&d)?, p, all, a, mask: self.src32(&o[2], Ty::B32)? };
        Ok((op, Class::Warp))
    }

    pub(super) fn redux(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.needs(80)?;
        self.count(o, 3)?;
        let f: fn(u32, u32) -> u32 = match mods {
            ["sync", "add", "u32" | "s32"] => |a, b| a.wrapping_add(b),
            ["sync", "min", "u32"] => |a, b| a.min(b),
            ["sync", "max", "u32"] => |a, b| a.max(b),
            ["sync", "min", "s32"] => |a, b| (a as i32).min(b as i32) as u32,
            ["sync", "max", "s32"] => |a, b| (a as i32).max(b as i32) as u32,
            ["sync", "and", "b32"] => |a, b| a & b,
            ["sync", "or", "b32"] => |a, b| a | b,
            ["sync", "xor", "b32"] => |a, b| a ^ b,
            _ => return self.unknown("this form of redux"),
        };
        let op = Op::Redux {
            f,
            d: self.dst32(&o[0])?,
            a: self.src32(&o[1], Ty::B32)?,
            mask: self.src32(&o[2], Ty::B32)?,
        };
        Ok((op, Class::Warp))
    }

    pub(super) fn bar(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        let mods: Vec<&str> =
            mods.iter().copied().filter(|m| !matches!(*m, "aligned" | "cta")).collect();
        if mods == ["warp", "sync"] {
            self.count(o, 1)?;
            return Ok((Op::BarWarp { mask: self.src32(&o[0], Ty::B32)? }, Class::Sync));
        }
        let Some((id, rest)) = (match mods.first() {
            Some(&"red") => o.get(1).map(|id| (id, &o[2..])),
            _ => o.first().map(|id| (id, &o[1..])),
        }) else {
            return self.unknown("no barrier number");
        };
        let id = self.src32(id, Ty::U32)?;
        let (mut count, mut pred, mut pred_negate) = (None, TRUE, 0);
        let mode = match &mods[..] {
            ["sync"] => BarMode::Sync,
            ["arrive"] => BarMode::Arrive,
            ["red", "popc", "u32"] => BarMode::Popc(self.dst32(&o[0])?),
            ["red", op @ ("and" | "or"), "pred"] => {
                let Some(d) = self.dst_pred(&o[0])? else { return self.unknown("no result") };
                if *op == "and" { BarMode::And(d) } else { BarMode::Or(d) }
            }
            _ => return self.unknown("this form of barrier"),
        };
        let reduces = matches!(mode, BarMode::Popc(_) | BarMode::And(_) | BarMode::Or(_));
        let mut rest = rest;
        if reduces {
            let Some((last, before)) = rest.split_last() else {
                return self.unknown("no predicate");
            };
            (pred, pred_negate) = self.pred(last)?;
            rest = before;
        }
        match rest {
            [] => {}
            [c] => count = Some(self.src32(c, Ty::U32)?),
            _ => return self.unknown("too many operands"),
        }
        if mode == BarMode::Arrive && count.is_none() {
            return self.unknown("bar.arrive without a thread count");
        }
        Ok((Op::Bar(Box::new(Bar { mode, id, count, pred, pred_negate })), Class::Sync))
    }

    /// The instruction a label stands before; inner scopes first.
    fn label(&self, name: &str) -> Result<u32> {
        let found = self.scopes.ids().find_map(|id| self.labels.get(&(id, name.to_string())));
        match found {
            Some(&at) => Ok(at),
            None => self.unknown(format!("label `{name}` does not exist")),
        }
    }

    pub(super) fn branch(&mut self, base: &str, mods: &[&str], o: &[Operand]) -> Decoded {
        match (base, mods) {
            ("bra", [] | ["uni"]) => {
                self.count(o, 1)?;
                let Operand::Name(n) = &o[0] else { return self.unknown("expected a label") };
                Ok((Op::Bra { target: self.label(n)? }, Class::Control))
            }
            ("brx", ["idx"] | ["idx", "uni"]) => {
                self.count(o, 2)?;
                let index = self.src32(&o[0], Ty::U32)?;
                let Operand::Name(n) = &o[1] else { return self.unknown("expected a label list") };
                let Some(list) = self.targets.get(n).cloned() else {
                    return self.unknown(format!("label list `{n}` does not exist"));
                };
                let targets: Result<Vec<u32>> = list.iter().map(|l| self.label(l)).collect();
                Ok((Op::Brx { targets: targets?, index }, Class::Control))
            }
            _ => self.unknown("this form of branch"),
        }
    }
}
