//! A time for a launch that was only counted. Every number it gives is *modelled*: no card was used, and the factors
//! that are assumptions are marked so in [`super::cards`]. Expect ± 30 %.
//!
//! For a launch with counts from the simulator, on a card with S multiprocessors at f clocks a second:
//!
//! | limit | seconds |
//! |---|---|
//! | tensor | issued tensor operations / (peak · reach) |
//! | issue | warp instructions / (4 · S · f · reach): four schedulers, one instruction each a clock |
//! | f32 | arithmetic and integer multiplications (IMAD) / (lanes/32 · S · f · reach) |
//! | integer | other integers, comparisons, maxima, packing / (2 · S · f · reach): 64 lanes on every architecture here |
//! | functions | exp2, reciprocals, conversions / (1/2 · S · f · reach): 16 lanes |
//! | shared | passes through shared memory, shuffles, lines of global memory / (S · f · reach): one a clock, L1 is the same |
//! | L2 | 32 bytes · sectors asked / measured L2 rate |
//! | DRAM | bytes that must come from or go to it / (rate · reach) |
//!
//! time = the larger of (the largest of tensor to shared) · quantisation and (the larger of L2 and DRAM, which all
//! multiprocessors share), + 3 µs for the launch.
//!
//! *Quantisation.* B working blocks on S multiprocessors that hold o each: whole rounds of S·o blocks, then a rest that
//! takes ⌈rest / S⌉ of o block times; where that leaves a multiprocessor with fewer than o blocks it works at 0.72 of its
//! rate (FaSTED, one block in place of two a multiprocessor: 110.8 of 154 TFLOP/s on an A100). The factor is the time in
//! block times over B / S.
//!
//! *Instructions.* PTX spells out address arithmetic, moves and loads of parameters that ptxas folds into the operands of
//! others. So integers, moves and constants are scaled by φ = (instructions of the machine code − other PTX
//! instructions) / (foldable PTX instructions), kept within 0 and 1, over the main loop where it has tensor work (per
//! mma, where both are exact), else over the text of the whole kernel. Loops that ptxas unrolls make φ too large, never too small.
//! The same share of them is IMAD as of the kernel's text beside the other PTX instructions. Rows of `gram_pool` for the
//! degrees 3 and 5, nearly all of its work, are counted in machine code by role (`tools/cuda/count_rows.py`) instead.
//!
//! *DRAM.* Inputs are read once and outputs written once, to DRAM. A product whose right operand exceeds half of L2 reads
//! it again for every 8 rows of tiles, the order in which its blocks run. The Gram block between `gemm_gram` and `gram_pool` goes through
//! DRAM unless it takes at most half of L2: read-only sets hold to 0.7 of L2 on the A100 and the H100 (gpu-benches), and
//! the block shares the cache with the tokens that stream by.

use serde_json::{Value, json};

use super::cards::Card;
use super::counts::Counts;
use super::resources::{Occupancy, Resources, Row};

/// Seconds from one launch to the next on a stream.
pub const LAUNCH_SECONDS: f64 = 3e-6;
/// The part of L2 that data may take and still be there for the next launch.
pub const L2_SHARE: f64 = 0.5;
/// Rate of a multiprocessor that holds fewer blocks than it could.
const LONE_RATE: f64 = 0.72;

/// What the model needs to know of a launch.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Its counts, at the real grid.
    pub counts: &'a Counts,
    /// Blocks that do not return at once.
    pub blocks: u64,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block in bytes.
    pub dynamic_shared: u32,
    /// Bytes from and to DRAM.
    pub dram_bytes: f64,
    /// The kernel's tensor work is attention's.
    pub attention: bool,
    /// Machine instructions of its rows, all and those of the f32 pipe, in place of the PTX of [`Counts::rows`].
    pub rows: Option<Row>,
}

/// The outcome for one launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Modelled {
    /// Seconds.
    pub seconds: f64,
    /// The limit that is the largest.
    pub binding: &'static str,
    /// Every limit in seconds, before quantisation.
    pub limits: Vec<(&'static str, f64)>,
    /// The factor of quantisation.
    pub quantisation: f64,
    /// Blocks and warps of a multiprocessor.
    pub occupancy: Occupancy,
}

impl Modelled {
    /// As JSON.
    pub fn json(&self) -> Value {
        let limits: serde_json::Map<String, Value> =
            self.limits.iter().map(|(name, s)| ((*name).to_string(), json!(s * 1e6))).collect();
        json!({
            "modelled_us": self.seconds * 1e6,
            "binding": self.binding,
            "limits_us": limits,
            "quantisation": self.quantisation,
            "blocks_per_multiprocessor": self.occupancy.blocks,
            "warps_per_multiprocessor": self.occupancy.warps,
            "occupancy_limit": self.occupancy.limit,
        })
    }
}

