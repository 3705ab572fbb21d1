//! What an inspector is asked for, as Python says it: names, paths and numbers, which are kept so that it can be pickled.

use std::path::PathBuf;

use musc::ImageSize;
use musc::backend::device::Precision;
use musc::inspect::{
    ActivationChoice, BankSettings, InputSize, Inspector, InspectorBuilder, Rescoring, Subsets,
    TileMatch, Tiles, USUAL_CACHE_BYTES, Weights,
};
use musc::model::Activation;
use musc::scoring::MutualScoring;
use musc::scoring::decision::DecisionRule;
use musc::scoring::rscin::Similarity;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};

use crate::embedded::weights_of;
use crate::error::{raise, wrong_type, wrong_value};

/// Every argument of `Inspector` under its name.
#[derive(Debug, Clone)]
pub struct Settings {
    pub backbone: Option<String>,
    pub weights: Option<PathBuf>,
    pub pretrained: String,
    pub activation: String,
    pub layers: Option<Vec<usize>>,
    pub device: String,
    pub threads: usize,
    pub precision: String,
    pub memory_limit: Option<u64>,
    pub batch_size: usize,
    pub cache: Option<PathBuf>,
    pub cache_bytes: Option<u64>,
    pub input: InputSize,
    pub tiles: Option<(usize, usize)>,
    pub tile_overlap: f64,
    pub match_tiles: String,
    pub scoring: MutualScoring,
    pub rescoring: bool,
    pub k: Option<Vec<usize>>,
    pub similarity: Option<String>,
    pub subsets: Subsets,
    pub seed: u64,
    pub paper: bool,
    pub decide: DecisionRule,
}

impl Settings {
    /// The builder that these settings ask for.
    pub fn builder(&self) -> PyResult<InspectorBuilder> {
        let weights = match (&self.weights, &self.backbone) {
            (Some(file), _) => Weights::File(file.clone()),
            (None, Some(name)) => weights_of(name),
            (None, None) => {
                let expected = "the name of a backbone, or weights, or both";
                return Err(wrong_value("backbone", "None, and no weights", expected));
            }
        };
        let mut builder = Inspector::builder()
            .weights(weights)
            .pretrained(&self.pretrained)
            .activation(activation(&self.activation)?)
            .device(self.device.parse().map_err(raise)?)
            .threads(self.threads)
            // Not named, which leaves it to the device, and with `paper` the CPU to f32.
            .precision(Some(self.precision()?).filter(|named| *named != Precision::Auto))
            .memory_limit(self.memory_limit)
            .batch_size(self.batch_size);
        if let Some(name) = &self.backbone {
            builder = builder.backbone(name);
        }
        if let Some(layers) = &self.layers {
            builder = builder.layers(layers.clone());
        }
        if let Some(folder) = &self.cache {
            builder = builder.cache(folder, self.cache_bytes.unwrap_or(USUAL_CACHE_BYTES));
        }
        // What is said beside it wins.
        if self.paper {
            builder = builder.paper();
        }
        if !self.paper || self.subsets != Subsets::Auto {
            builder = builder.subsets(self.subsets);
        }
        Ok(builder
            .input(self.input)
            .tiles(self.cut()?)
            .scoring(self.scoring.clone())
            .rescoring(self.rescoring_rule()?)
            .seed(self.seed))
    }

    fn precision(&self) -> PyResult<Precision> {
        self.precision.parse().map_err(raise)
    }

    fn cut(&self) -> PyResult<Option<Tiles>> {
        let Some((rows, columns)) = self.tiles else { return Ok(None) };
        let matching = one_of(
            "match_tiles",
            &self.match_tiles,
            [("same", TileMatch::Same), ("any", TileMatch::Any)],
        )?;
        let tiles =
            Tiles::new(rows, columns).and_then(|tiles| tiles.with_overlap(self.tile_overlap));
        Ok(Some(tiles.map_err(raise)?.with_matching(matching)))
    }

    fn rescoring_rule(&self) -> PyResult<Option<Rescoring>> {
        let usual = if self.paper { "dot" } else { "cosine" };
        let similarity = similarity(self.similarity.as_deref().unwrap_or(usual))?;
        let rule = Rescoring::default().with_k(self.k.clone()).with_similarity(similarity);
        Ok(self.rescoring.then_some(rule))
    }

