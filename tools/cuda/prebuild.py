#!/usr/bin/env python3
"""Builds kernels/prebuilt/<stem>.compute_XX.ptx from kernels/<stem>.cu with NVRTC 12.4, and checks the result.

    tools/cuda/prebuild.py            write the PTX, then assemble it and print what ptxas says
    tools/cuda/prebuild.py --check    build aside and compare: fails when a checked-in file is stale
    tools/cuda/prebuild.py --json F   also write what resources.json holds to F
    tools/cuda/prebuild.py --same     also assemble what NVRTC wrote, as it wrote it, and compare the machine code
    tools/cuda/prebuild.py gemm ...   only these stems

Beside the PTX goes kernels/prebuilt/resources.json, a line for each entry and architecture: registers, shared memory and
spills as ptxas reports them, instructions of the machine code, those of its main loop where that has tensor work, and of
the rows of gram_pool's roles (count_rows.py).
`musc-bench` reads it.

NVRTC 12.4 writes PTX ISA 8.4, which drivers from CUDA 12.4 on load, though the kernels need nothing of it. So each file
says the lowest ISA that knows its target and with which the pinned ptxas takes it (it refused every lower one), and the
hints of 8.3 (`used_bytes_mask`) are left out; the machine code is the same to the last instruction (--same). No line information
ships: it alone needs ISA 7.0, and is most of the text; an installed nvcc (build.rs) keeps it.
ptxas must report no spill and no stack frame for any target, or the run fails. Needs tools/cuda/install.sh only.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import count_rows

ROOT = Path(__file__).resolve().parent.parent.parent
KERNELS = ROOT / "kernels"
PREBUILT = KERNELS / "prebuilt"
RESOURCES = PREBUILT / "resources.json"
TOOLS = Path(os.environ.get("MUSC_CUDA_DIR", ROOT / ".cuda")) / "nvidia"
TARGETS = ("75", "80")
# Every architecture a shipped file may be assembled for on loading, by target of the PTX.
ARCHITECTURES = {"75": ("75",), "80": ("80", "86", "89", "90", "120")}
# PTX ISA versions by age, from the one that introduced the target (PTX ISA manual, release notes).
VERSIONS = {"75": ("6.3", "6.4", "6.5"), "80": ()}
for of_target in VERSIONS:
    VERSIONS[of_target] += ("7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "7.7", "7.8", "8.0", "8.1", "8.2", "8.3", "8.4")


def sources():
    """Stem -> path of every kernel."""
    return {path.stem: path for path in sorted(KERNELS.glob("*.cu"))}


def compile_ptx(stem, target):
    """The PTX of one kernel for one target, as NVRTC writes it."""
    nvrtc = ctypes.CDLL(str(TOOLS / "cuda_nvrtc/lib/libnvrtc.so.12"))
    headers = sorted((KERNELS / "common").iterdir())
    names = [f"common/{h.name}".encode() for h in headers] + [h.name.encode() for h in headers]
    texts = [h.read_bytes() for h in headers] * 2
    program = ctypes.c_void_p()
    array = ctypes.c_char_p * len(names)

    def check(code):
        if code:
            nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(f"nvrtc: {nvrtc.nvrtcGetErrorString(code).decode()}")

    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), (KERNELS / f"{stem}.cu").read_bytes(),
                                   f"kernels/{stem}.cu".encode(), len(names), array(*texts), array(*names)))
    options = [f"--gpu-architecture=compute_{target}".encode(), b"--std=c++17", b"-default-device"]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    if failed:
        check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        log = ctypes.create_string_buffer(size.value)
        check(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(log.value.decode())
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    ptx = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx))
    check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    return ptx.value.decode()


def for_old_drivers(ptx, target, name):
    """The PTX with the lowest ISA that ptxas takes it with, and without the hints that need a later one."""
    ptx = re.sub(r'^[ \t]*\.pragma "used_bytes_mask [^\n]*\n', "", ptx, flags=re.M)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lowered.ptx"
        for version in VERSIONS[target]:
            lowered, count = re.subn(r"^\.version [\d.]+$", f".version {version}", ptx, flags=re.M)
            if count != 1:
                raise RuntimeError(f"{name}: {count} lines `.version`, expected 1")
            path.write_text(lowered)
            oldest = ARCHITECTURES[target][0]
            run = subprocess.run([assembler(oldest), f"-arch=sm_{oldest}", path, "-o", f"{folder}/out"],
                                 capture_output=True, text=True)
            if run.returncode == 0:
                return lowered
    raise RuntimeError(f"{name}: refused with every PTX ISA up to {VERSIONS[target][-1]}: {run.stderr}")


def assembler(architecture):
    """The oldest pinned ptxas that knows the architecture."""
    return TOOLS / ("cu13/bin/ptxas" if int(architecture) > 90 else "cuda_nvcc/bin/ptxas")


def disassemble(cubin):
    """The machine code as text."""
    run = subprocess.run([TOOLS / "cu13/bin/nvdisasm", "-c", cubin], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"nvdisasm {cubin}: {run.stderr}")
    return run.stdout


def same_code(path, original, architecture):
    """Whether two PTX texts are the same machine code: one in a file, one as a string."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "original.ptx"
        other.write_text(original)
        codes = []
        for ptx in (path, other):
            subprocess.run([assembler(architecture), f"-arch=sm_{architecture}", ptx, "-o", f"{folder}/out"], check=True)
            codes.append(re.findall(r"/\*[0-9a-f]{4,}\*/.*|^\.text\..*", disassemble(f"{folder}/out"), flags=re.M))
        return codes[0] == codes[1] and len(codes[0]) > 0


