#!/usr/bin/env python3
"""Compares what bindings/c/examples/inspect.c prints with a scores.csv of musc-run: names, scores, raw scores, decisions."""

import csv
import struct
import sys


def single(text):
    """The bits of an f32: both write it with enough digits."""
    return struct.pack("<f", float(text))


def main():
    ours, theirs = sys.argv[1:]
    rows = {}
    with open(theirs, newline="") as file:
        for row in csv.DictReader(file):
            rows[row["path"]] = (struct.pack("<d", float(row["score"])), single(row["raw_score"]), row["decision"])
    seen = 0
    for line in open(ours):
        score, raw, decision, _, _, name = line.rstrip("\n").split(",", 5)
        found = (struct.pack("<d", float(score)), single(raw), decision)
        if rows.get(name) != found:
            sys.exit(f"{name}: found {line.rstrip()}, expected {rows.get(name)}")
        seen += 1
    if seen != len(rows) or seen < 3:
        sys.exit(f"{seen} images in {ours}, {len(rows)} in {theirs}")
    print(f"{seen} images: scores, raw scores and decisions have the bits of musc-run's")


if __name__ == "__main__":
    main()
