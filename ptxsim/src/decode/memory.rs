//! Loads, stores, atomics, asynchronous copies, `ldmatrix`.

use super::scope::Place;
use super::types::Ty;
use super::{Decoded, Decoder};
use crate::counters::Class;
use crate::error::Result;
use crate::ir::*;
use crate::num::*;
use crate::parse::ast::{Immediate, Operand};

/// The modifiers of a memory instruction.
struct Mods<'a> {
    space: MemSpace,
    constant: bool,
    strong: bool,
    vector: usize,
    types: Vec<Ty>,
    op: &'a str,
}

impl Decoder<'_> {
    fn memory_mods<'m>(&self, mods: &[&'m str], ops: &[&str]) -> Result<Mods<'m>> {
        let mut m = Mods {
            space: MemSpace::Generic,
            constant: false,
            strong: false,
            vector: 1,
            types: Vec::new(),
            op: "",
        };
        for &s in mods {
            if let Some(t) = Ty::parse(s) {
                if t == Ty::B128 {
                    return self.unknown("128-bit types");
                }
                m.types.push(t);
                continue;
            }
            match s {
                "global" => m.space = MemSpace::Global,
                "const" => {
                    m.space = MemSpace::Global;
                    m.constant = true;
                }
                "shared" | "shared::cta" => m.space = MemSpace::Shared,
                "local" => m.space = MemSpace::Local,
                "param" | "param::entry" | "param::func" => m.space = MemSpace::Param,
                "volatile" | "relaxed" | "acquire" | "release" | "acq_rel" => m.strong = true,
                "v2" => m.vector = 2,
                "v4" => m.vector = 4,
                "weak" | "cta" | "gpu" | "sys" | "nc" | "ca" | "cg" | "cs" | "lu" | "cv" | "wb"
                | "wt" | "noftz" => {}
                _ if s.starts_with("L1::") || s.starts_with("L2::") => {}
                _ if ops.contains(&s) && m.op.is_empty() => m.op = s,
                _ => return self.unknown(format!("modifier `.{s}`")),
            }
        }
        Ok(m)
    }

    /// Address and the space it means: a variable named in a generic access tells its space.
    fn place_addr(&mut self, o: &Operand, space: MemSpace) -> Result<(Addr, MemSpace)> {
        let (addr, place) = self.addr(o)?;
        let named = match place {
            // The parameters that a function can address are its own, in its frame.
            None if space == MemSpace::Param && self.scopes.in_function() => {
                return Ok((addr, MemSpace::Local));
            }
            None => return Ok((addr, space)),
            Some(Place::CallParam(_)) if matches!(space, MemSpace::Param | MemSpace::Generic) => {
                return Ok((addr, MemSpace::Local));
            }
            Some(Place::CallParam(_)) => MemSpace::Param,
            Some(Place::Global(_)) => MemSpace::Global,
            Some(Place::Dynamic | Place::Shared(_)) => MemSpace::Shared,
            Some(Place::Local(_)) => MemSpace::Local,
            Some(Place::Param(_)) => MemSpace::Param,
        };
        if space != MemSpace::Generic && space != named {
            return self.unknown("the variable lies in another state space");
        }
        Ok((addr, named))
    }

    fn vector<'o>(&self, o: &'o Operand, n: usize) -> Result<&'o [Operand]> {
        match o {
            Operand::Vector(v) if v.len() == n && n > 1 => Ok(v),
            _ if n == 1 => Ok(std::slice::from_ref(o)),
            _ => self.unknown(format!("expected {n} registers in braces")),
        }
    }

    pub(super) fn load(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 2)?;
        let m = self.memory_mods(mods, &[])?;
        let &[ty] = &m.types[..] else { return self.unknown("one type expected") };
        let (addr, space) = self.place_addr(&o[1], m.space)?;
        let mut regs = Vec::with_capacity(m.vector);
        for r in self.vector(&o[0], m.vector)? {
            regs.push(self.dst(r)?);
        }
        self.widths(&regs, ty)?;
        let class = match space {
            _ if m.constant => Class::LoadConstant,
            MemSpace::Global | MemSpace::Generic => Class::LoadGlobal,
            MemSpace::Shared => Class::LoadShared,
            MemSpace::Param => Class::LoadConstant,
            MemSpace::Local => Class::Local,
        };
        let (size, signed) = (ty.bytes(), ty.is_signed());
        Ok((Op::Ld(Box::new(Access { space, addr, size, signed, strong: m.strong, regs })), class))
    }

    pub(super) fn store(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.count(o, 2)?;
        let m = self.memory_mods(mods, &[])?;
        let &[ty] = &m.types[..] else { return self.unknown("one type expected") };
        let (addr, space) = self.place_addr(&o[0], m.space)?;
        if m.constant || space == MemSpace::Param {
            return self.unknown("a store to this state space");
        }
        let mut regs = Vec::with_capacity(m.vector);
        for r in self.vector(&o[1], m.vector)? {
            regs.push(self.src(r, ty)?);
        }
        self.widths(&regs, ty)?;
        let class = match space {
            MemSpace::Shared => Class::StoreShared,
            MemSpace::Local => Class::Local,
            _ => Class::StoreGlobal,
        };
        let (size, signed) = (ty.bytes(), ty.is_signed());
        Ok((Op::St(Box::new(Access { space, addr, size, signed, strong: m.strong, regs })), class))
    }

    /// A register may be wider than the type of an access, never narrower.
    fn widths(&self, regs: &[Reg], ty: Ty) -> Result<()> {
        if ty == Ty::Pred {
            return self.unknown("an access of predicates");
        }
        if usize::from(ty.bytes()) * regs.len() > 16 {
            return self.unknown("an access of more than 16 bytes");
        }
        if regs.iter().any(|r| ty.is_64() && matches!(r, Reg::R32(_))) {
            return self.unknown("a 32-bit register in a 64-bit access");
        }
        Ok(())
    }

    pub(super) fn atom(&mut self, mods: &[&str], o: &[Operand], returns: bool) -> Decoded {
        const OPS: [&str; 9] = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc"];
        let m = self.memory_mods(mods, &OPS)?;
        let &[ty] = &m.types[..] else { return self.unknown("one type expected") };
        if m.vector > 1 {
            return self.unknown("vector atomics");
        }
        let Some(f) = atomic(m.op, ty) else { return self.unknown("this atomic") };
        match ty {
            Ty::F16 => self.needs(70)?,
            Ty::Bf16 | Ty::Bf16x2 => self.needs(90)?,
            _ => {}
        }
        let cas = m.op == "cas";
        self.count(o, usize::from(returns) + 2 + usize::from(cas))?;
        let d = if returns { Some(self.dst(&o[0])?) } else { None };
        let o = &o[usize::from(returns)..];
        let (addr, space) = self.place_addr(&o[0], m.space)?;
        if !matches!(space, MemSpace::Global | MemSpace::Shared | MemSpace::Generic) {
            return self.unknown("an atomic in this state space");
        }
        let a = self.src(&o[1], ty)?;
        let b = if cas { Some(self.src(&o[2], ty)?) } else { None };
        let read = d.is_some_and(|d| d != Reg::Sink);
        if space != MemSpace::Shared && (ty.is_float() || read || matches!(m.op, "exch" | "cas")) {
            self.order_matters = true;
        }
        let atom = Atom { space, addr, size: ty.bytes(), f, d, a, b };
        Ok((Op::Atom(Box::new(atom)), Class::Atomic))
    }

    /// `cp.async` in its forms before bulk copies.
    pub(super) fn cp(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        let Some((&"async", rest)) = mods.split_first() else {
            return self.unknown("only cp.async is known");
        };
        self.needs(80)?;
        match rest.first() {
            Some(&"commit_group") => {
                self.count(o, 0)?;
                return Ok((Op::CpCommit, Class::Sync));
            }
            Some(&"wait_all") => {
                self.count(o, 0)?;
                return Ok((Op::CpWait { pending: None }, Class::Sync));
            }
            Some(&"wait_group") => {
                self.count(o, 1)?;
                let Operand::Imm(Immediate::Int(n)) = o[0] else {
                    return self.unknown("the group count must be a literal");
                };
                let Ok(n) = u32::try_from(n) else { return self.unknown("the group count") };
                return Ok((Op::CpWait { pending: Some(n) }, Class::Sync));
            }
            Some(&("bulk" | "mbarrier")) => return self.unknown("bulk copies and mbarriers"),
            _ => {}
        }
        let (mut spaces, mut cg) = (0, None);
        for &m in rest {
            match m {
                "ca" => cg = Some(false),
                "cg" => cg = Some(true),
                "shared" | "shared::cta" if spaces == 0 => spaces = 1,
                "global" if spaces == 1 => spaces = 2,
                _ if m.starts_with("L2::") => {}
                _ => return self.unknown(format!("modifier `.{m}`")),
            }
        }
        let (Some(cg), 2) = (cg, spaces) else {
            return self.unknown("expected .ca or .cg and .shared.global");
        };
        if o.len() != 3 && o.len() != 4 {
            return self.count(o, 3).and(self.unknown("operands"));
        }
        let size = match o[2] {
            Operand::Imm(Immediate::Int(v @ (4 | 8 | 16))) => v as u8,
            _ => return self.unknown("the size must be 4, 8 or 16"),
        };
        if cg && size != 16 {
            return self.unknown("the size of cp.async.cg must be 16");
        }
        let (dst, _) = self.place_addr(&o[0], MemSpace::Shared)?;
        let (src, _) = self.place_addr(&o[1], MemSpace::Global)?;
        let (mut src_size, mut ignore_src) = (None, None);
        if let Some(x) = o.get(3) {
            match x {
                Operand::Name(n) if self.is_pred(n) => ignore_src = self.dst_pred(x)?,
                _ => src_size = Some(self.src32(x, Ty::U32)?),
            }
        }
        let c = CpAsync { dst, src, size, src_size, ignore_src };
        Ok((Op::CpAsync(Box::new(c)), Class::CpAsync))
    }

    fn is_pred(&mut self, name: &str) -> bool {
        matches!(self.scopes.lookup(name), Some((_, Ty::Pred)))
    }

    pub(super) fn ldmatrix(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        self.needs(75)?;
        self.count(o, 2)?;
        let (mut n, mut trans, mut generic, mut shape) = (0, false, true, false);
        for &m in mods {
            match m {
                "sync" | "aligned" | "b16" => {}
                "m8n8" => shape = true,
                "x1" => n = 1,
                "x2" => n = 2,
                "x4" => n = 4,
                "trans" => trans = true,
                "shared" | "shared::cta" => generic = false,
                _ => return self.unknown(format!("modifier `.{m}`")),
            }
        }
        if !shape || n == 0 {
            return self.unknown("expected .m8n8 and .x1, .x2 or .x4");
        }
        let parts = match &o[0] {
            Operand::Vector(v) => &v[..],
            x => std::slice::from_ref(x),
        };
        if parts.len() != n {
            return self.unknown(format!("{} registers for .x{n}", parts.len()));
        }
        let mut d = Vec::with_capacity(n);
        for p in parts {
            d.push(self.dst32(p)?);
        }
        let space = if generic { MemSpace::Generic } else { MemSpace::Shared };
        let (addr, space) = self.place_addr(&o[1], space)?;
        Ok((Op::LdMatrix { d, trans, addr, generic: space == MemSpace::Generic }, Class::LdMatrix))
    }
}

