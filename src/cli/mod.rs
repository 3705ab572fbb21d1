//! The program `musc-run`: arguments to validated settings to a run, and what people see of it; and [`mod@bench`], the
//! program `musc-bench`.
//!
//! Owns everything that prints, exits or listens for Ctrl-C; the rest of the crate does none of these.

mod args;
mod backbone;
pub mod bench;
mod category;
mod config;
mod demo;
mod device;
mod interrupt;
mod layout;
mod memory;
mod out;
mod pictures;
mod pixels;
mod progress;
mod record;
mod run;
mod sources;
mod stages;
mod tensors;
mod weights;
mod yaml;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};
use self::config::Config;
use crate::Error;

/// Why the program ends early.
enum Stop {
    /// The options cannot be what the user meant.
    Usage(Error),
    /// The work failed, or was interrupted.
    Failed(Error),
    /// The work was interrupted, and this is how it goes on.
    Interrupted(&'static str),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// Runs `musc-run` on this process's arguments.
///
/// The exit code is 0 when done, 1 after an error, 2 for wrong usage, 130 when interrupted.
pub fn main() -> ExitCode {
    match parse::<Cli>() {
        Ok(cli) => exit_code(dispatch(cli), "musc-run --help lists all options"),
        Err(code) => code,
    }
}

/// This process's arguments, or the exit code after help, the version or what is wrong with them.
fn parse<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse_from(args::normalise(std::env::args_os())).map_err(|told| {
        // Help and version come this way too; nobody is left to hear of a failure to print them.
        let _ = told.print();
        ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2))
    })
}

/// Says how a program ended, and the code for it. `help` is said after wrong usage.
fn exit_code(done: Result<(), Stop>, help: &str) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Failed(Error::Interrupted)) => {
            progress::warn("interrupted; no unfinished file was left");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(Stop::Interrupted(how)) => {
            progress::warn(&format!("interrupted; {how}"));
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(Stop::Failed(error)) => {
            let hint = match error {
                Error::BadImages { .. } => "\n\n--skip-bad goes on without them",
                _ => "",
            };
            progress::warn(&format!("error: {error}{hint}"));
            ExitCode::from(1)
        }
        Err(Stop::Usage(error)) => {
            progress::warn(&format!("error: {error}\n\n{help}"));
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Stop> {
    interrupt::listen()?;
    match cli.command {
        None => Ok(run::run(Config::from_run(cli.run).map_err(Stop::Usage)?)?),
        Some(Command::Demo(args)) => Ok(run::run(Config::from_demo(args).map_err(Stop::Usage)?)?),
        Some(Command::Extract(args)) => stages::extract(args),
        Some(Command::Score(args)) => stages::score(args),
        Some(Command::Rscin(args)) => stages::rscin(args),
        Some(Command::Metrics(args)) => stages::metrics(args),
        Some(Command::Weights(command)) => weights::run(command),
    }
}
