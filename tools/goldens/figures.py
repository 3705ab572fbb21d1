"""The seven figures of an evaluation, in float64 with numpy alone, of scores as they are (float32)."""

import numpy as np


def curve(truth, scores):
    """True and false positives at each distinct threshold, from the largest down."""
    order = np.argsort(-scores, kind="stable")
    truth, scores = truth[order].astype(np.float64), scores[order]
    ends = np.append(np.nonzero(np.diff(scores))[0], len(scores) - 1)
    true = np.cumsum(truth)[ends]
    return true, 1 + ends - true


def trapezoids(y, x):
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def auroc(truth, scores):
    true, false = (np.append(0, counts) for counts in curve(truth, scores))
    return trapezoids(true / true[-1], false / false[-1])


def f1_max(truth, scores):
    true, false = curve(truth, scores)
    return float((2 * true / (true + false + truth.sum())).max())


def average_precision(truth, scores):
    true, false = curve(truth, scores)
    recall = np.append(0, true / true[-1])
    return float(np.sum(np.diff(recall) * true / (true + false)))


def regions(mask):
    """Boolean masks of the regions of one mask; pixels that touch by a corner belong together."""
    left = {tuple(pixel) for pixel in np.argwhere(mask)}
    found = []
    while left:
        ring = [left.pop()]
        region = np.zeros(mask.shape, bool)
        while ring:
            y, x = ring.pop()
            region[y, x] = True
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            ring.extend(around)
        found.append(region)
    return found


def aupro(truth, scores, thresholds=200, limit=0.3):
    """Area under the mean coverage of the regions over the false positive rate, up to `limit`, scaled to 1."""
    low, high = scores.min(), scores.max()
    # As the authors' program makes them of maps in f32: the step and the first two are rounded to f32.
    steps = np.arange(low, high, (high - low) / thresholds)
    defects = [(image, region) for image in range(len(truth)) for region in regions(truth[image] > 0)]
    normal = truth == 0
    false, covered = [], []
    for step in steps[::-1]:
        found = scores > step
        false.append(found[normal].mean())
        covered.append(np.mean([found[image][region].mean() for image, region in defects]))
    false, covered = np.array(false), np.array(covered)
    covered, false = covered[false < limit], false[false < limit]
    return trapezoids(covered, (false - false.min()) / (false.max() - false.min()))


def all_seven(truth_image, score_image, truth_pixel, score_pixel):
    result = {}
    for kind, truth, scores in (("image", truth_image, score_image), ("pixel", truth_pixel.ravel(), score_pixel.ravel())):
        result[f"{kind}_auroc"] = auroc(truth, scores)
        result[f"{kind}_f1max"] = f1_max(truth, scores)
        result[f"{kind}_ap"] = average_precision(truth, scores)
    result["pixel_aupro"] = aupro(truth_pixel, score_pixel)
    return result
