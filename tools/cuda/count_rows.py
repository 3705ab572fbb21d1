#!/usr/bin/env python3
"""Counts what a row of gram_pool costs in machine code, by role and by scheduler.

    tools/cuda/count_rows.py                      the checked-in PTX, compute capability 8.0
    tools/cuda/count_rows.py FILE.ptx ENTRY [86]  another file, entry and architecture

A block of gram_pool walks down the rows of a grid with one barrier a row, so a row of a role is its loop's instructions
over its loop's barriers. Producers' loops load from global memory and store to shared memory; consumers' loops read shared
memory 16 bytes at a time, those of a larger degree more often. Of the producers' loops the ones whose loads have no
condition are meant (blocks inside the grid). The weights are those of a 37x37 grid: 15 warps of producers, 3 of consumers
for each degree, an element being one (p, q) of the 4 x 8 x 37 that a block scores in a row. Needs tools/cuda/install.sh.
"""

import re
import subprocess
import sys
import tempfile

PRODUCERS, CONSUMERS, ELEMENTS = 15, 3, 4 * 8 * 37
KINDS = {
    "FADD": r"FADD", "FMUL": r"FMUL|FFMA", "IMAD": r"IMAD", "FMNMX": r"FMNMX", "LDG": r"LDG", "LDS": r"LDS", "STS": r"STS",
    "SHFL": r"SHFL",
}


def entries(text):
    """The machine code of each entry of a disassembled file: name and text."""
    return [(part[:part.index(":")], part) for part in re.split(r"^\.text\.", text, flags=re.M)[1:]]


def code_and_loops(part):
    """An entry's instructions, a text each, and its loops as pairs of indices, first and last."""
    lines, labels, jumps = [], {}, []
    for line in part.splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            labels[label.group(1)] = len(lines)
        elif code := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            if "BRA" in code.group(1) and (to := re.search(r"\.(L_x_\d+)", line)):
                jumps.append((len(lines), to.group(1)))
            lines.append(code.group(1))
    # Behind the end there is a jump to itself, and padding.
    return lines, {(labels[to], at) for at, to in jumps if to in labels and labels[to] < at}


def innermost(spans):
    """The loops that no other of them lies in, in their order."""
    return [s for s in sorted(spans) if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]


def name(code):
    """An instruction without its predicate and operands."""
    return re.sub(r"^@!?U?P\w+\s+", "", code).split(" ")[0]


def loops(part):
    """Innermost loops with barriers of an entry: lists of its instructions."""
    lines, spans = code_and_loops(part)
    barred = [s for s in spans if any("BAR.SYNC" in code for code in lines[s[0]:s[1] + 1])]
    return [lines[first:last + 1] for first, last in innermost(barred)]


def row(body):
    """Instructions of a row of a loop, all and by kind."""
    rows = sum("BAR.SYNC" in code for code in body)
    names = [name(code) for code in body]
    counts = {kind: sum(bool(re.match(pattern, code)) for code in names) / rows for kind, pattern in KINDS.items()}
    counts["all"] = len(body) / rows
    counts["conditional loads"] = sum(code.startswith("@") and "LDG" in code for code in body) / rows
    return counts


def f32_pipe(counts):
    """What goes through the f32 pipe."""
    return counts["FADD"] + counts["FMUL"] + counts["IMAD"]


def roles(part):
    """Rows of an entry whose loops have a barrier a row: the producers' loops inside the grid and at its edge, each the one
    of most rows and then the one of the last rows; and the consumers' loops, fewest reads first. None without such loops."""
    rows = [row(body) for body in loops(part)]
    producers = [r for r in rows if r["LDG"] >= 8 and r["STS"]]
    inside = sorted((r for r in producers if not r["conditional loads"]), key=lambda r: r["all"])
    edge = sorted((r for r in producers if r["conditional loads"]), key=lambda r: r["all"])
    consumers = sorted((r for r in rows if r["SHFL"] and r["LDS"]), key=lambda r: r["LDS"])
    if not (inside and edge and consumers):
        return None
    return [inside[0], inside[-1]], [edge[0], edge[-1]], consumers


def main():
    import prebuild
    path, entry, architecture = (sys.argv[1:] + ["80"])[:3] if len(sys.argv) > 2 else (
        prebuild.PREBUILT / "gram_pool.compute_80.ptx", "gram_pool_35_f32", "80")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([prebuild.assembler(architecture), f"-arch=sm_{architecture}", path, "-o", f"{folder}/out"],
                       check=True)
        found = roles(dict(entries(prebuild.disassemble(f"{folder}/out")))[entry])
    if not found:
        sys.exit(f"{entry}: no loops of producers and consumers with a barrier a row")
    (producer, _), _, consumers = found
    print(f"{entry} on sm_{architecture}, instructions of a warp and row:")
    for role, r in [("producer", producer)] + [(f"consumer {at}", r) for at, r in enumerate(consumers)]:
        print(f"  {role:11}", ", ".join(f"{kind} {count:.1f}" for kind, count in r.items()))
    weighed = [(producer, PRODUCERS)] + [(r, CONSUMERS) for r in consumers]
    total = {kind: sum(r[kind] * warps for r, warps in weighed) for kind in producer}
    print(f"  a block and row: {total['all']:.0f}, f32 pipe {f32_pipe(total):.0f}, lane instructions an element"
          f" {total['all'] * 32 / ELEMENTS:.1f}")
    # Warps in the order of the kernel: producers but one, consumers, the last producers.
    order = [producer["all"]] * (PRODUCERS - 1) + [r["all"] for r in consumers for _ in range(CONSUMERS)]
    order.append(producer["all"])
    shares = [sum(order[s::4]) for s in range(4)]
    print("  schedulers:", ", ".join(f"{share:.0f}" for share in shares), f"mean {sum(shares) / 4:.0f}")


if __name__ == "__main__":
    main()
