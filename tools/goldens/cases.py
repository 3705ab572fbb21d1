"""The goldens that are made here: inputs from a seed, expected values from the float64 reference.

Inputs come from the raw output of PCG64 (fixed for good, unlike the distributions on top of it) by sums and products
alone, so that every machine makes the same bytes.
"""

import re

import numpy as np

import mebin
import scoring
import storage
import vit

FORMAT = "1"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# Grids of rows x columns. 4x7 shares a side with the stored 4x4, and 8x2 has as many patches.
WIDE = {
    "clip": {"wide": (3, 7), "tall": (8, 2)},
    "dino": {"wide": (4, 7), "tall": (8, 2)},
    "dinov2": {"wide": (5, 11), "tall": (7, 4)},
}
SEEDS = {"clip": 101, "dino": 102, "dinov2": 103, "stages_wide": 104, "1x17": 105, "16x3": 106, "mebin": 107}
DEGREES = (1, 3, 5)
INTERVAL = (0.25, 0.75)


class Numbers:
    """Numbers from a seed."""

    def __init__(self, seed):
        self.bits = np.random.PCG64(seed)

    def uniform(self, *shape):
        """Multiples of 2^-53 in [0, 1)."""
        return (self.bits.random_raw(int(np.prod(shape))) >> np.uint64(11)).reshape(shape) * 2.0**-53

    def normal(self, *shape):
        """Nearly normal: the sum of twelve uniform numbers, less 6."""
        total = np.zeros(shape)
        for _ in range(12):
            total += self.uniform(*shape)
        return total - 6.0

    def below(self, limit, *shape):
        return np.floor(self.uniform(*shape) * limit).astype(np.int64)


def dashed(sides):
    return "x".join(str(side) for side in sides)


