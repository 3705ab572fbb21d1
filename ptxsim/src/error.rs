//! Every way a module, a launch or a kernel can be wrong.

use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where in a kernel's run something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The entry point.
    pub kernel: String,
    /// The module the kernel belongs to, as named at [`Module::parse`](crate::Module::parse).
    pub module: String,
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// File and line of the CUDA source, when the PTX carries `.loc` lines (`-lineinfo`).
    pub source: Option<(String, u32)>,
    /// The instruction as written.
    pub instruction: String,
    /// Block index.
    pub block: [u32; 3],
    /// Thread index inside the block.
    pub thread: [u32; 3],
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}, {}:{}", self.kernel, self.module, self.line)?;
        if let Some((file, line)) = &self.source {
            write!(f, " ({file}:{line})")?;
        }
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(f, " `{}`, block ({bx},{by},{bz}), thread ({tx},{ty},{tz})", self.instruction)
    }
}

/// The state space of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Device memory.
    Global,
    /// Memory of a block.
    Shared,
    /// Kernel parameters.
    Param,
    /// Memory of a thread.
    Local,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Param => "param",
            Space::Local => "local",
        })
    }
}

/// What two unordered accesses were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hazard {
    /// A read of what another thread wrote.
    ReadAfterWrite,
    /// A write over what another thread read.
    WriteAfterRead,
    /// A write over what another thread wrote.
    WriteAfterWrite,
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hazard::ReadAfterWrite => "read after write",
            Hazard::WriteAfterRead => "write after read",
            Hazard::WriteAfterWrite => "write after write",
        })
    }
}

