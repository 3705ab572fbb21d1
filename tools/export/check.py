#!/usr/bin/env python3
"""Reads the exports of a run as their programs do, and compares them with the run's own maps and thresholds.

    python tools/export/check.py OUTPUT_FOLDER [--pad]      # of a run with --save-maps and all exports
"""

import argparse
import contextlib
import csv
import io
import json
import sys
import urllib.parse
import xml.etree.ElementTree as xml
from pathlib import Path

import jsonschema
import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from safetensors import safe_open

SCHEMA = Path(__file__).with_name("labelstudio.schema.json")


def place(size, canvas, pad):
    """Top, left, height and width of the picture on its map: see src/image/fit.rs."""
    (height, width), (h, w) = size, canvas
    if not pad:
        return 0, 0, h, w
    scale = min(h / height, w / width)
    inside = max(1, min(h, int(height * scale + 0.5))), max(1, min(w, int(width * scale + 0.5)))
    return (h - inside[0]) // 2, (w - inside[1]) // 2, *inside


def on_picture(values, size, pad):
    """The map on the picture, and at each pixel of the original image the pixel of the map that covers its middle."""
    top, left, h, w = place(size, values.shape, pad)
    inside = np.full((h, w), -np.inf)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            at = min(max(y - top, 0), h - 1), min(max(x - left, 0), w - 1)
            inside[at] = max(inside[at], values[y, x])
    rows = ((np.arange(size[0]) + 0.5) * h / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * w / size[1]).astype(int)
    return inside, rows, columns


def filled(mask):
    """A mask with its holes: what its surroundings do not reach by sides."""
    height, width = mask.shape
    outside = np.zeros((height + 2, width + 2), bool)
    free = np.pad(~mask, 1, constant_values=True)
    edge = [(0, 0)]
    outside[0, 0] = True
    while edge:
        y, x = edge.pop()
        for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= near[0] < height + 2 and 0 <= near[1] < width + 2 and free[near] and not outside[near]:
                outside[near] = True
                edge.append(near)
    return ~outside[1:-1, 1:-1]


