//! The two types of a map's values.

use std::cmp::Ordering;
use std::fmt::Display;
use std::ops::{Add, Div, Sub};

/// A type of floating-point number that anomaly maps can hold: `f32`, or `f64` where figures are to equal the authors'
/// program's, which keeps its maps in f64.
pub trait Real:
    Copy
    + PartialOrd
    + Send
    + Sync
    + Display
    + Default
    + Into<f64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Div<Output = Self>
{
    /// Positive infinity.
    const INFINITY: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;

    /// The nearest value to `value`.
    fn from_f64(value: f64) -> Self;
    /// The total order of IEEE 754.
    fn total_cmp(&self, other: &Self) -> Ordering;
    /// The smaller one; the other one where one is NaN.
    fn min(self, other: Self) -> Self;
    /// The larger one; the other one where one is NaN.
    fn max(self, other: Self) -> Self;
}

macro_rules! real {
    ($type:ty) => {
        impl Real for $type {
            const INFINITY: Self = <$type>::INFINITY;
            const NEG_INFINITY: Self = <$type>::NEG_INFINITY;

            fn from_f64(value: f64) -> Self {
                value as $type
            }
            fn total_cmp(&self, other: &Self) -> Ordering {
                <$type>::total_cmp(self, other)
            }
            fn min(self, other: Self) -> Self {
                <$type>::min(self, other)
            }
            fn max(self, other: Self) -> Self {
                <$type>::max(self, other)
            }
        }
    };
}

real!(f32);
real!(f64);
