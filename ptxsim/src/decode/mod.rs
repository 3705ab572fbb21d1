//! From the parser's tree to the form that runs.

mod arith;
mod call;
mod compare;
mod cvt;
mod float;
mod half;
pub(crate) mod int;
pub(crate) mod lanes;
mod memory;
mod moves;
mod scope;
mod types;
mod warp;

use std::collections::HashMap;

use crate::counters::Class;
use crate::error::{Error, Result};
use crate::ir::*;
use crate::parse::ast::*;
use scope::{Place, Scopes};
use types::Ty;

/// Decodes one entry.
pub(crate) fn decode(module: &str, ast: &Ast, entry: &EntryAst) -> Result<Code> {
    let mut d = Decoder::new(module, ast, entry)?;
    d.labels(&entry.body)?;
    d.body(&entry.body)?;
    d.end(entry.line, Op::Exit);
    let own_instrs = d.instrs.len() - 1;
    d.functions()?;
    Ok(d.finish(entry, own_instrs))
}

/// What decoding one instruction yields.
type Decoded = Result<(Op, Class)>;

struct Decoder<'a> {
    module: &'a str,
    ast: &'a Ast,
    scopes: Scopes,
    instrs: Vec<Instr>,
    /// Label to instruction, by the scope it stands in.
    labels: HashMap<(usize, String), u32>,
    targets: HashMap<String, Vec<String>>,
    prototypes: HashMap<String, &'a Signature>,
    /// Functions that are called, by index.
    called: Vec<usize>,
    /// One is called by its address: it may be any.
    by_address: bool,
    functions: Vec<Option<Function>>,
    order_matters: bool,
    /// The instruction being decoded.
    name: String,
    line: u32,
}

impl<'a> Decoder<'a> {
    fn new(module: &'a str, ast: &'a Ast, entry: &EntryAst) -> Result<Self> {
        let mut d = Decoder {
            module,
            ast,
            scopes: Scopes::new(),
            instrs: Vec::new(),
            labels: HashMap::new(),
            targets: HashMap::new(),
            prototypes: HashMap::new(),
            called: Vec::new(),
            by_address: false,
            functions: vec![None; ast.functions.len()],
            order_matters: false,
            name: String::new(),
            line: entry.line,
        };
        for (i, v) in ast.variables.iter().enumerate() {
            d.scopes.module_variable(i as u32, v);
        }
        // What an entry declares is not its functions'.
        d.scopes.open();
        for p in &entry.params {
            d.scopes.param(p);
        }
        Ok(d)
    }

