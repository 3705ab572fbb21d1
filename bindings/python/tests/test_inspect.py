"""Images in, arrays out: the numbers of musc-run, whatever the images come as."""

from __future__ import annotations

import html
import re
from pathlib import Path

import musc
import numpy as np
import pytest
from conftest import REPOSITORY, SIZE, MuscRun, Picture, cloth, equal_to_run, write_png


def same(one: musc.Inspection, other: musc.Inspection) -> None:
    np.testing.assert_array_equal(one.scores, other.scores, strict=True)
    np.testing.assert_array_equal(one.raw_scores, other.raw_scores, strict=True)
    np.testing.assert_array_equal(one.patch_scores, other.patch_scores, strict=True)
    np.testing.assert_array_equal(one.maps, other.maps, strict=True)
    np.testing.assert_array_equal(one.thresholds, other.thresholds, strict=True)


def test_numbers_are_those_of_musc_run(musc_run: MuscRun) -> None:
    textile = REPOSITORY / "assets/textile"
    inspector = musc.Inspector(size=168, device="cpu", decide="share:0.3")
    found = inspector.inspect(textile)
    equal_to_run(found, musc_run(textile, "--img-resize", 168, "--decide", "share:0.3"))
    assert len(found) == 30 and found.maps.shape == (30, 168, 168) and found.patch_scores.shape == (30, 144)
    assert [bool(regions) for regions in found.regions].count(True) == 9


def test_every_setting_is_the_option_of_musc_run(musc_run: MuscRun, folder: Path, tmp_path: Path) -> None:
    mask = np.zeros((96, 128), bool)
    mask[10:90, 30:] = True
    white = np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)
    write_png(tmp_path / "mask.png", white)
    cases: list[tuple[musc.Inspector, dict[str, object], list[object]]] = [
        (
            musc.Inspector(size=(112, 140), r=[1, 5], interval=(0.0, 0.3), radius=2, k=[1, 4], device="cpu"),
            {},
            ["--img-size", "112x140", "--r-list", "1", "5", "--match", "2", "--rscin-k", "1", "4"],
        ),
        (
            musc.Inspector(keep_aspect=126, pad=True, device="cpu", layers=[3, 11], similarity="dot"),
            {"border": 4},
            ["--keep-aspect", 126, "--pad", "--feature-layers", 3, 11, "--rscin-similarity", "dot", "--ignore-border", 4],
        ),
        (
            musc.Inspector(size=56, tiles=(2, 2), tile_overlap=0.2, match_tiles="any", device="cpu"),
            {},
            ["--img-resize", 56, "--tiles", "2x2", "--tile-overlap", 0.2, "--match-tiles", "any"],
        ),
        (
            musc.Inspector(size=SIZE, device="cpu", decide="mebin", subsets=4, seed=3),
            {"roi": mask},
            ["--img-resize", SIZE, "--decide", "mebin", "--references", 4, "--seed", 3, "--roi", tmp_path / "mask.png"],
        ),
        (
            musc.Inspector(size=SIZE, device="cpu", precision="f32", subsets=5),
            {},
            ["--img-resize", SIZE, "--precision", "f32", "--references", 5],
        ),
        (
            musc.Inspector(size=SIZE, device="cpu", paper=True, decide=0.2, batch_size=3, threads=1),
            {},
            ["--img-resize", SIZE, "--paper", "--decide", 0.2],
        ),
        (
            musc.Inspector(size=SIZE, device="cpu", divide=2, decide="share:0.3"),
            {},
            ["--img-resize", SIZE, "--divide_num", 2, "--decide", "share:0.3"],
        ),
    ]
    for inspector, about, options in cases:
        equal_to_run(inspector.inspect(folder, **about), musc_run(folder, *options))  # type: ignore[arg-type]


