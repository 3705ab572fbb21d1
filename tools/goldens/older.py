"""The goldens that were here before this reference: each is computed anew from its inputs and compared.

They come from another program (float32 in PyTorch for the tokens, float64 for most else). So what this reference gives
differs from them by the rounding of float32, and the bounds say how much of it is allowed.
"""

import json
import random

import numpy as np

import figures
import scoring
import storage
import vit

# Tokens: f32 through four blocks; PyTorch's own rounding was measured at 3e-7 of the norm.
TOKENS = 2e-6
# Scores of f32 tokens with distances near 1: 4e-7 between the authors' program and float64.
SCORES = 1e-6
RSCIN = 1e-6
FIGURES = 1e-9


class Report:
    """Lines of figures, and whether any was beyond its bound."""

    def __init__(self, quiet=False):
        self.failed, self.quiet = [], quiet

    def line(self, name, error, bound, unit):
        # A NaN is not within any bound.
        good = bool(error <= bound)
        if not good:
            self.failed.append(name)
        if not (good and self.quiet):
            print(f"{'ok  ' if good else 'FAIL'} {name}: {error:.2e} {unit} (bound {bound:.0e})")

    def relative(self, name, found, expected, bound):
        expected = expected.astype(np.float64)
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected) if found.shape == expected.shape else np.nan
        largest = np.abs(found - expected).max() if found.shape == expected.shape else np.nan
        self.line(name, error, bound, f"relative L2, largest difference {largest:.2e},")

    def absolute(self, name, found, expected, bound):
        expected = np.asarray(expected, np.float64)
        error = np.abs(found - expected).max() if np.shape(found) == expected.shape else np.nan
        self.line(name, error, bound, "largest difference")


def tiny(report, data):
    for family in ("clip", "dino", "dinov2"):
        model = vit.Vit(family, storage.read(data / f"{family}_tiny_weights.safetensors")[0])
        file, _ = storage.read(data / f"{family}_tiny.safetensors")
        for size in ("native", "resized"):
            for activation in ("gelu", "quick_gelu") if family == "clip" else ("gelu",):
                prefix = f"{size}.{activation}" if family == "clip" else size
                layers, class_tokens = model.forward(file[f"{size}.pixels"], (1, 3), activation)
                for name, found in (("layer1", layers[1]), ("layer3", layers[3]), ("class_token", class_tokens)):
                    report.relative(f"{family}_tiny {prefix}.{name}", found, file[f"{prefix}.{name}"], TOKENS)


def stages(report, data):
    file, metadata = storage.read(data / "stages_small.safetensors")
    degrees = [int(r) for r in metadata["r_list"].split(",")]
    tokens = [file["tokens.0"], file["tokens.1"]]
    grid = (7, 7)
    scores = scoring.by_degree_and_layer(tokens, grid, degrees)
    patch_scores = scores.mean((0, 1))
    maps = scoring.anomaly_maps(patch_scores, grid, (int(metadata["size"]),) * 2)
    report.absolute("stages_small patch_scores_by_r_layer", scores, file["patch_scores_by_r_layer"], SCORES)
    report.absolute("stages_small patch_scores", patch_scores, file["patch_scores"], SCORES)
    report.absolute("stages_small anomaly_map", maps, file["anomaly_map"], SCORES)


def rscin(report, data):
    file, _ = storage.read(data / "rscin.safetensors")
    for name, counts in (("k123", (1, 2, 3)), ("k189", (1, 8, 9)), ("k5", (5,))):
        report.absolute(f"rscin {name}", scoring.rscin(file["scores"], file["class_tokens"], counts), file[name], RSCIN)
    file, _ = storage.read(data / "rscin_clip.safetensors")
    for name, counts in (("mvtec_ad.bottle", (1, 2, 3)), ("mvtec_ad.screw", (1, 2, 3)), ("visa.pcb4", (1, 8, 9))):
        found = scoring.rscin(file[f"{name}.scores"], file[f"{name}.class_tokens"], counts)
        report.absolute(f"rscin_clip {name}", found, file[f"{name}.rescored"], RSCIN)


def metrics(report, data):
    file, _ = storage.read(data / "metrics.safetensors")
    expected = json.loads((data / "metrics.json").read_text())
    found = figures.all_seven(file["gt_image"], file["score_image"], file["gt_pixel"], file["score_pixel"])
    for name, value in expected.items():
        report.absolute(f"metrics {name}", found.get(name, np.nan), value, FIGURES)


def divided(kinds, count):
    """Subsets of the authors' divide_num: within each type a shuffle by one random.Random(42), dealt out in turn."""
    shuffler, start, subsets = random.Random(42), 0, [[] for _ in range(count)]
    for _, size in kinds:
        images = list(range(start, start + size))
        start += size
        shuffler.shuffle(images)
        for at, subset in enumerate(subsets):
            subset.extend(images[at::count])
    return subsets


def divide(report, data):
    for case in json.loads((data / "divide.json").read_text()):
        wrong = divided(case["kinds"], case["divide_num"]) != case["subsets"]
        total = sum(size for _, size in case["kinds"])
        report.line(f"divide {total} images by {case['divide_num']}", float(wrong), 0, "subsets that differ")


# What reads which files.
CHECKS = {
    tiny: [f"{family}_tiny{end}" for family in ("clip", "dino", "dinov2") for end in (".safetensors", "_weights.safetensors")],
    stages: ["stages_small.safetensors"],
    rscin: ["rscin.safetensors", "rscin_clip.safetensors"],
    metrics: ["metrics.safetensors", "metrics.json"],
    divide: ["divide.json"],
}


def check(report, data):
    for run, files in CHECKS.items():
        absent = [name for name in files if not (data / name).is_file()]
        if absent:
            report.failed.extend(f"{name} is absent" for name in absent)
            continue
        run(report, data)
