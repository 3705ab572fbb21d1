#!/usr/bin/env python3
"""Times a backbone's features in musc against the library that defines it, in turns, on the CPU.

    pip install torch==2.9.1 torchvision==0.24.1 "pillow<13" numpy safetensors open_clip_torch timm transformers
    cargo build --release --bin musc-run
    python tools/time_backbone.py --backbone ViT-L-14-336 --size 518 --images 4 --pairs 3

Random weights under the names of the library (see compare_backbones.py); both sides read the same file and the same pixels
and are a new process each time. Printed, as JSON: wall and CPU seconds an image for the features alone, and the peak memory
of the process, as medians over the pairs; and the ratios, library / musc, from least to most. The library runs all
images as one batch in inference mode, after one that is not timed. Of musc, a run with one image is taken from one with all,
so that reading the weights does not count. On a machine with other work CPU seconds are the steadier ones, with --threads 1.

--dtype bf16 puts torch.autocast("cpu", dtype=torch.bfloat16) around the library's run; --precision goes to musc-run as it is
(none: its own default).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
import compare_backbones as library  # noqa: E402

SCHEME = {"ViT": "A", "dino_": "D", "dinov2_": "E"}


def scheme_of(name):
    return next(scheme for start, scheme in SCHEME.items() if name.startswith(start))


def run_library(options):
    """Prints what one process of the library took."""
    torch.set_num_threads(options.threads)
    build = library.BUILD[scheme_of(options.backbone)][1]
    with torch.inference_mode():
        model, _, class_token = build(options.backbone, False, options.size)
        state = load_file(options.child / "library.safetensors")
        model.load_state_dict(state, strict=False)
        del state
        model.eval()
        pixels = load_file(options.child / "pixels.safetensors")["pixels"]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.dtype == "bf16"):
            class_token(pixels[:1])
            started = (time.perf_counter(), time.process_time())
            class_token(pixels)
        wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"wall": wall / len(pixels), "cpu": cpu / len(pixels), "peak": peak}))


def run_musc(options, folder):
    def run(pixels):
        command = [options.musc_run, "extract", "--pixels", folder / pixels, "--weights", folder / "weights.safetensors"]
        command += ["--backbone-name", options.backbone, "--activation", "gelu", "--threads", str(options.threads)]
        command += ["--device", "cpu", "--quiet", "--overwrite", "--output", folder / "features.safetensors"]
        command += ["--pretrained", options.pretrained] if options.pretrained else []
        command += ["--precision", options.precision] if options.precision else []
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit("musc-run failed")
        return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024

    one, all_images = run("one.safetensors"), run("pixels.safetensors")
    wall, cpu = ((all_images[at] - one[at]) / (options.images - 1) for at in (0, 1))
    return {"wall": wall, "cpu": cpu, "peak": all_images[2]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ViT-L-14-336", choices=library.SIZES)
    parser.add_argument("--pretrained", default="")
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="of the library")
    parser.add_argument("--precision", choices=["auto", "f32", "f16", "bf16"], help="of musc")
    parser.add_argument("--musc-run", type=Path, default=library.ROOT / "target/release/musc-run")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return run_library(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with torch.no_grad():
            build = library.BUILD[scheme_of(options.backbone)][1]
            native = library.SIZES[options.backbone][3]
            model, parts, _ = build(options.backbone, False, native)
            library.fill(model, 1)
            state = {key: value.contiguous() for key, value in model.state_dict().items()}
            save_file(state, folder / "weights.safetensors")
            # For the library, positions of the new grid.
            clip = scheme_of(options.backbone) == "A"
            library.IMAGES = sorted((library.ROOT / "assets/textile/good").glob("*.jpg"))[: options.images]
            pixels = library.load_pixels(options.size, clip)
            save_file({"pixels": pixels.contiguous()}, folder / "pixels.safetensors")
            save_file({"pixels": pixels[:1].contiguous()}, folder / "one.safetensors")
            positions = parts["positions"]
            key = next(key for key, value in state.items() if value.data_ptr() == positions.data_ptr())
            grid = options.size // library.SIZES[options.backbone][2]
            rows = library.resize_positions(positions.reshape(-1, positions.shape[-1]), grid, clip)
            shape = (*positions.shape[:-2], *rows.shape)
            save_file({**state, key: rows.reshape(shape).contiguous()}, folder / "library.safetensors")
            del model, parts, state, positions, rows
        pairs = []
        for _ in range(options.pairs):
            child = [sys.executable, __file__, *sys.argv[1:], "--child", folder]
            theirs = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            pairs.append((theirs, run_musc(options, folder)))
            print(json.dumps({"library": pairs[-1][0], "musc": pairs[-1][1]}), file=sys.stderr, flush=True)
    report = {"backbone": options.backbone, "size": options.size, "images": options.images, "threads": options.threads}
    report |= {"dtype": options.dtype, "precision": options.precision}
    for at, side in enumerate(("library", "musc")):
        report[side] = {key: statistics.median(pair[at][key] for pair in pairs) for key in ("wall", "cpu", "peak")}
    for key in ("wall", "cpu"):
        report[f"{key}_ratios"] = sorted(round(pair[0][key] / pair[1][key], 3) for pair in pairs)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