def test_a_folder_a_list_and_arrays_are_the_same(
    inspector: musc.Inspector, inspection: musc.Inspection, folder: Path, pictures: list[Picture]
) -> None:
    paths = sorted(folder.glob("*.png"))
    for images in (str(folder), f"{folder}/*.png", paths, map(str, paths)):
        found = inspector.inspect(images)
        same(found, inspection)
        assert found.paths == paths and found.names == list(map(str, paths))
    (folder.parent / "list.txt").write_text("\n".join(map(str, paths)))
    same(inspector.inspect(folder.parent / "list.txt"), inspection)
    mirrored = [image[:, :, ::-1].copy() for image in pictures]
    for arrays in (pictures, np.stack(pictures), [image[:, :, ::-1] for image in mirrored], tuple(pictures)):
        found = inspector.inspect(arrays)
        same(found, inspection)
        assert found.paths is None and found.names[3] == "image 3"
    assert inspector.inspect(pictures, names=paths).names == list(map(str, paths))


def test_files_keep_their_order(inspector: musc.Inspector, inspection: musc.Inspection, folder: Path) -> None:
    paths = sorted(folder.glob("*.png"))[::-1]
    found = inspector.inspect(paths)
    assert found.paths == paths
    # The same images in another order: a product of two is rounded another way round, where it is in bf16 by twice what that
    # moves a score at most.
    np.testing.assert_allclose(found.raw_scores, inspection.raw_scores[::-1], atol=4e-4, rtol=0)


def test_arrays_are_what_is_said(inspection: musc.Inspection) -> None:
    count = len(inspection)
    assert inspection.scores.dtype == np.float64 and inspection.scores.shape == (count,)
    assert inspection.raw_scores.dtype == np.float32 and inspection.maps.dtype == np.float32
    assert inspection.grid == (8, 8) and inspection.input == (SIZE, SIZE) and inspection.k == [1, 2, 3]
    assert inspection.class_tokens.shape == (count, 384) and inspection.left_out is None
    assert inspection.maps is inspection.maps and inspection.scores is inspection.scores
    np.testing.assert_array_equal(inspection.maps.max(axis=(1, 2)), inspection.raw_scores)
    np.testing.assert_array_equal(inspection.map(-1), inspection.maps[-1])
    assert inspection.map(0, (96, 128)).shape == (96, 128)
    np.testing.assert_array_equal(
        musc.anomaly_maps(inspection.patch_scores, inspection.input), inspection.maps, strict=True
    )
    assert inspection.defective.tolist() == [word == "NG" for word in inspection.decisions]
    assert inspection.threshold == musc.threshold(inspection.raw_scores, inspection.rule)
    assert inspection.ranks[int(inspection.scores.argmax())] == 1
    assert set(inspection.seconds) >= {"features", "scoring"} and inspection.subsets == 1
    assert re.fullmatch(r"<musc.Inspection of 10 images, \d+ NG above 0\.\d+ \(gap\)>", repr(inspection))
    with pytest.raises(IndexError, match="image: found 10, expected one of 10"):
        inspection.map(10)


def test_another_decision_takes_the_same_scores(inspection: musc.Inspection) -> None:
    half = inspection.decide("share:0.5")
    assert half.defective.sum() == 5 and half.rule == "share:0.5"
    np.testing.assert_array_equal(half.scores, inspection.scores)
    assert [bool(regions) for regions in half.regions] == half.defective.tolist()
    own = inspection.decide("mebin")
    assert own.threshold is None and own.thresholds.shape == (10,)
    assert inspection.decide(0.25).threshold == 0.25
    region = next(regions for regions in half.regions if regions)[0]
    left, top, width, height = region.bounds
    low, high = region.polygon.min(axis=0), region.polygon.max(axis=0)
    np.testing.assert_allclose([left, top, left + width, top + height], [*low, *high])
    assert region.polygon.shape[1] == 2 and 0 <= left and left + width <= 128 and 0 < region.area <= 128 * 96
    assert half.threshold is not None and region.mean <= region.peak[2] and region.peak[2] > half.threshold