    /// The arguments that make these settings.
    pub fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("backbone", &self.backbone)?;
        dict.set_item("weights", self.weights.as_deref())?;
        dict.set_item("pretrained", &self.pretrained)?;
        dict.set_item("activation", &self.activation)?;
        dict.set_item("layers", &self.layers)?;
        dict.set_item("device", &self.device)?;
        dict.set_item("threads", self.threads)?;
        dict.set_item("precision", &self.precision)?;
        dict.set_item("memory_limit", self.memory_limit)?;
        dict.set_item("batch_size", self.batch_size)?;
        dict.set_item("cache", self.cache.as_deref())?;
        dict.set_item("cache_bytes", self.cache_bytes)?;
        set_input(&dict, self.input)?;
        dict.set_item("tiles", self.tiles)?;
        dict.set_item("tile_overlap", self.tile_overlap)?;
        dict.set_item("match_tiles", &self.match_tiles)?;
        set_scoring(&dict, &self.scoring)?;
        dict.set_item("table_bytes", self.scoring.table_bytes)?;
        dict.set_item("rescoring", self.rescoring)?;
        dict.set_item("k", &self.k)?;
        dict.set_item("similarity", &self.similarity)?;
        match self.subsets {
            Subsets::References(references) => dict.set_item("subsets", references)?,
            Subsets::All => dict.set_item("subsets", "all")?,
            _ => dict.set_item("subsets", "auto")?,
        }
        let divide = if let Subsets::Divide(parts) = self.subsets { Some(parts) } else { None };
        dict.set_item("divide", divide)?;
        dict.set_item("seed", self.seed)?;
        dict.set_item("paper", self.paper)?;
        dict.set_item("decide", self.decide.to_string())?;
        Ok(dict)
    }
}

/// The arguments with which an inspector fits a bank.
pub fn of_bank<'py>(py: Python<'py>, bank: &BankSettings) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let known = musc::model::backbone(&bank.backbone).is_ok();
    dict.set_item("backbone", known.then_some(&bank.backbone))?;
    dict.set_item("pretrained", &bank.pretrained)?;
    let activation = match bank.activation {
        ActivationChoice::Exactly(activation) => activation.name(),
        _ => "official",
    };
    dict.set_item("activation", activation)?;
    dict.set_item("layers", &bank.layers)?;
    set_input(&dict, bank.asked_input)?;
    set_scoring(&dict, &bank.scoring)?;
    dict.set_item("rescoring", bank.rescoring.is_some())?;
    let rescoring = bank.rescoring.as_ref();
    dict.set_item("k", rescoring.and_then(|rescoring| rescoring.k.clone()))?;
    let similarity = rescoring.map(|rescoring| match rescoring.similarity {
        Similarity::Dot => "dot",
        _ => "cosine",
    });
    dict.set_item("similarity", similarity)?;
    dict.set_item("paper", bank.paper)?;
    dict.set_item("decide", bank.rule.to_string())?;
    Ok(dict)
}

fn set_input(dict: &Bound<'_, PyDict>, input: InputSize) -> PyResult<()> {
    let (size, keep_aspect, pad) = match input {
        InputSize::Exactly(size) => (Some((size.height, size.width)), None, false),
        InputSize::KeepAspect { longest, pad } => (None, Some(longest), pad),
        _ => (None, None, false),
    };
    dict.set_item("size", size)?;
    dict.set_item("keep_aspect", keep_aspect)?;
    dict.set_item("pad", pad)
}

fn set_scoring(dict: &Bound<'_, PyDict>, scoring: &MutualScoring) -> PyResult<()> {
    dict.set_item("r", &scoring.degrees)?;
    dict.set_item("interval", scoring.interval)?;
    dict.set_item("radius", scoring.radius)
}

/// One of some words.
fn one_of<T: Copy, const N: usize>(what: &str, word: &str, known: [(&str, T); N]) -> PyResult<T> {
    known.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        wrong_value(what, format!("\"{word}\""), &names.join(" or "))
    })
}

fn activation(word: &str) -> PyResult<ActivationChoice> {
    one_of(
        "activation",
        word,
        [
            ("official", ActivationChoice::Official),
            ("gelu", ActivationChoice::Exactly(Activation::Gelu)),
            ("quick_gelu", ActivationChoice::Exactly(Activation::QuickGelu)),
        ],
    )
}

/// How class tokens are compared by its name.
pub fn similarity(word: &str) -> PyResult<Similarity> {
    one_of("similarity", word, [("cosine", Similarity::Cosine), ("dot", Similarity::Dot)])
}

/// A whole number that is not negative.
pub fn count<T: TryFrom<i64>>(what: &str, number: i64) -> PyResult<T> {
    T::try_from(number).map_err(|_| wrong_value(what, number, "a whole number, at least 0"))
}

/// Such numbers.
pub fn counts(what: &str, numbers: &[i64]) -> PyResult<Vec<usize>> {
    numbers.iter().map(|&number| count(what, number)).collect()
}

