//! What a bank was made with.

use crate::inspect::{ActivationChoice, InputSize, Inspector, InspectorBuilder, Rescoring};
use crate::model::{Activation, backbone};
use crate::scoring::MutualScoring;
use crate::scoring::decision::DecisionRule;
use crate::scoring::rscin::Similarity;
use crate::{Error, ImageSize, Result};

/// What a bank was made with, and what must be equal where images are compared with it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BankSettings {
    /// The backbone's name.
    pub backbone: String,
    /// The SHA-256 of its weights, hexadecimal.
    pub weights_sha256: String,
    /// The weights' training set.
    pub pretrained: String,
    /// The activation of the MLPs as it was asked for.
    pub activation: ActivationChoice,
    /// The feature layers as they were asked for.
    pub layers: Vec<usize>,
    /// The blocks that were read for them.
    pub blocks: Vec<usize>,
    /// The size at which the images went through the backbone.
    pub input: ImageSize,
    /// How that size came about.
    pub asked_input: InputSize,
    /// Mutual scoring; its memory limit is not kept.
    pub scoring: MutualScoring,
    /// RsCIN, with its k; `None` where there is none.
    pub rescoring: Option<Rescoring>,
    /// The authors' quirks.
    pub paper: bool,
    /// The rule that the threshold comes from.
    pub rule: DecisionRule,
    /// The number formats of the backbone's products, of every device that made some of the tokens, each once: `f32`, `f16` or
    /// `bf16`. Empty for a bank that does not say.
    pub features: Vec<String>,
}

impl BankSettings {
    pub(super) fn of(
        inspector: &Inspector,
        input: ImageSize,
        k: &[usize],
        rule: DecisionRule,
    ) -> Result<Self> {
        let backbone = &inspector.backbone;
        let settings = &inspector.settings;
        let rescoring = settings.rescoring.clone();
        Ok(BankSettings {
            backbone: backbone.name().to_string(),
            weights_sha256: backbone.weights_sha256()?,
            pretrained: backbone.pretrained().to_string(),
            activation: backbone.asked_activation(),
            layers: backbone.layers().to_vec(),
            blocks: backbone.blocks.clone(),
            input,
            asked_input: settings.input,
            scoring: settings.scoring.clone().with_table_bytes(None),
            rescoring: rescoring.map(|asked| {
                let k = asked.k.clone().unwrap_or_else(|| k.to_vec());
                asked.with_k(Some(k))
            }),
            paper: settings.paper,
            rule,
            features: vec![inspector.formats().features.to_string()],
        })
    }

    /// With the formats of other tokens besides.
    pub(super) fn add_features(&mut self, others: &[String]) {
        for other in others {
            if !self.features.contains(other) {
                self.features.push(other.clone());
            }
        }
    }

    /// An inspector in the making with these settings; where the weights are found and the device are left to say. Weights of no
    /// known backbone must be named.
    pub fn builder(&self) -> InspectorBuilder {
        let mut builder = Inspector::builder();
        if backbone(&self.backbone).is_ok() {
            builder = builder.backbone(&self.backbone);
        }
        builder = builder
            .pretrained(&self.pretrained)
            .activation(self.activation)
            .layers(self.layers.clone());
        if self.paper {
            builder = builder.paper();
        }
        builder
            .input(self.asked_input)
            .scoring(self.scoring.clone())
            .rescoring(self.rescoring.clone())
    }

    /// What must be equal for tokens to be comparable and thresholds to mean the same, by name.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let scoring = &self.scoring;
        vec![
            ("backbone", self.backbone.clone()),
            ("weights with SHA-256", self.weights_sha256.clone()),
            ("activation", activation_name(self.activation).to_string()),
            ("layers", format!("{:?}", self.blocks)),
            ("size", self.input.to_string()),
            ("padding", self.pads().to_string()),
            ("aggregation degrees", format!("{:?}", scoring.degrees)),
            ("interval", format!("{:?}", scoring.interval)),
            (
                "matching",
                scoring
                    .radius
                    .map_or_else(|| "anywhere".into(), |radius| format!("within {radius}")),
            ),
        ]
    }

    pub(in crate::inspect) fn pads(&self) -> bool {
        matches!(self.asked_input, InputSize::KeepAspect { pad: true, .. })
    }

    /// Refuses another setting, by everything that differs.
    pub(in crate::inspect) fn check_equal(&self, other: &BankSettings, whose: &str) -> Result<()> {
        refuse_differences(whose, other.facts(), self.facts(), "the bank has")
    }
}

/// Refuses what is not as it should be, by everything that differs; both have the same facts in the same order.
pub(in crate::inspect) fn refuse_differences(
    whose: &str,
    facts: Vec<(&'static str, String)>,
    wanted: Vec<(&'static str, String)>,
    who_has: &str,
) -> Result<()> {
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for ((what, one), (_, two)) in facts.into_iter().zip(wanted) {
        if one != two {
            found.push(format!("{what} {one}"));
            expected.push(format!("{what} {two}"));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let expected = format!("{}, as {who_has}", expected.join(", "));
    Err(Error::invalid(format!("setting of the {whose}"), found.join(", "), expected))
}

/// An activation's name, as banks have it.
pub(in crate::inspect) fn activation_name(activation: ActivationChoice) -> &'static str {
    match activation {
        ActivationChoice::Official => "official",
        ActivationChoice::Exactly(activation) => activation.name(),
    }
}

/// The activation of a name.
pub(in crate::inspect) fn activation_named(name: &str) -> Option<ActivationChoice> {
    match name {
        "official" => Some(ActivationChoice::Official),
        name => [Activation::Gelu, Activation::QuickGelu]
            .into_iter()
            .find(|activation| activation.name() == name)
            .map(ActivationChoice::Exactly),
    }
}

/// How class tokens are compared, by name; banks have no other.
pub(in crate::inspect) const SIMILARITIES: [(Similarity, &str); 2] =
    [(Similarity::Cosine, "cosine"), (Similarity::Dot, "dot")];
