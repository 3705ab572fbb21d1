"""Scores a folder with the features of any PyTorch backbone: here a vision transformer of torchvision, watched by hooks.

    pip install musc torch torchvision
    python torch_features.py photos                     weights are downloaded by torchvision
    python torch_features.py photos --no-weights        random ones, to see that it runs

Only the functions of musc are used: patch tokens in, patch scores out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import musc
import numpy as np
import torch
import torchvision

BLOCKS = (2, 5, 8, 11)
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def features(model: Any, batches: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Patch tokens [N, L, C] of each watched block, and class tokens [N, C] of the last one."""
    kept: dict[int, list[torch.Tensor]] = {block: [] for block in BLOCKS}
    hooks = [
        model.encoder.layers[block].register_forward_hook(
            lambda _module, _given, made, block=block: kept[block].append(made.cpu())
        )
        for block in BLOCKS
    ]
    with torch.inference_mode():
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    tokens = [torch.cat(kept[block]) for block in BLOCKS]
    # The first token is the class token.
    return [layer[:, 1:] for layer in tokens], tokens[-1][:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--no-weights", action="store_true")
    options = parser.parse_args()

    weights = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1
    model = torchvision.models.vit_b_16(weights=None if options.no_weights else weights).eval()
    preprocess = weights.transforms()
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if len(paths) < 2:
        parser.error(f"{options.folder}: {len(paths)} images, at least 2 are needed")

    def batches() -> Any:
        for first in range(0, len(paths), options.batch):
            images = [torchvision.io.decode_image(str(path), "RGB") for path in paths[first : first + options.batch]]
            yield torch.stack([preprocess(image) for image in images])

    layers, class_tokens = features(model, batches())
    # Tensors are read where they lie: a view that leaves out the class token needs no copy of its own.
    patch_scores = musc.mutual_scores(layers, r=(1, 3, 5))
    maps = musc.anomaly_maps(patch_scores, (224, 224))
    raw_scores = maps.max(axis=(1, 2))
    scores = musc.rscin(raw_scores, class_tokens)
    threshold = musc.threshold(raw_scores)
    for at in np.argsort(-scores):
        print(f"{'NG' if raw_scores[at] > threshold else 'OK'}  {scores[at]:.3f}  {raw_scores[at]:.3f}  {paths[at]}")


if __name__ == "__main__":
    main()
