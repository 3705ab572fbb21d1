//! `musc-mpi`: what `musc-run` does, by the processes of an MPI job.
#![warn(clippy::undocumented_unsafe_blocks)]

mod inspect;
mod machine;
mod ring;
mod team;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mpi::Threading;
use musc::{Error, Progress, Result};
use musc_cli::team::{RunArgs, Settings, Stop, arguments, end, interrupt, say};

use self::inspect::{inspect, or_fail};
use self::team::Team;

/// musc-run over the processes of an MPI job: every image against all others, exactly, where one machine does not hold them.
#[derive(Debug, Parser)]
#[command(name = "musc-mpi", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    /// Keep tokens in a folder that all processes see, without a limit: a run that was killed goes on there, with any number
    /// of processes [default: none are kept]
    #[arg(long, value_name = "DIR", conflicts_with = "cache", help_heading = "Backbone")]
    store: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Help, the version and wrong usage are the same everywhere, and are said once.
    let first = std::env::var("OMPI_COMM_WORLD_RANK").map_or(true, |rank| rank == "0");
    let cli = match arguments::<Cli>(first) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
        say("error: MPI: found it initialised, expected it not to be");
        return ExitCode::from(1);
    };
    let team = Team::new(universe.world());
    // A panic must end the other processes, too.
    let done = catch_unwind(AssertUnwindSafe(|| work(&team, cli)));
    let done = done.unwrap_or_else(|_| {
        let expected = "one that ends";
        Err(Stop::Failed(Error::invalid("work of a process", "a panic", expected)))
    });
    let code = match done {
        Ok(()) => 0,
        // What was asked for has been done.
        Err(Stop::Defective(images)) => {
            let (words, code) = end(Err(Stop::Defective(images)));
            words.iter().for_each(|words| say(words));
            code
        }
        Err(stop) => team.fail(stop),
    };
    team.wait_for_all();
    drop(universe);
    ExitCode::from(code)
}

fn work(team: &Team, cli: Cli) -> Result<(), Stop> {
    interrupt::listen()?;
    let mut settings = match Settings::new(cli.run) {
        Ok(settings) => settings,
        Err(stop) if team.rank() == 0 => return Err(stop),
        // Rank 0 says the same, and ends the job.
        Err(_) => loop {
            team.wait_for_all();
        },
    };
    if let Some(folder) = cli.store {
        settings.set_store(folder);
    }
    machine::settle(&mut settings, team)?;
    let quiet = settings.quiet();
    if team.rank() == 0 {
        return settings.run(&mut |inspector, batch, progress| {
            let found = or_fail(team, inspect(team, inspector, batch, quiet, progress));
            found.ok_or_else(|| Error::invalid("result at rank 0", "none", "one"))
        });
    }
    let batches = settings.batches()?;
    let inspector = settings.inspector()?;
    for batch in &batches {
        inspect(team, &inspector, batch, quiet, &Silent)?;
    }
    Ok(())
}

/// Says nothing: one process is enough. Stops where it is asked to.
struct Silent;

impl Progress for Silent {
    fn stopped(&self) -> bool {
        interrupt::asked()
    }
}