/// The share φ of foldable PTX instructions that the machine code still has.
pub fn folded(counts: &Counts, resources: &Resources) -> f64 {
    if let (Some((all, mma, _)), Some(main)) = (resources.main_loop, &counts.main_loop)
        && mma > 0
        && main.others_per_mma > 0.0
        && counts.pipes.mma > 0.0
    {
        let machine = f64::from(all - mma) / f64::from(mma);
        let share = counts.pipes.foldable / (counts.pipes.total() - counts.pipes.mma);
        let foldable = main.others_per_mma * share;
        return ((machine - (main.others_per_mma - foldable)) / foldable).clamp(0.0, 1.0);
    }
    let (others, foldable) = counts.text;
    if foldable == 0 {
        return 1.0;
    }
    ((f64::from(resources.instructions) - f64::from(others)) / f64::from(foldable)).clamp(0.0, 1.0)
}

/// The share of IMAD in what is left of the foldable instructions.
fn imad_share(counts: &Counts, resources: &Resources) -> f64 {
    let left = f64::from(resources.instructions) - f64::from(counts.text.0);
    if left > 0.0 { (f64::from(resources.imad) / left).min(1.0) } else { 1.0 }
}

/// The factor by which whole blocks on whole multiprocessors take longer than the work divided evenly.
pub fn quantisation(blocks: u64, multiprocessors: u32, held: u32) -> f64 {
    if blocks == 0 {
        return 1.0;
    }
    let (s, o) = (f64::from(multiprocessors), f64::from(held.max(1)));
    let rounds = (blocks as f64 / (s * o)).floor();
    let deep = ((blocks as f64 - rounds * s * o) / s).ceil();
    let rest = if deep < o { deep / LONE_RATE } else { deep };
    // A lone rest never takes longer than a full round.
    (rounds * o + rest.min(o)) * s / blocks as f64
}

