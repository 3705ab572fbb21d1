//! What NVIDIA's own program says of the cards, where it is installed: the driver's number, compute mode, MIG, clocks, who uses
//! them. Nothing here is needed to run; without the program all of it is not known.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// The program, looked for as any other.
const PROGRAM: &str = "nvidia-smi";
/// A driver in trouble can keep it waiting for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is asked, in its words.
const FIELDS: [&str; 14] = [
    "index",
    "name",
    "driver_version",
    "compute_mode",
    "mig.mode.current",
    "ecc.mode.current",
    "pcie.link.gen.current",
    "pcie.link.width.current",
    "clocks.sm",
    "clocks.max.sm",
    "power.limit",
    "utilization.gpu",
    "memory.used",
    "memory.total",
];

/// A card as the program tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told(Vec<(&'static str, String)>);

impl Told {
    /// A field; `None` where the card has none of it.
    pub fn get(&self, field: &str) -> Option<&str> {
        let value =
            self.0.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_str())?;
        let nothing = ["", "[N/A]", "N/A", "[Not Supported]", "[Unknown Error]"];
        (!nothing.contains(&value)).then_some(value)
    }

    /// All fields that are known.
    pub fn json(&self) -> Value {
        let known = self.0.iter().filter_map(|(name, _)| Some((*name, self.get(name)?)));
        Value::Object(
            known.map(|(name, value)| (name.to_string(), value.into())).collect::<Map<_, _>>(),
        )
    }

    /// One line for people: driver, mode, MIG, and who else is there.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        let mut part = |field: &str, words: &dyn Fn(&str) -> String| {
            if let Some(value) = self.get(field) {
                parts.push(words(value));
            }
        };
        part("driver_version", &|value| format!("driver {value}"));
        part("compute_mode", &|value| format!("compute mode {value}"));
        part("mig.mode.current", &|value| format!("MIG {value}"));
        part("utilization.gpu", &|value| format!("{value} in use"));
        part("memory.used", &|value| format!("{value} taken"));
        part("clocks.sm", &|value| format!("{value} now"));
        parts.join(", ")
    }
}

/// All cards, as that program numbers them; none where it is not installed or does not answer.
pub fn ask() -> Vec<Told> {
    let query = format!("--query-gpu={}", FIELDS.join(","));
    run(PROGRAM, &[&query, "--format=csv,noheader"]).map(|text| parse(&text)).unwrap_or_default()
}

/// The one that CUDA calls by this name, if only one can be meant: the two number cards in their own ways.
pub fn of_card(all: &[Told], name: &str) -> Option<Told> {
    let mut named = all.iter().filter(|told| told.get("name") == Some(name));
    match (named.next(), named.next()) {
        (Some(one), None) => Some(one.clone()),
        _ => None,
    }
}

fn parse(text: &str) -> Vec<Told> {
    let rows = text.lines().map(|line| line.split(',').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells.len() == FIELDS.len())
        .map(|cells| Told(FIELDS.into_iter().zip(cells.into_iter().map(String::from)).collect()))
        .collect()
}

/// What a program says on stdout, should it end well and soon.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            _ => break None,
        }
    };
    let Some(status) = ended else {
        // Both may fail only where it has ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        return None;
    };
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
0, NVIDIA A100-SXM4-80GB, 535.104.05, Default, Enabled, Enabled, 4, 16, 1410 MHz, 1410 MHz, 400.00 W, 0 %, 3 MiB, 81920 MiB
1, NVIDIA GeForce RTX 3090, 535.104.05, Exclusive_Process, [N/A], [N/A], 3, 8, 210 MHz, 2100 MHz, 350.00 W, 97 %, 9000 MiB, 24576 MiB
";

    #[test]
    fn rows_are_read_and_gaps_are_not_known() {
        let cards = parse(TWO);
        assert_eq!(cards.len(), 2);
        let card = of_card(&cards, "NVIDIA GeForce RTX 3090").unwrap();
        assert_eq!(
            (card.get("compute_mode"), card.get("mig.mode.current")),
            (Some("Exclusive_Process"), None)
        );
        let line = card.line();
        assert!(line.contains("driver 535.104.05") && line.contains("97 % in use"), "{line}");
        assert!(!line.contains("MIG") && card.json().get("mig.mode.current").is_none(), "{line}");
        // Two of a name: which one is meant is not known.
        let twice = [cards.clone(), cards].concat();
        assert_eq!(of_card(&twice, "NVIDIA GeForce RTX 3090"), None);
        assert!(parse("Failed to initialize NVML\n").is_empty());
    }

    #[test]
    fn a_program_that_is_not_there_or_fails_says_nothing() {
        assert_eq!(run("musc-no-such-program", &[]), None);
        #[cfg(unix)]
        assert_eq!(run("false", &[]), None);
    }
}
