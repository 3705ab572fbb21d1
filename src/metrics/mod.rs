//! The seven figures of a class: AUROC, F1-max and AP of its images and of its pixels, and AUPRO.
//!
//! Definitions are those of scikit-learn, ties included; `f64` throughout, counts as integers. A figure that has no
//! meaning (one class is missing) is `None` and is left out of a mean. Knows nothing of files or images.

mod aupro;
mod curve;
mod image_curves;
mod image_level;
mod pixel_level;
pub(crate) mod regions;

pub use aupro::{AUPRO_MAX_FPR, AUPRO_THRESHOLDS};
pub use image_curves::{ImageCurves, image_curves};
pub use image_level::image_metrics;
pub use pixel_level::{pixel_metrics, pixel_metrics_within};

/// How well image scores separate defective from normal images. Each in 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ImageMetrics {
    /// Area under the ROC curve: the share of (defective, normal) pairs in the right order, a tie counting half.
    pub auroc: Option<f64>,
    /// The largest F1 over all thresholds.
    pub f1_max: Option<f64>,
    /// Average precision: the step-wise area under the precision-recall curve.
    pub ap: Option<f64>,
}

impl ImageMetrics {
    /// As the authors' program gives them: 0 in place of a figure without meaning.
    pub fn or_zero(self) -> Self {
        let or_zero = |figure: Option<f64>| Some(figure.unwrap_or(0.0));
        Self { auroc: or_zero(self.auroc), f1_max: or_zero(self.f1_max), ap: or_zero(self.ap) }
    }
}

/// How well anomaly maps separate defective from normal pixels. Each in 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PixelMetrics {
    /// Area under the ROC curve over all pixels of the class.
    pub auroc: Option<f64>,
    /// The largest F1 over all thresholds.
    pub f1_max: Option<f64>,
    /// Average precision: the step-wise area under the precision-recall curve.
    pub ap: Option<f64>,
    /// Area under the per-region overlap curve up to a false positive rate of 0.3.
    pub aupro: Option<f64>,
}

impl PixelMetrics {
    /// As the authors' program gives them: 0 in place of each figure where a class of pixels is missing. AUPRO alone without
    /// meaning stays `None`: there their program gives NaN or stops.
    pub fn or_zero(self) -> Self {
        match self {
            Self { auroc: None, f1_max: None, ap: None, aupro: None } => {
                let zero = Some(0.0);
                Self { auroc: zero, f1_max: zero, ap: zero, aupro: zero }
            }
            some => some,
        }
    }
}

/// The figures of one class, or their mean over classes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassMetrics {
    /// The class's name; `mean` for a mean.
    pub class: String,
    /// Image figures, from the scores after RsCIN.
    pub image: ImageMetrics,
    /// Image AUROC of the scores before RsCIN (the maps' maxima).
    pub image_auroc_raw: Option<f64>,
    /// Pixel figures.
    pub pixel: PixelMetrics,
}

/// The mean of each figure over the classes that have it, named `mean`; `None` where no class has it.
pub fn merge_mean(classes: &[ClassMetrics]) -> ClassMetrics {
    let mean = |figure: &dyn Fn(&ClassMetrics) -> Option<f64>| -> Option<f64> {
        let (sum, count) = classes
            .iter()
            .filter_map(figure)
            .fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
        (count > 0).then(|| sum / count as f64)
    };
    ClassMetrics {
        class: String::from("mean"),
        image: ImageMetrics {
            auroc: mean(&|class| class.image.auroc),
            f1_max: mean(&|class| class.image.f1_max),
            ap: mean(&|class| class.image.ap),
        },
        image_auroc_raw: mean(&|class| class.image_auroc_raw),
        pixel: PixelMetrics {
            auroc: mean(&|class| class.pixel.auroc),
            f1_max: mean(&|class| class.pixel.f1_max),
            ap: mean(&|class| class.pixel.ap),
            aupro: mean(&|class| class.pixel.aupro),
        },
    }
}

#[cfg(test)]
mod tests;
