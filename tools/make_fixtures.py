#!/usr/bin/env python3
"""Small MVTec AD, BTAD and VisA trees in their published layouts, with drawn defects and exact masks.

    pip install "pillow<13" numpy
    python tools/make_fixtures.py FOLDER                              # all classes, 240 px, 9 test images a class
    python tools/make_fixtures.py FOLDER --classes bottle grid 01 03 candle pcb1 --side 64    # as in tests/data/sets

FOLDER gets mvtec_ad/, btad/ and visa/. Every picture is a piece of a sample image in assets/textile, turned and tinted
by its class; a defect (a scratch, a spot, a hole) is painted over the pixels that its mask marks, and no others. What
differs between the real data sets differs here too: grey PNG in three classes of MVTec AD, BMP and masks of either format
in BTAD, JPEG and masks with small numbers in VisA, pictures that are not square. The same arguments give the same pixels.
"""

import argparse
import csv
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "textile" / "good"
DEFECTS = ("scratch", "spot", "hole")

# Two types a class, by their published names.
MVTEC = {
    "bottle": ("broken_large", "contamination"),
    "cable": ("bent_wire", "missing_wire"),
    "capsule": ("crack", "squeeze"),
    "carpet": ("cut", "hole"),
    "grid": ("bent", "thread"),
    "hazelnut": ("crack", "print"),
    "leather": ("cut", "fold"),
    "metal_nut": ("bent", "scratch"),
    "pill": ("color", "crack"),
    "screw": ("scratch_head", "thread_top"),
    "tile": ("crack", "oil"),
    "toothbrush": ("defective",),
    "transistor": ("cut_lead", "misplaced"),
    "wood": ("hole", "scratch"),
    "zipper": ("broken_teeth", "rough"),
}
GREY = ("grid", "screw", "zipper")
# Endings of the images and of the masks.
BTAD = {"01": ("bmp", "png"), "02": ("png", "png"), "03": ("bmp", "bmp")}
VISA = (
    "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum".split()
)


