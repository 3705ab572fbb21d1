"""References that are kept, and new images against them."""

from __future__ import annotations

import json
from pathlib import Path

import musc
import numpy as np
import pytest
from conftest import SIZE, MuscRun, Picture, cloth, equal_to_run, write_png


@pytest.fixture(scope="module")
def good() -> list[Picture]:
    return [cloth(number) for number in range(20, 31) if number % 4 != 3]


@pytest.fixture(scope="module")
def bank(inspector: musc.Inspector, good: list[Picture]) -> musc.Bank:
    return inspector.bank(good)


def test_a_bank_is_what_is_said(bank: musc.Bank, good: list[Picture]) -> None:
    assert len(bank) == len(bank.names) == len(good) and bank.grid == (8, 8)
    assert bank.raw_scores.dtype == np.float32 and bank.raw_scores.shape == (len(good),)
    assert bank.thumbnails.shape == (len(good), 96, 96, 3) and bank.thumbnails.dtype == np.uint8
    assert bank.threshold == musc.threshold(bank.raw_scores, bank.rule) and bank.rule == "gap"
    assert bank.with_rule(0.5).threshold == 0.5 and len(bank.weights_sha256) == 64
    assert repr(bank).startswith(f"<musc.Bank of {len(good)} references, dinov2_vits14 at 112x112")
    with pytest.raises(ValueError, match="labels to decide by"):
        bank.with_rule("f1")


def test_a_bank_that_was_kept_scores_the_same(
    inspector: musc.Inspector, bank: musc.Bank, pictures: list[Picture], tmp_path: Path
) -> None:
    bank.save(tmp_path / "part.bank.safetensors")
    again = musc.Bank.open(tmp_path / "part.bank.safetensors")
    fresh = musc.Inspector(**again.settings, device="cpu")
    one, two = inspector.predict(pictures, bank), fresh.predict(pictures, again)
    np.testing.assert_array_equal(one.scores, two.scores, strict=True)
    np.testing.assert_array_equal(one.maps, two.maps, strict=True)
    assert one.threshold == two.threshold == bank.threshold
    assert [word == "NG" for word in one.decisions] == (one.raw_scores > bank.threshold).tolist()
    # Each as if it were the only one; a single picture needs no list.
    alone = inspector.predict(pictures[3], bank)
    assert len(alone) == 1 and alone.raw_scores[0] == one.raw_scores[3] and alone.decisions[0] == one.decisions[3]
    other = inspector.predict(pictures, bank.with_rule("share:0.1"))
    assert other.threshold == musc.threshold(bank.raw_scores, "share:0.1")
    assert one.decide("quantile:0.5").threshold == pytest.approx(float(np.median(bank.raw_scores)), rel=1e-6)


def test_numbers_are_those_of_musc_run(
    musc_run: MuscRun, inspector: musc.Inspector, folder: Path, good: list[Picture], tmp_path: Path
) -> None:
    root, kept, also = tmp_path / "good", tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    root.mkdir()
    for number, image in enumerate(good):
        write_png(root / f"{number:02}.png", image)
    musc_run.words("bank", "build", root, "--img-resize", SIZE, "--device", "cpu", "--output", kept, "--quiet")
    bank = inspector.bank(root)
    bank.save(also)
    assert also.read_bytes() == kept.read_bytes()
    lines = musc_run.words("predict", "--bank", kept, folder, "--device", "cpu", "--quiet", "--json")
    theirs = [json.loads(line) for line in lines.splitlines()]
    found = inspector.predict(folder, musc.Bank.open(kept))
    assert found.names == [image["path"] for image in theirs]
    assert found.scores.tolist() == [image["score"] for image in theirs]
    assert found.raw_scores.tolist() == [np.float32(image["raw_score"]) for image in theirs]
    assert found.decisions == [image["decision"] for image in theirs]
    run = musc_run(folder, "--img-resize", SIZE, "--references", root)
    equal_to_run(inspector.inspect(folder, references=root), run)
    equal_to_run(inspector.inspect(folder, references=bank), run)
    run = musc_run(folder, "--img-resize", SIZE, "--references", f"all+{root}")
    equal_to_run(inspector.inspect(folder, references=bank, each_other=True), run)


def test_banks_grow_and_are_joined(inspector: musc.Inspector, good: list[Picture]) -> None:
    whole = inspector.bank(good)
    first = inspector.bank(good[:4])
    grown = inspector.add_to_bank(first, good[2:])
    joined = inspector.merge_banks([first, inspector.bank(good[4:])])
    assert len(first) == 4 and len(grown) == len(joined) == len(good)
    # One after the other: each is compared with its own bank.
    near, far = inspector.predict(good[4], grown), inspector.predict(good[4], first)
    assert near.raw_scores[0] != far.raw_scores[0]
    np.testing.assert_array_equal(inspector.predict(good[4], grown).raw_scores, near.raw_scores)
    np.testing.assert_array_equal(grown.raw_scores, whole.raw_scores, strict=True)
    np.testing.assert_array_equal(joined.raw_scores, whole.raw_scores, strict=True)


def test_a_bank_of_other_settings_is_refused(bank: musc.Bank, pictures: list[Picture], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size 126x126, expected size 112x112, as the (bank has|references have)"):
        musc.Inspector(size=126, device="cpu").predict(pictures, bank)
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        musc.Bank.open(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="broken.safetensors"):
        musc.Bank.open(tmp_path / "broken.safetensors")
    with pytest.raises(OSError):
        bank.save(tmp_path / "broken.safetensors" / "x.safetensors")
