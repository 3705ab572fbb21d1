"""Made-up images of woven cloth, some with a fault, as PNG files: images.py FOLDER COUNT"""

import struct
import sys
import zlib
from pathlib import Path

SIDE = 84


def png(rows):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def image(seed):
    state = seed * 2654435761 % 2**32 + 1
    rows = []
    for y in range(SIDE):
        row = []
        for x in range(SIDE):
            state = (state * 1664525 + 1013904223) % 2**32
            weave = 90 + 40 * ((x // 4 + y // 4 + seed % 3) % 2) + (state >> 24) % 24
            hit = seed % 7 == 6 and 20 <= x < 40 and 20 + seed % 30 <= y < 34 + seed % 30
            value = min(255, weave + 100 if hit else weave)
            row += [value, value * 3 // 4, value // 2]
        rows.append(row)
    return png(rows)


def main():
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        (folder / f"{seed:04}.png").write_bytes(image(seed))


main()
