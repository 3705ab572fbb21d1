#!/usr/bin/env python3
"""Asks a second judge, the static checker `sentryward` (PyPI), whether the shipped kernels are free of races.

    python -m venv v && v/bin/pip install sentryward==0.1.1 && v/bin/python tools/cuda/races.py [--timeout S] [STEM ...]

It checks one launch shape at a time, for every schedule: shapes are small, with a ragged edge. The fields of the
parameter struct that decide control flow are given to it, found by offset in kernels/common/params.h; pointers stay
unknown, distinct objects. docs/kernels.md says what came of it.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GEMM = dict(m=136, n=136, k=64, lda=64, ldb=64, ldo=136, rows_per_image=68, first_image_b=2, channels=64)
NORM = dict(rows=6, width=256, out_rows_per_image=6)
LNAMD = dict(images=2, grid=3, width=128, degrees=3, degree=[1, 3, 5, 0], norm_images=2, channels=128)
# Stem, entry, struct, grid, threads, dynamic shared bytes, fields.
LAUNCHES = [
    ("layer_norm", "layer_norm_store_f16", "LayerNormParams", (2, 1, 1), 128, 0, NORM),
    ("layer_norm", "layer_norm_stream_f32", "LayerNormParams", (2, 1, 1), 128, 0, NORM),
    ("layer_norm", "layer_norm_round_f16", "LayerNormParams", (2, 1, 1), 128, 0, NORM),
    ("patch_embed", "patch_embed_rows_f16", "PatchEmbedParams", (1, 2, 1), 256, 0,
     dict(images=1, grid=2, patch=4, k_padded=64)),
    ("patch_embed", "patch_embed_class_f32", "PatchEmbedParams", (2, 1, 1), 256, 0, dict(images=2, grid=2, width=128)),
    ("lnamd", "lnamd_sums_f16", "LnamdParams", (5, 1, 1), 128, 0, LNAMD),
    ("lnamd", "lnamd_mean_f32", "LnamdParams", (2, 1, 1), 256, 0, LNAMD),
    ("lnamd", "lnamd_norms_f16", "LnamdParams", (3, 2, 1), 32, 36, LNAMD),
    ("interval_mean", "interval_mean_keys_f32", "IntervalMeanParams", (2, 2, 1), 256, 0,
     dict(images=9, patches=36, images_a=2, rank_high=3)),
    ("attention", "attention_flash_f16", "AttentionParams", (2, 1, 1), 128, 0, dict(images=1, tokens=150, heads=1)),
    ("gemm", "gemm_bias_f16", "GemmParams", (4, 1, 1), 128, 0, GEMM),
    ("gemm", "gemm_bias_gelu_f16", "GemmParams", (4, 1, 1), 128, 0, GEMM),
    ("gemm", "gemm_bias_residual_f16", "GemmParams", (4, 1, 1), 128, 0, GEMM),
    ("gemm", "gemm_embed_f16", "GemmParams", (4, 1, 1), 128, 0, GEMM),
    ("gemm", "gemm_gram_f16", "GemmParams", (4, 1, 1), 128, 0, GEMM),
    ("gemm", "gemm_gram_max_f16", "GemmParams", (4, 1, 1), 128, 0, dict(GEMM, images=4, kept=4)),
    ("patch_distance", "patch_distance_max_f16", "PatchDistanceParams", (4, 1, 1), 128, 0,
     dict(images=4, rows_per_image=68, width=64, images_a=2, first_image_b=2, images_b=2, kept=4, channels=64)),
    ("gram_pool", "gram_pool_35_f32", "GramPoolParams", (2, 1, 1), 160, (16 * 552 + 2 * 8 * 8 + 2 * 5 * 4 + 4) * 4,
     dict(images=2, grid=5, images_a=1, first_image_b=1, images_b=1, strip_rows=8, degrees=2, degree=[3, 5, 0, 0],
          kept=2)),
]


def fields(struct):
    """Name, offset, type and length of every 32-bit field of a struct, from the shared header."""
    text = (ROOT / "kernels/common/params.h").read_text()
    body = re.search(r"typedef struct %s \{(.*?)\} %s;" % (struct, struct), text, re.S).group(1)
    offset = 0
    for kind, name, length in re.findall(r"(MUSC_PTR\([^)]*\)|uint32_t|float) (\w+)(?:\[(\w+)\])?;", body):
        if kind.startswith("MUSC_PTR"):
            offset += 8
            continue
        count = {"": 1, "MUSC_MAX_DEGREES": 4}.get(length) or int(length)
        yield name, offset, kind, count
        offset += 4 * count


def arguments(entry, struct, values):
    """The fields of a launch as the checker wants them; what is not named is 0."""
    listed = []
    for name, offset, kind, count in fields(struct):
        value = values.get(name, 0)
        for at in range(count):
            if kind == "uint32_t":
                listed.append({"parameter": f"{entry}_param_0", "offset": offset + 4 * at, "type": "u32",
                               "value": value[at] if isinstance(value, list) else value})
    return listed


def main():
    parser = argparse.ArgumentParser(description="races of the kernels, by sentryward")
    parser.add_argument("stems", nargs="*")
    parser.add_argument("--timeout", type=int, default=120, help="seconds a kernel")
    parser.add_argument("--target", default="80", choices=["75", "80"])
    options = parser.parse_args()
    program = Path(sys.executable).parent / "sentryward"
    if not program.exists():
        sys.exit(f"no {program}: install sentryward into this Python")
    races = False
    for stem, entry, struct, grid, threads, shared, values in LAUNCHES:
        if options.stems and stem not in options.stems:
            continue
        launch = {"grid_dim": list(grid), "block_dim": [threads, 1, 1], "dynamic_shared_bytes": shared}
        document = {"schema": "spverify.kernel-input/v1", "entry": entry, "launch": launch,
                    "arguments": arguments(entry, struct, values)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "input.json"
            path.write_text(json.dumps(document))
            run = subprocess.run([program, "--input", path, "--timeout", str(options.timeout), "--memory-limit-mib",
                                  "4000", ROOT / f"kernels/prebuilt/{stem}.compute_{options.target}.ptx"],
                                 capture_output=True, text=True)
        try:
            said = json.loads(run.stdout)
        except ValueError:
            print(f"{entry:26} no answer: {run.stderr.strip()[:200]}", flush=True)
            continue
        told = "; ".join(f"{d.get('code')} {d.get('message')} {d.get('details', {}).get('location', {}).get('line', '')}"
                         for d in said.get("diagnostics", [])[:2])
        print(f"{entry:26} {said['result']:26} {said.get('elapsed_seconds', 0):6.1f} s  {told}"[:300], flush=True)
        races |= said["result"] in ("potential_race", "not_wellsynced")
    sys.exit(1 if races else 0)


if __name__ == "__main__":
    main()
