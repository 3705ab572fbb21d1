//! The processor and the memory of this machine, as far as the system tells.

use serde_json::{Value, json};

use crate::shell::memory::bytes_of;
use musc::Result;
use musc::backend::cpu::Instructions;
use musc::backend::device::{Device, DeviceOptions, Formats};

/// Processor features that matter to this program.
fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
        ];
        found.extend(all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name));
    }
    #[cfg(target_arch = "aarch64")]
    found.push("neon");
    found
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The processor's name, where the system has it (Linux).
fn name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Bytes of memory, and of them those that are available (Linux).
fn memory() -> Option<(u64, u64)> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(text: &str) -> Option<(u64, u64)> {
    Some((bytes_of(text, "MemTotal:")?, bytes_of(text, "MemAvailable:")?))
}

/// One line of the processor.
pub fn processor() -> String {
    let name = name().unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let features = features();
    let features = if features.is_empty() {
        String::from("no vector instructions")
    } else {
        features.join(" ")
    };
    format!("{name}, {} threads, {features}", threads())
}

/// The processor as a document.
pub fn processor_json() -> Value {
    json!({ "name": name(), "threads": threads(), "features": features(), "auto": auto().ok() })
}

/// What a run on the processor multiplies in where nobody says.
pub fn auto_line() -> String {
    match auto() {
        Ok(auto) => {
            let word = |key: &str| auto[key].as_str().unwrap_or_default().to_string();
            let (features, scoring) = (word("features"), word("scoring"));
            let more = match scoring.as_str() {
                "f32" => " (bf16 takes AVX512-BF16, which is not there or not taken)",
                _ => "",
            };
            format!(
                "`--precision auto`: features {features}, scoring {scoring}, with {}{more}",
                word("instructions")
            )
        }
        Err(error) => format!("it cannot be used: {error}"),
    }
}

fn auto() -> Result<Value> {
    let (cpu, _) = Device::Cpu.open(DeviceOptions::default().with_threads(1))?;
    let Formats { features, scoring, instructions, .. } = cpu.formats();
    let instructions = instructions.map(Instructions::name);
    Ok(json!({ "features": features, "scoring": scoring, "instructions": instructions }))
}

/// One line of the memory.
pub fn memory_line() -> String {
    match memory() {
        Some((all, free)) => {
            format!("{}, {} available", super::gigabytes(all), super::gigabytes(free))
        }
        None => String::from("not known"),
    }
}

/// The memory as a document.
pub fn memory_json() -> Value {
    match memory() {
        Some((all, free)) => json!({ "bytes": all, "available_bytes": free }),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_its_lines() {
        let text = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(parse(text), Some((16384 * 1024, 2048 * 1024)));
        assert_eq!(parse("MemTotal: many kB\n"), None);
    }
}
