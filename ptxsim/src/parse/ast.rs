//! What the parser makes of a module's text.

/// A whole module.
#[derive(Debug, Default)]
pub(crate) struct Ast {
    pub target: u32,
    pub version: (u32, u32),
    pub files: Vec<(u32, String)>,
    pub variables: Vec<Variable>,
    pub entries: Vec<EntryAst>,
    /// Functions by their order: a declaration and its definition are one.
    pub functions: Vec<FunctionAst>,
}

/// What a function takes and gives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signature {
    pub results: Vec<Formal>,
    pub params: Vec<Formal>,
}

/// A formal parameter or result.
#[derive(Debug, Clone)]
pub(crate) enum Formal {
    Param(Variable),
    /// Register type and name.
    Register(String, String),
}

/// One `.func`.
#[derive(Debug)]
pub(crate) struct FunctionAst {
    pub name: String,
    pub line: u32,
    pub signature: Signature,
    pub noreturn: bool,
    /// None where it is only declared.
    pub body: Option<Vec<Statement>>,
}

/// One `.entry`.
#[derive(Debug)]
pub(crate) struct EntryAst {
    pub name: String,
    pub line: u32,
    pub params: Vec<Variable>,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    pub min_blocks: Option<u32>,
    pub body: Vec<Statement>,
}

/// Where a variable lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VarSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A variable declaration.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub name: String,
    pub space: VarSpace,
    pub is_extern: bool,
    pub align: u64,
    /// Bytes of one element.
    pub element: u64,
    /// Elements; 0 for an array of unknown size.
    pub count: u64,
    pub init: Option<Vec<Initial>>,
    pub line: u32,
}

/// A value that a variable starts with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Initial {
    Literal(Immediate),
    /// The address of a variable or function, and what is added to it.
    Address(String, i64),
}

impl Variable {
    pub fn bytes(&self) -> u64 {
        self.element * self.count
    }
}

/// A literal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Immediate {
    Int(i128),
    /// `0f…`: the bits.
    F32(u32),
    /// `0d…`: the bits, also decimal literals.
    F64(u64),
}

/// An operand as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Name(String),
    Imm(Immediate),
    Vector(Vec<Operand>),
    Address {
        base: Option<String>,
        offset: i64,
    },
    /// `name[2]`: the address of an element.
    Element {
        name: String,
        index: i64,
    },
    Pair(String, String),
    Not(String),
    /// What a call passes or takes: `(a, b)`.
    List(Vec<Operand>),
}

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) struct RawInstr {
    /// Predicate register and whether it is negated.
    pub guard: Option<(String, bool)>,
    pub name: String,
    pub operands: Vec<Operand>,
    pub line: u32,
}

/// A statement of a body.
#[derive(Debug)]
pub(crate) enum Statement {
    /// `.reg`: type, name, and `n` of `name<n>`.
    Register {
        ty: String,
        name: String,
        count: Option<u32>,
        line: u32,
    },
    Variable(Variable),
    Label(String),
    /// `name: .branchtargets a, b;`
    Targets {
        name: String,
        labels: Vec<String>,
    },
    /// `name: .callprototype (...) _ (...);`
    Prototype {
        name: String,
        signature: Signature,
    },
    Loc {
        file: u32,
        line: u32,
    },
    /// A directive that is not known: what it stands in cannot run.
    Unknown {
        directive: String,
        line: u32,
    },
    Instr(RawInstr),
    Open,
    Close,
}
