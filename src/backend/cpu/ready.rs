//! References that queries are compared with again and again: what every comparison makes of them is made once.

use pulp::Arch;

use super::centred::Centred;
use crate::Result;
use crate::backend::HostFeatures;
use crate::scoring::MutualScoring;
use crate::simd::Way;

/// References on the processor, with their panels and norms, of all layers: layers·M·L·(C + R) f32. The tokens themselves are
/// let go, unless patches are compared within a radius, which has no use for panels.
#[derive(Debug)]
pub struct Ready {
    features: HostFeatures,
    scoring: MutualScoring,
    way: Way,
    /// One a layer; none where there is a radius.
    layers: Vec<Centred>,
}

impl Ready {
    /// Makes references ready for this scoring.
    ///
    /// # Errors
    /// Sizes that do not fit together, or values that are not finite.
    pub(super) fn new(references: HostFeatures, scoring: &MutualScoring, way: Way) -> Result<Self> {
        references.check()?;
        let mut features = references.with_known_content();
        let mut layers = Vec::new();
        if scoring.radius.is_none() {
            for layer in 0..features.tokens.len() {
                let mut centred = Centred::new(&features, &scoring.degrees, way).with_panels();
                centred.fill(&features, layer, way.arch);
                // A layer at a time, so that tokens and panels are not both here in full.
                layers.push(centred);
                features.tokens[layer] = Vec::new();
            }
        }
        Ok(Ready { features, scoring: scoring.clone(), way, layers })
    }

    /// See [`Backend::replace`](crate::backend::Backend::replace).
    pub(super) fn replace(
        &mut self,
        at: usize,
        (features, image): (&HostFeatures, usize),
        arch: Arch,
    ) -> Result<()> {
        self.features.replace(at, features, image)?;
        for (layer, centred) in self.layers.iter_mut().enumerate() {
            centred.replace(at, (features, image), layer, arch);
        }
        Ok(())
    }

    /// What is known of the references; their tokens only where there is a radius.
    pub(super) fn features(&self) -> &HostFeatures {
        &self.features
    }

    /// The scoring they are ready for.
    pub(super) fn scoring(&self) -> &MutualScoring {
        &self.scoring
    }

    /// How they are multiplied, whoever compares with them.
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Their layers, where they are compared by products.
    pub(super) fn layers(&self) -> Option<&[Centred]> {
        self.scoring.radius.is_none().then_some(&self.layers[..])
    }
}
