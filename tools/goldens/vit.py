"""Vision transformers in float64 with numpy alone: CLIP, DINO and DINOv2, on grids of H x W patches.

Pre-norm blocks, x += attention(norm1(x)), x += mlp(norm2(x)), heads of 64. Names of the tensors: those of open_clip for
CLIP, those of the authors' state dicts for DINO and DINOv2.
"""

import math

import numpy as np

HEAD = 64
CUBIC = -0.75

# erf from a table: at a point within 1/1024 of an entry the series up to the fourth power is exact to 1e-16.
STEP = 1.0 / 512
ERF = np.array([math.erf(i * STEP) for i in range(int(6.5 / STEP) + 2)])


def erf(x):
    size = np.minimum(np.abs(x), 6.5)
    entry = np.rint(size / STEP).astype(np.int64)
    at = entry * STEP
    h = size - at
    slope = 2.0 / math.sqrt(math.pi) * np.exp(-at * at)
    series = h * (1.0 + h * (-at + h * ((2 * at * at - 1) / 3 + h * (3 * at - 2 * at**3) / 6)))
    return np.copysign(ERF[entry] + slope * series, x)


def gelu(x):
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def quick_gelu(x):
    return x / (1.0 + np.exp(-1.702 * x))


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}


def keys(distance):
    """The cubic convolution kernel of Keys (1981)."""
    t = np.abs(distance)
    near = (CUBIC + 2) * t**3 - (CUBIC + 3) * t**2 + 1
    far = CUBIC * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def resize_matrix(stored, wanted, scale):
    """[wanted, stored]: bicubic, corners not aligned, no antialiasing, the outermost values repeated beyond the border."""
    matrix = np.zeros((wanted, stored))
    for row in range(wanted):
        source = (row + 0.5) / scale - 0.5
        for tap in range(math.floor(source) - 1, math.floor(source) + 3):
            matrix[row, min(max(tap, 0), stored - 1)] += keys(source - tap)
    return matrix


def resize_positions(stored, grid, offset):
    """Position embedding [1 + G*G, C] for `grid` = (H, W): [1 + H*W, C], the class token's row first."""
    side = math.isqrt(len(stored) - 1)
    if side * side != len(stored) - 1:
        raise ValueError(f"{len(stored) - 1} stored positions are no square")
    if tuple(grid) == (side, side):
        return stored
    rows, columns = (resize_matrix(side, wanted, (wanted + offset) / side) for wanted in grid)
    patches = stored[1:].reshape(side, side, -1)
    resized = np.einsum("yi,xj,ijc->yxc", rows, columns, patches, optimize=True)
    return np.concatenate([stored[:1], resized.reshape(grid[0] * grid[1], -1)])


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def attention(x, qkv_weight, qkv_bias, out_weight, out_bias):
    """x [T, C] of one image."""
    tokens, width = x.shape
    parts = (x @ qkv_weight.T + qkv_bias).reshape(tokens, 3, width // HEAD, HEAD)
    query, key, value = (parts[:, i].transpose(1, 0, 2) for i in range(3))
    logits = query @ key.transpose(0, 2, 1) / math.sqrt(HEAD)
    logits = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = (logits / logits.sum(-1, keepdims=True)) @ value
    return mixed.transpose(1, 0, 2).reshape(tokens, width) @ out_weight.T + out_bias


def patch_rows(pixels, patch):
    """[3, H*P, W*P] -> [H*W, 3*P*P], values of a patch in the order of the convolution's weight."""
    channels, height, width = pixels.shape
    if height % patch or width % patch:
        raise ValueError(f"{height} x {width} pixels are no multiple of {patch}")
    cut = pixels.reshape(channels, height // patch, patch, width // patch, patch)
    return cut.transpose(1, 3, 0, 2, 4).reshape(-1, channels * patch * patch)


class Vit:
    """A transformer from a state dict; `family` is clip, dino or dinov2."""

    def __init__(self, family, state):
        self.family = family
        self.state = {name: np.asarray(value, np.float64) for name, value in state.items()}
        self.clip = family == "clip"
        self.eps = 1e-5 if self.clip else 1e-6
        # DINO and DINOv2 give the size wanted plus 0.1 as a factor of the stored one.
        self.offset = 0.0 if self.clip else 0.1
        kernel = self["visual.conv1.weight" if self.clip else "patch_embed.proj.weight"]
        self.patch = kernel.shape[-1]
        self.kernel = kernel.reshape(len(kernel), -1)
        block = "visual.transformer.resblocks.{}.ln_1.weight" if self.clip else "blocks.{}.norm1.weight"
        self.depth = sum(block.format(i) in self.state for i in range(1000))

    def __getitem__(self, name):
        return self.state[name]

    def norm(self, x, name):
        return layer_norm(x, self[f"{name}.weight"], self[f"{name}.bias"], self.eps)

    def block(self, x, index, activation):
        if self.clip:
            start = f"visual.transformer.resblocks.{index}."
            names = ("ln_1", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        else:
            start = f"blocks.{index}."
            names = ("norm1", "attn.qkv.weight", "attn.qkv.bias", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        norm1, qkv_weight, qkv_bias, out, norm2, fc1, fc2 = (start + name for name in names)
        scale1, scale2 = (self.state.get(f"{start}ls{i}.gamma", 1.0) for i in (1, 2))
        mixed = attention(
            self.norm(x, norm1), self[qkv_weight], self[qkv_bias], self[f"{out}.weight"], self[f"{out}.bias"]
        )
        x = x + scale1 * mixed
        hidden = activation(self.norm(x, norm2) @ self[f"{fc1}.weight"].T + self[f"{fc1}.bias"])
        return x + scale2 * (hidden @ self[f"{fc2}.weight"].T + self[f"{fc2}.bias"])

    def forward(self, pixels, layers, activation="gelu"):
        """Pixels [N, 3, height, width], normalised -> ({layer: [N, H*W, C]}, class tokens [N, D])."""
        activation = ACTIVATIONS[activation]
        height, width = pixels.shape[2:]
        grid = (height // self.patch, width // self.patch)
        if self.clip:
            class_row, stored = self["visual.class_embedding"].reshape(1, -1), self["visual.positional_embedding"]
        else:
            class_row, stored = self["cls_token"].reshape(1, -1), self["pos_embed"][0]
        positions = resize_positions(stored, grid, self.offset)
        taken, class_tokens = {layer: [] for layer in layers}, []
        for image in np.asarray(pixels, np.float64):
            patches = patch_rows(image, self.patch) @ self.kernel.T
            if not self.clip:
                patches = patches + self["patch_embed.proj.bias"]
            x = np.concatenate([class_row, patches]) + positions
            if self.clip:
                x = self.norm(x, "visual.ln_pre")
            for index in range(self.depth):
                x = self.block(x, index, activation)
                if index in taken:
                    taken[index].append(x[1:] if self.clip else self.norm(x[1:], "norm"))
            if self.clip:
                projected = self.norm(x[0], "visual.ln_post") @ self["visual.proj"]
                class_tokens.append(projected / np.linalg.norm(projected))
            else:
                class_tokens.append(self.norm(x[0], "norm"))
        return {layer: np.stack(rows) for layer, rows in taken.items()}, np.stack(class_tokens)
