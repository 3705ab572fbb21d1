"""How well scores and maps tell defective from normal: the definitions of scikit-learn, and AUPRO.

A figure that has no meaning, because a class is missing, is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from musc import _musc

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["ImageMetrics", "PixelMetrics", "image_level", "pixel_level"]


class ImageMetrics(NamedTuple):
    """How well image scores separate defective from normal images, each from 0 to 1."""

    auroc: float | None
    """Area under the ROC curve."""
    f1_max: float | None
    """The largest F1 over all thresholds."""
    ap: float | None
    """Average precision: the step-wise area under the precision-recall curve."""


class PixelMetrics(NamedTuple):
    """How well anomaly maps separate defective from normal pixels, each from 0 to 1."""

    auroc: float | None
    """Area under the ROC curve over all pixels."""
    f1_max: float | None
    """The largest F1 over all thresholds."""
    ap: float | None
    """Average precision: the step-wise area under the precision-recall curve."""
    aupro: float | None
    """Area under the per-region overlap curve up to a false positive rate of 0.3."""


def image_level(labels: ArrayLike, scores: ArrayLike) -> ImageMetrics:
    """AUROC, F1-max and AP of image scores.

    labels: [N], bool, or 0 (normal) and 1 (defective). scores: [N], higher where more anomalous.
    """
    return ImageMetrics(*_musc.image_level(labels, scores))


def pixel_level(masks: ArrayLike, maps: ArrayLike, inside: ArrayLike | None = None) -> PixelMetrics:
    """AUROC, F1-max, AP and AUPRO over the pixels of N images.

    masks: [N, h, w], not 0 where a pixel is defective. maps: float32 or float64 [N, h, w], higher where more anomalous.
    inside: bool [N, h, w], the pixels that count; None for all.
    """
    return PixelMetrics(*_musc.pixel_level(masks, maps, inside))
