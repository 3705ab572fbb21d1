//! The words of `musc-run inspect` and `musc-run merge`.

use std::path::PathBuf;

use clap::Args;

use super::values::parse_shard;
use super::{MachineArgs, OutputArgs, RunArgs};

const SHARDS_HELP: &str = "\
A store is a folder that all workers see. Each shard makes its share of the parts of the job (a part is a subset of the images, see
--references) and lays them down there, whole or not at all; parts that are there are not made again. Then, once:
  musc-run merge DIR --output-dir results

With `auto` the shard is read from the first of these that is set; those that are set must agree:
  MUSC_SHARD=I/N; SLURM_ARRAY_TASK_ID, _COUNT and _MIN; JOB_COMPLETION_INDEX and MUSC_SHARDS;
  OMPI_COMM_WORLD_RANK and _SIZE; PMI_RANK and PMI_SIZE; RANK and WORLD_SIZE; HQ_TASK_ID and MUSC_SHARDS.

Exit codes: 0 done; 1 an error that may pass, or SIGTERM: try again; 2 wrong usage or bad data: do not; 130 Ctrl-C.";

const MERGE_HELP: &str = "\
Everything but what is given here is as it was when the store was made: images, settings, output.

Exit codes: 0 done; 1 an error that may pass: try again; 2 wrong usage or bad data: do not; 3 parts are missing, which are named;
4 an image is NG and --fail-on-ng was given; 130 Ctrl-C.";

#[derive(Debug, Clone, Args)]
#[command(after_help = SHARDS_HELP)]
pub struct InspectArgs {
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub shard: ShardArgs,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shards")]
pub struct ShardArgs {
    /// Make the I-th of N shares of the job, I from 0, and leave the rest to others; auto: as the scheduler says
    #[arg(long, value_name = "I/N|auto", value_parser = parse_shard, requires = "store")]
    pub shard: Option<ShardArg>,
    /// The folder in which the shards of a job lay down what they make
    #[arg(long, value_name = "DIR", requires = "shard")]
    pub store: Option<PathBuf>,
}

/// Which share of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardArg {
    /// As the environment says.
    Auto,
    /// The `index`-th of `count`.
    Of { index: usize, count: usize },
}

#[derive(Debug, Clone, Args)]
#[command(after_help = MERGE_HELP)]
pub struct MergeArgs {
    /// The store of a job whose shards are done
    #[arg(value_name = "DIR")]
    pub store: PathBuf,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}
