#!/usr/bin/env python3
"""Large textile images with a tiny defect, scored whole and in tiles: what tiles are for, in two figures.

    python tools/tiles/make_cases.py --program target/release/musc-run --folder /tmp/cases

Each image is 4000 x 3000 pixels from one of four sound pictures of assets/textile: enlarged twice, laid in a mirrored mosaic from a
random place, with noise of its own on every pixel. The defective ones get one rusty spot of 12 pixels across, at a random place.
The same images are made every time; only Pillow is needed.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageOps

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, HEIGHT = 4000, 3000
ENLARGED = 2
# Pictures that the images are made from in turn: material of one kind, as a line has it.
SOURCES = 4
# A level or two of noise on each pixel, either way.
NOISE = 4
SPOT = 12
RUST = (150, 60, 20)
# The pictures' edges, which are lighter and would be lines in the mosaic.
EDGE = 8


def mosaic(source, chance):
    """The picture, enlarged and mirrored without seams, from a random place."""
    image = Image.open(source).convert("RGB")
    image = image.crop((EDGE, EDGE, image.width - EDGE, image.height - EDGE))
    image = image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.BICUBIC)
    if chance.random() < 0.5:
        image = ImageOps.flip(image)
    right = ImageOps.mirror(image)
    block = Image.new("RGB", (2 * image.width, 2 * image.height))
    for top, (one, other) in enumerate([(image, right), (ImageOps.flip(image), ImageOps.flip(right))]):
        block.paste(one, (0, top * image.height))
        block.paste(other, (image.width, top * image.height))
    left, top = chance.randrange(block.width), chance.randrange(block.height)
    whole = Image.new("RGB", (WIDTH, HEIGHT))
    for y in range(-top, HEIGHT, block.height):
        for x in range(-left, WIDTH, block.width):
            whole.paste(block, (x, y))
    return whole


def noisy(image, chance):
    """With independent noise of -NOISE to NOISE levels on each pixel, the same in all channels."""
    noise = Image.frombytes("L", image.size, chance.randbytes(image.width * image.height))
    noise = noise.point([value * (2 * NOISE + 1) // 256 for value in range(256)])
    return ImageChops.add(image, Image.merge("RGB", [noise] * 3), 1, -NOISE)


def spotted(image, chance):
    """With one spot, its edge smooth over a pixel; and where it is."""
    margin = 60
    left, top = chance.randrange(margin, WIDTH - margin), chance.randrange(margin, HEIGHT - margin)
    fine = 8
    spot = Image.new("L", (SPOT * fine, SPOT * fine))
    ImageDraw.Draw(spot).ellipse((0, 0, SPOT * fine - 1, SPOT * fine - 1), fill=255)
    spot = spot.resize((SPOT, SPOT), Image.Resampling.BOX)
    box = (left, top, left + SPOT, top + SPOT)
    image.paste(Image.composite(Image.new("RGB", spot.size, RUST), image.crop(box), spot), box)
    return left, top


def make(folder, sound, defective):
    sources = sorted((ROOT / "assets/textile/good").glob("*.jpg"))
    for number in range(sound + defective):
        bad = number >= sound
        path = folder / ("spot" if bad else "good") / f"{number:02}.jpg"
        if path.exists():
            continue
        chance = random.Random(f"tiles {number}")
        image = noisy(mosaic(sources[number % SOURCES], chance), chance)
        where = spotted(image, chance) if bad else None
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=95, subsampling=0)
        print(path, where or "", flush=True)


def score(program, images, output, options):
    began = time.monotonic()
    command = [program, str(images), "--labels", "from-folders", "--output-dir", str(output), "--overwrite"]
    subprocess.run(command + ["--vis", "False", "--quiet"] + options, check=True, stdout=subprocess.DEVNULL)
    figures = json.loads((output / "folder" / images.name / "metrics.json").read_text())["mean"]
    return figures["image_auroc"], figures["image_auroc_raw"], time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="musc-run")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--sound", type=int, default=8)
    parser.add_argument("--defective", type=int, default=4)
    parser.add_argument("--tiles", default="6x8")
    parser.add_argument("--side", default="224", help="pixels of a tile's input")
    parser.add_argument("--only", choices=["whole", "tiled"])
    arguments = parser.parse_args()
    images = arguments.folder / "images"
    make(images, arguments.sound, arguments.defective)
    cases = {
        "whole": ["--img-resize", "518"],
        "tiled": ["--img-resize", arguments.side, "--tiles", arguments.tiles],
    }
    for name, options in cases.items():
        if arguments.only in (None, name):
            auroc, raw, seconds = score(arguments.program, images, arguments.folder / name, options)
            print(f"{name:6} {' '.join(options):36} image AUROC {auroc:.4f}, of raw scores {raw:.4f}, {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
