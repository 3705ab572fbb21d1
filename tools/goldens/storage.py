"""Files of goldens: reading, writing with the same bytes each time, comparing, and the table of digests."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
TABLE = DATA / "README.md"

TYPES = {"float32": "F32", "int32": "I32", "uint8": "U8"}


def write(path, tensors, metadata):
    """Writes a safetensors file: tensors by size of their type, so that each is aligned, then by name; metadata by key.

    The package's own writer puts the metadata in another order each time.
    """
    header, parts, at = {"__metadata__": {key: metadata[key] for key in sorted(metadata)}}, [], 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        data = np.ascontiguousarray(tensors[name])
        part = data.astype(data.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": TYPES[data.dtype.name],
            "shape": list(data.shape),
            "data_offsets": [at, at + len(part)],
        }
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def read(path):
    """The tensors of a file, and its metadata."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    return load_file(path), metadata


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def sha256_of_folder(folder):
    """One digest for a folder: of the lines `digest  path` of its files, sorted by path (README.md files left out)."""
    lines = []
    for path in sorted(Path(folder).rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file() and path.name != "README.md":
            lines.append(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of(path):
    return sha256_of_folder(path) if path.is_dir() else sha256(path)


def entries(folder):
    """What `folder` holds and the table must list: every file and folder but makers and the README itself."""
    names = []
    for path in sorted(folder.iterdir()):
        if path.suffix != ".py" and path.name not in ("README.md", "__pycache__"):
            names.append(path.name + "/" * path.is_dir())
    return names


def table(path=TABLE):
    """The digests that the README states: rows of a name and 64 hexadecimal digits, both in backquotes."""
    digests = {}
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 4 and len(cells[2]) == 66 and cells[1][:1] == cells[2][:1] == "`":
            digests[cells[1].strip("`")] = cells[2].strip("`")
    return digests


def write_digests(folder, names=None, path=TABLE):
    """Puts the digests of `names`, or of all entries and no others, into the README's table."""
    lines = path.read_text().splitlines()
    head = lines.index("| name | SHA-256 |")
    end = head + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    digests = {} if names is None else table(path)
    for name in entries(folder) if names is None else names:
        digests[name] = digest_of(folder / name)
    rows = [f"| `{name}` | `{digests[name]}` |" for name in sorted(digests)]
    path.write_text("\n".join(lines[: head + 2] + rows + lines[end:]) + "\n")


def compare(found, expected, absolute, relative):
    """Why `found` is not `expected`, or None. |a - b| <= absolute + relative * |b| for each value; NaN is never equal."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return f"shape {list(found.shape)}, expected {list(expected.shape)}"
    if found.dtype.kind in "iu" or expected.dtype.kind in "iu":
        wrong = found != expected
    else:
        a, b = found.astype(np.float64), expected.astype(np.float64)
        wrong = ~(np.abs(a - b) <= absolute + relative * np.abs(b))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        return f"{int(wrong.sum())} of {wrong.size} values differ, the first at {list(at)}: {found[at]}, expected {expected[at]}"
    return None
