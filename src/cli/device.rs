//! Which device a run gets: the one place that knows what this build has.

use std::str::FromStr;

use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::{Error, Result};

/// A device as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The processor.
    Cpu,
    /// A card if there is one, else the processor.
    Auto,
    /// These cards and no other device; without numbers, the first.
    Cuda(Vec<usize>),
    /// The simulated card.
    Sim,
    /// The authors' way: the card of this number if there is one, else the processor.
    Number(usize),
}

impl FromStr for Request {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(
                "--device",
                format!("`{text}`"),
                "cpu, auto, cuda, cuda:0, cuda:0,1, sim or a card's number",
            )
        };
        match text {
            "cpu" => Ok(Request::Cpu),
            "auto" => Ok(Request::Auto),
            "cuda" => Ok(Request::Cuda(Vec::new())),
            "sim" => Ok(Request::Sim),
            _ => match text.strip_prefix("cuda:") {
                Some(cards) => cards
                    .split(',')
                    .map(|card| card.parse().map_err(|_| wrong()))
                    .collect::<Result<_>>()
                    .map(Request::Cuda),
                None => text.parse().map(Request::Number).map_err(|_| wrong()),
            },
        }
    }
}

/// A device that this build can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
}

/// Work that runs on whichever backend was chosen.
pub trait Job {
    /// What it makes.
    type Output;
    /// Does it.
    fn run<B: Backend>(self, backend: &B) -> Result<Self::Output>;
}

/// The device for a request, and a sentence to say aloud when it is not the obvious one.
pub fn choose(request: &Request) -> Result<(Device, Option<String>)> {
    let absent = |device: &str, name: &str| {
        Err(Error::Device {
            device: device.to_string(),
            reason: format!(
                "this build of musc-run has no {name} backend; --device cpu runs without one"
            ),
        })
    };
    match request {
        Request::Cpu => Ok((Device::Cpu, None)),
        Request::Auto => {
            Ok((Device::Cpu, Some(String::from("device: cpu (this build has no other)"))))
        }
        Request::Number(card) => Ok((
            Device::Cpu,
            Some(format!(
                "device {card}: this build uses no graphics card, so the run is on the CPU"
            )),
        )),
        Request::Cuda(_) => absent("cuda", "CUDA"),
        Request::Sim => absent("sim", "simulator"),
    }
}

impl Device {
    /// Opens the device and does the work there.
    pub fn run<J: Job>(self, threads: Option<usize>, job: J) -> Result<J::Output> {
        match self {
            Device::Cpu => job.run(&Cpu::new(threads.unwrap_or(0))?),
        }
    }
}

/// Sets the number of CPU threads of this process; must come before any work.
pub fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        return Err(Error::invalid("--threads", threads, "at least 1"));
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|reason| {
        Error::invalid("--threads", threads, format!("a number that the system allows ({reason})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        for (text, request) in [
            ("cpu", Request::Cpu),
            ("auto", Request::Auto),
            ("cuda", Request::Cuda(vec![])),
            ("cuda:2", Request::Cuda(vec![2])),
            ("cuda:0,1", Request::Cuda(vec![0, 1])),
            ("sim", Request::Sim),
            ("0", Request::Number(0)),
        ] {
            assert_eq!(text.parse::<Request>().unwrap(), request);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "-1", "cuda:1,"] {
            let message = text.parse::<Request>().unwrap_err().to_string();
            assert!(message.contains("--device"), "{message}");
        }
    }

    #[test]
    fn card_that_must_be_there_is_never_replaced_by_the_processor() {
        assert!(matches!(choose(&Request::Cuda(vec![0])), Err(Error::Device { .. })));
        assert!(matches!(choose(&Request::Sim), Err(Error::Device { .. })));
    }

    #[test]
    fn falling_back_is_said_aloud() {
        assert_eq!(choose(&Request::Cpu).unwrap(), (Device::Cpu, None));
        assert!(choose(&Request::Auto).unwrap().1.is_some());
        assert!(choose(&Request::Number(3)).unwrap().1.unwrap().contains("device 3"));
    }
}