class Painter:
    """The pictures of one class."""

    def __init__(self, name, side):
        self.random = np.random.default_rng(zlib.crc32(name.encode()))
        # Every third class is wider than high, every third higher than wide.
        shape = zlib.crc32(name.encode()) % 3
        self.size = (side + side // 4 * (shape == 1), side + side // 4 * (shape == 2))
        self.tint = self.random.uniform(0.55, 1.0, 3)
        self.turn = int(self.random.integers(4))
        self.sources = sorted(ASSETS.glob("*.jpg"))

    def normal(self):
        """Pixels [height, width, 3] of a picture without a defect."""
        source = Image.open(self.sources[int(self.random.integers(len(self.sources)))]).convert("RGB")
        width, height = self.size
        piece = int(self.random.integers(140, 200))
        left, top = (int(v) for v in self.random.integers(0, min(source.size) - piece, 2))
        part = source.crop((left, top, left + piece, top + piece)).resize((width, height), Image.BICUBIC)
        pixels = np.rot90(np.asarray(part, dtype=np.float64), 2 * (self.turn // 2))
        light = self.random.uniform(0.9, 1.1)
        return np.clip(np.rint(pixels * self.tint * light), 0, 255).astype(np.uint8)

    def defective(self, kind):
        """Pixels with a defect, and the mask [height, width] that is True where it is."""
        pixels = self.normal()
        width, height = self.size
        mask = Image.new("1", (width, height))
        draw = ImageDraw.Draw(mask)
        for _ in range(int(self.random.integers(1, 3))):
            x, y = self.random.uniform(0.2, 0.8, 2) * (width, height)
            radius = self.random.uniform(0.06, 0.12) * min(width, height)
            if kind == "scratch":
                angle = self.random.uniform(0, np.pi)
                reach = 2 * radius * np.array([np.cos(angle), np.sin(angle)])
                ends = [*((x, y) - reach), *((x, y) + reach)]
                draw.line(ends, fill=1, width=max(2, round(radius / 3)))
            elif kind == "spot":
                draw.ellipse([x - radius, y - radius * 0.7, x + radius, y + radius * 0.7], fill=1)
            else:
                corners = [
                    (x + radius * s * np.cos(a), y + radius * s * np.sin(a))
                    for a, s in zip(np.linspace(0, 2 * np.pi, 8)[:-1], self.random.uniform(0.6, 1.2, 7))
                ]
                draw.polygon(corners, fill=1)
        mask = np.asarray(mask, dtype=bool)
        strange = self.random.integers(0, 60, pixels.shape) + {"scratch": 190, "spot": 90, "hole": 0}[kind]
        strange = np.clip(strange * {"spot": (1.0, 0.4, 0.3)}.get(kind, (1.0, 1.0, 1.0)), 0, 255).astype(np.uint8)
        # Some defects are faint.
        share = self.random.uniform(0.15, 1.0)
        blended = np.rint(share * strange + (1 - share) * pixels).astype(np.uint8)
        return np.where(mask[..., None], blended, pixels), mask


def save(path, pixels, grey=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if grey:
        image = image.convert("L")
    if path.suffix.lower() == ".jpg":
        image.save(path, quality=92)
    else:
        image.save(path)


def mvtec(root, options):
    for name, types in MVTEC.items():
        if options.classes and name not in options.classes:
            continue
        painter = Painter(f"mvtec_ad {name}", options.side)
        folder, grey = root / name, name in GREY
        save(folder / "train/good/000.png", painter.normal(), grey)
        for at in range(options.good):
            save(folder / f"test/good/{at:03}.png", painter.normal(), grey)
        each = -(-options.defective // len(types))
        for number, kind in enumerate(types):
            for at in range(min(each, options.defective - number * each)):
                pixels, mask = painter.defective(DEFECTS[(number + at) % 3])
                save(folder / f"test/{kind}/{at:03}.png", pixels, grey)
                save(folder / f"ground_truth/{kind}/{at:03}_mask.png", mask.astype(np.uint8) * 255)


def btad(root, options):
    for name, (image, mask_ending) in BTAD.items():
        if options.classes and name not in options.classes:
            continue
        painter = Painter(f"btad {name}", options.side)
        folder = root / name
        save(folder / f"train/ok/0000.{image}", painter.normal())
        for at in range(options.good):
            save(folder / f"test/ok/{at:04}.{image}", painter.normal())
        for at in range(options.defective):
            pixels, mask = painter.defective(DEFECTS[at % 3])
            save(folder / f"test/ko/{at:04}.{image}", pixels)
            save(folder / f"ground_truth/ko/{at:04}.{mask_ending}", mask.astype(np.uint8) * 255)


def visa(root, options):
    rows = []
    for name in VISA:
        if options.classes and name not in options.classes:
            continue
        painter = Painter(f"visa {name}", options.side)

        def place(split, label, at):
            folder = "Normal" if label == "normal" else "Anomaly"
            image = f"{name}/Data/Images/{folder}/{at:04}.JPG"
            mask = "" if label == "normal" else f"{name}/Data/Masks/{folder}/{at:04}.png"
            rows.append((name, split, label, image, mask))
            return root / image, root / mask

        save(place("train", "normal", 0)[0], painter.normal())
        for at in range(options.good):
            save(place("test", "normal", at + 1)[0], painter.normal())
        for at in range(options.defective):
            pixels, mask = painter.defective(DEFECTS[at % 3])
            image, mask_file = place("test", "anomaly", at)
            save(image, pixels)
            # The real masks hold the number of the defect's type, not 255.
            save(mask_file, mask.astype(np.uint8) * (1 + at % 3))
    (root / "split_csv").mkdir(parents=True, exist_ok=True)
    with open(root / "split_csv" / "1cls.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("object", "split", "label", "image", "mask"))
        writer.writerows(rows)
    if options.meta_json:
        # What the authors' datasets/visa_preprocess.py makes of the table.
        meta = {"train": {name: [] for name in VISA}, "test": {name: [] for name in VISA}}
        for name, split, label, image, mask in rows:
            row = dict(img_path=image, mask_path=mask, cls_name=name, specie_name="", anomaly=int(label == "anomaly"))
            meta[split][name].append(row)
        (root / "meta.json").write_text(json.dumps(meta, indent=4) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", nargs="+", help="only these, of any data set [default: all]")
    parser.add_argument("--side", type=int, default=240, help="shorter side of a picture [default: 240]")
    parser.add_argument("--good", type=int, default=6, help="normal test images a class [default: 6]")
    parser.add_argument("--defective", type=int, default=3, help="defective images a class [default: 3]")
    parser.add_argument("--meta-json", action="store_true", help="also write visa/meta.json, which the authors' program reads")
    options = parser.parse_args()
    mvtec(options.folder / "mvtec_ad", options)
    btad(options.folder / "btad", options)
    visa(options.folder / "visa", options)


if __name__ == "__main__":
    main()
