//! References that queries are compared with again and again.

use super::{Cuda, Features};
use crate::Result;
use crate::backend::{Backend, FeatureSet};
use crate::scoring::MutualScoring;

/// References on a card, and the scoring they are for. A card makes norms as fast as it reads tokens: nothing is kept of them.
#[derive(Debug)]
pub struct Ready {
    pub(super) features: Features,
    pub(super) scoring: MutualScoring,
}

impl Ready {
    /// Puts an image in the place of a reference: by way of the host, all tokens down and up again.
    pub(super) fn replace(
        &mut self,
        cuda: &Cuda,
        at: usize,
        (features, image): (&Features, usize),
    ) -> Result<()> {
        let mut host = self.features.to_host()?;
        host.replace(at, &features.to_host()?, image)?;
        self.features = cuda.upload(host)?;
        Ok(())
    }
}
