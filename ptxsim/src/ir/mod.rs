//! The decoded form that runs: operands are slots of register files, immediates and special
//! registers are slots too, filled when a warp starts.

mod call;

use std::sync::Arc;

pub(crate) use call::*;

/// Lanes of a warp.
pub(crate) const W: usize = 32;
/// A 32-bit (or narrower) register of all lanes.
pub(crate) type L32 = [u32; W];
/// A 64-bit register of all lanes.
pub(crate) type L64 = [u64; W];
/// Index of a register in its file.
pub(crate) type Slot = u32;

pub(crate) type Fn32 = fn(&L32, &L32, &L32, &mut L32);
pub(crate) type Fn64 = fn(&L64, &L64, &L64, &mut L64);
/// 32-bit factors, 64-bit addend and result.
pub(crate) type FnWide = fn(&L32, &L32, &L64, &mut L64);
pub(crate) type FnNarrow = fn(&L64, &mut L32);
pub(crate) type FnShift = fn(&L64, &L32, &mut L64);
pub(crate) type FnCmp32 = fn(&L32, &L32) -> u32;
pub(crate) type FnCmp64 = fn(&L64, &L64) -> u32;
pub(crate) type FnAtom = fn(u64, u64, u64) -> u64;

/// Predicate slot that is always true.
pub(crate) const TRUE: Slot = 0;
/// Predicate slot that is always false.
pub(crate) const FALSE: Slot = 1;

/// Address windows of the generic space.
pub(crate) const SHARED_WINDOW: u64 = 0x0100_0000_0000;
pub(crate) const LOCAL_WINDOW: u64 = 0x0200_0000_0000;
pub(crate) const PARAM_WINDOW: u64 = 0x0300_0000_0000;
pub(crate) const WINDOW_BYTES: u64 = 0x0000_0100_0000;
/// Addresses of functions: of the module's function `n`, `FUNCTION_STEP` times `n` on.
pub(crate) const FUNCTION_BASE: u64 = 0x0500_0000_0000;
pub(crate) const FUNCTION_STEP: u64 = 16;
/// Device memory starts here.
pub(crate) const GLOBAL_BASE: u64 = 0x7000_0000_0000;

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) struct Instr {
    pub op: Op,
    /// Lanes run where this predicate, xored with `negate`, is set.
    pub guard: Slot,
    pub negate: u32,
    pub line: u32,
    /// File index and line of the last `.loc`; file 0 when there was none.
    pub loc: (u32, u32),
    pub class: crate::counters::Class,
}

/// Second step of `setp`: the comparison is combined with another predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    None,
    And,
    Or,
    Xor,
}

/// Where a `setp` puts its two results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetTo {
    pub combine: Combine,
    pub with: Slot,
    pub with_negate: u32,
    pub p: Option<Slot>,
    pub q: Option<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PredOp {
    Mov,
    Not,
    And,
    Or,
    Xor,
}

/// State space of a memory instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemSpace {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    None,
    R32(Slot),
    R64(Slot),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Addr {
    pub base: Base,
    pub offset: i64,
}

/// A register of either file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reg {
    R32(Slot),
    R64(Slot),
    /// `_`: the value is dropped.
    Sink,
}

#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub space: MemSpace,
    pub addr: Addr,
    /// Bytes of one element.
    pub size: u8,
    /// Sign-extend narrow loads.
    pub signed: bool,
    /// Other threads may touch the address meanwhile: volatile, relaxed, acquire, release.
    pub strong: bool,
    /// `.const` and `ld.global.nc` may not be written; only noted for errors.
    pub regs: Vec<Reg>,
}

#[derive(Debug, Clone)]
pub(crate) struct Atom {
    pub space: MemSpace,
    pub addr: Addr,
    pub size: u8,
    pub f: FnAtom,
    pub d: Option<Reg>,
    pub a: Reg,
    pub b: Option<Reg>,
}

