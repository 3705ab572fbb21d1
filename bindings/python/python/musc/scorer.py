"""New images against a bank, batch by batch: the shape of a worker that Ray, Dask and Spark have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musc._musc import Bank, Inspector

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from numpy.typing import NDArray

__all__ = ["Scorer"]


class Scorer:
    """Scores batches of paths against a bank.

    Made of a path and of settings, it travels to workers as these; each worker loads the backbone and the bank once.

        ds = ray.data.from_items([{"path": path} for path in paths])
        ds = ds.map_batches(musc.Scorer, fn_constructor_args=("part.bank.safetensors",), concurrency=4, batch_size=64)

    bank: the path of a bank (`Bank.save`, `musc-run bank build`). device, threads, weights and cache: this worker's, see
    `Inspector`; everything else is the bank's. column: the name of the paths. Paths, not pixels: files are read and decoded
    here, in parallel.
    """

    def __init__(self, bank: str | PathLike[str], *, column: str = "path", **settings: Any) -> None:
        self.bank = Bank.open(bank)
        self.inspector = Inspector(**{**self.bank.settings, **settings})
        self.column = column
        self._made_of = (bank, column, settings)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The batch's columns and, for each image: score, raw_score (float64, NaN for one that cannot be read), threshold
        (float64), decision ("OK", "NG", or "" for one that cannot be read) and error (what was wrong, or "")."""
        # Not with the package, which is quick to import.
        import numpy as np

        if self.column not in batch:
            raise ValueError(f"batch: found the columns {sorted(batch)}, expected one called {self.column!r}")
        paths = [str(path) for path in batch[self.column]]
        columns = {name: np.asarray(values) for name, values in batch.items()}
        scores, raw_scores = np.full(len(paths), np.nan), np.full(len(paths), np.nan)
        decisions, errors = np.full(len(paths), "", dtype=object), np.full(len(paths), "", dtype=object)
        # The same file may be asked for twice; it is scored once.
        places: dict[str, list[int]] = {}
        for place, path in enumerate(paths):
            places.setdefault(path, []).append(place)
        if places:
            # In an order of their own, whatever they are called.
            found = self.inspector.predict(list(places), self.bank, skip_bad=True)
            for at, name in enumerate(found.names):
                for place in places[name]:
                    scores[place], raw_scores[place] = found.scores[at], found.raw_scores[at]
                    decisions[place] = found.decisions[at]
            for file, reason in found.skipped:
                for place in places[str(file)]:
                    errors[place] = reason
        return {
            **columns,
            "score": scores,
            "raw_score": raw_scores,
            "threshold": np.full(len(paths), self.bank.threshold),
            "decision": decisions,
            "error": errors,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        bank, column, settings = self._made_of
        return _scorer, (bank, column, settings)


def _scorer(bank: str | PathLike[str], column: str, settings: dict[str, Any]) -> Scorer:
    return Scorer(bank, column=column, **settings)
