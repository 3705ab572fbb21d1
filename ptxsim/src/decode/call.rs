//! Functions and calls.
//!
//! A function's code stands once behind its entry's, with registers of its own in the entry's
//! files. A call passes values into the function's frame, a piece of the thread's local memory;
//! what an outer activation of the same function holds in its registers is kept meanwhile.

use super::types::Ty;
use super::{Decoded, Decoder, RegRef};
use crate::counters::Class;
use crate::error::Result;
use crate::ir::*;
use crate::parse::ast::*;

/// What the simulator does itself: name, bytes of results and of parameters.
const BUILTINS: [(&str, Builtin, &[u32], &[u32]); 2] = [
    // Message, file, line, function, bytes of a character.
    ("__assertfail", Builtin::AssertFail, &[], &[8, 8, 4, 8, 8]),
    // Format, values.
    ("vprintf", Builtin::Printf, &[4], &[8, 8]),
];

impl<'a> Decoder<'a> {
    /// Decodes the functions that are called, and those they call.
    pub(super) fn functions(&mut self) -> Result<()> {
        self.scopes.close_all();
        let (mut at, mut all) = (0, 0);
        loop {
            if let Some(&index) = self.called.get(at) {
                at += 1;
                if self.functions[index].is_none() {
                    self.function(index)?;
                }
            } else if self.by_address && all < self.functions.len() {
                // One that cannot run is not there: calling it is an error when it happens.
                let before = self.instrs.len();
                if self.functions[all].is_none()
                    && self.ast.functions[all].body.is_some()
                    && self.function(all).is_err()
                {
                    self.instrs.truncate(before);
                }
                all += 1;
            } else {
                return Ok(());
            }
        }
    }

    fn function(&mut self, index: usize) -> Result<()> {
        let f: &'a FunctionAst = &self.ast.functions[index];
        let Some(body) = &f.body else {
            return self.unknown(format!("function `{}` is defined elsewhere", f.name));
        };
        self.line = f.line;
        let start = self.instrs.len() as u32;
        let before = self.scopes.begin_function();
        let decoded = self.function_body(f, body);
        let (frame_bytes, own) = self.scopes.end_function(before);
        let (results, params) = decoded?;
        self.end(f.line, Op::Return);
        let sorted = |addresses: std::collections::HashMap<i64, Slot>| {
            let mut v: Vec<(Slot, i64)> = addresses.into_iter().map(|(at, s)| (s, at)).collect();
            v.sort_unstable();
            v
        };
        let of =
            |pick: fn(&RegRef) -> Option<Slot>| own.registers.iter().filter_map(pick).collect();
        self.functions[index] = Some(Function {
            name: f.name.clone(),
            start,
            frame_bytes: frame_bytes.min(u64::from(u32::MAX)) as u32,
            r32: of(|r| if let RegRef::R32(s) = r { Some(*s) } else { None }),
            r64: of(|r| if let RegRef::R64(s) = r { Some(*s) } else { None }),
            preds: of(|r| if let RegRef::Pred(s) = r { Some(*s) } else { None }),
            addresses32: sorted(own.addresses32),
            addresses64: sorted(own.addresses),
            params,
            results,
            noreturn: f.noreturn,
        });
        Ok(())
    }

    #[expect(clippy::type_complexity, reason = "results and parameters, each with its bytes")]
    fn function_body(
        &mut self,
        f: &'a FunctionAst,
        body: &'a [Statement],
    ) -> Result<(Vec<(Taken, u32)>, Vec<(Taken, u32)>)> {
        let results = self.formals(&f.signature.results, f.line)?;
        let params = self.formals(&f.signature.params, f.line)?;
        self.labels(body)?;
        self.body(body)?;
        Ok((results, params))
    }

    fn formals(&mut self, formals: &[Formal], line: u32) -> Result<Vec<(Taken, u32)>> {
        let mut out = Vec::with_capacity(formals.len());
        for formal in formals {
            out.push(match formal {
                Formal::Param(v) => {
                    self.scopes.variable(v);
                    let Some(super::Place::CallParam(at)) = self.scopes.place(&v.name) else {
                        return self.parse_error(line, format!("`{}` is no parameter", v.name));
                    };
                    (Taken::Frame(at), v.bytes().min(u64::from(u32::MAX)) as u32)
                }
                Formal::Register(ty, name) => {
                    self.declare_register(name, None, ty, line)?;
                    let (r, ty) = self.reg(name)?;
                    let r = match r {
                        RegRef::R32(s) => Reg::R32(s),
                        RegRef::R64(s) => Reg::R64(s),
                        RegRef::Pred(_) => return self.unknown("a predicate as a parameter"),
                    };
                    (Taken::Register(r), u32::from(ty.bytes()))
                }
            });
        }
        Ok(out)
    }

