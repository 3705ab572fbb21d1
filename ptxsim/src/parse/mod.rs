//! The parser: PTX text to a tree. It knows the grammar, not what instructions mean.

pub(crate) mod ast;
mod directives;
mod lexer;

use crate::error::{Error, Result};
use ast::*;
use lexer::{Kind, Token};

/// Parses a module.
pub(crate) fn parse(module: &str, text: &str) -> Result<Ast> {
    let tokens = lexer::tokens(text).map_err(|(line, message)| Error::Parse {
        module: module.to_string(),
        line,
        message,
    })?;
    let mut p = Parser { module, tokens, at: 0 };
    p.module()
}

struct Parser<'a> {
    module: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Parser<'_> {
    fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(1, |t| t.line)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::Parse {
            module: self.module.to_string(),
            line: self.line(),
            message: message.into(),
        })
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    fn peek_at(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|t| &t.kind)
    }

    fn found(&self) -> String {
        match self.peek() {
            None => "the end of the text".into(),
            Some(Kind::Word(w)) => format!("`{w}`"),
            Some(Kind::Text(s)) => format!("{s:?}"),
            Some(Kind::Punct(c)) => format!("`{c}`"),
        }
    }

    fn is(&self, c: char) -> bool {
        self.peek() == Some(&Kind::Punct(c))
    }

    fn accept(&mut self, c: char) -> bool {
        let yes = self.is(c);
        self.at += usize::from(yes);
        yes
    }

    fn expect(&mut self, c: char) -> Result<()> {
        if self.accept(c) {
            return Ok(());
        }
        self.fail(format!("expected `{c}`, found {}", self.found()))
    }

    fn word(&mut self, what: &str) -> Result<String> {
        if let Some(Kind::Word(w)) = self.peek() {
            let w = w.clone();
            self.at += 1;
            return Ok(w);
        }
        self.fail(format!("expected {what}, found {}", self.found()))
    }

    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Some(Kind::Word(w)) => Some(w),
            _ => None,
        }
    }

    /// A non-negative integer literal.
    fn number(&mut self, what: &str) -> Result<u64> {
        let w = self.word(what)?;
        match literal(&w) {
            Some(Immediate::Int(v)) if v >= 0 && v <= i128::from(u64::MAX) => Ok(v as u64),
            _ => {
                self.at -= 1;
                self.fail(format!("expected {what}, found `{w}`"))
            }
        }
    }

    fn small(&mut self, what: &str) -> Result<u32> {
        let v = self.number(what)?;
        u32::try_from(v).or_else(|_| self.fail(format!("{what} {v} is too large")))
    }

    fn immediate(&mut self) -> Result<Immediate> {
        let negative = self.accept('-');
        let invert = !negative && self.accept('~');
        let w = self.word("a literal")?;
        let Some(v) = literal(&w) else {
            self.at -= 1;
            return self.fail(format!("expected a literal, found `{w}`"));
        };
        match v {
            Immediate::Int(v) if negative => Ok(Immediate::Int(-v)),
            Immediate::Int(v) if invert => Ok(Immediate::Int(!v)),
            Immediate::F64(b) if negative => Ok(Immediate::F64(b ^ (1 << 63))),
            v if !negative && !invert => Ok(v),
            _ => self.fail(format!("a sign before `{w}` is not allowed")),
        }
    }

    /// The body of an entry: everything between its braces.
    fn body(&mut self) -> Result<Vec<Statement>> {
        let mut out = Vec::new();
        let mut depth = 0u32;
        self.expect('{')?;
        loop {
            match self.peek() {
                None => return self.fail("the body is not closed"),
                Some(Kind::Punct('{')) => {
                    self.at += 1;
                    depth += 1;
                    out.push(Statement::Open);
                }
                Some(Kind::Punct('}')) => {
                    self.at += 1;
                    if depth == 0 {
                        return Ok(out);
                    }
                    depth -= 1;
                    out.push(Statement::Close);
                }
                Some(Kind::Punct(';')) => self.at += 1,
                Some(Kind::Punct('@')) => {
                    let i = self.instruction()?;
                    out.push(Statement::Instr(i));
                }
                Some(Kind::Word(w)) if w.starts_with('.') => self.body_directive(&mut out)?,
                Some(Kind::Word(_)) if self.peek_at(1) == Some(&Kind::Punct(':')) => {
                    let name = self.word("a label")?;
                    self.expect(':')?;
                    if self.peek_word() == Some(".branchtargets") {
                        self.at += 1;
                        let mut labels = vec![self.word("a label")?];
                        while self.accept(',') {
                            labels.push(self.word("a label")?);
                        }
                        self.expect(';')?;
                        out.push(Statement::Targets { name, labels });
                    } else if self.peek_word() == Some(".calltargets") {
                        // Whom a call by address may mean: its prototype says all that counts.
                        while !self.accept(';') {
                            if self.peek().is_none() {
                                return self.fail("the list of call targets is not closed");
                            }
                            self.at += 1;
                        }
                    } else if self.peek_word() == Some(".callprototype") {
                        self.at += 1;
                        let results = self.formals()?;
                        self.word("a `_`")?;
                        let params = self.formals()?;
                        while !self.accept(';') {
                            self.word("`;`")?;
                        }
                        let signature = Signature { results, params };
                        out.push(Statement::Prototype { name, signature });
                    } else {
                        out.push(Statement::Label(name));
                    }
                }
                Some(Kind::Word(_)) => {
                    let i = self.instruction()?;
                    out.push(Statement::Instr(i));
                }
                Some(_) => {
                    return self.fail(format!("expected a statement, found {}", self.found()));
                }
            }
        }
    }

    fn instruction(&mut self) -> Result<RawInstr> {
        let line = self.line();
        let guard = if self.accept('@') {
            let negated = self.accept('!');
            Some((self.word("a predicate")?, negated))
        } else {
            None
        };
        let name = self.word("an instruction")?;
        let mut operands = Vec::new();
        if !self.accept(';') {
            loop {
                operands.push(self.operand()?);
                if self.accept(';') {
                    break;
                }
                self.expect(',')?;
            }
        }
        Ok(RawInstr { guard, name, operands, line })
    }

    fn operand(&mut self) -> Result<Operand> {
        match self.peek() {
            Some(Kind::Punct('{')) => {
                self.at += 1;
                let mut parts = Vec::new();
                loop {
                    if self.is('{') {
                        return self.fail("a vector inside a vector");
                    }
                    parts.push(self.operand()?);
                    if !self.accept(',') {
                        break;
                    }
                }
                self.expect('}')?;
                Ok(Operand::Vector(parts))
            }
            Some(Kind::Punct('[')) => {
                self.at += 1;
                let a = self.address()?;
                self.expect(']')?;
                Ok(a)
            }
            Some(Kind::Punct('!')) => {
                self.at += 1;
                Ok(Operand::Not(self.word("a predicate")?))
            }
            Some(Kind::Punct('-' | '~')) => Ok(Operand::Imm(self.immediate()?)),
            Some(Kind::Punct('(')) => {
                self.at += 1;
                let mut list = Vec::new();
                if self.accept(')') {
                    return Ok(Operand::List(list));
                }
                loop {
                    if self.is('(') {
                        return self.fail("a list inside a list");
                    }
                    list.push(self.operand()?);
                    if self.accept(')') {
                        return Ok(Operand::List(list));
                    }
                    self.expect(',')?;
                }
            }
            _ => {
                let w = self.word("an operand")?;
                if let Some(v) = literal(&w) {
                    return Ok(Operand::Imm(v));
                }
                if self.accept('|') {
                    return Ok(Operand::Pair(w, self.word("a predicate")?));
                }
                if self.is('+') {
                    let offset = self.offset()?;
                    return Ok(Operand::Address { base: Some(w), offset });
                }
                if self.accept('[') {
                    let Immediate::Int(v) = self.immediate()? else {
                        return self.fail("an index must be an integer");
                    };
                    let Ok(index) = i64::try_from(v) else {
                        return self.fail(format!("index {v} is too large"));
                    };
                    self.expect(']')?;
                    return Ok(Operand::Element { name: w, index });
                }
                Ok(Operand::Name(w))
            }
        }
    }

    fn address(&mut self) -> Result<Operand> {
        if self.is('-') {
            let offset = self.offset()?;
            return Ok(Operand::Address { base: None, offset });
        }
        let w = self.word("an address")?;
        if let Some(v) = literal(&w) {
            return match v {
                Immediate::Int(v) if i64::try_from(v).is_ok() => {
                    Ok(Operand::Address { base: None, offset: v as i64 })
                }
                _ => self.fail(format!("`{w}` is no address")),
            };
        }
        let offset = self.offset()?;
        Ok(Operand::Address { base: Some(w), offset })
    }

    /// `+4`, `+-4`, `-4`, or nothing.
    fn offset(&mut self) -> Result<i64> {
        let plus = self.accept('+');
        if !plus && !self.is('-') {
            return Ok(0);
        }
        match self.immediate()? {
            Immediate::Int(v) if i64::try_from(v).is_ok() => Ok(v as i64),
            _ => self.fail("the offset of an address must be an integer"),
        }
    }
}

