//! The validated settings of a run: command line over YAML over defaults, each checked as far as it can be
//! without opening an image or a weight file.

mod regions;
mod source;

use std::path::{Path, PathBuf};

use musc::backend::device::{Device, Precision};
use musc::dataset::DatasetKind;
use musc::inspect::{
    ActivationChoice, InputSize, Inspector, InspectorBuilder, Rescoring, Subsets, Tiles,
    USUAL_CACHE_BYTES, Weights,
};
use musc::model::Activation;
use musc::model::locate::DEFAULT_PRETRAINED;
use musc::report::export::ExportFormat;
use musc::scoring::MutualScoring;
use musc::scoring::decision::DecisionRule;
use musc::scoring::rscin::Similarity;
use musc::{Error, Grid, ImageSize, Progress, Result};

pub use self::regions::RegionConfig;
pub use self::source::{KnownImages, Source};
use self::source::{source, subsets};
use super::yaml::Yaml;
use crate::args::{
    ActivationArg, BackboneArgs, DatasetArg, DemoArgs, MachineArgs, MatchArg, ReferencesArg,
    RunArgs, SimilarityArg, SizeArgs, VisTypeArg,
};
use crate::embedded::{BUILT_IN_BACKBONE, weights_of};

/// Side of the input of the authors' program.
pub const DEFAULT_IMAGE_SIZE: usize = 518;
/// Backbone of the authors' program.
const DATASET_BACKBONE: &str = "ViT-L-14-336";

/// The backbone and its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct BackboneConfig {
    /// Its name; none means: whatever the weights are.
    pub name: Option<String>,
    /// The weights' training set.
    pub pretrained: String,
    /// Where the weights come from.
    pub weights: Weights,
    /// The MLPs' activation.
    pub activation: ActivationChoice,
    /// Feature layers; none means the backbone's own.
    pub layers: Option<Vec<usize>>,
    /// Images that go through together; 0 leaves it to the device.
    pub batch_size: usize,
    /// The folder where tokens are kept, and how many bytes of them.
    pub cache: Option<(PathBuf, u64)>,
}

impl BackboneConfig {
    /// The options over a YAML file's words; `usual` is the backbone where nothing names one.
    pub fn new(args: BackboneArgs, yaml: &mut Yaml, usual: &str) -> Result<Self> {
        let name = args.backbone_name.or(yaml.backbone_name.take());
        let (name, weights) = match (name, args.weights) {
            (name, Some(file)) => (name, Weights::File(file)),
            (name, None) => {
                let name = name.unwrap_or_else(|| usual.to_string());
                let weights = weights_of(&name);
                (Some(name), weights)
            }
        };
        Ok(BackboneConfig {
            name,
            pretrained: args
                .pretrained
                .or(yaml.pretrained.take())
                .unwrap_or_else(|| DEFAULT_PRETRAINED.into()),
            weights,
            activation: args.activation.map_or(ActivationChoice::Official, Into::into),
            layers: args.feature_layers.or(yaml.feature_layers.take()),
            batch_size: batch_size(args.batch_size.or(yaml.batch_size))?,
            cache: args.cache.map(|folder| {
                (folder, args.cache_size.map_or(USUAL_CACHE_BYTES, |bytes| bytes as u64))
            }),
        })
    }

    /// An inspector in the making with this backbone on this machine.
    pub fn builder(&self, machine: &MachineConfig) -> InspectorBuilder {
        let mut builder = Inspector::builder()
            .pretrained(&self.pretrained)
            .weights(self.weights.clone())
            .activation(self.activation)
            .batch_size(self.batch_size);
        builder = machine.apply(builder);
        if let Some((folder, bytes)) = &self.cache {
            builder = builder.cache(folder, *bytes);
        }
        if let Some(name) = &self.name {
            builder = builder.backbone(name);
        }
        if let Some(layers) = &self.layers {
            builder = builder.layers(layers.clone());
        }
        builder
    }
}

