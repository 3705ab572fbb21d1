"""Holds the outcome of a test program to a list of the tests that do not pass: compare.py LIST LOGFILE. The log is libtest's
(`--logfile`): a line a test, its outcome first."""

import sys
from pathlib import Path

# Of the 53 tests that cudarc does not leave out itself.
AT_LEAST = 47


def main():
    listed, log = (Path(name).read_text().splitlines() for name in sys.argv[1:])
    exceptions = {line.split("\t")[0] for line in listed if line and not line.startswith("#")}
    either = {name.removeprefix("?") for name in exceptions if name.startswith("?")}
    exceptions = {name.removeprefix("?") for name in exceptions}
    outcomes = {}
    for line in log:
        outcome, _, name = line.partition(" ")
        outcomes[name.removesuffix(" - should panic")] = outcome
    passed = {name for name, outcome in outcomes.items() if outcome == "ok"}
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    faults = [f"{name} fails, and is not in {sys.argv[1]}" for name in sorted(failed - exceptions)]
    faults += [f"{name} passes, and is in {sys.argv[1]}" for name in sorted(passed & exceptions - either)]
    faults += [f"{name} is in {sys.argv[1]}, and was not run" for name in sorted(exceptions - passed - failed)]
    if len(passed) < AT_LEAST:
        faults.append(f"{len(passed)} tests pass, at least {AT_LEAST} are expected")
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"{len(passed)} of {len(passed) + len(failed)} tests pass; the others are those that are listed")


if __name__ == "__main__":
    main()
