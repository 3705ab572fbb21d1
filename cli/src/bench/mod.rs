//! The program `musc-bench`: what the kernels and the stages cost, and whether they are right.
//!
//! | module | what it owns |
//! |---|---|
//! | `op` | a launch by its shape: its blocks, its useful work, the smaller launch that stands for it |
//! | `pipeline` | the launches of a whole run, as the runtime deals them out |
//! | `probe`, `counts` | the launch on the simulator, and what it cost there |
//! | `resources`, `cards`, `model` | registers and occupancy; the cards; a time from all of it |
//! | `measure` | times on a real card |
//! | `verify` | whether the kernels give the right numbers |
//! | `kernels`, `e2e`, `stages` | the commands that count and time |
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
mod verify;

use std::process::ExitCode;

use self::args::{Cli, Command};
use crate::shell::{Stop, exit_code, interrupt, parse};

/// Runs `musc-bench` on this process's arguments.
///
/// The exit code is 0 when done, 1 after an error, 2 for wrong usage, 5 when `verify` found a kernel that differs, 130 when
/// interrupted.
pub fn main() -> ExitCode {
    let cli = match parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let done = interrupt::listen().map_err(Stop::Failed).and_then(|()| match cli.command {
        Command::Kernels(args) => kernels::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::Stages(args) => stages::run(&args),
        Command::Verify(args) => verify::run(&args),
    });
    exit_code(done, "musc-bench --help lists the commands")
}
