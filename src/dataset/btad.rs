//! BTAD (Mishra et al., "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization",
//! ISIE 2021).

use super::DatasetKind;
use super::layout::Layout;

/// The classes, sorted by name.
pub(super) const CLASSES: [&str; 3] = ["01", "02", "03"];

/// `CLASS/test/ko/0000.bmp` has its mask in `CLASS/ground_truth/ko/0000.png` (or `.bmp`).
pub(super) const LAYOUT: Layout =
    Layout { kind: DatasetKind::Btad, normal: "ok", mask_suffixes: &["", "_mask"] };