/// The size at which images go through the backbone.
pub fn input(
    size: Option<&Bound<'_, PyAny>>,
    keep_aspect: Option<i64>,
    pad: bool,
    usual: usize,
) -> PyResult<InputSize> {
    const SIZE: &str = "a side in pixels, (height, width), or a text such as \"448x672\"";
    if let Some(longest) = keep_aspect {
        if let Some(size) = size {
            let found = format!("{} beside keep_aspect={longest}", size.repr()?);
            return Err(wrong_value("size", found, "one of both"));
        }
        return match count("keep_aspect", longest)? {
            0 => Err(wrong_value("keep_aspect", 0, "the longer side in pixels, at least 1")),
            longest => Ok(InputSize::KeepAspect { longest, pad }),
        };
    }
    if pad {
        return Err(wrong_value("pad", "True without keep_aspect", "keep_aspect=S beside it"));
    }
    let Some(size) = size else { return Ok(InputSize::Exactly(ImageSize::square(usual))) };
    let sides = |height: i64, width: i64| match (height, width) {
        (1.., 1..) => Ok(ImageSize::new(count("size", height)?, count("size", width)?)),
        _ => Err(wrong_value("size", size, SIZE)),
    };
    let exactly = if let Ok(text) = size.cast::<PyString>() {
        text.to_string_lossy().parse().map_err(raise)?
    } else if let Ok(side) = size.extract::<i64>() {
        sides(side, side)?
    } else if let Ok((height, width)) = size.extract::<(i64, i64)>() {
        sides(height, width)?
    } else {
        return Err(wrong_type("size", size.repr()?, SIZE));
    };
    Ok(InputSize::Exactly(exactly))
}

/// Rows and columns of tiles.
pub fn tiles(asked: Option<&Bound<'_, PyAny>>) -> PyResult<Option<(usize, usize)>> {
    const TILES: &str = "(rows, columns), or a text such as \"3x4\"";
    let Some(asked) = asked else { return Ok(None) };
    if let Ok(text) = asked.cast::<PyString>() {
        let grid: musc::Grid =
            text.to_string_lossy().parse().map_err(|_| wrong_value("tiles", text, TILES))?;
        return Ok(Some((grid.rows, grid.columns)));
    }
    match asked.extract::<(i64, i64)>() {
        Ok((rows, columns)) => Ok(Some((count("tiles", rows)?, count("tiles", columns)?))),
        Err(_) => Err(wrong_type("tiles", asked.repr()?, TILES)),
    }
}

/// Whom each image is compared with.
pub fn subsets(asked: Option<&Bound<'_, PyAny>>, divide: Option<i64>) -> PyResult<Subsets> {
    const SUBSETS: &str = "\"auto\", \"all\", or about how many others each image sees";
    let asked = match asked {
        None => Subsets::Auto,
        Some(asked) => match asked.cast::<PyString>() {
            Ok(word) => one_of(
                "subsets",
                &word.to_string_lossy(),
                [("auto", Subsets::Auto), ("all", Subsets::All)],
            )?,
            Err(_) => match asked.extract() {
                Ok(references) => Subsets::References(count("subsets", references)?),
                Err(_) => return Err(wrong_type("subsets", asked.repr()?, SUBSETS)),
            },
        },
    };
    match (divide, asked) {
        (None, asked) => Ok(asked),
        (Some(parts), Subsets::Auto) => Ok(Subsets::Divide(count("divide", parts)?)),
        (Some(parts), _) => {
            Err(wrong_value("divide", format!("{parts} beside subsets"), "one of both"))
        }
    }
}

/// A rule that decides, from its text or a threshold.
pub fn rule(asked: Option<&Bound<'_, PyAny>>) -> PyResult<DecisionRule> {
    const RULE: &str = "a rule's text, such as \"gap\" or \"share:0.1\", or a threshold";
    let Some(asked) = asked else { return Ok(DecisionRule::default()) };
    if let Ok(text) = asked.cast::<PyString>() {
        return text.to_string_lossy().parse().map_err(raise);
    }
    match asked.extract::<f64>() {
        Ok(value) if value.is_finite() && !asked.is_instance_of::<PyBool>() => {
            Ok(DecisionRule::Value(value))
        }
        Ok(value) => Err(wrong_value("decide", value, RULE)),
        Err(_) => Err(wrong_type("decide", asked.repr()?, RULE)),
    }
}

/// The options of mutual scoring.
pub fn scoring(
    r: &[i64],
    interval: (f64, f64),
    radius: Option<i64>,
    table_bytes: Option<i64>,
) -> PyResult<MutualScoring> {
    let radius = radius.map(|radius| count("radius", radius)).transpose()?;
    let bytes = table_bytes.map(|bytes| count("table_bytes", bytes)).transpose()?;
    Ok(MutualScoring::default()
        .with_degrees(counts("r", r)?)
        .with_interval(interval.0, interval.1)
        .with_radius(radius)
        .with_table_bytes(bytes))
}
