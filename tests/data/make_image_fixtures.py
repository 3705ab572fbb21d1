"""Makes the image fixtures of this folder with Pillow (before 13), numpy and safetensors.

resize.safetensors    from the full golden given as the argument: the image, every 16th row and a hash of each result
resize_hashes.in      hashes of Pillow's results at awkward sizes
images/*              small files of the kinds the decoder must read; images/expected.safetensors holds Pillow's pixels

Usage: python make_image_fixtures.py preprocess.safetensors
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [
    (1, 1, 1, 1), (1, 1, 7, 7), (1, 13, 14, 14), (13, 1, 14, 14), (2, 3, 5, 7), (3, 2, 1, 1), (31, 29, 14, 14),
    (29, 31, 224, 224), (127, 61, 28, 28), (61, 127, 224, 224), (300, 300, 224, 224), (301, 7, 7, 301),
    (7, 301, 301, 7), (224, 97, 224, 224), (97, 224, 224, 224), (224, 224, 224, 224), (223, 225, 224, 224),
    (448, 448, 224, 224), (449, 447, 224, 224), (1009, 5, 14, 14), (5, 1009, 14, 14), (640, 480, 518, 518),
    (1000, 700, 448, 448), (16, 16, 17, 15), (518, 1, 518, 518),
]


def picture(width, height, channels):
    state = width * 7919 + height
    out = bytearray()
    for index in range(width * height * channels):
        state = (state * 1664525 + 1013904223) % 2**32
        kind = index // 16 % 3
        out.append(state >> 24 if kind == 0 else index % 256 if kind == 1 else (state >> 31) * 255)
    return np.frombuffer(bytes(out), np.uint8).reshape(height, width, channels)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in bytes(data):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def passes(image, width, height, kind):
    """Horizontal, then vertical: 12.3 turns the order round for images over 100 times as tall as wide."""
    return image.resize((width, image.height), kind).resize((width, height), kind)


def resize_fixtures(golden):
    full = load_file(golden)
    small = {"image_u8": full["image_u8"]}
    for name in FILTERS:
        for size in (224, 240, 518):
            result = full[f"{name}_{size}"]
            small[f"{name}_{size}_rows"] = np.ascontiguousarray(result[::16])
            small[f"{name}_{size}_fnv1a"] = np.array([fnv1a(result.tobytes())], np.uint64)
    save_file(small, HERE / "resize.safetensors")

    lines = ["&["]
    for width, height, to_width, to_height in SIZES:
        image = Image.fromarray(picture(width, height, 3))
        hashes = [
            f"{fnv1a(np.asarray(passes(image, to_width, to_height, kind)).tobytes()):#018x}"
            for kind in FILTERS.values()
        ]
        lines.append(f"    ({width}, {height}, {to_width}, {to_height}, {', '.join(hashes)}),")
    lines.append("]")
    (HERE / "resize_hashes.in").write_text("\n".join(lines) + "\n")


def image_fixtures():
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    y, x = np.mgrid[0:23, 0:37]
    smooth = np.stack([x * 6, y * 10, 255 - x * 3 - y * 4], -1).astype(np.uint8)
    rgb = Image.fromarray(smooth)
    gray = rgb.convert("L")
    alpha = Image.fromarray((x * 7 % 256).astype(np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    gray_alpha = Image.merge("LA", (gray, alpha))
    palette = rgb.quantize(16)
    one_bit = Image.fromarray((x // 5 + y // 3) % 2 == 0)
    gray16 = Image.fromarray((x * 1700 + y * 113).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    files = {
        "rgb.png": (rgb, {}), "rgb.bmp": (rgb, {}), "rgb.tif": (rgb, {"compression": "tiff_lzw"}),
        "rgb_444.jpg": (rgb, {"quality": 95, "subsampling": 0}),
        "rgb_420.jpg": (rgb, {"quality": 90, "subsampling": 2}),
        "progressive.jpg": (rgb, {"quality": 90, "progressive": True, "subsampling": 0}),
        "restart.jpg": (rgb, {"quality": 90, "restart_marker_blocks": 2, "subsampling": 0}),
        "turned.jpg": (rgb, {"quality": 95, "subsampling": 0, "exif": exif}),
        "gray.jpg": (gray, {"quality": 95}), "gray.png": (gray, {}), "gray.bmp": (gray, {}), "gray.tif": (gray, {}),
        "rgba.png": (rgba, {}), "rgba.tif": (rgba, {}), "gray_alpha.png": (gray_alpha, {}),
        "palette.png": (palette, {}), "palette_transparent.png": (palette, {"transparency": 3}),
        "palette.bmp": (palette, {}), "one_bit.png": (one_bit, {}), "one_bit.bmp": (one_bit, {}),
        "cmyk.jpg": (rgb.convert("CMYK"), {"quality": 95, "subsampling": 0}),
        "gray16.png": (gray16, {}), "gray16.tif": (gray16, {}),
    }
    expected = {}
    for name, (image, options) in files.items():
        image.save(folder / name, **options)
        if not name.startswith("gray16"):
            expected[name] = np.asarray(Image.open(folder / name).convert("RGB"))
    expected["gray16"] = np.asarray(gray16)
    for size in (7, 28, 53):
        mask = Image.open(folder / "one_bit.png").resize((size, size), FILTERS["bilinear"])
        expected[f"one_bit.png_{size}"] = np.asarray(mask).astype(np.uint8)
    expected["rgb.png_L"] = np.asarray(rgb.convert("L"))
    save_file({name: np.ascontiguousarray(value) for name, value in expected.items()}, folder / "expected.safetensors")


resize_fixtures(sys.argv[1])
image_fixtures()
