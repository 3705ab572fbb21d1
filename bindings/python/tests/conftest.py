"""What the tests have in common: images, an inspector of them, and the program musc-run to hold the numbers against."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import musc
import numpy as np
import pytest
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[3]
SIZE = 112

Picture = NDArray[np.uint8]


def write_png(path: Path, image: Picture) -> None:
    """RGB, 8 bit."""
    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head: dict[str, Any] = json.loads(data[8 : 8 + length])
    types = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "U8": np.uint8}
    metadata = head.pop("__metadata__", {})
    body = data[8 + length :]
    tensors = {
        name: np.frombuffer(body[slice(*about["data_offsets"])], types[about["dtype"]]).reshape(about["shape"])
        for name, about in head.items()
        if about["dtype"] in types
    }
    return tensors, metadata


def data(name: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    return read_safetensors(REPOSITORY / "tests/data" / f"{name}.safetensors")


def cloth(number: int, size: tuple[int, int] = (96, 128)) -> Picture:
    """A woven cloth; every fourth has a spot."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    thread = 110 + 30 * ((x // 5 + y // 5) % 2) + np.random.default_rng(number).integers(0, 9, x.shape)
    image = np.stack([thread, thread - 20, np.full_like(thread, 90)], axis=-1)
    if number % 4 == 3:
        image[(x - 80) ** 2 + (y - 40) ** 2 < 90 + number] = (20, 15, 10)
    return image.astype(np.uint8)


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    return [cloth(number) for number in range(10)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: list[Picture]) -> Path:
    root = tmp_path_factory.mktemp("cloth")
    for number, image in enumerate(pictures):
        write_png(root / f"{number:02}.png", image)
    return root


@pytest.fixture(scope="session")
def inspector() -> musc.Inspector:
    return musc.Inspector(size=SIZE, device="cpu")


@pytest.fixture(scope="session")
def inspection(inspector: musc.Inspector, folder: Path) -> musc.Inspection:
    return inspector.inspect(folder)


class MuscRun:
    """The program, and what it wrote."""

    def __init__(self, program: str, root: Path) -> None:
        self.program, self.root, self.runs = program, root, 0

    def words(self, *words: object) -> str:
        command = [self.program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.root)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def __call__(self, *words: object) -> Path:
        self.runs += 1
        out = self.root / str(self.runs)
        usual = ["--device", "cpu", "--save-maps", "--vis", "False", "--report", "False", "--quiet"]
        self.words(*words, *usual, "--output-dir", out)
        (found,) = out.glob("folder/*")
        return found


@pytest.fixture(scope="session")
def musc_run(tmp_path_factory: pytest.TempPathFactory) -> MuscRun:
    program = os.environ.get("MUSC_RUN", "")
    assert Path(program).is_file(), "MUSC_RUN names no program: the numbers are held against musc-run's"
    return MuscRun(program, tmp_path_factory.mktemp("runs"))


def equal_to_run(found: musc.Inspection, run: Path) -> None:
    """Holds an inspection against the files of a run, to the last bit."""
    with (run / "scores.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert found.names == [row["path"] for row in rows]
    assert found.scores.tolist() == [float(row["score"]) for row in rows]
    assert found.raw_scores.tolist() == [np.float32(row["raw_score"]) for row in rows]
    assert found.thresholds.tolist() == [float(row["threshold"]) for row in rows]
    assert found.decisions == [row["decision"] for row in rows]
    assert found.ranks == [int(row["rank"]) for row in rows]
    maps, _ = read_safetensors(run / "anomaly_maps.safetensors")
    np.testing.assert_array_equal(found.maps, maps["anomaly_map"], strict=True)
    defects = json.loads((run / "defects.json").read_text())
    regions = {image["path"]: image["regions"] for image in defects["images"]}
    for name, ours in zip(found.names, found.regions):
        theirs = regions.get(name, [])
        assert len(ours) == len(theirs)
        for region, known in zip(ours, theirs):
            assert [np.float32(value) for value in (*region.peak, region.area, region.mean)] == [
                np.float32(value) for value in (*known["peak"].values(), known["area"], known["mean"])
            ]
            np.testing.assert_array_equal(region.polygon.astype(np.float32), np.float32(known["polygon"]))