#[derive(Debug, Clone)]
pub(crate) struct CpAsync {
    pub dst: Addr,
    pub src: Addr,
    pub size: u8,
    pub src_size: Option<Slot>,
    /// Predicate form: where it is true, nothing is read and zeros are written.
    pub ignore_src: Option<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaKind {
    F16,
    Bf16,
    Tf32,
    /// 8-bit integers: signedness of A and of B.
    Int8(bool, bool),
}

#[derive(Debug, Clone)]
pub(crate) struct Mma {
    pub kind: MmaKind,
    pub k: u32,
    /// Accumulator and result are f16 pairs.
    pub half_acc: bool,
    pub saturate: bool,
    pub d: Vec<Slot>,
    pub a: Vec<Slot>,
    pub b: Vec<Slot>,
    pub c: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Shfl {
    pub mode: ShflMode,
    pub d: Slot,
    pub p: Option<Slot>,
    pub a: Slot,
    pub b: Slot,
    pub c: Slot,
    pub mask: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CarryOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

/// What a barrier does besides waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarMode {
    Sync,
    Arrive,
    /// Population count of the predicate over all threads.
    Popc(Slot),
    And(Slot),
    Or(Slot),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub mode: BarMode,
    pub id: Slot,
    pub count: Option<Slot>,
    pub pred: Slot,
    pub pred_negate: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Alu32 {
        f: Fn32,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Alu64 {
        f: Fn64,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Wide {
        f: FnWide,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Narrow {
        f: FnNarrow,
        d: Slot,
        a: Slot,
    },
    Shift64 {
        f: FnShift,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Cmp32 {
        f: FnCmp32,
        a: Slot,
        b: Slot,
        to: SetTo,
    },
    Cmp64 {
        f: FnCmp64,
        a: Slot,
        b: Slot,
        to: SetTo,
    },
    /// `set`: the comparison as a number, `one` where true.
    Set32 {
        f: FnCmp32,
        a: Slot,
        b: Slot,
        to: SetTo,
        d: Slot,
        one: u32,
    },
    Set64 {
        f: FnCmp64,
        a: Slot,
        b: Slot,
        to: SetTo,
        d: Slot,
        one: u32,
    },
    Sel32 {
        d: Slot,
        a: Slot,
        b: Slot,
        p: Slot,
    },
    Sel64 {
        d: Slot,
        a: Slot,
        b: Slot,
        p: Slot,
    },
    Pred {
        op: PredOp,
        d: Slot,
        a: Slot,
        a_negate: u32,
        b: Slot,
        b_negate: u32,
    },
    Carry {
        op: CarryOp,
        signed: bool,
        take: bool,
        give: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// 16-bit halves of a 32-bit register.
    Pack32 {
        d: Slot,
        lo: Slot,
        hi: Slot,
    },
    Unpack32 {
        a: Slot,
        lo: Option<Slot>,
        hi: Option<Slot>,
    },
    /// Two 32-bit or four 16-bit parts of a 64-bit register.
    Pack64 {
        d: Slot,
        parts: Vec<Slot>,
    },
    Unpack64 {
        a: Slot,
        parts: Vec<Option<Slot>>,
    },
    Bfi {
        d: Slot,
        a: Slot,
        b: Slot,
        pos: Slot,
        len: Slot,
    },
    Bfi64 {
        d: Slot,
        a: Slot,
        b: Slot,
        pos: Slot,
        len: Slot,
    },
    Bfe64 {
        signed: bool,
        d: Slot,
        a: Slot,
        pos: Slot,
        len: Slot,
    },
    Ld(Box<Access>),
    St(Box<Access>),
    Atom(Box<Atom>),
    CpAsync(Box<CpAsync>),
    CpCommit,
    /// Groups that may stay in flight; `None` waits for all, committed or not.
    CpWait {
        pending: Option<u32>,
    },
    LdMatrix {
        d: Vec<Slot>,
        trans: bool,
        addr: Addr,
        generic: bool,
    },
    Mma(Box<Mma>),
    Shfl(Box<Shfl>),
    Vote {
        mode: VoteMode,
        d: Slot,
        p: Slot,
        p_negate: u32,
        mask: Slot,
    },
    Match {
        d: Slot,
        p: Option<Slot>,
        all: bool,
        a: Reg,
        mask: Slot,
    },
    Redux {
        f: fn(u32, u32) -> u32,
        d: Slot,
        a: Slot,
        mask: Slot,
    },
    ActiveMask {
        d: Slot,
    },
    Bra {
        target: u32,
    },
    Brx {
        targets: Vec<u32>,
        index: Slot,
    },
    Call(Box<Call>),
    /// Back from a function; in an entry `ret` is `Exit`.
    Return,
    Exit,
    Trap,
    Bar(Box<Bar>),
    BarWarp {
        mask: Slot,
    },
    Fence,
    Clock {
        d: Reg,
    },
    /// `isspacep`: whether a generic address lies in a window.
    IsSpace {
        p: Slot,
        a: Slot,
        space: MemSpace,
    },
    Nop,
}

/// A value that a 64-bit slot holds from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Const64 {
    Value(u64),
    /// Address of a module variable, plus an offset.
    Variable(u32, i64),
}

/// Special registers that do not change while a warp runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    WarpSize,
    LaneMask(LaneMask),
    DynamicShared,
    TotalShared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LaneMask {
    Eq,
    Le,
    Lt,
    Ge,
    Gt,
}

/// A kernel parameter's place in the parameter buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParamSlot {
    pub name: String,
    pub offset: usize,
    pub size: usize,
}

/// A decoded entry point.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub name: String,
    pub instrs: Vec<Instr>,
    pub n32: usize,
    pub n64: usize,
    pub npred: usize,
    pub consts32: Vec<(Slot, u32)>,
    pub consts64: Vec<(Slot, Const64)>,
    pub specials: Vec<(Slot, Special)>,
    pub params: Vec<ParamSlot>,
    pub param_bytes: usize,
    pub static_shared: u32,
    /// Where dynamic shared memory starts, aligned as its symbol asks.
    pub dynamic_offset: u32,
    pub local_bytes: u32,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    pub min_blocks: Option<u32>,
    /// The order of blocks can show in the result (atomics that return, float atomics).
    pub order_matters: bool,
    /// Instructions of the entry itself; functions come after them.
    pub own_instrs: usize,
    /// Functions that can be called here, by their index in the module.
    pub functions: Vec<Option<Function>>,
}

/// An entry of a module: its code, or why it cannot run.
#[derive(Debug, Clone)]
pub(crate) struct DecodedEntry {
    pub name: String,
    pub code: crate::error::Result<Arc<Code>>,
}

/// An address that stands in a variable's initial bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relocation {
    /// Where in the variable.
    pub at: usize,
    /// A variable of the module by index, or a function.
    pub variable: Option<u32>,
    /// What is added; a function's address itself.
    pub add: u64,
}

/// A module variable in device memory.
#[derive(Debug, Clone)]
pub(crate) struct ModuleVar {
    pub name: String,
    pub bytes: u64,
    /// Initial bytes; zeros where shorter.
    pub init: Vec<u8>,
    pub relocations: Vec<Relocation>,
    pub constant: bool,
}

/// What a loaded module holds, shared by launches.
#[derive(Debug)]
pub(crate) struct ModuleData {
    pub name: String,
    pub target: u32,
    pub version: (u32, u32),
    pub lines: Vec<String>,
    pub files: Vec<(u32, String)>,
    pub variables: Vec<ModuleVar>,
    pub entries: Vec<DecodedEntry>,
    /// Tells modules apart on a device.
    pub id: u64,
}
