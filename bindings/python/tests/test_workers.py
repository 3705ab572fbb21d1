"""One inspection by many workers: parts in any order, Ray's tasks, Ray Data and Dask; to the last bit what one process gives."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import musc
import numpy as np
import pytest
from conftest import SIZE, MuscRun, Picture, cloth, equal_to_run, write_png

SETTINGS: dict[str, Any] = {"size": SIZE, "device": "cpu", "subsets": 6, "threads": 1}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for number in range(31):
        (root / str(number % 3)).mkdir(exist_ok=True)
        write_png(root / str(number % 3) / f"{number:02}.png", cloth(number))
    return root


def same(found: musc.Inspection, known: musc.Inspection) -> None:
    assert found.names == known.names
    for name in ("scores", "raw_scores", "patch_scores", "class_tokens", "thresholds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(known, name), strict=True)
    assert found.decisions == known.decisions and found.subsets == known.subsets
    assert found.skipped == known.skipped


def test_parts_join_to_one_inspection(many: Path, pictures: list[Picture], musc_run: MuscRun) -> None:
    inspector = musc.Inspector(**SETTINGS)
    known = inspector.inspect(many, border=3)
    count = inspector.parts(many, border=3)
    assert count == known.subsets == 5
    # Each by an inspector of its own, as in another process.
    made = [musc.Inspector(**SETTINGS).part(many, part, border=3) for part in (3, 0, 4, 2, 1)]
    same(inspector.join(many, made, border=3), known)
    run = musc_run(many, "--img-resize", SIZE, "--references", 6, "--ignore-border", 3)
    equal_to_run(inspector.join(many, made, border=3), run)
    # Frames have no files, and parts all the same.
    small = musc.Inspector(size=SIZE, device="cpu", subsets=4)
    parts = [small.part(pictures, part) for part in range(small.parts(pictures))]
    same(small.join(pictures, parts), small.inspect(pictures))


def test_parts_that_do_not_fit_are_refused(many: Path) -> None:
    inspector = musc.Inspector(**SETTINGS)
    parts = [inspector.part(many, part) for part in range(5)]
    with pytest.raises(ValueError, match="6 of 31 images in none"):
        inspector.join(many, parts[:-1])
    with pytest.raises(ValueError, match="one of no other part"):
        inspector.join(many, [*parts, parts[0]])
    with pytest.raises(ValueError, match="no part of this job"):
        musc.Inspector(**{**SETTINGS, "r": (1,)}).join(many, parts)
    with pytest.raises(ValueError, match="no part of this job"):
        inspector.join(sorted(many.glob("*/*.png"))[1:], parts)
    with pytest.raises(ValueError, match="not those that were written"):
        inspector.join(many, [*parts[:-1], parts[-1][:-1] + bytes([parts[-1][-1] ^ 1])])
    with pytest.raises(ValueError, match="below 5"):
        inspector.part(many, 5)
    with pytest.raises(ValueError, match="part"):
        inspector.part(many, -1)
    with pytest.raises(TypeError):
        inspector.join(many, ["text"])  # type: ignore[list-item]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    path = tmp_path_factory.mktemp("bank") / "part.bank.safetensors"
    musc.Inspector(size=SIZE, device="cpu").bank(sorted(folder.glob("*.png"))[:6]).save(path)
    return path


def test_scorer_answers_paths_in_their_order(bank: Path, many: Path, tmp_path: Path) -> None:
    scorer = musc.Scorer(bank, device="cpu", threads=1)
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    paths = [*sorted(many.glob("1/*.png"), reverse=True), bad]
    asked = [*paths, paths[0]]
    known = musc.Inspector(size=SIZE, device="cpu").predict(paths[:-1], musc.Bank.open(bank))
    for one in (scorer, pickle.loads(pickle.dumps(scorer))):
        found = one({"path": np.array([str(path) for path in asked], dtype=object), "lot": np.arange(len(asked))})
        assert found["lot"].tolist() == list(range(len(asked)))
        np.testing.assert_array_equal(found["score"][: len(paths) - 1], known.scores)
        np.testing.assert_array_equal(found["raw_score"][: len(paths) - 1], known.raw_scores.astype(float))
        assert found["decision"].tolist() == [*known.decisions, "", known.decisions[0]]
        assert found["score"][-1] == known.scores[0] and np.isnan(found["score"][-2])
        assert set(found["threshold"]) == {known.threshold}
        assert "not a readable image" in found["error"][-2] or found["error"][-2]
        assert [bool(error) for error in found["error"]] == [path == bad for path in asked]
    assert scorer({"path": np.array([], dtype=object)})["score"].shape == (0,)
    with pytest.raises(ValueError, match="expected one called 'path'"):
        scorer({"file": np.array(["x"])})
    with pytest.raises(FileNotFoundError):
        musc.Scorer(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="size"):
        musc.Scorer(bank, device="cpu", size=70)({"path": np.array([str(paths[0])])})


# Engines leave sockets and processes to the interpreter's end.
engines = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=[2, 4])
def cluster(request: pytest.FixtureRequest) -> Iterator[int]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=request.param, include_dashboard=False, log_to_driver=False)
    yield request.param
    ray.shutdown()


@engines
def test_ray_makes_parts(cluster: int, many: Path, tmp_path: Path) -> None:
    import musc.ray

    known = musc.Inspector(**SETTINGS).inspect(many)
    same(musc.ray.inspect(many, **{**SETTINGS, "threads": 0}), known)
    paths = sorted(many.glob("*/*.png"))
    inspector = musc.Inspector(**SETTINGS)
    same(musc.ray.inspect(paths, inspector=inspector), inspector.inspect(paths))
    if cluster > 2:
        return
    # A file that is no image is named, as an error of its own class.
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(ValueError, match="bad.png"):
        musc.ray.inspect([*paths, tmp_path / "bad.png"], **SETTINGS)
    skipped = musc.ray.inspect([*paths, tmp_path / "bad.png"], skip_bad=True, **SETTINGS)
    assert [Path(path).name for path, _ in skipped.skipped] == ["bad.png"] and len(skipped) == 31
    with pytest.raises(ValueError, match="beside an inspector"):
        musc.ray.inspect(paths, inspector=inspector, size=70)


@engines
def test_ray_data_maps_a_scorer(many: Path, bank: Path) -> None:
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        paths = [str(path) for path in sorted(many.glob("*/*.png"))]
        data = ray.data.from_items([{"path": path} for path in paths])
        options = {"device": "cpu", "threads": 1}
        mapped = data.map_batches(
            musc.Scorer, fn_constructor_args=(str(bank),), fn_constructor_kwargs=options, concurrency=2, batch_size=8
        )
        rows = {row["path"]: row for row in mapped.take_all()}
    finally:
        ray.shutdown()
    assert sorted(rows) == paths
    known = musc.Inspector(size=SIZE, device="cpu").predict(paths, musc.Bank.open(bank))
    assert [rows[path]["score"] for path in paths] == known.scores.tolist()
    assert [rows[path]["decision"] for path in paths] == known.decisions


@engines
def test_dask_maps_the_same_scorer(many: Path, bank: Path) -> None:
    from dask.distributed import Client, LocalCluster

    paths = [str(path) for path in sorted(many.glob("*/*.png"))]
    batches = [{"path": np.array(paths[start : start + 8], dtype=object)} for start in range(0, len(paths), 8)]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        scorer = client.submit(musc.Scorer, str(bank), device="cpu", threads=1, pure=False)
        found = client.gather([client.submit(_call, scorer, batch) for batch in batches])
    known = musc.Inspector(size=SIZE, device="cpu").predict(paths, musc.Bank.open(bank))
    assert np.concatenate([batch["score"] for batch in found]).tolist() == known.scores.tolist()
    assert np.concatenate([batch["path"] for batch in found]).tolist() == paths


def _call(scorer: musc.Scorer, batch: dict[str, Any]) -> dict[str, Any]:
    return scorer(batch)