def pieces(mask):
    """The number of pieces that touch by a side or a corner."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            y, x = edge.pop()
            near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
    return count


def rim(mask, reach):
    """The pixels within `reach` (rows, columns) of the edge of a mask; an outline runs along the border too."""
    rim = np.zeros_like(mask)
    padded = np.pad(mask, [(r, r) for r in reach])
    height, width = mask.shape
    for y in range(2 * reach[0] + 1):
        for x in range(2 * reach[1] + 1):
            rim |= padded[y : y + height, x : x + width] != mask
    return rim


class Faults(list):
    def unless(self, holds, text):
        if not holds:
            self.append(text)


def check_coco(path, images, maps, pad, faults):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    folder = Path(coco.dataset["info"]["folder"])
    faults.unless(coco.getCatIds() == [1], f"category ids {coco.getCatIds()}")
    faults.unless(len(coco.imgs) == len(images), f"{len(coco.imgs)} images of {len(images)}")
    names = [image["file_name"] for image in coco.imgs.values()]
    faults.unless(len(set(names)) == len(names), "file names that are equal")
    faults.unless(len(coco.anns) == len(coco.dataset["annotations"]), "annotation ids that are equal")
    compared, worst = 0, 1.0
    for at, (image, row) in enumerate(zip(coco.dataset["images"], images)):
        name = image["file_name"]
        faults.unless(not Path(name).is_absolute() and "\\" not in name and ".." not in name, f"{name}: not relative")
        faults.unless((folder / name).samefile(row["path"]), f"{name}: not {row['path']}")
        size = Image.open(folder / name).size
        faults.unless((image["width"], image["height"]) == size, f"{name}: {image['width']}x{image['height']} for {size}")
        inside, rows, columns = on_picture(maps[at].astype(np.float64), size[::-1], pad)
        above = inside > float(row["threshold"])
        annotations = coco.imgToAnns[image["id"]]
        faults.unless(len(annotations) == pieces(above), f"{name}: {len(annotations)} annotations, {pieces(above)} regions")
        faults.unless(bool(annotations) == (row["decision"] == "NG"), f"{name}: {row['decision']}, {len(annotations)} annotations")
        joined = np.zeros(size[::-1], bool)
        for annotation in annotations:
            what = f"{name} {annotation['id']}"
            points = np.array(annotation["segmentation"][0]).reshape(-1, 2)
            faults.unless(len(annotation["segmentation"]) == 1 and len(points) >= 3, f"{what}: {len(points)} points")
            low, high = points.min(axis=0), points.max(axis=0)
            faults.unless((low >= 0).all() and (high <= size).all(), f"{what}: beyond the image")
            faults.unless(np.allclose(annotation["bbox"], [*low, *(high - low)], rtol=0, atol=1e-3), f"{what}: box")
            x, y = points.T
            area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
            faults.unless(0 < area and abs(area - annotation["area"]) <= 1e-3 * max(1, area), f"{what}: area {annotation['area']}, {area}")
            mask = coco.annToMask(annotation).astype(bool)
            # pycocotools sets a pixel by its middle, rounded to a fifth of a pixel: along the outline it may miss one either way.
            around = (high - low).sum() * 2 + 4
            turns = sum(np.hypot(*(points - np.roll(points, -1, axis=0)).T))
            faults.unless(abs(mask.sum() - area) <= max(around, turns), f"{what}: {mask.sum()} pixels set, area {area}")
            joined |= mask
        if annotations:
            solid = filled(above)
            whole = solid[np.ix_(rows, columns)]
            # The polygon is within half a pixel of the map of the true outline, the raster within a pixel of the image of it.
            reach = [int(np.ceil(0.5 + above.shape[axis] / size[1 - axis])) for axis in (0, 1)]
            wrong = (joined != whole) & ~rim(solid, reach)[np.ix_(rows, columns)]
            faults.unless(not wrong.any(), f"{name}: {wrong.sum()} pixels differ away from the outline")
            union = (joined | whole).sum()
            share = (joined & whole).sum() / union if union else 1.0
            compared += 1
            worst = min(worst, share if whole.sum() >= 400 else 1.0)
    faults.unless(compared > 0, "no image with annotations: nothing was compared")
    # A region of 400 pixels with a rim of one pixel all round that differs half the time.
    faults.unless(worst >= 0.8, f"the least IoU of images with 400 pixels and more: {worst:.3f}")
    return f"{len(coco.imgs)} images, {len(coco.anns)} annotations, least IoU {worst:.3f}"


def check_label_studio(folder, images, faults):
    tasks = json.loads((folder / "labelstudio.json").read_text())
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for error in schema.iter_errors(tasks):
        faults.append(f"labelstudio.json {error.json_path}: {error.message}")
    faults.unless(len(tasks) == len(images), f"{len(tasks)} tasks of {len(images)} images")
    scores = [task["predictions"][0]["score"] for task in tasks]
    faults.unless(scores == sorted(scores, reverse=True), "tasks are not worst first")
    by_name = {Path(row["path"]).as_posix().rsplit("/images/", 1)[-1]: row for row in images}
    for task in tasks:
        path = urllib.parse.unquote(task["data"]["image"].partition("?d=")[2])
        row = by_name.get(path.partition("/")[2])
        faults.unless(row is not None, f"{path}: of no image")
        results = task["predictions"][0]["result"]
        faults.unless(row is None or bool(results) == (row["decision"] == "NG"), f"{path}: {len(results)} regions")
        ids = [result["id"] for result in results]
        faults.unless(len(ids) == len(set(ids)), f"{path}: ids that are equal")
    # The configuration has the tags that the results name.
    tags = {tag.get("name"): tag for tag in xml.parse(folder / "labelstudio.xml").iter() if tag.get("name")}
    labels = tags["defect"]
    faults.unless(labels.tag == "PolygonLabels" and labels.get("toName") == "image", "labelstudio.xml: PolygonLabels")
    faults.unless([label.get("value") for label in labels] == ["defect"], "labelstudio.xml: labels")
    faults.unless(tags["image"].tag == "Image" and tags["image"].get("value") == "$image", "labelstudio.xml: Image")
    return f"{len(tasks)} tasks"


def check_fiftyone(folder, images, faults):
    metadata = json.loads((folder / "metadata.json").read_text())
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    # By the absence of a version FiftyOne's importer takes the layout without ids of its data base.
    faults.unless("version" not in metadata and metadata["media_type"] == "image", f"metadata.json: {metadata}")
    faults.unless(len(samples) == len(images), f"{len(samples)} samples of {len(images)}")
    for sample, row in zip(samples, images):
        faults.unless(Path(sample["filepath"]).samefile(row["path"]), f"{sample['filepath']}: not {row['path']}")
        with Image.open(folder / sample["anomaly_map"]["map_path"]) as grey:
            faults.unless(grey.mode == "L", f"{sample['filepath']}: map of mode {grey.mode}")
        lines = sample["defects"]["polylines"]
        faults.unless(bool(lines) == (row["decision"] == "NG"), f"{sample['filepath']}: {len(lines)} polylines")
        for line in lines:
            points = np.array(line["points"][0])
            faults.unless(len(points) >= 3 and points.min() >= 0 and points.max() <= 1, f"{sample['filepath']}: points")
            faults.unless(line["closed"] and line["filled"] and line["_cls"] == "Polyline", f"{sample['filepath']}: {line}")
    return f"{len(samples)} samples"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pad", action="store_true", help="the run had --keep-aspect and --pad")
    options = parser.parse_args()
    with open(options.folder / "scores.csv", newline="") as file:
        images = list(csv.DictReader(file))
    with safe_open(options.folder / "anomaly_maps.safetensors", framework="numpy") as file:
        maps = file.get_tensor("anomaly_map")
    export = options.folder / "export"
    faults = Faults()
    said = [
        check_coco(export / "coco.json", images, maps, options.pad, faults),
        check_label_studio(export, images, faults),
        check_fiftyone(export / "fiftyone", images, faults),
    ]
    for fault in faults[:50]:
        print(f"WRONG {fault}")
    print(f"{len(faults)} faults" if faults else "exports are as they should be: " + "; ".join(said))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
