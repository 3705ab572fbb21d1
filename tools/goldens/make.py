#!/usr/bin/env python3
"""Makes the goldens of `cases.py` in tests/data, or checks all that is there against the float64 reference.

    pip install -r tools/goldens/requirements.txt
    python tools/goldens/make.py                     # writes the goldens made here, and their rows of the README's table
    python tools/goldens/make.py --check             # compares; exit code 1 where anything differs or is absent
    python tools/goldens/make.py --check --all       # also what needs Pillow and ten minutes: resizing, the real run
    python tools/goldens/make.py --digests           # states anew the digest of every file, after another maker ran
"""

import argparse
import sys
from pathlib import Path

import cases
import laws
import older
import storage

# The same float64 computation by another BLAS rounds to the same f32 or to its neighbour.
RELATIVE = 2.4e-7
ABSOLUTE = 1e-9


def make():
    for name in cases.CASES:
        path = storage.DATA / f"{name}.safetensors"
        storage.write(path, *cases.make(name))
        print(f"{path.relative_to(storage.ROOT)}: {path.stat().st_size} bytes")
    storage.write_digests(storage.DATA, [f"{name}.safetensors" for name in cases.CASES])


def check_digests(folder):
    stated, found = storage.table(), storage.entries(folder)
    for name in found:
        if name not in stated:
            yield f"{name}: not in the table of {storage.TABLE.name}"
        elif storage.digest_of(folder / name) != stated[name]:
            yield f"{name}: SHA-256 is not the one that {storage.TABLE.name} states"
    yield from (f"{name}: absent" for name in stated if name not in found)


def check_made(folder):
    """Inputs equal to the bit, expected values to a rounding."""
    for name in cases.CASES:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            yield f"{path.name}: absent"
            continue
        stored, stored_metadata = storage.read(path)
        tensors, metadata = cases.make(name)
        if stored_metadata != metadata:
            yield f"{path.name}: metadata {stored_metadata}, expected {metadata}"
        for key in sorted(stored.keys() | tensors.keys()):
            if key not in stored or key not in tensors:
                yield f"{path.name} {key}: {'absent' if key in tensors else 'not made here'}"
                continue
            exact = cases.is_input(key)
            if stored[key].dtype != tensors[key].dtype:
                yield f"{path.name} {key}: {stored[key].dtype}, expected {tensors[key].dtype}"
                continue
            difference = storage.compare(stored[key], tensors[key], 0 if exact else ABSOLUTE, 0 if exact else RELATIVE)
            if difference:
                yield f"{path.name} {key}: {difference}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--all", action="store_true", help="with --check: also what needs Pillow and minutes")
    parser.add_argument("--digests", action="store_true", help="only state the digests of all files anew")
    parser.add_argument("--data", type=Path, default=storage.DATA, help="with --check: a copy of tests/data to check")
    parser.add_argument("--quiet", action="store_true", help="with --check: only what differs")
    options = parser.parse_args()
    if options.digests:
        storage.write_digests(storage.DATA)
    elif not options.check:
        make()
    else:
        report = older.Report(options.quiet)
        laws.check(report)
        older.check(report, options.data)
        if options.all:
            import with_pillow

            with_pillow.check(report, options.data)
        wrong = [*check_digests(options.data), *check_made(options.data), *report.failed]
        for line in wrong:
            print(f"DIFFERS {line}")
        print(f"{len(wrong)} differences" if wrong else "everything is as stated")
        return 1 if wrong else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
