#!/usr/bin/env python3
"""How far two number formats are from each other: two files of `musc-run extract` or `musc-run score`, on the same images.

    pip install numpy safetensors
    cargo build --release --bin musc-run
    jq -r '.images[]' GOLDEN.json > PHOTOS/list.txt
    for format in f32 bf16; do
        musc-run extract PHOTOS/list.txt --img-resize 224 --precision $format --output $format.safetensors
    done
    python tools/compare_precisions.py f32.safetensors bf16.safetensors --precisions f32 bf16 --labels GOLDEN.json --list PHOTOS/list.txt
    python tools/compare_precisions.py GOLDEN.safetensors bf16.safetensors --precisions f32 bf16 --listed one ...   # and the same

ONE and OTHER hold `patch_scores` [N,L] and `image_scores` [N], such as the goldens and the files of `musc-run score`; or
`tokens.LAYER` and `class_tokens`, which `musc-run score` then makes scores of, each in its format of --precisions (none: its
own default). Class tokens, for RsCIN, come from the same files or from --class-tokens. Printed, as JSON: the largest and the
mean change of a patch score, of an image score and of a score after RsCIN (cosine), the relative L2 of each tensor of tokens,
how many of all pairs of images change places, and, with --labels, each side's AUROC before and after RsCIN. RsCIN and AUROC
are the f64 definitions of tools/goldens. Exit status 1 for values that are not finite, and for files that do not fit together.

musc-run sorts its images by path. --list names the paths in the order of the labels, so that these are sorted too, and --listed a
side whose images are in that order, as the goldens' are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/goldens"))
import figures  # noqa: E402
import scoring  # noqa: E402


def read(path):
    """The tensors of a file, in f64, and its metadata."""
    with safe_open(path, "numpy") as file:
        names = [name for name in file.keys() if "anomaly_map" not in name and "_by_" not in name]
        tensors = {name: file.get_tensor(name).astype(np.float64) for name in names}
        metadata = file.metadata() or {}
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            sys.exit(f"{path}: {name} has values that are not finite")
    return tensors, metadata


def side(options, path, precision, class_tokens):
    """One side's patch and image scores, with its tokens where it has them."""
    found, metadata = read(path)
    if "patch_scores" not in found:
        if not any(name.startswith("tokens.") for name in found):
            sys.exit(f"{path}: found {sorted(found)}, expected patch_scores, or tokens of layers")
        with tempfile.TemporaryDirectory() as folder:
            scored = Path(folder) / "scores.safetensors"
            command = [options.musc_run.resolve(), "score", "--features", path, "--output", scored, "--quiet"]
            command += ["--device", "cpu", "--threads", str(options.threads)]
            command += ["--precision", precision] if precision else []
            size = options.size or metadata.get("image_size")
            command += ["--img-size", size if "x" in size else f"{size}x{size}"] if size else []
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found |= read(scored)[0]
    if class_tokens:
        found["class_tokens"] = read(class_tokens)[0]["class_tokens"]
    return found


def change(one, other, what):
    if one.shape != other.shape:
        sys.exit(f"{what}: {list(one.shape)} and {list(other.shape)}, expected the same images and grid")
    difference = np.abs(one - other)
    return {"largest": difference.max(), "mean": difference.mean()}


def sorted_by_path(paths):
    """Places of the paths in the order in which musc-run takes them."""
    return sorted(range(len(paths)), key=lambda at: Path(paths[at]).parts)


def swapped(one, other):
    """Pairs of images of which another one is the higher, and all pairs."""
    pairs = np.triu_indices(len(one), 1)
    order = [np.sign(scores[pairs[0]] - scores[pairs[1]]) for scores in (one, other)]
    return int((order[0] * order[1] < 0).sum()), len(pairs[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--precisions", nargs=2, default=[None, None], metavar=("ONE", "OTHER"))
    parser.add_argument("--class-tokens", nargs=2, default=[None, None], type=Path, metavar=("ONE", "OTHER"))
    parser.add_argument("--labels", type=Path, help='JSON with "labels", 0 or 1 an image, in the order of the images')
    parser.add_argument("--list", type=Path, help="the images' paths in the order of the labels, one a line")
    parser.add_argument("--listed", choices=["one", "other"], nargs="+", default=[], help="sides that are in that order")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--size", help="S or HxW of the maps that image scores are the largest values of")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--musc-run", type=Path, default=ROOT / "target/release/musc-run")
    options = parser.parse_args()
    paths = options.one, options.other
    sides = [side(options, *each) for each in zip(paths, options.precisions, options.class_tokens)]
    one, other = sides
    images = len(one["image_scores"])
    order = list(range(images))
    if options.list:
        order = sorted_by_path([line for line in options.list.read_text().splitlines() if line])
        if len(order) != images:
            sys.exit(f"{options.list}: {len(order)} paths, expected {images}")
    elif options.listed:
        sys.exit("--listed without --list: the order is not known")
    for name, found in ("one", one), ("other", other):
        if name in options.listed:
            found |= {key: found[key][order] for key in ("patch_scores", "image_scores", "class_tokens") if key in found}
    report = {"images": images}
    for name in ("patch_scores", "image_scores"):
        report[name] = change(one[name], other[name], name)
    for name in sorted(name for name in one if "tokens" in name and name in other):
        change(one[name], other[name], name)
        report[f"{name}_l2"] = np.linalg.norm(one[name] - other[name]) / np.linalg.norm(one[name])
    raw = [found["image_scores"] for found in sides]
    kinds = {"max": raw}
    if all("class_tokens" in found for found in sides):
        counts = [min(k, images) for k in options.k]
        rescored = [scoring.rscin(found["image_scores"], found["class_tokens"], counts, cosine=True) for found in sides]
        report["rescored"] = change(*rescored, "rescored")
        kinds["rscin"] = rescored
    for kind, scores in kinds.items():
        report[f"{kind}_pairs_swapped"], report["pairs"] = swapped(*scores)
    if options.labels:
        labels = np.array(json.loads(options.labels.read_text())["labels"])
        if len(labels) != images:
            sys.exit(f"{options.labels}: {len(labels)} labels, expected {images}")
        labels = labels[order]
        for kind, scores in kinds.items():
            report[f"auroc_{kind}"] = [figures.auroc(labels, each) for each in scores]
    print(json.dumps(report, allow_nan=False, default=float))


if __name__ == "__main__":
    main()
