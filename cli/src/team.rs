//! What a program that shares a run out over processes takes of `musc-run`: its options, its settings, and all that it makes
//! of an inspection. Of interest to `musc-mpi` alone.

use std::process::ExitCode;

use clap::Parser;
use musc::backend::device::Device;
use musc::inspect::{Batch, Inspection, Inspector, Subsets};
use musc::progress::Progress;
use musc::{Error, Result};

pub use crate::args::RunArgs;
use crate::args::normalise;
use crate::run::{self, config::Config, sources};
pub use crate::shell::{Stop, interrupt};
use crate::shell::{last_words, voice};

/// The settings of a run whose images are compared with all others.
pub struct Settings(Config);

impl Settings {
    /// The settings that options come to.
    ///
    /// # Errors
    /// As those of `musc-run`; references other than `all`, and tiles.
    pub fn new(args: RunArgs) -> Result<Self, Stop> {
        let all = args.images.references.is_none() && args.images.divide_num.is_none();
        let mut config = Config::from_run(args).map_err(Stop::Usage)?;
        let usage = |what: &str, found: &str, expected: &str| {
            Err(Stop::Usage(Error::invalid(what, found, expected)))
        };
        if config.known.is_some() || !(all || config.subsets == Subsets::All) {
            let expected = "all: subsets need no exchange, see `musc-run inspect --shard`";
            return usage("--references", "another", expected);
        }
        if config.tiles.is_some() {
            return usage("--tiles", "them", "whole images, whose tokens can travel");
        }
        if config.scoring.radius.is_some() {
            return usage("--match", "near", "anywhere: within a radius all are compared at once");
        }
        config.subsets = Subsets::All;
        Ok(Settings(config))
    }

    /// The device that was asked for.
    pub fn device(&self) -> &Device {
        &self.0.machine.device
    }

    /// On this device.
    pub fn set_device(&mut self, device: Device) {
        self.0.machine.device = device;
    }

    /// With so many CPU threads, where nobody has said how many.
    pub fn set_usual_threads(&mut self, threads: usize) {
        self.0.machine.threads.get_or_insert(threads);
    }

    /// Keeps tokens in a folder without a limit, in place of `--cache`.
    pub fn set_store(&mut self, folder: std::path::PathBuf) {
        self.0.backbone.cache = Some((folder, u64::MAX));
    }

    /// Whether nothing is to be said but notes and errors.
    pub fn quiet(&self) -> bool {
        self.0.machine.quiet
    }

    /// The batches, none of them opened.
    ///
    /// # Errors
    /// As those of `musc-run`.
    pub fn batches(&self) -> Result<Vec<Batch>> {
        sources::batches(&self.0, std::path::Path::new("")).map(|(batches, _)| batches)
    }

    /// The inspector.
    ///
    /// # Errors
    /// As those of `musc-run`.
    pub fn inspector(&self) -> Result<Inspector> {
        self.0.inspector(&())
    }

    /// Runs as `musc-run` does, but for the inspections of the batches, which come from elsewhere.
    ///
    /// # Errors
    /// As those of `musc-run`.
    pub fn run(self, inspect: Inspect<'_>) -> Result<(), Stop> {
        run::run_with(self.0, true, &mut |inspector, batch, _, progress| {
            inspect(inspector, batch, progress)
        })
    }
}

/// How a batch is inspected by many.
type Inspect<'a> = &'a mut dyn FnMut(&Inspector, &Batch, &dyn Progress) -> Result<Inspection>;

/// What is said at the end, if anything is, and the exit code.
pub fn end(done: Result<(), Stop>) -> (Option<String>, u8) {
    last_words(done, "musc-mpi --help lists all options")
}

/// A message on stderr.
pub fn say(text: &str) {
    voice::warn(text);
}

/// This process's arguments, or the exit code after help, the version or what is wrong with them, which only one process says.
///
/// # Errors
/// The exit code, when all is said.
pub fn arguments<C: Parser>(says: bool) -> Result<C, ExitCode> {
    C::try_parse_from(normalise(std::env::args_os())).map_err(|told| {
        if says {
            // Nobody is left to hear of a failure to print it.
            let _ = told.print();
        }
        ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2))
    })
}
