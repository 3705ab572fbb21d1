//! The kernels' PTX, as the build script put it into the program, and which of it a card gets.

use super::driver::{CardInfo, cuda_version_of_ptx, ptx_version};
use crate::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What ptxas makes of each prebuilt kernel, as JSON: a list of rows of a `kernel` (its entry) on an `arch` (`sm_80`) with its
/// `registers`, `shared` bytes, `spill_stores` and `spill_loads` bytes, `instructions`, and where it has one its `main_loop`.
pub const RESOURCES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/prebuilt/resources.json"));

/// The oldest compute capability with kernels: tensor cores with 16-bit operands and `ldmatrix`.
pub const OLDEST_COMPUTE_CAPABILITY: u32 = 75;

/// The PTX of a kernel file for a card: the newest target that the card can run. Also which target that is.
///
/// # Errors
/// [`Error::Kernel`] for a card older than every target, or a driver older than the PTX.
pub fn ptx_for(stem: &str, card: &CardInfo) -> Result<(u32, &'static str)> {
    let capability = card.compute_capability;
    let refused = |reason: String| Err(Error::Kernel { kernel: stem.to_string(), reason });
    let found = KERNELS
        .iter()
        .filter(|(name, target, _)| *name == stem && *target <= capability)
        .max_by_key(|(_, target, _)| *target);
    let Some(&(_, target, ptx)) = found else {
        let oldest =
            KERNELS.iter().filter(|(name, ..)| *name == stem).map(|(_, target, _)| *target);
        return refused(match oldest.min() {
            Some(oldest) => format!(
                "{} ({}) has compute capability {}, need {} or newer",
                card.label,
                card.name,
                decimal(capability),
                decimal(oldest)
            ),
            None => String::from("no kernel file of that name"),
        });
    };
    let version = ptx_version(stem, ptx)?;
    let (need, have) = (cuda_version_of_ptx(version), card.cuda_version);
    if have < need {
        return refused(format!(
            "its PTX (ISA {}.{}) needs a driver of CUDA {}.{} or newer, found {}.{} on {} ({})",
            version.0, version.1, need.0, need.1, have.0, have.1, card.label, card.name
        ));
    }
    Ok((target, ptx))
}

/// The kernel files, each once.
pub fn stems() -> Vec<&'static str> {
    let mut stems: Vec<&str> = KERNELS.iter().map(|(stem, ..)| *stem).collect();
    stems.sort_unstable();
    stems.dedup();
    stems
}

/// The kernels of PTX text by name.
pub fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix(".visible .entry")?.trim_start();
        name.split(|c: char| !(c.is_alphanumeric() || "_$".contains(c))).next()
    })
}

/// Whether the kernels of a file keep tiles in shared memory, and read global memory once: they are better off with a
/// multiprocessor's L1 cache as shared memory too.
pub fn keeps_tiles(stem: &str) -> bool {
    const TILES: [&str; 7] = [
        "attention",
        "gemm",
        "gram_pool",
        "interval_mean",
        "local_distance",
        "patch_distance",
        "patch_embed",
    ];
    TILES.contains(&stem)
}

/// 86 as 8.6.
pub fn decimal(capability: u32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(compute_capability: u32, cuda_version: (u32, u32)) -> CardInfo {
        CardInfo {
            label: "cuda:0".into(),
            name: "a card".into(),
            compute_capability,
            multiprocessors: 1,
            memory_bytes: 0,
            l2_bytes: 0,
            shared_bytes_per_block: 48 << 10,
            cuda_version,
        }
    }

    #[test]
    fn card_gets_the_newest_target_it_runs() {
        for (capability, target) in [(75, 75), (79, 75), (80, 80), (86, 80), (120, 80)] {
            assert_eq!(ptx_for("gemm", &card(capability, (13, 0))).unwrap().0, target);
        }
    }

    #[test]
    fn every_file_has_entries_and_resources_know_them() {
        let mut count = 0;
        for (stem, target, ptx) in KERNELS {
            let found: Vec<&str> = entries(ptx).collect();
            assert!(!found.is_empty() && found.iter().all(|e| !e.is_empty()), "{stem} {target}");
            assert!(found.iter().all(|e| RESOURCES.contains(&format!("\"{e}\""))), "{found:?}");
            count += found.len();
        }
        let written: usize =
            KERNELS.iter().map(|(.., ptx)| ptx.matches(".visible .entry").count()).sum();
        assert_eq!(count, written);
        assert_eq!(stems().len() * 2, KERNELS.len());
    }

    #[test]
    fn old_cards_and_old_drivers_are_refused_with_need_and_have() {
        let message = ptx_for("gemm", &card(70, (13, 0))).unwrap_err().to_string();
        assert!(message.contains("7.0") && message.contains("need 7.5"), "{message}");
        let message = ptx_for("gemm", &card(80, (10, 2))).unwrap_err().to_string();
        assert!(message.contains("found 10.2") && message.contains("kernel gemm"), "{message}");
    }
}
