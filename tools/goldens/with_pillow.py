"""The checks of older goldens that need Pillow (before 13) and minutes: the resizing, and the real run on the textile images."""

import numpy as np
import PIL
from PIL import Image

import scoring
import storage
import vit
from cases import IMAGENET
from older import RSCIN

# The golden was made with the weights in f32, the file in `weights/` holds f16: 8.6e-4 of a token's norm.
CLASS_TOKENS = 2e-3
# With those weights PyTorch is 1.8e-4 from the golden in a patch score.
REAL = 4e-4
LAYERS = (2, 5, 8, 11)
SIZE = 448


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def resized(image, width, height, kind):
    """Horizontal pass, then vertical, in any version."""
    return image.resize((width, image.height), kind).resize((width, height), kind)


def resize(report, data):
    file, _ = storage.read(data / "resize.safetensors")
    image = Image.fromarray(file["image_u8"])
    for name, kind in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        for size in (224, 240, 518):
            found = np.asarray(resized(image, size, size, kind))
            report.absolute(f"resize {name}_{size}_rows", found[::16].astype(np.float64), file[f"{name}_{size}_rows"], 0)
            wrong = fnv1a(found.tobytes()) != int(file[f"{name}_{size}_fnv1a"][0])
            report.line(f"resize {name}_{size}_fnv1a", float(wrong), 0, "digests that differ")


def textile(report, data):
    file, _ = storage.read(data / "textile30_448.safetensors")
    model = vit.Vit("dinov2", storage.read(storage.ROOT / "weights" / "dinov2_vits14.safetensors")[0])
    folder = storage.ROOT / "assets" / "textile"
    paths = sorted((folder / "good").glob("*.jpg")) + sorted((folder / "defect").glob("*.jpg"))
    tokens, class_tokens = {layer: [] for layer in LAYERS}, []
    for path in paths:
        image = resized(Image.open(path).convert("RGB"), SIZE, SIZE, Image.Resampling.BILINEAR)
        pixels = (np.asarray(image) / 255.0 - IMAGENET[0]) / IMAGENET[1]
        layers, class_token = model.forward(pixels.transpose(2, 0, 1)[None], LAYERS)
        for layer in LAYERS:
            tokens[layer].append(layers[layer][0])
        class_tokens.append(class_token[0])
    grid = (SIZE // model.patch,) * 2
    class_tokens = np.stack(class_tokens)
    scores = np.mean([
        scoring.mutual_scores(scoring.lnamd(np.stack(tokens[layer]), grid, degree), grid)
        for degree in (1, 3, 5) for layer in LAYERS
    ], 0)
    largest = scoring.anomaly_maps(scores, grid, (SIZE, SIZE)).max((1, 2))
    report.relative("textile30_448 class_tokens", class_tokens, file["class_tokens"], CLASS_TOKENS)
    report.absolute("textile30_448 patch_scores", scores, file["patch_scores"], REAL)
    report.absolute("textile30_448 image_scores", largest, file["image_scores"], REAL)
    for name, cosine in (("cosine", True), ("dot", False)):
        # From the golden's own scores and class tokens: this step alone.
        found = scoring.rscin(file["image_scores"], file["class_tokens"], (1, 2, 3), cosine)
        report.absolute(f"textile30_448 rscin_{name}", found, file[f"rscin_{name}"], RSCIN)


def check(report, data):
    print(f"Pillow {PIL.__version__}")
    for run, name in ((resize, "resize.safetensors"), (textile, "textile30_448.safetensors")):
        if (data / name).is_file():
            run(report, data)
        else:
            report.failed.append(f"{name} is absent")
