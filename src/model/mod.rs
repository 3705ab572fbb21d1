//! model.

/// The activation of a backbone's MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x·Φ(x), with the error function.
    Gelu,
    /// x·σ(1.702·x).
    QuickGelu,
}

/// A vision transformer's weights.
#[derive(Debug)]
pub struct Vit {}
