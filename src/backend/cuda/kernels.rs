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
    fn old_cards_and_old_drivers_are_refused_with_need_and_have() {
        let message = ptx_for("gemm", &card(70, (13, 0))).unwrap_err().to_string();
        assert!(message.contains("7.0") && message.contains("need 7.5"), "{message}");
        let message = ptx_for("gemm", &card(80, (10, 2))).unwrap_err().to_string();
        assert!(message.contains("found 10.2") && message.contains("kernel gemm"), "{message}");
    }
}
