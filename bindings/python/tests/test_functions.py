"""The steps on arrays, against definitions in float64 and the goldens that an independent program made."""

from __future__ import annotations

import json
from typing import Any

import musc
import numpy as np
import pytest
from conftest import REPOSITORY, Picture, data
from numpy.typing import NDArray

Floats = NDArray[Any]


def defined(tokens: Floats, r: int, interval: float = 0.3) -> Floats:
    """LNAMD and MSM of one feature layer [N, H, W, C], as the paper writes them, in float64."""
    count, rows, columns, _ = tokens.shape
    x = tokens.astype(np.float64)
    axes = (1, 2, 3)
    x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    edge = r // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    pooled = sum(padded[:, i : i + rows, j : j + columns] for i in range(r) for j in range(r)) / r**2
    unit = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
    unit = unit.reshape(count, rows * columns, -1)
    scores = np.empty((count, rows * columns))
    for i in range(count):
        nearest = np.sort(
            [np.linalg.norm(unit[i][:, None] - unit[j][None], axis=-1).min(1) for j in range(count) if j != i], axis=0
        )
        scores[i] = nearest[: max(int((count - 1) * interval), 1)].mean(0)
    return scores


@pytest.fixture(scope="module")
def tokens() -> NDArray[np.float32]:
    """[layers, N, L, C] of 5 x 7 patches."""
    drawn = np.random.default_rng(5).normal(size=(2, 8, 35, 12)).cumsum(axis=2)
    return drawn.astype(np.float16).astype(np.float32)


def test_mutual_scores_are_the_definition(tokens: NDArray[np.float32]) -> None:
    found = musc.mutual_scores(tokens, r=(1, 3, 5), grid=(5, 7), device="cpu", precision="f32")
    assert found.dtype == np.float32 and found.shape == (8, 35)
    wide = tokens.reshape(2, 8, 5, 7, 12)
    expected = np.mean([defined(layer, r) for layer in wide for r in (1, 3, 5)], axis=0)
    # f32 sums of 12 products: distances above 0.01 are within some 1e-5.
    np.testing.assert_allclose(found, expected.reshape(8, 35), atol=2e-5, rtol=0)
    assert np.abs(found - found.mean()).max() > 0.05


@pytest.mark.parametrize("name", ["stages_wide", "stages_awkward"])
def test_mutual_scores_are_the_goldens(name: str) -> None:
    tensors, metadata = data(name)
    prefixes = [""] if name == "stages_wide" else ["1x17.", "16x3."]
    for at in prefixes:
        rows, columns = map(int, metadata[at + "grid"].split("x"))

        def scores(kind: str, **options: Any) -> None:
            own = [tensors[f"{at}tokens.{layer}"] for layer in (0, 1)]
            if kind.startswith("set"):
                options["references"] = [tensors[f"{at}reference_tokens.{layer}"] for layer in (0, 1)]
            found = musc.mutual_scores(own, grid=(rows, columns), device="cpu", precision="f32", **options)
            expected = tensors[at + kind].astype(np.float64).mean((0, 1))
            np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0, err_msg=at + kind)

        for kind in ("others", "set"):
            scores(kind)
            scores(f"{kind}_radius1", radius=1)
            scores(f"{kind}_radius2", radius=2)
            scores(f"{kind}_interval", interval=(0.25, 0.75))
        if name == "stages_wide":
            marks, theirs = tensors["left_out"] != 0, tensors["reference_left_out"] != 0
            scores("others_left_out", left_out=marks)
            scores("set_left_out", left_out=marks, references_left_out=theirs)
        maps = musc.anomaly_maps(
            tensors[at + "patch_scores"], tensors[at + "anomaly_map"].shape[1:], grid=(rows, columns)
        )
        np.testing.assert_allclose(maps, tensors[at + "anomaly_map"], atol=1e-6, rtol=0)


def test_an_inspector_s_features_score_as_it_does(inspector: musc.Inspector, pictures: list[Picture]) -> None:
    layers, class_tokens = inspector.features(pictures)
    whole = inspector.inspect(pictures)
    assert len(layers) == 4 and layers[0].shape == (10, 64, 384) and class_tokens.shape == (10, 384)
    np.testing.assert_array_equal(musc.mutual_scores(layers, device="cpu"), whole.patch_scores, strict=True)
    np.testing.assert_array_equal(musc.mutual_scores(np.stack(layers), device="cpu"), whole.patch_scores)
    np.testing.assert_array_equal(class_tokens, whole.class_tokens)
    np.testing.assert_array_equal(musc.rscin(whole.raw_scores, class_tokens), whole.scores, strict=True)


class Foreign:
    """Hands over its memory by DLPack and nothing else, as another library's tensor does."""

    def __init__(self, array: NDArray[Any], device: int = 1) -> None:
        self.array, self.device, self.asked = array, device, 0

    def __dlpack__(self, **options: Any) -> Any:
        self.asked += 1
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)