impl From<ActivationArg> for ActivationChoice {
    fn from(arg: ActivationArg) -> Self {
        match arg {
            ActivationArg::Official => ActivationChoice::Official,
            ActivationArg::Gelu => ActivationChoice::Exactly(Activation::Gelu),
            ActivationArg::QuickGelu => ActivationChoice::Exactly(Activation::QuickGelu),
        }
    }
}

/// The input size that some options come to; `usual` is the side where none is given.
pub fn input_size(args: SizeArgs, yaml: Option<usize>, usual: usize) -> Result<InputSize> {
    if let Some(longest) = args.keep_aspect {
        let longest = at_least_one("--keep-aspect", longest)?;
        return Ok(InputSize::KeepAspect { longest, pad: args.pad });
    }
    if let Some(size) = args.img_size {
        return Ok(InputSize::Exactly(size));
    }
    let side = args.img_resize.or(yaml).unwrap_or(usual);
    Ok(InputSize::Exactly(ImageSize::square(at_least_one("--img_resize", side)?)))
}

/// What is written, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputConfig {
    /// The root of all results.
    pub dir: PathBuf,
    /// Heat maps.
    pub vis: bool,
    /// report.html, and the plots.
    pub report: bool,
    /// Colours by each map's own range (`single_norm`), or by that of all maps (`whole_norm`).
    pub by_each_map: bool,
    /// results.xlsx.
    pub save_excel: bool,
    /// Anomaly maps as numbers.
    pub save_maps: bool,
    /// Heat maps over the images.
    pub overlays: bool,
    /// Programs that regions are written for, each once.
    pub export: Vec<ExportFormat>,
    /// Replace an earlier run.
    pub overwrite: bool,
}

/// Device, threads, and what is said.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineConfig {
    /// The device as asked for.
    pub device: Device,
    /// Its words.
    pub device_text: String,
    /// Number format of products, where one was named.
    pub precision: Option<Precision>,
    /// The most bytes to take on a card.
    pub memory_limit: Option<u64>,
    /// CPU threads; none means one a core.
    pub threads: Option<usize>,
    /// No progress.
    pub quiet: bool,
    /// One JSON document in place of a table.
    pub json: bool,
}

/// Everything a run needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The images.
    pub source: Source,
    /// Go on without unreadable files.
    pub skip_bad: bool,
    /// Which part of the images is looked at.
    pub regions: RegionConfig,
    /// The tiles that they are cut into.
    pub tiles: Option<Tiles>,
    /// Whom each image is compared with.
    pub subsets: Subsets,
    /// Images that are known to be good, or earlier ones, to compare with.
    pub known: Option<KnownImages>,
    /// Seed of subsets.
    pub seed: u64,
    /// Backbone.
    pub backbone: BackboneConfig,
    /// The size at which images go through it.
    pub input: InputSize,
    /// Mutual scoring.
    pub scoring: MutualScoring,
    /// RsCIN's neighbourhoods; none means those of the data set.
    pub rscin_k: Option<Vec<usize>>,
    /// RsCIN's comparison.
    pub similarity: Similarity,
    /// Figures with every quirk of the authors' program; what it stands for is in `docs/fidelity.md`.
    pub paper: bool,
    /// How OK and NG are told apart.
    pub decide: DecisionRule,
    /// An image that is NG makes the exit code 4.
    pub fail_on_ng: bool,
    /// Results.
    pub output: OutputConfig,
    /// Machine.
    pub machine: MachineConfig,
    /// Sentences to say before the run and to keep in run.json.
    pub notes: Vec<String>,
}

impl Config {
    /// Settings of the main form, with its YAML file read if one is named.
    pub fn from_run(args: RunArgs) -> Result<Self> {
        let yaml = match &args.method.config {
            Some(path) => Yaml::read(path)?,
            None => Yaml::default(),
        };
        Self::merge(args, yaml)
    }

