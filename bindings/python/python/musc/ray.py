"""One inspection by the workers of a Ray cluster: subsets as tasks. Needs `pip install ray`; `musc` alone does not.

    import musc.ray

    inspection = musc.ray.inspect("/data/photos", subsets=200)

New images against a bank are `musc.Scorer` in `ray.data.Dataset.map_batches`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from musc._musc import Inspection, Inspector
from musc.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

__all__ = ["Scorer", "inspect"]


def inspect(
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    inspector: Inspector | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    max_retries: int = 3,
    names: list[str] | None = None,
    labels: str | PathLike[str] | None = None,
    roi: str | PathLike[str] | None = None,
    border: int = 0,
    skip_bad: bool = False,
    **settings: Any,
) -> Inspection:
    """Scores images on a Ray cluster: what `Inspector(**settings).inspect(images, …)` gives, to the last bit.

    images: a folder, a pattern, a list file, or paths, which all workers see. inspector, or the settings of one (`size`,
    `subsets`, …): it scores in subsets, from 301 images on or as `subsets` says; each subset is a task, which needs nothing of
    the others. num_cpus, num_gpus, max_retries: of a task, as Ray has them; the inspector's threads are num_cpus where it does not
    say. Connects to the cluster that Ray is told of (`ray.init`, RAY_ADDRESS), or starts one on this machine.

    A task that fails for an image that cannot be read, or a setting that does not fit, is not tried again; its error is
    raised here. One whose worker dies is, max_retries times.
    """
    if inspector is not None and settings:
        raise ValueError(f"settings: found {sorted(settings)} beside an inspector, expected one of both")
    own = dict(inspector.settings) if inspector is not None else settings
    if not own.get("threads"):
        own["threads"] = max(1, int(num_cpus))
    if not isinstance(images, (str, bytes)) and not hasattr(images, "__fspath__"):
        images = [str(path) for path in images]
    about: dict[str, Any] = {"names": names, "roi": roi, "border": border, "skip_bad": skip_bad}
    # The scores come together on this machine, whatever the workers have.
    here = Inspector(**{**own, "device": "cpu", "threads": 0})
    count = here.parts(images, **about)
    work = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=max_retries)(_part)
    shared = ray.put((own, images, about))
    tasks = [work.options(name=f"musc part {part} of {count}").remote(shared, part) for part in range(count)]
    try:
        parts = ray.get(tasks)
    except ray.exceptions.RayTaskError as error:
        _cancel(tasks)
        # The worker's own error, by its own class.
        raise error.cause from error
    except BaseException:
        _cancel(tasks)
        raise
    return here.join(images, parts, labels=labels, **about)


def _cancel(tasks: list[Any]) -> None:
    for task in tasks:
        ray.cancel(task, force=False)


def _part(shared: tuple[dict[str, Any], Any, dict[str, Any]], part: int) -> bytes:
    settings, images, about = shared
    return _inspector(settings).part(images, part, **about)


_held: list[tuple[dict[str, Any], Inspector]] = []


def _inspector(settings: dict[str, Any]) -> Inspector:
    """The inspector of a worker's process, made for its first task and kept until other settings are asked for."""
    if not _held or _held[0][0] != settings:
        # The one of other settings goes first: two would take twice the memory.
        _held.clear()
        _held.append((settings, Inspector(**settings)))
    return _held[0][1]
