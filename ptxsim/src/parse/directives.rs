//! Directives: the module's frame, declarations, debug sections.

use super::Parser;
use super::ast::*;
use super::lexer::Kind;
use crate::error::{Error, Result};

impl Parser<'_> {
    pub(super) fn module(&mut self) -> Result<Ast> {
        let mut ast = Ast::default();
        while self.peek().is_some() {
            if self.accept(';') {
                continue;
            }
            let line = self.line();
            let w = self.word("a directive")?;
            match w.as_str() {
                ".version" => {
                    let v = self.word("a version")?;
                    let parts: Vec<_> = v.split('.').map(str::parse::<u32>).collect();
                    let [Ok(major), Ok(minor)] = parts[..] else {
                        return self.fail(format!("`{v}` is no PTX version"));
                    };
                    ast.version = (major, minor);
                }
                ".target" => {
                    let t = self.word("a target")?;
                    let digits = t.strip_prefix("sm_").unwrap_or("");
                    let digits = digits.trim_end_matches(|c: char| c.is_ascii_lowercase());
                    let Ok(target) = digits.parse() else {
                        return self.fail(format!("`{t}` is no target"));
                    };
                    ast.target = target;
                    while self.accept(',') {
                        self.word("a target option")?;
                    }
                }
                ".address_size" => {
                    let bits = self.number("an address size")?;
                    if bits != 64 {
                        return self.fail(format!("address size {bits} is not known, only 64"));
                    }
                }
                ".file" => self.file(&mut ast)?,
                ".section" => self.skip_section()?,
                ".pragma" => self.pragma()?,
                ".visible" | ".weak" | ".common" => {}
                ".extern" => {
                    if self.peek_word() == Some(".func") {
                        self.at += 1;
                        let f = self.function(line)?;
                        ast.declare(f);
                    } else {
                        let w = self.word("a state space")?;
                        let v = self.variable(&w, line, true)?;
                        ast.variables.push(v);
                    }
                }
                ".global" | ".const" | ".shared" => {
                    let mut v = self.variable(&w, line, false)?;
                    v.init = self.initialiser()?;
                    ast.variables.push(v);
                    if self.accept(',') {
                        return self.fail("declare one variable a line");
                    }
                }
                ".entry" => {
                    let e = self.entry(line)?;
                    ast.entries.push(e);
                }
                ".func" => {
                    let f = self.function(line)?;
                    ast.declare(f);
                }
                _ => {
                    return Err(Error::UnknownDirective {
                        module: self.module.to_string(),
                        line,
                        directive: w,
                    });
                }
            }
        }
        if ast.target == 0 || ast.version.0 == 0 {
            return self.fail("the module has no .version or no .target");
        }
        Ok(ast)
    }

    fn file(&mut self, ast: &mut Ast) -> Result<()> {
        let index = self.small("a file index")?;
        let Some(Kind::Text(name)) = self.peek() else {
            return self.fail(format!("expected a file name, found {}", self.found()));
        };
        let name = name.clone();
        self.at += 1;
        while self.accept(',') {
            self.number("a time stamp or size")?;
        }
        ast.files.push((index, name));
        Ok(())
    }

    fn pragma(&mut self) -> Result<()> {
        while let Some(Kind::Text(_)) = self.peek() {
            self.at += 1;
            if !self.accept(',') {
                break;
            }
        }
        self.expect(';')
    }

    /// Debug sections are skipped whole.
    fn skip_section(&mut self) -> Result<()> {
        self.word("a section name")?;
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                None => return self.fail("the section is not closed"),
                Some(Kind::Punct('{')) => depth += 1,
                Some(Kind::Punct('}')) => depth -= 1,
                Some(_) => {}
            }
            self.at += 1;
        }
        Ok(())
    }

    /// A `.func`, declared or defined.
    fn function(&mut self, line: u32) -> Result<FunctionAst> {
        let results = self.formals()?;
        let name = self.word("a function name")?;
        let params = self.formals()?;
        let signature = Signature { results, params };
        let mut f = FunctionAst { name, line, signature, noreturn: false, body: None };
        loop {
            if self.accept(';') {
                return Ok(f);
            }
            if self.is('{') {
                f.body = Some(self.body()?);
                return Ok(f);
            }
            match self.word("the function's body")?.as_str() {
                ".noreturn" => f.noreturn = true,
                ".pragma" => self.pragma()?,
                // Whom registers are kept for says nothing here.
                ".abi_preserve" | ".abi_preserve_control" => {
                    self.number("a register count")?;
                }
                ".unique" | ".common" => {}
                w => return self.fail(format!("unknown attribute `{w}` of a function")),
            }
        }
    }

    /// `(.param .b64 a, .reg .b32 b)`, or nothing.
    pub(super) fn formals(&mut self) -> Result<Vec<Formal>> {
        let mut out = Vec::new();
        if !self.accept('(') || self.accept(')') {
            return Ok(out);
        }
        loop {
            let line = self.line();
            let w = self.word("a parameter")?;
            match w.as_str() {
                ".param" => out.push(Formal::Param(self.variable(&w, line, false)?)),
                ".reg" => {
                    let ty = self.word("a register type")?;
                    out.push(Formal::Register(ty, self.word("a register name")?));
                }
                _ => return self.fail(format!("expected `.param` or `.reg`, found `{w}`")),
            }
            if self.accept(')') {
                return Ok(out);
            }
            self.expect(',')?;
        }
    }

    fn entry(&mut self, line: u32) -> Result<EntryAst> {
        let name = self.word("an entry name")?;
        let mut e = EntryAst {
            name,
            line,
            params: Vec::new(),
            max_threads: None,
            required_threads: None,
            min_blocks: None,
            body: Vec::new(),
        };
        if self.accept('(') && !self.accept(')') {
            loop {
                let line = self.line();
                let w = self.word("a parameter")?;
                if w != ".param" {
                    return self.fail(format!("expected `.param`, found `{w}`"));
                }
                e.params.push(self.variable(&w, line, false)?);
                if self.accept(')') {
                    break;
                }
                self.expect(',')?;
            }
        }
        // PTX allows 32764 bytes of parameters, 512 KB of local memory a thread.
        let bytes = e.params.iter().fold(0u64, |n, p| n.saturating_add(p.bytes()));
        if bytes > 32_764 {
            return self.fail(format!("entry `{}` has {bytes} bytes of parameters", e.name));
        }
        loop {
            if self.is('{') {
                e.body = self.body()?;
                return Ok(e);
            }
            let line = self.line();
            let w = self.word("the entry's body")?;
            match w.as_str() {
                ".maxntid" => e.max_threads = Some(self.triple()?),
                ".reqntid" => e.required_threads = Some(self.triple()?),
                ".minnctapersm" => e.min_blocks = Some(self.small("a block count")?),
                ".maxnreg" => {
                    self.number("a register count")?;
                }
                ".noreturn" => {}
                ".pragma" => self.pragma()?,
                _ => {
                    return Err(Error::UnknownDirective {
                        module: self.module.to_string(),
                        line,
                        directive: w,
                    });
                }
            }
        }
    }

    fn triple(&mut self) -> Result<[u32; 3]> {
        let mut out = [1; 3];
        for (i, v) in out.iter_mut().enumerate() {
            if i > 0 && !self.accept(',') {
                break;
            }
            *v = self.small("a thread count")?;
        }
        Ok(out)
    }

    pub(super) fn body_directive(&mut self, out: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        let w = self.word("a directive")?;
        match w.as_str() {
            ".reg" => {
                let ty = self.word("a register type")?;
                loop {
                    let name = self.word("a register name")?;
                    let count = if self.accept('<') {
                        let n = self.small("a register count")?;
                        self.expect('>')?;
                        Some(n)
                    } else {
                        None
                    };
                    out.push(Statement::Register { ty: ty.clone(), name, count, line });
                    if !self.accept(',') {
                        break;
                    }
                }
                self.expect(';')
            }
            ".shared" | ".local" | ".param" | ".const" | ".global" => {
                let mut v = self.variable(&w, line, false)?;
                v.init = self.initialiser()?;
                self.expect(';')?;
                if v.space == VarSpace::Local && v.bytes() > 512 * 1024 {
                    return self.fail(format!(
                        "`{}` has {} bytes of local memory",
                        v.name,
                        v.bytes()
                    ));
                }
                out.push(Statement::Variable(v));
                Ok(())
            }
            ".loc" => {
                let file = self.small("a file index")?;
                let line = self.small("a line")?;
                self.number("a column")?;
                // `, function_name label{+n}, inlined_at file line column` adds nothing here.
                while self.accept(',') {
                    match self.word("a .loc attribute")?.as_str() {
                        "function_name" => {
                            self.word("a label")?;
                            if self.accept('+') {
                                self.number("an offset")?;
                            }
                        }
                        "inlined_at" => {
                            for what in ["a file index", "a line", "a column"] {
                                self.number(what)?;
                            }
                        }
                        w => return self.fail(format!("unknown .loc attribute `{w}`")),
                    }
                }
                out.push(Statement::Loc { file, line });
                Ok(())
            }
            ".pragma" => self.pragma(),
            _ => {
                // Up to its end: the rest of the body may be whole.
                while !self.accept(';') {
                    if self.peek().is_none() || self.is('{') || self.is('}') {
                        return Err(Error::UnknownDirective {
                            module: self.module.to_string(),
                            line,
                            directive: w,
                        });
                    }
                    self.at += 1;
                }
                out.push(Statement::Unknown { directive: w, line });
                Ok(())
            }
        }
    }

    /// What follows the state space: alignment, type, pointer attributes, name, array sizes.
    fn variable(&mut self, space: &str, line: u32, is_extern: bool) -> Result<Variable> {
        let space = match space {
            ".global" => VarSpace::Global,
            ".const" => VarSpace::Const,
            ".shared" => VarSpace::Shared,
            ".local" => VarSpace::Local,
            ".param" => VarSpace::Param,
            w => return self.fail(format!("`{w}` is no state space of a variable")),
        };
        let (mut align, mut element, mut lanes, mut pointer) = (None, None, 1, false);
        let name = loop {
            let w = self.word("a type or a name")?;
            match w.as_str() {
                ".align" => {
                    let a = self.number("an alignment")?;
                    if !a.is_power_of_two() {
                        return self.fail(format!("alignment {a} is no power of two"));
                    }
                    // After `.ptr` it is the alignment of what the pointer points to.
                    if !pointer {
                        align = Some(a);
                    }
                }
                ".ptr" => pointer = true,
                ".global" | ".const" | ".shared" | ".local" if pointer => {}
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".b8" | ".u8" | ".s8" => element = Some(1),
                ".b16" | ".u16" | ".s16" | ".f16" => element = Some(2),
                ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" => element = Some(4),
                ".b64" | ".u64" | ".s64" | ".f64" => element = Some(8),
                ".attribute" => return self.fail("variable attributes are not known"),
                _ if w.starts_with('.') => return self.fail(format!("unknown type `{w}`")),
                _ => break w,
            }
        };
        let Some(element) = element else {
            return self.fail(format!("variable `{name}` has no type"));
        };
        let element = element * lanes;
        let mut count = 1u64;
        while self.accept('[') {
            if self.accept(']') {
                count = 0;
                continue;
            }
            let n = self.number("an array size")?;
            let total = count.checked_mul(n).filter(|c| c.checked_mul(element).is_some());
            let Some(total) = total else {
                return self.fail(format!("array `{name}` is too large"));
            };
            count = total;
            self.expect(']')?;
        }
        let align = align.unwrap_or(element);
        Ok(Variable { name, space, is_extern, align, element, count, init: None, line })
    }

    fn initialiser(&mut self) -> Result<Option<Vec<Initial>>> {
        if !self.accept('=') {
            return Ok(None);
        }
        let mut out = Vec::new();
        if !self.is('{') {
            out.push(self.initial()?);
            return Ok(Some(out));
        }
        let mut depth = 0;
        loop {
            if self.accept('{') {
                depth += 1;
            } else if self.accept('}') {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(out));
                }
            } else if !self.accept(',') {
                out.push(self.initial()?);
            }
        }
    }

    /// A literal, `name`, `name+4` or `generic(name)+4`.
    fn initial(&mut self) -> Result<Initial> {
        let name = match self.peek_word() {
            Some(w) if super::literal(w).is_none() => self.word("a name")?,
            _ => return Ok(Initial::Literal(self.immediate()?)),
        };
        // Addresses of device memory are the same in the generic space.
        let name = if name == "generic" && self.accept('(') {
            let inner = self.word("a variable")?;
            self.expect(')')?;
            inner
        } else {
            name
        };
        let offset = self.offset()?;
        Ok(Initial::Address(name, offset))
    }
}

impl Ast {
    /// Adds a function; a definition takes the place of its declaration.
    fn declare(&mut self, f: FunctionAst) {
        match self.functions.iter_mut().find(|known| known.name == f.name) {
            Some(known) if known.body.is_none() => {
                let noreturn = known.noreturn || f.noreturn;
                *known = FunctionAst { noreturn, ..f };
            }
            // Declared again after its definition.
            Some(known) => known.noreturn |= f.noreturn,
            None => self.functions.push(f),
        }
    }
}