/// The model.
pub fn model(card: &Card, launch: &Launch<'_>, resources: &Resources) -> Modelled {
    let counts = launch.counts;
    let occupancy = Occupancy::new(
        card,
        resources.registers,
        launch.threads,
        resources.shared_bytes + launch.dynamic_shared,
    );
    let reach = &card.reach;
    let pipes = &counts.pipes;
    // What is modelled from PTX, and what is counted in machine code.
    let (ptx, [rows, rows_f32]) = match launch.rows {
        Some(rows) => (pipes.less(&counts.rows), rows),
        None => (*pipes, [0.0; 2]),
    };
    let integers = ptx.foldable * folded(counts, resources);
    let imads = integers * imad_share(counts, resources);
    // Of the rows, what is no PTX instruction of another kind and no IMAD.
    let rows_left = if launch.rows.is_some() {
        let known = counts.rows.total() - counts.rows.foldable;
        (rows - known - (rows_f32 - counts.rows.fma)).max(0.0)
    } else {
        0.0
    };
    let tensor = if launch.attention { reach.attention } else { reach.gemm };
    let clocks = card.clocks();
    let at = |instructions: f64, a_clock: f64| instructions / (a_clock * clocks * reach.issue);
    let limits = vec![
        ("tensor", counts.mma_flops / (card.tensor_tflops * 1e12 * tensor)),
        ("issue", at(ptx.total() - ptx.foldable + integers + rows, 4.0)),
        ("f32", at(ptx.fma + imads + rows_f32, f64::from(card.fp32_lanes) / 32.0)),
        ("integer", at(pipes.alu + integers - imads + rows_left, 2.0)),
        ("functions", at(pipes.xu, 0.5)),
        ("shared", (counts.wavefronts + counts.shuffles + counts.lines) / (clocks * reach.shared)),
        ("L2", counts.sectors * 32.0 / (card.l2_gbs * 1e9)),
        ("DRAM", launch.dram_bytes / (card.dram_gbs * 1e9 * reach.dram)),
    ];
    let quantisation = quantisation(launch.blocks, card.multiprocessors, occupancy.blocks);
    let (binding, work) = limits
        .iter()
        .map(|&(name, seconds)| {
            let shared_by_all = matches!(name, "L2" | "DRAM");
            (name, if shared_by_all { seconds } else { seconds * quantisation })
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or(("launch", 0.0));
    Modelled {
        seconds: work + LAUNCH_SECONDS,
        binding: if work < LAUNCH_SECONDS { "launch" } else { binding },
        limits,
        quantisation,
        occupancy,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cards::CARDS;
    use super::super::counts::Pipes;
    use super::*;

    fn counts() -> Counts {
        Counts {
            simulated_blocks: 4,
            scale: 1.0,
            mma_flops: 0.0,
            pipes: Pipes::default(),
            wavefronts: 0.0,
            conflicts: 0.0,
            shuffles: 0.0,
            sectors: 0.0,
            sectors_needed: 0.0,
            main_loop: None,
            text: (100, 100),
            rows: Pipes::default(),
            lines: 0.0,
        }
    }

    const RESOURCES: Resources = Resources {
        registers: 128,
        shared_bytes: 0,
        spilled: 0,
        instructions: 150,
        main_loop: None,
        imad: 10,
        rows: None,
    };

    fn launch(counts: &Counts) -> Launch<'_> {
        Launch {
            counts,
            blocks: 164,
            threads: 128,
            dynamic_shared: 0,
            dram_bytes: 0.0,
            attention: false,
            rows: None,
        }
    }

    #[test]
    fn tensor_time_as_worked_out_by_hand() {
        // 62.656 GFLOP at 71.2 TFLOP/s and 0.88 are 1 ms; 128 registers leave 4 blocks of 4 warps, 164 blocks are two
        // on each of 82, fewer than 4: (2 / 0.72) of 2 block times.
        let counts = Counts { mma_flops: 71.2e9 * 0.88, ..counts() };
        let made = model(&CARDS[0], &launch(&counts), &RESOURCES);
        assert_eq!((made.binding, made.occupancy.blocks), ("tensor", 4));
        assert!((made.quantisation - 1.0 / 0.72).abs() < 1e-12);
        assert!((made.seconds - (1e-3 / 0.72 + 3e-6)).abs() < 1e-9, "{made:?}");
    }

    #[test]
    fn half_of_the_foldable_instructions_are_left() {
        // 150 machine instructions: the 100 that stay, and 50 of 100.
        assert_eq!(folded(&counts(), &RESOURCES), 0.5);
        let many = Resources { instructions: 1000, ..RESOURCES };
        assert_eq!(folded(&counts(), &many), 1.0);
    }

    #[test]
    fn integer_multiplications_go_through_the_f32_pipe() {
        // 100 of PTX's foldable, half left, 10 of these 50 IMAD; the rows of a launch are taken as they are.
        let pipes = Pipes { fma: 1000.0, foldable: 100.0, ..Pipes::default() };
        let counts = Counts { pipes, ..counts() };
        let clocks = CARDS[2].clocks() * CARDS[2].reach.issue;
        let f32 = |launch: &Launch<'_>| {
            let made = model(&CARDS[2], launch, &RESOURCES);
            made.limits.iter().find(|(name, _)| *name == "f32").unwrap().1 * clocks * 2.0
        };
        assert!((f32(&launch(&counts)) - 1010.0).abs() < 1e-9);
        let counts =
            Counts { rows: Pipes { fma: 900.0, foldable: 100.0, ..Pipes::default() }, ..counts };
        let rows = Launch { rows: Some([2000.0, 950.0]), ..launch(&counts) };
        assert!((f32(&rows) - (100.0 + 950.0)).abs() < 1e-9);
    }

    #[test]
    fn quantisation_as_worked_out_by_hand() {
        assert_eq!(quantisation(164, 82, 2), 1.0);
        // One block too many: it runs alone, at 0.72 of the rate, so 1.39 block times on top of 2.
        let expected = (2.0 + 1.0 / 0.72) * 82.0 / 165.0;
        assert!((quantisation(165, 82, 2) - expected).abs() < 1e-12);
        // A single block where a multiprocessor holds one.
        assert_eq!(quantisation(1, 82, 1), 82.0);
    }

    #[test]
    fn more_work_never_takes_less_time() {
        let change: [fn(&mut Counts, &mut f64, f64); 9] = [
            |c, _, by| c.lines += by,
            |c, _, by| c.mma_flops += by,
            |c, _, by| c.pipes.fma += by,
            |c, _, by| c.pipes.alu += by,
            |c, _, by| c.pipes.xu += by,
            |c, _, by| c.pipes.foldable += by,
            |c, _, by| c.wavefronts += by,
            |c, _, by| c.sectors += by,
            |_, bytes, by| *bytes += by,
        ];
        for card in CARDS {
            for change in change {
                let mut last = 0.0;
                for by in [0.0, 1e6, 1e8, 1e10] {
                    let (mut counts, mut bytes) = (counts(), 0.0);
                    change(&mut counts, &mut bytes, by);
                    let launch = Launch { dram_bytes: bytes, ..launch(&counts) };
                    let seconds = model(card, &launch, &RESOURCES).seconds;
                    assert!(seconds >= last, "{}", card.name);
                    last = seconds;
                }
                assert!(last > LAUNCH_SECONDS, "{}", card.name);
            }
        }
    }
}
