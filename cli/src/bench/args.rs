//! What the command line of `musc-bench` says, and what it comes to once checked.

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::cards::{CARDS, Card, USUAL};
use super::pipeline::Setting;
use crate::args::precisions;
use musc::backend::cuda::driver::sim::MmaSums;
use musc::backend::device::{Device as Named, Precision};
use musc::model::{Backbone, backbone};
use musc::{Error, Result};

/// The kernel files, for `--only`.
pub const STEMS: [&str; 8] = [
    "attention",
    "gemm",
    "gram_pool",
    "interval_mean",
    "layer_norm",
    "lnamd",
    "patch_distance",
    "patch_embed",
];
/// The models shown by `kernels --model all`, with their sides.
const SHOWN: [(&str, usize); 2] = [("ViT-L-14-336", 518), ("dinov2_vits14", 224)];

const VERIFY_HELP: &str = "\
Exit codes: 0 all is verified; 5 something differs, was not run, or a seeded fault went unnoticed; 1 the device cannot be opened;
2 wrong usage.";

/// What the kernels and the CPU stages cost. Without a card it counts on the simulator and models times from the counts,
/// labelled so; with one it measures.
#[derive(Debug, Parser)]
#[command(name = "musc-bench", version = crate::version(), long_version = crate::long_version(), max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Each kernel at the shapes of a backbone: counts, registers, occupancy, and a time a card
    Kernels(KernelsArgs),
    /// A whole run: tensor work, milliseconds an image by kernel, memory
    E2e(E2eArgs),
    /// Features and scoring on the CPU, timed
    Stages(StagesArgs),
    /// Whether every kernel gives the right numbers on a card: each output against f64, faults seeded to be found
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

/// Where, and on which shapes.
#[derive(Debug, Args)]
pub struct Common {
    /// sim (counts, modelled times) or cuda:0 (measured times)
    #[arg(long, default_value = "sim")]
    pub device: String,
    /// Card to model, may be repeated, or all [default: RTX-3090 RTX-4090 A100 H100]
    #[arg(long, value_name = "CARD", num_args = 1..)]
    pub card: Vec<String>,
    /// Images N that are scored against each other
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub images: usize,
    /// Images of a batch of the backbone [default: as many as the card would choose]
    #[arg(long, value_name = "B")]
    pub batch_size: Option<usize>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct KernelsArgs {
    #[command(flatten)]
    pub common: Common,
    /// Backbone whose shapes are taken: a name, or all for ViT-L-14-336 at 518 and dinov2_vits14 at 224
    #[arg(long, value_name = "NAME", default_value = "all")]
    pub model: String,
    /// Side of the images [default: 518, for dinov2_vits14 224]
    #[arg(long, value_name = "S")]
    pub img_resize: Option<usize>,
    /// One kernel file only, such as gemm
    #[arg(long, value_name = "STEM")]
    pub only: Option<String>,
}

#[derive(Debug, Args)]
pub struct E2eArgs {
    #[command(flatten)]
    pub common: Common,
    /// Backbone
    #[arg(long, value_name = "NAME", default_value = "ViT-L-14-336")]
    pub model: String,
    /// Side of the images
    #[arg(long, value_name = "S", default_value_t = 518)]
    pub img_resize: usize,
    /// Images of A and of B in a Gram block, to see what others would cost; the runtime's own without it
    #[arg(long, value_name = "AxB")]
    pub gram_block: Option<String>,
}

#[derive(Debug, Args)]
pub struct StagesArgs {
    /// Images
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub images: usize,
    /// Side of the images, a multiple of 14
    #[arg(long, value_name = "S", default_value_t = 224)]
    pub img_resize: usize,
    /// Timed runs of each stage, after one that is not
    #[arg(long, value_name = "R", default_value_t = 5)]
    pub repeats: usize,
    /// Peak of the machine in GFLOP/s, for a share of it: of the products that are timed, in their format
    #[arg(long, value_name = "G")]
    pub peak_gflops: Option<f64>,
    /// Numbers of products: auto (features in f32, scoring in bf16 where the processor has AVX512-BF16), f32, or bf16
    /// [default: auto]
    #[arg(long, value_name = "FORMAT", value_parser = precisions(), hide_possible_values = true)]
    pub precision: Option<Precision>,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// sim or one card, such as cuda:0
    #[arg(long, default_value = "sim")]
    pub device: String,
    /// Small shapes only, as on the simulator
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// Every shape, as on a card; on the simulator it takes hours
    #[arg(long)]
    pub full: bool,
    /// One kernel file only, such as gemm
    #[arg(long, value_name = "STEM")]
    pub only: Option<String>,
    /// How the simulator's tensor cores take sums: in f32, or cut toward zero as a card's
    #[arg(long, value_enum, value_name = "CARD", default_value = "f32")]
    pub sums: SumsArg,
    /// Kernels by themselves: no repeats of the scoring, no images
    #[arg(long)]
    pub kernels_only: bool,
    /// No progress on stderr
    #[arg(long)]
    pub quiet: bool,
    /// Print one JSON document on stdout, to attach to a report
    #[arg(long)]
    pub json: bool,
}

/// How the simulator's tensor cores take sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SumsArg {
    F32,
    V100,
    A100,
    H100,
}

