//! What ptxas made of the kernels (`kernels/prebuilt/resources.json`), and how many blocks that leaves room for.

use serde_json::Value;

use musc::backend::cuda::kernels::RESOURCES;
use musc::{Error, Result};

use super::cards::Card;

/// 32-bit registers of a multiprocessor.
const REGISTERS: u32 = 65_536;
/// Registers of a warp come in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Warps of a block come in units of this many, where registers are counted.
const WARP_UNIT: u32 = 4;
/// Shared memory that the system keeps for each block from compute capability 8.0 on.
const KEPT_BYTES: u32 = 1024;

/// A kernel's needs on one architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory in bytes.
    pub shared_bytes: u32,
    /// Bytes of registers spilled to memory, stores and loads.
    pub spilled: u32,
    /// Machine instructions of the whole kernel.
    pub instructions: u32,
    /// Of the main loop, where it has tensor work: instructions, of them mma, of them ldmatrix.
    pub main_loop: Option<(u32, u32, u32)>,
    /// Of `instructions`, those that multiply integers: the f32 pipe takes them.
    pub imad: u32,
    /// What a row costs a warp of each role, of `gram_pool` with both its degrees known.
    pub rows: Option<RoleRows>,
}

/// Machine instructions of a warp and row, all and those of the f32 pipe.
pub type Row = [f64; 2];

/// RoleRows of the roles of `gram_pool` (`tools/cuda/count_rows.py`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoleRows {
    /// Producers of blocks inside the grid: most rows, and the last ones.
    pub inside: [Row; 2],
    /// Producers of blocks at its edge.
    pub edge: [Row; 2],
    /// Consumers of the degrees 3 and 5.
    pub consumers: [Row; 2],
}

/// Reads the table's row of an entry.
///
/// # Errors
/// [`Error::Kernel`] when the table has none: it is older than the kernels.
pub fn resources(entry: &str, arch: u32) -> Result<Resources> {
    let stale = |reason: String| Error::Kernel { kernel: entry.to_string(), reason };
    let table: Vec<Value> = serde_json::from_str(RESOURCES)
        .map_err(|e| stale(format!("kernels/prebuilt/resources.json: {e}")))?;
    let arch = format!("sm_{arch}");
    let row = table
        .iter()
        .find(|row| row["kernel"] == entry && row["arch"] == arch.as_str())
        .ok_or_else(|| {
            stale(format!("kernels/prebuilt/resources.json has no row of it for {arch}: run tools/cuda/prebuild.py"))
        })?;
    let number = |at: &Value| at.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let main = &row["main_loop"];
    let pair = |of: &Value| -> Option<[Row; 2]> {
        let one = |at: usize| Some([of[at][0].as_f64()?, of[at][1].as_f64()?]);
        (of.as_array()?.len() == 2).then_some(())?;
        Some([one(0)?, one(1)?])
    };
    let rows = &row["rows"];
    let rows = || {
        let (inside, edge) = (pair(&rows["inside"])?, pair(&rows["edge"])?);
        Some(RoleRows { inside, edge, consumers: pair(&rows["consumers"])? })
    };
    Ok(Resources {
        registers: number(&row["registers"]),
        shared_bytes: number(&row["shared"]),
        spilled: number(&row["spill_stores"]) + number(&row["spill_loads"]),
        instructions: number(&row["instructions"]),
        imad: number(&row["imad"]),
        rows: rows(),
        main_loop: main.is_object().then(|| {
            (number(&main["instructions"]), number(&main["mma"]), number(&main["ldmatrix"]))
        }),
    })
}

/// Blocks of a kernel that a multiprocessor holds at once, and what keeps it from holding more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks.
    pub blocks: u32,
    /// Their warps.
    pub warps: u32,
    /// `registers`, `shared`, `warps` or `blocks`.
    pub limit: &'static str,
}

