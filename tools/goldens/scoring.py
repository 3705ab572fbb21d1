"""The method from tokens to scores, in float64, as its definition reads. No shortcut but one matrix product a pair.

A grid is (H, W); patch p of an image stands in row p // W and column p % W. `kept` [N, L] is False for patches that are
left out (the padding of a letterboxed image): they count as lying outside the grid.
"""

import math

import numpy as np


def lnamd(tokens, grid, degree, kept=None):
    """Unit rows [N, L, C] of tokens [N, L, C], averaged over windows of degree x degree; zeros outside are counted."""
    images, patches, width = tokens.shape
    rows, columns = grid
    if rows * columns != patches:
        raise ValueError(f"{patches} patches are no grid of {rows} x {columns}")
    half = degree // 2
    result = np.zeros(tokens.shape, np.float64)
    for image in range(images):
        inside = np.ones(patches, bool) if kept is None else kept[image]
        values = tokens[image].astype(np.float64)
        mean, variance = values[inside].mean(), values[inside].var()
        values = np.where(inside[:, None], (values - mean) / np.sqrt(variance + 1e-5), 0.0)
        field = np.zeros((rows + 2 * half, columns + 2 * half, width))
        field[half : half + rows, half : half + columns] = values.reshape(rows, columns, width)
        pooled = np.zeros((rows, columns, width))
        for y in range(degree):
            for x in range(degree):
                pooled += field[y : y + rows, x : x + columns]
        pooled = (pooled / degree**2).reshape(patches, width)
        norm = np.linalg.norm(pooled, axis=1, keepdims=True)
        result[image] = np.divide(pooled, norm, out=np.zeros_like(pooled), where=norm > 0)
    return result


def seen(grid, radius):
    """[L, L]: does the patch of the row see the patch of the column?"""
    rows, columns = grid
    y, x = np.divmod(np.arange(rows * columns), columns)
    if radius is None:
        return np.ones((len(y), len(y)), bool)
    apart = np.maximum(np.abs(y[:, None] - y[None, :]), np.abs(x[:, None] - x[None, :]))
    return apart <= radius


def nearest(query, reference, visible):
    """For each row of `query` [L, C] the distance to the nearest row of `reference` [L, C] that it sees."""
    cosine = np.where(visible, query @ reference.T, -np.inf)
    # The nearest is found by the cosine; its distance is taken from the rows themselves.
    return np.linalg.norm(query - reference[cosine.argmax(1)], axis=1)


def interval_mean(distances, interval):
    """Mean of the sorted values of ranks [floor(low * M), floor(high * M)) along the first axis, at least one of them."""
    count = len(distances)
    first = min(math.floor(interval[0] * count), count - 1)
    last = max(math.floor(interval[1] * count), first + 1)
    return np.sort(distances, axis=0)[first:last].mean(0)


def mutual_scores(units, grid, references=None, same=None, radius=None, interval=(0.0, 0.3), kept=None, kept_references=None):
    """Scores [N, L] of unit rows [N, L, C].

    Without `references` each image is compared with every other one. With `references` [M, L, C] each image is compared
    with all of them but the one of the same content, `same[i]` (-1: none).
    """
    visible = seen(grid, radius)
    images, patches = units.shape[:2]
    others = units if references is None else references
    kept_others = kept if references is None else kept_references
    scores = np.zeros((images, patches))
    for i in range(images):
        skipped = i if references is None else (-1 if same is None else same[i])
        distances = []
        for j in range(len(others)):
            if j == skipped:
                continue
            shown = visible if kept_others is None else visible & kept_others[j][None, :]
            distances.append(nearest(units[i], others[j], shown))
        scores[i] = interval_mean(np.stack(distances), interval)
    return scores if kept is None else np.where(kept, scores, 0.0)


def by_degree_and_layer(tokens, grid, degrees, references=None, kept=None, kept_references=None, **options):
    """[R, layers, N, L] for tokens and references that are lists of [N, L, C] and [M, L, C], one a layer."""
    scores = []
    for degree in degrees:
        for layer, values in enumerate(tokens):
            units = lnamd(values, grid, degree, kept)
            other = None if references is None else lnamd(references[layer], grid, degree, kept_references)
            scores.append(mutual_scores(units, grid, other, kept=kept, kept_references=kept_references, **options))
    return np.stack(scores).reshape(len(degrees), len(tokens), *scores[0].shape)


def corners_aligned(cells, size):
    """[size, cells]: linear interpolation, the first and last cell on the first and last pixel."""
    matrix = np.zeros((size, cells))
    for pixel in range(size):
        position = pixel * (cells - 1) / (size - 1) if size > 1 else 0.0
        before = min(int(position), max(cells - 2, 0))
        share = position - before
        matrix[pixel, before] += 1 - share
        if share > 0:
            matrix[pixel, before + 1] += share
    return matrix


def anomaly_maps(patch_scores, grid, image_size):
    """[N, L] -> [N, height, width]."""
    rows, columns = (corners_aligned(*sides) for sides in zip(grid, image_size))
    return np.einsum("yi,xj,nij->nyx", rows, columns, patch_scores.reshape(-1, *grid), optimize=True)


def rscin(scores, class_tokens, counts, cosine=False):
    """Image scores [N] smoothed over the images whose class tokens [N, D] are most alike, a mean over `counts`."""
    scores, tokens = scores.astype(np.float64), class_tokens.astype(np.float64)
    if scores.max() == scores.min():
        return scores
    if cosine:
        tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    similarity = tokens @ tokens.T
    total = np.zeros(len(scores))
    for count in counts:
        for i, row in enumerate(similarity):
            largest = np.argsort(-row, kind="stable")[:count]
            total[i] += row[largest] @ scaled[largest] / row[largest].sum()
    return total / len(counts)