    /// Settings of the demonstration.
    pub fn from_demo(args: DemoArgs) -> Result<Self> {
        let backbone = BackboneConfig {
            name: Some(BUILT_IN_BACKBONE.into()),
            pretrained: DEFAULT_PRETRAINED.into(),
            weights: weights_of(BUILT_IN_BACKBONE),
            activation: ActivationChoice::Official,
            layers: None,
            batch_size: 0,
            cache: None,
        };
        let side = at_least_one("--img-resize", args.img_resize)?;
        Ok(Config {
            source: Source::Demo,
            skip_bad: false,
            regions: RegionConfig::default(),
            tiles: None,
            subsets: Subsets::Auto,
            known: None,
            seed: 0,
            backbone,
            input: InputSize::Exactly(ImageSize::square(side)),
            scoring: MutualScoring::default(),
            rscin_k: None,
            similarity: Similarity::Cosine,
            paper: false,
            decide: DecisionRule::default(),
            fail_on_ng: false,
            output: OutputConfig {
                dir: args.output_dir.unwrap_or_else(|| "output".into()),
                vis: true,
                report: args.report.unwrap_or(true),
                by_each_map: false,
                save_excel: false,
                save_maps: args.save_maps,
                overlays: true,
                export: Vec::new(),
                overwrite: args.overwrite,
            },
            machine: MachineConfig::new(args.machine, None)?,
            notes: Vec::new(),
        })
    }

    /// The inspector that these settings ask for.
    pub fn inspector(&self, progress: &dyn Progress) -> Result<Inspector> {
        let rescoring =
            Rescoring::default().with_k(self.rscin_k.clone()).with_similarity(self.similarity);
        let mut builder = self.backbone.builder(&self.machine);
        if self.paper {
            builder = builder.paper();
        }
        builder
            .input(self.input)
            .tiles(self.tiles)
            .scoring(self.scoring.clone())
            .rescoring(Some(rescoring))
            .subsets(self.subsets)
            .seed(self.seed)
            .build_with(progress)
    }

    fn merge(args: RunArgs, mut yaml: Yaml) -> Result<Self> {
        let RunArgs { paths, images, regions, backbone, size, method, output, machine } = args;
        let mut notes: Vec<String> = yaml
            .unknown
            .iter()
            .map(|key| format!("config: `{key}` means nothing here and is ignored"))
            .collect();

        let source = source(paths, &images, &mut yaml)?;
        let of_dataset = matches!(source, Source::Dataset { .. });
        if !of_dataset && method.config.is_some() {
            notes.push(String::from("config: its data set is not used, because a PATH is given"));
        }
        let usual = if of_dataset { DATASET_BACKBONE } else { BUILT_IN_BACKBONE };
        let divide = images.divide_num.or(yaml.divide_num);
        let radius = method.match_where.and_then(MatchArg::radius);
        let whole = if of_dataset { VisTypeArg::SingleNorm } else { VisTypeArg::WholeNorm };
        let dot = if method.paper { SimilarityArg::Dot } else { SimilarityArg::Cosine };
        Ok(Config {
            skip_bad: images.skip_bad,
            known: match &images.references {
                Some(ReferencesArg::Images { path, each_other }) => {
                    Some(KnownImages { path: path.clone(), each_other: *each_other })
                }
                _ => None,
            },
            regions: RegionConfig::from(&regions.looked_at),
            tiles: regions::tiles(&regions)?,
            subsets: subsets(images.references.as_ref(), divide, of_dataset || method.paper)?,
            seed: images.seed.unwrap_or(0),
            input: input_size(size, yaml.img_resize, DEFAULT_IMAGE_SIZE)?,
            scoring: scoring(method.r_list.or(yaml.r_list.take()), method.max_table_memory)?
                .with_radius(radius),
            backbone: BackboneConfig::new(backbone, &mut yaml, usual)?,
            rscin_k: method.rscin_k,
            similarity: method.rscin_similarity.unwrap_or(dot).into(),
            paper: method.paper,
            decide: method.decide.unwrap_or_default(),
            fail_on_ng: method.fail_on_ng,
            output: OutputConfig {
                dir: output.output_dir.or(yaml.output_dir).unwrap_or_else(|| "output".into()),
                vis: output.vis.or(yaml.vis).unwrap_or(!of_dataset),
                report: output.report.unwrap_or(!of_dataset),
                by_each_map: output.vis_type.or(yaml.vis_type).unwrap_or(whole)
                    == VisTypeArg::SingleNorm,
                save_excel: output.save_excel.or(yaml.save_excel).unwrap_or(false),
                save_maps: output.save_maps,
                overlays: output.overlays,
                export: ExportFormat::ALL
                    .into_iter()
                    .filter(|format| output.export.contains(format))
                    .collect(),
                overwrite: output.overwrite,
            },
            machine: MachineConfig::new(machine, yaml.device)?,
            source,
            notes,
        })
    }
}

