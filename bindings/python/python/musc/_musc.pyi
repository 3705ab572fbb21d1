from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Bank",
    "Error",
    "Inspection",
    "Inspector",
    "Region",
    "__version__",
    "anomaly_maps",
    "backbones",
    "built_in_weights",
    "download_weights",
    "image_level",
    "mutual_scores",
    "pixel_level",
    "rscin",
    "threshold",
]

class _DLPack(Protocol):
    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...

_Path: TypeAlias = str | PathLike[str]
_Pixels: TypeAlias = NDArray[np.uint8] | _DLPack
_Images: TypeAlias = _Path | _Pixels | Iterable[_Path] | Iterable[_Pixels]
_LayerTokens: TypeAlias = NDArray[np.float32] | NDArray[np.float16] | _DLPack
_Tokens: TypeAlias = _LayerTokens | Iterable[_LayerTokens]
_Progress: TypeAlias = Callable[[str, int, int], object]
_Rule: TypeAlias = str | float

__version__: str
built_in_weights: bool

class Error(Exception): ...

@final
class Inspector:
    def __new__(
        cls,
        backbone: str | None = "dinov2_vits14",
        *,
        device: str = "auto",
        size: int | tuple[int, int] | str | None = 518,
        r: Sequence[int] = (1, 3, 5),
        weights: _Path | None = None,
        pretrained: str = "openai",
        activation: Literal["official", "gelu", "quick_gelu"] = "official",
        layers: Sequence[int] | None = None,
        threads: int = 0,
        precision: Literal["auto", "f32", "f16", "bf16"] = "auto",
        memory_limit: int | None = None,
        batch_size: int = 0,
        cache: _Path | None = None,
        cache_bytes: int | None = None,
        keep_aspect: int | None = None,
        pad: bool = False,
        tiles: tuple[int, int] | str | None = None,
        tile_overlap: float = 0.1,
        match_tiles: Literal["same", "any"] = "same",
        interval: tuple[float, float] = (0.0, 0.3),
        radius: int | None = None,
        table_bytes: int | None = None,
        rescoring: bool = True,
        k: Sequence[int] | None = None,
        similarity: Literal["cosine", "dot"] | None = None,
        subsets: Literal["auto", "all"] | int | None = "auto",
        divide: int | None = None,
        seed: int = 0,
        paper: bool = False,
        decide: _Rule | None = "gap",
    ) -> Inspector: ...
    def inspect(
        self,
        images: _Images,
        *,
        references: Bank | _Images | None = None,
        each_other: bool = False,
        names: Sequence[_Path] | None = None,
        labels: _Path | None = None,
        roi: _Path | ArrayLike | None = None,
        border: int = 0,
        skip_bad: bool = False,
        progress: _Progress | None = None,
    ) -> Inspection: ...
    def predict(
        self,
        images: _Images,
        bank: Bank,
        *,
        names: Sequence[_Path] | None = None,
        roi: _Path | ArrayLike | None = None,
        border: int = 0,
        skip_bad: bool = False,
        progress: _Progress | None = None,
    ) -> Inspection: ...
    def bank(
        self,
        images: _Images,
        *,
        names: Sequence[_Path] | None = None,
        roi: _Path | ArrayLike | None = None,
        border: int = 0,
        skip_bad: bool = False,
        progress: _Progress | None = None,
    ) -> Bank: ...
    def add_to_bank(
        self,
        bank: Bank,
        images: _Images,
        *,
        names: Sequence[_Path] | None = None,
        roi: _Path | ArrayLike | None = None,
        border: int = 0,
        skip_bad: bool = False,
        progress: _Progress | None = None,
    ) -> Bank: ...
    def merge_banks(self, banks: Sequence[Bank], *, progress: _Progress | None = None) -> Bank: ...
    def parts(
        self,
        images: _Images,
        *,
        names: Sequence[_Path] | None = None,
        roi: _Path | ArrayLike | None = None,
        border: int = 0,
        skip_bad: bool = False,
    ) -> int: ...
    def part(
        self,
        images: _Images,
        part: int,
        *,
        names: Sequence[_Path] | None = None,
        roi: _Path | ArrayLike | None = None,
        border: int = 0,
        skip_bad: bool = False,
        progress: _Progress | None = None,
    ) -> bytes: ...
    def join(
        self,
        images: _Images,
        parts: Sequence[bytes],
        *,
        names: Sequence[_Path] | None = None,
        labels: _Path | None = None,
        roi: _Path | ArrayLike | None = None,
        border: int = 0,
        skip_bad: bool = False,
        progress: _Progress | None = None,
    ) -> Inspection: ...
    def features(
        self, images: _Images, *, skip_bad: bool = False, progress: _Progress | None = None
    ) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]: ...
    @property
    def device(self) -> str: ...
    @property
    def device_note(self) -> str | None: ...
    @property
    def backbone(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def patch(self) -> int: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    def __reduce__(self) -> tuple[Any, tuple[()]]: ...

@final
class Inspection:
    @property
    def scores(self) -> NDArray[np.float64]: ...
    @property
    def raw_scores(self) -> NDArray[np.float32]: ...
    @property
    def patch_scores(self) -> NDArray[np.float32]: ...
    @property
    def class_tokens(self) -> NDArray[np.float32]: ...
    @property
    def left_out(self) -> NDArray[np.bool_] | None: ...
    @property
    def maps(self) -> NDArray[np.float32]: ...
    def map(self, image: int, size: tuple[int, int] | None = None) -> NDArray[np.float32]: ...
    @property
    def paths(self) -> list[Path] | None: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def labels(self) -> list[bool | None]: ...
    @property
    def decisions(self) -> list[Literal["NG", "OK"]]: ...
    @property
    def defective(self) -> NDArray[np.bool_]: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def thresholds(self) -> NDArray[np.float64]: ...
    @property
    def rule(self) -> str: ...
    @property
    def ranks(self) -> list[int]: ...
    @property
    def regions(self) -> list[list[Region]]: ...
    def decide(self, rule: _Rule) -> Inspection: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def skipped(self) -> list[tuple[Path, str]]: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def input(self) -> tuple[int, int]: ...
    @property
    def k(self) -> list[int]: ...
    @property
    def subsets(self) -> int: ...
    @property
    def seconds(self) -> dict[str, float]: ...
    # A pandas.DataFrame, which need not be installed.
    def to_pandas(self) -> Any: ...
    def _repr_html_(self) -> str: ...
    def __len__(self) -> int: ...

@final
class Region:
    @property
    def polygon(self) -> NDArray[np.float64]: ...
    @property
    def bounds(self) -> tuple[float, float, float, float]: ...
    @property
    def area(self) -> float: ...
    @property
    def peak(self) -> tuple[float, float, float]: ...
    @property
    def mean(self) -> float: ...

@final
class Bank:
    @staticmethod
    def open(path: _Path) -> Bank: ...
    def save(self, path: _Path) -> None: ...
    def with_rule(self, rule: _Rule) -> Bank: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def raw_scores(self) -> NDArray[np.float32]: ...
    @property
    def threshold(self) -> float: ...
    @property
    def rule(self) -> str: ...
    @property
    def grid(self) -> tuple[int, int]: ...
    @property
    def thumbnails(self) -> NDArray[np.uint8]: ...
    @property
    def weights_sha256(self) -> str: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    def __len__(self) -> int: ...

def mutual_scores(
    tokens: _Tokens,
    r: Sequence[int] = (1, 3, 5),
    references: _Tokens | None = None,
    *,
    grid: tuple[int, int] | None = None,
    interval: tuple[float, float] = (0.0, 0.3),
    radius: int | None = None,
    left_out: ArrayLike | None = None,
    references_left_out: ArrayLike | None = None,
    device: str = "auto",
    threads: int = 0,
    precision: Literal["auto", "f32", "f16", "bf16"] = "auto",
    memory_limit: int | None = None,
    table_bytes: int | None = None,
    progress: _Progress | None = None,
) -> NDArray[np.float32]: ...
def rscin(
    scores: ArrayLike,
    class_tokens: ArrayLike,
    k: Sequence[int] = (1, 2, 3),
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> NDArray[np.float64]: ...
def threshold(raw_scores: ArrayLike, rule: _Rule | None = "gap", *, labels: ArrayLike | None = None) -> float: ...
def anomaly_maps(
    patch_scores: ArrayLike, size: tuple[int, int], *, grid: tuple[int, int] | None = None
) -> NDArray[np.float32]: ...
def backbones() -> list[str]: ...
def download_weights(backbone: str, pretrained: str = "openai", *, progress: _Progress | None = None) -> Path: ...
def image_level(labels: ArrayLike, scores: ArrayLike) -> tuple[float | None, float | None, float | None]: ...
def pixel_level(
    masks: ArrayLike, maps: ArrayLike, inside: ArrayLike | None = None
) -> tuple[float | None, float | None, float | None, float | None]: ...
