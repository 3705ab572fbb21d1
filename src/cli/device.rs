//! Which device a run gets: the one place that knows what this build has.

use std::str::FromStr;

use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{Cuda, CudaOptions};
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

/// A device that is open and ready.
pub enum Device {
    /// The processor.
    Cpu,
    /// Cards, or the simulator.
    Cuda(Cuda),
}

/// Work that runs on whichever backend was chosen.
pub trait Job {
    /// What it makes.
    type Output;
    /// Does it.
    fn run<B: Backend>(self, backend: &B) -> Result<Self::Output>;
}

/// The device for a request, and a sentence to say aloud when it is not the obvious one. Only `auto` and a bare number
/// ever come to another device than they name, and they say so.
pub fn choose(request: &Request, options: CudaOptions) -> Result<(Device, Option<String>)> {
    match request {
        Request::Cpu => Ok((Device::Cpu, None)),
        Request::Auto => Ok(match cards(&[0], options) {
            Ok(device) => (device, Some(String::from("device: cuda:0"))),
            Err(reason) => (Device::Cpu, Some(format!("device: cpu, since {reason}"))),
        }),
        Request::Number(card) => Ok(match cards(&[*card], options) {
            Ok(device) => (device, None),
            Err(reason) => {
                (Device::Cpu, Some(format!("device {card}: the run is on the CPU, since {reason}")))
            }
        }),
        Request::Cuda(numbers) => Ok((cards(numbers, options)?, None)),
        Request::Sim => Ok((simulated(options)?, None)),
    }
}

fn cards(numbers: &[usize], options: CudaOptions) -> Result<Device> {
    Cuda::open(numbers, options).map(Device::Cuda)
}

fn simulated(options: CudaOptions) -> Result<Device> {
    Cuda::sim(options).map(Device::Cuda)
}

impl Device {
    /// Does the work there.
    pub fn run<J: Job>(self, threads: Option<usize>, job: J) -> Result<J::Output> {
        match self {
            Device::Cpu => job.run(&Cpu::new(threads.unwrap_or(0))?),
            Device::Cuda(cuda) => job.run(&cuda),
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
        // No machine has this many cards; one without a driver says that.
        let absent = Request::Cuda(vec![4096]);
        assert!(matches!(choose(&absent, CudaOptions::default()), Err(Error::Device { .. })));
    }

    #[test]
    fn falling_back_is_said_aloud() {
        let choose = |request| choose(&request, CudaOptions::default()).unwrap();
        assert!(matches!(choose(Request::Cpu), (Device::Cpu, None)));
        assert!(matches!(choose(Request::Sim), (Device::Cuda(_), None)));
        assert!(choose(Request::Auto).1.is_some());
        let (device, said) = choose(Request::Number(4096));
        assert!(matches!(device, Device::Cpu));
        assert!(said.unwrap().contains("device 4096"));
    }
}
