//! The programs `musc-run` and `musc-bench`: arguments to settings, settings to the library's
//! [`inspect`](musc::inspect), and what people see of it.
//!
//! Owns everything that prints, exits or listens for Ctrl-C. Nothing in it knows how to score. Of interest to the two programs
//! alone: it is no interface for others, who take the library.

mod args;
mod bank;
mod bench;
mod doctor;
mod embedded;
// Its changes to files are those of the library's fuzzers, which are in the repository.
#[cfg(all(test, built_in))]
mod fuzz;
mod predict;
mod run;
mod shards;
mod shell;
mod smi;
mod stages;
#[doc(hidden)]
pub mod team;
mod weights;

use std::process::ExitCode;

pub use self::bench::main as bench_main;

use musc::backend::cpu::Instructions;

use self::args::{Cli, Command};
use self::run::config::Config;
use self::shell::{Stop, exit_code, interrupt, parse};

/// Runs `musc-run` on this process's arguments.
///
/// The exit code is 0 when done, 1 after an error that may pass and SIGTERM, 2 for wrong usage and bad data, 3 when parts of a
/// job are missing, 4 when an image is NG and `--fail-on-ng` was given, 130 after Ctrl-C.
pub fn run_main() -> ExitCode {
    shell::memory::give_back();
    match parse::<Cli>() {
        Ok(cli) => exit_code(dispatch(cli), "musc-run --help lists all options"),
        Err(code) => code,
    }
}

fn dispatch(cli: Cli) -> Result<(), Stop> {
    interrupt::listen()?;
    match cli.command {
        None => run::run(Config::from_run(cli.run).map_err(Stop::Usage)?),
        Some(Command::Demo(args)) => run::run(Config::from_demo(args).map_err(Stop::Usage)?),
        Some(Command::Inspect(args)) => shards::inspect(*args),
        Some(Command::Merge(args)) => shards::merge(*args),
        Some(Command::Bank(command)) => bank::run(command),
        Some(Command::Predict(args)) => predict::run(args),
        Some(Command::Extract(args)) => stages::extract(args),
        Some(Command::Score(args)) => stages::score(args),
        Some(Command::Rscin(args)) => stages::rscin(args),
        Some(Command::Metrics(args)) => stages::metrics(args),
        Some(Command::Weights(command)) => weights::run(command),
        Some(Command::Doctor(args)) => doctor::run(&args),
    }
}

/// What `--version` says: that, and what the processor multiplies.
fn long_version() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| {
        let widest = Instructions::widest();
        let auto = if widest.multiply_bf16() { "bf16" } else { "f32" };
        format!(
            "{}\nprocessor: {widest} at the widest; `--precision auto`: features f32, scoring {auto}",
            version()
        )
    })
}

/// Version, commit and the PTX inside.
fn version() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| {
        let kernels = musc::backend::cuda::kernels::KERNELS;
        let mut targets: Vec<String> =
            kernels.iter().map(|(_, target, _)| format!("compute_{target}")).collect();
        targets.sort_unstable();
        targets.dedup();
        format!(
            "{} ({}; PTX for {}, {})",
            env!("CARGO_PKG_VERSION"),
            env!("MUSC_COMMIT"),
            targets.join(" and "),
            musc::backend::cuda::kernels::KERNEL_ORIGIN
        )
    })
}
