#!/usr/bin/env python3
"""Holds the tree to what ARCHITECTURE.md says: who uses whom, what the library links, how long files are."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 600
# Each folder or file of src may use those before it, and itself.
ORDER = [
    {"atomic", "error", "gemm", "grid", "progress", "real", "simd"},
    {"tensor_file"},
    {"image"},
    {"dataset"},
    {"model"},
    {"scoring"},
    {"backend"},
    {"metrics"},
    {"defects"},
    {"report"},
    {"inspect"},
]
# What belongs to programs, not to a library.
PROGRAMS = {"clap", "indicatif", "ctrlc", "serde_yaml_ng", "musc-cli"}


def rank(room):
    return next((at for at, rooms in enumerate(ORDER) if room in rooms), None)


def room_of(path):
    return path.relative_to(ROOT / "src").parts[0].removesuffix(".rs")


def names_used(text):
    """The first names behind `crate::` in a file without its tests and comments."""
    code = text.split("#[cfg(test)]\nmod tests")[0]
    code = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith("//"))
    for found in re.finditer(r"\bcrate::(\{[^;]*?\}|\w+)", code):
        part = found.group(1)
        if not part.startswith("{"):
            yield part
            continue
        depth, name = 0, ""
        for letter in part[1:-1] + ",":
            depth += letter == "{"
            depth -= letter == "}"
            if letter == "," and depth == 0:
                yield name.strip().split("::")[0].split(" ")[0]
                name = ""
            else:
                name += letter


def arrows(faults):
    # What lib.rs hands on under its own name.
    handed_on = {}
    lib = (ROOT / "src/lib.rs").read_text()
    for found in re.finditer(r"pub use (\w+)::\{?([^;}]*)\}?;", lib):
        for name in found.group(2).split(","):
            handed_on[name.strip()] = found.group(1)
    seen = 0
    for path in sorted((ROOT / "src").rglob("*.rs")):
        room = room_of(path)
        if room == "lib":
            continue
        if rank(room) is None:
            faults.append(f"{path.relative_to(ROOT)}: `{room}` has no place in the order of {Path(__file__).name}")
            continue
        for name in names_used(path.read_text()):
            used = handed_on.get(name, name)
            if used == room or rank(used) is None:
                continue
            seen += 1
            if rank(used) > rank(room):
                faults.append(f"{path.relative_to(ROOT)}: `{room}` uses `{used}`, which stands above it")
    if seen < 100:
        faults.append(f"only {seen} uses found between rooms: the look itself is broken")


def lengths(faults):
    listed = subprocess.run(
        ["git", "ls-files", "*.rs", "*.cu", "*.cuh", "*.h", "*.py", "*.sh"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()
    if len(listed) < 100:
        faults.append(f"only {len(listed)} files listed: the look itself is broken")
    for name in listed:
        lines = (ROOT / name).read_text().count("\n")
        if lines > LONGEST:
            faults.append(f"{name}: {lines} lines, at most {LONGEST}")


def links(faults):
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "-p", "musc", "-e", "normal", "--prefix", "none", "--features", "files,libjpeg,sim,hub"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    linked = {line.split(" ")[0] for line in tree.splitlines() if line}
    if "gemm" not in linked:
        faults.append("cargo tree lists no gemm: the look itself is broken")
    for name in sorted(linked & PROGRAMS):
        faults.append(f"the library links {name}, which belongs to a program")


def scoring_in_cli(faults):
    """The programs call the library's job; they hold no steps of the method."""
    for path in sorted((ROOT / "cli/src").rglob("*.rs")):
        text = path.read_text()
        for word in ("interval_mean(", "softmax", "inverse_norm", "sqrt()"):
            if word in text and "bench" not in path.parts:
                faults.append(f"{path.relative_to(ROOT)}: `{word}` belongs to the library")


def main():
    faults = []
    for look in (arrows, lengths, links, scoring_in_cli):
        look(faults)
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)
    print("the layout is as ARCHITECTURE.md says")


if __name__ == "__main__":
    main()
