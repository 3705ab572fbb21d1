//! What a launch cost: counted per instruction, summed by class, by loop or by line.

use std::fmt;
use std::sync::Arc;

use crate::ir::{Code, ModuleData, Op};

/// What kind of work an instruction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// `ld.global`, and generic loads.
    LoadGlobal,
    /// `st.global`, and generic stores.
    StoreGlobal,
    /// `ld.shared`.
    LoadShared,
    /// `st.shared`.
    StoreShared,
    /// `ld.param` and `ld.const`.
    LoadConstant,
    /// `ld.local` and `st.local`: a spill or an array that did not fit registers.
    Local,
    /// `atom` and `red`.
    Atomic,
    /// `cp.async` (the copies, not the waits).
    CpAsync,
    /// `ldmatrix`.
    LdMatrix,
    /// `mma.sync`.
    Mma,
    /// f32 arithmetic.
    Fp32,
    /// f64 arithmetic.
    Fp64,
    /// f16 and bf16 arithmetic.
    Fp16,
    /// Integer and bit arithmetic.
    Int,
    /// Approximate functions: `ex2`, `lg2`, `rcp`, `rsqrt`, `sin`, `cos`, `tanh`.
    Sfu,
    /// `cvt`.
    Convert,
    /// `mov`, packing, `cvta`, special registers.
    Move,
    /// `setp`, `selp`, predicate logic.
    Predicate,
    /// Shuffles, votes, matches, warp reductions.
    Warp,
    /// Branches and exits.
    Control,
    /// Barriers, fences, `cp.async` waits and commits.
    Sync,
}

impl Class {
    /// All classes, in the order they are reported.
    pub const ALL: [Class; 21] = [
        Class::LoadGlobal,
        Class::StoreGlobal,
        Class::LoadShared,
        Class::StoreShared,
        Class::LoadConstant,
        Class::Local,
        Class::Atomic,
        Class::CpAsync,
        Class::LdMatrix,
        Class::Mma,
        Class::Fp32,
        Class::Fp64,
        Class::Fp16,
        Class::Int,
        Class::Sfu,
        Class::Convert,
        Class::Move,
        Class::Predicate,
        Class::Warp,
        Class::Control,
        Class::Sync,
    ];
}

/// Counts of one instruction, or of several summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times a warp ran it.
    pub warps: u64,
    /// Lanes that took part.
    pub lanes: u64,
    /// 32-byte sectors of global memory touched, per warp access.
    pub sectors: u64,
    /// The fewest sectors that hold the bytes asked for (the same byte asked twice counts once).
    pub sectors_needed: u64,
    /// Bytes of global memory loaded or stored by lanes.
    pub global_bytes: u64,
    /// Passes the shared memory takes (32 banks of 4 bytes; wide accesses in quarter or half warps).
    pub wavefronts: u64,
    /// Passes it would take with no bank conflict.
    pub wavefronts_ideal: u64,
    /// Bytes of shared memory loaded or stored by lanes.
    pub shared_bytes: u64,
    /// Floating-point (or integer) operations of `mma`: 2·m·n·k each.
    pub mma_flops: u64,
}

impl Counts {
    /// Adds another's counts.
    pub fn add(&mut self, o: &Counts) {
        self.warps += o.warps;
        self.lanes += o.lanes;
        self.sectors += o.sectors;
        self.sectors_needed += o.sectors_needed;
        self.global_bytes += o.global_bytes;
        self.wavefronts += o.wavefronts;
        self.wavefronts_ideal += o.wavefronts_ideal;
        self.shared_bytes += o.shared_bytes;
        self.mma_flops += o.mma_flops;
    }

    /// Wavefronts lost to bank conflicts.
    pub fn bank_conflicts(&self) -> u64 {
        self.wavefronts - self.wavefronts_ideal
    }
}

/// A part of a kernel, summed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// All classes together.
    pub total: Counts,
    by_class: Vec<(Class, Counts)>,
}

impl Summary {
    /// The counts of one class.
    pub fn class(&self, class: Class) -> Counts {
        self.by_class.iter().find(|(c, _)| *c == class).map(|(_, n)| *n).unwrap_or_default()
    }

    /// Classes that occur, in reporting order.
    pub fn classes(&self) -> &[(Class, Counts)] {
        &self.by_class
    }

    /// Warp instructions that are no `mma`, for each `mma`; `None` without one.
    pub fn others_per_mma(&self) -> Option<f64> {
        let mma = self.class(Class::Mma).warps;
        (mma > 0).then(|| (self.total.warps - mma) as f64 / mma as f64)
    }