impl Occupancy {
    /// Of blocks of `threads` threads, `registers` a thread, `shared_bytes` a block (static and dynamic together).
    ///
    /// blocks = min(⌊⌊65536 / ⌈32·registers⌉₂₅₆⌋₄ / warps⌋, ⌊shared of a multiprocessor / (shared + 1 KiB)⌋, warps,
    /// blocks), ⌈⌉₂₅₆ to a multiple of 256 up, ⌊⌋₄ to a multiple of 4 down; the 1 KiB from 8.0 on.
    pub fn new(card: &Card, registers: u32, threads: u32, shared_bytes: u32) -> Self {
        let warps = threads.div_ceil(32).max(1);
        let of_a_warp = (registers.max(1) * 32).next_multiple_of(REGISTER_UNIT);
        let by_registers = REGISTERS / of_a_warp / WARP_UNIT * WARP_UNIT / warps;
        let kept = if card.arch >= 80 { KEPT_BYTES } else { 0 };
        let by_shared = card.shared_kib * 1024 / (shared_bytes + kept).max(1);
        let limits = [
            (by_registers, "registers"),
            (by_shared, "shared"),
            (card.warps / warps, "warps"),
            (card.blocks, "blocks"),
        ];
        let (blocks, limit) = limits.into_iter().min_by_key(|l| l.0).unwrap_or((0, "blocks"));
        Occupancy { blocks, warps: blocks * warps, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cards::CARDS;
    use super::*;

    fn card(name: &str) -> &'static Card {
        CARDS.iter().find(|card| card.name == name).unwrap()
    }

    #[test]
    fn occupancy_as_worked_out_by_hand() {
        // 208 registers: 6656 a warp, 9 warps fit, in fours 8, so 2 blocks of 4 warps; 48 KiB and 1: 2 in 100, 3 in 164.
        let two = Occupancy { blocks: 2, warps: 8, limit: "registers" };
        assert_eq!(Occupancy::new(card("RTX-3090"), 208, 128, 49_152), two);
        assert_eq!(Occupancy::new(card("A100"), 208, 128, 49_152), two);
        // 80 registers: 2560 a warp, 25 fit, in fours 24: one block of 21 warps, where shared memory has room for 5.
        let one = Occupancy { blocks: 1, warps: 21, limit: "registers" };
        assert_eq!(Occupancy::new(card("H100"), 80, 672, 39_088), one);
        // 32 registers: 64 warps fit by registers, 48 by the limit of 8.6: 6 blocks of 8.
        let six = Occupancy { blocks: 6, warps: 48, limit: "warps" };
        assert_eq!(Occupancy::new(card("RTX-3090"), 32, 256, 32), six);
        // A T4 keeps nothing for itself: 64 KiB hold two blocks of 32.
        assert_eq!(Occupancy::new(card("T4"), 64, 128, 32_768).blocks, 2);
        // 33 KiB and 1: two in 100 KiB.
        assert_eq!(
            Occupancy::new(card("RTX-3090"), 40, 256, 33_792),
            Occupancy { blocks: 2, warps: 16, limit: "shared" }
        );
    }

    #[test]
    fn table_has_every_entry_for_every_card_and_nothing_spills() {
        for card in CARDS {
            for entry in ["gemm_gram_max_f16", "attention_flash_f16", "gram_pool_35_f32"] {
                let found = resources(entry, card.arch).unwrap();
                assert!(found.registers > 0 && found.spilled == 0 && found.instructions > 0);
                assert!(found.imad > 0 && found.imad < found.instructions, "{entry}");
                assert_eq!(found.rows.is_some(), entry == "gram_pool_35_f32", "{entry}");
            }
            let (all, mma, ldmatrix) =
                resources("gemm_gram_max_f16", card.arch).unwrap().main_loop.unwrap();
            assert!(mma >= 4 * ldmatrix && all > mma + ldmatrix);
        }
        assert!(matches!(resources("no_such", 80), Err(Error::Kernel { .. })));
    }
}
