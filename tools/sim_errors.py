#!/usr/bin/env python3
"""How far each kernel is from f64 on the simulator, with sums as f32 takes them and as tensor cores do.

    cargo test --locked -p musc --features sim --test kernels --no-run
    python tools/sim_errors.py [FILTER ...]      runs tests/kernels once a mode; FILTER names tests, default those that multiply

A row is a test: the largest |found - f64| in each mode, and the largest share of its bound. Fails where a test fails.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

MODES = ["f32", "a100", "h100"]
MULTIPLY = ["attention::", "gemm::", "local::", "mutual::"]
ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(mode: str, tests: list[str], errors: pathlib.Path) -> bool:
    """One run of the tests; what they tell is appended to `errors`."""
    env = os.environ | {"MUSC_SIM_MMA": mode, "MUSC_SIM_ERRORS": str(errors)}
    command = ["cargo", "test", "--locked", "--quiet", "-p", "musc", "--features", "sim", "--test", "kernels", "--", *tests]
    return subprocess.run(command, cwd=ROOT, env=env).returncode == 0


def largest(errors: pathlib.Path) -> dict[str, tuple[float, float]]:
    """Largest error and largest share of its bound, by test."""
    rows: dict[str, tuple[float, float]] = {}
    for line in errors.read_text().splitlines():
        test, _, error, share = line.split("\t")
        before = rows.get(test, (0.0, 0.0))
        rows[test] = (max(before[0], float(error)), max(before[1], float(share)))
    return rows


def main() -> int:
    tests = sys.argv[1:] or MULTIPLY
    failed = []
    by_mode = {}
    with tempfile.TemporaryDirectory() as folder:
        for mode in MODES:
            errors = pathlib.Path(folder) / mode
            if not run(mode, tests, errors):
                failed.append(mode)
            by_mode[mode] = largest(errors) if errors.exists() else {}
    names = sorted(set().union(*by_mode.values()))
    print("| test | " + " | ".join(MODES) + " |")
    print("|---|" + "---|" * len(MODES))
    for name in names:
        cells = [by_mode[mode].get(name) for mode in MODES]
        text = ["-" if c is None else f"{c[0]:.1e}, {100 * c[1]:.0f} % of the bound" for c in cells]
        print(f"| {name} | " + " | ".join(text) + " |")
    for mode in failed:
        print(f"tests failed in mode {mode}", file=sys.stderr)
    if not names:
        print("no test told an error", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