def test_labels_come_from_folders_or_a_table(inspector: musc.Inspector, folder: Path, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / ("spot" if number % 4 == 3 else "good")).mkdir(exist_ok=True)
        write_png(tmp_path / ("spot" if number % 4 == 3 else "good") / f"{number}.png", cloth(number))
    by_f1 = musc.Inspector(**{**inspector.settings, "decide": "f1"})
    found = by_f1.inspect(tmp_path, labels="from-folders")
    assert found.labels.count(True) == 2 and found.labels.count(False) == 6
    figures = musc.metrics.image_level(found.labels, found.raw_scores)  # type: ignore[arg-type]
    assert figures.f1_max is not None and found.rule == "f1"
    with pytest.raises(ValueError, match="labels to decide by: found 0, expected 10, one an image"):
        by_f1.inspect(folder)
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{folder}/{number:02}.png,{number % 2}\n" for number in range(10)))
    assert inspector.inspect(sorted(folder.glob("*.png")), labels=table).labels == [False, True] * 5


def test_what_is_not_looked_at_is_left_out(inspector: musc.Inspector, pictures: list[Picture]) -> None:
    mask = np.zeros((96, 128), bool)
    mask[:48] = True
    found = inspector.inspect(pictures, roi=mask)
    assert found.left_out is not None and found.left_out.dtype == np.bool_
    np.testing.assert_array_equal(found.left_out.reshape(10, 8, 8)[:, :4], False)
    np.testing.assert_array_equal(found.left_out.reshape(10, 8, 8)[:, 4:], True)
    assert not found.maps[:, SIZE // 2 + 14 :].any()


def test_bad_files_stop_it_or_are_skipped(inspector: musc.Inspector, folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "05.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="1 file is not a readable image\n  - .*05.png"):
        inspector.inspect(tmp_path)
    found = inspector.inspect(tmp_path, skip_bad=True)
    assert len(found) == 9 and [path.name for path, _ in found.skipped] == ["05.png"]
    assert found._repr_html_().count("<figure") == 9


def test_progress_is_told_and_may_stop_it(inspector: musc.Inspector, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    inspector.inspect(str(folder), progress=lambda *at: told.append(at))
    stages = {stage for stage, _, _ in told}
    assert stages and stages <= {"checking", "reading", "features", "scoring", "rescoring"}
    assert all(0 <= done <= max(steps, done) for _, done, steps in told)

    def stop(*_: object) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        inspector.inspect(folder, progress=stop)


def test_a_table_has_a_row_an_image(inspection: musc.Inspection) -> None:
    table = inspection.to_pandas()
    assert list(table) == ["name", "score", "raw_score", "rank", "decision", "threshold", "label"]
    assert table["raw_score"].tolist() == inspection.raw_scores.tolist() and len(table) == 10


def test_a_notebook_shows_the_worst_first_and_escapes_names(
    inspector: musc.Inspector, inspection: musc.Inspection, pictures: list[Picture]
) -> None:
    page = inspection._repr_html_()
    shown = re.findall(r'title="([^"]*)"', page)
    assert shown == [inspection.names[at] for at in np.argsort(inspection.ranks)]
    assert page.count("data:image/jpeg;base64,") == page.count("data:image/png;base64,") == 10
    assert len(page) < 400_000 and ">NG<" in page
    pictures_of = re.compile("jpeg;base64,([^\"]*)").findall
    assert len(set(pictures_of(page))) == 10
    hostile = '<script>alert("x")</script>&\'.png'
    page = inspector.inspect(pictures, names=[hostile, *"bcdefghij"])._repr_html_()
    assert "<script" not in page and html.escape(hostile, quote=False).replace('"', "&quot;") in page
    # Arrays may be written over afterwards: what is shown is what was seen.
    frames = [image.copy() for image in pictures]
    found = inspector.inspect(frames)
    for frame in frames:
        frame[:] = 0
    assert pictures_of(found._repr_html_()) == pictures_of(inspection._repr_html_())


def test_a_file_that_has_gone_is_shown_grey(inspector: musc.Inspector, pictures: list[Picture], tmp_path: Path) -> None:
    for number, image in enumerate(pictures[:4]):
        write_png(tmp_path / f"{number}.png", image)
    found = inspector.inspect(tmp_path)
    (tmp_path / "2.png").unlink()
    assert found._repr_html_().count("data:image/jpeg;base64,") == 4
