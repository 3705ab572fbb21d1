"""Whatever is wrong with what was given is said: what was found and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import musc
import numpy as np
import pytest
from conftest import Picture

TOKENS = np.random.default_rng(0).normal(size=(2, 4, 9, 5)).astype(np.float32)
PICTURE = np.zeros((20, 30, 3), np.uint8)


def spoiled(value: float) -> Any:
    tokens = TOKENS.copy()
    tokens[1, 2, 3, 4] = value
    return tokens


IMAGES: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, r"images: found none, expected a folder"),
    ("", ValueError, r"images: found an empty path"),
    ("no/such/folder", FileNotFoundError, r"no/such/folder: no such file or folder"),
    (["no/such/file.png"], FileNotFoundError, r"no/such/file.png: no such file"),
    (7, TypeError, r"images: found int, expected a folder"),
    ([None], TypeError, r"images\[0\]: found NoneType, expected a folder"),
    ([PICTURE, "x.png"], TypeError, r"images: found 1 paths and 1 arrays, expected either"),
    ([PICTURE, PICTURE.astype(np.float32)], TypeError, r"images\[1\]: found float32 \[20, 30, 3\], expected uint8 \[H, W, 3\]"),
    ([PICTURE[:, :, 0]], ValueError, r"images\[0\]: found uint8 \[20, 30\], expected uint8 \[H, W, 3\]"),
    ([np.zeros((20, 30, 4), np.uint8)], ValueError, r"images\[0\]: found uint8 \[20, 30, 4\]"),
    ([PICTURE[:0]], ValueError, r"images\[0\]: found uint8 \[0, 30, 3\]"),
    (np.zeros((0, 20, 30, 3), np.uint8), ValueError, r"images: found uint8 \[0, 20, 30, 3\]"),
    (np.zeros((4, 20, 30), np.uint8), ValueError, r"images: found uint8 \[4, 20, 30\], expected uint8 \[H, W, 3\] or \[N, H, W, 3\]"),
    ([PICTURE], ValueError, r"found 0, expected at least 1: .* a set needs at least 2"),
    (PICTURE, ValueError, r"a set needs at least 2"),
]


@pytest.mark.parametrize(("images", "error", "said"), IMAGES, ids=range(len(IMAGES)))
def test_images(inspector: musc.Inspector, images: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        inspector.inspect(images)


def test_what_is_beside_images(inspector: musc.Inspector, pictures: list[Picture], folder: Path) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"names": ["a"]}, ValueError, "names of the images: found 1, expected 10, one an image"),
        ({"border": -1}, ValueError, "border: found -1, expected pixels, at least 0"),
        ({"border": 100}, ValueError, "border"),
        ({"roi": "no/such.png"}, FileNotFoundError, "no/such.png"),
        ({"roi": 5}, TypeError, "roi: found int, expected a mask's file"),
        ({"roi": np.zeros((96, 128), bool)}, ValueError, "region mask: found none of 12288 pixels inside"),
        ({"roi": np.ones((9, 9), bool)}, ValueError, "9x9 pixels, its image image 0 128x96"),
        ({"roi": np.ones(9, bool)}, ValueError, r"roi: found bool \[9\]"),
        ({"labels": "no/such.csv"}, FileNotFoundError, "no/such.csv"),
        ({"each_other": True}, ValueError, "each_other: found True without references"),
        ({"references": []}, ValueError, "images: found none"),
        ({"progress": 3}, TypeError, "not callable"),
    ]
    for about, error, said in cases:
        with pytest.raises(error, match=said):
            # Long enough for progress to be called.
            inspector.inspect(pictures if about != {"progress": 3} else pictures * 4, **about)
    first = sorted(folder.glob("*.png"))[0]
    with pytest.raises(ValueError, match="00.png twice, expected each file once"):
        inspector.inspect([first, first])
    with pytest.raises(TypeError, match="'int' object is not an instance of 'Bank'|cannot be converted|Bank"):
        inspector.predict(pictures, 5)  # type: ignore[arg-type]


SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"backbone": "resnet"}, ValueError, "resnet"),
    ({"backbone": None}, ValueError, "backbone: found None, and no weights"),
    ({"backbone": "dino_vitbase8"}, FileNotFoundError, r'no weights on this machine[^$]*musc.download_weights\("dino_vitbase8"'),
    ({"weights": "no/such.safetensors"}, FileNotFoundError, "no/such.safetensors"),
    ({"size": 100}, ValueError, "100"),
    ({"size": 0}, ValueError, "size: found 0, expected a side in pixels"),
    ({"size": (112, -14)}, ValueError, r"size: found \(112, -14\)"),
    ({"size": 1.5}, TypeError, "size: found 1.5"),
    ({"size": "big"}, ValueError, "image size: found `big`"),
    ({"size": 112, "keep_aspect": 112}, ValueError, "size: found 112 beside keep_aspect=112"),
    ({"pad": True}, ValueError, "pad: found True without keep_aspect"),
    ({"keep_aspect": 0}, ValueError, "keep_aspect: found 0"),
    ({"r": (2,)}, ValueError, "aggregation degree r: found 2, expected an odd number"),
    ({"r": ()}, ValueError, "aggregation degrees: found none"),
    ({"r": (-1,)}, ValueError, "r: found -1, expected a whole number, at least 0"),
    ({"r": 3}, TypeError, "'int' object is not an instance of 'Sequence'"),
    ({"device": "gpu"}, ValueError, "device: found `gpu`, expected cpu, auto, cuda"),
    ({"device": "cuda:4096"}, musc.Error, "device `cuda:4096`"),
    ({"precision": "f64"}, ValueError, "precision: found `f64`, expected one of auto, f32, f16, bf16"),
    ({"precision": "f16"}, ValueError, "precision: found f16, expected f32, bf16 or auto on the CPU"),
    ({"activation": "relu"}, ValueError, 'activation: found "relu"'),
    ({"layers": [12]}, ValueError, "12"),
    ({"threads": -1}, ValueError, "threads: found -1"),
    ({"memory_limit": -1}, ValueError, "memory_limit: found -1"),
    ({"tiles": "2by2"}, ValueError, "tiles: found 2by2, expected"),
    ({"tiles": 3}, TypeError, "tiles: found 3"),
    ({"tiles": (0, 2)}, ValueError, "0"),
    ({"tiles": (2, 2), "match_tiles": "near"}, ValueError, "match_tiles"),
    ({"tiles": (2, 2), "tile_overlap": 0.9}, ValueError, "0.9"),
    ({"interval": (0.5, 0.2)}, ValueError, r"interval of the sorted distances: found \[0.5, 0.2\)"),
    ({"k": [0]}, ValueError, "RsCIN k"),
    ({"similarity": "l2"}, ValueError, 'similarity: found "l2"'),
    ({"subsets": "some"}, ValueError, 'subsets: found "some", expected "auto" or "all"'),
    ({"subsets": 1}, ValueError, "references: found 1, expected at least 2"),
    ({"subsets": 2.5}, TypeError, "subsets: found 2.5"),
    ({"subsets": 50, "divide": 2}, ValueError, "divide: found 2 beside subsets"),
    ({"divide": 0}, ValueError, "divide_num: found 0"),
    ({"decide": "luck"}, ValueError, "decision rule: found luck"),
    ({"decide": float("nan")}, ValueError, "decide: found NaN"),
    ({"decide": []}, TypeError, r"decide: found \[\]"),
    ({"cache": "cache", "cache_bytes": 0}, ValueError, "size of the cache: found 0"),
    ({"colour": 1}, TypeError, "colour"),
]


@pytest.mark.parametrize(("settings", "error", "said"), SETTINGS, ids=lambda value: str(value)[:40])
def test_settings(
    settings: dict[str, Any], error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is found in an empty folder, and nothing is left in another.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(error, match=said):
        musc.Inspector(**{"device": "cpu", **settings})


CALLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: musc.mutual_scores(TOKENS.astype(np.float64)), TypeError, r"tokens: found float64 \[2, 4, 9, 5\], expected float32 or float16 \[layers, N, L, C\]"),
    (lambda: musc.mutual_scores(TOKENS.astype(">f4")), TypeError, r"tokens: found >f4"),
    (lambda: musc.mutual_scores(TOKENS[0, 0]), ValueError, r"tokens: found float32 \[9, 5\]"),
    (lambda: musc.mutual_scores(TOKENS[:, :, :0]), ValueError, r"tokens: found float32 \[2, 4, 0, 5\]"),
    (lambda: musc.mutual_scores([]), ValueError, "tokens: found no layer"),
    (lambda: musc.mutual_scores(5), TypeError, "tokens: found int"),  # type: ignore[arg-type]
    (lambda: musc.mutual_scores([[1.0]]), ValueError, r"tokens\[0\]: found float64 \[1\]"),  # type: ignore[list-item]
    (lambda: musc.mutual_scores([TOKENS[0], TOKENS[1, :3]]), ValueError, r"tokens\[1\]: found float32 \[3, 9, 5\], expected float32 \[4, 9, 5\], as the first layer has"),
    (lambda: musc.mutual_scores([TOKENS[0], TOKENS[1].astype(np.float16)]), ValueError, r"tokens\[1\]: found float16"),
    (lambda: musc.mutual_scores(TOKENS[:, :1]), ValueError, "expected at least 1: .* a set needs at least 2"),
    (lambda: musc.mutual_scores(TOKENS[:, :, :8]), ValueError, "grid: found none, and 8 patches, which are no square"),
    (lambda: musc.mutual_scores(TOKENS, grid=(3, 4)), ValueError, r"grid: found \(3, 4\), expected rows and columns of the 9 patches"),
    (lambda: musc.mutual_scores(TOKENS, grid=(-3, -3)), ValueError, r"grid: found \(-3, -3\)"),
    (lambda: musc.mutual_scores(spoiled(np.nan)), ValueError, "patch tokens of layer 1: found NaN at position 109"),
    (lambda: musc.mutual_scores(spoiled(np.inf)), ValueError, "patch tokens of layer 1: found inf at position 109"),
    (lambda: musc.mutual_scores(TOKENS, r=(7,)), ValueError, "aggregation degree r: found 7, expected an odd number from 1 to 5"),
    (lambda: musc.mutual_scores(TOKENS, references=TOKENS[:1]), ValueError, "references: found 1 feature layers, expected 2"),
    (lambda: musc.mutual_scores(TOKENS, references=TOKENS[..., :4]), ValueError, "token width of the queries: found 5, expected 4"),
    (lambda: musc.mutual_scores(TOKENS, references=TOKENS[:, :, :8]), ValueError, "references: found 8 patches an image, expected 9"),
    (lambda: musc.mutual_scores(TOKENS[:, :1], references=TOKENS[:, :1]), ValueError, "references of query 0: found 1 with the query's own content"),
    (lambda: musc.mutual_scores(TOKENS, left_out=np.zeros((4, 8), bool)), ValueError, r"left_out: found bool \[4, 8\], expected bool \[4, 9\]"),
    (lambda: musc.mutual_scores(TOKENS, left_out=np.ones((4, 9), bool)), ValueError, "image 0: found all 9"),
    (lambda: musc.mutual_scores(TOKENS, references_left_out=np.ones((4, 9), bool)), ValueError, "references_left_out: found marks without references"),
    (lambda: musc.mutual_scores(TOKENS, device="gpu"), ValueError, "device: found `gpu`"),
    (lambda: musc.mutual_scores(TOKENS, threads=-1), ValueError, "threads: found -1"),
    (lambda: musc.rscin([1.0, 2.0], np.ones((3, 4), np.float32)), ValueError, "class tokens: found 12 values, expected 2 images x 4"),
    (lambda: musc.rscin([[1.0]], np.ones((1, 4), np.float32)), ValueError, r"scores: found float64 \[1, 1\], expected numbers \[N\]"),
    (lambda: musc.rscin(["a"], np.ones((1, 4), np.float32)), TypeError, "scores: found <U1"),
    (lambda: musc.rscin([1.0], np.ones((1, 4))), TypeError, r"class_tokens: found float64 \[1, 4\], expected float32 or float16"),
    (lambda: musc.rscin([1.0, np.nan], np.ones((2, 4), np.float32)), ValueError, "NaN"),
    (lambda: musc.rscin([1.0, 2.0], np.ones((2, 4), np.float32), k=(0,)), ValueError, "k"),
    (lambda: musc.threshold([]), ValueError, "scores to decide by: found 0"),
    (lambda: musc.threshold([1.0, np.inf]), ValueError, "scores to decide by: found inf of image 1"),
    (lambda: musc.threshold([1.0, 2.0], "mebin"), ValueError, "decision rule: found mebin"),
    (lambda: musc.threshold([1.0, 2.0], "f1"), ValueError, "labels to decide by: found 0"),
    (lambda: musc.anomaly_maps(np.ones((2, 9)), (0, 5)), ValueError, r"size: found \(0, 5\)"),
    (lambda: musc.anomaly_maps(np.ones((2, 8)), (5, 5)), ValueError, "grid: found none, and 8 patches"),
    (lambda: musc.metrics.image_level([0, 1, 2], [1.0, 2.0, 3.0]), ValueError, "labels: found 2, expected one an image"),
    (lambda: musc.metrics.image_level([0, 1], [1.0, 2.0, 3.0]), ValueError, "image labels: found 2, expected 3"),
    (lambda: musc.metrics.image_level([0.5, 1], [1.0, 2.0]), TypeError, "labels: found float64"),
    (lambda: musc.metrics.pixel_level(np.ones((1, 2, 2)), np.ones((1, 2, 2))), TypeError, "masks: found float64"),
    (lambda: musc.metrics.pixel_level(np.ones((1, 2, 2), bool), np.ones((1, 2, 3))), ValueError, r"maps: found float64 \[1, 2, 3\], expected \[1, 2, 2\], as masks have"),
    (lambda: musc.metrics.pixel_level(np.ones((1, 2, 2), bool), np.ones((1, 2, 2), int)), TypeError, "maps: found int64"),
    (lambda: musc.metrics.pixel_level(np.eye(2, dtype=bool)[None], np.full((1, 2, 2), np.nan)), ValueError, "NaN"),
    (lambda: musc.metrics.pixel_level(np.eye(2, dtype=bool)[None], np.ones((1, 2, 2)), np.ones((1, 2, 1), bool)), ValueError, "inside: found"),
    (lambda: musc.download_weights("resnet"), ValueError, "resnet"),
]


@pytest.mark.parametrize(("call", "error", "said"), CALLS, ids=range(len(CALLS)))
def test_arguments_of_functions(call: Callable[[], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()


def test_no_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="cannot get https://.*HF_HUB_OFFLINE"):
        musc.download_weights("dino_vitbase8")
