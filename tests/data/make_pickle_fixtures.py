"""Makes tests/data/pickles: small files that PyTorch and NumPy themselves wrote, for the tests of the pickle reader.

    python tests/data/make_pickle_fixtures.py        (needs torch, numpy and safetensors; made with torch 2.9.1, numpy 2.4.6)
"""

import argparse
import collections
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "pickles"


def numbers(*shape, dtype=torch.float32):
    """Multiples of 1/8 between -16 and 16, which every float type holds exactly."""
    count = int(np.prod(shape))
    values = (torch.arange(count, dtype=torch.int64) * 37 % 257 - 128).to(torch.float64) / 8
    return values.reshape(shape).to(dtype)


def smallest_vit():
    """One block, one head, one patch of 2x2 pixels, MLP width 8, in DINOv2's naming."""
    shapes = {
        "cls_token": (1, 1, 64),
        "pos_embed": (1, 2, 64),
        "patch_embed.proj.weight": (64, 3, 2, 2),
        "patch_embed.proj.bias": (64,),
        "norm.weight": (64,),
        "norm.bias": (64,),
        "blocks.0.norm1.weight": (64,),
        "blocks.0.norm1.bias": (64,),
        "blocks.0.attn.qkv.weight": (192, 64),
        "blocks.0.attn.qkv.bias": (192,),
        "blocks.0.attn.proj.weight": (64, 64),
        "blocks.0.attn.proj.bias": (64,),
        "blocks.0.ls1.gamma": (64,),
        "blocks.0.norm2.weight": (64,),
        "blocks.0.norm2.bias": (64,),
        "blocks.0.mlp.fc1.weight": (8, 64),
        "blocks.0.mlp.fc1.bias": (8,),
        "blocks.0.mlp.fc2.weight": (64, 8),
        "blocks.0.mlp.fc2.bias": (64,),
        "blocks.0.ls2.gamma": (64,),
    }
    state = collections.OrderedDict((name, numbers(*shape, dtype=torch.float16)) for name, shape in shapes.items())
    # As Module.state_dict() leaves it.
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    return state


def teacher():
    """Every type and every kind of view."""
    base = numbers(6, 4)
    state = collections.OrderedDict()
    state["plain"] = base
    state["shared"] = base
    state["transposed"] = base.t()
    state["slice"] = base[1:5, 1:3]
    state["column"] = base[:, 2]
    state["channels_last"] = numbers(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state["one"] = torch.empty_strided((1, 3), (1000, 1)).copy_(numbers(1, 3))
    state["parameter"] = torch.nn.Parameter(numbers(2, 3))
    state["scalar"] = torch.tensor(4.625)
    state["empty"] = torch.empty(0, 7)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        state[str(dtype).split(".")[1]] = numbers(3, 2, dtype=dtype)
    state["double_view"] = numbers(3, 2, dtype=torch.float64).t()
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        state[str(dtype).split(".")[1]] = torch.arange(5).to(dtype)
    state["bool"] = torch.tensor([True, False, True])
    return state


def contiguous(state):
    double = lambda t: t.float() if t.dtype == torch.float64 else t
    return {name: double(tensor.detach()).contiguous().clone() for name, tensor in state.items()}


def torch_files():
    torch.save(smallest_vit(), FOLDER / "vit.pth")
    checkpoint = {
        "epoch": 31,
        "loss": 0.125,
        "seed": 2**80,
        "negative": -(2**40),
        "name": "é",
        "shape": torch.Size([2, 3]),
        "nothing": None,
        "best": np.float64(0.5),
        "student": {"plain": numbers(2, 2)},
        "teacher": teacher(),
        "optimizer": {"state": {0: {"exp_avg": numbers(2, 2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    torch.save(checkpoint, FOLDER / "checkpoint.pth")
    torch.save({"model": {"state_dict": {"a": numbers(2)}}, "other": {"b": numbers(2)}}, FOLDER / "nested.pth")
    torch.save({"weird": {"a": numbers(2)}, "other": {"b": numbers(2)}}, FOLDER / "ambiguous.pth")
    save_file(contiguous(teacher()), FOLDER / "teacher.safetensors")
    torch.save(torch.nn.Linear(2, 2), FOLDER / "module.pth")
    torch.save({"args": argparse.Namespace(lr=0.1), "model": {"a": numbers(2)}}, FOLDER / "namespace.pth")
    torch.save({"a": numbers(1).expand(1000)}, FOLDER / "expanded.pth")
    torch.save({"a": numbers(2, 2)}, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), FOLDER / "script.pt")


def numpy_files():
    half = np.arange(12, dtype=np.float16).reshape(3, 4) / 8
    double = np.asfortranarray(np.arange(8, dtype=np.float64).reshape(2, 4) - 4)
    for protocol in (2, 3, 4, 5):
        with open(FOLDER / f"features_{protocol}.dat", "wb") as file:
            pickle.dump({"bottle": half, "cable": double}, file, protocol=protocol)
    for name, value in {
        "array": half,
        "list": [half],
        "rows": [row for row in half],
        "rows_1": [row[None] for row in half],
        "big_endian": half.astype(">f4"),
        "integers": np.arange(-6, 6, dtype=np.int16).reshape(3, 4),
        "objects": np.array([["a", None]], dtype=object),
        "cube": np.zeros((2, 2, 2)),
        "nan": np.array([[1.0, np.nan]]),
        "ragged": [np.zeros(2), np.zeros(3)],
    }.items():
        with open(FOLDER / f"{name}.dat", "wb") as file:
            pickle.dump(value, file)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch_files()
    numpy_files()
