"""What must hold of the reference on any input, where no golden of another maker exists: turned grids, sets, radius, padding."""

import numpy as np

import cases
import scoring
import storage
import vit

# Sums in another order, in float64; a distance is the root of a small difference.
BOUND = 1e-12


def turn_patches(values, grid):
    """[..., L, C] of rows x columns patches -> the same of columns x rows."""
    rows, columns = grid
    return np.swapaxes(values.reshape(*values.shape[:-2], rows, columns, -1), -3, -2).reshape(values.shape)


def turned_vit(report):
    """Pixels, kernel and position embedding turned over their diagonal: the tokens are turned too."""
    for family, kernel, positions in (
        ("clip", "visual.conv1.weight", "visual.positional_embedding"),
        ("dinov2", "patch_embed.proj.weight", "pos_embed"),
    ):
        state, _ = storage.read(storage.DATA / f"{family}_tiny_weights.safetensors")
        plain, grid = vit.Vit(family, state), (3, 5)
        pixels = cases.Numbers(1).normal(1, 3, grid[0] * plain.patch, grid[1] * plain.patch)
        stored = np.array(state[positions])
        patches = stored[..., 1:, :]
        stored[..., 1:, :] = turn_patches(patches, (4, 4))
        turned = vit.Vit(family, state | {kernel: state[kernel].swapaxes(2, 3), positions: stored})
        expected, class_expected = plain.forward(pixels, (3,))
        found, class_found = turned.forward(pixels.swapaxes(2, 3), (3,))
        report.absolute(f"law: {family} on a turned grid", found[3], turn_patches(expected[3], grid), BOUND)
        report.absolute(f"law: {family} class token of a turned grid", class_found, class_expected, BOUND)


def scores(report):
    grid, turned = (4, 7), (7, 4)
    tokens = cases.like_tokens(cases.Numbers(2), 5, grid, 16)
    crossed = turn_patches(tokens, grid)

    def scored(values, shape, references=None, **options):
        return scoring.by_degree_and_layer([values], shape, cases.DEGREES, references, **options)

    def turn_scores(values):
        return turn_patches(values[..., None], grid)[..., 0]

    others = scored(tokens, grid)
    report.absolute("law: scores of a turned grid", scored(crossed, turned), turn_scores(others), BOUND)
    for radius in (0, 1, 2):
        expected = turn_scores(scored(tokens, grid, radius=radius))
        report.absolute(f"law: radius {radius} on a turned grid", scored(crossed, turned, radius=radius), expected, BOUND)
    report.absolute("law: a radius that reaches all", scored(tokens, grid, radius=6), others, 0)
    report.absolute("law: the set itself as references", scored(tokens, grid, [tokens], same=range(5)), others, 0)
    # The definition once more, one patch at a time.
    units = scoring.lnamd(tokens, grid, 3)
    found = scored(tokens, grid, [tokens[:3]], same=[0, 1, 2, -1, -1], radius=1, interval=(0.0, 0.7))[1, 0]
    expected = np.zeros_like(found)
    for i, p in np.ndindex(found.shape):
        near = [q for q in range(28) if abs(q // 7 - p // 7) <= 1 and abs(q % 7 - p % 7) <= 1]
        all_distances = sorted(
            min(np.sqrt(((units[i, p] - units[j, q]) ** 2).sum()) for q in near) for j in range(3) if j != i
        )
        expected[i, p] = np.mean(all_distances[: int(0.7 * len(all_distances))])
    report.absolute("law: the definition patch by patch", found, expected, BOUND)
    # Two columns that are left out everywhere are columns that are not there.
    kept = np.arange(28) % 7 < 5
    narrow = scored(tokens[:, kept], (4, 5))
    padded = scored(tokens, grid, kept=np.tile(kept, (5, 1)))
    report.absolute("law: padding is outside the grid", padded[..., kept], narrow, BOUND)
    other = np.where(kept[:, None], tokens, 7.0)
    other = scored(other, grid, kept=np.tile(kept, (5, 1)))
    report.absolute("law: what stands in the padding does not matter", other, padded, 0)
    report.absolute("law: padding scores nothing", padded[..., ~kept], np.zeros_like(padded[..., ~kept]), 0)
    padded = scored(tokens[:2], grid, [tokens[2:]], kept=np.tile(kept, (2, 1)), kept_references=np.tile(kept, (3, 1)))
    narrow = scored(tokens[:2, kept], (4, 5), [tokens[2:, kept]])
    report.absolute("law: padding of references", padded[..., kept], narrow, BOUND)
    # Corners meet corners, and the map of a turned grid is the turned map.
    means, size = others.mean((0, 1)), (13, 29)
    maps = scoring.anomaly_maps(means, grid, size)
    corners = means.reshape(5, *grid)[:, :: grid[0] - 1, :: grid[1] - 1]
    report.absolute("law: corners of the map", maps[:, :: size[0] - 1, :: size[1] - 1], corners, BOUND)
    crossed = scoring.anomaly_maps(turn_scores(means), turned, size[::-1])
    report.absolute("law: map of a turned grid", crossed, maps.swapaxes(1, 2), BOUND)


def check(report):
    turned_vit(report)
    scores(report)