def test_tokens_come_as_they_lie(tokens: NDArray[np.float32], pictures: list[Picture], inspector: musc.Inspector) -> None:
    def score(tokens: Any) -> NDArray[np.float32]:
        return musc.mutual_scores(tokens, grid=(5, 7), device="cpu")

    expected = score(tokens)
    with_class = np.concatenate([tokens[:, :, :1], tokens], axis=2)
    frozen = tokens.copy()
    frozen.flags.writeable = False
    misaligned = np.frombuffer(b"\0" + tokens.tobytes(), np.uint8)[1:].view(np.float32).reshape(tokens.shape)
    assert not misaligned.flags.aligned
    foreign = [Foreign(layer) for layer in tokens]
    forms = {
        "list": list(tokens),
        "half": tokens.astype(np.float16),
        "without its class token": with_class[:, :, 1:],
        "transposed": np.ascontiguousarray(tokens.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
        "backwards": tokens[:, ::-1].copy()[:, ::-1],
        "read only": frozen,
        "misaligned": misaligned,
        "DLPack": foreign,
        "DLPack of all": Foreign(tokens),
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(score(form), expected, strict=True, err_msg=name)
    assert all(layer.asked == 1 for layer in foreign)
    np.testing.assert_array_equal(
        inspector.inspect([Foreign(image) for image in pictures]).scores, inspector.inspect(pictures).scores
    )
    with pytest.raises(ValueError, match=r"tokens: found memory of DLPack's device 2, expected memory of the processor"):
        score(Foreign(tokens, device=2))
    with pytest.raises(TypeError, match=r"tokens: found float64 \[2, 8, 35, 12\], expected float32 or float16"):
        score(Foreign(tokens.astype(np.float64)))


def test_a_torch_tensor_is_taken(tokens: NDArray[np.float32]) -> None:
    torch = pytest.importorskip("torch")
    expected = musc.mutual_scores(tokens, grid=(5, 7), device="cpu")
    for tensor in (torch.tensor(tokens), torch.tensor(tokens).half(), list(torch.tensor(tokens))):
        np.testing.assert_array_equal(musc.mutual_scores(tensor, grid=(5, 7), device="cpu"), expected)
    with pytest.raises(ValueError, match="tokens: cannot be taken by DLPack"):
        musc.mutual_scores(torch.tensor(tokens).requires_grad_(), grid=(5, 7), device="cpu")


def test_rscin_is_the_definition_and_the_goldens() -> None:
    tensors, _ = data("rscin")
    scores, tokens = tensors["scores"].astype(np.float64), tensors["class_tokens"]
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    long = tokens * np.linspace(1, 3, len(scores), dtype=np.float32)[:, None]
    unit = long.astype(np.float64) / np.linalg.norm(long.astype(np.float64), axis=1, keepdims=True)
    for k in ((1, 2, 3), (5,), (1, 8, 9)):
        for similarity, compared in (("cosine", unit @ unit.T), ("dot", long.astype(np.float64) @ long.T)):
            parts = []
            for size in k:
                kept = np.argsort(-compared, axis=1, kind="stable")[:, :size]
                weights = np.take_along_axis(compared, kept, axis=1)
                parts.append((weights / weights.sum(1, keepdims=True) * scaled[kept]).sum(1))
            found = musc.rscin(scores, long, k, similarity=similarity)  # type: ignore[arg-type]
            np.testing.assert_allclose(found, np.mean(parts, axis=0), atol=1e-12, rtol=0, err_msg=similarity)
        # Rounded once, to f32.
        golden = tensors["k" + "".join(map(str, k))]
        np.testing.assert_allclose(musc.rscin(scores, tokens, k), golden, atol=1e-6, rtol=0)


def test_figures_are_the_goldens() -> None:
    tensors, _ = data("metrics")
    golden = json.loads((REPOSITORY / "tests/data/metrics.json").read_text())
    image = musc.metrics.image_level(tensors["gt_image"], tensors["score_image"])
    pixel = musc.metrics.pixel_level(tensors["gt_pixel"], tensors["score_pixel"])
    for level, found in (("image", image), ("pixel", pixel)):
        for name, figure in found._asdict().items():
            assert figure == pytest.approx(golden[f"{level}_{name.replace('_', '')}"], abs=1e-6), (level, name)
    again = musc.metrics.pixel_level(tensors["gt_pixel"] != 0, np.asfortranarray(tensors["score_pixel"]))
    assert again == pixel
    double = musc.metrics.pixel_level(tensors["gt_pixel"], tensors["score_pixel"].astype(np.float64))
    assert double.auroc == pixel.auroc
    inside = np.ones(tensors["gt_pixel"].shape, bool)
    assert musc.metrics.pixel_level(tensors["gt_pixel"], tensors["score_pixel"], inside) == pixel
    inside[:, 20:] = False
    part = musc.metrics.pixel_level(tensors["gt_pixel"], tensors["score_pixel"], inside)
    assert part == musc.metrics.pixel_level(tensors["gt_pixel"][:, :20], tensors["score_pixel"][:, :20])
    none = musc.metrics.image_level([0, 0, 0], [0.1, 0.2, 0.3])
    assert none == (None, None, None)
    assert musc.metrics.image_level([False, True, False, True], [0.1, 0.9, 0.8, 0.7]).auroc == 0.75


def test_a_threshold_is_the_rule_s() -> None:
    scores = np.linspace(0, 1, 11, dtype=np.float32)
    assert musc.threshold(scores, "quantile:0.5") == 0.5
    assert musc.threshold(scores, 0.25) == 0.25
    assert (scores > musc.threshold(scores, "share:0.2")).sum() == 2
    assert musc.threshold([0.1, 0.2, 0.7, 0.9], "f1", labels=[0, 0, 1, 1]) == pytest.approx(0.2)
    assert musc.threshold(scores) == musc.threshold(scores, "gap")


def test_backbones_are_named() -> None:
    assert "dinov2_vits14" in musc.backbones() and musc.built_in_weights and musc.__version__