/// Reads a literal word; `None` when it is a name.
pub(crate) fn literal(w: &str) -> Option<Immediate> {
    if !w.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let lower = w.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f")
        && hex.len() == 8
    {
        return u32::from_str_radix(hex, 16).ok().map(Immediate::F32);
    }
    if let Some(hex) = lower.strip_prefix("0d")
        && hex.len() == 16
    {
        return u64::from_str_radix(hex, 16).ok().map(Immediate::F64);
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let int = if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(hex, 16).ok()
    } else if let Some(bin) = digits.strip_prefix("0b") {
        i128::from_str_radix(bin, 2).ok()
    } else if digits.len() > 1 && digits.starts_with('0') && !digits.contains('.') {
        i128::from_str_radix(&digits[1..], 8).ok()
    } else {
        digits.parse::<i128>().ok()
    };
    match int {
        Some(v) => Some(Immediate::Int(v)),
        None => lower.parse::<f64>().ok().map(|v| Immediate::F64(v.to_bits())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        assert_eq!(literal("0x1F"), Some(Immediate::Int(31)));
        assert_eq!(literal("0f3F800000"), Some(Immediate::F32(0x3f80_0000)));
        assert_eq!(literal("0d3FF0000000000000"), Some(Immediate::F64(1f64.to_bits())));
        assert_eq!(literal("017"), Some(Immediate::Int(15)));
        assert_eq!(literal("1.5"), Some(Immediate::F64(1.5f64.to_bits())));
        assert_eq!(literal("%r1"), None);
    }

    #[test]
    fn a_kernel_with_all_that_surrounds_it() {
        let text = r#"
.version 8.4
.target sm_80, debug
.address_size 64
.extern .shared .align 16 .b8 smem[];
.global .align 4 .u32 table[3] = {1, 0x2, 3};
.visible .entry k(
    .param .u64 .ptr .global .align 1 k_param_0,
    .param .align 8 .b8 k_param_1[24]
)
.maxntid 256, 1, 1
.minnctapersm 2
{
    .reg .b32 %r<5>;
    .loc 1 7 3, function_name $info, inlined_at 1 12 4
    @!%p1 bra L2;
    { .reg .pred p; setp.lt.s32 p|%p2, %r1, -1; }
L2: ld.global.v2.u32 {%r1, %r2}, [%rd1+-8];
    ret;
}
.file 1 "a.cu"
.section .debug_str { $info: .b8 97, 0 }
"#;
        let m = parse("m", text).unwrap();
        assert_eq!((m.target, m.version), (80, (8, 4)));
        let e = &m.entries[0];
        assert_eq!(e.params[1].bytes(), 24);
        assert_eq!(e.max_threads, Some([256, 1, 1]));
        assert_eq!(e.body.iter().filter(|s| matches!(s, Statement::Instr(_))).count(), 4);
        assert!(e.body.iter().any(|s| matches!(s, Statement::Loc { file: 1, line: 7 })));
        assert_eq!(m.files, [(1, "a.cu".to_string())]);
    }

    #[test]
    fn an_unknown_directive_is_named_with_its_line() {
        let e = parse("m", ".version 8.4\n.target sm_80\n.frobnicate 3\n").unwrap_err();
        assert!(
            matches!(&e, Error::UnknownDirective { line: 3, directive, .. } if directive == ".frobnicate")
        );
    }
}
