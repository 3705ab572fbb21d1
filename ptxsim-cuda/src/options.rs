//! The switches: environment variables, read once, when the program first asks for the driver.

use std::path::PathBuf;

use ptxsim::{MmaSums, WarpOrder};

/// Which work waits until something needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// None: everything runs in the call that gives it.
    None,
    /// All.
    All,
    /// Copies and fills; a launch runs at once, with what its stream has before it.
    Copies,
    /// Launches; a copy runs at once, with what its stream has before it.
    Kernels,
    /// Drawn for each piece of work, from the seed.
    Random,
}

/// What happens when something is read that nobody wrote, or an address is used where it does not belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// It is an error.
    Strict,
    /// It is told.
    Warn,
    /// Nothing.
    Off,
}

/// What is done about memory that is still allocated when its context or the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaks {
    List,
    /// Listed, and the process ends with code 70.
    Fail,
    Off,
}

/// What is told on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    Off,
    Errors,
    Calls,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub devices: usize,
    pub compute_capability: u32,
    pub memory_bytes: u64,
    /// As `cuDriverGetVersion` says it: 12040.
    pub version: u32,
    pub pools: bool,
    pub seed: u64,
    pub late: Late,
    pub check: Check,
    pub check_blocks: bool,
    pub warp_order: WarpOrder,
    pub mma_sums: MmaSums,
    /// Unloading a module whose launches have not run is a fault, and no wait.
    pub unload_is_fault: bool,
    pub leaks: Leaks,
    pub log: Log,
    pub report: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            devices: 1,
            compute_capability: 80,
            memory_bytes: 16 << 30,
            version: 12040,
            pools: true,
            seed: 0,
            late: Late::Random,
            check: Check::Strict,
            check_blocks: true,
            warp_order: WarpOrder::Explicit,
            mma_sums: MmaSums::F32,
            unload_is_fault: false,
            leaks: Leaks::List,
            log: Log::Errors,
            report: None,
        }
    }
}

/// More have no room in the addresses.
const MOST_DEVICES: usize = 16;

impl Options {
    /// From the environment.
    ///
    /// # Errors
    /// A value that is not one of the switch's, in words. A switch nobody knows is an error too: it would do nothing.
    pub fn from_env() -> Result<Options, String> {
        let mut set = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix("PTXSIM_CUDA_"))
            else {
                continue;
            };
            let value =
                value.into_string().map_err(|v| format!("PTXSIM_CUDA_{name} is no text: {v:?}"))?;
            set.push((name.to_string(), value));
        }
        Options::from_pairs(&set)
    }

    pub fn from_pairs(set: &[(String, String)]) -> Result<Options, String> {
        let mut o = Options::default();
        for (name, value) in set {
            let expected = o.set(name, value.trim());
            if let Err(expected) = expected {
                return Err(format!("PTXSIM_CUDA_{name} is `{value}`, expected {expected}"));
            }
        }
        Ok(o)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "DEVICES" => {
                let expected = "a number from 0 to 16";
                self.devices = value.parse().map_err(|_| expected)?;
                if self.devices > MOST_DEVICES {
                    return Err(expected);
                }
            }
            "CC" => {
                let expected = "a compute capability as 80 or 8.0, from 50 to 121";
                self.compute_capability = value.replace('.', "").parse().map_err(|_| expected)?;
                if !(50..=121).contains(&self.compute_capability) {
                    return Err(expected);
                }
            }
            "MEMORY" => self.memory_bytes = bytes(value).ok_or("bytes, as 512M or 16G")?,
            "VERSION" => {
                self.version = version(value).ok_or("a CUDA version from 10.0 to 13.9, as 12.4")?
            }
            "POOLS" => self.pools = flag(value).ok_or("0 or 1")?,
            "SEED" => self.seed = value.parse().map_err(|_| "a whole number")?,
            "LATE" => {
                self.late = match value {
                    "none" => Late::None,
                    "all" => Late::All,
                    "copies" => Late::Copies,
                    "kernels" => Late::Kernels,
                    "random" => Late::Random,
                    _ => return Err("none, all, copies, kernels or random"),
                }
            }
            "CHECK" => {
                self.check = match value {
                    "strict" => Check::Strict,
                    "warn" => Check::Warn,
                    "off" => Check::Off,
                    _ => return Err("strict, warn or off"),
                }
            }
            "BLOCKS" => self.check_blocks = flag(value).ok_or("0 or 1")?,
            "WARP" => {
                self.warp_order = match value {
                    "explicit" => WarpOrder::Explicit,
                    "collectives" => WarpOrder::Collectives,
                    _ => return Err("explicit or collectives"),
                }
            }
            "MMA" => {
                self.mma_sums = MmaSums::named(value).ok_or("f32, v100, a100 or h100")?;
            }
            "UNLOAD" => {
                self.unload_is_fault = match value {
                    "wait" => false,
                    "fault" => true,
                    _ => return Err("wait or fault"),
                }
            }
            "LEAKS" => {
                self.leaks = match value {
                    "list" => Leaks::List,
                    "fail" => Leaks::Fail,
                    "off" => Leaks::Off,
                    _ => return Err("list, fail or off"),
                }
            }
            "LOG" => {
                self.log = match value {
                    "off" => Log::Off,
                    "errors" => Log::Errors,
                    "calls" => Log::Calls,
                    _ => return Err("off, errors or calls"),
                }
            }
            // Read where calls are counted: the first one comes before there is a driver.
            "FAIL" => {
                crate::fail::parse(value).ok_or("a call's number from 1, or number:code")?;
            }
            "REPORT" => self.report = Some(PathBuf::from(value)),
            _ => return Err("no such switch; README.md lists them"),
        }
        Ok(())
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn bytes(value: &str) -> Option<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &value[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|&b| b <= 1 << 40)
}

fn version(value: &str) -> Option<u32> {
    let (major, minor) = value.split_once('.')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    ((10..=13).contains(&major) && minor <= 9).then_some(major * 1000 + minor * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Options, String> {
        Options::from_pairs(&[(name.to_string(), value.to_string())])
    }

    #[test]
    fn switches_are_read_and_others_refused() {
        assert_eq!(read("CC", "8.6").unwrap().compute_capability, 86);
        assert_eq!(read("MEMORY", "512M").unwrap().memory_bytes, 512 << 20);
        assert_eq!(read("VERSION", "13.1").unwrap().version, 13010);
        assert_eq!(read("LATE", "all").unwrap().late, Late::All);
        for (name, value) in [
            ("CC", "8"),
            ("MEMORY", "16T"),
            ("VERSION", "12"),
            ("LATE", "yes"),
            ("DEVICES", "17"),
            ("CHECK", ""),
            ("LAET", "all"),
            ("MEMORY", "99999999999G"),
        ] {
            let said = read(name, value).unwrap_err();
            assert!(said.contains(name) && said.contains("expected"), "{said}");
        }
    }
}