def wide_vit(family):
    """`FAMILY_tiny_wide`: two images on two grids that are not square, through the tiny weights."""
    weights, _ = storage.read(storage.DATA / f"{family}_tiny_weights.safetensors")
    model, numbers = vit.Vit(family, weights), Numbers(SEEDS[family])
    mean, std = (np.array(values) for values in (CLIP if family == "clip" else IMAGENET))
    tensors = {}
    metadata = {
        "seed": str(SEEDS[family]),
        "patch": str(model.patch),
        "mean": ",".join(map(str, mean)),
        "std": ",".join(map(str, std)),
    }
    for name, grid in WIDE[family].items():
        size = tuple(side * model.patch for side in grid)
        image = numbers.below(256, 2, *size, 3).astype(np.uint8)
        pixels = ((image / 255.0 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        tensors[f"{name}.image_u8"], tensors[f"{name}.pixels"] = image, pixels
        metadata[f"{name}.grid"], metadata[f"{name}.image_size"] = dashed(grid), dashed(size)
        for activation in ("gelu", "quick_gelu") if family == "clip" else ("gelu",):
            prefix = f"{name}.{activation}" if family == "clip" else name
            layers, class_tokens = model.forward(pixels, (1, 3), activation)
            for layer, tokens in layers.items():
                tensors[f"{prefix}.layer{layer}"] = tokens
            tensors[f"{prefix}.class_token"] = class_tokens
    return tensors, metadata


def blurred(field):
    """A step of smoothing over rows and columns; the border is repeated."""
    for axis in (0, 1):
        before = np.concatenate([field.take([0], axis), field], axis).take(range(field.shape[axis]), axis)
        after = np.concatenate([field, field.take([-1], axis)], axis).take(range(1, field.shape[axis] + 1), axis)
        field = (before + 2 * field + after) / 4
    return field


def like_tokens(numbers, images, grid, width):
    """[N, L, C] that look like a transformer's: one structure over the grid that all images share, each moved by up to
    one patch, with noise, a few strange patches, and channels of different size and mean.

    Multiples of 1/32 below 8, which f16 and bf16 hold exactly.
    """
    rows, columns = grid
    structure = blurred(numbers.normal(rows + 2, columns + 2, width)) * 2.0
    size = 0.5 + numbers.uniform(width)
    mean = 0.3 + 0.3 * numbers.normal(width)
    mean[3], mean[width // 2] = 5.0, -4.0
    tokens = np.zeros((images, rows, columns, width))
    for image in tokens:
        y, x = numbers.below(3, 2)
        image[:] = structure[y : y + rows, x : x + columns] + 0.35 * numbers.normal(rows, columns, width)
        for _ in range(2):
            row, column = numbers.below(rows, 1)[0], numbers.below(columns, 1)[0]
            image[row, column] += 0.9 * numbers.normal(width)
    tokens = np.rint((tokens * size + mean) * 32) / 32
    limit = 255 / 32
    return np.clip(tokens, -limit, limit).reshape(images, rows * columns, width).astype(np.float32)


def stage_inputs(seed, images, references, grid, width, layers, same):
    """Tokens of queries and references, one array a layer; reference same[i] is a copy of query i."""
    numbers = Numbers(seed)
    queries, others = [], []
    for _ in range(layers):
        both = like_tokens(numbers, images + references, grid, width)
        query, other = both[:images], both[images:]
        for i, j in enumerate(same):
            if j >= 0:
                other[j] = query[i]
        queries.append(query)
        others.append(other)
    return queries, others


def stages(seed, images, references, grid, width, layers, same, image_size):
    """The tensors that both stage files have."""
    queries, others = stage_inputs(seed, images, references, grid, width, layers, same)
    tensors = {"same": np.array(same, np.int32)}
    for layer in range(layers):
        tensors[f"tokens.{layer}"], tensors[f"reference_tokens.{layer}"] = queries[layer], others[layer]

    def scored(against, **options):
        if against == "set":
            options.update(references=others, same=same)
        return scoring.by_degree_and_layer(queries, grid, DEGREES, **options)

    for against in ("others", "set"):
        tensors[against] = scored(against)
        tensors[f"{against}_interval"] = scored(against, interval=INTERVAL)
        for radius in (1, 2):
            tensors[f"{against}_radius{radius}"] = scored(against, radius=radius)
    tensors["patch_scores"] = tensors["others"].mean((0, 1))
    tensors["set_patch_scores"] = tensors["set"].mean((0, 1))
    tensors["anomaly_map"] = scoring.anomaly_maps(tensors["patch_scores"], grid, image_size)
    tensors["image_scores"] = tensors["anomaly_map"].max((1, 2))
    return tensors, queries, others


def padding(images, grid):
    """[N, L], 1 where a patch is left out: bars above and below, at the sides, nothing, one corner, single patches."""
    rows, columns = grid
    out = np.zeros((images, rows, columns), np.uint8)
    for image in range(images):
        kind = image % 5
        if kind == 0:
            out[image, 0], out[image, -1] = 1, 1
        elif kind == 1:
            out[image, :, :2], out[image, :, -1] = 1, 1
        elif kind == 3:
            out[image, rows - 2 :, columns - 3 :] = 1
        elif kind == 4:
            out[image, 1, 4], out[image, 3, 0], out[image, 2, 7] = 1, 1, 1
    return out.reshape(images, rows * columns)


def stages_wide():
    grid, image_size, same = (5, 9), (40, 72), (-1, 6, -1, -1, -1, 0, -1, -1)
    images, references = len(same), 10
    tensors, queries, others = stages(SEEDS["stages_wide"], images, references, grid, 48, 2, same, image_size)
    out, out_references = padding(images, grid), padding(references + 2, grid)[2:]
    for i, j in enumerate(same):
        if j >= 0:
            out_references[j] = out[i]
    kept, kept_references = out == 0, out_references == 0
    tensors["left_out"], tensors["reference_left_out"] = out, out_references
    tensors["others_left_out"] = scoring.by_degree_and_layer(queries, grid, DEGREES, kept=kept)
    tensors["set_left_out"] = scoring.by_degree_and_layer(
        queries, grid, DEGREES, others, kept=kept, kept_references=kept_references, same=same
    )
    metadata = {"grid": dashed(grid), "image_size": dashed(image_size), "seed": str(SEEDS["stages_wide"])}
    return tensors, metadata | stage_metadata()


def stages_awkward():
    tensors, metadata = {}, stage_metadata()
    for name, grid, image_size in (("1x17", (1, 17), (6, 102)), ("16x3", (16, 3), (96, 18))):
        case, _, _ = stages(SEEDS[name], 4, 7, grid, 32, 2, (-1, 2, -1, -1), image_size)
        tensors |= {f"{name}.{key}": value for key, value in case.items()}
        metadata |= {f"{name}.grid": dashed(grid), f"{name}.image_size": dashed(image_size), f"{name}.seed": str(SEEDS[name])}
    return tensors, metadata


def stage_metadata():
    return {"r_list": ",".join(str(r) for r in DEGREES), "default_interval": "0,0.3", "interval": ",".join(map(str, INTERVAL))}


def smooth(numbers, count, rows, columns, scale):
    """`count` maps of random values on a coarse grid, bilinear in between: `scale` pixels from one to the next."""
    coarse = numbers.uniform(count, rows, columns) * numbers.uniform(count, 1, 1)
    share = np.arange(scale) / scale

    def between(values):
        a, b = values[..., :-1, None], values[..., 1:, None]
        joined = (a * (1.0 - share) + b * share).reshape(*values.shape[:-1], -1)
        return np.concatenate([joined, values[..., -1:]], axis=-1)

    return between(between(coarse).swapaxes(1, 2)).swapaxes(1, 2).astype(np.float32)


def mebin_maps():
    """`mebin`: smooth maps and the threshold of each; in `equal.` all have the same largest value."""
    numbers, tensors = Numbers(SEEDS["mebin"]), {}
    groups = {"square": (10, 7, 7, 8), "wide": (8, 4, 9, 8), "equal": (4, 5, 5, 8)}
    for name, (count, rows, columns, scale) in groups.items():
        maps = smooth(numbers, count, rows, columns, scale)
        if name == "equal":
            for values in maps:
                values[values == values.max()] = 1.0
        taus, counts = mebin.thresholds(maps)
        tensors |= {f"{name}.maps": maps, f"{name}.thresholds": taus, f"{name}.counts": counts.astype(np.int32)}
    return tensors, {"seed": str(SEEDS["mebin"])}


CASES = {f"{family}_tiny_wide": lambda family=family: wide_vit(family) for family in WIDE}
CASES |= {"stages_wide": stages_wide, "stages_awkward": stages_awkward, "mebin": mebin_maps}


def make(name):
    """(tensors, metadata) of a golden; floats as f32."""
    tensors, metadata = CASES[name]()
    for key, value in tensors.items():
        if value.dtype == np.float64:
            tensors[key] = value.astype(np.float32)
    metadata |= {"maker": "tools/goldens/make.py", "maker_format": FORMAT}
    return tensors, metadata


# What a test reads in; the rest is what it expects.
INPUTS = re.compile(r"(^|\.)(image_u8|pixels|tokens\.\d+|reference_tokens\.\d+|same|left_out|reference_left_out|maps)$")


def is_input(key):
    return INPUTS.search(key) is not None
