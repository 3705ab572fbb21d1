#!/usr/bin/env python3
"""Backbones at full size against the libraries that define them, in every naming scheme of weight files.

    pip install torch==2.9.1 torchvision==0.24.1 "pillow<13" numpy safetensors open_clip_torch timm transformers
    cargo build --release --bin musc-run
    python tools/compare_backbones.py                          # all cases, about ten minutes on two cores
    python tools/compare_backbones.py --only dinov2 --keep DIR # cases whose line holds this text; weight files are kept

Each case builds a model of open_clip, timm or transformers from its configuration, fills it with random values of
sensible scale (nothing is downloaded), saves it under the library's own names, and runs two images through the library
(f32) and through `musc-run extract`. Block outputs are taken by forward hooks. Printed, as a Markdown table: the relative
L2 of each feature layer and of the class token. Exit status 1 if one is above --tolerance.

At a size other than the native one the libraries resize position embeddings each in their own way (open_clip and timm
with antialiasing, transformers by size). The authors of MuSc have their own too, which musc follows: bicubic by size for
CLIP, bicubic by the scale factor (H + 0.1) / G for DINO and DINOv2. So the library's model is built for the new grid and given
positions that PyTorch resized by the authors' rule, while the weight file holds the native ones.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
IMAGES = [ROOT / "assets/textile/good/textile_0001.jpg", ROOT / "assets/textile/defect/textile_0001.jpg"]
CLIP_INPUT = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), Image.BICUBIC)
DINO_INPUT = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), Image.BILINEAR)

# Name: width, depth, patch, native size, class token width.
SIZES = {
    "ViT-B-32": (768, 12, 32, 224, 512),
    "ViT-B-16": (768, 12, 16, 224, 512),
    "ViT-B-16-plus-240": (896, 12, 16, 240, 640),
    "ViT-L-14-336": (1024, 24, 14, 336, 768),
    "dino_vitbase8": (768, 12, 8, 224, 768),
    "dinov2_vits14": (384, 12, 14, 518, 384),
    "dinov2_vitb14": (768, 12, 14, 518, 768),
    "dinov2_vitl14": (1024, 24, 14, 518, 1024),
}

# Backbone, pretrained tag, scheme, size. With openai weights and the native size the activation is QuickGELU.
CASES = [
    ("ViT-B-32", "openai", "A", 224),
    ("ViT-B-32", "laion400m_e32", "A", 256),
    ("ViT-B-32", "openai", "B", 224),
    ("ViT-B-32", "openai", "C", 224),
    ("ViT-B-16-plus-240", "laion400m_e31", "A", 240),
    ("ViT-B-16-plus-240", "laion400m_e31", "A", 512),
    ("ViT-B-16-plus-240", "laion400m_e32", "B", 240),
    ("ViT-B-16", "openai", "C", 224),
    ("ViT-L-14-336", "openai", "A", 336),
    ("ViT-L-14-336", "openai", "A", 518),
    ("ViT-L-14-336", "openai", "B", 336),
    ("ViT-L-14-336", "openai", "C", 518),
    ("dino_vitbase8", "", "D", 224),
    ("dino_vitbase8", "", "D", 256),
    ("dino_vitbase8", "", "F", 224),
    ("dinov2_vits14", "", "E", 448),
    ("dinov2_vitb14", "", "E", 518),
    ("dinov2_vitb14", "", "E", 336),
    ("dinov2_vitb14", "", "G", 518),
    ("dinov2_vitl14", "", "E", 518),
    ("dinov2_vitl14", "", "G", 336),
]


def open_clip_model(name, quick, size):
    import open_clip

    config = open_clip.get_model_config(name)
    config["vision_cfg"]["image_size"] = size
    config["text_cfg"].update(layers=1, vocab_size=64)  # the text tower is not looked at
    config["quick_gelu"] = quick
    model = open_clip.CLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    parts = dict(blocks=model.visual.transformer.resblocks, positions=model.visual.positional_embedding)
    return model, parts, lambda pixels: F.normalize(model.encode_image(pixels), dim=-1)


def timm_clip(name, quick, size):
    import timm

    base = {
        "ViT-B-32": "vit_base_patch32_clip_{}224",
        "ViT-B-16-plus-240": "vit_base_patch16_plus_clip_{}240",
        "ViT-L-14-336": "vit_large_patch14_clip_{}336",
    }[name]
    model = timm.create_model(base.format("quickgelu_" if quick else ""), num_classes=SIZES[name][4], img_size=size)
    parts = dict(blocks=model.blocks, positions=model.pos_embed)
    return model, parts, lambda pixels: F.normalize(model(pixels), dim=-1)


def hugging_face_clip(name, quick, size):
    from transformers import CLIPConfig, CLIPModel

    width, depth, patch, _, dim = SIZES[name]
    vision = dict(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        image_size=size,
        patch_size=patch,
        hidden_act="quick_gelu" if quick else "gelu",
    )
    text = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, vocab_size=64)
    text.update(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=dim))
    parts = dict(
        blocks=model.vision_model.encoder.layers, positions=model.vision_model.embeddings.position_embedding.weight
    )

    def class_token(pixels):
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(model.visual_projection(pooled), dim=-1)

    return model, parts, class_token


def timm_dino(name, _, size):
    import timm

    base = {
        "dino_vitbase8": "vit_base_patch8_224",
        "dinov2_vits14": "vit_small_patch14_dinov2",
        "dinov2_vitb14": "vit_base_patch14_dinov2",
        "dinov2_vitl14": "vit_large_patch14_dinov2",
    }[name]
    model = timm.create_model(base, num_classes=0, img_size=size)
    parts = dict(blocks=model.blocks, positions=model.pos_embed, norm=model.norm)
    return model, parts, lambda pixels: model.forward_features(pixels)[:, 0]


def hugging_face_dino(name, _, size):
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    width, depth, patch, _, _ = SIZES[name]
    common = dict(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=width // 64, image_size=size, patch_size=patch
    )
    if name.startswith("dinov2"):
        model = Dinov2Model(Dinov2Config(**common, layer_norm_eps=1e-6))
    else:
        # ViTConfig's own epsilon is 1e-12; DINO's is 1e-6.
        model = ViTModel(ViTConfig(**common, intermediate_size=4 * width, layer_norm_eps=1e-6))
    blocks = next(m for n, m in model.named_modules() if n.endswith(("layer", "layers")) and len(m) == depth)
    parts = dict(blocks=blocks, positions=model.embeddings.position_embeddings, norm=model.layernorm)
    return model, parts, lambda pixels: model(pixel_values=pixels).last_hidden_state[:, 0]


BUILD = {
    "A": ("open_clip", open_clip_model),
    "B": ("timm", timm_clip),
    "C": ("transformers CLIPModel", hugging_face_clip),
    "D": ("timm", timm_dino),
    "E": ("timm", timm_dino),
    "F": ("transformers ViTModel", hugging_face_dino),
    "G": ("transformers Dinov2Model", hugging_face_dino),
}


@torch.no_grad()
def fill(model, seed):
    """Random values under which every part matters: attention that is neither flat nor one-hot, branches of the size of
    their trunk, positions and class token of the size of a patch."""
    random = torch.Generator().manual_seed(seed)

    def normal(tensor, spread):
        tensor.copy_(torch.randn(tensor.shape, generator=random) * spread)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)

    for name, tensor in model.named_parameters():
        if "pos" in name and tensor.dim() > 1:
            normal(tensor, 0.3)
        elif "cls_token" in name or "class_embedding" in name:
            normal(tensor, 0.5)
        elif tensor.dim() < 2:
            if name.endswith(("gamma", "lambda1")):
                uniform(tensor, 0.1, 1.0)
            elif name == "head.bias":  # timm's container brings it; CLIP has none
                tensor.zero_()
            elif name.endswith("weight"):
                uniform(tensor, 0.5, 1.5)
            else:
                normal(tensor, 0.1)
        else:
            inputs = tensor[0].numel() if not name.endswith("visual.proj") else tensor.shape[0]
            if any(part in name for part in ("qkv", "in_proj", "query", "key", "q_proj", "k_proj")):
                gain = 1.4
            elif any(part in name for part in ("fc2", "c_proj", "out_proj", "attn.proj", "o_proj", "output.dense")):
                gain = 0.5
            else:
                gain = 1.0
            normal(tensor, gain / inputs**0.5)


def resize_positions(positions, grid, clip):
    """[1 + G·G, D] to [1 + grid·grid, D], by the authors' rule."""
    native = round((positions.shape[0] - 1) ** 0.5)
    if native == grid:
        return positions
    patches = positions[1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
    if clip:
        patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    else:
        factor = (grid + 0.1) / native
        patches = F.interpolate(patches, scale_factor=(factor, factor), mode="bicubic")
    assert patches.shape[2:] == (grid, grid)
    return torch.cat([positions[:1], patches.permute(0, 2, 3, 1).reshape(grid * grid, -1)])


def load_pixels(size, clip):
    mean, std, filter = CLIP_INPUT if clip else DINO_INPUT
    images = [np.asarray(Image.open(path).convert("RGB").resize((size, size), filter)) for path in IMAGES]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@torch.no_grad()
def reference(name, scheme, quick, size, folder):
    """The library's feature layers and class token; the weight file and the pixels for musc lie in `folder`."""
    _, depth, patch, native, _ = SIZES[name]
    clip = scheme in "ABC"
    build = BUILD[scheme][1]
    model, parts, class_token = build(name, quick, native)
    fill(model, list(SIZES).index(name))
    if scheme in "CFG":
        model.save_pretrained(folder)
        (folder / "model.safetensors").rename(folder / "weights.safetensors")
    else:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "weights.safetensors")
    if size != native:
        positions, state = parts["positions"].detach(), model.state_dict()
        model, parts, class_token = build(name, quick, size)
        # All but the positions (and the indices that go with them) have their shape from the model, not from the size.
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        left = model.load_state_dict({k: v for k, v in state.items() if v.shape == shapes[k]}, strict=False)
        assert all("pos" in key for key in left.missing_keys), left.missing_keys
        rows = resize_positions(positions.reshape(-1, positions.shape[-1]), size // patch, clip)
        parts["positions"].copy_(rows.reshape(parts["positions"].shape))
    model.eval()
    layers = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    taken = {}

    def keep(layer):
        def hook(_module, _inputs, output):
            taken[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [parts["blocks"][layer].register_forward_hook(keep(layer)) for layer in layers]
    pixels = load_pixels(size, clip)
    save_file({"pixels": pixels.contiguous()}, folder / "pixels.safetensors")
    started = time.perf_counter()
    token = class_token(pixels)
    seconds = time.perf_counter() - started
    for hook in hooks:
        hook.remove()
    norm = parts.get("norm", lambda tokens: tokens)
    return {f"tokens.{layer}": norm(taken[layer])[:, 1:] for layer in layers} | {"class_tokens": token}, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--musc-run", type=Path, default=ROOT / "target/release/musc-run")
    parser.add_argument("--only", default="", help="cases whose line in the table holds this text")
    parser.add_argument("--keep", type=Path, help="keep each case's files below this folder")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| backbone | size | scheme | written and run by | activation | largest of the four layers | class token |")
    print("|---|---|---|---|---|---|---|")
    worst = 0.0
    for name, tag, scheme, size in CASES:
        quick = tag == "openai" and size == SIZES[name][3]
        line = f"| {name} | {size} | {scheme} | {BUILD[scheme][0]} | {'QuickGELU' if quick else 'GELU'} |"
        if options.only not in line:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if options.keep:
                folder = options.keep / f"{name}.{scheme}.{size}"
                folder.mkdir(parents=True, exist_ok=True)
            expected, seconds = reference(name, scheme, quick, size, folder)
            command = [options.musc_run, "extract", "--pixels", folder / "pixels.safetensors", "--weights"]
            command += [folder / "weights.safetensors", "--backbone-name", name, "--output", folder / "features.safetensors"]
            command += ["--overwrite", "--quiet", "--device", "cpu", "--precision", "f32", "--threads", str(options.threads)]
            command += ["--pretrained", tag] if tag else []
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found = load_file(folder / "features.safetensors")
        errors = {}
        for key, value in expected.items():
            value = value.double()
            errors[key] = ((found[key].double() - value).norm() / value.norm()).item()
        layers = max(error for key, error in errors.items() if key != "class_tokens")
        worst = max(worst, layers, errors["class_tokens"])
        print(f"{line} {layers:.1e} | {errors['class_tokens']:.1e} |", flush=True)
        print(f"{name} {scheme} {size}: the library took {seconds / len(IMAGES):.2f} s an image", file=sys.stderr)
    print(f"largest relative L2: {worst:.1e}", file=sys.stderr)
    sys.exit(worst > options.tolerance)


if __name__ == "__main__":
    main()