    /// An error about the current instruction.
    fn unknown<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(Error::UnknownInstruction {
            module: self.module.to_string(),
            line: self.line,
            instruction: self.name.clone(),
            reason: reason.into(),
        })
    }

    /// Refuses the current instruction where the module's target does not have it.
    fn needs(&self, sm: u32) -> Result<()> {
        if self.ast.target >= sm {
            return Ok(());
        }
        Err(Error::InstructionNotOnTarget {
            module: self.module.to_string(),
            line: self.line,
            instruction: self.name.clone(),
            need: sm,
            have: self.ast.target,
        })
    }

    fn parse_error<T>(&self, line: u32, message: String) -> Result<T> {
        Err(Error::Parse { module: self.module.to_string(), line, message })
    }

    /// First pass: where every label stands. Each instruction decodes to exactly one.
    fn labels(&mut self, body: &'a [Statement]) -> Result<()> {
        let (own, mut next) = self.scopes.numbers();
        let (mut stack, mut at) = (vec![own], self.instrs.len() as u32);
        self.targets.clear();
        self.prototypes.clear();
        for s in body {
            match s {
                Statement::Open => {
                    stack.push(next);
                    next += 1;
                }
                Statement::Close => {
                    stack.pop();
                }
                Statement::Label(name) => {
                    let scope = stack.last().copied().unwrap_or(own);
                    if self.labels.insert((scope, name.clone()), at).is_some() {
                        return self.parse_error(self.line, format!("label `{name}` stands twice"));
                    }
                }
                Statement::Targets { name, labels } => {
                    self.targets.insert(name.clone(), labels.clone());
                }
                Statement::Prototype { name, signature } => {
                    self.prototypes.insert(name.clone(), signature);
                }
                Statement::Instr(_) => at += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn body(&mut self, body: &[Statement]) -> Result<()> {
        let mut loc = (0, 0);
        for s in body {
            match s {
                Statement::Open => self.scopes.open(),
                Statement::Close => self.scopes.close(),
                Statement::Label(_) | Statement::Targets { .. } | Statement::Prototype { .. } => {}
                Statement::Unknown { directive, line } => {
                    return Err(Error::UnknownDirective {
                        module: self.module.to_string(),
                        line: *line,
                        directive: directive.clone(),
                    });
                }
                Statement::Loc { file, line } => loc = (*file, *line),
                Statement::Register { ty, name, count, line } => {
                    self.declare_register(name, *count, ty, *line)?;
                }
                Statement::Variable(v) => {
                    let own =
                        matches!(v.space, VarSpace::Shared | VarSpace::Local | VarSpace::Param);
                    if !own || v.init.is_some() {
                        let message = format!("variable `{}` cannot be declared in a body", v.name);
                        return self.parse_error(v.line, message);
                    }
                    self.scopes.variable(v);
                }
                Statement::Instr(raw) => {
                    let i = self.instr(raw, loc)?;
                    self.instrs.push(i);
                }
            }
        }
        Ok(())
    }

    fn declare_register(
        &mut self,
        name: &str,
        count: Option<u32>,
        ty: &str,
        line: u32,
    ) -> Result<()> {
        let parsed = Ty::parse(ty.trim_start_matches('.')).filter(|t| *t != Ty::B128);
        let Some(ty) = parsed else {
            return self.parse_error(line, format!("unknown register type `{ty}`"));
        };
        self.scopes.register(name, count, ty);
        Ok(())
    }

    /// A body that runs off its end returns.
    fn end(&mut self, line: u32, op: Op) {
        let line = self.instrs.last().map_or(line, |i| i.line);
        let class = Class::Control;
        self.instrs.push(Instr { op, guard: TRUE, negate: 0, line, loc: (0, 0), class });
    }

    fn finish(self, entry: &EntryAst, own_instrs: usize) -> Code {
        let s = self.scopes.finish();
        Code {
            name: entry.name.clone(),
            instrs: self.instrs,
            n32: s.n32,
            n64: s.n64,
            npred: s.npred,
            consts32: s.consts32,
            consts64: s.consts64,
            specials: s.specials,
            params: s.params,
            param_bytes: s.param_bytes,
            static_shared: s.static_shared,
            dynamic_offset: s.dynamic_offset,
            local_bytes: s.local_bytes,
            max_threads: entry.max_threads,
            required_threads: entry.required_threads,
            min_blocks: entry.min_blocks,
            order_matters: self.order_matters,
            own_instrs,
            functions: self.functions,
        }
    }

    fn instr(&mut self, raw: &RawInstr, loc: (u32, u32)) -> Result<Instr> {
        self.name.clone_from(&raw.name);
        self.line = raw.line;
        let (guard, negate) = match &raw.guard {
            None => (TRUE, 0),
            Some((p, negated)) => (self.pred_named(p)?, if *negated { u32::MAX } else { 0 }),
        };
        let parts: Vec<&str> = raw.name.split('.').collect();
        let (op, class) = if raw.operands.iter().any(|o| matches!(o, Operand::Element { .. })) {
            let operands: Result<Vec<_>> = raw.operands.iter().map(|o| self.element(o)).collect();
            self.dispatch(parts[0], &parts[1..], &operands?)?
        } else {
            self.dispatch(parts[0], &parts[1..], &raw.operands)?
        };
        Ok(Instr { op, guard, negate, line: raw.line, loc, class })
    }

    /// `name[2]` as bytes from the name; any other operand as it is.
    fn element(&self, o: &Operand) -> Result<Operand> {
        let Operand::Element { name, index } = o else { return Ok(o.clone()) };
        let Some((element, _)) = self.scopes.sizes(name) else {
            return self.unknown(format!("`{name}` is no variable with elements"));
        };
        let offset = i64::try_from(element).ok().and_then(|e| e.checked_mul(*index));
        let Some(offset) = offset else { return self.unknown(format!("index {index}")) };
        Ok(Operand::Address { base: Some(name.clone()), offset })
    }

    fn dispatch(&mut self, base: &str, mods: &[&str], o: &[Operand]) -> Decoded {
        match base {
            "mov" => self.mov(mods, o),
            "cvt" => self.cvt(mods, o),
            "cvta" => self.cvta(mods, o),
            "isspacep" => self.isspacep(mods, o),
            "setp" => self.setp(mods, o),
            "set" => self.set(mods, o),
            "selp" => self.selp(mods, o),
            "slct" => self.slct(mods, o),
            "ld" | "ldu" => self.load(mods, o),
            "st" => self.store(mods, o),
            "atom" => self.atom(mods, o, true),
            "red" => self.atom(mods, o, false),
            "cp" => self.cp(mods, o),
            "prefetch" | "prefetchu" => Ok((Op::Nop, Class::LoadConstant)),
            "ldmatrix" => self.ldmatrix(mods, o),
            "mma" => self.mma(mods, o),
            "shfl" => self.shfl(mods, o),
            "vote" => self.vote(mods, o),
            "match" => self.match_(mods, o),
            "redux" => self.redux(mods, o),
            "activemask" => {
                self.count(o, 1)?;
                Ok((Op::ActiveMask { d: self.dst32(&o[0])? }, Class::Warp))
            }
            "bar" | "barrier" => self.bar(mods, o),
            "membar" | "fence" => Ok((Op::Fence, Class::Sync)),
            "bra" | "brx" => self.branch(base, mods, o),
            "ret" if self.scopes.in_function() => Ok((Op::Return, Class::Control)),
            "ret" | "exit" => Ok((Op::Exit, Class::Control)),
            "trap" | "brkpt" => Ok((Op::Trap, Class::Control)),
            "nanosleep" => Ok((Op::Nop, Class::Control)),
            "call" => self.call(mods, o),
            _ => self.arith(base, mods, o),
        }
    }

    /// Checks the number of operands.
    fn count(&self, o: &[Operand], n: usize) -> Result<()> {
        if o.len() == n {
            return Ok(());
        }
        self.unknown(format!("{} operands, expected {n}", o.len()))
    }

    fn reg(&mut self, name: &str) -> Result<(RegRef, Ty)> {
        match self.scopes.lookup(name) {
            Some(r) => Ok(r),
            None => self.unknown(format!("`{name}` is not declared")),
        }
    }

    fn pred_named(&mut self, name: &str) -> Result<Slot> {
        match self.reg(name)? {
            (RegRef::Pred(s), _) => Ok(s),
            _ => self.unknown(format!("`{name}` is no predicate")),
        }
    }

    /// A predicate operand and its negation mask.
    fn pred(&mut self, o: &Operand) -> Result<(Slot, u32)> {
        match o {
            Operand::Name(n) => Ok((self.pred_named(n)?, 0)),
            Operand::Not(n) => Ok((self.pred_named(n)?, u32::MAX)),
            Operand::Imm(Immediate::Int(v)) => Ok((if *v != 0 { TRUE } else { FALSE }, 0)),
            _ => self.unknown("expected a predicate"),
        }
    }

    fn dst_pred(&mut self, o: &Operand) -> Result<Option<Slot>> {
        match o {
            Operand::Name(n) if n == "_" => Ok(None),
            Operand::Name(n) => self.pred_named(n).map(Some),
            _ => self.unknown("expected a predicate"),
        }
    }

    /// A register to write, of either file.
    fn dst(&mut self, o: &Operand) -> Result<Reg> {
        let Operand::Name(n) = o else { return self.unknown("expected a register") };
        if n == "_" {
            return Ok(Reg::Sink);
        }
        match self.reg(n)?.0 {
            RegRef::R32(s) => Ok(Reg::R32(s)),
            RegRef::R64(s) => Ok(Reg::R64(s)),
            RegRef::Pred(_) => self.unknown(format!("`{n}` is a predicate")),
        }
    }

    fn dst32(&mut self, o: &Operand) -> Result<Slot> {
        match self.dst(o)? {
            Reg::R32(s) => Ok(s),
            Reg::Sink => Ok(self.scopes.scratch32()),
            Reg::R64(_) => self.unknown("a 64-bit register where 32 bits are expected"),
        }
    }

    fn dst64(&mut self, o: &Operand) -> Result<Slot> {
        match self.dst(o)? {
            Reg::R64(s) => Ok(s),
            Reg::Sink => Ok(self.scopes.scratch64()),
            Reg::R32(_) => self.unknown("a 32-bit register where 64 bits are expected"),
        }
    }

    /// A source of up to 32 bits: register, literal, special register, shared or param address.
    fn src32(&mut self, o: &Operand, ty: Ty) -> Result<Slot> {
        match o {
            Operand::Imm(v) => {
                let bits = self.bits32(*v, ty)?;
                Ok(self.scopes.const32(bits))
            }
            Operand::Name(n) => {
                if let Some(s) = special(n) {
                    return Ok(self.scopes.special(s));
                }
                if let Some(place) = self.scopes.place(n) {
                    return match place {
                        Place::Global(_) => self.unknown(format!("`{n}` has a 64-bit address")),
                        Place::Dynamic => Ok(self.scopes.dynamic32()),
                        Place::Local(a) | Place::CallParam(a) => {
                            Ok(self.scopes.frame32(i64::from(a)))
                        }
                        Place::Shared(a) | Place::Param(a) => Ok(self.scopes.const32(a)),
                    };
                }
                match self.reg(n)?.0 {
                    RegRef::R32(s) => Ok(s),
                    RegRef::R64(_) => self.unknown(format!("`{n}` has 64 bits, expected 32")),
                    RegRef::Pred(_) => self.unknown(format!("`{n}` is a predicate")),
                }
            }
            Operand::Address { base: Some(n), offset } => match self.scopes.place(n) {
                Some(Place::Shared(a) | Place::Param(a)) => {
                    Ok(self.scopes.const32(a.wrapping_add(*offset as u32)))
                }
                Some(Place::Local(a) | Place::CallParam(a)) => {
                    Ok(self.scopes.frame32(i64::from(a).wrapping_add(*offset)))
                }
                _ => self.unknown("expected a register or a literal"),
            },
            _ => self.unknown("expected a register or a literal"),
        }
    }

    /// A 64-bit source: register, literal, or the address of a variable.
    fn src64(&mut self, o: &Operand, ty: Ty) -> Result<Slot> {
        let (n, offset) = match o {
            Operand::Imm(v) => {
                let bits = match (*v, ty) {
                    (Immediate::Int(v), t) if t != Ty::F64 => v as u64,
                    (Immediate::F64(b), _) => b,
                    (Immediate::F32(b), Ty::F64) => f64::from(f32::from_bits(b)).to_bits(),
                    _ => return self.unknown("the literal does not fit the type"),
                };
                return Ok(self.scopes.const64(Const64::Value(bits)));
            }
            Operand::Name(n) => (n, 0),
            Operand::Address { base: Some(n), offset } => (n, *offset),
            _ => return self.unknown("expected a register or a literal"),
        };
        if let Some(place) = self.scopes.place(n) {
            let c = match place {
                Place::Global(i) => Const64::Variable(i, offset),
                Place::Dynamic if offset == 0 => return Ok(self.scopes.dynamic64()),
                Place::Dynamic => return self.unknown("offset to a dynamic shared symbol"),
                Place::Local(a) | Place::CallParam(a) => {
                    return Ok(self.scopes.frame64(i64::from(a).wrapping_add(offset)));
                }
                Place::Shared(a) | Place::Param(a) => {
                    Const64::Value(u64::from(a).wrapping_add(offset as u64))
                }
            };
            return Ok(self.scopes.const64(c));
        }
        if offset != 0 {
            return self.unknown("expected a register or a literal");
        }
        if self.scopes.lookup(n).is_none()
            && let Some(at) = self.ast.functions.iter().position(|f| f.name == *n)
        {
            let address = FUNCTION_BASE + FUNCTION_STEP * at as u64;
            return Ok(self.scopes.const64(Const64::Value(address)));
        }
        match self.reg(n)?.0 {
            RegRef::R64(s) => Ok(s),
            RegRef::R32(_) => self.unknown(format!("`{n}` has 32 bits, expected 64")),
            RegRef::Pred(_) => self.unknown(format!("`{n}` is a predicate")),
        }
    }

    /// A source of either file, as its declaration says; literals take the type's width.
    fn src(&mut self, o: &Operand, ty: Ty) -> Result<Reg> {
        if let Operand::Name(n) = o
            && special(n).is_none()
            && self.scopes.place(n).is_none()
            && self.scopes.lookup(n).is_some()
        {
            return match self.reg(n)?.0 {
                RegRef::R32(s) => Ok(Reg::R32(s)),
                RegRef::R64(s) => Ok(Reg::R64(s)),
                RegRef::Pred(_) => self.unknown(format!("`{n}` is a predicate")),
            };
        }
        if ty.is_64() { self.src64(o, ty).map(Reg::R64) } else { self.src32(o, ty).map(Reg::R32) }
    }

    fn bits32(&self, v: Immediate, ty: Ty) -> Result<u32> {
        let wide = matches!(ty, Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16);
        let bits = match (v, ty) {
            (Immediate::Int(v), Ty::F32) if v != 0 => {
                return self.unknown(format!("integer literal {v} for an f32"));
            }
            (Immediate::Int(v), _) => v as u32,
            (Immediate::F32(b), _) => b,
            (Immediate::F64(b), Ty::F32) => (f64::from_bits(b) as f32).to_bits(),
            (Immediate::F64(_), _) => return self.unknown("the literal does not fit the type"),
        };
        Ok(if wide { bits & 0xffff } else { bits })
    }

    /// Parses a type modifier, or says which one is missing.
    fn ty(&self, s: Option<&&str>) -> Result<Ty> {
        match s.and_then(|s| Ty::parse(s)) {
            Some(t) if t != Ty::B128 => Ok(t),
            _ => self.unknown(format!("type `{}`", s.copied().unwrap_or("none"))),
        }
    }

    /// The address operand of a memory instruction in a space.
    fn addr(&mut self, o: &Operand) -> Result<(Addr, Option<Place>)> {
        let Operand::Address { base, offset } = o else {
            return self.unknown("expected an address in brackets");
        };
        let offset = *offset;
        let Some(n) = base else { return Ok((Addr { base: Base::None, offset }, None)) };
        if let Some(place) = self.scopes.place(n) {
            let addr = match place {
                Place::Global(i) => {
                    let s = self.scopes.const64(Const64::Variable(i, 0));
                    Addr { base: Base::R64(s), offset }
                }
                Place::Dynamic => Addr { base: Base::R32(self.scopes.dynamic32()), offset },
                Place::Local(a) | Place::CallParam(a) if self.scopes.in_function() => {
                    let base = Base::R64(self.scopes.frame64(0));
                    Addr { base, offset: offset.wrapping_add(i64::from(a)) }
                }
                Place::Shared(a) | Place::Local(a) | Place::Param(a) | Place::CallParam(a) => {
                    Addr { base: Base::None, offset: offset.wrapping_add(i64::from(a)) }
                }
            };
            return Ok((addr, Some(place)));
        }
        let base = match self.reg(n)?.0 {
            RegRef::R32(s) => Base::R32(s),
            RegRef::R64(s) => Base::R64(s),
            RegRef::Pred(_) => return self.unknown(format!("`{n}` is a predicate")),
        };
        Ok((Addr { base, offset }, None))
    }
}

/// A declared register with its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RegRef {
    Pred(Slot),
    R32(Slot),
    R64(Slot),
}

/// Special registers that are constant for a warp.
fn special(name: &str) -> Option<Special> {
    if name == "WARP_SZ" {
        return Some(Special::WarpSize);
    }
    if !name.starts_with('%') {
        return None;
    }
    let axis = |c: &str| match c {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((base, c)) = name.split_once('.') {
        let c = axis(c)?;
        return Some(match base {
            "%tid" => Special::Tid(c),
            "%ntid" => Special::Ntid(c),
            "%ctaid" => Special::Ctaid(c),
            "%nctaid" => Special::Nctaid(c),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NWarpId,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NSmId,
        "%gridid" => Special::GridId,
        "%lanemask_eq" => Special::LaneMask(LaneMask::Eq),
        "%lanemask_le" => Special::LaneMask(LaneMask::Le),
        "%lanemask_lt" => Special::LaneMask(LaneMask::Lt),
        "%lanemask_ge" => Special::LaneMask(LaneMask::Ge),
        "%lanemask_gt" => Special::LaneMask(LaneMask::Gt),
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        _ => return None,
    })
}