fn f32_of(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn half2(a: u64, b: u64, f: fn(u32, u32) -> u32) -> u64 {
    let lo = f(a as u32 & 0xffff, b as u32 & 0xffff);
    let hi = f(a as u32 >> 16, b as u32 >> 16);
    u64::from(lo | hi << 16)
}

fn add16(a: u32, b: u32) -> u32 {
    f32_to_f16(f16_to_f32(a) + f16_to_f32(b))
}

fn addb16(a: u32, b: u32) -> u32 {
    f32_to_bf16(bf16_to_f32(a) + bf16_to_f32(b))
}

/// What an atomic stores, from the old value and its one or two operands.
fn atomic(op: &str, ty: Ty) -> Option<FnAtom> {
    let wide = ty.is_64();
    Some(match (op, ty) {
        ("add", Ty::F32) => |a, b, _| u64::from((f32_of(a) + f32_of(b)).to_bits()),
        ("add", Ty::F64) => |a, b, _| (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        ("add", Ty::F16) => |a, b, _| u64::from(add16(a as u32, b as u32)),
        ("add", Ty::Bf16) => |a, b, _| u64::from(addb16(a as u32, b as u32)),
        ("add", Ty::F16x2) => |a, b, _| half2(a, b, add16),
        ("add", Ty::Bf16x2) => |a, b, _| half2(a, b, addb16),
        ("add", Ty::U32 | Ty::S32 | Ty::B32) => {
            |a, b, _| u64::from((a as u32).wrapping_add(b as u32))
        }
        ("add", _) if wide => |a, b, _| a.wrapping_add(b),
        ("min", Ty::U32 | Ty::U64) => |a, b, _| a.min(b),
        ("max", Ty::U32 | Ty::U64) => |a, b, _| a.max(b),
        ("min", Ty::S32) => |a, b, _| (a as i32).min(b as i32) as u32 as u64,
        ("max", Ty::S32) => |a, b, _| (a as i32).max(b as i32) as u32 as u64,
        ("min", Ty::S64) => |a, b, _| (a as i64).min(b as i64) as u64,
        ("max", Ty::S64) => |a, b, _| (a as i64).max(b as i64) as u64,
        ("and", _) if ty.is_int() => |a, b, _| a & b,
        ("or", _) if ty.is_int() => |a, b, _| a | b,
        ("xor", _) if ty.is_int() => |a, b, _| a ^ b,
        ("exch", _) => |_, b, _| b,
        ("cas", _) => |a, b, c| if a == b { c } else { a },
        ("inc", Ty::U32) => |a, b, _| if a >= b { 0 } else { a + 1 },
        _ => return None,
    })
}
