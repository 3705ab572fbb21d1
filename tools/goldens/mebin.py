"""MEBin by its definition (src/defects/mebin.rs states it): a threshold for each map, counted step by step, in float64."""

import numpy as np

BEFORE, BEHIND = 3, 2  # a square of 6 pixels, anchored at its fourth


def eroded(mask):
    """Pixels all of whose square are set; beyond the border nothing erodes."""
    whole = np.pad(mask, ((BEFORE, BEHIND), (BEFORE, BEHIND)), constant_values=True)
    height, width = mask.shape
    out = np.ones_like(mask)
    for y in range(BEFORE + BEHIND + 1):
        for x in range(BEFORE + BEHIND + 1):
            out &= whole[y : y + height, x : x + width]
    return out


def regions(mask):
    """The number of pieces that touch by a side or a corner, by flooding."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            y, x = edge.pop()
            for near in [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    edge.append(near)
    return count


def chosen(counts):
    """The last step of the stretch that wins, or None."""
    stretches, start = [], 0
    for at in range(1, len(counts) + 1):
        if at == len(counts) or counts[at] != counts[start]:
            if counts[start] and at - start >= 4:
                stretches.append((counts[start], at - start, at - 1))
            start = at
    if not stretches:
        return None
    order = list(dict.fromkeys(count for count, _, _ in stretches))
    longest = {count: max(length for c, length, _ in stretches if c == count) for count in order}
    winner = max(order, key=lambda count: (longest[count], -order.index(count)))
    return next(end for count, length, end in stretches if count == winner and length == longest[winner])


def thresholds(maps):
    """One a map, [N]; and how many regions each map has at each of the 64 steps, [N, 64]."""
    maps = np.asarray(maps, np.float64)
    peaks = maps.max(axis=(1, 2))
    low, high = peaks.min(), peaks.max()
    if low == high:
        low = maps.min()
    taus, all_counts = [], []
    for values in maps:
        u = np.where(values < low, 0.0, np.clip((values - low) / (high - low) * 255.0, 0.0, 255.0))
        counts = [regions(eroded(u > t)) for t in range(255, 0, -4)]
        end = chosen(counts)
        taus.append(high if end is None else low + (255 - 4 * end) / 255.0 * (high - low))
        all_counts.append(counts)
    return np.array(taus), np.array(all_counts)