impl SumsArg {
    /// As the simulator has it.
    pub fn of_simulator(self) -> MmaSums {
        match self {
            SumsArg::F32 => MmaSums::F32,
            SumsArg::V100 => MmaSums::V100,
            SumsArg::A100 => MmaSums::A100,
            SumsArg::H100 => MmaSums::H100,
        }
    }
}

impl VerifyArgs {
    /// The device.
    pub fn device(&self) -> Result<Device> {
        let device = device(&self.device)?;
        if self.sums != SumsArg::F32 && device != Device::Sim {
            return Err(Error::invalid(
                "--sums",
                format!("{:?} on {}", self.sums, self.device),
                "--device sim: a card has its own",
            ));
        }
        Ok(device)
    }

    /// Whether only small shapes are run.
    pub fn quick(&self, device: Device) -> bool {
        self.quick || (device == Device::Sim && !self.full)
    }

    /// The kernel file, if it is only one.
    pub fn only(&self) -> Result<Option<&str>> {
        let known = musc::backend::cuda::kernels::stems();
        match self.only.as_deref() {
            Some(stem) if !known.contains(&stem) => {
                Err(Error::invalid("--only", stem, format!("one of {}", known.join(", "))))
            }
            only => Ok(only),
        }
    }
}

/// Simulator or card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Counts and modelled times.
    Sim,
    /// Measured times on the card of this number.
    Cuda(usize),
}

/// The device of this name.
fn device(name: &str) -> Result<Device> {
    match name.parse::<Named>()? {
        Named::Sim => Ok(Device::Sim),
        Named::Cuda(cards) if cards.len() <= 1 => {
            Ok(Device::Cuda(cards.first().copied().unwrap_or(0)))
        }
        _ => {
            Err(Error::invalid("--device", format!("`{name}`"), "sim or one card, such as cuda:0"))
        }
    }
}

impl Common {
    /// The device.
    pub fn device(&self) -> Result<Device> {
        device(&self.device)
    }

    /// The cards to model.
    pub fn cards(&self) -> Result<Vec<&'static Card>> {
        if self.card.is_empty() {
            return Ok(CARDS.iter().take(USUAL).collect());
        }
        if self.card == ["all"] {
            return Ok(CARDS.iter().collect());
        }
        let known = |name: &String| {
            CARDS.iter().find(|card| card.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                let names: Vec<_> = CARDS.iter().map(|card| card.name).collect();
                Error::invalid("--card", name, format!("all, or some of {}", names.join(", ")))
            })
        };
        self.card.iter().map(known).collect()
    }

    fn setting(&self, backbone: &'static Backbone, image_size: usize) -> Result<Setting> {
        Setting::new(backbone, image_size, self.images, self.batch_size)
    }
}

impl KernelsArgs {
    /// The settings whose shapes are shown.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        if let Some(stem) = &self.only
            && !STEMS.contains(&stem.as_str())
        {
            return Err(Error::invalid("--only", stem, format!("one of {}", STEMS.join(", "))));
        }
        let named: Vec<(&str, usize)> = match self.model.as_str() {
            "all" => SHOWN.to_vec(),
            name => {
                let usual = SHOWN.iter().find(|(shown, _)| *shown == name).map_or(518, |s| s.1);
                vec![(name, usual)]
            }
        };
        named
            .into_iter()
            .map(|(name, side)| {
                self.common.setting(backbone(name)?, self.img_resize.unwrap_or(side))
            })
            .collect()
    }
}

impl E2eArgs {
    /// The run to account for.
    pub fn setting(&self) -> Result<Setting> {
        self.common.setting(backbone(&self.model)?, self.img_resize)
    }

    /// The images of A and of B in a Gram block, where they were given.
    pub fn gram_block(&self, patches: usize) -> Result<Option<(usize, usize)>> {
        let Some(text) = &self.gram_block else { return Ok(None) };
        let most = musc::backend::cuda::launch::GRAM_STRIDE / patches.max(1);
        text.split_once('x')
            .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
            .filter(|&(a, b): &(usize, usize)| (1..=1000).contains(&a) && (1..=most).contains(&b))
            .map(Some)
            .ok_or_else(|| {
                Error::invalid("--gram-block", text, format!("AxB such as 4x5, B at most {most}"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(line: &str) -> Common {
        let words = ["musc-bench", "e2e"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::E2e(args) => args.common,
            _ => unreachable!("e2e was asked for"),
        }
    }

    #[test]
    fn definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn devices_and_cards_are_read() {
        assert_eq!(common("").device().unwrap(), Device::Sim);
        assert_eq!(common("--device cuda:1").device().unwrap(), Device::Cuda(1));
        for device in ["cpu", "auto", "cuda:0,1", "gpu"] {
            assert!(common(&format!("--device {device}")).device().is_err(), "{device}");
        }
        assert_eq!(common("").cards().unwrap().len(), USUAL);
        assert_eq!(common("--card all").cards().unwrap().len(), CARDS.len());
        assert_eq!(common("--card t4 h100").cards().unwrap()[0].name, "T4");
        assert!(common("--card voodoo").cards().unwrap_err().to_string().contains("RTX-3090"));
    }
}