/// Why a module was refused, a launch was refused, or a kernel was stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not PTX as this crate reads it.
    #[error("{module}:{line}: {message}")]
    Parse {
        /// Module name.
        module: String,
        /// PTX line.
        line: u32,
        /// What was found and what was expected.
        message: String,
    },
    /// A directive the simulator does not know.
    #[error("{module}:{line}: directive `{directive}` is not known to the simulator")]
    UnknownDirective {
        /// Module name.
        module: String,
        /// PTX line.
        line: u32,
        /// The directive.
        directive: String,
    },
    /// An instruction the simulator does not know, or a form of it.
    #[error("{module}:{line}: instruction `{instruction}` is not known to the simulator: {reason}")]
    UnknownInstruction {
        /// Module name.
        module: String,
        /// PTX line.
        line: u32,
        /// The instruction with its modifiers.
        instruction: String,
        /// What about it is not known.
        reason: String,
    },
    /// An instruction that the module's own `.target` does not have.
    #[error(
        "{module}:{line}: instruction `{instruction}` needs sm_{need}, the module targets sm_{have}"
    )]
    InstructionNotOnTarget {
        /// Module name.
        module: String,
        /// PTX line.
        line: u32,
        /// The instruction with its modifiers.
        instruction: String,
        /// First architecture that has it.
        need: u32,
        /// The module's target.
        have: u32,
    },
    /// A module built for a newer card than the device.
    #[error("module {module} targets sm_{target}, the device is sm_{device}")]
    TargetTooNew {
        /// Module name.
        module: String,
        /// The module's target.
        target: u32,
        /// The device's architecture.
        device: u32,
    },
    /// No entry point of that name.
    #[error("module {module} has no entry `{name}`; it has: {known}")]
    NoEntry {
        /// Module name.
        module: String,
        /// The name asked for.
        name: String,
        /// The entries there are.
        known: String,
    },
    /// Number of arguments.
    #[error("kernel {kernel} takes {expected} parameters, got {found}")]
    ParamCount {
        /// The entry point.
        kernel: String,
        /// Parameters declared.
        expected: usize,
        /// Arguments passed.
        found: usize,
    },
    /// Size of one argument.
    #[error("kernel {kernel}: parameter {index} has {expected} bytes, got {found}")]
    ParamSize {
        /// The entry point.
        kernel: String,
        /// Position from 0.
        index: usize,
        /// Bytes declared.
        expected: usize,
        /// Bytes passed.
        found: usize,
    },
    /// A launch shape the device or the kernel's own bounds do not allow.
    #[error("kernel {kernel}: {what} is {found}, allowed is 1 to {limit}")]
    LaunchShape {
        /// The entry point.
        kernel: String,
        /// What of the launch, as `block threads` or `grid x`.
        what: String,
        /// Value passed.
        found: u64,
        /// Largest value allowed.
        limit: u64,
    },
    /// The kernel requires one exact block shape (`.reqntid`).
    #[error("kernel {kernel}: block is {found:?}, .reqntid asks for {expected:?}")]
    RequiredBlock {
        /// The entry point.
        kernel: String,
        /// Shape declared.
        expected: [u32; 3],
        /// Shape passed.
        found: [u32; 3],
    },
    /// More shared memory than a block may have.
    #[error(
        "kernel {kernel} needs {need} bytes of shared memory ({fixed} static), the limit is {limit}{hint}"
    )]
    SharedMemory {
        /// The entry point.
        kernel: String,
        /// Static and dynamic bytes together.
        need: u64,
        /// Static bytes.
        fixed: u64,
        /// The limit that was passed over.
        limit: u64,
        /// How to raise the limit, where it can be raised.
        hint: String,
    },
    /// A host access, an allocation or a free that does not fit the device's memory.
    #[error("host access of {bytes} bytes at {address:#x}: {reason}")]
    HostAccess {
        /// First address.
        address: u64,
        /// Length in bytes.
        bytes: u64,
        /// What is wrong.
        reason: String,
    },
    /// The device's memory is full.
    #[error("out of device memory: need {need} bytes, have {have}")]
    OutOfMemory {
        /// Bytes asked for.
        need: u64,
        /// Bytes left.
        have: u64,
    },
    /// An access outside every allocation of its space.
    #[error("out of bounds: {space} access of {bytes} bytes at {address:#x}, {near}; {site}")]
    OutOfBounds {
        /// Where.
        site: Box<Site>,
        /// Which memory.
        space: Space,
        /// First address.
        address: u64,
        /// Length in bytes.
        bytes: u32,
        /// The nearest allocation, in words.
        near: String,
    },
    /// An address that is not a multiple of the access size.
    #[error("misaligned: {space} access of {bytes} bytes at {address:#x}; {site}")]
    Misaligned {
        /// Where.
        site: Box<Site>,
        /// Which memory.
        space: Space,
        /// First address.
        address: u64,
        /// Length in bytes, all elements of a vector together.
        bytes: u32,
    },
    /// A read of bytes that nobody wrote.
    #[error("read of uninitialised {space} memory: {bytes} bytes at {address:#x}, {near}; {site}")]
    Uninitialised {
        /// Where.
        site: Box<Site>,
        /// Which memory.
        space: Space,
        /// First address.
        address: u64,
        /// Length in bytes.
        bytes: u32,
        /// The allocation, in words.
        near: String,
    },
    /// A touch of bytes that a `cp.async` still owes.
    #[error(
        "cp.async not waited for: {bytes} bytes of shared memory at {address:#x} are still in flight (issued by thread {owner}); {site}"
    )]
    PendingCopy {
        /// Where.
        site: Box<Site>,
        /// First address.
        address: u64,
        /// Length in bytes.
        bytes: u32,
        /// Linear index of the thread that issued the copy.
        owner: u32,
    },
    /// Two threads of a block touch the same shared bytes with nothing to order them.
    #[error(
        "shared memory race ({hazard}) at {address:#x}, {bytes} bytes, with thread {other}; {site}"
    )]
    SharedRace {
        /// Where the second access is.
        site: Box<Site>,
        /// First address.
        address: u64,
        /// Length in bytes.
        bytes: u32,
        /// Kind of conflict.
        hazard: Hazard,
        /// The other thread: its linear index, or "several".
        other: String,
    },
    /// Two blocks touch the same global bytes in one launch, one of them writing, not by atomics.
    #[error(
        "global memory race between blocks ({hazard}) at {address:#x}, {bytes} bytes, {near}, with block {other}; {site}"
    )]
    BlockRace {
        /// Where the second access is.
        site: Box<Site>,
        /// First address.
        address: u64,
        /// Length in bytes.
        bytes: u32,
        /// Kind of conflict.
        hazard: Hazard,
        /// The other block: its linear index, or "several".
        other: String,
        /// The allocation, in words.
        near: String,
    },
    /// A write to memory that is constant for a kernel.
    #[error("write to read-only memory at {address:#x}; {site}")]
    ReadOnly {
        /// Where.
        site: Box<Site>,
        /// First address.
        address: u64,
    },
    /// Lanes of a warp, or warps of a block, meet at different barriers.
    #[error("divergent barrier: {detail}; {site}")]
    DivergentBarrier {
        /// Where.
        site: Box<Site>,
        /// Who is missing or where the others are.
        detail: String,
    },
    /// A warp-wide instruction that not all the lanes it names reach.
    #[error("divergent warp instruction: {detail}; {site}")]
    DivergentWarp {
        /// Where.
        site: Box<Site>,
        /// Which lanes are missing.
        detail: String,
    },
    /// A shuffle that takes its value from a lane that does not take part.
    #[error("shuffle from lane {lane}, which does not take part; {site}")]
    ShuffleSource {
        /// Where.
        site: Box<Site>,
        /// The lane read.
        lane: u32,
    },
    /// No warp of the block can go on.
    #[error("deadlock: {detail}; {site}")]
    Deadlock {
        /// One of the waiting instructions.
        site: Box<Site>,
        /// Who waits for whom.
        detail: String,
    },
    /// `trap` or `brkpt` was executed.
    #[error("trap; {site}")]
    Trap {
        /// Where.
        site: Box<Site>,
    },
    /// An `assert` of the kernel failed.
    #[error("{file}:{line}: {function}: assertion `{message}` failed; {site}")]
    Assertion {
        /// Where.
        site: Box<Site>,
        /// The condition.
        message: String,
        /// The source's file.
        file: String,
        /// The line there.
        line: u32,
        /// The function it stands in.
        function: String,
    },
    /// Functions that call each other need more local memory than a thread may have.
    #[error("stack overflow: a thread may have {limit} bytes of local memory; {site}")]
    StackOverflow {
        /// The call.
        site: Box<Site>,
        /// Bytes a thread may have.
        limit: u64,
    },
    /// A warp ran more instructions than the launch allows.
    #[error("more than {limit} instructions in one warp; {site}")]
    InstructionLimit {
        /// Where it was stopped.
        site: Box<Site>,
        /// The limit of the launch.
        limit: u64,
    },
    /// An operand value that the instruction does not allow.
    #[error("bad operand: {detail}; {site}")]
    BadOperand {
        /// Where.
        site: Box<Site>,
        /// What is wrong.
        detail: String,
    },
}

impl Error {
    /// Where in the kernel's run it happened, for errors of a run.
    pub fn site(&self) -> Option<&Site> {
        match self {
            Error::OutOfBounds { site, .. }
            | Error::Misaligned { site, .. }
            | Error::Uninitialised { site, .. }
            | Error::PendingCopy { site, .. }
            | Error::SharedRace { site, .. }
            | Error::BlockRace { site, .. }
            | Error::ReadOnly { site, .. }
            | Error::DivergentBarrier { site, .. }
            | Error::DivergentWarp { site, .. }
            | Error::ShuffleSource { site, .. }
            | Error::Deadlock { site, .. }
            | Error::Trap { site }
            | Error::Assertion { site, .. }
            | Error::StackOverflow { site, .. }
            | Error::InstructionLimit { site, .. }
            | Error::BadOperand { site, .. } => Some(site),
            _ => None,
        }
    }
}
