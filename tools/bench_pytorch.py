#!/usr/bin/env python3
"""The method in stock PyTorch on the CPU, in f32 or bf16: what musc is timed against, and a second opinion on its numbers.

    pip install torch==2.9.1 "pillow<13" safetensors numpy
    python tools/bench_pytorch.py IMAGES... [--weights weights/dinov2_vits14.safetensors] [--img-resize 224]

IMAGES are files, folders, or one .txt file with a path a line. The steps and the operations are those of the authors'
program (batch 4; unfold and adaptive pooling for LNAMD; cdist, min and topk over all other images at once for MSM;
DINOv2-S/14 as the backbone), run in inference mode and with PyTorch's fused attention. Prints milliseconds an
image for each stage, the whole run, and the peak memory, as JSON; --output writes patch and image scores as safetensors.

--dtype bf16 is what a user of PyTorch does: torch.autocast("cpu", dtype=torch.bfloat16) around extraction and around scoring, weights
and pixels in f32. With torch 2.9.1 the backbone's convolution, linear layers and attention then run in bf16, and layer norms and tokens
follow the type that they are given (the residual sum is f32, so its norms and the tokens are too). In scoring nothing changes:
cdist is on autocast's list for f32, and casts operands in bf16 up; LNAMD has no product. So expect scoring to take what it takes in f32.
"""

import argparse
import json
import resource
import time
from pathlib import Path

START = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
EPS = 1e-6
EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("weights/dinov2_vits14.safetensors"))
    parser.add_argument("--img-resize", type=int, default=224)
    parser.add_argument("--feature-layers", type=int, nargs="+", default=[2, 5, 8, 11])
    parser.add_argument("--r-list", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def image_paths(inputs):
    for path in inputs:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
        elif path.suffix == ".txt":
            yield from (path.parent / line for line in path.read_text().splitlines() if line)
        else:
            yield path


def load_pixels(path, size):
    image = Image.open(path).convert("RGB").resize((size, size), Image.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - MEAN) / STD


class DinoV2:
    """The forward pass, straight from a state dict in facebook naming."""

    def __init__(self, path, size):
        self.w = {name: tensor.float() for name, tensor in load_file(path).items()}
        self.depth = 1 + max(int(n.split(".")[1]) for n in self.w if n.startswith("blocks."))
        self.patch = self.w["patch_embed.proj.weight"].shape[-1]
        self.heads = self.w["cls_token"].shape[-1] // 64
        self.position = self._position(size // self.patch)

    def _position(self, grid):
        position = self.w["pos_embed"]
        native = int((position.shape[1] - 1) ** 0.5)
        if grid == native:
            return position
        patches = position[:, 1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
        scale = (grid + 0.1) / native
        patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([position[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)

    def _norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], EPS)

    def _linear(self, x, name):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def __call__(self, pixels, layers):
        w = self.w
        x = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=self.patch)
        x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.position
        batch, tokens, width = x.shape
        features = {}
        for i in range(self.depth):
            block = f"blocks.{i}."
            qkv = self._linear(self._norm(x, block + "norm1"), block + "attn.qkv")
            q, k, v = qkv.view(batch, tokens, 3, self.heads, 64).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
            x = x + self._linear(attended, block + "attn.proj") * w[block + "ls1.gamma"]
            hidden = F.gelu(self._linear(self._norm(x, block + "norm2"), block + "mlp.fc1"))
            x = x + self._linear(hidden, block + "mlp.fc2") * w[block + "ls2.gamma"]
            if i in layers:
                features[i] = self._norm(x, "norm")[:, 1:]
        return [features[layer] for layer in layers], self._norm(x, "norm")[:, 0]


def lnamd(tokens, degree):
    """[B, L, C] to unit vectors: layer norm over the whole image, r x r windows averaged, divided by their norm."""
    batch, patches, width = tokens.shape
    grid = int(patches**0.5)
    x = tokens.reshape(batch, grid, grid, width).permute(0, 3, 1, 2)
    x = F.layer_norm(x, x.shape[1:])
    if degree > 1:
        x = F.unfold(x, degree, padding=degree // 2).reshape(batch, width, degree, degree, patches)
        x = x.permute(0, 4, 1, 2, 3)
    else:
        x = x.reshape(batch, width, patches, 1, 1).permute(0, 2, 1, 3, 4)
    x = F.adaptive_avg_pool1d(x.reshape(batch * patches, 1, -1), width)
    x = x.reshape(batch, patches, width)
    return x / x.norm(dim=-1, keepdim=True)


def msm(z, share=0.3):
    """[N, L, C] to [N, L]: the mean over the nearest 30 % of the other images of the nearest patch's distance."""
    images, patches, width = z.shape
    kept = max(1, int((images - 1) * share))
    scores = []
    for i in range(images):
        others = torch.cat([z[:i], z[i + 1 :]]).reshape(-1, width)
        distances = torch.cdist(z[i : i + 1], others[None])
        nearest = torch.min(distances.reshape(patches, images - 1, patches), -1)[0]
        scores.append(torch.topk(nearest, kept, largest=False).values.mean(1))
    return torch.stack(scores)


@torch.inference_mode()
def main():
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    paths = list(image_paths(args.images))
    marks = [("start-up", time.perf_counter())]
    model = DinoV2(args.weights, args.img_resize)
    marks.append(("weights", time.perf_counter()))
    pixels = [load_pixels(path, args.img_resize) for path in paths]
    marks.append(("decode", time.perf_counter()))
    tokens, class_tokens = [[] for _ in args.feature_layers], []
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bf16")
    with autocast:
        for start in range(0, len(pixels), args.batch_size):
            features, class_token = model(torch.stack(pixels[start : start + args.batch_size]), args.feature_layers)
            for layer, feature in zip(tokens, features):
                layer.append(feature)
            class_tokens.append(class_token)
    marks.append(("extraction", time.perf_counter()))
    by_degree = []
    with autocast:
        for degree in args.r_list:
            by_layer = []
            for layer in tokens:
                z = torch.cat([lnamd(batch, degree) for batch in layer])
                by_layer.append(msm(z))
            by_degree.append(torch.stack(by_layer).mean(0))
        patch_scores = torch.stack(by_degree).mean(0)
    marks.append(("scoring", time.perf_counter()))
    images, patches = patch_scores.shape
    grid = int(patches**0.5)
    maps = F.interpolate(
        patch_scores.view(images, 1, grid, grid), args.img_resize, mode="bilinear", align_corners=True
    )
    image_scores = maps.amax((1, 2, 3))
    marks.append(("maps", time.perf_counter()))
    if args.output:
        result = {
            "patch_scores": patch_scores,
            "image_scores": image_scores,
            "class_tokens": torch.cat(class_tokens),
        }
        save_file({name: tensor.float().contiguous() for name, tensor in result.items()}, args.output)
    report = {"images": images, "threads": torch.get_num_threads(), "dtype": args.dtype, "torch": torch.__version__}
    previous = START
    for name, mark in marks:
        report[f"{name}_ms_an_image"] = round((mark - previous) * 1000 / images, 2)
        previous = mark
    report["whole_ms_an_image"] = round((previous - START) * 1000 / images, 2)
    report["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
