"""Zero-shot industrial anomaly detection by mutual scoring (MuSc).

Give it images of one kind of product, unlabelled; it finds the defective ones, and where the defect is:

    import musc

    inspection = musc.Inspector().inspect("photos")
    print(inspection.to_pandas())

`Inspector` is the whole job, `mutual_scores` and the functions beside it are its steps on arrays, `musc.metrics` has the figures.
`Scorer` and `musc.ray` are for many workers.
"""

from musc import metrics
from musc._musc import (
    Bank,
    Error,
    Inspection,
    Inspector,
    Region,
    __version__,
    anomaly_maps,
    backbones,
    built_in_weights,
    download_weights,
    mutual_scores,
    rscin,
    threshold,
)
from musc.scorer import Scorer

__all__ = [
    "Bank",
    "Error",
    "Inspection",
    "Inspector",
    "Region",
    "Scorer",
    "__version__",
    "anomaly_maps",
    "backbones",
    "built_in_weights",
    "download_weights",
    "metrics",
    "mutual_scores",
    "rscin",
    "threshold",
]
