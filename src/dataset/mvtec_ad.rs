//! MVTec AD (Bergmann et al., "MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection",
//! CVPR 2019).

use super::DatasetKind;
use super::layout::Layout;

/// The classes, sorted by name.
pub(super) const CLASSES: [&str; 15] = [
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
];

/// `CLASS/test/TYPE/000.png` has its mask in `CLASS/ground_truth/TYPE/000_mask.png`.
pub(super) const LAYOUT: Layout =
    Layout { kind: DatasetKind::MvtecAd, normal: "good", mask_suffixes: &["_mask", ""] };
