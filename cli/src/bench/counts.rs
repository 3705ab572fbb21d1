//! What a launch cost on the simulator, in the terms of the model, and brought from a small grid to the real one.

use ptxsim::{Class, Counters, Summary};

/// Warp instructions by the pipe that takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pipes {
    /// f32 and f16 arithmetic but maxima and minima.
    pub fma: f64,
    /// Integers, comparisons, maxima, packing to 16 bits.
    pub alu: f64,
    /// Approximate functions and conversions.
    pub xu: f64,
    /// Loads, stores, copies, atomics, `ldmatrix`, shuffles.
    pub memory: f64,
    /// Tensor products.
    pub mma: f64,
    /// Branches, barriers.
    pub control: f64,
    /// Of `alu`, and constants and moves beside it: what ptxas can fold into other instructions.
    pub foldable: f64,
}

impl Pipes {
    /// All of them. Moves and loads of constants count as foldable alone: machine code names them as operands.
    pub fn total(&self) -> f64 {
        self.fma + self.alu + self.xu + self.memory + self.mma + self.control + self.foldable
    }

    /// These without those, which are some of them.
    pub fn less(&self, some: &Pipes) -> Self {
        Pipes {
            fma: self.fma - some.fma,
            alu: self.alu - some.alu,
            xu: self.xu - some.xu,
            memory: self.memory - some.memory,
            mma: self.mma - some.mma,
            control: self.control - some.control,
            foldable: self.foldable - some.foldable,
        }
    }

    fn times(&self, by: f64) -> Self {
        Pipes {
            fma: self.fma * by,
            alu: self.alu * by,
            xu: self.xu * by,
            memory: self.memory * by,
            mma: self.mma * by,
            control: self.control * by,
            foldable: self.foldable * by,
        }
    }

    fn add(&mut self, class: Class, text: &str, warps: f64) {
        let maximum = ["max.", "min."].iter().any(|op| text.contains(op));
        let to = match class {
            Class::Fp32 | Class::Fp16 | Class::Fp64 if !maximum => &mut self.fma,
            Class::Fp32 | Class::Fp16 | Class::Fp64 | Class::Predicate => &mut self.alu,
            Class::Sfu => &mut self.xu,
            Class::Convert if text.contains("16") => &mut self.alu,
            Class::Convert => &mut self.xu,
            Class::Mma => &mut self.mma,
            Class::Control | Class::Sync => &mut self.control,
            Class::Int | Class::Move | Class::LoadConstant => &mut self.foldable,
            _ => &mut self.memory,
        };
        *to += warps;
    }
}

/// The main loop: the innermost one with the most tensor work, else the most work.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MainLoop {
    /// mma for each ldmatrix; 0 without tensor work.
    pub mma_per_ldmatrix: f64,
    /// PTX instructions that are no mma, for each mma.
    pub others_per_mma: f64,
    /// Sectors needed ÷ asked; 1 when it touches no global memory.
    pub sector_efficiency: f64,
    /// Passes through shared memory lost to conflicts, for the launch as simulated.
    pub conflicts: u64,
}

/// The counts of one launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Blocks that were simulated.
    pub simulated_blocks: u64,
    /// By how much these counts were multiplied.
    pub scale: f64,
    /// Tensor operations.
    pub mma_flops: f64,
    /// Warp instructions of PTX.
    pub pipes: Pipes,
    /// Passes through shared memory.
    pub wavefronts: f64,
    /// Of them lost to bank conflicts.
    pub conflicts: f64,
    /// Warp instructions that go through the shuffle unit.
    pub shuffles: f64,
    /// Passes of global loads, stores and atomics through L1, which is the shared memory: a line of 128 bytes each.
    pub lines: f64,
    /// Sectors of global memory asked for.
    pub sectors: f64,
    /// The fewest that hold the same bytes.
    pub sectors_needed: f64,
    /// Its main loop.
    pub main_loop: Option<MainLoop>,
    /// Instructions of the PTX text: all but the foldable ones, and those.
    pub text: (u32, u32),
    /// What loops with a barrier and without tensor work ran: of `gram_pool`, the rows of its roles.
    pub rows: Pipes,
}

impl Counts {
    /// The counts of a launch, times `scale`.
    pub fn new(counters: &Counters, scale: f64) -> Self {
        let total = counters.total();
        let mut pipes = Pipes::default();
        let (mut text, mut rows) = (Pipes::default(), Pipes::default());
        let barred: Vec<(u32, u32)> = counters
            .loops()
            .iter()
            .filter(|part| part.innermost && barred(&part.summary))
            .map(|part| part.lines)
            .collect();
        for instruction in counters.instructions() {
            if barred.iter().any(|(first, last)| (*first..=*last).contains(&instruction.line)) {
                let warps = instruction.counts.warps as f64 * scale;
                rows.add(instruction.class, &instruction.text, warps);
            }
            pipes.add(
                instruction.class,
                &instruction.text,
                instruction.counts.warps as f64 * scale,
            );
            text.add(instruction.class, &instruction.text, 1.0);
        }
        let main_loop = counters.main_loop().map(|part| main_loop(&part.summary));
        let scaled = |value: u64| value as f64 * scale;
        Counts {
            simulated_blocks: counters.blocks(),
            scale,
            mma_flops: scaled(total.total.mma_flops),
            pipes,
            wavefronts: scaled(total.total.wavefronts),
            conflicts: scaled(total.total.bank_conflicts()),
            shuffles: scaled(total.class(Class::Warp).warps),
            lines: [Class::LoadGlobal, Class::StoreGlobal, Class::Atomic]
                .iter()
                .map(|class| total.class(*class))
                .map(|of| (of.warps as f64).max(of.sectors as f64 / 4.0) * scale)
                .sum(),
            sectors: scaled(total.total.sectors),
            sectors_needed: scaled(total.total.sectors_needed),
            main_loop,
            text: ((text.total() - text.foldable) as u32, text.foldable as u32),
            rows,
        }
    }

    /// The counts of a launch `by` times as large.
    pub fn times(&self, by: f64) -> Self {
        Counts {
            scale: self.scale * by,
            mma_flops: self.mma_flops * by,
            pipes: self.pipes.times(by),
            rows: self.rows.times(by),
            lines: self.lines * by,
            wavefronts: self.wavefronts * by,
            conflicts: self.conflicts * by,
            shuffles: self.shuffles * by,
            sectors: self.sectors * by,
            sectors_needed: self.sectors_needed * by,
            ..self.clone()
        }
    }

    /// Sectors needed ÷ asked of the whole launch.
    pub fn sector_efficiency(&self) -> f64 {
        if self.sectors > 0.0 { self.sectors_needed / self.sectors } else { 1.0 }
    }
}

/// Whether a loop meets a barrier and has no tensor work.
fn barred(part: &Summary) -> bool {
    part.class(Class::Sync).warps > 0 && part.class(Class::Mma).warps == 0
}

fn main_loop(part: &Summary) -> MainLoop {
    let ldmatrix = part.class(Class::LdMatrix).warps;
    let mma = part.class(Class::Mma).warps;
    MainLoop {
        mma_per_ldmatrix: if ldmatrix > 0 { mma as f64 / ldmatrix as f64 } else { 0.0 },
        others_per_mma: part.others_per_mma().unwrap_or(0.0),
        sector_efficiency: part.sector_efficiency().unwrap_or(1.0),
        conflicts: part.total.bank_conflicts(),
    }
}
