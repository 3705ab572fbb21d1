//! Functions and calls as they run.

use super::{Addr, Reg, Slot};

/// A value that a call passes or takes, as its caller has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Passed {
    /// In the caller's frame.
    Memory(Addr),
    Register(Reg),
}

/// The same as the function has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Taken {
    /// From the start of its frame.
    Frame(u32),
    Register(Reg),
}

/// What the simulator does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    AssertFail,
    Printf,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Function of the module, by index.
    Function(u32),
    /// The register holds a function's address.
    Address(Slot),
    Builtin(Builtin),
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub target: Target,
    /// Each with its bytes.
    pub results: Vec<(Passed, u32)>,
    pub args: Vec<(Passed, u32)>,
}

/// A function as an entry's code holds it.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub name: String,
    pub start: u32,
    pub frame_bytes: u32,
    /// Registers that each activation has for itself.
    pub r32: Vec<Slot>,
    pub r64: Vec<Slot>,
    pub preds: Vec<Slot>,
    /// Slots that hold a place of the frame, and where from its start.
    pub addresses32: Vec<(Slot, i64)>,
    pub addresses64: Vec<(Slot, i64)>,
    /// Each with its bytes.
    pub params: Vec<(Taken, u32)>,
    pub results: Vec<(Taken, u32)>,
    pub noreturn: bool,
}