    pub(super) fn call(&mut self, mods: &[&str], o: &[Operand]) -> Decoded {
        if !matches!(mods, [] | ["uni"]) {
            return self.unknown("this form of call");
        }
        let (results, o) = match o {
            [Operand::List(r), rest @ ..] => (&r[..], rest),
            _ => (&[][..], o),
        };
        let [Operand::Name(name), rest @ ..] = o else { return self.unknown("no function") };
        let (args, rest) = match rest {
            [Operand::List(a), rest @ ..] => (&a[..], rest),
            _ => (&[][..], rest),
        };
        let index = self.ast.functions.iter().position(|f| f.name == *name);
        let (target, signature) = match index {
            Some(index) => {
                let f: &'a FunctionAst = &self.ast.functions[index];
                let builtin = BUILTINS.iter().find(|b| b.0 == f.name);
                let target = match (&f.body, builtin) {
                    (None, Some(&(_, builtin, of_results, of_params))) => {
                        let bytes = |v: &[Formal]| v.iter().map(formal_bytes).collect::<Vec<_>>();
                        if bytes(&f.signature.results) != of_results
                            || bytes(&f.signature.params) != of_params
                        {
                            return self.unknown(format!("`{name}` of other parameters"));
                        }
                        Target::Builtin(builtin)
                    }
                    (None, None) => {
                        return self.unknown(format!("function `{name}` is defined elsewhere"));
                    }
                    (Some(_), _) => {
                        self.called.push(index);
                        Target::Function(index as u32)
                    }
                };
                (target, &f.signature)
            }
            None => {
                let address = self.src64(&o[0], Ty::U64)?;
                let Some(Operand::Name(prototype)) = rest.first() else {
                    return self.unknown("a call by address without a prototype");
                };
                let Some(&signature) = self.prototypes.get(prototype) else {
                    return self.unknown(format!("prototype `{prototype}` does not exist"));
                };
                self.by_address = true;
                (Target::Address(address), signature)
            }
        };
        let results = self.passed(results, &signature.results, true)?;
        let args = self.passed(args, &signature.params, false)?;
        Ok((Op::Call(Box::new(Call { target, results, args })), Class::Control))
    }

    /// What a call passes for each formal, or takes from it.
    fn passed(
        &mut self,
        actual: &[Operand],
        formals: &[Formal],
        takes: bool,
    ) -> Result<Vec<(Passed, u32)>> {
        if actual.len() != formals.len() {
            let what = if takes { "results" } else { "parameters" };
            let message = format!("{} {what}, expected {}", actual.len(), formals.len());
            return self.unknown(message);
        }
        let mut out = Vec::with_capacity(actual.len());
        for (o, formal) in actual.iter().zip(formals) {
            let bytes = formal_bytes(formal);
            if let Operand::Name(name) = o
                && let Some(super::Place::CallParam(_)) = self.scopes.place(name)
            {
                let found = self.scopes.sizes(name).map_or(0, |s| s.1);
                if found != u64::from(bytes) {
                    return self.unknown(format!("`{name}` has {found} bytes, expected {bytes}"));
                }
                let address = Operand::Address { base: Some(name.clone()), offset: 0 };
                out.push((Passed::Memory(self.addr(&address)?.0), bytes));
                continue;
            }
            let ty = match bytes {
                1 => Ty::B8,
                2 => Ty::B16,
                4 => Ty::B32,
                8 => Ty::B64,
                _ => return self.unknown(format!("a register for {bytes} bytes")),
            };
            let r = if takes { self.dst(o)? } else { self.src(o, ty)? };
            if matches!(r, Reg::R32(_)) == (bytes == 8) && r != Reg::Sink {
                return self.unknown(format!("a register of another width than {bytes} bytes"));
            }
            out.push((Passed::Register(r), bytes));
        }
        Ok(out)
    }
}

fn formal_bytes(formal: &Formal) -> u32 {
    match formal {
        Formal::Param(v) => v.bytes().min(u64::from(u32::MAX)) as u32,
        Formal::Register(ty, _) => {
            Ty::parse(ty.trim_start_matches('.')).map_or(0, |t| u32::from(t.bytes()))
        }
    }
}