def machine_code(text):
    """Of each entry: instructions, of them IMAD (which the f32 pipe takes), those of its innermost loop with the most tensor
    work, and where it has producers and consumers what a row costs each: all instructions, and those of the f32 pipe."""
    found = {}
    for entry, part in count_rows.entries(text):
        lines, loops = count_rows.code_and_loops(part)
        codes = [count_rows.name(line) for line in lines]

        def count(start, end):
            inside = codes[start:end + 1]
            mma = sum(c.startswith(("HMMA", "IMMA")) for c in inside)
            return [len(inside), mma, sum(c.startswith("LDSM") for c in inside)]
        main = max((count(*loop) for loop in count_rows.innermost(loops)), key=lambda c: (c[1], c[0]), default=[0, 0, 0])
        found[entry] = {"instructions": sum(c != "NOP" for c in codes), "imad": sum(c.startswith("IMAD") for c in codes)}
        if main[1]:
            found[entry]["main_loop"] = dict(zip(("instructions", "mma", "ldmatrix"), main))
        if rows := count_rows.roles(part):
            pair = [[[round(r["all"], 2), round(count_rows.f32_pipe(r), 2)] for r in role] for role in rows]
            found[entry]["rows"] = dict(zip(("inside", "edge", "consumers"), pair))
    return found


def assemble(path, architecture):
    """What `ptxas -v` says of each entry of one file, and what its machine code is: a list of dicts."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run([assembler(architecture), "-v", f"-arch=sm_{architecture}", path, "-o", f"{folder}/out"],
                             capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"ptxas sm_{architecture} {path.name}: {run.stderr}")
        code = machine_code(disassemble(f"{folder}/out"))
    entries, entry = [], None
    for line in run.stderr.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            entry = {"kernel": found.group(1), "arch": f"sm_{architecture}", "registers": 0, "shared": 0}
            entry.update(code[found.group(1)])
            entries.append(entry)
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            entry["stack"], entry["spill_stores"], entry["spill_loads"] = map(int, found.groups())
        elif found := re.search(r"Used (\d+) registers", line):
            entry["registers"] = int(found.group(1))
            if shared := re.search(r"(\d+) bytes smem", line):
                entry["shared"] = int(shared.group(1))
    return entries


def main():
    parser = argparse.ArgumentParser(description="prebuilt PTX of the kernels")
    parser.add_argument("stems", nargs="*")
    parser.add_argument("--check", action="store_true", help="compare with the checked-in files instead of writing")
    parser.add_argument("--json", type=Path, help="write what ptxas reports to this file")
    parser.add_argument("--same", action="store_true", help="compare machine code with that of NVRTC's own text")
    options = parser.parse_args()
    known = sources()
    if unknown := [s for s in options.stems if s not in known]:
        sys.exit(f"no such kernel: {', '.join(unknown)}; found: {', '.join(known)}")
    jobs = [(stem, target) for stem in options.stems or known for target in TARGETS]
    problems = []
    PREBUILT.mkdir(exist_ok=True)

    def build(job):
        stem, target = job
        original = compile_ptx(stem, target)
        return original, for_old_drivers(original, target, f"{stem} for compute_{target}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        built = list(pool.map(build, jobs))
    for (stem, target), (_, ptx) in zip(jobs, built):
        path = PREBUILT / f"{stem}.compute_{target}.ptx"
        if options.check:
            if not path.exists() or path.read_text() != ptx:
                problems.append(f"{path.relative_to(ROOT)} is stale: run tools/cuda/prebuild.py")
        else:
            aside = path.with_suffix(".new")
            aside.write_text(ptx)
            aside.rename(path)
    if not options.stems:
        wanted = {f"{stem}.compute_{target}.ptx" for stem, target in jobs}
        for path in sorted(PREBUILT.glob("*.ptx")):
            if path.name not in wanted:
                problems.append(f"{path.relative_to(ROOT)} belongs to no kernel: delete it")

    assembled = [(PREBUILT / f"{s}.compute_{t}.ptx", a) for s, t in jobs for a in ARCHITECTURES[t]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = pool.map(lambda job: assemble(*job), [job for job in assembled if job[0].exists()])
        if options.same:
            for (stem, target), (original, _) in zip(jobs, built):
                for arch in ARCHITECTURES[target]:
                    if not same_code(PREBUILT / f"{stem}.compute_{target}.ptx", original, arch):
                        problems.append(f"{stem} on sm_{arch}: not the machine code of NVRTC's own text")
    table = [entry for report in reports for entry in report]
    table.sort(key=lambda e: (e["kernel"], int(e["arch"][3:])))
    for e in table:
        print(f"{e['kernel']:34} {e['arch']:7} {e['registers']:4} registers {e['shared']:6} shared"
              f" {e['stack']:4} stack {e['spill_stores'] + e['spill_loads']:4} spilled")
        if e["stack"] or e["spill_stores"] or e["spill_loads"]:
            problems.append(f"{e['kernel']} on {e['arch']} uses a stack frame or spills")
    text = "[\n" + ",\n".join(json.dumps(e) for e in table) + "\n]\n"
    if options.json:
        options.json.write_text(text)
    if not options.stems and options.check and (not RESOURCES.exists() or RESOURCES.read_text() != text):
        problems.append(f"{RESOURCES.relative_to(ROOT)} is stale: run tools/cuda/prebuild.py")
    if not options.stems and not options.check:
        RESOURCES.write_text(text)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
