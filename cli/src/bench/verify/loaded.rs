//! What the driver made of the kernels: its own compiler decides on registers and spills, not the one that the table in
//! `kernels/prebuilt/resources.json` is from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::cards::CARDS;
use super::super::resources::{Occupancy, resources};
use musc::Grid;
use musc::Result;
use musc::backend::cuda::Card;
use musc::backend::cuda::driver::Function;
use musc::backend::cuda::launch::gram_pool::Shape;

/// An entry as it was loaded.
pub struct Entry {
    /// Registers of a thread; `None` where the driver does not say (the simulator).
    pub registers: Option<u32>,
    /// Bytes of local memory of a thread: spilled registers. `None` as above.
    pub local_bytes: Option<u32>,
    /// Registers and spilled bytes by the table, where it has the architecture.
    pub table: Option<(u32, u32)>,
    /// Blocks that a multiprocessor holds by the registers as loaded, where the card is known.
    pub blocks: Option<u32>,
}

/// The kernels on a card.
pub struct Loaded {
    /// By entry point.
    pub entries: BTreeMap<String, Entry>,
    /// Seconds that loading took: the driver's compiler, or its cache.
    pub seconds: f64,
    /// The longest of them, and which kernel file.
    pub longest: (f64, &'static str),
}

/// Threads and dynamic shared bytes of a block of an entry, as large as it is at 518 px.
fn block(card: &Card, entry: &str, function: &Function) -> (u32, u32) {
    let degrees: &[usize] = match entry {
        "gram_pool_35_f32" => &[3, 5],
        "gram_pool_to5_f32" => &[5],
        "gram_pool_to7_f32" => &[7],
        _ => return (function.max_threads, 0),
    };
    let shared = card.info().shared_bytes_per_block;
    Shape::best(Grid::square(37), degrees, shared).map_or((function.max_threads, 0), |shape| {
        (shape.threads as u32, shape.shared_bytes as u32)
    })
}

/// Loads entry points, with the time it takes.
pub fn load(card: &Arc<Card>, entries: &[(&'static str, String)]) -> Result<Loaded> {
    let arch = card.info().compute_capability;
    let known = CARDS.iter().find(|known| known.arch == arch);
    let mut loaded = Loaded { entries: BTreeMap::new(), seconds: 0.0, longest: (0.0, "nothing") };
    let mut of_file: BTreeMap<&'static str, f64> = BTreeMap::new();
    for (stem, entry) in entries {
        let start = Instant::now();
        let function = card.function(stem, entry)?;
        *of_file.entry(stem).or_default() += start.elapsed().as_secs_f64();
        let (registers, local) = (function.registers, function.local_bytes);
        let told = registers > 0;
        let (threads, dynamic) = block(card, entry, &function);
        let shared = function.static_shared_bytes + dynamic;
        let blocks = known
            .filter(|_| told)
            .map(|known| Occupancy::new(known, registers, threads, shared).blocks);
        let table = resources(entry, arch).ok().map(|row| (row.registers, row.spilled));
        let entry_as_loaded = Entry {
            registers: told.then_some(registers),
            local_bytes: told.then_some(local),
            table,
            blocks,
        };
        loaded.entries.insert(entry.clone(), entry_as_loaded);
    }
    loaded.seconds = of_file.values().sum();
    for (stem, seconds) in of_file {
        if seconds > loaded.longest.0 {
            loaded.longest = (seconds, stem);
        }
    }
    Ok(loaded)
}