    /// Sectors needed ÷ asked over all global accesses; `None` without any.
    pub fn sector_efficiency(&self) -> Option<f64> {
        let t = &self.total;
        (t.sectors > 0).then(|| t.sectors_needed as f64 / t.sectors as f64)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (class, n) in &self.by_class {
            write!(f, "{:<13} {:>12} warps {:>14} lanes", format!("{class:?}"), n.warps, n.lanes)?;
            if n.sectors > 0 {
                write!(f, "  sectors {} of {} needed", n.sectors, n.sectors_needed)?;
            }
            if n.wavefronts > 0 {
                write!(f, "  wavefronts {}, {} ideal", n.wavefronts, n.wavefronts_ideal)?;
            }
            if n.mma_flops > 0 {
                write!(f, "  {} flop", n.mma_flops)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// One instruction of the kernel with its counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstrCounts {
    /// PTX line.
    pub line: u32,
    /// CUDA file and line, when known.
    pub source: Option<(String, u32)>,
    /// The line as written.
    pub text: String,
    /// Its class.
    pub class: Class,
    /// What it cost.
    pub counts: Counts,
}

/// A loop: the code between a backward branch and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// First and last PTX line.
    pub lines: (u32, u32),
    /// Loops around it.
    pub depth: u32,
    /// Times a warp ran the first instruction of the loop.
    pub iterations: u64,
    /// Whether another loop lies inside.
    pub innermost: bool,
    /// Cost of everything between the lines.
    pub summary: Summary,
}

/// The counters of a launch.
#[derive(Debug, Clone)]
pub struct Counters {
    pub(crate) module: Arc<ModuleData>,
    pub(crate) code: Arc<Code>,
    pub(crate) counts: Vec<Counts>,
    pub(crate) blocks: u64,
    pub(crate) warps: u64,
}

impl Counters {
    /// The kernel's name.
    pub fn kernel(&self) -> &str {
        &self.code.name
    }

    /// Blocks that ran.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Warps that ran.
    pub fn warps(&self) -> u64 {
        self.warps
    }

    /// The whole launch.
    pub fn total(&self) -> Summary {
        self.sum(|_, _| true)
    }

    /// The instructions between two PTX lines, both included.
    pub fn lines(&self, first: u32, last: u32) -> Summary {
        self.sum(|_, line| (first..=last).contains(&line))
    }

    /// Everything, instruction by instruction, in program order.
    pub fn instructions(&self) -> Vec<InstrCounts> {
        let source = |loc| crate::module::source(&self.module, loc);
        self.code
            .instrs
            .iter()
            .zip(&self.counts)
            .map(|(i, n)| InstrCounts {
                line: i.line,
                source: source(i.loc),
                text: crate::module::text(&self.module, i.line),
                class: i.class,
                counts: *n,
            })
            .collect()
    }

    /// The loops, outer ones before what lies in them. Loops that share a head are one.
    pub fn loops(&self) -> Vec<Loop> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for (at, i) in self.code.instrs.iter().enumerate() {
            if let Op::Bra { target } = i.op
                && target as usize <= at
            {
                match spans.iter_mut().find(|s| s.0 == target as usize) {
                    Some(s) => s.1 = s.1.max(at),
                    None => spans.push((target as usize, at)),
                }
            }
        }
        spans.sort_by_key(|&(a, b)| (a, usize::MAX - b));
        let inside = |x: &(usize, usize), y: &(usize, usize)| x != y && y.0 <= x.0 && x.1 <= y.1;
        spans
            .iter()
            .map(|s| Loop {
                lines: (self.code.instrs[s.0].line, self.code.instrs[s.1].line),
                depth: spans.iter().filter(|o| inside(s, o)).count() as u32,
                innermost: !spans.iter().any(|o| inside(o, s)),
                iterations: self.counts[s.0].warps,
                summary: self.sum(|at, _| (s.0..=s.1).contains(&at)),
            })
            .collect()
    }

    /// The loop that holds the most `mma`, or the most instructions when there is no `mma`,
    /// among the innermost ones.
    pub fn main_loop(&self) -> Option<Loop> {
        self.loops()
            .into_iter()
            .filter(|l| l.innermost)
            .max_by_key(|l| (l.summary.class(Class::Mma).warps, l.summary.total.warps))
    }

    fn sum(&self, keep: impl Fn(usize, u32) -> bool) -> Summary {
        let mut s = Summary::default();
        let mut by: Vec<Counts> = vec![Counts::default(); Class::ALL.len()];
        for (at, (i, n)) in self.code.instrs.iter().zip(&self.counts).enumerate() {
            if keep(at, i.line) {
                s.total.add(n);
                by[i.class as usize].add(n);
            }
        }
        s.by_class = Class::ALL.into_iter().zip(by).filter(|(_, n)| n.warps > 0).collect();
        s
    }
}
