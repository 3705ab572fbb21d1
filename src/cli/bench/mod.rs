//! The program `musc-bench`: what the kernels and the stages cost.
//!
//! | module | what it owns |
//! |---|---|
//! | `op` | a launch by its shape: its blocks, its useful work, the smaller launch that stands for it |
//! | `pipeline` | the launches of a whole run, as the runtime deals them out |
//! | `probe`, `counts` | the launch on the simulator, and what it cost there |
//! | `resources`, `cards`, `model` | registers and occupancy; the cards; a time from all of it |
//! | `measure` | times on a real card |
//! | `kernels`, `e2e`, `stages` | the three commands |
//!
//! A modelled time is never called measured, and no test asserts on a measured one.

mod args;
mod cards;
mod counts;
mod e2e;
mod kernels;
mod measure;
mod model;
mod op;
mod pipeline;
mod probe;
mod resources;
mod stages;
mod text;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};
use super::{Stop, interrupt, progress};
use crate::Error;

/// Runs `musc-bench` on this process's arguments.
///
/// The exit code is 0 when done, 1 after an error, 2 for wrong usage, 130 when interrupted.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(super::args::normalise(std::env::args_os())) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version come this way too; nobody is left to hear of a failure to print them.
            let _ = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2));
        }
    };
    let done = interrupt::listen().map_err(Stop::Failed).and_then(|()| match cli.command {
        Command::Kernels(args) => kernels::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::Stages(args) => stages::run(&args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Failed(Error::Interrupted) | Stop::Interrupted(_)) => {
            progress::warn("interrupted");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(Stop::Failed(error)) => {
            progress::warn(&format!("error: {error}"));
            ExitCode::from(1)
        }
        Err(Stop::Usage(error)) => {
            progress::warn(&format!("error: {error}\n\nmusc-bench --help lists the commands"));
            ExitCode::from(2)
        }
    }
}
