//! What stops a kernel, before it is known where: the warp adds the place.

use crate::error::{Error, Hazard, Site, Space};

#[derive(Debug, Clone)]
pub(crate) enum Fault {
    OutOfBounds { space: Space, address: u64, bytes: u32, near: String },
    Misaligned { space: Space, address: u64, bytes: u32 },
    Uninitialised { space: Space, address: u64, bytes: u32, near: String },
    PendingCopy { address: u64, bytes: u32, owner: u32 },
    SharedRace { address: u64, bytes: u32, hazard: Hazard, other: Option<u32> },
    BlockRace { address: u64, bytes: u32, hazard: Hazard, other: Option<u32>, near: String },
    ReadOnly { address: u64 },
    DivergentBarrier(String),
    DivergentWarp(String),
    ShuffleSource(u32),
    Deadlock(String),
    Trap,
    Assertion { message: String, file: String, line: u32, function: String },
    StackOverflow(u64),
    InstructionLimit(u64),
    BadOperand(String),
}

/// A fault and the lane that met it.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    pub fault: Fault,
    pub lane: u32,
}

impl Fault {
    /// The fault as met by a lane.
    pub fn at(self, lane: u32) -> Box<Stop> {
        Box::new(Stop { fault: self, lane })
    }

    pub fn into_error(self, site: Site) -> Error {
        let site = Box::new(site);
        let several = |o: Option<u32>| o.map_or("several".to_string(), |v| v.to_string());
        match self {
            Fault::OutOfBounds { space, address, bytes, near } => {
                Error::OutOfBounds { site, space, address, bytes, near }
            }
            Fault::Misaligned { space, address, bytes } => {
                Error::Misaligned { site, space, address, bytes }
            }
            Fault::Uninitialised { space, address, bytes, near } => {
                Error::Uninitialised { site, space, address, bytes, near }
            }
            Fault::PendingCopy { address, bytes, owner } => {
                Error::PendingCopy { site, address, bytes, owner }
            }
            Fault::SharedRace { address, bytes, hazard, other } => {
                Error::SharedRace { site, address, bytes, hazard, other: several(other) }
            }
            Fault::BlockRace { address, bytes, hazard, other, near } => {
                Error::BlockRace { site, address, bytes, hazard, other: several(other), near }
            }
            Fault::ReadOnly { address } => Error::ReadOnly { site, address },
            Fault::DivergentBarrier(detail) => Error::DivergentBarrier { site, detail },
            Fault::DivergentWarp(detail) => Error::DivergentWarp { site, detail },
            Fault::ShuffleSource(lane) => Error::ShuffleSource { site, lane },
            Fault::Deadlock(detail) => Error::Deadlock { site, detail },
            Fault::Trap => Error::Trap { site },
            Fault::Assertion { message, file, line, function } => {
                Error::Assertion { site, message, file, line, function }
            }
            Fault::StackOverflow(limit) => Error::StackOverflow { site, limit },
            Fault::InstructionLimit(limit) => Error::InstructionLimit { site, limit },
            Fault::BadOperand(detail) => Error::BadOperand { site, detail },
        }
    }
}