impl MachineConfig {
    /// Sets the number of CPU threads of this process; must come before any parallel work.
    pub fn set_threads(&self) -> Result<()> {
        let Some(threads) = self.threads else { return Ok(()) };
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|reason| {
            let expected = format!("a number that the system allows ({reason})");
            Error::invalid("--threads", threads, expected)
        })
    }

    /// An inspector in the making, to work on this machine.
    pub fn apply(&self, builder: InspectorBuilder) -> InspectorBuilder {
        builder
            .device(self.device.clone())
            .precision(self.precision)
            .memory_limit(self.memory_limit)
            .threads(self.threads.unwrap_or(0))
    }

    /// The machine options over a YAML file's device.
    pub fn new(args: MachineArgs, yaml_device: Option<String>) -> Result<Self> {
        let device_text = args.device.or(yaml_device).unwrap_or_else(|| "auto".into());
        if let Some(threads) = args.threads {
            at_least_one("--threads", threads)?;
        }
        Ok(MachineConfig {
            device: device_text.parse()?,
            device_text,
            precision: args.precision,
            memory_limit: args.max_vram.map(|bytes| bytes as u64),
            threads: args.threads,
            quiet: args.quiet,
            json: args.json,
        })
    }
}

impl From<DatasetArg> for DatasetKind {
    fn from(arg: DatasetArg) -> Self {
        match arg {
            DatasetArg::MvtecAd => DatasetKind::MvtecAd,
            DatasetArg::Visa => DatasetKind::Visa,
            DatasetArg::Btad => DatasetKind::Btad,
        }
    }
}

impl From<SimilarityArg> for Similarity {
    fn from(arg: SimilarityArg) -> Self {
        match arg {
            SimilarityArg::Cosine => Similarity::Cosine,
            SimilarityArg::Dot => Similarity::Dot,
        }
    }
}

/// The scoring options, checked as far as they can be without an image.
pub fn scoring(degrees: Option<Vec<usize>>, table_bytes: Option<usize>) -> Result<MutualScoring> {
    let mut scoring = MutualScoring::default().with_table_bytes(table_bytes);
    if let Some(degrees) = degrees {
        scoring = scoring.with_degrees(degrees);
    }
    // The largest grid there could be: what depends on the images is checked when they are known.
    scoring.check(1, Grid::square(1 << 16))?;
    Ok(scoring)
}

/// Images of a batch; 0, which is left to the device, where none is asked for.
pub fn batch_size(asked: Option<usize>) -> Result<usize> {
    asked.map_or(Ok(0), |images| at_least_one("--batch_size", images))
}

/// RsCIN's neighbourhood sizes, none of them 0.
pub fn neighbours(option: &str, k: Vec<usize>) -> Result<Vec<usize>> {
    if k.is_empty() || k.contains(&0) {
        return Err(Error::invalid(option, "0", "whole numbers from 1; 1 is the image itself"));
    }
    Ok(k)
}

/// Refuses a zero.
pub fn at_least_one(option: &str, value: usize) -> Result<usize> {
    if value == 0 { Err(Error::invalid(option, value, "at least 1")) } else { Ok(value) }
}

/// Refuses a result file that is there already, unless it may be replaced.
pub fn may_write(path: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && path.exists() {
        return Err(Error::invalid(
            "--output",
            format!("{}, which exists", path.display()),
            "a new file, or --overwrite to replace it",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
