//! What helps where a card cannot be used, by what the driver says and what is around the process.

use std::path::Path;

use crate::smi::Told;
use musc::backend::cuda::driver::card::has_nvidia_device;

/// What is around the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// It runs in a container.
    pub container: bool,
    /// The driver's device files are there.
    pub device_files: bool,
    /// A card of NVIDIA's is on the bus, as far as the system tells.
    pub on_bus: bool,
    /// `CUDA_VISIBLE_DEVICES`.
    pub visible: Option<String>,
    /// A card is cut into parts.
    pub mig: bool,
}

impl Surroundings {
    /// Of this machine.
    pub fn of_machine(told: &[Told]) -> Self {
        let group = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
        let marks = ["/.dockerenv", "/run/.containerenv", "/.singularity.d"];
        Surroundings {
            container: marks.iter().any(|mark| Path::new(mark).exists())
                || ["docker", "kubepods", "containerd"].iter().any(|word| group.contains(word)),
            device_files: Path::new("/dev/nvidiactl").exists() || Path::new("/dev/dxg").exists(),
            on_bus: has_nvidia_device(),
            visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
            mig: told.iter().any(|told| told.get("mig.mode.current") == Some("Enabled")),
        }
    }

    /// What helps against a reason, if anything is known to.
    pub fn advice(&self, reason: &str) -> Option<String> {
        let says = |word: &str| reason.contains(word);
        let text = if says("libcuda is not there") {
            match self {
                Surroundings { container: true, .. } => {
                    "in a container the host's driver has to be let in: NVIDIA's container toolkit, then `--gpus all` (Docker), \
                     `--nv` (Apptainer) or a limit of nvidia.com/gpu (Kubernetes), with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
                }
                Surroundings { on_bus: true, .. } | Surroundings { device_files: true, .. } => {
                    "install NVIDIA's driver, then restart"
                }
                _ => "no card of NVIDIA's is seen on this machine",
            }
        } else if says("CUDA_ERROR_NO_DEVICE") || says("finds no card") {
            match (&self.visible, self.mig) {
                (Some(visible), _) => {
                    return Some(format!(
                        "CUDA_VISIBLE_DEVICES is `{visible}`: unset it, or name a card that is there"
                    ));
                }
                (None, true) => {
                    "the card is in MIG mode: make an instance (`nvidia-smi mig -cgi … -C`) and name it in CUDA_VISIBLE_DEVICES"
                }
                (None, false) if self.container => "let the card into the container: `--gpus all`",
                (None, false) => {
                    "`nvidia-smi` has to list the card; the user needs the right to read and write /dev/nvidia*"
                }
            }
        } else if says("no such card") {
            "cards are numbered from 0, and CUDA_VISIBLE_DEVICES hides some"
        } else if says("CUDA_ERROR_DEVICE_UNAVAILABLE") || says("CUDA_ERROR_INVALID_CONTEXT") {
            "another process has the card for itself (exclusive mode): wait for it, or `nvidia-smi -c DEFAULT` as root"
        } else if says("CUDA_ERROR_OUT_OF_MEMORY") || says("OutOfMemory") || says("out of memory") {
            "other processes have its memory: `nvidia-smi` lists them"
        } else if says("SYSTEM_DRIVER_MISMATCH") || says("COMPAT_NOT_SUPPORTED") {
            "the driver's library and its kernel module are of two versions: restart the machine, or update the container's image"
        } else if says("SYSTEM_NOT_READY") {
            "the fabric manager of the machine has to run: `systemctl start nvidia-fabricmanager`"
        } else if says("OPERATING_SYSTEM") || says("NOT_PERMITTED") {
            "the user needs the right to read and write /dev/nvidia* (a group such as video, or a rule of the container)"
        } else if says("STUB_LIBRARY") {
            "the toolkit's stub of libcuda is found in place of the driver's: take `stubs` out of LD_LIBRARY_PATH"
        } else if says("ECC_UNCORRECTABLE") || says("LAUNCH_FAILED") || says("CUDA_ERROR_UNKNOWN") {
            "the card or its driver is in a bad state: `nvidia-smi -r` or a restart; `dmesg` may say Xid"
        } else if says("needs a driver of CUDA") {
            "update NVIDIA's driver"
        } else if says("compute capability") {
            "this card is too old for tensor cores with 16-bit numbers: another card, or the processor"
        } else {
            return None;
        };
        Some(text.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each with the words that a driver, or the library, says of it.
    #[test]
    fn each_trouble_has_its_advice() {
        let bare = Surroundings::default();
        let inside = Surroundings { container: true, ..Surroundings::default() };
        let on_bus = Surroundings { on_bus: true, ..Surroundings::default() };
        let hidden = Surroundings { visible: Some(String::from("7")), ..Surroundings::default() };
        let cut = Surroundings { mig: true, ..Surroundings::default() };
        let none = "device cuda: no CUDA driver on this machine (libcuda is not there)";
        let no_device = "cuInit: no CUDA-capable device is detected (CUDA_ERROR_NO_DEVICE)";
        for (around, reason, helps) in [
            (&bare, none, "no card of NVIDIA's"),
            (&inside, none, "--gpus all"),
            (&on_bus, none, "install NVIDIA's driver"),
            (&hidden, no_device, "CUDA_VISIBLE_DEVICES is `7`"),
            (&cut, no_device, "MIG"),
            (&inside, no_device, "--gpus all"),
            (&bare, no_device, "/dev/nvidia*"),
            (&bare, "no such card: found 1, numbered from 0", "from 0"),
            (&bare, "busy (CUDA_ERROR_DEVICE_UNAVAILABLE)", "exclusive"),
            (&bare, "out of memory (CUDA_ERROR_OUT_OF_MEMORY)", "nvidia-smi"),
            (&bare, "mismatch (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)", "two versions"),
            (&bare, "not ready (CUDA_ERROR_SYSTEM_NOT_READY)", "fabric manager"),
            (&bare, "OS call failed (CUDA_ERROR_OPERATING_SYSTEM)", "/dev/nvidia*"),
            (&bare, "unknown error (CUDA_ERROR_UNKNOWN)", "restart"),
            (&bare, "its PTX (ISA 7.0) needs a driver of CUDA 11.0 or newer, found 10.2", "update"),
            (&bare, "cuda:0 (K80) has compute capability 3.7, need 7.5 or newer", "too old"),
        ] {
            let said = around.advice(reason).unwrap_or_default();
            assert!(said.contains(helps), "{reason}: {said}");
        }
        assert_eq!(bare.advice("something new"), None);
    }
}
